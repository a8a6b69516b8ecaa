"""What a pool says of itself: its labels, its walks, and any other column of numbers."""

import numpy as np

from alj.campaign import datasets
from alj.campaign.datasets import Dataset

VALUES = ("label_energies", "label_atomic_energies", "label_force_magnitudes", "columns")
"""Fields of `Evidence` that need no model."""


def of_data(pool: Dataset, wanted: set[str]) -> dict:
    """Those of `VALUES` that are wanted; NaN where there is no such atom or no such label."""
    found: dict = {}
    if "label_energies" in wanted:
        found["label_energies"] = pool.energy / datasets.sizes(pool)
    if "label_atomic_energies" in wanted:
        found["label_atomic_energies"] = _by_structure(pool, pool.atomic_energies)
    if "label_force_magnitudes" in wanted:
        found["label_force_magnitudes"] = _by_structure(pool, np.linalg.norm(pool.forces, axis=1))
    if "columns" in wanted:
        found["columns"] = _columns(pool)
    return found


def walks_of(pool: Dataset) -> np.ndarray:
    """Which walk each structure comes from, as far as the data say so (`origin` and `walk`)."""
    names = [f"{about.get('origin', '')} {about.get('walk', '')}" for about in pool.info]
    return np.unique(names, return_inverse=True)[1].reshape(-1) if names else np.zeros(0, int)


def _by_structure(pool: Dataset, values: np.ndarray) -> np.ndarray:
    """(n, atoms) of values one after another, NaN beyond the last atom."""
    sizes = datasets.sizes(pool)
    found = np.full((len(sizes), int(sizes.max(initial=1))), np.nan)
    found[np.arange(found.shape[1])[None] < sizes[:, None]] = values
    return found


def _columns(pool: Dataset) -> dict[str, np.ndarray]:
    """Numbers of the structures by name, (n,); of their atoms where there is one for each."""
    sizes = datasets.sizes(pool)
    found = {}
    for name in {name for about in pool.info for name in about}:
        rows = [_numbers(about.get(name)) for about in pool.info]
        if all(len(row) <= 1 for row in rows):
            found[name] = np.array([row[0] if len(row) else np.nan for row in rows])
        elif all(len(row) in (0, size) for row, size in zip(rows, sizes, strict=True)):
            given = [
                row if len(row) else np.full(size, np.nan)
                for row, size in zip(rows, sizes, strict=True)
            ]
            found[name] = _by_structure(pool, np.concatenate(given))
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _numbers(value) -> np.ndarray:
    """A number or a list of numbers, empty for anything else."""
    if isinstance(value, (str, bool)) or value is None:
        return np.zeros(0)
    try:
        return np.asarray(value, float).reshape(-1)
    except (TypeError, ValueError):
        return np.zeros(0)
