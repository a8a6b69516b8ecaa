"""The labeler `dftbplus`, on a stand-in that reads and writes the files of DFTB+."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.units import Bohr, Hartree

from alj.labeling import build_labeler
from alj.labeling.dftbplus import dftbplus, read_tags
from alj.types import BadInput, LabelingFailed, Structure

STANDINS = Path(__file__).parent / "standins"
SPINS = {"H": [-0.072], "O": [-0.035, -0.03, -0.03, -0.028]}


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """The stand-in on PATH, and files for H and O; chlorine lacks a pair."""
    path = [str(STANDINS), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.delenv("ALJ_STANDIN", raising=False)
    monkeypatch.delenv("SKDIR", raising=False)
    folder = tmp_path / "3ob-3-1"
    folder.mkdir()
    for pair in ("H-H", "H-O", "O-H", "O-O", "Cl-Cl", "Cl-H"):
        (folder / f"{pair}.skf").touch()
    monkeypatch.setenv("DFTB_PREFIX", str(folder))
    return folder


def water(**changes) -> Structure:
    one = Structure(
        positions=np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.1], [-0.24, 0.9266, 0.0]]),
        species=np.array([8, 1, 1], np.int32),
        cell=np.zeros((3, 3)),
        charge=np.int32(0),
        multiplicity=np.int32(0),
    )
    return one._replace(**changes)


def labeler(**settings):
    return build_labeler({"name": "dftbplus", **settings})


def failure(built, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        built.label(one)
    return caught.value


def test_forces_are_slopes_of_the_energy_in_our_units():
    """Through the input file, the program's atomic units, and back."""
    built, step = labeler(), 1e-4
    labels = built.label(water())
    assert labels.energy == pytest.approx(-3 * Hartree, rel=0.2)
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        sides = []
        for sign in (1, -1):
            moved = water().positions.copy()
            moved[atom, axis] += sign * step
            sides.append(float(built.label(water(positions=moved)).energy))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert -slope == pytest.approx(float(labels.forces[atom, axis]), abs=1e-6)
    np.testing.assert_allclose(labels.charges, [-0.1, 0.0, 0.1], atol=1e-15)
    np.testing.assert_allclose(labels.dipole, np.array([0.1, 0.2, 0.3]) * Bohr)
    assert np.isnan(labels.stress).all()


def test_crystals_have_a_stress_and_no_dipole():
    labels = labeler(kpoints=[2, 2, 1]).label(water(cell=9.0 * np.eye(3)))
    np.testing.assert_allclose(labels.stress, -np.diag([1, 2, 3]) * 1e-4 * Hartree / Bohr**3)
    assert np.isnan(labels.dipole).all()
    slab = water(cell=np.diag([9.0, 9.0, 0.0]))
    assert "periodic in one direction" in failure(labeler(), slab).message


def test_charge_and_spin_reach_the_program():
    neutral = float(labeler().label(water()).energy)
    charged = water(charge=np.int32(1), multiplicity=np.int32(2))
    found = labeler(spin_constants=SPINS).label(charged)
    assert float(found.energy) - neutral == pytest.approx((0.1 + 0.01) * Hartree)
    refused = failure(labeler(), charged)
    assert refused.kind == "bad_input"
    assert "`spin_constants` of H, O" in refused.message
    assert "do not go with multiplicity 1" in failure(labeler(), water(charge=np.int32(1))).message


MODES = {"unconverged": "not_converged", "truncated": "parse", "killed": "crash", "silent": "parse"}


@pytest.mark.parametrize("mode", MODES)
def test_failures(mode, monkeypatch):
    monkeypatch.setenv("ALJ_STANDIN", mode)
    found = failure(labeler(), water())
    assert found.kind == MODES[mode]
    if mode == "unconverged":
        assert found.message == "SCC is NOT converged, maximal SCC iterations exceeded"
        assert "ERROR!" in found.log_tail


def test_a_fallback_is_tried_where_charges_do_not_settle(monkeypatch):
    monkeypatch.setenv("ALJ_STANDIN", "unconverged")
    found = failure(labeler(fallbacks=[{"electronic_temperature_K": 3000}]), water())
    assert found.message.endswith("(calculation 2)")


def test_missing_files(monkeypatch):
    chloride = water(species=np.array([17, 1, 1], np.int32), charge=np.int32(1))
    assert failure(labeler(), chloride).message.endswith("has no H-Cl.skf")
    gold = water(species=np.array([79, 1, 1], np.int32))
    assert "no parameters for Au" in failure(labeler(), gold).message
    with pytest.raises(BadInput, match="there is no folder /nowhere"):
        labeler(slater_koster_folder="/nowhere").label(water())
    monkeypatch.delenv("DFTB_PREFIX")
    with pytest.raises(BadInput, match=r"dftb\.org"):
        labeler().label(water())


def test_a_missing_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (lambda: labeler().label(water()), lambda: dftbplus().version()):
        with pytest.raises(BadInput, match=r"`dftb\+` is not on PATH; get it by: conda"):
            ask()


def test_settings(installed):
    built = dftbplus()
    assert pickle.loads(pickle.dumps(built)) == built
    assert built.version() == "DFTB+ 24.1 (commit: f6bfdf0)"
    assert dftbplus(command="mpirun -n 2 dftb+", slater_koster_folder="/x").settings == (
        built.settings
    )
    assert dftbplus(command="mpirun -n 2 dftb+").version() == built.version()
    assert labeler(command="mpirun -n 2 dftb+").label(water()).energy < 0
    for changes in ({"parameter_set": "mio-1-1"}, {"third_order": False}, {"kpoints": (1, 1, 2)}):
        assert dftbplus(**changes).settings != built.settings
    assert dftbplus(dispersion="D3(BJ)").convention.startswith("DFTB3-D3(BJ)/3ob-3-1")
    assert set(built.elements) == {1, 6, 7, 8, 9, 11, 12, 15, 16, 17, 19, 20, 30, 35, 53}
    assert dftbplus(third_order=False, highest_shells={"Si": "p"}).elements == (14,)
    for wrong in ({"highest_shells": {"O": "x"}}, {"kpoints": (0, 1, 1)}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            dftbplus(**wrong)


def test_the_tagged_format():
    """As in the manual of DFTB+ (chapter on results.tag), and columns first."""
    text = (
        "forces              :real:2:3,2\n"
        " -0.108816027934010E-025  0.683041056492861E-007  0.436296138106584E-011\n"
        " -0.196069168772796E-015 -0.341538201609204E-007 -0.280551311196420E-005\n"
        "number_of_electrons :real:1:1\n  0.800000000000000E+001\n"
        "scf                 :logical:0:\n T\nmermin_energy       :real:0:\n -0.4E+001\n"
    )
    tags = read_tags(text)
    assert sorted(tags) == ["forces", "mermin_energy", "number_of_electrons"]
    assert tags["forces"][1, 2] == -0.280551311196420e-5
    assert float(tags["mermin_energy"]) == -4.0
    with pytest.raises(ValueError, match="expected 6 numbers, found 3"):
        read_tags(text[: text.index(" -0.196")])
