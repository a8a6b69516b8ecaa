"""Coulomb spectra against NumPy, their invariances, and derivatives where eigenvalues coincide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from ase.units import Bohr
from scipy.spatial.transform import Rotation

from alj.potentials.coulomb_spectra import (
    BOHR,
    coulomb_matrix,
    coulomb_spectra,
    coulomb_spectrum,
)
from alj.types import BadInput

NAMES = ("H2", "H2O", "CH4", "C6H6", "CH3CH2OH", "SO2")


def padded(names=NAMES, size=14):
    """Molecules of mixed size; what pads lies on top of a real atom."""
    positions, species = np.zeros((len(names), size, 3)), np.zeros((len(names), size), int)
    for row, atoms in enumerate(map(molecule, names)):
        positions[row] = atoms.positions[0]
        positions[row, : len(atoms)] = atoms.positions
        species[row, : len(atoms)] = atoms.numbers
    return positions, species


def literal(atoms):
    """The definition, one entry after another."""
    z, count = atoms.numbers.astype(float), len(atoms)
    matrix = np.diag(0.5 * z**2.4)
    for i in range(count):
        for j in range(count):
            if i != j:
                apart = np.linalg.norm(atoms.positions[i] - atoms.positions[j]) / BOHR
                matrix[i, j] = z[i] * z[j] / apart
    values = np.linalg.eigvalsh(matrix)
    return values[np.argsort(-np.abs(values))]


def test_the_bohr_is_that_of_others():
    assert pytest.approx(Bohr, rel=1e-9) == BOHR


def test_the_hydrogen_molecule_by_hand():
    """C = [[1/2, 1/R], [1/R, 1/2]] has the eigenvalues 1/2 ± 1/R, here with R of 1.4 bohr."""
    positions = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.4 * 0.529177210903]]])
    spectrum = coulomb_spectra(positions, np.array([[1, 1]]), length=3)
    np.testing.assert_allclose(spectrum[0], [0.5 + 1 / 1.4, 0.5 - 1 / 1.4, 0.0], atol=1e-15)


def test_spectra_are_those_of_the_definition_for_molecules_of_any_size():
    spectra = coulomb_spectra(*padded(), length=17)
    assert spectra.shape == (len(NAMES), 17)
    for name, spectrum in zip(NAMES, spectra, strict=True):
        expected = literal(molecule(name))
        np.testing.assert_allclose(spectrum[: len(expected)], expected, rtol=1e-12, atol=1e-12)
        assert np.all(spectrum[len(expected) :] == 0.0)
        assert np.all(np.diff(np.abs(spectrum)) <= 0)


def test_motion_mirrors_and_the_order_of_atoms_change_nothing():
    positions, species = padded()
    generator = np.random.default_rng(0)
    moved = -(positions @ Rotation.random(rng=1).as_matrix().T) + np.array([1.0, -2.0, 3.0])
    order = generator.permutation(species.shape[1])
    before = coulomb_spectra(positions, species, length=14)
    after = coulomb_spectra(moved[:, order], species[:, order], length=14)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-11)


def test_chunks_change_nothing(monkeypatch):
    positions, species = padded()
    before = coulomb_spectra(positions, species, length=14)
    monkeypatch.setattr("alj.potentials.coulomb_spectra.CHUNK", 4)
    after = coulomb_spectra(positions, species, length=14)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)
    assert coulomb_spectra(positions[:0], species[:0], length=5).shape == (0, 5)


def test_single_precision_stays_single():
    positions, species = padded(("H2O",), 4)
    spectrum = coulomb_spectrum(jnp.asarray(positions[0], jnp.float32), jnp.asarray(species[0]))
    assert spectrum.dtype == jnp.float32


def test_derivatives_are_finite_differences_of_the_definition():
    atoms = molecule("CH3CH2OH")
    positions = atoms.positions + 0.05 * np.random.default_rng(2).normal(size=(len(atoms), 3))
    species = jnp.asarray(np.append(atoms.numbers, 0))
    padding = np.append(positions, positions[:1], axis=0)
    slopes = jax.jit(jax.jacrev(coulomb_spectrum))(jnp.asarray(padding), species)
    assert np.all(np.asarray(slopes)[:, -1] == 0)
    assert np.all(np.asarray(slopes)[-1] == 0)
    step = 1e-5
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        sides = []
        for sign in (1, -1):
            atoms.positions = positions
            atoms.positions[atom, axis] += sign * step
            sides.append(literal(atoms))
        numeric = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(slopes[:-1, atom, axis], numeric, atol=2e-6)


@pytest.mark.parametrize("derivative", [jax.jacrev, jax.jacfwd])
def test_derivatives_are_safe_where_eigenvalues_coincide(derivative):
    atoms = molecule("CH4")
    positions, species = jnp.asarray(atoms.positions), jnp.asarray(atoms.numbers)

    @jax.jit
    def both(x):
        return derivative(coulomb_spectrum)(x, species), derivative(of_matrix)(x)

    def of_matrix(x):
        return jnp.sum(coulomb_matrix(x, species) ** 2)

    slopes, expected = both(positions)
    values = coulomb_spectrum(positions, species)
    assert np.min(np.abs(np.diff(values))) < 1e-10
    assert np.all(np.isfinite(slopes))
    # Σ λ² is the sum of the squares of the entries.
    found = 2 * jnp.einsum("k,kax->ax", values, slopes)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_what_does_not_fit_is_refused():
    positions, species = padded()
    with pytest.raises(BadInput, match="at most 11 atoms, found 12"):
        coulomb_spectra(positions, species, length=11)
    positions[1, 1] = positions[1, 0]
    with pytest.raises(BadInput, match="structure 1"):
        coulomb_spectra(positions, species, length=14)
