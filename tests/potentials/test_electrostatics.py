"""Coulomb sums against Madelung's constants, against each other, and against plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import TRICLINIC, liquid, structure, table

from alj.potentials.electrostatics import coulomb_potentials, refusal, split, suitable_mesh
from alj.potentials.reciprocal_sums import over_vectors
from alj.potentials.short_range import COULOMB
from alj.types import BadInput

FACES = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
CRYSTALS = {
    # primitive cell for a nearest distance of 1, place of the other ion, Madelung constant
    "rock salt": (2 * FACES, [0.5, 0.5, 0.5], 1.7475645946331822),
    "cesium chloride": (np.eye(3) * 2 / 3**0.5, [0.5, 0.5, 0.5], 1.7626747730709883),
    "zinc blende": (FACES * 4 / 3**0.5, [0.25, 0.25, 0.25], 1.6380550533887963),
}
CHARGES = jnp.array([1.0, -1.0] * 6)


def summed(charges, s, how, capacity=160):
    """Energy and its derivatives by charges, positions and cell, in one program."""

    def energy(charges, positions, cell):
        there = s._replace(positions=positions, cell=cell)
        return 0.5 * jnp.sum(charges * coulomb_potentials(charges, there, neighbors, how))

    neighbors = table(s, how.cutoff, capacity)
    program = jax.jit(jax.value_and_grad(energy, (0, 1, 2)))
    return program(jnp.asarray(charges), s.positions, s.cell)


@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_constants(name):
    cell, place, expected = CRYSTALS[name]
    nearest = 2.8
    s = structure(
        np.array([np.zeros(3), place @ cell]) * nearest, np.array([11, 17]), cell * nearest
    )
    for cutoff in (5.0, 9.0):
        energy, (_, slopes, by_cell) = summed([1.0, -1.0], s, split(cutoff, 1e-11), 256)
        np.testing.assert_allclose(-energy * nearest / COULOMB, expected, atol=1e-9)
        np.testing.assert_allclose(slopes, 0.0, atol=1e-9)
        # An energy that goes as 1/length: its slope by the size of the cell is minus itself.
        at_place = jnp.sum(s.cell * by_cell) + jnp.sum(s.positions * slopes)
        np.testing.assert_allclose(at_place, -energy, atol=1e-8)


def test_independent_of_the_splitting():
    s = liquid(1)
    one = summed(CHARGES, s, split(5.0, 1e-10))
    other = summed(CHARGES, s, split(8.0, 1e-10), 400)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.slow
def test_accuracy_is_what_was_asked_for():
    s = liquid(1)
    exact = summed(CHARGES, s, split(6.0, 1e-12), 200)[1][1]
    for accuracy in (1e-3, 1e-5, 1e-7):
        gaps = summed(CHARGES, s, split(6.0, accuracy), 200)[1][1] - exact
        rms = float(jnp.sqrt(jnp.mean(jnp.sum(gaps**2, axis=1))))
        assert accuracy / 30 < rms < 3 * accuracy


@pytest.mark.parametrize("order", [5, 6, 8])
def test_a_mesh_agrees_with_the_exact_sum(order):
    s, accuracy = liquid(2), 2e-5
    exact = summed(CHARGES, s, split(6.0, 1e-11), 200)
    mesh = suitable_mesh(TRICLINIC, 6.0, accuracy, order)
    found = summed(CHARGES, s, split(6.0, accuracy, mesh=mesh, order=order), 200)
    assert float(jnp.max(jnp.abs(found[1][1] - exact[1][1]))) < 1e-4
    np.testing.assert_allclose(found[0], exact[0], atol=3e-4)
    np.testing.assert_allclose(found[1][0], exact[1][0], atol=1e-4)
    np.testing.assert_allclose(found[1][2], exact[1][2], atol=2e-3)


@pytest.mark.parametrize("mesh", [None, (12, 15, 12)])
def test_derivatives_of_any_sum_of_potentials(mesh):
    """Where weights are not proportional to charges the backward pass takes its long way."""
    s, how = liquid(3), split(6.0, 1e-9, mesh=mesh)
    rng = np.random.default_rng(4)
    weights = jnp.asarray(rng.normal(size=12))
    neighbors = table(s, how.cutoff + 0.1, 200)

    @jax.jit
    def total(charges, positions, cell):
        there = s._replace(positions=positions, cell=cell)
        return jnp.sum(weights * coulomb_potentials(charges, there, neighbors, how))

    start = (CHARGES, s.positions, s.cell)
    slopes = jax.jit(jax.grad(total, (0, 1, 2)))(*start)
    moves = [rng.normal(size=leaf.shape) for leaf in start]
    moves[0] -= moves[0].mean()  # neutral
    for i, move in enumerate(moves):
        ends = []
        for sign in (1, -1):
            moved = list(start)
            moved[i] = start[i] + sign * 1e-5 * move
            ends.append(total(*moved))
        expected = (ends[0] - ends[1]) / 2e-5
        # pairs that cross the cutoff change the energy by as little as the accuracy
        np.testing.assert_allclose(jnp.sum(slopes[i] * move), expected, rtol=1e-5, atol=1e-4)


def test_open_space_is_the_plain_sum():
    s = liquid(5)._replace(cell=jnp.zeros((3, 3)))
    energy, (potentials, slopes, by_cell) = summed(CHARGES, s, split(4.0, 1e-11))
    x, q = np.asarray(s.positions), np.asarray(CHARGES)
    gaps = x[:, None] - x[None]
    r = np.linalg.norm(gaps, axis=-1) + np.diag(np.full(12, np.inf))
    expected = COULOMB * (q / r).sum(axis=1)
    np.testing.assert_allclose(potentials, expected, atol=1e-9)
    np.testing.assert_allclose(energy, 0.5 * q @ expected, atol=1e-9)
    field = COULOMB * (q[:, None] * q[None] / r**3)[..., None] * gaps
    np.testing.assert_allclose(slopes, -field.sum(axis=1), atol=1e-9)
    np.testing.assert_array_equal(by_cell, 0.0)


@pytest.mark.slow
def test_many_ions_and_padded_ones():
    """More ions than a block of pairs or of windows holds; tiles beyond the first."""
    s = liquid(6, atoms=90, species=(11, 17), cell=TRICLINIC * 2.2)
    q = jnp.where(s.species == 11, 1.0, -1.0)
    how = split(5.0, 1e-9)
    energy, (_, slopes, _) = summed(q, s, how)
    padded = s._replace(
        positions=jnp.pad(s.positions, ((0, 600), (0, 0))), species=jnp.pad(s.species, (0, 600))
    )
    wide = summed(jnp.pad(q, (0, 600)), padded, how)
    np.testing.assert_allclose(wide[0], energy, rtol=1e-12)
    np.testing.assert_allclose(wide[1][1][:90], slopes, atol=1e-11)
    np.testing.assert_array_equal(wide[1][1][90:], 0.0)
    meshed = summed(jnp.pad(q, (0, 600)), padded, split(5.0, 1e-9, mesh=(80, 80, 80), order=8))
    np.testing.assert_allclose(meshed[1][1][:90], slopes, atol=1e-4)
    # Every reciprocal vector on its own.
    cell, x = np.asarray(s.cell), np.asarray(s.positions)
    limits = np.floor(how.largest * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    n = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in limits]), -1).reshape(-1, 3)
    k = 2 * np.pi * n @ np.linalg.inv(cell).T
    squares = (k**2).sum(axis=1)
    k, squares = (each[(squares > 0) & (squares <= how.largest**2)] for each in (k, squares))
    phases = np.exp(1j * x @ k.T)
    factors = 4 * np.pi / abs(np.linalg.det(cell)) * np.exp(-squares / 4 / how.alpha**2) / squares
    potentials = (phases @ (factors * (np.asarray(q) @ phases).conj())).real
    field = jax.jit(lambda *given: over_vectors(how.alpha, how.largest, *given))(
        q, s.positions, s.cell, jnp.bool_(True)
    )
    np.testing.assert_allclose(field.potential, potentials, atol=1e-12)


def test_refusals():
    slab = np.diag([9.0, 9.0, 0.0])
    assert refusal(np.array([1.0, -1.0]), TRICLINIC) is None
    assert refusal(np.array([1.0]), np.zeros((3, 3))) is None
    assert "neutral, found ions with a total charge of +1 e" in str(refusal(np.ones(1), TRICLINIC))
    assert "found 2 lattice vectors" in str(refusal(np.array([1.0, -1.0]), slab))
    s, how = liquid(7), split(4.0, 1e-6)
    assert np.isnan(summed(jnp.ones(12), s, how)[0])
    assert np.isnan(summed(CHARGES, s._replace(cell=jnp.asarray(slab)), how)[0])
    for settings in ({"accuracy": 0.0}, {"cutoff_A": -1.0}, {"mesh": (4, 9, 9)}, {"order": 4}):
        with pytest.raises(BadInput, match=next(iter(settings))):
            split(**{"cutoff_A": 5.0, "accuracy": 1e-6, **settings})
