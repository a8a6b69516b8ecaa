"""Checks of crystals and molecules against published numbers and ASE's own potentials."""

import json

import jax
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from campaign.tiny import argon

from alj.analysis.elasticity import elastic_matrix, moduli
from alj.calculator import CommitteeCalculator
from alj.campaign import models
from alj.campaign.crystal_checks import (
    elastic_constants,
    equation_of_state,
    relaxed_crystal,
)
from alj.campaign.molecule_checks import bond_scans, stability, vibrations
from alj.campaign.validation import Subject, settings_of, validate
from alj.potentials.ml_bop import TersoffParameters, tersoff
from alj.types import BadInput

SETTINGS = {"epsilon_eV": 0.0104, "sigma_A": 3.4, "cutoff_A": 6.0}


@pytest.fixture(scope="module")
def ours():
    return CommitteeCalculator(argon(**SETTINGS))


def theirs():
    return LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0)


def test_silicon_of_tersoff_has_its_published_constants():
    """J. Tersoff, Phys. Rev. B 38, 9902 (1988), tables I and II."""
    parameters = TersoffParameters(
        c=1.0039e5, d=16.217, cos0=-0.59825, n=0.78734, beta=1.1e-6, lambda1=2.4799,
        lambda2=1.7322, A=1830.8, B=471.18, R=2.85, D=0.15,
    )  # fmt: skip
    potential = tersoff(parameters, 14)
    model = models.model_of(potential, potential.init(jax.random.key(0)), {"members": 1})
    calculator = CommitteeCalculator(model)
    silicon = bulk("Si", a=5.5)
    state = equation_of_state(silicon, calculator, points=5, range_percent=2.0)
    assert (8 * state["volume_A3_per_atom"]) ** (1 / 3) == pytest.approx(5.432, abs=0.001)
    assert state["energy_eV_per_atom"] == pytest.approx(-4.63, abs=0.005)
    assert state["bulk_modulus_GPa"] == pytest.approx(98, abs=1)
    elastic = elastic_constants(bulk("Si", a=5.5, cubic=True), calculator)
    # atoms relaxed: without, the last would be 119
    for name, published in (("C11_GPa", 143), ("C12_GPa", 75), ("C44_GPa", 69)):
        assert elastic[name] == pytest.approx(published, abs=1), name
    assert elastic["bulk_GPa"] == pytest.approx(state["bulk_modulus_GPa"], rel=0.01)


def test_elastic_constants_are_curvatures_of_ase_s_energy(ours):
    crystal = bulk("Ar", a=5.3, cubic=True)
    found = np.array(elastic_constants(crystal, ours)["matrix_GPa"]) * units.GPa
    rest, size = relaxed_crystal(crystal, theirs()), 2e-3

    def energy(deform):
        strained = rest.copy()
        strained.set_cell(rest.cell.array @ deform, scale_atoms=True)
        strained.calc = theirs()
        return strained.get_potential_energy()

    def curvature(strain):
        sides = energy(np.eye(3) + size * strain) + energy(np.eye(3) - size * strain)
        return (sides - 2 * energy(np.eye(3))) / size**2 / rest.get_volume()

    uniaxial, both = np.diag([1.0, 0, 0]), np.diag([1.0, 1.0, 0])
    shear = np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]])
    c11 = curvature(uniaxial)
    assert found[0, 0] == pytest.approx(c11, rel=5e-3)
    assert found[3, 3] == pytest.approx(curvature(shear), rel=5e-3)
    assert found[0, 1] == pytest.approx(curvature(both) / 2 - c11, rel=1e-2)


def test_moduli_of_a_known_matrix():
    constants = np.diag([3.0, 3, 3, 1, 1, 1]) + 0.0
    constants[:3, :3] += np.ones((3, 3)) - np.eye(3)
    found = moduli(elastic_matrix(1e-3 * constants, -1e-3 * constants, 1e-3))
    # isotropic: λ = 1, μ = 1
    assert found == pytest.approx({"bulk": 5 / 3, "shear": 1.0, "smallest_eigenvalue": 1.0})


def test_beside_another_code_all_numbers_agree(ours):
    settings = settings_of(["phonons.length_A=8", "vacancy.length_A=8", "phonons.points=12"])
    (found,) = validate(
        [Subject("argon", bulk("Ar", a=5.3, cubic=True))],
        {"model": ours, "reference": theirs()},
        {k: v for k, v in settings.items() if k in ("equation_of_state", "phonons", "vacancy")},
    )
    assert list(found["checks"]) == ["equation_of_state", "phonons", "vacancy"]
    for answers in found["checks"].values():
        own, other = answers["model"], answers["reference"]
        for key, value in own.items():
            if isinstance(value, float):
                assert value == pytest.approx(other[key], rel=1e-3, abs=1e-4), key
    # pair potentials: the atoms around a vacancy hardly move, and it costs the cohesive energy
    cohesive = -found["checks"]["equation_of_state"]["model"]["energy_eV_per_atom"]
    assert found["checks"]["vacancy"]["model"]["unrelaxed_eV"] == pytest.approx(cohesive, rel=0.02)
    assert found["checks"]["phonons"]["model"]["lowest_THz"] > -0.02


def test_a_diatomic_of_morse_vibrates_and_stretches_as_the_formula_says():
    depth, stiffness, length = 3.0, 6.0, 1.2
    pair = Atoms("N2", [[0, 0, 0], [0, 0, 1.25]])
    calculator = MorsePotential(epsilon=depth, rho0=stiffness, r0=length, rcut1=6, rcut2=7)
    alpha, mass = stiffness / length, 14.007 / 2
    omega = np.sqrt(2 * depth * alpha**2 / mass)
    expected = omega * units._hbar * np.sqrt(units._e / units._amu) * 1e10 / units._e / units.invcm
    found = vibrations(pair, calculator, displacement_A=0.002)
    assert found["wavenumber_per_cm"] == [pytest.approx(expected, rel=2e-3)]
    (scan,) = bond_scans(pair, calculator, points=7)["scans"].values()
    lengths = np.array(scan["length_A"])
    morse = depth * (1 - np.exp(-alpha * (lengths - length))) ** 2
    assert scan["energy_eV"] == pytest.approx(morse, abs=2e-3)


def test_bonds_hold_where_they_should_and_break_where_they_should():
    water = molecule("H2O")
    assert list(bond_scans(water, EMT(), points=3)["scans"]) == ["O0-H1"]
    calm = stability(water, EMT(), temperature_K=100.0, steps=60, frames=3)
    assert calm["held_ps"] == calm["of_ps"] == pytest.approx(0.03)
    assert len(calm["frames"]) == 3
    hot = stability(water, EMT(), temperature_K=60000.0, steps=400)
    assert hot["held_ps"] < hot["of_ps"]
    assert hot["largest_stretch"] > 1.5


def test_what_fails_is_a_reason(ours):
    two = Atoms("ArNe", [[0, 0, 0], [0, 0, 3.8]], cell=np.eye(3) * 5.3, pbc=True)
    settings = {"vacancy": settings_of([])["vacancy"]}
    found = validate([Subject("two", two)], {"model": ours}, settings)
    assert "crystals of one element" in found[0]["checks"]["vacancy"]["model"]["failed"]
    with pytest.raises(BadInput, match=r"phonons.lenght_A: unknown key, did you mean 'length_A'"):
        settings_of(["phonons.lenght_A=3"])
    with pytest.raises(BadInput, match="unknown name 'phonon', did you mean 'phonons'"):
        settings_of([], ["phonon"])


def test_the_command(alj, tmp_path):
    molecule("H2O").write(tmp_path / "water.extxyz")
    bulk("Ar", a=5.3, cubic=True).write(tmp_path / "argon.extxyz")
    code, out, err = alj(
        "validate", "lennard_jones", "argon.extxyz", "--labeler", "lennard_jones", "--only",
        "equation_of_state", "--only", "elastic_constants", "--set", "labeler.epsilon_eV=0.0208",
        "--set", "equation_of_state.points=5", "--out", "judged",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "judged/validation.json").read_text())
    state = found["results"][0]["checks"]["equation_of_state"]
    twice = state["reference"]["bulk_modulus_GPa"] / state["model"]["bulk_modulus_GPa"]
    assert twice == pytest.approx(2, rel=1e-3)
    assert "bulk modulus (GPa)" in out
    page = (tmp_path / "judged/validation.html").read_text()
    assert "data:image/png;base64," in page
    assert "C44" in page
    assert (tmp_path / "judged/figures/argon-equation_of_state.png").exists()
    code, _, err = alj("validate", "lennard_jones", "--out", "x")
    assert (code, "nothing to judge" in err) == (2, True)
