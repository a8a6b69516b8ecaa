"""`alj select`: what is chosen, in slabs or at once, resumed; and what is refused, in one line."""

import csv

import ase.io
import numpy as np
import pytest
from campaign.tiny import CONFIG, cluster, labeled, trained

from alj.campaign import choosing, datasets, models
from alj.campaign.choosing import Request, select
from alj.cli import invoke
from alj.types import BadInput


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choosing")
    potential, params = trained()
    assert potential.species == (8,)
    models.save(
        folder / "model", potential_config=CONFIG, species=(8,), params=params,
        precision="float64", provenance={},
    )  # fmt: skip
    datasets.write(folder / "train.extxyz", labeled(5))
    pool = datasets.append(datasets.empty(), [cluster(seed) for seed in range(20, 29)])
    datasets.write(folder / "pool.extxyz", pool)
    hydrogen = cluster(3)._replace(species=np.full(8, 1, np.int32))
    datasets.write(folder / "other.extxyz", datasets.append(datasets.empty(), [hydrogen]))
    return folder


def request(files, out, selector, **changes):
    spec = selector if isinstance(selector, dict) else {"name": selector}
    given = {"count": 3, "train": str(files / "train.extxyz"), **changes}
    return Request(str(files), str(files / "pool.extxyz"), spec, out=str(out), **given)


@pytest.mark.parametrize("name", ["qs1", "d_optimal", "max_dist", "committee", "random"])
def test_slabs_choose_what_the_whole_chooses(files, tmp_path, monkeypatch, name):
    whole = select(request(files, tmp_path / "whole.extxyz", name, scores=str(tmp_path / "s.csv")))
    monkeypatch.setattr(choosing, "SLAB", 4)
    seen = []
    found = select(
        request(files, tmp_path / "slabs.extxyz", name), lambda done, total: seen.append(done)
    )
    np.testing.assert_array_equal(found.places, whole.places)
    assert seen in ([4, 8, 9], [])
    assert (tmp_path / "slabs.extxyz").read_text() == (tmp_path / "whole.extxyz").read_text()
    frames = ase.io.read(tmp_path / "whole.extxyz", index=":")
    assert [frame.info["pool_index"] for frame in frames] == whole.places.tolist()
    for frame, place in zip(frames, whole.places, strict=True):
        np.testing.assert_allclose(frame.positions, cluster(20 + place).positions)
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(rows) == 9
    assert [int(rows[place]["chosen"]) for place in whole.places] == [0, 1, 2]
    if name == "qs1":
        best = np.argsort([-float(row["qs1"]) for row in rows], kind="stable")[:3]
        np.testing.assert_array_equal(best, whole.places)


def test_uniform_in_what_the_model_says_and_in_what_the_pool_says(files, tmp_path, monkeypatch):
    """Values of atoms survive slabs; those of the data are read from it; farthest descriptors."""
    pool, _ = datasets.read(files / "pool.extxyz", labels="optional")
    numbers = [3.0, 0.0, 5.0, 1.0, 9.0, 2.0, 4.0, 7.0, 8.0]
    info = tuple({"strange": value, "walk": place // 5} for place, value in enumerate(numbers))
    datasets.write(files / "columns.extxyz", pool._replace(info=info))
    for spec in (
        {"name": "property_uniform"},
        {"name": "property_uniform", "property": "force_magnitudes"},
        {"name": "property_uniform", "property": "energy"},
        {"name": "max_dist", "features": "descriptors"},
        {"name": "one_trajectory"},
        {"name": "property_uniform", "property": "column", "column": "strange"},
    ):
        monkeypatch.setattr(choosing, "SLAB", 8192)
        asked = request(files, tmp_path / "whole.extxyz", spec)
        asked = asked._replace(pool=str(files / "columns.extxyz"))
        whole = select(asked)
        monkeypatch.setattr(choosing, "SLAB", 4)
        found = select(asked._replace(out=str(tmp_path / "slabs.extxyz")))
        np.testing.assert_array_equal(found.places, whole.places)
        if spec["name"] == "one_trajectory":
            assert len(set(found.places // 5)) == 1
    assert sorted(np.array(numbers)[found.places]) == [0.0, 4.0, 9.0] or set(
        np.array(numbers)[found.places]
    ) == {0.0, 5.0, 9.0}
    with pytest.raises(BadInput, match="among the labels of the pool, found none"):
        select(request(files, tmp_path / "no.extxyz", {"name": "property_uniform", "of": "labels"}))


def test_a_stopped_run_goes_on(files, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "SLAB", 4)
    whole = select(request(files, tmp_path / "whole.extxyz", "qs1"))

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done == 8:
            raise Stopped

    asked = request(files, tmp_path / "again.extxyz", "qs1")
    with pytest.raises(Stopped):
        select(asked, stop)
    seen = []
    again = select(asked, lambda done, total: seen.append(done))
    assert seen == [9]
    np.testing.assert_array_equal(again.places, whole.places)


@pytest.mark.parametrize(
    ("selector", "changes", "words"),
    [
        ("qs1", {"train": None}, "--train: qs1"),
        ("random", {"count": 10}, "asked for 10 structures"),
        ("along_path", {}, "which only a campaign knows"),
        ("qs4", {}, "did you mean"),
        ("random", {"pool": "other.extxyz"}, "other.extxyz"),
        ("random", {"model": "nowhere"}, "not a model"),
    ],
)
def test_what_cannot_be_is_refused(files, tmp_path, selector, changes, words):
    asked = request(files, tmp_path / "out.extxyz", selector)
    if "pool" in changes:
        changes = {"pool": str(files / changes["pool"]), "count": 1}
    with pytest.raises(BadInput, match=words):
        select(asked._replace(**changes))
    assert not (tmp_path / "out.extxyz").exists()


def test_the_command(files, tmp_path, capsys):
    out = tmp_path / "chosen.extxyz"
    arguments = [
        "select",
        str(files),
        str(files / "pool.extxyz"),
        "--count",
        "2",
        "--out",
        str(out),
    ]
    train = ["--train", str(files / "train.extxyz")]
    assert invoke([*arguments, *train, "--selector", "qs1"]) == 0
    printed = capsys.readouterr()
    assert "2 of 9 structures chosen by qs1" in printed.out
    assert len(ase.io.read(out, index=":")) == 2
    # Nothing varies more than a threshold that no candidate passes: fewer are chosen, and said so.
    strict = [
        "--selector",
        "trust_levels",
        "--set",
        "low_eV_per_A=1e4",
        "--set",
        "high_eV_per_A=2e4",
    ]
    assert invoke([*arguments, *train, *strict]) == 3
    assert "asked for 2 structures, 0 qualified" in capsys.readouterr().err
