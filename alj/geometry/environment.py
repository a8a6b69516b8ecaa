"""From a structure and its neighbor table to what a local potential may see."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from alj.types import Environment, Neighbors, Structure


def environment(structure: Structure, neighbors: Neighbors, cutoff: float) -> Environment:
    """The environments of all atoms.

    Padded neighbors get species 0 and the constant vector (2·cutoff, 0, 0): outside of every cutoff
    function, and no gradient flows to them.
    """
    return environment_rows(structure, neighbors, cutoff, jnp.arange(structure.species.shape[0]))


def environment_rows(
    structure: Structure, neighbors: Neighbors, cutoff: float, rows: Int[Array, " rows"]
) -> Environment:
    """The environments of some atoms only. Rows equal to the number of atoms give empty ones."""
    positions, species, cell = structure.positions, structure.species, structure.cell
    atoms = species.shape[0]
    indices = neighbors.indices.at[rows].get(mode="fill", fill_value=atoms)
    shifts = neighbors.shifts.at[rows].get(mode="fill", fill_value=0)
    there = positions.at[indices].get(mode="fill", fill_value=0.0)
    here = positions.at[rows].get(mode="fill", fill_value=0.0)
    vectors = there + shifts.astype(positions.dtype) @ cell - here[:, None]
    neighbor_species = species.at[indices].get(mode="fill", fill_value=0)
    far = jnp.asarray([2.0 * cutoff, 0.0, 0.0], positions.dtype)
    return Environment(
        vectors=jnp.where((neighbor_species > 0)[..., None], vectors, far[None, None]),
        species=species.at[rows].get(mode="fill", fill_value=0),
        neighbor_species=neighbor_species,
        neighbors=indices,
    )
