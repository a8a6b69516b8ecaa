"""The calculator inside ASE's algorithms, which find what they find with ASE's Lennard-Jones."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE, LBFGS
from ase.phonons import Phonons
from campaign.tiny import argon

from alj.calculator import CommitteeCalculator

EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 6.0


@pytest.fixture(scope="module")
def ours():
    return CommitteeCalculator(argon(epsilon_eV=EPSILON, sigma_A=SIGMA, cutoff_A=CUTOFF))


@pytest.fixture
def theirs():
    return LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)


def crystal(*, vacancy: bool = False) -> Atoms:
    atoms = bulk("Ar", a=5.26, cubic=True) * (2, 2, 2)
    if vacancy:
        del atoms[0]
    return atoms


@pytest.mark.parametrize("optimizer", [BFGS, FIRE, LBFGS])
def test_the_same_minimum_by_every_optimizer(optimizer, ours, theirs):
    energies = []
    for calculator in (ours, theirs):
        atoms = crystal(vacancy=True)
        atoms.rattle(0.05, seed=1)
        atoms.calc = calculator
        assert optimizer(atoms, logfile=None).run(fmax=1e-3, steps=200)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)


def test_the_same_cell(ours, theirs):
    cells = []
    for calculator in (ours, theirs):
        atoms = bulk("Ar", a=5.3, cubic=True)
        atoms.calc = calculator
        BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
        cells.append(atoms.cell.array)
    assert cells[0] == pytest.approx(cells[1], abs=1e-4)


def test_the_same_path_in_time(ours, theirs):
    ends, velocities = [], np.random.default_rng(2).normal(0, 0.02, (31, 3))
    for calculator in (ours, theirs):
        atoms = crystal(vacancy=True)
        atoms.set_velocities(velocities)
        atoms.calc = calculator
        VelocityVerlet(atoms, 2.0 * units.fs).run(100)
        ends.append(atoms.positions.copy())
    assert np.abs(ends[0] - crystal(vacancy=True).positions).max() > 0.3
    assert ends[0] == pytest.approx(ends[1], abs=1e-8)


def test_a_thermostat_holds_its_temperature(ours):
    atoms = crystal()
    atoms.calc = ours
    dynamics = Langevin(
        atoms, 5.0 * units.fs, temperature_K=40, friction=0.02 / units.fs,
        rng=np.random.default_rng(0), fixcm=False,
    )  # fmt: skip
    seen = []
    dynamics.attach(lambda: seen.append(atoms.get_temperature()), interval=5)
    dynamics.run(1000)
    # 96 degrees of freedom: 40 K with a deviation of 5.8 K at any one time
    assert np.mean(seen[50:]) == pytest.approx(40, abs=3)


def test_the_same_phonons(ours, theirs, tmp_path):
    found = []
    for name, calculator in (("ours", ours), ("theirs", theirs)):
        phonons = Phonons(
            bulk("Ar", a=5.26), calculator, supercell=(3, 3, 3), delta=0.01, name=tmp_path / name
        )
        phonons.run()
        phonons.read(acoustic=True)
        path = bulk("Ar", a=5.26).cell.bandpath("GXL", npoints=8)
        found.append(phonons.band_structure(path.kpts))
    assert found[1].max() > 0.005
    assert found[0] == pytest.approx(found[1], abs=1e-7)


def test_the_same_barrier(ours):
    barriers = []
    for make in (lambda: ours, lambda: LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)):
        first, last = crystal(vacancy=True), crystal(vacancy=True)
        last.positions[0] = 0.0
        images = [first, *(first.copy() for _ in range(3)), last]
        for image in images:
            image.calc = make()
        band = NEB(images, allow_shared_calculator=True, method="improvedtangent")
        band.interpolate(mic=True)
        BFGS(band, logfile=None).run(fmax=0.02, steps=30)
        energies = [image.get_potential_energy() for image in images]
        barriers.append(max(energies) - energies[0])
    assert barriers[1] > 0.05
    assert barriers[0] == pytest.approx(barriers[1], abs=1e-6)
