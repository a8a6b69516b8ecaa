"""Cell lists give the table of all pairs, entry by entry, or say that they cannot."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import compiled_table, padded, structure

from alj.geometry.cell_lists import Grid, into_bins, roomier, suitable_grid
from alj.geometry.neighbors import TableSize, batch_tables, nearer, neighbor_table, table_size
from alj.geometry.periodic import images_needed

CUTOFF = 3.0
CELLS = {
    "cubic": np.diag([18.4, 18.4, 18.4]),
    "triclinic": np.array([[17.0, 0, 0], [5.0, 16.0, 0], [-4.0, 6.0, 15.5]]),
    "sheared": np.array([[19.0, 0, 0], [17.0, 15.0, 0], [-12.0, 11.0, 16.0]]),
    "left-handed": np.array([[0, 15.0, 1.0], [16.0, 0, 0], [0, 2.0, 14.0]]),
    "thin": np.array([[40.0, 0, 0], [1.0, 35.0, 0], [0.3, 0.4, 3.5]]),
    "slab": np.array([[17.0, 1.0, 0], [2.0, 18.0, 3.0], [0, 0, 0]]),
    "wire": np.array([[0, 0, 0], [3.0, 2.0, 60.0], [0, 0, 0]]),
    "cluster": np.zeros((3, 3)),
}
UNDIVIDED = {
    "sheared": [False, True, True],
    "thin": [True, True, False],
    "wire": [False, True, False],
}
"""Cells with directions lower than three times the cutoff, or of no use."""


def filled(name: str, atoms: int = 600, seed: int = 0):
    """Random positions; some atoms cells away, as in dynamics, which never wraps them."""
    rng = np.random.default_rng(seed)
    cell = CELLS[name]
    rows = np.any(cell != 0, axis=1)
    space = np.where(rows[:, None], cell, np.eye(3) * (12.0 if name != "wire" else 4.0))
    points = rng.random((atoms, 3)) @ space + rng.integers(-3, 4, (atoms, 3)) @ cell
    return padded(structure(points, rng.choice([1, 8], atoms), cell), atoms + 12)


def crystal(name: str):
    """Atoms on lattice planes, where rounding would put them into the one bin or the other."""
    points = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 3) / 8
    return structure(points @ CELLS[name], np.full(512, 8), CELLS[name])


def finest(name: str, cutoff: float) -> Grid:
    """Bins just wider than the cutoff, with room for many atoms."""
    cell = CELLS[name]
    tall = 1 / np.linalg.norm(np.linalg.pinv(cell) + 1e-9, axis=0)
    number = [int(min(h / (1.002 * cutoff), 5)) for h in tall]
    if name == "wire":
        number = [1, number[1], 1]
    first, second, third = (n if n >= 3 else 1 for n in number)
    return Grid((first, second, third), 192)


def compared(s, cutoff, grid):
    """Asserts that both ways agree, and returns the grid and the table."""
    batch = jax.tree.map(lambda leaf: leaf[None], s)
    size = table_size(batch, cutoff)._replace(grid=grid)
    found = compiled_table(s, cutoff, size)
    expected = compiled_table(s, cutoff, size._replace(grid=None))
    assert not bool(expected.overflow)
    assert not bool(found.overflow)
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    assert np.sum(np.asarray(found.indices) < s.species.shape[0]) > 500
    return size.grid, found


@pytest.mark.parametrize("name", CELLS)
def test_random_structures(name):
    grid, _ = compared(filled(name), CUTOFF, finest(name, CUTOFF))
    divided = [n >= 3 for n in grid.shape]
    assert divided == UNDIVIDED.get(name, [True] * 3)


@pytest.mark.parametrize("name", ["cubic", "triclinic"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_crystals(name, dtype):
    s = crystal(name)
    s = s._replace(positions=s.positions.astype(dtype), cell=s.cell.astype(dtype))
    # Between two shells, so that no distance is a matter of rounding.
    compared(s, 3.05, finest(name, 3.06))
    compared(s, 3.05, Grid((3, 4, 3), 48))


def test_skin_and_shorter_cutoff():
    """A table with a skin, from which the shorter one is picked, row by row the same."""
    s = filled("triclinic")
    _, wide = compared(s, CUTOFF + 0.9, finest("triclinic", CUTOFF + 0.9))
    size = TableSize(16, (0, 0, 0))
    expected = compiled_table(s, CUTOFF, size)
    found = jax.jit(nearer, static_argnums=(2, 3))(wide, s, CUTOFF, 16)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert bool(nearer(wide, s, CUTOFF, 3).overflow)


def test_overflow_and_room():
    s = filled("cubic")
    small = Grid((6, 6, 6), 5)
    assert bool(into_bins(s, CUTOFF, small).overflow)
    large = roomier(small)
    assert large == Grid((5, 5, 5), 12)
    for _ in range(2):
        large = roomier(large)
    assert large == Grid((3, 3, 3), 48)
    assert roomier(Grid((3, 1, 1), 5)) is None
    assert roomier(None) is None
    assert not bool(into_bins(s, CUTOFF, large).overflow)

    narrow = compiled_table(s, CUTOFF, TableSize(64, (0, 0, 0), Grid((7, 6, 6), 64)))
    assert bool(narrow.overflow)
    shrunk = s._replace(cell=0.9 * s.cell, positions=0.9 * s.positions)
    assert not bool(
        compiled_table(s, CUTOFF, TableSize(96, (0, 0, 0), Grid((6, 6, 6), 96))).overflow
    )
    tight = compiled_table(shrunk, CUTOFF, TableSize(96, (0, 0, 0), Grid((6, 6, 6), 96)))
    assert bool(tight.overflow)


def test_when_bins_are_worth_it():
    def grid(s, cutoff, **settings):
        return suitable_grid(jax.tree.map(lambda leaf: leaf[None], s), cutoff, **settings)

    s = filled("cubic")
    chosen = grid(s, CUTOFF)
    assert chosen.shape == (6, 6, 6)
    assert not bool(into_bins(s, CUTOFF, chosen).overflow)
    assert grid(s, CUTOFF, slack=1.2).capacity >= chosen.capacity
    assert grid(s, 7.0) is None
    assert grid(s._replace(positions=s.positions[:40], species=s.species[:40]), CUTOFF) is None
    # A few atoms in much space: no more bins than about two for each.
    gas = s._replace(positions=50 * s.positions, cell=50 * s.cell)
    sparse = grid(gas, CUTOFF)
    assert 200 < np.prod(sparse.shape) <= 2 * len(s.species)
    assert not bool(compiled_table(gas, CUTOFF, TableSize(8, (0, 0, 0), sparse)).overflow)
    mixed = jax.tree.map(lambda *leaves: jnp.stack(leaves), filled("cubic"), filled("slab"))
    assert suitable_grid(mixed, CUTOFF) is None


def test_batches():
    """Different structures of one batch share a grid; `vmap` gives what a loop gives."""
    several = [filled("cubic", seed=seed) for seed in (1, 2, 3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    batch = batch._replace(cell=batch.cell * jnp.array([1.0, 1.2, 1.05])[:, None, None])
    size = table_size(batch, CUTOFF)._replace(grid=Grid((6, 6, 6), 32))
    looped = batch_tables(batch, CUTOFF, size=size)
    together = jax.jit(jax.vmap(lambda s: neighbor_table(s, CUTOFF, size)))(batch)
    pairs = batch_tables(batch, CUTOFF, size=size._replace(grid=None))
    for one, other, third in zip(looped, together, pairs, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_everywhere(platform):
    s = filled("triclinic")
    s = s._replace(positions=s.positions.astype(jnp.float32), cell=s.cell.astype(jnp.float32))
    size = TableSize(24, images_needed(np.asarray(s.cell), CUTOFF), Grid((4, 4, 4), 24))
    program = jax.jit(partial(neighbor_table, cutoff=CUTOFF, size=size))
    exported = jax.export.export(program, platforms=[platform])(s)
    assert exported.out_avals[0].shape == (612, 24)
