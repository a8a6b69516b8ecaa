"""A small committee and a few labeled structures, for the tests of what is done with models."""

from functools import cache
from typing import Any

import jax
import numpy as np

from alj.campaign import datasets, models
from alj.campaign.reading import empty_labels
from alj.types import Structure

CONFIG = {"name": "behler_parrinello", "cutoff_A": 3.2, "hidden": [4]}
CELL = np.array([[7.9, 0, 0], [0.7, 7.8, 0], [-0.5, 0.4, 7.7]])


def cluster(seed: int, atoms: int = 8, *, cell: np.ndarray = CELL) -> Structure:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)[:atoms]
    fields: dict[str, Any] = {
        "positions": 2.6 * grid + rng.uniform(-0.3, 0.3, (atoms, 3)),
        "species": np.full(atoms, 8, np.int32),
        "cell": cell,
        "charge": np.int32(0),
        "multiplicity": np.int32(0),
    }
    return Structure(**fields)


@cache
def labeled(count: int = 5) -> datasets.Dataset:
    """Clusters with random labels: errors need no physics."""
    rng = np.random.default_rng(1)
    structures = [cluster(seed) for seed in range(count)]
    labels = [
        empty_labels(8)._replace(energy=rng.normal(size=()), forces=rng.normal(size=(8, 3)))
        for _ in structures
    ]
    info = [{"config_type": "even" if i % 2 == 0 else "odd"} for i in range(count)]
    return datasets.append(datasets.empty(), structures, labels, info)


@cache
def trained(dtype=np.float64):
    """A potential and the params of a committee of 3, as they begin."""
    potential = models.potential_of(CONFIG, (8,))
    params = jax.vmap(potential.init)(jax.random.split(jax.random.key(0), 3))
    return potential, jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)


@cache
def argon(**settings) -> models.Model:
    """Lennard-Jones as a model; `settings` are those of the potential."""
    potential = models.potential_of({"name": "lennard_jones", **settings}, (18,))
    return models.model_of(potential, potential.init(jax.random.key(0)), {"members": 1})
