"""The examples in configs/engines, run from end to end on output of the real programs.

The stand-ins refuse any input that is not for the structure whose output they have.
"""

import os
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.units import Bohr, GPa, Hartree, Ry
from ruamel.yaml import YAML

from alj.labeling import build_labeler, resolve_labeler
from alj.types import LabelingFailed, Labels, Structure

EXAMPLES = Path(__file__).parents[2] / "configs" / "engines"
STANDINS = Path(__file__).parent / "standins"
DATA = Path(__file__).parents[1] / "data" / "engines"
PROGRAMS = ("vasp", "cp2k", "quantum_espresso", "orca")


@pytest.fixture(autouse=True)
def programs(monkeypatch, tmp_path):
    """The stand-ins on PATH, a Python that has ASE, and pseudopotentials that nobody reads."""
    path = [str(STANDINS), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    carbon = tmp_path / "potpaw_PBE" / "C" / "POTCAR"
    carbon.parent.mkdir(parents=True)
    carbon.write_text("TITEL = PAW_PBE C 08Apr2002\n\n\n\n POMASS = 12.011; ZVAL = 4.000\n")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    return monkeypatch


def section(program: str, **changes) -> dict:
    """The `labeler` section of an example, its invented paths replaced by real ones."""
    text = (EXAMPLES / f"{program}.yaml").read_text()
    for name in ("cp2k_label.py", "cp2k_template.inp"):
        text = text.replace(f"/path/to/{name}", str(EXAMPLES / name))
    text = text.replace("/path/to/orca", str(STANDINS / "orca"))
    return {**YAML(typ="safe").load(text)["labeler"], **changes}


def structure(program: str) -> Structure:
    atoms = ase.io.read(DATA / program / "structure.extxyz")
    return Structure(
        positions=atoms.positions,
        species=atoms.numbers.astype(np.int32),
        cell=atoms.cell.array,
        charge=np.int32(0),
        multiplicity=np.int32(0),
    )


def label(program: str, monkeypatch, mode: str = "converged", **changes) -> Labels:
    monkeypatch.setenv("ALJ_STANDIN", mode)
    return build_labeler(section(program, **changes)).label(structure(program))


EXPECTED = {
    "vasp": (-20.24695937, np.zeros(3), 16.599562580 * GPa),
    "cp2k": (
        -1.164000856867041 * Hartree,
        np.array([0.016871871315, 0.013466756026, 0.013466486828]) * Hartree / Bohr,
        0.879935457905 * GPa,
    ),
    "orca": (
        -76.422436201230 * Hartree,
        np.array([0.047131484960, 0.047131484716, -0.000000000053]) * Hartree / Bohr,
        np.nan,
    ),
    "quantum_espresso": (
        -2.21550903 * Ry,
        np.array([-0.03904125, -0.03161098, -0.03161102]) * Ry / Bohr,
        0.00004983 * Ry / Bohr**3,
    ),
}
"""Energy, force on the first atom, first element of the stress, copied from the outputs."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_reads_what_the_program_wrote(program, monkeypatch):
    labels = label(program, monkeypatch)
    energy, force, stress = EXPECTED[program]
    assert float(labels.energy) == pytest.approx(energy, rel=1e-7)
    np.testing.assert_allclose(labels.forces[0], force, atol=1e-5)
    digits = 1e-4 if program == "quantum_espresso" else 1e-7
    assert float(labels.stress[0, 0]) == pytest.approx(stress, rel=digits, nan_ok=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_has_not_converged_is_said_so_though_the_program_may_not_fail(program, monkeypatch):
    """CP2K, VASP and ORCA exit with 0; the first two even print an energy."""
    with pytest.raises(LabelingFailed) as caught:
        label(program, monkeypatch, "unconverged")
    assert caught.value.kind == "not_converged"
    assert caught.value.log_tail


@pytest.mark.parametrize("program", PROGRAMS)
def test_half_an_output_is_no_label(program, monkeypatch):
    with pytest.raises(LabelingFailed) as caught:
        label(program, monkeypatch, "truncated")
    assert caught.value.kind == "parse"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_killed_program_is_a_crash(program, monkeypatch):
    with pytest.raises(LabelingFailed) as caught:
        label(program, monkeypatch, "killed")
    assert caught.value.kind == "crash"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_stand_in_knows_its_structure(program, monkeypatch):
    """Or the tests above would prove nothing of what was written."""
    monkeypatch.setenv("ALJ_STANDIN", "converged")
    one = structure(program)
    moved = one.positions.copy()
    moved[1, 0] += 0.01
    with pytest.raises(LabelingFailed) as caught:
        build_labeler(section(program)).label(one._replace(positions=moved))
    assert caught.value.kind in ("crash", "parse")
    assert "other atoms" in caught.value.log_tail + caught.value.message


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_of_the_example_is_part_of_the_label(program):
    built = build_labeler(section(program))
    assert resolve_labeler(section(program))["method"] in built.convention
    other = build_labeler(section(program, method="another"))
    assert built.settings != other.settings
