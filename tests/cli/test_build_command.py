"""`alj build`: what it writes, what it says, and one line for every mistake."""

import json

import ase
import ase.io
import numpy as np
import pytest


def test_a_crystal_is_written_and_described(alj, tmp_path):
    code, text, error = alj(
        "build", "crystal", "NaCl", "--set", "supercell=[2,2,2]", "--set", "rattle_A=0.02",
        "--count", 3, "--seed", 7, "--config-type", "salt", "--out", "salt.extxyz",
    )  # fmt: skip
    assert (code, error) == (0, "")
    frames = ase.io.read(tmp_path / "salt.extxyz", ":")
    assert [len(atoms) for atoms in frames] == [64] * 3
    assert [atoms.info["config_type"] for atoms in frames] == ["salt"] * 3
    assert [atoms.info["seed"] for atoms in frames] == [7] * 3
    assert frames[0].info["built_from"] == "crystal material=NaCl supercell=[2,2,2] rattle_A=0.02"
    distances = [atoms.get_all_distances(mic=True)[np.triu_indices(64, 1)] for atoms in frames]
    assert text == (
        "salt.extxyz: 3 structures of 64 atoms, Na32Cl32, "
        f"smallest distance {np.min(distances):.3f} Å, 2.164 g/cm³\n"
    )


def test_atoms_carry_their_ground_states(alj, tmp_path):
    code, text, _ = alj("build", "atoms", "H", "C", "O", "--out", "atoms.extxyz")
    assert code == 0
    frames = ase.io.read(tmp_path / "atoms.extxyz", ":")
    assert [atoms.info["multiplicity"] for atoms in frames] == [2, 3, 3]
    assert {atoms.info["config_type"] for atoms in frames} == {"isolated_atom"}
    assert not any(atoms.pbc.any() for atoms in frames)
    assert text.splitlines()[1] == "atoms.extxyz: 1 structure of 1 atom, C, multiplicity 3"


def test_a_box_and_a_slab(alj, tmp_path):
    code, text, _ = alj("build", "box", "water", "--set", "copies=12", "--out", "box.xyz")
    assert (code, text.split(", ")[1]) == (0, "H24O12")
    assert text.endswith("1.000 g/cm³\n")
    code, *_ = alj("build", "slab", "Cu", "--set", "miller=[1,1,1]", "-q", "--out", "slab.xyz")
    assert code == 0
    assert len(ase.io.read(tmp_path / "slab.xyz")) == 16


def test_the_first_word_may_be_left_out_for_settings(alj, tmp_path):
    settings = ("--set", "mixture={water: 4, ammonia: 2}", "--set", "density_g_per_cc=0.5")
    code, text, _ = alj("build", "box", *settings, "--out", "mixture.extxyz")
    assert code == 0
    assert "H14N2O4" in text
    changes = "changes=[{name: strain, isotropic: [-0.01, 0.01], count: 3}]"
    out = ("--out", "strained.extxyz")
    code, text, _ = alj("build", "crystal", "Si", "--set", changes, *out)
    assert code == 0
    assert text.endswith("2.262 to 2.402 g/cm³\n")


def test_the_same_seed_writes_the_same_file(alj, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = ("build", "random_atoms", "Ar", "--set", "atoms=20", "--seed", seed)
        assert alj(*command, "--out", f"{name}.extxyz")[0] == 0
    a, b, c = ((tmp_path / f"{name}.extxyz").read_text() for name in "abc")
    assert a == b
    assert a != c


def test_a_file_is_replaced_only_by_force(alj, tmp_path):
    (tmp_path / "old.extxyz").write_text("precious")
    command = ("build", "crystal", "Cu", "--out", "old.extxyz")
    code, _, error = alj(*command)
    assert code == 2
    assert "old.extxyz exists already" in error
    assert (tmp_path / "old.extxyz").read_text() == "precious"
    assert alj(*command, "--force")[0] == 0
    assert len(ase.io.read(tmp_path / "old.extxyz")) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crystall", "Cu"], "did you mean 'crystal'"),
        (["crystal", "Xx"], "material: expected a chemical symbol"),
        (["crystal"], "material: missing"),
        (["crystal", "Cu", "Ag"], "expected one material, found 2: Cu Ag"),
        (["crystal", "Cu", "--set", "suprecell=[1,1,1]"], "did you mean 'supercell'"),
        (["crystal", "Cu", "--set", "supercell=[0,1,1]"], "1 or more"),
        (["crystal", "Cu", "--set", "supercell"], "--set supercell: expected key"),
        (["crystal", "Cu", "--set", "rattle_A=-1"], "rattle_A: expected 0 to"),
        (["crystal", "Cu", "--set", "changes=[{name: rattel}]"], "did you mean 'rattle'"),
        (["crystal", "Cu", "--count", "2"], "of 2 structures only 1 would differ"),
        (["crystal", "Cu", "--count", "0"], "--count"),
        (["crystal", "Cu", "--seed", "-1"], "--seed"),
        (["crystal", "nowhere.cif"], "no such file"),
        (["atoms"], "elements: missing"),
        (["atoms", "Uuo"], "elements: expected a chemical symbol"),
        (["box", "water"], "copies: expected"),
        (["molecule", "NO"], "say smiles: NO, or 'nitric oxide'"),
        (["molecule", "acetic", "acid"], "put quotes around"),
        (["crystal", "Cu", "--out", "cu.cif"], "ends in .extxyz or .xyz"),
        (["crystal", "Cu", "--out", "no/cu.xyz"], "no: no such folder"),
        (["crystal", "Cu", "--out", "."], "ends in .extxyz"),
    ],
)
def test_what_cannot_be_built_is_one_line(alj, tmp_path, arguments, words):
    out = [] if "--out" in arguments else ["--out", "out.extxyz"]
    code, _, error = alj("build", *arguments, *out)
    assert code == 2
    assert error.startswith("alj: error: ")
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.glob("*xyz")) == []


def test_builders_and_changes_are_shown(alj):
    assert "random_atoms" in alj("show")[1]
    for kind, name in (("build", "crystal"), ("change", "vacancies")):
        assert name in alj("show", kind)[1]
        described = json.loads(alj("schema", kind)[1])
        assert name in described["anyOf"][0]["enum"]
    text = alj("show", "build", "crystal")[1]
    for setting in ("material = required", "supercell = null", "rattle_A = 0.0"):
        assert setting in text
