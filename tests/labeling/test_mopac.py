"""MOPAC: numbers against Sparrow's and against slopes, and what it leaves unsaid when it fails."""

import os
import stat
import tempfile

import ase
import numpy as np
import pytest
from ase.build import molecule
from labeling.molecules import distorted, molecules, shuffled, structure_of

from alj.labeling import build_labeler
from alj.labeling.mopac import ANALYTIC, ELEMENTS
from alj.types import BadInput, LabelingFailed, Structure

engine = pytest.mark.engine
MOLECULES = molecules()
WATER = MOLECULES["water"]


def mopac(**settings):
    return build_labeler({"name": "mopac", **settings})


def failure(labeler, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        labeler.label(one)
    return caught.value


def slope(labeler, one: Structure, direction: np.ndarray, step: float = 2e-3) -> float:
    """Derivative of the energy along a direction in which atoms move, from four points."""
    at = {
        k: float(labeler.label(one._replace(positions=one.positions + k * step * direction)).energy)
        for k in (-2, -1, 1, 2)
    }
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


def direction_of(one: Structure, seed: int) -> np.ndarray:
    direction = np.random.default_rng(seed).normal(size=one.positions.shape)
    return direction / np.linalg.norm(direction)


# Numbers


@engine
@pytest.mark.parametrize("name", MOLECULES)
def test_pm6_is_that_of_sparrow(name):
    """Two programs, written apart: forces to 10 meV/Å, charges to 1e-3 e, total energies too."""
    one = distorted(shuffled(MOLECULES[name], seed=1), seed=2, sigma_A=0.05)
    ours = mopac(method="PM6").label(one)
    theirs = build_labeler({"name": "sparrow", "method": "PM6"}).label(one)
    np.testing.assert_allclose(ours.forces, theirs.forces, atol=0.01)
    np.testing.assert_allclose(ours.charges, theirs.charges, atol=1e-3)
    np.testing.assert_allclose(ours.dipole, theirs.dipole, atol=1e-3)
    per_atom = (float(ours.energy) - float(theirs.energy)) / len(one.species)
    assert per_atom == pytest.approx(0.0, abs=2e-3)


@engine
@pytest.mark.parametrize("method", sorted(set(ANALYTIC) - {"PM6"}))
def test_the_elder_methods_are_those_of_sparrow(method):
    one = distorted(MOLECULES["acetamide"], seed=3, sigma_A=0.05)
    ours = mopac(method=method).label(one)
    theirs = build_labeler({"name": "sparrow", "method": method}).label(one)
    np.testing.assert_allclose(ours.forces, theirs.forces, atol=0.01)


@engine
@pytest.mark.parametrize("method", ELEMENTS)
def test_forces_of_every_method_are_slopes(method):
    """Two water molecules with a hydrogen bond, where the corrections are."""
    dimer = molecule("H2O")
    dimer.rotate(180, "x")
    dimer += ase.Atoms("OH2", molecule("H2O").positions + np.array([0.2, 0.3, 2.9]))
    one = distorted(shuffled(structure_of(dimer), seed=4), seed=5, sigma_A=0.05)
    forces = mopac(method=method).label(one).forces
    energies = mopac(method=method, forces="analytic")  # the same energy, quickly
    for seed in (6, 7):
        direction = direction_of(one, seed)
        along = float(np.sum(forces * direction))
        assert -slope(energies, one, direction) == pytest.approx(along, abs=5e-4)


@engine
def test_forces_of_pm7_are_not_those_that_mopac_prints():
    """If this fails, MOPAC's gradient may have become right, and PM7 may join `ANALYTIC`."""
    one = distorted(MOLECULES["water_cluster"], seed=3, sigma_A=0.05)
    ours, printed = (mopac(method="PM7", forces=f).label(one) for f in ("automatic", "analytic"))
    assert float(ours.energy) == float(printed.energy)
    assert np.abs(ours.forces - printed.forces).max() > 5e-3
    direction = direction_of(one, seed=8)
    along = float(np.sum(ours.forces * direction))
    right = -slope(mopac(method="PM7", forces="analytic"), one, direction)
    assert right == pytest.approx(along, abs=5e-4)


@engine
def test_the_energy_is_a_total_energy():
    """Far below zero, of molecules far apart the sum; the heat of formation is about -2.3 eV."""
    far = ase.Atoms("OH2", molecule("H2O").positions + np.array([0, 0, 400.0]))
    pair = mopac().label(structure_of(molecule("H2O") + far))
    one = mopac().label(WATER)
    assert float(pair.energy) == pytest.approx(2 * float(one.energy), abs=1e-5)
    assert float(one.energy) < -300.0
    assert "total energy" in mopac().convention


@engine
def test_the_amide_correction_is_of_amides_and_named():
    plain, corrected = mopac(), mopac(amide_correction=True)
    one = distorted(MOLECULES["acetamide"], seed=2, sigma_A=0.05)
    change = float(corrected.label(one).energy) - float(plain.label(one).energy)
    assert 1e-3 < change < 0.1
    ethanol = MOLECULES["ethanol"]
    assert float(corrected.label(ethanol).energy) == float(plain.label(ethanol).energy)
    direction = direction_of(one, seed=9)
    along = float(np.sum(corrected.label(one).forces * direction))
    assert -slope(corrected, one, direction) == pytest.approx(along, abs=5e-4)
    assert corrected.convention != plain.convention
    assert corrected.settings != plain.settings


@engine
@pytest.mark.parametrize(
    ("formula", "charge", "multiplicity"),
    [("H", 0, 2), ("He", 0, 1), ("H2", 1, 2), ("O2", 0, 3), ("LiF", 0, 1), ("Na", 1, 1)],
)
def test_small_things(formula, charge, multiplicity):
    """One and two atoms have their own traps: nothing printed, coordinates taken for bonds."""
    atoms = ase.Atoms(formula)
    atoms.positions += np.arange(len(atoms))[:, None] * np.array([0.7, -0.6, 0.8]) + 1.0
    labels = mopac().label(structure_of(atoms, charge=charge, multiplicity=multiplicity))
    assert float(labels.energy) < 1e-5  # a sodium ion has no valence electrons
    assert float(labels.charges.sum()) == pytest.approx(charge, abs=1e-6)
    if len(atoms) == 1:
        assert not labels.forces.any()
        np.testing.assert_allclose(labels.dipole, charge * atoms.positions[0])
    else:
        along = np.array([0.7, -0.6, 0.8])
        assert np.linalg.norm(np.cross(labels.forces[0], along)) < 1e-4


@engine
def test_forces_do_not_depend_on_how_they_are_computed():
    one = distorted(MOLECULES["ethanol"], seed=1, sigma_A=0.05)
    analytic, differences = (
        mopac(forces=forces).label(one).forces for forces in ("analytic", "finite_differences")
    )
    np.testing.assert_allclose(analytic, differences, atol=2e-4)


# Failures of the real program


@engine
@pytest.mark.parametrize("iterations", [1, 2, 3, 8])
def test_an_unsettled_field_is_never_a_label(iterations):
    """With 2 MOPAC computes nothing, with 8 it gives up and goes on: it calls both achieved."""
    caught = failure(mopac(max_iterations=iterations), WATER)
    assert caught.kind == "not_converged"
    assert caught.log_tail
    differences = mopac(max_iterations=iterations, forces="finite_differences")
    assert failure(differences, WATER).kind == "not_converged"


@engine
def test_nothing_is_left_and_nothing_is_said(tmp_path, monkeypatch, capfd):
    scratch, here = tmp_path / ("scratch" * 20), tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    mopac().label(WATER)
    failure(mopac(max_iterations=1), WATER)
    assert [*scratch.iterdir(), *here.iterdir()] == []
    assert capfd.readouterr() == ("", "")


# Stand-ins for a program that does not do what it should


def stand_in(folder, monkeypatch, script: str) -> None:
    """A `mopac` on PATH that is this shell script; $1 is the input."""
    program = folder / "mopac"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/usr/bin", "/bin"]))


GOOD_OUT = """
     1SCF WAS SPECIFIED, SO BFGS WAS NOT USED
     SCF FIELD WAS ACHIEVED
          FINAL HEAT OF FORMATION =        -54.00000 KCAL/MOL =    -225.93600 KJ/MOL
          ENERGY OF ATOMS         =       7301.57000 KCAL/MOL
 == MOPAC DONE ==
"""
GOOD_AUX = """ START OF MOPAC PROGRAM
 HEAT_OF_FORMATION:KCAL/MOL=-0.540000000000000D+02
 DIP_VEC:DEBYE[3]= +0.10000000000000D+00 -0.20000000000000D+01 +0.00000000000000D+00
 AREA:SQUARE ANGSTROMS=+0.427516403803887D+02
 NUMBER_SCF_CYCLES=1
 ATOM_CHARGES[03]=
 -0.60000000000000 +0.30000000000000 +0.30000000000000
 AO_CHARGES[06]=
  1.79535353499166  2.00000000000000  1.32546240336103  1.49421098964794  0.69560  0.6893682
 GRADIENTS:KCAL/MOL/ANGSTROM[09]=
   1.0000000000000  0.0000000000000  0.0000000000000 -1.0000000000000  0.0000000000000  0.0000000
   0.0000000000000  0.0000000000000  0.0000000000000
 CPU_TIME:SECONDS[1]=        0.01
 END OF MOPAC PROGRAM
"""
"""Abridged output of MOPAC 22.0.6."""


def writes(out: str, aux: str, then: str = "exit 0") -> str:
    return f"cat > label.out <<'END'\n{out}\nEND\ncat > label.aux <<'END'\n{aux}\nEND\n{then}"


def test_what_the_stand_in_writes_is_read(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, writes(GOOD_OUT, GOOD_AUX))
    labels = mopac().label(WATER)
    assert float(labels.energy) == pytest.approx((-54.0 - 7301.57) * 0.0433641153087705, rel=1e-9)
    np.testing.assert_allclose(labels.forces[:2, 0], [-0.0433641, 0.0433641], atol=1e-7)
    np.testing.assert_allclose(labels.charges, [-0.6, 0.3, 0.3])
    np.testing.assert_allclose(labels.dipole, [0.02081943, -0.4163887, 0.0], atol=1e-7)


BROKEN = {
    "nothing": "exit 0",
    "noise": writes("the quick brown fox", "\\000\\001"),
    "no auxiliary file": f"cat > label.out <<'END'\n{GOOD_OUT}\nEND",
    "half an auxiliary file": writes(GOOD_OUT, GOOD_AUX[: GOOD_AUX.index("-1.00000000")]),
    "a number cut short": writes(GOOD_OUT, GOOD_AUX[: GOOD_AUX.rindex("0000000\n CPU_TIME")]),
    "no parts of the energy": writes("SCF FIELD WAS ACHIEVED", GOOD_AUX),
    "a number that is none": writes(GOOD_OUT, GOOD_AUX.replace("-0.60000000000000", "-0.6000O")),
    "too few charges": writes(GOOD_OUT, GOOD_AUX.replace("-0.60000000000000", "")),
}


@pytest.mark.parametrize("how", BROKEN)
def test_output_that_cannot_be_read_is_no_label(how, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, BROKEN[how])
    assert failure(mopac(), WATER).kind == "parse"


BOX = """
 ******************************************************************************
 *     Error and normal termination messages reported in this calculation     *
 *                                                                            *
 * Value of MS not consistent with number of electrons                        *
 * JOB ENDED NORMALLY                                                         *
 ******************************************************************************
"""


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (writes(GOOD_OUT, GOOD_AUX, "exit 3"), "crash", "ended with 3"),
        (writes(GOOD_OUT, GOOD_AUX, "kill -9 $$"), "crash", "signal 9"),
        (writes(GOOD_OUT, GOOD_AUX, "kill -SEGV $$"), "crash", "signal 11"),
        (writes(BOX, ""), "crash", "Value of MS not consistent"),
        (writes(BOX, GOOD_AUX), "crash", "Value of MS not consistent"),
        (writes("UNABLE TO ACHIEVE SELF-CONSISTENCE", ""), "not_converged", "converge"),
        (
            writes(f"UNABLE TO ACHIEVE SELF-CONSISTENCE, JOB CONTINUING{GOOD_OUT}", GOOD_AUX),
            "not_converged",
            "converge",
        ),
        (
            writes(GOOD_OUT, GOOD_AUX.replace("CYCLES=1", "CYCLES=0")),
            "not_converged",
            "converge",
        ),
        (
            writes(GOOD_OUT, GOOD_AUX.replace("-1.0000000000000", "****************")),
            "unphysical",
            "large",
        ),
        (writes(GOOD_OUT, GOOD_AUX.replace("-1.0000000000000", "NaN")), "unphysical", "not finite"),
    ],
)
def test_what_went_wrong_gets_its_kind(script, kind, words, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, script)
    caught = failure(mopac(), WATER)
    assert caught.kind == kind
    assert words in caught.message


def test_results_of_fewer_calculations_than_asked_for_are_no_label(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, writes(GOOD_OUT, GOOD_AUX))
    assert failure(mopac(forces="finite_differences"), WATER).kind == "parse"


def test_no_room_for_files_is_not_the_structures_fault(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, writes(GOOD_OUT, GOOD_AUX))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert failure(mopac(), WATER).kind == "infrastructure"


def test_without_the_program_the_line_that_installs_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="apt-get install mopac"):
        mopac().label(WATER)
    with pytest.raises(BadInput, match="not on PATH"):
        mopac().engine.version()


def test_the_input_says_all_that_matters(tmp_path, monkeypatch):
    """Charge, spin, help for convergence; what a setting means to MOPAC."""
    keep = tmp_path / "kept.mop"
    stand_in(tmp_path, monkeypatch, f"cp $1 {keep}\n" + writes(GOOD_OUT, GOOD_AUX))
    settings = {"converger": "camp_king", "accuracy": 10.0, "max_iterations": 7}
    cation = WATER._replace(charge=np.int32(1), multiplicity=np.int32(2))
    mopac(method="RM1", **settings).label(cation)
    words = keep.read_text().splitlines()[0].split()
    asked = ["RM1", "CHARGE=1", "UHF", "MS=0.5", "CAMP", "SCFCRT=1.000D-07", "ITRY=7", "NOMM"]
    assert set(asked) <= set(words)
    mopac(amide_correction=True).label(WATER)
    words = keep.read_text().splitlines()[0].split()
    assert {"PM6", "CHARGE=0", "MMOK"} <= set(words)
    assert "UHF" not in words
    rows = [line.split() for line in keep.read_text().splitlines()[3:6]]
    found = np.array([[float(row[i]) for i in (1, 3, 5)] for row in rows])
    np.testing.assert_allclose(found, WATER.positions, atol=1e-11)
