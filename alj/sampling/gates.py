"""Gates of a trajectory: what a step may do; a walk that goes beyond is frozen where it was before.

A wrong potential, a time step that is too large, overlapping atoms or a collapsing cell show first
in a step that no healthy trajectory takes. Compiled code cannot raise: the walk stops, its frames
say so (`stopped`), and the last good structure stays.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from alj.geometry.periodic import reciprocal, volume
from alj.potentials import combine
from alj.types import BadInput, Neighbors, Params, Potential, Structure


class Gates(NamedTuple):
    """Limits of one step; infinite or 0 where nothing is asked.

    `longest_step` of an atom in Å; `hottest` kinetic temperature in K; `closest` two atoms in Å;
    `volume_factor` by which the volume may differ from that of the start; `energy_jump` of one time
    step in eV/atom. Of a frame: `force_spread` of any atom over the members of a committee in eV/Å,
    `energy_spread` in eV/atom.
    """

    longest_step: float
    hottest: float
    closest: float
    volume_factor: float
    energy_jump: float
    force_spread: float
    energy_spread: float


def doubted(gates: Gates) -> bool:
    """Whether the gates look at the members of a committee."""
    return math.isfinite(gates.force_spread) or math.isfinite(gates.energy_spread)


def passes(
    gates: Gates,
    before: Structure,
    after: Structure,
    table: Neighbors,
    origin_volume,
    temperature,
    jump,
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
    atoms = jnp.maximum(jnp.sum(after.species > 0), 1)
    fine = fine & (jnp.abs(jump) <= gates.energy_jump * atoms)
    return fine & (temperature <= gates.hottest)


def agrees(
    gates: Gates, member: Potential, params: Params, structure: Structure, table: Neighbors
) -> Bool[Array, ""]:
    """Whether the members of a committee differ by no more than the gates allow.

    Raises BadInput (while it is compiled) for a committee of one, which always agrees.
    """
    if combine.members(params) < 2:
        raise BadInput(
            "a limit on the spread needs a committee of at least 2 members, found one; explore "
            "with the mean of a larger committee"
        )
    fine = jnp.asarray(True)
    if math.isfinite(gates.force_spread):
        energies, forces = combine.member_energies_and_forces(member, params, structure, table)
        squares = jnp.sum(combine.spread(forces) ** 2, axis=-1)
        fine = fine & (jnp.max(squares) <= gates.force_spread**2)
    else:
        energies = jnp.sum(
            jax.vmap(member.evaluate, (0, None))(params, member.describe(structure, table)), axis=1
        )
    atoms = jnp.maximum(jnp.sum(structure.species > 0), 1)
    return fine & (combine.spread(energies) <= gates.energy_spread * atoms)


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
