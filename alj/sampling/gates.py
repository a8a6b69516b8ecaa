"""Gates of a trajectory: what a step may do; a walk that goes beyond is frozen where it was before.

A wrong potential, a time step that is too large, overlapping atoms or a collapsing cell show first
in a step that no healthy trajectory takes. Compiled code cannot raise: the walk stops, its frames
say so (`stopped`), and the last good structure stays.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from alj.geometry.periodic import reciprocal, volume
from alj.types import Neighbors, Structure


class Gates(NamedTuple):
    """Limits of one step; infinite or 0 where nothing is asked.

    `longest_step` of an atom in Å; `hottest` kinetic temperature in K; `closest` two atoms in Å;
    `volume_factor` by which the volume may differ from that of the start.
    """

    longest_step: float
    hottest: float
    closest: float
    volume_factor: float


def passes(
    gates: Gates, before: Structure, after: Structure, table: Neighbors, origin_volume, temperature
) -> Bool[Array, ""]:
    """Whether a step from one structure to another is one that a healthy trajectory takes."""
    real = (after.species > 0)[:, None]
    moved = jnp.where(real, after.positions - _carried(before, after), 0.0)
    fine = jnp.all(jnp.isfinite(after.positions)) & jnp.all(jnp.isfinite(after.cell))
    fine = fine & (jnp.max(jnp.sum(moved**2, axis=-1), initial=0.0) <= gates.longest_step**2)
    if gates.closest > 0:
        fine = fine & (closest_square(after, table) >= gates.closest**2)
    ratio = volume(after.cell) / origin_volume
    fine = fine & (ratio <= gates.volume_factor) & (ratio * gates.volume_factor >= 1.0)
    return fine & (temperature <= gates.hottest)


def closest_square(structure: Structure, table: Neighbors):
    """The square of the shortest distance in the table; infinite where it is empty."""
    positions, atoms = structure.positions, structure.species.shape[0]
    there = positions.at[table.indices].get(mode="fill", fill_value=0.0)
    vectors = there + table.shifts.astype(positions.dtype) @ structure.cell - positions[:, None]
    squares = jnp.sum(vectors**2, axis=-1)
    return jnp.min(jnp.where(table.indices < atoms, squares, jnp.inf), initial=jnp.inf)


def _carried(before: Structure, after: Structure):
    """Where the change of the cell alone would have carried the atoms."""
    strain = reciprocal(before.cell) @ (after.cell - before.cell)
    return before.positions + before.positions @ strain
