"""What a campaign tells whoever watches, beyond counts: curves of members, uncertainty, work.

Thinned, so that a run of days has an event file of megabytes. Nothing here is read back.
"""

from typing import Any

import numpy as np

POINTS = 5
"""Points of a training curve in one block of steps (a training has about ten)."""

SERIES = 200
"""Points of a curve along a walk."""

WALKS = 6
"""Walks of which curves are told."""


def training(done: int, info: Any) -> dict[str, Any]:
    """Curves of every member in the block of steps that ends with `done`.

    `steps`, `train` and `validation` (steps, members), and the `quantity` that they are.
    """
    train = np.asarray(info.train_error.energy, float)
    validation = np.asarray(info.validation_error.energy, float)
    quantity, scale = "energy RMSE (meV/atom)", 1000.0
    if not np.isfinite(train).any():
        train = np.asarray(info.train_loss, float)
        validation = np.asarray(info.validation_loss, float)
        quantity, scale = "loss", 1.0
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), POINTS) + 1).astype(int))[
        -POINTS:
    ]
    return {
        "quantity": quantity,
        "steps": (done - len(train) + 1 + rows).tolist(),
        "train": (scale * train[rows]).tolist(),
        "validation": (scale * validation[rows]).tolist(),
    }


def uncertainty(evidence: Any, judged: dict[str, Any] | None) -> dict[str, Any] | None:
    """How uncertain the committee is of the candidates, as far as the selector looked at that.

    A histogram over all candidates, the indicator along the first walks, and the thresholds that
    the selector's report names.
    """
    judged = judged or {}
    if evidence.force_spread is not None:
        spread = np.asarray(evidence.force_spread, float)
        values = spread.max(axis=1, initial=0.0) if spread.ndim == 2 else spread
        name, unit, scale, suffix = "largest force spread of a structure", "eV/Å", 1.0, "eV_per_A"
    elif evidence.energy_spread is not None:
        values = np.asarray(evidence.energy_spread, float)
        name, unit, scale, suffix = "energy spread", "meV/atom", 1000.0, "eV_per_atom"
    else:
        return None
    values = scale * values
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return None
    low, high = float(np.quantile(known, 0.002)), float(known.max())
    edges = np.geomspace(low, high * 1.0001 if high > low else 1.1 * low, 41)
    levels = {
        key.removesuffix(f"_{suffix}"): scale * float(value)
        for key, value in judged.items()
        if key.endswith(f"_{suffix}") and np.isfinite(value)
    }
    return {
        "name": name,
        "unit": unit,
        "edges": edges.tolist(),
        "counts": np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0].tolist(),
        "thresholds": levels,
        "walks": _along(evidence, values),
    }


def _along(evidence: Any, values: np.ndarray) -> list[dict[str, Any]]:
    """The indicator along the first walks, in the order of their frames."""
    if evidence.walks is None or evidence.spacing is None:
        return []
    walks, spacing = np.asarray(evidence.walks), np.asarray(evidence.spacing, float)
    found = []
    for walk in np.unique(walks)[:WALKS]:
        mine = np.flatnonzero(walks == walk)
        mine = mine[np.argsort(spacing[mine], kind="stable")]
        mine = mine[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), SERIES)).astype(int))]
        found.append(
            {"walk": int(walk), "place": spacing[mine].tolist(), "values": values[mine].tolist()}
        )
    return found


def work(frames: Any) -> list[dict[str, Any]]:
    """Work (eV) against the pulled variable, of the first walks of a steered dynamics."""
    seen: Any = getattr(frames, "observed", None)
    if not hasattr(seen, "work") or not hasattr(seen, "anchor"):
        return []
    value, done = np.asarray(seen.value, float), np.asarray(seen.work, float)
    pulled = np.isfinite(np.asarray(seen.anchor, float)) & ~np.asarray(frames.stopped, bool)
    if value.ndim != 2:
        return []
    found = []
    for walk in range(min(value.shape[1], WALKS)):
        rows = np.flatnonzero(pulled[:, walk])
        if len(rows):
            rows = rows[
                np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SERIES)).astype(int))
            ]
            found.append(
                {"variable": value[rows, walk].tolist(), "work_eV": done[rows, walk].tolist()}
            )
    return found
