"""Neighbor tables that a trajectory carries along and makes anew when they may miss a pair.

A table lists pairs within the cutoff and a skin, so it stays true until atoms have moved by half
the skin. Where the cutoff is known when the tables are sized, what lies within it is picked out at
every step: that costs less than a potential of angles takes for the neighbors in the skin, whose
pairs are several times as many. In a batch the tables of all replicas are made anew together, when
one needs it: a condition under `vmap` would make them at every step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import bucket
from alj.geometry.cell_lists import Grid, roomier
from alj.geometry.neighbors import (
    grown,
    image_offsets,
    nearer,
    table_from_offsets,
    table_size,
)
from alj.geometry.periodic import reciprocal
from alj.sampling.volume_moves import grown_walker, shrunk
from alj.types import Neighbors, Structure


class Table(NamedTuple):
    """A neighbor table, the images it searches, and the positions and cell it was made for.

    `bins` is a mould: its shape, of which nothing is ever read but this, is that of the cell list
    by which the table is made; it is empty where all pairs are compared. `wide` is the table with
    the skin where `neighbors` has been picked out of it, for the structure last seen.
    """

    neighbors: Neighbors
    offsets: Int[Array, "*batch offsets 3"]
    bins: Bool[Array, "*batch first second third slots"]
    positions: Float[Array, "*batch atoms 3"]
    cell: Float[Array, "*batch 3 3"]
    wide: Neighbors | None = None


def unmade(
    structures: Structure, radius: float, *, elastic: bool, cutoff: float | None = None
) -> Table:
    """Empty tables for a batch (host), large enough for its structures and somewhat denser ones.

    `elastic` leaves room for cells that shrink. With a `cutoff` a potential is shown only what lies
    within it, not the skin. Raises BadInput for collapsed structures.
    """
    given = shrunk(structures) if elastic else structures
    size = table_size(given, radius, slack=1.3)
    count, atoms = structures.species.shape
    offsets = jnp.tile(image_offsets(size.images)[None], (count, 1, 1))
    wide = _empty(count, atoms, size.capacity)
    neighbors = None
    if cutoff is not None:
        needed = table_size(given, cutoff, slack=1.3)
        if needed.capacity < size.capacity:
            neighbors = _empty(count, atoms, needed.capacity)
    never = jnp.full_like(structures.positions, jnp.nan)
    mould = _mould(size.grid, (count,))
    if neighbors is None:
        return Table(wide, offsets, mould, never, structures.cell)
    return Table(neighbors, offsets, mould, never, structures.cell, wide)


def larger(table: Table, structure: Structure, radius: float) -> Table:
    """Tables of twice the capacity and roomier bins, to be made anew (host).

    What is picked out of them gets the next bucket only: its size counts at every step.
    """
    if table.wide is not None:
        capacity = bucket(table.neighbors.indices.shape[-1] + 1)
        neighbors = _empty(*table.neighbors.indices.shape[:-1], capacity)
        wide = larger(table._replace(neighbors=table.wide, wide=None), structure, radius)
        return wide._replace(neighbors=neighbors, wide=wide.neighbors)
    never = jnp.full_like(table.positions, jnp.nan)
    table = table._replace(bins=_mould(roomier(_grid(table)), table.bins.shape[:-4]))
    if not np.all(np.linalg.det(np.asarray(structure.cell)) != 0):
        return table._replace(neighbors=grown(table.neighbors), positions=never)
    sized = grown_walker(_Sized(structure, table.neighbors, table.offsets), radius)
    return table._replace(neighbors=sized.table, offsets=sized.offsets, positions=never)


def refreshed(table: Table, structure: Structure, cutoff: float, skin: float) -> Table:
    """The table, made anew where it may miss a pair within the cutoff.

    With F the deformation of the cell since the table was made and d the longest displacement
    besides, a pair now nearer than r_c was then nearer than (r_c + 2d)/(1 - |F - 1|).
    """
    stale = _stale(table, structure, cutoff, skin)
    if table.wide is None:
        return _renewed(stale, table, structure, cutoff + skin)
    before = table.neighbors
    table = table._replace(neighbors=table.wide, wide=None)
    table = _renewed(stale, table, structure, cutoff + skin)
    near = nearer(table.neighbors, structure, cutoff, before.indices.shape[-1])
    near = near._replace(overflow=near.overflow | before.overflow)
    return table._replace(neighbors=near, wide=table.neighbors)


def _empty(*shape: int) -> Neighbors:
    """Tables without neighbors, of shape (batch, atoms, capacity) or without the batch."""
    return Neighbors(
        jnp.full(shape, shape[-2], jnp.int32),
        jnp.zeros((*shape, 3), jnp.int32),
        jnp.zeros(shape[:-2], bool),
    )


class _Sized(NamedTuple):
    """What `volume_moves.grown_walker` enlarges."""

    structure: Structure
    table: Neighbors
    offsets: Int[Array, "*batch offsets 3"]


def _mould(grid: Grid | None, batch: tuple[int, ...]) -> Bool[Array, "*all"]:
    shape = (0, 0, 0, 0) if grid is None else (*grid.shape, grid.capacity)
    return jnp.zeros((*batch, *shape), bool)


def _grid(table: Table) -> Grid | None:
    first, second, third, slots = table.bins.shape[-4:]
    return Grid((first, second, third), slots) if slots else None


def _stale(table, structure, cutoff, skin):
    change = reciprocal(table.cell) @ (structure.cell - table.cell)
    strain = jnp.sqrt(jnp.sum(change**2))
    carried = table.positions + table.positions @ change
    moved = jnp.where((structure.species > 0)[:, None], structure.positions - carried, 0.0)
    longest = jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1)))
    # written so that NaN, the mark of a table never made, counts as stale
    return ~(cutoff + 2.0 * longest <= (1.0 - strain) * (cutoff + skin))


def _renewed(stale, table, structure, radius):
    grid, offsets, bins = _grid(table), table.offsets, table.bins

    def made(parts, offsets, structure):
        old = parts[0]
        fresh = table_from_offsets(structure, radius, old.indices.shape[-1], offsets, grid)
        fresh = fresh._replace(overflow=fresh.overflow | old.overflow)
        return fresh, structure.positions, structure.cell

    def kept(parts, offsets, structure):
        return parts

    @custom_vmap
    def renew(stale, parts, offsets, structure):
        return jax.lax.cond(stale, made, kept, parts, offsets, structure)

    @renew.def_vmap
    def _together(size, batched, stale, parts, offsets, structure):
        def full(leaf, has):
            return leaf if has else jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))

        given = (stale, parts, offsets, structure)
        stale, parts, offsets, structure = jax.tree.map(full, given, tuple(batched))

        def all_of(parts, offsets, structure):
            def chosen(new, old):
                return jnp.where(stale.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

            return jax.tree.map(chosen, jax.vmap(made)(parts, offsets, structure), parts)

        every = jax.lax.cond(jnp.any(stale), all_of, kept, parts, offsets, structure)
        return every, jax.tree.map(lambda _: True, every)

    parts = (table.neighbors, table.positions, table.cell)
    neighbors, positions, cell = renew(stale, parts, offsets, structure)
    return Table(neighbors, offsets, bins, positions, cell)
