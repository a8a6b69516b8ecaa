"""The labeler `ase`: calculators by name, and what their many ways to fail mean."""

import importlib
import os
import pickle
import tempfile
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule

from alj.labeling import build_labeler, resolve_labeler
from alj.labeling.ase import ase as builder
from alj.types import BadInput, LabelingFailed, Structure


def structure_of(atoms: ase.Atoms, charge: int = 0, multiplicity: int = 0) -> Structure:
    return Structure(
        positions=np.array(atoms.positions),
        species=atoms.numbers.astype(np.int32),
        cell=atoms.cell.array * atoms.pbc[:, None],
        charge=np.int32(charge),
        multiplicity=np.int32(multiplicity),
    )


def emt(**settings):
    return build_labeler({"name": "ase", "calculator": "ase.calculators.emt.EMT", **settings})


def broken(how: str = "", **settings):
    calculator = "labeling.broken_calculators.Broken"
    return build_labeler(
        {"name": "ase", "calculator": calculator, "keywords": {"how": how}, **settings}
    )


def failure(built, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        built.label(one)
    return caught.value


HYDROGEN = structure_of(ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.75]]))


def test_emt_gives_slopes_of_its_energy_and_the_stress():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    one, step, built = structure_of(atoms), 1e-4, emt()
    labels = built.label(one)
    sides = []
    for sign in (1, -1):
        moved = one.positions.copy()
        moved[2, 1] += sign * step
        sides.append(float(built.label(one._replace(positions=moved)).energy))
    assert -(sides[0] - sides[1]) / (2 * step) == pytest.approx(labels.forces[2, 1], abs=1e-6)
    sides = []
    for sign in (1, -1):
        deform = np.eye(3) + sign * step * np.diag([0, 0, 1.0])
        strained = one._replace(positions=one.positions @ deform, cell=one.cell @ deform)
        sides.append(float(built.label(strained).energy))
    slope = (sides[0] - sides[1]) / (2 * step * abs(np.linalg.det(one.cell)))
    assert slope == pytest.approx(labels.stress[2, 2], abs=1e-6)


def test_a_label_depends_on_its_structure_alone():
    one, other = structure_of(bulk("Cu")), structure_of(bulk("Al"))
    built = emt()
    first = built.label(one)
    built.label(other)
    for a, b in zip(first, built.label(one), strict=True):
        np.testing.assert_array_equal(a, b)


def test_elements_that_it_does_not_know_are_the_structures_fault():
    assert failure(emt(), structure_of(bulk("Fe"))).kind == "bad_input"
    named = emt(elements=["Cu", "Al"])
    assert "no parameters for Au" in failure(named, structure_of(bulk("Au"))).message
    with pytest.raises(BadInput, match="elements: 'Xq'"):
        emt(elements=["Xq"])
    assert "molecules only" in failure(emt(periodic=False), structure_of(bulk("Cu"))).message


def test_which_energy():
    values = {key: float(broken(energy_key=key).label(HYDROGEN).energy) for key in KEYS}
    assert values == KEYS
    assert "free_energy" in broken().convention
    assert broken(method="PBE").convention == (
        "ase: labeling.broken_calculators.Broken PBE; free_energy, the forces' own, where given, "
        "else energy"
    )


KEYS = {"automatic": 2.0, "free_energy": 2.0, "energy": 1.0}


def test_charge_and_spin_reach_the_calculator_or_are_refused():
    cation = HYDROGEN._replace(charge=np.int32(1), multiplicity=np.int32(2))
    triplet = HYDROGEN._replace(multiplicity=np.int32(3))
    assert "`charge_keyword`" in failure(broken(), cation).message
    assert "`multiplicity_keyword`" in failure(broken(), triplet).message
    assert failure(broken(), triplet).kind == "bad_input"
    full = broken(charge_keyword="charge", unpaired_electrons_keyword="spin.unpaired")
    assert float(full.label(cation).energy) == 2.0 + 100 + 10
    assert float(full.label(triplet).energy) == 2.0 + 20
    assert float(full.label(HYDROGEN).energy) == 2.0
    odd = failure(full, HYDROGEN._replace(charge=np.int32(1)))
    assert "1 electrons (an odd number" in odd.message
    with pytest.raises(BadInput, match="not both"):
        broken(multiplicity_keyword="mult", unpaired_electrons_keyword="nupdown")


KINDS = {
    "flagged": "not_converged",
    "silent": "not_converged",
    "scf": "not_converged",
    "said": "not_converged",
    "failed": "crash",
    "memory": "out_of_memory",
    "unreadable": "parse",
    "nothing": "parse",
    "internal": "crash",
    "element": "bad_input",
}


@pytest.mark.parametrize("how", KINDS)
def test_failures(how):
    found = failure(broken(how), HYDROGEN)
    assert found.kind == KINDS[how]
    words = {"failed": "last words", "unreadable": "half an output", "nothing": "no forces here"}
    assert words.get(how, "") in found.log_tail
    words = {"silent": "label.out: WARNING SCF run NOT converged", "nothing": "gave no forces"}
    assert words.get(how, "") in found.message


@pytest.mark.parametrize("how", ["shell", "absent", "configuration", "keywords"])
def test_what_is_not_installed_or_not_configured_is_the_users(how):
    with pytest.raises(BadInput, match="Broken: "):
        broken(how).label(HYDROGEN)


def test_every_label_stands_in_a_folder_of_its_own(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = Path.cwd()
    for _ in range(2):
        broken().label(HYDROGEN)
        assert failure(broken("internal"), HYDROGEN).kind == "crash"
    assert Path.cwd() == before
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""
    assert "label.out" not in os.listdir(before)


def test_names_that_are_none():
    with pytest.raises(BadInput, match=r"package\.module\.Class, found EMT"):
        emt(calculator="EMT")
    cases = {
        "nowhere.calculators.X": "is the package nowhere installed",
        "ase.calculators.emt.EMTT": "has no class EMTT",
        "labeling.broken_calculators.Forceless": "gives no forces",
    }
    for calculator, words in cases.items():
        with pytest.raises(BadInput, match=words):
            emt(calculator=calculator).label(structure_of(bulk("Cu")))
    with pytest.raises(BadInput, match="does not take these keywords"):
        broken(keywords={"hwo": "good"}).label(HYDROGEN)
    with pytest.raises(BadInput, match="EMT has none; put `command` among the keywords"):
        emt(profile={"command": "x"}).label(structure_of(bulk("Cu")))
    with pytest.raises(BadInput, match=r"labeler\.calculator: missing"):
        build_labeler({"name": "ase"})


def test_settings():
    built = builder(calculator="ase.calculators.emt.EMT", keywords={"asap_cutoff": True})
    assert pickle.loads(pickle.dumps(built)) == built
    assert built.version() == f"ase {ase.__version__}"
    resolved = resolve_labeler({"name": "ase", "calculator": "ase.calculators.emt.EMT"})
    names = set(resolved) - {"name", "multiplicities", "fallbacks"}
    limits = {"closest_fraction", "max_energy_eV_per_atom"}
    limits |= {"max_force_eV_per_A", "max_net_force_eV_per_A"}
    # which calculator answers is no part of the answer
    assert names - limits - {"keep_calculator"} == set(built.settings)


@pytest.mark.engine
def test_tblite_by_its_calculator_is_tblite():
    """Charge and multiplicity included: the hydroxyl radical and its anion."""
    keywords = {"method": "GFN2-xTB", "verbosity": 0}
    through = build_labeler(
        {
            "name": "ase",
            "calculator": "tblite.ase.TBLite",
            "keywords": keywords,
            "charge_keyword": "charge",
            "multiplicity_keyword": "multiplicity",
        }
    )
    direct = build_labeler({"name": "tblite"})
    for charge, multiplicity in ((0, 2), (-1, 1)):
        one = structure_of(molecule("OH"), charge, multiplicity)
        ours, known = through.label(one), direct.label(one)
        assert float(ours.energy) == pytest.approx(float(known.energy), abs=1e-6)
        np.testing.assert_allclose(ours.forces, known.forces, atol=1e-6)
    assert "tblite" in through.label_about(structure_of(molecule("H2O")))[1]["version"]
    water = structure_of(molecule("H2O"))
    stuck = {**keywords, "max_iterations": 2}
    hopeless = build_labeler({"name": "ase", "calculator": "tblite.ase.TBLite", "keywords": stuck})
    assert failure(hopeless, water).kind == "not_converged"


def test_a_calculator_that_is_kept_is_built_once_and_its_labels_are_the_same():
    atoms = bulk("Cu", cubic=True)
    one, plain, kept = structure_of(atoms), emt(), emt(keep_calculator=True)
    assert kept.settings == plain.settings  # it changes no label
    assert float(kept.label(one).energy) == float(plain.label(one).energy)
    built = kept_calculators()
    kept.label(one._replace(positions=one.positions + 0.1))
    pickle.loads(pickle.dumps(kept)).label(one)
    assert kept_calculators() == built
    emt(keywords={"asap_cutoff": True}, keep_calculator=True).label(one)
    assert len(kept_calculators()) == len(built) + 1


def kept_calculators() -> set[int]:
    module = importlib.import_module("alj.labeling.ase")  # the package has a function of that name

    return set(map(id, module._CALCULATORS.values()))
