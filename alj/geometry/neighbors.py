"""Dense padded neighbor tables: the one layout for angular sums, Monte Carlo, CPUs and GPUs.

An atom's row lists every image of every atom nearer than the cutoff, its own images included, so
cells smaller than twice the cutoff are right. Capacities come in buckets chosen here. Few atoms
are compared pair by pair; many are first sorted into the bins of a cell list, which gives the same
table in a time linear in their number.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import bucket
from alj.geometry.cell_lists import Grid, into_bins, nearby, suitable_grid
from alj.geometry.periodic import fractional, heights, images_needed
from alj.types import BadInput, Neighbors, Structure


class TableSize(NamedTuple):
    """The static shape of a table: neighbors per atom, and images searched on either side.

    `grid` is that of the cell list; without one all pairs are compared.
    """

    capacity: int
    images: tuple[int, int, int]
    grid: Grid | None = None


def neighbor_table(structure: Structure, cutoff: float, size: TableSize) -> Neighbors:
    """Neighbors of every atom of one structure, in the order of their indices.

    `overflow` is set when a row or a bin is full, or a cell is too small for `size.images` or
    `size.grid`.
    """
    offsets = image_offsets(size.images)
    return table_from_offsets(structure, cutoff, size.capacity, offsets, size.grid)


def image_offsets(images: tuple[int, int, int]) -> Int[Array, "offsets 3"]:
    """The image shifts to search around the nearest image."""
    return jnp.asarray(list(product(*(range(-n, n + 1) for n in images))), jnp.int32)


def table_from_offsets(
    structure: Structure,
    cutoff: float,
    capacity: int,
    offsets: Int[Array, "offsets 3"],
    grid: Grid | None = None,
) -> Neighbors:
    """`neighbor_table` with the images as an array, for those who carry the size in their state."""
    # rounding in a height must not condemn a cell of exactly twice the cutoff (cf. images_needed)
    small = jnp.any(cutoff / heights(structure.cell) - 0.500001 > jnp.max(offsets, axis=0))
    if grid is not None:
        found = _from_bins(structure, cutoff, capacity, offsets, grid)
        return found._replace(overflow=found.overflow | small)
    places = _places(structure)
    near = _near(places, cutoff, offsets)
    numbers, count = compact(near.reshape(near.shape[0], -1), capacity)
    rows = jnp.arange(near.shape[0], dtype=jnp.int32)
    indices, shifts = _entries(places, offsets, rows, numbers)
    return Neighbors(indices, shifts, small | jnp.any(count > capacity))


def table_size(
    structures: Structure, cutoff: float, *, slack: float = 1.0, smallest: int = 4
) -> TableSize:
    """The bucketed size that holds a batch of structures (host; structures have a leading axis).

    `slack` > 1 leaves room for denser structures still to come. Raises BadInput where a structure
    holds absurdly many neighbors (a cell collapsed or in the wrong unit).
    """
    images = images_needed(np.asarray(structures.cell), cutoff)
    grid = suitable_grid(structures, cutoff, slack=slack)
    counts = _largest_counts(structures, cutoff, images, grid)
    count = int(np.max(jax.device_get(counts), initial=0))
    if count > _ABSURD:
        raise BadInput(
            f"an atom has {count} neighbors within {cutoff} Å: expected at most {_ABSURD}; "
            "is the cell in Å, and not collapsed?"
        )
    return TableSize(bucket(int(np.ceil(count * slack)), smallest=smallest), images, grid)


def most_neighbors(
    structure: Structure, cutoff: float, images: tuple[int, int, int], grid: Grid | None = None
) -> Int[Array, ""]:
    """The largest number of neighbors that an atom of one structure has.

    With a grid: of those in bins that are not too full.
    """
    offsets = image_offsets(images)
    if grid is None:
        return jnp.max(jnp.sum(_near(_places(structure), cutoff, offsets), axis=(1, 2)), initial=0)
    bins, places = into_bins(structure, cutoff, grid), _places(structure)

    def counted(rows):
        near = _near_candidates(places, cutoff, offsets, rows, nearby(bins, grid, rows))
        return jnp.max(jnp.sum(near, axis=(1, 2)))

    atoms = structure.species.shape[0]
    return jnp.max(jax.lax.map(counted, _row_blocks(atoms)))


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


def nearer(table: Neighbors, structure: Structure, cutoff: float, capacity: int) -> Neighbors:
    """The part of a table that lies within a shorter cutoff, in the same order.

    What a potential computes of pairs of neighbors grows with the square of the columns.
    """
    atoms, cell = structure.species.shape[0], structure.cell
    rows = jnp.arange(atoms, dtype=jnp.int32)
    squares = 0.0
    for c, vector in enumerate(_between(structure.positions, rows, table.indices)):
        moves = [table.shifts[..., d].astype(cell.dtype) * cell[d, c] for d in range(3)]
        squares = squares + (vector + sum(moves)) ** 2
    columns, count = compact((squares < cutoff * cutoff) & (table.indices < atoms), capacity)
    last = table.indices.shape[-1] - 1
    found, columns = columns <= last, jnp.minimum(columns, last)
    indices = jnp.take_along_axis(table.indices, columns, axis=1)
    shifts = jnp.take_along_axis(table.shifts, columns[..., None], axis=1)
    return Neighbors(
        jnp.where(found, indices, atoms),
        jnp.where(found[..., None], shifts, 0),
        table.overflow | jnp.any(count > capacity),
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
_ROWS = 256
"""Atoms whose candidates are compared at once: what is computed of them stays in the cache."""


class _Places(NamedTuple):
    """Where the atoms of one structure are; `fractions` are positions in units of the cell."""

    positions: Float[Array, "atoms 3"]
    fractions: Float[Array, "atoms 3"]
    species: Int[Array, " atoms"]
    cell: Float[Array, "3 3"]


def _places(structure) -> _Places:
    """The nearest image of a pair is found from differences of these fractions and from nothing
    else, wherever it is needed.

    Across half a cell, where every second atom of a perfect crystal sits, either image is as near:
    the last bit decides. A difference of two stored numbers has the same bits in every program;
    of sums of products, compilers make different ones in different places.
    """
    fractions = fractional(structure.positions, structure.cell)
    # Without the barrier each user could compute them for itself.
    fractions = jax.lax.optimization_barrier(fractions)
    return _Places(structure.positions, fractions, structure.species, structure.cell)


def _near(places, cutoff, offsets):
    """Which images of others lie within the cutoff of each atom, (atoms, atoms, offsets)."""
    species = places.species
    itself = jnp.eye(species.shape[0], dtype=bool)
    real = (species > 0)[:, None] & (species > 0)[None, :]

    def between(points):
        return [along[None, :] - along[:, None] for along in points.T]

    vectors, fractions = between(places.positions), between(places.fractions)
    return _within(places.cell, cutoff, offsets, vectors, fractions, itself, real)


def _near_candidates(places, cutoff, offsets, rows, candidates):
    """The same for some atoms and for each its candidates, (rows, candidates, offsets)."""
    real = (places.species.at[rows].get(mode="fill", fill_value=0) > 0)[:, None]
    # Bins hold no padded atoms.
    real = real & (candidates < places.species.shape[0])
    vectors = _between(places.positions, rows, candidates)
    fractions = _between(places.fractions, rows, candidates)
    itself = candidates == rows[:, None]
    return _within(places.cell, cutoff, offsets, vectors, fractions, itself, real)


def _between(points, rows, others):
    """Vectors from some points to others, one (rows, others) for each direction."""
    there = [along.at[others].get(mode="clip") for along in points.T]
    # A gather inside of what follows would keep that from running over vector lanes.
    there = jax.lax.optimization_barrier(there)
    here = [along.at[rows].get(mode="clip")[:, None] for along in points.T]
    return [far - near for far, near in zip(there, here, strict=True)]


def _within(cell, cutoff, offsets, vectors, fractions, itself, real):
    """Which images of vectors between atoms lie within the cutoff, with one more axis for images.

    Written out by components: on CPUs seven times faster than products with 3 by 3 matrices.
    """
    shifts = [-jnp.round(fraction) for fraction in fractions]
    moves = offsets.astype(cell.dtype) @ cell
    squares = 0.0
    for c, vector in enumerate(vectors):
        nearest = vector + sum(shift * cell[d, c] for d, shift in enumerate(shifts))
        squares = squares + (nearest[..., None] + moves[:, c].reshape(1, 1, -1)) ** 2
    itself = itself[..., None] & jnp.all(offsets == 0, axis=-1).reshape(1, 1, -1)
    return (squares < cutoff * cutoff) & real[..., None] & ~itself


def _entries(places, offsets, rows, numbers):
    """Indices and shifts of some rows of a table: `numbers` count the images of all atoms."""
    atoms, images = places.species.shape[0], offsets.shape[0]
    indices = numbers // images
    nearest = [-jnp.round(each) for each in _between(places.fractions, rows, indices)]
    shifts = jnp.stack(nearest, axis=-1).astype(jnp.int32) + offsets[numbers % images]
    return indices, jnp.where((indices < atoms)[..., None], shifts, 0)


def _from_bins(structure, cutoff, capacity, offsets, grid):
    """The table by a cell list; neighbors are put in order after the far ones are dropped."""
    atoms, images = structure.species.shape[0], offsets.shape[0]
    bins, places = into_bins(structure, cutoff, grid), _places(structure)

    def some(rows):
        candidates = nearby(bins, grid, rows)
        near = _near_candidates(places, cutoff, offsets, rows, candidates)
        columns, count = compact(near.reshape(rows.shape[0], -1), capacity)
        numbers = candidates[..., None] * images + jnp.arange(images, dtype=jnp.int32)[None, None]
        numbers = numbers.reshape(rows.shape[0], -1)
        last = numbers.shape[1]
        kept = jnp.take_along_axis(numbers, jnp.minimum(columns, last - 1), axis=1)
        kept = jnp.sort(jnp.where(columns < last, kept, atoms * images), axis=1)
        return *_entries(places, offsets, rows, kept), jnp.any(count > capacity)

    indices, shifts, full = jax.lax.map(some, _row_blocks(atoms))
    indices = indices.reshape(-1, capacity)[:atoms]
    shifts = shifts.reshape(-1, capacity, 3)[:atoms]
    return Neighbors(indices, shifts, bins.overflow | jnp.any(full))


def _row_blocks(atoms: int):
    """The indices of all atoms in blocks, padded with indices beyond the last."""
    blocks = -(-atoms // _ROWS)
    return jnp.arange(blocks * _ROWS, dtype=jnp.int32).reshape(blocks, _ROWS)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _largest_counts(structures, cutoff, images, grid):
    return jax.lax.map(lambda one: most_neighbors(one, cutoff, images, grid), structures)


@partial(jax.jit, static_argnums=(1, 2))
def _batch_tables(structures, cutoff, size):
    return jax.lax.map(lambda s: neighbor_table(s, cutoff, size), structures)
