"""Neighbor tables against ASE's, in cells of every kind; images, overflow, environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list
from potentials.liquids import TRICLINIC, compiled_table, liquid, padded, structure

from alj.geometry.environment import environment, environment_rows
from alj.geometry.neighbors import TableSize, batch_tables, grown, table_size
from alj.geometry.periodic import (
    fractional,
    heights,
    images_needed,
    minimum_image,
    volume,
    wrap,
)
from alj.types import BadInput

CUTOFF = 4.1
SHEARED = np.array([[6.0, 0, 0], [4.5, 5.0, 0], [-3.5, 4.0, 5.5]])
CELLS = {
    "triclinic": TRICLINIC,
    "sheared": SHEARED,
    "tiny": np.array([[2.3, 0, 0], [0.4, 2.6, 0], [0.1, 0.5, 2.2]]),
    "slab": np.array([[7.0, 0, 0], [1.5, 6.5, 0], [0, 0, 0]]),
    "wire": np.array([[0, 0, 0], [0, 0, 0], [1.0, 2.0, 5.0]]),
    "cluster": np.zeros((3, 3)),
}


@pytest.mark.parametrize("name", CELLS)
def test_tables_equal_ase(name):
    cell = CELLS[name]
    rng = np.random.default_rng(7)
    atoms = 2 if name == "tiny" else 9
    # Atoms outside of the cell on purpose.
    points = rng.uniform(-6, 10, size=(atoms, 3))
    s = structure(points, rng.choice([1, 8], atoms), cell)
    batch = jax.tree.map(lambda leaf: leaf[None], s)
    tables = jax.tree.map(lambda leaf: leaf[0], batch_tables(batch, CUTOFF))
    assert not bool(tables.overflow)
    env = environment(s, tables, CUTOFF)

    ase = Atoms(np.asarray(s.species), points, cell=complete_cell(s.cell))
    ase.pbc = np.any(cell != 0, axis=1)
    centers, others, vectors = neighbor_list("ijD", ase, CUTOFF)
    for atom in range(atoms):
        real = np.asarray(env.neighbor_species[atom]) > 0
        found = np.column_stack([env.neighbor_species[atom], env.vectors[atom]])[real]
        expected = np.column_stack([ase.numbers[others], vectors])[centers == atom]
        assert found.shape == expected.shape
        if len(found):
            gaps = np.linalg.norm(found[:, None] - expected[None], axis=2)
            assert gaps.min(axis=1).max() < 1e-10
            assert gaps.min(axis=0).max() < 1e-10
        assert np.all(np.asarray(tables.indices[atom])[~real] == atoms)
        padding = np.asarray(env.vectors[atom])[~real]
        np.testing.assert_array_equal(np.abs(padding - [2 * CUTOFF, 0, 0]), 0.0 * padding)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["Si", "Cu", "NaCl", "Mg"])
def test_atoms_half_a_cell_apart(name, dtype):
    """In perfect crystals either of two images is the nearest: which one must not be decided twice.

    Every vector of the table is within the cutoff, and there are as many as ASE finds.
    """
    lattices = {
        "Si": bulk("Si", a=5.43),
        "Cu": bulk("Cu", cubic=True),
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "Mg": bulk("Mg"),
    }
    for times in ((1, 1, 1), (2, 2, 2), (2, 1, 4), (3, 2, 2)):
        atoms = lattices[name] * times
        s = structure(atoms.positions, atoms.numbers, atoms.cell.array)
        s = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float64 else x, s)
        tables = batch_tables(jax.tree.map(lambda leaf: leaf[None], s), 5.0)
        env = environment(s, jax.tree.map(lambda leaf: leaf[0], tables), 5.0)
        real = np.asarray(env.neighbor_species) > 0
        assert np.linalg.norm(np.asarray(env.vectors)[real], axis=1).max() < 5.0 + 1e-5
        counts = np.bincount(neighbor_list("i", atoms, 5.0), minlength=len(atoms))
        np.testing.assert_array_equal(real.sum(axis=1), counts)


def test_overflow_and_growth():
    s = liquid(51)
    assert bool(compiled_table(s, CUTOFF, TableSize(2, (1, 1, 1))).overflow)
    assert bool(compiled_table(s, CUTOFF, TableSize(32, (0, 0, 0))).overflow)
    small = compiled_table(s, CUTOFF, TableSize(4, (1, 1, 1)))
    large = grown(small)
    assert large.indices.shape[1] >= 8
    assert not bool(large.overflow)
    batch = jax.tree.map(lambda leaf: leaf[None], s)
    size = table_size(batch, CUTOFF)
    assert size.images == images_needed(np.asarray(s.cell), CUTOFF) == (1, 1, 1)
    assert table_size(batch, CUTOFF, slack=1.5).capacity >= size.capacity
    collapsed = batch._replace(cell=batch.cell * 0.05, positions=batch.positions * 0.05)
    with pytest.raises(BadInput, match="collapsed"):
        table_size(collapsed, CUTOFF)


def test_padding_and_rows():
    s = padded(liquid(52), 15)
    tables = compiled_table(s, CUTOFF, TableSize(32, (1, 1, 1)))
    assert np.all(np.asarray(tables.indices[12:]) == 15)
    assert not np.any(np.asarray(tables.indices[:12]) == 12)
    whole = environment(s, tables, CUTOFF)
    rows = environment_rows(s, tables, CUTOFF, jnp.array([4, 15, 0]))
    np.testing.assert_array_equal(rows.vectors[0], whole.vectors[4])
    np.testing.assert_array_equal(rows.species, [8, 0, 8])
    assert not np.any(rows.neighbor_species[1])


def test_minimum_image_and_wrapping():
    rng = np.random.default_rng(8)
    cell = jnp.asarray(SHEARED)
    inverse = jnp.linalg.inv(cell)
    shortest = float(jnp.min(heights(cell))) / 2
    direction = rng.normal(size=(40, 3))
    near = direction / np.linalg.norm(direction, axis=1)[:, None]
    near = jnp.asarray(near * rng.uniform(0, 0.999 * shortest, (40, 1)))
    away = near + jnp.asarray(rng.integers(-3, 4, (40, 3)).astype(float)) @ cell
    found, shifts = minimum_image(away, cell, inverse)
    np.testing.assert_allclose(found, near, atol=1e-12)
    np.testing.assert_allclose(away + shifts @ cell, near, atol=1e-12)

    slab = jnp.asarray(CELLS["slab"])
    points = jnp.asarray(rng.uniform(-20, 20, (10, 3)))
    inside = wrap(points, slab)
    assert jnp.all(
        (fractional(inside, slab)[:, :2] >= -1e-12) & (fractional(inside, slab)[:, :2] < 1)
    )
    np.testing.assert_allclose(inside[:, 2], points[:, 2])
    np.testing.assert_allclose(volume(slab), 7.0 * 6.5)
    np.testing.assert_allclose(volume(jnp.asarray(CELLS["wire"])), np.sqrt(30.0))
    assert heights(slab)[2] == jnp.inf
    np.testing.assert_allclose(volume(cell), abs(np.linalg.det(SHEARED)))
