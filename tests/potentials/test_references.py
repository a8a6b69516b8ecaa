"""ML-BOP against LAMMPS, Lennard-Jones against its textbook values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress
from potentials.liquids import structure, table

from alj.potentials import lennard_jones, ml_bop
from alj.potentials.combine import energy_forces_stress
from alj.types import BadInput

EV_PER_A3_OF_LAMMPS = 2e-7
"""LAMMPS' factor from eV/Å^3 to bar differs from CODATA by this, relatively."""


def compiled(potential):
    params = potential.init(jax.random.key(0))
    return jax.jit(lambda s, n: energy_forces_stress(potential, params, s, n))


def test_ml_bop_equals_lammps(data_folder):
    potential = ml_bop((8,))
    program = compiled(potential)
    frames = read(data_folder / "mlbop_crosscheck_10.extxyz", ":")
    assert len(frames) == 10
    for frame in frames:
        s = structure(frame.positions, frame.numbers, frame.cell.array)
        energy, forces, stress = program(s, table(s, potential.cutoff, 16))
        reference = frame.get_potential_energy()
        assert abs(float(energy) - reference) / len(frame) < 1e-8
        np.testing.assert_allclose(forces, frame.get_forces(), atol=1e-6, rtol=0)
        expected = voigt_6_to_full_3x3_stress(frame.get_stress())
        limit = EV_PER_A3_OF_LAMMPS * np.abs(expected).max()
        np.testing.assert_allclose(stress, expected, atol=limit, rtol=0)


def test_ml_bop_refuses_other_species():
    assert ml_bop(()).species == (8,)
    with pytest.raises(BadInput, match="rename"):
        ml_bop((8, 1))


def test_ml_bop_dimer_and_coinciding_beads():
    potential = ml_bop((8,))
    program = compiled(potential)
    s = structure(np.array([[0.0, 0, 0], [2.9, 0, 0]]), np.array([8, 8]))
    # Alone with each other: no angles, full bond order.
    energy, *_ = program(s, table(s, potential.cutoff, 4))
    expected = 1684.301476 * np.exp(-2.750522 * 2.9) - 473.621419 * np.exp(-2.199640 * 2.9)
    np.testing.assert_allclose(energy, expected, rtol=1e-12)
    s = s._replace(positions=jnp.zeros((2, 3)))
    energy, forces, _ = program(s, table(s, potential.cutoff, 4))
    np.testing.assert_allclose(energy, 1684.301476 - 473.621419)
    assert jnp.all(jnp.isfinite(forces))


def test_lennard_jones_dimer():
    potential = lennard_jones((18,), epsilon_eV=0.01, sigma_A=3.4, cutoff_A=10.0, shift=False)
    bottom = 2 ** (1 / 6) * 3.4
    s = structure(np.array([[0.0, 0, 0], [bottom, 0, 0]]), np.array([18, 18]))
    energy, forces, _ = compiled(potential)(s, table(s, 10.0, 4))
    np.testing.assert_allclose(energy, -0.01, rtol=1e-12)
    np.testing.assert_allclose(forces, 0.0, atol=1e-14)
    with pytest.raises(BadInput, match="sigma_A"):
        lennard_jones((18,), sigma_A=0.0)
