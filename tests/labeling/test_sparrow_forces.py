"""Forces of Sparrow's methods against slopes of their energies, and what corrects them."""

import importlib
import itertools

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import Bohr, Hartree, fs, kB
from labeling.molecules import (
    Labeled,
    alkane,
    distorted,
    molecules,
    shuffled,
    structure_of,
    water_cluster,
)

from alj.labeling import build_labeler, dftb3_correction, dftb_gradient, dftb_tails
from alj.labeling.sparrow import DIFFERENCES, ELEMENTS, TAILS, THIRD_ORDER, Sparrow, sparrow
from alj.types import Structure

pytestmark = pytest.mark.engine

MODULE = importlib.import_module("alj.labeling.sparrow")
MOLECULES = molecules()
SMALL = {name: one for name, one in MOLECULES.items() if name != "water_cluster"}
STATES = {"neutral": (0, 1), "triplet": (0, 3), "cation": (1, 2), "anion": (-1, 2)}
IONS = {"F": -1, "Na": 1, "Mg": 2, "Cl": -1, "K": 1, "Ca": 2, "Zn": 2, "Br": -1, "I": -1}


def slopes(engine: Sparrow, structure: Structure, multiplicity: int) -> np.ndarray:
    """Forces from differences of the engine's energy, 5e-4 Å to either side."""
    forces = np.zeros(structure.positions.shape)
    for place in itertools.product(range(len(forces)), range(3)):
        sides = []
        for step in (5e-4, -5e-4):
            positions = structure.positions.copy()
            positions[place] += step
            moved = structure._replace(positions=positions)
            sides.append(float(engine.calculate(moved, multiplicity).energy))
        forces[place] = (sides[1] - sides[0]) / 1e-3
    return forces


def assert_slopes(engine: Sparrow, structure: Structure, multiplicity: int) -> None:
    labels = engine.calculate(structure, multiplicity)
    np.testing.assert_allclose(labels.forces, slopes(engine, structure, multiplicity), atol=5e-4)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("method", ["DFTB3", "DFTB2"])
def test_dftb_forces_are_slopes_of_the_energy_in_any_order_of_atoms(name, state, method):
    charge, multiplicity = STATES[state]
    one = distorted(SMALL[name], seed=1, sigma_A=0.05)._replace(charge=np.int32(charge))
    assert_slopes(sparrow(method=method), shuffled(one, seed=2), multiplicity)


@pytest.mark.parametrize("protons", [0, 1])
@pytest.mark.parametrize("method", ["DFTB3", "DFTB2"])
def test_dftb_forces_of_a_cluster_are_slopes_of_the_energy(protons, method):
    """Open shells of nine molecules find no self-consistent field; an added proton does."""
    cluster = water_cluster(9)
    if protons:
        cluster += ase.Atoms("H", [cluster.positions[12] + [0.1, 0.2, 1.0]])
    one = distorted(structure_of(cluster, charge=protons), seed=1, sigma_A=0.05)
    assert_slopes(sparrow(method=method), shuffled(one, seed=2), 1)


@pytest.mark.parametrize(("bond_A", "multiplicity"), [(2.3, 1), (2.6, 1), (3.5, 3)])
def test_dftb3_forces_are_slopes_where_a_bond_breaks(bond_A, multiplicity):
    """Where the ends of the integrals matter most: 3e-3 eV/Å without their correction."""
    atoms = alkane(6)
    atoms.set_distance(0, 1, bond_A, fix=1, indices=[0, 6, 7, 8])
    one = shuffled(distorted(structure_of(atoms), seed=3, sigma_A=0.03), seed=4)
    assert_slopes(sparrow(), one, multiplicity)


@pytest.mark.parametrize("name", ["CH3Cl", "PH3", "SH2", "CF4", "NaCl", "SO2", *IONS])
def test_dftb3_forces_are_slopes_for_all_its_elements(name):
    if name in IONS:
        atoms = molecule("H2O") + ase.Atoms(name, [(0.3, 0.2, 2.3 if IONS[name] > 0 else -2.9)])
        one = structure_of(atoms, charge=IONS[name])
    else:
        one = structure_of(molecule(name))
    assert_slopes(sparrow(), shuffled(distorted(one, seed=3, sigma_A=0.05), seed=4), 1)


@pytest.mark.parametrize("method", sorted(set(ELEMENTS) - {"DFTB3"}))
def test_forces_of_the_other_methods_are_slopes_of_the_energy(method):
    engine = sparrow(method=method)
    for name in ("water", "ethanol", "acetamide"):
        assert_slopes(engine, distorted(MOLECULES[name], seed=5, sigma_A=0.05), 1)
    if method != "DFTB0":
        assert_slopes(engine, distorted(MOLECULES["ethanol"], seed=5, sigma_A=0.05), 3)
    if not method.startswith("DFTB"):
        assert_slopes(engine, distorted(structure_of(molecule("SH2")), seed=5, sigma_A=0.05), 3)


def short_range(Z_a: int, Z_b: int, U_a: float, U_b: float, R: float) -> float:
    """S of Gaus, Cui, Elstner (2011), its two forms as in their supporting information."""
    a, b = 3.2 * U_a, 3.2 * U_b
    if Z_a == Z_b:
        return np.exp(-a * R) * (1 / R + 11 * a / 16 + 3 * a**2 * R / 16 + a**3 * R**2 / 48)

    def cloud(s, t):
        weight = s * t**4 / (2 * (s**2 - t**2) ** 2)
        weight -= (t**6 - 3 * t**4 * s**2) / ((s**2 - t**2) ** 3 * R)
        return np.exp(-s * R) * weight

    return cloud(a, b) + cloud(b, a)


def gamma(Z_a: int, Z_b: int, U_a: float, U_b: float, damping_U: float, R: float) -> float:
    damping = np.exp(-(damping_U**4) * R**2) if 1 in (Z_a, Z_b) else 1.0
    return 1 / R - short_range(Z_a, Z_b, U_a, U_b, R) * damping


def pair_energy(Z_a: int, Z_b: int, q_a: float, q_b: float, R: float) -> float:
    """-⅓ q_a q_b² Γ_ba in hartree, Γ_ba by differences of γ in U_b.

    In pairs of one element both exponents of the short range change with it, as in Sparrow.
    """
    (U_a, _), (U_b, derivative) = dftb3_correction.HUBBARD[Z_a], dftb3_correction.HUBBARD[Z_b]
    sides = []
    for change in (1e-4, -1e-4):
        other = U_a + change if Z_a == Z_b else U_a
        mean = (U_a + U_b + change) / 2
        sides.append(gamma(Z_a, Z_b, other, U_b + change, mean, R))
    return -q_a * q_b**2 * derivative * (sides[0] - sides[1]) / 2e-4 / 3


@pytest.mark.parametrize("elements", ["HCNO", "HOO", "HHNC", "PSClBr", "NaKMgCaZnFI"])
def test_the_correction_is_twice_the_slope_of_the_pair_energy(elements):
    symbols = ase.Atoms(elements).get_atomic_numbers()
    rng = np.random.default_rng(8)
    positions = 1.6 * np.arange(len(symbols))[:, None] * [0.8, 0.5, 0.2]
    positions = positions + rng.uniform(-0.3, 0.3, positions.shape)
    charges = rng.uniform(-0.8, 0.8, len(symbols))
    expected = np.zeros_like(positions)
    for a, b in itertools.combinations(range(len(symbols)), 2):
        bond = (positions[b] - positions[a]) / Bohr
        R = np.linalg.norm(bond)
        ends = [
            pair_energy(symbols[a], symbols[b], charges[a], charges[b], R + step)
            for step in (1e-3, -1e-3)
        ]
        slope = (ends[0] - ends[1]) / 2e-3 * Hartree / Bohr
        expected[a] += 2 * slope * bond / R
        expected[b] -= 2 * slope * bond / R
    found = dftb3_correction.missing_forces(positions, symbols, charges)
    assert np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("pair", ["HH", "CO", "HCl", "ClH", "PS", "BrC", "ZnN", "INa"])
def test_the_tails_are_the_integrals_of_a_pair_in_any_direction(pair):
    atoms = ase.Atoms(pair)
    first, second = atoms.numbers.tolist()
    tail = MODULE._tail("3ob-3-1", first, second)
    x, direction = 0.45, np.random.default_rng(first).normal(size=3)
    direction /= np.linalg.norm(direction)
    atoms.positions[1] = (tail.cutoff - x) * Bohr * direction
    one = structure_of(atoms, charge=int(atoms.numbers.sum() % 2))
    orbitals = Sparrow("DFTB0")._point(one, 1).orbitals
    SC = orbitals.overlap @ orbitals.coefficients[0]
    hamiltonian = (SC * orbitals.energies[0]) @ SC.T
    turn, size = dftb_tails._turns(direction[None]), len(tail.first_levels)
    a, b = (
        dftb_tails._orbital_turns(turn, len(levels))[0]
        for levels in (tail.first_levels, tail.second_levels)
    )
    for found, whole in ((tail.overlap, orbitals.overlap), (tail.hamiltonian, hamiltonian)):
        along_z = np.tensordot([x**3, x**4, x**5], found, axes=1)
        assert np.abs(along_z).max() > 1e-7
        np.testing.assert_allclose(a @ along_z @ b.T, whole[:size, size:], atol=1e-11)
    np.testing.assert_allclose(np.diag(hamiltonian)[size:], tail.second_levels, atol=1e-11)


@pytest.mark.parametrize("remedy", [THIRD_ORDER, TAILS])
def test_a_correction_steps_aside_where_it_is_not_needed(remedy):
    """Sparrow as it is, as it should be, and as nobody expects it."""

    def answer(structure):
        point = Sparrow("DFTB3")._point(structure, 1)
        missing = MODULE._missing("DFTB3", remedy, structure, point)
        return dftb_gradient.Answer(point.energy, point.forces, missing)

    def right(structure):
        energy, forces, missing = answer(structure)
        return dftb_gradient.Answer(energy, forces + missing, missing)

    def strange(structure):
        energy, forces, missing = answer(structure)
        return dftb_gradient.Answer(energy, forces + 0.3 * missing, missing)

    probes = MODULE._probes("DFTB3")[remedy]
    assert dftb_gradient.verdict(answer, probes) == dftb_gradient.CORRECTED
    assert dftb_gradient.verdict(right, probes) == dftb_gradient.OWN
    assert dftb_gradient.verdict(strange, probes) == dftb_gradient.NEITHER


@pytest.mark.parametrize("name", ["CH3Cl", "PH3", "SH2", "CH3CONH2"])
def test_finite_differences_agree_where_corrections_would_not_do(name, monkeypatch):
    one = shuffled(distorted(structure_of(molecule(name)), seed=9, sigma_A=0.05), seed=9)
    corrected = sparrow().calculate(one, 1)
    monkeypatch.setattr(MODULE, "_remedies", lambda method: (DIFFERENCES,))
    differences = sparrow().calculate(one, 1)
    assert "finite differences" in sparrow().version()
    np.testing.assert_allclose(differences.forces, corrected.forces, atol=2e-4)


@pytest.mark.slow
def test_dynamics_keeps_its_energy():
    """(H2O)2 at 300 K for 2 ps; uncorrected, the energy wanders by 60 meV."""
    atoms = water_cluster(2)
    atoms.calc = Labeled(build_labeler("sparrow"))
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    rng = np.random.default_rng(10)
    atoms.set_momenta(rng.normal(size=(6, 3)) * np.sqrt(300 * kB * atoms.get_masses())[:, None])
    Stationary(atoms)
    dynamics, energies = VelocityVerlet(atoms, 0.25 * fs), []
    for _ in range(400):
        dynamics.run(20)
        energies.append(atoms.get_total_energy())
    times_ps = 0.005 * np.arange(len(energies))
    drift_meV_per_ps = 1e3 * np.polyfit(times_ps, energies, 1)[0]
    assert abs(drift_meV_per_ps) < 0.1
    assert np.std(energies) < 5e-4
    assert atoms.get_kinetic_energy() > 0.05
