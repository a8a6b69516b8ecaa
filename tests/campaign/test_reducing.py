"""`alj reduce`: copies go, kinds stay, all formats say the same, and a killed run ends the same."""

import json

import ase
import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule

from alj.campaign import datasets, patterns, reducing
from alj.campaign.reducing import Request, reduce
from alj.campaign.store import FolderStore
from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.types import BadInput

KINDS = ("H2O", "CH4", "CH3OH", "C2H4", "NH3")
PERIOD = {"period": 60}


def pool(each=60, seed=0):
    """Rattled molecules of five kinds in a random order, labeled with their number."""
    rng, frames = np.random.default_rng(seed), []
    for name in KINDS:
        for _ in range(each):
            atoms = molecule(name)
            atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
            atoms.info["config_type"] = name
            frames.append(atoms)
    frames = [frames[i] for i in rng.permutation(len(frames))]
    for number, atoms in enumerate(frames):
        atoms.info["REF_energy"] = float(number)
        atoms.arrays["REF_forces"] = np.full((len(atoms), 3), number / 10.0)
    return frames


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, pool())
    return path


def reduced(file, out="kept.extxyz", **changes):
    asked = {"share": 0.1, "settings": PERIOD, **changes}
    return reduce(Request(str(file), str(file.parent / out), **asked))


def test_every_kind_keeps_some_and_all_that_the_pool_says_of_them(file):
    found = reduced(file)
    kept, _ = datasets.read(file.parent / "kept.extxyz")
    assert datasets.count(kept) == len(found.places) == 30
    assert {info["config_type"] for info in kept.info} == set(KINDS)
    places = [info["pool_index"] for info in kept.info]
    assert places == sorted(found.places.tolist())
    np.testing.assert_array_equal(kept.energy, np.array(places, float))
    frames = ase.io.read(file, ":")
    for i, place in enumerate(places):
        one = datasets.structure(kept, i)
        np.testing.assert_array_equal(one.positions, frames[place].positions)
        np.testing.assert_array_equal(datasets.labels(kept, i).forces, place / 10.0)
    ranks = {info["kept_rank"]: info["pool_index"] for info in kept.info}
    assert [ranks[k] for k in range(30)] == found.places.tolist()
    assert {info["kept_because"] for info in kept.info} >= {"nearest to its node"}


def test_the_report_the_classes_and_the_figure_lie_beside(file):
    found = reduced(file)
    report = json.loads((file.parent / "kept.json").read_text())
    assert report == found.report
    assert report["structures"] == 300
    assert report["kept"] == report["kept_as_nearest_to_a_node"] + report["kept_to_fill_a_gap"]
    rows = (file.parent / "kept.classes.csv").read_text().splitlines()
    assert rows[0] == "class,structures,kept,kept_share"
    counts = np.array([row.split(",")[1:3] for row in rows[1:]], int)
    assert counts.sum(axis=0).tolist() == [300, 30]
    assert (file.parent / "kept.png").read_bytes().startswith(b"\x89PNG")


def test_copies_are_dropped_until_nothing_differs(tmp_path):
    frames = pool(each=8)
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, [*frames, *frames, *frames])
    found = reduced(path, share=1.0)
    assert len(found.places) == len(frames)
    assert found.report["farthest_dropped"] == 0.0
    near = reduced(path, "near.extxyz", share=None, distance=0.05)
    assert near.report["farthest_dropped"] <= 0.05
    assert len(near.places) < len(frames)


def test_every_format_gives_the_same_spectra(file, tmp_path):
    frames = ase.io.read(file, ":")
    with ase.db.connect(tmp_path / "pool.db") as database:
        for atoms in frames:
            database.write(ase.Atoms(atoms.numbers, atoms.positions))
    kinds = sorted({tuple(atoms.numbers) for atoms in frames})
    order = []
    with h5py.File(tmp_path / "pool.h5", "w") as root:
        for number, numbers in enumerate(kinds):
            own = [i for i, atoms in enumerate(frames) if tuple(atoms.numbers) == numbers]
            group = root.create_group(f"gdb11_s01/gdb11_s01-{number}")
            group["coordinates"] = np.array([frames[i].positions for i in own])
            group["energies"] = np.arange(len(own)) - 40.0
            group["species"] = np.array([s.encode() for s in frames[own[0]].symbols])
            order += own
    found = {}
    for suffix in ("extxyz", "db", "h5"):
        with FolderStore(tmp_path / suffix) as store:
            found[suffix] = patterns.patterns_of(tmp_path / f"pool.{suffix}", store).spectra
    np.testing.assert_allclose(found["db"], found["extxyz"], atol=1e-9)
    np.testing.assert_allclose(found["h5"], found["extxyz"][order], atol=1e-9)
    alone = coulomb_spectra(frames[7].positions[None], frames[7].numbers[None], length=6)[0]
    np.testing.assert_allclose(found["extxyz"][7], alone, atol=1e-9)
    wanted = np.array([0, 3, 4, 299])
    for place, atoms in patterns.atoms_at(tmp_path / "pool.h5", wanted):
        np.testing.assert_array_equal(atoms.positions, frames[order[place]].positions)


class Killed(BaseException):
    """As a signal would end it."""


def test_a_run_that_is_killed_anywhere_ends_the_same(file, monkeypatch):
    monkeypatch.setattr(patterns, "SLAB", 64)
    monkeypatch.setattr(reducing, "CHUNK", 50)
    whole = reduced(file, "whole.extxyz")
    calls, limit = 0, 1
    write = FolderStore.replace

    def replace(self, name, value, **more):
        nonlocal calls
        calls += 1
        if calls == limit:
            raise Killed
        write(self, name, value, **more)

    monkeypatch.setattr(FolderStore, "replace", replace)
    for limit in range(1, 13):  # noqa: B007 (read inside)
        calls = 0
        try:
            found = reduced(file, "cut.extxyz")
            break
        except Killed:
            continue
    assert limit > 2
    assert found.places.tolist() == whole.places.tolist()
    both = [(file.parent / name).read_text() for name in ("whole.extxyz", "cut.extxyz")]
    assert both[0] == both[1]


def test_what_is_no_molecule_is_set_aside_or_refused(tmp_path):
    frames = pool(each=6)
    frames[3].positions[1] = frames[3].positions[0] + 0.05
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, frames)
    found = reduced(path, share=1.0)
    assert found.report["set_aside"] == 1
    assert 3 not in found.places.tolist()
    frames[4].cell, frames[4].pbc = 9.0 * np.eye(3), True
    ase.io.write(path, frames)
    with pytest.raises(BadInput, match=r"structure 4 .* is periodic"):
        reduced(path)
    with pytest.raises(BadInput, match="not both"):
        reduced(path, share=0.1, count=3)
    with pytest.raises(BadInput, match="no such file"):
        reduced(tmp_path / "none.extxyz")
    with pytest.raises(BadInput, match="perod: unknown key, did you mean 'period'"):
        reduced(path, settings={"perod": 3})


def test_the_command(alj, file):
    code, text, error = alj("reduce", file, "--count", 12, "--out", "few.extxyz", "--set",
                            "period=60")  # fmt: skip
    assert code == 0, error
    assert "few.extxyz: 12 of 300 structures kept (4 %)" in text
    code, _, error = alj("reduce", file, "--out", file)
    assert code == 2
    assert "expected a file of its own" in error
