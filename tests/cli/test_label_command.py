"""`alj label`, its work folder, and second chances."""

import json
import os

import ase
import ase.io
import numpy as np
import pytest
from cli.test_commands import beads


@pytest.fixture
def three(tmp_path):
    """Three structures, the second of which no potential should be asked about."""
    ase.io.write(tmp_path / "in.extxyz", [beads(3), beads(distance=1e-6), beads(2)])
    return ("label", "in.extxyz", "--out", "out.extxyz")


def test_nothing_is_left_once_all_is_labeled_and_it_is_not_done_again(alj, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", [beads(3), beads(2)])
    command = ("label", "in.extxyz", "--out", "out.extxyz", "--labeler", "ml_bop_water")
    assert alj(*command)[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["in.extxyz", "out.extxyz"]
    first, second = ase.io.read("out.extxyz", ":")
    for atoms in (first, second):
        assert atoms.info["reference"] == "ml_bop_water"
        assert {"label_version", "label_settings", "label_host", "label_seconds"} <= set(atoms.info)
    before = (tmp_path / "out.extxyz").stat()
    assert alj(*command)[0] == 0
    assert (tmp_path / "out.extxyz").stat().st_mtime_ns == before.st_mtime_ns
    charged = beads(3)
    charged.info["charge"] = 2
    ase.io.write(tmp_path / "in.extxyz", [charged, beads(2)])
    code, _, error = alj(*command)
    assert code == 2
    assert "exists already" in error
    code, _, error = alj(*command[:-1], "lennard_jones")
    assert code == 2
    assert "exists already" in error


def test_failures_stay_with_their_reasons_and_can_be_tried_again(alj, tmp_path, three):
    assert alj(*three, "--labeler", "ml_bop_water")[0] == 3
    code, text, _ = alj("status", "out.extxyz.work", "--failures", "--json")
    assert code == 0
    told = json.loads(text)
    assert (told["labeled"], told["failed"]) == (2, 0)  # it was refused before it was asked about
    assert "label_failure=bad_input" in (tmp_path / "out.extxyz").read_text()


@pytest.mark.slow
def test_sections_of_a_configuration_serve_as_well(alj, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", beads(3))
    (tmp_path / "config.yaml").write_text(
        "labeler: {name: lennard_jones, cutoff_A: 5.0}\nexecutor: {name: local, workers: 1}\n"
    )
    common = ("label", "in.extxyz", "--config", "config.yaml")
    assert alj(*common, "--out", "a.extxyz")[0] == 0
    assert alj(*common, "--out", "b.extxyz", "--executor", "inline")[0] == 0
    changed = ("--set", "cutoff_A=4.0", "--set", "executor.workers=2")
    assert alj(*common, "--out", "c.extxyz", *changed)[0] == 0
    a, b, c = (ase.io.read(f"{name}.extxyz").info for name in "abc")
    assert a["REF_energy"] == b["REF_energy"] != c["REF_energy"]
    assert a["label_settings"] == b["label_settings"] != c["label_settings"]
    for wrong, message in (
        (("--executor", "locall"), "did you mean 'local'"),
        (("--set", "executor.worker=2"), "did you mean 'workers'"),
        (("--labeler", "tbilte"), "did you mean 'tblite'"),
    ):
        code, _, error = alj(*common, "--out", "d.extxyz", *wrong)
        assert code == 2
        assert message in error
    code, _, error = alj("label", "in.extxyz", "--out", "d.extxyz")
    assert code == 2
    assert "expected --labeler NAME" in error


def test_free_atoms_come_at_the_end(alj, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", beads(3))
    command = ("label", "in.extxyz", "--out", "out.extxyz", "--labeler", "ml_bop_water")
    assert alj(*command, "--isolated-atoms")[0] == 0
    _, atom = ase.io.read("out.extxyz", ":")
    assert (len(atom), atom.info["config_type"]) == (1, "isolated_atom")
    assert atom.info["REF_energy"] == 0.0


def test_references_are_not_mixed_unless_asked_for(alj, tmp_path, three):
    assert alj(*three, "--labeler", "ml_bop_water")[0] == 3
    other = (*three, "--labeler", "lennard_jones")
    code, _, error = alj(*other)
    assert code == 2
    assert "holds labels of ml_bop_water; labels of lennard_jones must not be mixed" in error
    assert alj(*other, "--mixed")[0] == 3


@pytest.mark.slow
def test_training_refuses_labels_of_two_references(alj, tmp_path):
    frames = []
    for seed, whose in enumerate(("one", "one", "two")):
        atoms = beads(4)
        atoms.positions += np.random.default_rng(seed).normal(0, 0.05, (4, 3))
        atoms.info |= {"REF_energy": -1.0 - seed, "reference": whose}
        frames.append(atoms)
    ase.io.write(tmp_path / "data.extxyz", frames)
    (tmp_path / "train.yaml").write_text(
        "data: {train: data.extxyz, test_fraction: 0.0}\n"
        "potential: {name: behler_parrinello, cutoff_A: 3.5, hidden: [3]}\n"
        "trainer: {name: levenberg_marquardt, members: 1, steps: 1, split: all}\n"
    )
    code, _, error = alj("train", "train.yaml")
    assert code == 2
    assert "data.extxyz holds labels of two; expected one only" in error
    assert alj("train", "train.yaml", "--set", "data.mixed_engines=true")[0] == 0
