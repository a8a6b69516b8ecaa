"""Dense padded neighbor tables: the one layout for angular sums, Monte Carlo, CPUs and GPUs.

An atom's row lists every image of every atom nearer than the cutoff, its own images included, so
cells smaller than twice the cutoff are right. Capacities come in buckets chosen here.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from alj.arrays import bucket
from alj.geometry.periodic import heights, images_needed, minimum_image, reciprocal
from alj.types import BadInput, Neighbors, Structure


class TableSize(NamedTuple):
    """The static shape of a table: neighbors per atom, and images searched on either side."""

    capacity: int
    images: tuple[int, int, int]


def neighbor_table(structure: Structure, cutoff: float, size: TableSize) -> Neighbors:
    """Neighbors of every atom of one structure, in the order of their indices.

    `overflow` is set when a row is full or a cell is too small for `size.images`.
    """
    return table_from_offsets(structure, cutoff, size.capacity, image_offsets(size.images))


def image_offsets(images: tuple[int, int, int]) -> Int[Array, "offsets 3"]:
    """The image shifts to search around the nearest image."""
    return jnp.asarray(list(product(*(range(-n, n + 1) for n in images))), jnp.int32)


def table_from_offsets(
    structure: Structure, cutoff: float, capacity: int, offsets: Int[Array, "offsets 3"]
) -> Neighbors:
    """`neighbor_table` with the images as an array, for those who carry the size in their state."""
    atoms = structure.positions.shape[0]
    near, shifts = _near(structure, cutoff, offsets)
    near, shifts = near.reshape(atoms, -1), shifts.reshape(atoms, -1, 3)
    columns, count = compact(near, capacity)
    found = columns < near.shape[1]
    indices = jnp.where(found, columns // offsets.shape[0], atoms)
    shifts = jnp.take_along_axis(shifts, jnp.minimum(columns, near.shape[1] - 1)[..., None], axis=1)
    # rounding in a height must not condemn a cell of exactly twice the cutoff (cf. images_needed)
    small = jnp.any(cutoff / heights(structure.cell) - 0.500001 > jnp.max(offsets, axis=0))
    overflow = small | jnp.any(count > capacity)
    return Neighbors(indices, jnp.where(found[..., None], shifts, 0), overflow)


def table_size(
    structures: Structure, cutoff: float, *, slack: float = 1.0, smallest: int = 4
) -> TableSize:
    """The bucketed size that holds a batch of structures (host; structures have a leading axis).

    `slack` > 1 leaves room for denser structures still to come. Raises BadInput where a structure
    holds absurdly many neighbors (a cell collapsed or in the wrong unit).
    """
    images = images_needed(np.asarray(structures.cell), cutoff)
    count = int(np.max(jax.device_get(_largest_counts(structures, cutoff, images)), initial=0))
    if count > _ABSURD:
        raise BadInput(
            f"an atom has {count} neighbors within {cutoff} Å: expected at most {_ABSURD}; "
            "is the cell in Å, and not collapsed?"
        )
    return TableSize(bucket(int(np.ceil(count * slack)), smallest=smallest), images)


def most_neighbors(
    structure: Structure, cutoff: float, images: tuple[int, int, int]
) -> Int[Array, ""]:
    """The largest number of neighbors that an atom of one structure has."""
    near, _ = _near(structure, cutoff, image_offsets(images))
    return jnp.max(jnp.sum(near, axis=(1, 2)), initial=0)


def batch_tables(
    structures: Structure, cutoff: float, *, size: TableSize | None = None
) -> Neighbors:
    """Tables for a batch; sized by the batch unless `size` is given."""
    return _batch_tables(structures, cutoff, size or table_size(structures, cutoff))


def grown(neighbors: Neighbors) -> Neighbors:
    """An emptied table of about twice the capacity, with the overflow flag down."""
    capacity = bucket(2 * neighbors.indices.shape[-1])
    atoms = neighbors.indices.shape[-2]
    shape = (*neighbors.indices.shape[:-1], capacity)
    return Neighbors(
        jnp.full(shape, atoms, neighbors.indices.dtype),
        jnp.zeros((*shape, 3), neighbors.shifts.dtype),
        jnp.zeros_like(neighbors.overflow),
    )


def compact(mask: Bool[Array, "rows columns"], capacity: int):
    """The first `capacity` true columns of each row (the column count pads), and their number.

    A binary search in the running count: several times faster on CPUs than sorting or scattering.
    """
    running = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    columns = jax.vmap(lambda row: jnp.searchsorted(row, wanted, method="scan_unrolled"))(running)
    return columns.astype(jnp.int32), running[:, -1]


_ABSURD = 2000


def _near(structure, cutoff, offsets):
    """Which images lie within the cutoff, (atoms, atoms, offsets), and their shifts."""
    positions, species, cell = structure.positions, structure.species, structure.cell
    atoms = positions.shape[0]
    inverse = reciprocal(cell)
    nearest, base = minimum_image(positions[None, :] - positions[:, None], cell, inverse)
    vectors = nearest[:, :, None] + (offsets.astype(positions.dtype) @ cell)[None, None]
    squares = jnp.sum(vectors * vectors, axis=-1)
    itself = jnp.eye(atoms, dtype=bool)[:, :, None] & jnp.all(offsets == 0, axis=-1)[None, None]
    real = (species > 0)[:, None, None] & (species > 0)[None, :, None]
    return (squares < cutoff * cutoff) & real & ~itself, base[:, :, None] + offsets[None, None]


@partial(jax.jit, static_argnums=(1, 2))
def _largest_counts(structures, cutoff, images):
    return jax.lax.map(lambda one: most_neighbors(one, cutoff, images), structures)


@partial(jax.jit, static_argnums=(1, 2))
def _batch_tables(structures, cutoff, size):
    return jax.lax.map(lambda s: neighbor_table(s, cutoff, size), structures)
