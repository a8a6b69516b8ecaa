"""Bonds that a trajectory must not tear: pairs of the start, each with a longest length."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alj.geometry.periodic import minimum_image, reciprocal
from alj.types import BadInput, Structure

NEAR = 0.75
"""Pairs of the start within this share of the longest length are bonds."""


class Bonds(NamedTuple):
    """Pairs of atoms, and how long they may be in Å; pairs that pad have no limit."""

    pairs: Int[Array, "*batch pairs 2"]
    longest: Float[Array, "*batch pairs"]


def bonds_of(structures: Structure, longest_A: Mapping[str, float]) -> Bonds:
    """The bonds of a batch of structures (host); keys are pairs of atomic numbers such as "6-6".

    Raises BadInput.
    """
    limits = {_elements(key): _length(key, value) for key, value in longest_A.items()}
    found = []
    for index in range(structures.species.shape[0]):
        species = np.asarray(structures.species[index])
        cell = jnp.asarray(structures.cell[index])
        first, second = np.triu_indices(len(species), 1)
        kinds = np.sort(np.stack([species[first], species[second]], axis=1), axis=1)
        longest = np.array([limits.get((int(a), int(b)), 0.0) for a, b in kinds])
        positions = jnp.asarray(structures.positions[index])
        vectors = positions[second] - positions[first]
        nearest, _ = minimum_image(vectors, cell, reciprocal(cell))
        lengths = np.linalg.norm(np.asarray(nearest), axis=-1)
        bonded = np.flatnonzero(lengths < NEAR * longest)
        found.append((np.stack([first[bonded], second[bonded]], axis=1), longest[bonded]))
    most = max(len(longest) for _, longest in found)
    room = [most - len(longest) for _, longest in found]
    pairs = [np.pad(p, ((0, n), (0, 0))) for (p, _), n in zip(found, room, strict=True)]
    lengths = [
        np.pad(x, (0, n), constant_values=np.inf) for (_, x), n in zip(found, room, strict=True)
    ]
    dtype = structures.positions.dtype
    return Bonds(jnp.asarray(np.stack(pairs), jnp.int32), jnp.asarray(np.stack(lengths), dtype))


def all_hold(bonds: Bonds, structure: Structure) -> Bool[Array, ""]:
    """Whether no bond of one structure is longer than it may be."""
    ends = structure.positions[bonds.pairs]
    inverse = reciprocal(structure.cell)
    nearest, _ = minimum_image(ends[:, 1] - ends[:, 0], structure.cell, inverse)
    return jnp.all(jnp.sum(nearest**2, axis=-1) <= bonds.longest**2)


def _elements(key: str) -> tuple[int, int]:
    numbers = str(key).split("-")
    if len(numbers) != 2 or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise BadInput(
            f"longest_bonds_A: expected pairs of atomic numbers such as 6-6, found {key!r}"
        )
    first, second = sorted(map(int, numbers))
    return first, second


def _length(key: str, value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise BadInput(f"longest_bonds_A[{key}]: expected a positive length in Å, found {value}")
    return float(value)
