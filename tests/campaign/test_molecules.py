"""Molecules by name and from files: what needs no other package than ASE."""

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.collections import g2
from ase.formula import Formula

from alj.campaign.build import build_structures
from alj.campaign.molecules import AMBIGUOUS, source_of
from alj.campaign.names import NAMES
from alj.labeling.atoms import atoms_of
from alj.types import BadInput


def molecule(name=None, **settings):
    spec = {"name": "molecule", "molecule": name, **settings}
    (one,) = build_structures(spec, np.random.default_rng(0))
    return one.structure


@pytest.mark.parametrize(
    ("name", "formula", "multiplicity"),
    [
        ("water", "H2O", 0),
        ("Water", "H2O", 0),
        ("benzene", "C6H6", 0),
        ("oxygen", "O2", 3),
        ("nitric oxide", "NO", 2),
        ("CH3CONH2", "C2H5NO", 0),
        ("CH2_s3B1d", "CH2", 3),
        ("isobutene", "C4H8", 0),
    ],
)
def test_names_of_the_g2_set(name, formula, multiplicity):
    one = molecule(name)
    assert Formula(atoms_of(one).get_chemical_formula()) == Formula(formula)
    assert int(one.multiplicity) == multiplicity
    assert int(one.charge) == 0
    assert not one.cell.any()


def test_every_name_of_an_entry_stands_for_a_molecule_of_the_set():
    for name, (kind, text) in NAMES.items():
        assert name == name.lower()
        assert kind == "smiles" or len(g2[text]) > 1
    assert NAMES["eicosane"] == ("smiles", "C" * 20)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_formulas_that_are_smiles_too_are_refused_with_their_name(name):
    with pytest.raises(BadInput, match=r"is a formula .* and a SMILES too") as caught:
        molecule(name)
    other = str(caught.value).split("'")[-2]
    assert source_of(other) == ("g2", name)


def test_a_file_gives_charge_and_multiplicity(tmp_path):
    hydroxide = ase.build.molecule("OH")
    hydroxide.info["charge"] = -1
    radical = ase.build.molecule("OH")
    radical.info["multiplicity"] = 2
    ase.io.write(tmp_path / "hydroxide.xyz", hydroxide)
    ase.io.write(tmp_path / "radical.xyz", radical)
    ase.io.write(tmp_path / "nothing.xyz", ase.build.molecule("OH"))
    assert int(molecule(str(tmp_path / "hydroxide.xyz")).charge) == -1
    assert int(molecule(str(tmp_path / "radical.xyz")).multiplicity) == 2
    with pytest.raises(BadInput, match="an even number for 9 electrons, found none"):
        molecule(str(tmp_path / "nothing.xyz"))
    assert int(molecule(str(tmp_path / "nothing.xyz"), multiplicity=2).multiplicity) == 2


def test_all_structures_of_a_file_are_changed(tmp_path):
    frames = [ase.build.molecule(name) for name in ("H2O", "CH4", "NH3")]
    ase.io.write(tmp_path / "three.extxyz", frames)
    spec = {"name": "molecule", "molecule": str(tmp_path / "three.extxyz"), "rattle_A": 0.01}
    built = build_structures(spec, np.random.default_rng(0))
    assert [len(one.structure.species) for one in built] == [3, 5, 4]
    built = build_structures(spec, np.random.default_rng(0), count=7)
    assert [len(one.structure.species) for one in built] == [3, 5, 4, 3, 5, 4, 3]
    for one, frame in zip(built, 3 * frames, strict=False):
        away = one.structure.positions - frame.positions
        assert 0 < np.abs(away).max() < 0.06


def test_a_file_may_have_the_same_structure_twice(tmp_path):
    ase.io.write(tmp_path / "twice.extxyz", [ase.build.molecule("H2O")] * 2)
    spec = {"name": "molecule", "molecule": str(tmp_path / "twice.extxyz")}
    assert len(build_structures(spec, np.random.default_rng(0))) == 2
    with pytest.raises(BadInput, match="of 4 structures only 2 would differ"):
        build_structures(spec, np.random.default_rng(0), count=4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of molecule or smiles, found none"),
        ({"molecule": "water", "smiles": "O"}, "found molecule and smiles"),
        ({"molecule": "water", "conformers": 3}, "expected 1 for a geometry that is given"),
        ({"molecule": "water", "multiplicity": 2}, "an odd number of 1 or more for 10 electrons"),
        ({"molecule": "water", "multiplicity": 0}, "found 0"),
        ({"molecule": "water", "multiplicity": -1}, "found -1"),
        ({"molecule": "hydrogen", "multiplicity": 5}, "expected 3 at most"),
        ({"molecule": "water", "changes": [{"name": "strain", "random": 0.1}]}, "periodic cell"),
        ({"molecule": "nowhere.xyz"}, "no such file"),
    ],
)
def test_what_cannot_be_built_is_one_line(settings, words):
    with pytest.raises(BadInput, match=words) as caught:
        build_structures({"name": "molecule", **settings}, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
