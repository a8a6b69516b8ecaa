"""tblite: its methods, its smearing, spins, crystals and slabs."""

import sys

import ase
import numpy as np
import pytest
from ase.build import molecule
from labeling.molecules import distorted, molecules, shuffled, structure_of

from alj.labeling import build_labeler
from alj.types import BadInput, LabelingFailed, Structure

MOLECULES = molecules()
engine = pytest.mark.engine


def tblite(**settings):
    return build_labeler({"name": "tblite", **settings})


def slope(labeler, one: Structure, direction: np.ndarray, step: float = 1e-3) -> float:
    """Derivative of the energy along a direction in which atoms move."""
    energies = [
        float(labeler.label(one._replace(positions=one.positions + sign * step * direction)).energy)
        for sign in (1, -1)
    ]
    return (energies[0] - energies[1]) / (2 * step)


def assert_slope(labeler, one: Structure) -> None:
    direction = np.random.default_rng(0).normal(size=one.positions.shape)
    direction /= np.linalg.norm(direction)
    along = float(np.sum(labeler.label(one).forces * direction))
    assert -slope(labeler, one, direction) == pytest.approx(along, abs=2e-4)


@engine
@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"])
def test_forces_of_every_method_are_slopes(method):
    for name in ("ethanol", "acetamide"):
        one = distorted(shuffled(MOLECULES[name], seed=1), seed=2, sigma_A=0.1)
        assert_slope(tblite(method=method), one)


@engine
def test_the_energy_is_that_of_the_method():
    """GFN2-xTB of water in its minimum, -5.070544 Hartree, as the documentation of xtb has it."""
    labels = tblite().label(MOLECULES["water"])
    assert float(labels.energy) == pytest.approx(-5.0705 * 27.2114, abs=0.02)
    assert np.abs(labels.forces).max() < 1.0


@engine
def test_forces_are_slopes_of_the_free_energy_of_hot_electrons():
    """A broken bond: the entropy counts, the free energy falls with the temperature."""
    nitrogen = structure_of(ase.Atoms("N2", [(0, 0, 0), (0.1, 0.2, 2.4)]))
    hot = tblite(electronic_temperature_K=5000.0)
    assert_slope(hot, nitrogen)
    energies = [
        float(tblite(electronic_temperature_K=kelvin).label(nitrogen).energy)
        for kelvin in (3000.0, 5000.0)
    ]
    assert energies[1] < energies[0] - 0.05
    assert "entropy" in hot.convention


@engine
def test_spin_polarization_makes_oxygen_a_triplet():
    oxygen = structure_of(molecule("O2"))
    plain = tblite(multiplicities=[1, 3]).label_about(oxygen)[1]
    polarized = tblite(multiplicities=[1, 3], spin_polarization=True)
    assert (plain["multiplicity"], polarized.label_about(oxygen)[1]["multiplicity"]) == (1, 3)
    assert polarized.convention != tblite().convention
    radical = structure_of(molecule("CH3CH2O"), multiplicity=2)
    assert_slope(polarized, distorted(radical, seed=3, sigma_A=0.05))


@engine
def test_a_crystal_has_a_stress_a_molecule_has_a_dipole_a_slab_is_refused():
    """tblite would repeat a slab in all directions, whatever it is told."""
    cell = np.array([[5.0, 0.0, 0.0], [0.3, 5.1, 0.0], [0.0, -0.2, 4.9]])
    water = MOLECULES["water"]
    crystal = tblite().label(water._replace(cell=cell))
    lone = tblite().label(water)
    assert np.isfinite(crystal.stress).all()
    assert np.isnan(crystal.dipole).all()
    assert np.isnan(lone.stress).all()
    assert np.isfinite(lone.dipole).all()
    for directions in (1, 2):
        slab = np.where(np.arange(3)[:, None] < directions, cell, 0.0)
        with pytest.raises(LabelingFailed, match=f"periodic in {directions} directions") as caught:
            tblite().label(water._replace(cell=slab))
        assert caught.value.kind == "bad_input"


def test_without_the_package_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(BadInput, match=r"pip install 'alj\[engines\]'.*pip install tblite"):
        tblite().label(MOLECULES["water"])
