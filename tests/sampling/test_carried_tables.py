"""Carried tables: never a pair missed, by bins or by pairs, and what overflows can grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import structure

from alj.geometry.neighbors import TableSize, neighbor_table
from alj.sampling.carried_tables import larger, refreshed, unmade

CUTOFF, SKIN, ATOMS = 3.0, 0.6, 700
CELL = np.array([[22.0, 0, 0], [2.0, 21.0, 0], [-1.0, 1.5, 20.0]])
SIZE = TableSize(64, (0, 0, 0))


def gas():
    rng = np.random.default_rng(0)
    return structure(rng.random((ATOMS, 3)) @ CELL, np.full(ATOMS, 8), CELL)


def batch_of(s):
    return jax.tree.map(lambda leaf: leaf[None], s)


def first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


renewed = jax.jit(refreshed, static_argnums=(2, 3))
by_pairs = jax.jit(neighbor_table, static_argnums=(1, 2))


def pairs(table, shown=None):
    """Every pair of a table as a set of rows, those nearer than the cutoff only."""
    indices, shifts = np.asarray(table.indices), np.asarray(table.shifts)
    rows, columns = np.nonzero(indices < ATOMS)
    found = np.column_stack([rows, indices[rows, columns], shifts[rows, columns]])
    return found if shown is None else found[shown(found)]


@pytest.mark.slow
@pytest.mark.parametrize("cutoff", [None, CUTOFF])
def test_follows_what_moves(cutoff):
    """Atoms that walk, in a cell that breathes, seen through a table with a skin."""
    s, rng = gas(), np.random.default_rng(1)
    table = first(unmade(batch_of(s), CUTOFF + SKIN, elastic=True, cutoff=cutoff))
    assert table.bins.size > 0
    assert (table.wide is None) == (cutoff is None)
    remade = 0
    for step in range(12):
        scale = 1.0 - 0.002 * (step % 4)
        positions = scale * s.positions + rng.normal(0, 0.05, (ATOMS, 3))
        s = s._replace(positions=positions, cell=jnp.asarray(CELL) * scale)
        before = table.positions
        table = renewed(table, s, CUTOFF, SKIN)
        assert not bool(table.neighbors.overflow)
        remade += not np.array_equal(before, table.positions, equal_nan=True)

        def near(found, s=s):
            moves = found[:, 2:] @ np.asarray(s.cell)
            vectors = s.positions[found[:, 1]] + moves - s.positions[found[:, 0]]
            return np.linalg.norm(vectors, axis=1) < CUTOFF

        expected = pairs(by_pairs(s, CUTOFF, SIZE))
        np.testing.assert_array_equal(pairs(table.neighbors, near), expected)
        if cutoff is not None:
            np.testing.assert_array_equal(pairs(table.neighbors), expected)
    assert 2 <= remade < 12


@pytest.mark.slow
def test_grows():
    """Too small in every respect, and right after some growth."""
    s = gas()
    table = first(unmade(batch_of(s), CUTOFF + SKIN, elastic=False, cutoff=CUTOFF))
    batched = jax.tree.map(lambda leaf: leaf[None], table)
    few = batched.neighbors._replace(
        indices=batched.neighbors.indices[..., :3], shifts=batched.neighbors.shifts[..., :3, :]
    )
    batched = batched._replace(neighbors=few, bins=batched.bins[..., :2])
    growths = 0
    while bool(renewed(first(batched), s, CUTOFF, SKIN).neighbors.overflow):
        batched, growths = larger(batched, batch_of(s), CUTOFF + SKIN), growths + 1
    assert 2 <= growths <= 8
    found = renewed(first(batched), s, CUTOFF, SKIN).neighbors
    np.testing.assert_array_equal(pairs(found), pairs(by_pairs(s, CUTOFF, SIZE)))


@pytest.mark.slow
def test_batches():
    """Of two replicas one is stale: both come out as they would alone."""
    s = gas()
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), s, s)
    tables = unmade(both, CUTOFF + SKIN, elastic=False, cutoff=CUTOFF)
    together = jax.jit(jax.vmap(lambda t, s: refreshed(t, s, CUTOFF, SKIN)))
    tables = together(tables, both)
    moved = both._replace(positions=both.positions.at[1].add(jnp.sin(9.0 * both.positions[1])))
    after = together(tables, moved)
    np.testing.assert_array_equal(after.positions[0], s.positions)
    np.testing.assert_array_equal(after.positions[1], moved.positions[1])
    for index in (0, 1):
        alone = by_pairs(jax.tree.map(lambda leaf, i=index: leaf[i], moved), CUTOFF, SIZE)
        one = jax.tree.map(lambda leaf, i=index: leaf[i], after.neighbors)
        np.testing.assert_array_equal(pairs(one), pairs(alone))
