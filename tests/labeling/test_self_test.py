"""The self-test passes what is right and finds each thing that is wrong."""

import json
from typing import ClassVar

import numpy as np
import pytest
from ase.units import Bohr, Debye, Hartree
from labeling.molecules import molecules

from alj.cli import invoke
from alj.labeling import ENGINES, build_labeler
from alj.labeling.engine import labels_of
from alj.labeling.self_test import self_test
from alj.types import LabelingFailed, Labels, Structure

EMT = {"name": "ase", "calculator": "ase.calculators.emt.EMT"}


class Spoiled:
    """Effective-medium theory of ASE, with `how` done to each of its labels."""

    name = "spoiled"
    settings: ClassVar[dict] = {}

    def __init__(self, how):
        self.how, self.engine, self.calls = how, build_labeler(EMT).engine, 0

    def label(self, structure: Structure) -> Labels:
        self.calls += 1
        return self.how(build_labeler(EMT).label(structure), structure, self.calls)


def forces_times(factor):
    return lambda labels, *_: labels._replace(forces=factor * labels.forces)


def one_component_off(labels, *_):
    """As a program whose gradient lacks a term for one atom."""
    forces = labels.forces.copy()
    forces[-1, 0] += 0.05
    return labels._replace(forces=forces)


def order_matters(labels, structure, _):
    """As a sum over pairs that treats the first atom of a pair otherwise; slopes all the same."""
    first = np.asarray(structure.positions)[0]
    forces = labels.forces.copy()
    forces[0] -= 0.1 * first
    energy = labels.energy + 0.05 * float(first @ first)
    return labels._replace(energy=np.asarray(energy), forces=forces)


def memory(labels, _, calls):
    return labels._replace(forces=labels.forces + 1e-4 * (calls % 2))


def other_sign_of_stress(labels, *_):
    return labels._replace(stress=-labels.stress)


WRONG = {
    "forces": [forces_times(-1.0), forces_times(1 / Bohr), forces_times(0.99), one_component_off],
    "order": [order_matters],
    "memory": [memory],
    "stress": [other_sign_of_stress],
}


def failed(checks) -> list[str]:
    return [check.check for check in checks if not check.passed]


def test_what_is_right_passes():
    checks = self_test(build_labeler(EMT))
    assert failed(checks) == []
    assert {check.check.split()[0] for check in checks} == {"forces", "stress", "order", "memory"}
    assert all(check.number <= check.limit for check in checks)


@pytest.mark.parametrize(
    ("what", "how"), [(what, how) for what, hows in WRONG.items() for how in hows]
)
def test_what_is_wrong_is_found(what, how):
    checks = self_test(Spoiled(how))
    assert any(name.startswith(what) for name in failed(checks))


class Springs:
    """Water with harmonic bonds and angle, near the real one, in units of its own."""

    name = "springs"
    settings: ClassVar[dict] = {}

    class engine:
        elements = (1, 8)
        periodic = False
        electrons = True

    def __init__(self, energy_eV=1.0, length_A=1.0, dipole=1.0, charge=0.0):
        self.units = energy_eV, length_A, dipole
        self.charge = charge

    def label(self, structure: Structure) -> Labels:
        energy_eV, length_A, dipole = self.units
        positions = np.asarray(structure.positions) * length_A

        def energy(places):
            oxygen = int(np.flatnonzero(structure.species == 8)[0])
            bonds = np.delete(places - places[oxygen], oxygen, axis=0)
            lengths = np.linalg.norm(bonds, axis=1)
            angle = np.arccos(bonds[0] @ bonds[1] / lengths.prod())
            return 26.4 * np.sum((lengths - 0.9572) ** 2) + 2.2 * (angle - 1.8242) ** 2

        forces = np.zeros_like(positions)
        for place in np.ndindex(positions.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = positions.copy()
                moved[place] += step
                sides.append(energy(moved))
            forces[place] = (sides[1] - sides[0]) / 2e-5
        charges = np.where(structure.species == 8, -0.66, 0.33)
        return labels_of(
            3,
            energy(positions) * energy_eV,
            forces * energy_eV * length_A,
            dipole=charges @ positions * dipole,
            charges=charges + self.charge / 3,
        )


def test_right_units_pass():
    assert failed(self_test(Springs())) == []


@pytest.mark.parametrize(
    ("units", "what"),
    [
        ({"energy_eV": 1 / Hartree}, "stretch"),
        ({"energy_eV": 23.06}, "stretch"),
        ({"energy_eV": 96.485}, "stretch"),
        ({"length_A": Bohr}, "bond"),
        ({"length_A": 1 / Bohr}, "bond"),
        ({"length_A": 0.1}, "bond"),
        ({"dipole": 1 / Debye}, "dipole"),
        ({"dipole": -1.0}, "dipole"),
        ({"charge": 1.0}, "charges"),
    ],
)
def test_wrong_units_are_found(units, what):
    assert any(what in name for name in failed(self_test(Springs(**units))))


class Silent:
    """It labels nothing."""

    name = "silent"
    settings: ClassVar[dict] = {}

    def label(self, structure: Structure) -> Labels:
        raise LabelingFailed("crash", "the license has expired")


def test_what_labels_nothing_fails_and_says_why():
    (check,) = self_test(Silent())
    assert not check.passed
    assert "license" in check.reason


def test_on_a_structure_of_the_users():
    """Which must not be asked of a program that has no parameters for anything else."""
    labeler = build_labeler(EMT)
    checks = self_test(labeler, molecules()["ethanol"])
    assert failed(checks) == []
    assert all("your structure" in check.check for check in checks)


@pytest.mark.engine
@pytest.mark.parametrize(
    "config",
    [
        {"name": "tblite"},
        {"name": "tblite", "method": "GFN1-xTB"},
        {"name": "sparrow"},
        {"name": "sparrow", "method": "PM6"},
        {"name": "mopac"},
        {"name": "mopac", "method": "PM7"},
        {"name": "pyscf"},
    ],
    ids=lambda config: " ".join(config.values()),
)
def test_the_engines_pass(config):
    checks = self_test(build_labeler(config))
    assert failed(checks) == []
    whats = {check.check.split()[0] for check in checks}
    assert {"forces", "order", "memory", "O–H", "dipole", "sum"} <= whats


# The command


@pytest.fixture
def alj(capfd):
    """Run a command: (exit code, standard output, standard error)."""

    def command(*arguments):
        code = invoke(arguments)
        return code, *capfd.readouterr()

    return command


def test_all_engines_are_listed_whatever_is_installed(alj, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, out, err = alj("engines")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert list(lines) == [builder.__name__ for builder in ENGINES]
    assert "not installed" in lines["mopac"]
    assert "apt-get install mopac" in lines["mopac"]
    assert "needs settings: calculator" in lines["ase"]
    assert "needs settings: command, method" in lines["command"]


def test_the_list_for_programs(alj):
    code, out, _ = alj("engines", "--json")
    assert code == 0
    by_name = {one["name"]: one for one in json.loads(out)}
    assert by_name["tblite"]["periodic"] is True
    assert by_name["mopac"]["elements"][:3] == [1, 2, 3]
    assert by_name["ase"]["needs"] == ["calculator"]
    assert all(one["self_test"] is None for one in by_name.values())


def test_a_self_test_that_passes_and_one_that_fails(alj, monkeypatch):
    setting = ("--set", "calculator=ase.calculators.emt.EMT")
    code, out, _ = alj("engines", "ase", *setting, "--self-test")
    assert code == 0
    assert "self-test passed" in out
    monkeypatch.setattr("alj.labeling.self_test._slope", lambda energy: 1.0)
    code, out, _ = alj("engines", "ase", *setting, "--self-test")
    assert code == 3
    assert "self-test FAILED" in out
    code, out, _ = alj("engines", "ase", *setting, "--self-test", "--json")
    assert code == 3
    assert not all(check["passed"] for check in json.loads(out)[0]["self_test"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gaussian",), "unknown name 'gaussian'"),
        (("--set", "method=PM7"), "expected the name of an engine"),
        (("mopac", "--set", "method=PM8"), "PM8"),
        (("mopac", "--set", "methd=PM7"), "did you mean 'method'"),
    ],
)
def test_mistakes_are_one_line(alj, arguments, words):
    code, out, err = alj("engines", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.engine
def test_the_engines_of_the_package_archives_are_installed_and_pass(alj):
    """As a user asks after an installation."""
    for name in ("tblite", "sparrow", "mopac"):
        code, out, _ = alj("engines", name, "--self-test")
        assert code == 0
        assert "installed:" in out
        assert "self-test passed" in out
