"""Cell lists: neighbor tables of many atoms in a time linear in their number.

Space is divided by a grid of planes at least the search radius apart, so that all neighbors of an
atom lie in its own bin or in those around it. Along lattice vectors the bins divide the cell
evenly; along a direction that does not repeat they are one radius wide and numbered modulo the
number of bins: atoms far apart may share a bin, but no pair is ever missed. Less than three bins
would meet the same bin twice: such a direction is not divided.

R. W. Hockney and J. W. Eastwood, Computer Simulation Using Particles (McGraw-Hill, 1981), ch. 8;
doi 10.1201/9780367806934.
"""

import math
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import bucket
from alj.geometry.periodic import heights, periodic_axes, reciprocal
from alj.types import Structure


class Grid(NamedTuple):
    """The static shape of a cell list: bins along the three directions, and atoms that one holds.

    A direction that is not divided has one bin.
    """

    shape: tuple[int, int, int]
    capacity: int


class Bins(NamedTuple):
    """Atoms sorted into bins: who is in each (`atoms` pads), the bin of each atom, and overflow.

    `overflow` says that a bin held more atoms than fit, or that bins are narrower than the radius.
    """

    members: Int[Array, "bins capacity"]
    places: Int[Array, "atoms 3"]
    overflow: Bool[Array, ""]


def suitable_grid(structures: Structure, radius: float, *, slack: float = 1.0) -> Grid | None:
    """The grid for a batch of structures (host), None where comparing all pairs is no slower.

    `slack` > 1 leaves room for denser bins still to come.
    """
    cells, species = np.asarray(structures.cell, np.float64), np.asarray(structures.species)
    batch, atoms = species.shape
    periodic = np.any(cells != 0, axis=-1)
    if batch == 0 or np.any(periodic != periodic[0]):
        return None
    shape = _divisions(structures, cells, periodic[0], radius)
    candidates = 3 ** sum(n > 1 for n in shape)
    # Bins hold unequal numbers of atoms, hence more places than atoms.
    if atoms <= _WORTH * candidates * max(1.0, 1.5 * slack * atoms / math.prod(shape)):
        return None
    most = int(np.max(jax.device_get(_fullest(structures, radius, shape))))
    grid = Grid(shape, bucket(math.ceil(most * slack), smallest=2))
    return grid if atoms > _WORTH * candidates * grid.capacity else None


def roomier(grid: Grid | None) -> Grid | None:
    """A grid of twice the capacity and of wider bins, for one that was too small (host)."""
    if grid is None:
        return None
    fewer = [min(n - 1, int(n * _NARROWER)) for n in grid.shape]
    first, second, third = (n if n >= 3 else 1 for n in fewer)
    return Grid((first, second, third), bucket(2 * grid.capacity)) if max(fewer) >= 3 else None


def into_bins(structure: Structure, radius: float, grid: Grid) -> Bins:
    """Sorts the atoms of one structure into bins, those of a bin in the order of their indices."""
    species, shape = structure.species, jnp.asarray(grid.shape, jnp.int32)
    atoms, count = species.shape[0], math.prod(grid.shape)
    _, widths = _scales(structure.cell, radius, grid.shape)
    narrow = (widths < radius * _SAFE) & (shape > 1)
    places = _places(structure, radius, grid.shape)
    bins = jnp.where(species > 0, _flat(places, grid.shape), count)
    order = jnp.argsort(bins, stable=True)
    ends = jnp.searchsorted(bins[order], jnp.arange(count + 1), method="scan_unrolled")
    slots = ends[:-1, None] + jnp.arange(grid.capacity)[None]
    members = order.at[slots].get(mode="fill", fill_value=atoms)
    members = jnp.where(slots < ends[1:, None], members, atoms).astype(jnp.int32)
    full = jnp.max(ends[1:] - ends[:-1]) > grid.capacity
    return Bins(members, places, full | jnp.any(narrow))


def nearby(bins: Bins, grid: Grid, rows: Int[Array, " rows"]) -> Int[Array, "rows candidates"]:
    """Who is in the bins around some atoms, these atoms included; the number of atoms pads."""
    shape = jnp.asarray(grid.shape, jnp.int32)
    around = jnp.asarray(_around(grid), jnp.int32)
    places = bins.places.at[rows].get(mode="clip")
    which = _flat((places[:, None] + around[None]) % shape[None, None], grid.shape)
    return bins.members[which].reshape(rows.shape[0], -1)


_WORTH = 1
"""How many times more atoms than candidates there must be for bins to be the faster."""
_SAFE = 1.0005
"""Bins are wider than the radius by this, beyond what rounding in single precision can take."""
_NARROWER = 0.9


def _divisions(structures, cells, periodic, radius):
    """Bins along the three directions, at most about two for each atom."""
    # Half of the margin is kept for cells that rounding makes a little smaller.
    width = radius * (1.0 + 2.0 * (_SAFE - 1.0))
    # Columns of the pseudo-inverse are 1/height long, and zero where a direction does not repeat.
    steepness = np.linalg.norm(np.linalg.pinv(cells), axis=-2).max(axis=0)
    number = np.where(periodic, 1.0 / np.where(periodic, steepness, 1.0) / width, 1.0)
    if periodic.sum() in (0, 2):
        number = np.where(periodic, number, np.asarray(_extents(structures)) / width + 1.0)
    number = np.floor(np.where(np.isfinite(number), number, 1.0))
    while np.prod(number) > 2.0 * structures.species.shape[1] and number.max() > 2:
        number[np.argmax(number)] = np.floor(0.8 * number.max())
    first, second, third = (int(n) if n >= 3 else 1 for n in number)
    return first, second, third


@jax.jit
def _extents(structures):
    """How far the atoms of a batch reach along the directions that do not repeat, Å."""
    real = (structures.species > 0)[..., None]
    along = structures.positions @ jax.vmap(_normals)(structures.cell)
    high = jnp.max(jnp.where(real, along, -jnp.inf), axis=1)
    low = jnp.min(jnp.where(real, along, jnp.inf), axis=1)
    return jnp.max(high - low, axis=0, initial=0.0)


@partial(jax.jit, static_argnums=(1, 2))
def _fullest(structures, radius, shape):
    """The largest number of atoms in a bin, for each structure."""

    def one(structure):
        bins = _flat(_places(structure, radius, shape), shape)
        weights = jnp.where(structure.species > 0, 1, 0)
        return jnp.max(jnp.zeros(math.prod(shape), weights.dtype).at[bins].add(weights))

    return jax.lax.map(one, structures)


def _places(structure, radius, shape):
    """The bin of every atom along the three directions."""
    steps, _ = _scales(structure.cell, radius, shape)
    along = jnp.floor(structure.positions @ steps + _ORIGIN).astype(jnp.int32)
    return along % jnp.asarray(shape, jnp.int32)[None]


_ORIGIN = 0.381966
"""Where bins begin: beside the planes of crystals, whose atoms rounding would throw to and fro."""


def _scales(cell: Float[Array, "3 3"], radius: float, shape):
    """The matrix that turns positions into numbers of bins, and the widths of these in Å."""
    periodic, tall = periodic_axes(cell), heights(cell)
    wide = radius * (1.0 + 2.0 * (_SAFE - 1.0))
    count = jnp.asarray(shape, cell.dtype)
    steps = jnp.where(periodic[None], reciprocal(cell) * count[None], _normals(cell) / wide)
    divided = jnp.asarray([n > 1 for n in shape])
    return jnp.where(divided[None], steps, 0.0), jnp.where(periodic, tall / count, wide)


def _normals(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Columns are unit vectors at right angles to what repeats: of slabs, and of what has no cell.

    Only the columns of directions that do not repeat have a meaning; those of wires have none.
    """
    a, b, c = cell
    crossed = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)
    squares = jnp.sum(crossed**2, axis=0)
    flat = squares == 0
    lengths = jnp.sqrt(jnp.where(flat, 1.0, squares))
    return jnp.where(flat[None], jnp.eye(3, dtype=cell.dtype), crossed / lengths[None])


def _around(grid: Grid):
    """Steps to the bins around one, itself included."""
    return list(product(*((-1, 0, 1) if n > 1 else (0,) for n in grid.shape)))


def _flat(places, shape):
    """One number for each bin."""
    _, second, third = shape
    return (places[..., 0] * second + places[..., 1]) * third + places[..., 2]
