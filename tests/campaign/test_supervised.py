"""`alj train`: files in, a model out; resumable to the last bit, and strict about its data."""

import ase
import ase.io
import jax
import numpy as np
import pytest

from alj.campaign import checkpoints, events, models, supervised
from alj.campaign.supervised import make_plan, run_training
from alj.types import BadInput


def write_dimers(path, count=24, seed=0, symbol="O", slope=0.3):
    """Dimers whose energy is linear in their distance."""
    frames = []
    for distance in np.random.default_rng(seed).uniform(2.0, 3.2, count):
        atoms = ase.Atoms(f"{symbol}2", [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        atoms.info["REF_energy"] = slope * distance
        frames.append(atoms)
    ase.io.write(path, frames)
    return str(path)


def config_of(path, **data):
    return {
        "seed": 3,
        "precision": "float64",
        "data": {"train": path, **data},
        "potential": {"name": "behler_parrinello", "hidden": [3]},
        "trainer": {"name": "levenberg_marquardt", "steps": 20, "members": 2},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An undisturbed training: its configuration and folder."""
    folder = tmp_path_factory.mktemp("trained")
    config = config_of(write_dimers(folder / "dimers.extxyz"), test_fraction=0.25)
    assert run_training(config, folder / "run").exit_code == 0
    return config, folder / "run"


def params_in(folder):
    return jax.tree.leaves(models.load(folder).params)


def test_it_learns_and_leaves_model_predictions_and_history(trained):
    _, folder = trained
    with np.load(folder / "results" / "test.npz") as arrays:
        errors = arrays["energy"] - arrays["energy_reference"]
        assert len(errors) == 6
        assert np.std(errors) < 0.1 * np.std(arrays["energy_reference"])
    with np.load(folder / "results" / "training.npz") as arrays:
        assert arrays["train"].shape == arrays["validation"].shape == (len(arrays["steps"]), 2)
        assert (arrays["train"][-1] < 0.1 * np.nanmax(arrays["train"], axis=0)).all()
    names = [event["event"] for event in events.read(folder)]
    assert names[0] == "training"
    assert names[-2:] == ["round", "finished"]
    assert models.load(folder).members == 2


def test_running_again_trains_nothing_anew(trained, monkeypatch):
    config, folder = trained
    before = params_in(folder)
    monkeypatch.setattr(supervised, "fit", None)
    assert run_training(config, folder).exit_code == 0
    for one, other in zip(params_in(folder), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interrupted_training_ends_bit_identical(trained, tmp_path, monkeypatch):
    config, undisturbed = trained
    monkeypatch.setattr(checkpoints, "SECONDS", -1.0)
    seen = []

    def kill(event):
        if event["event"] == "progress":
            seen.append(event["done"])
            if len(seen) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "run", kill)
    begun = []
    run_training(config, tmp_path / "run", begun.append)
    assert begun[0]["resumed"] is True
    progress = [event["done"] for event in begun if event["event"] == "progress"]
    assert progress[0] == seen[2] + (seen[1] - seen[0])
    for one, other in zip(params_in(tmp_path / "run"), params_in(undisturbed), strict=True):
        np.testing.assert_array_equal(one, other)
    history = "results/training.npz"
    with np.load(tmp_path / "run" / history) as ours, np.load(undisturbed / history) as theirs:
        np.testing.assert_array_equal(ours["train"], theirs["train"])


def test_a_second_training_in_the_folder_is_refused_and_the_first_unharmed(trained, tmp_path):
    config, undisturbed = trained
    refused = []

    def meanwhile(event):
        if event["event"] == "progress" and not refused:
            with pytest.raises(BadInput, match="is in use by process") as caught:
                run_training(config, tmp_path / "run")
            refused.append(str(caught.value))

    run_training(config, tmp_path / "run", meanwhile)
    assert "\n" not in refused[0]
    for one, other in zip(params_in(tmp_path / "run"), params_in(undisturbed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_belongs_to_its_configuration_and_its_data(trained, tmp_path):
    config, folder = trained
    other = {**config, "trainer": {**config["trainer"], "steps": 21}}
    with pytest.raises(BadInput, match=r"trainer.steps: 20 -> 21"):
        run_training(other, folder)
    path = write_dimers(tmp_path / "dimers.extxyz", slope=0.4)
    again = {**config, "data": {**config["data"], "train": path}}
    with pytest.raises(BadInput, match="another configuration"):
        run_training(again, folder)
    run = tmp_path / "run"
    monitored = make_plan(again)
    with supervised.FolderStore(run) as store:
        supervised._check_unchanged(monitored.sets, store, run)
        write_dimers(tmp_path / "dimers.extxyz", slope=0.5)
        with pytest.raises(BadInput, match="data files have changed"):
            supervised._check_unchanged(make_plan(again).sets, store, run)


def test_a_validation_file_validates_every_member_and_trains_none(tmp_path, monkeypatch):
    train = write_dimers(tmp_path / "a.extxyz", count=9)
    validation = write_dimers(tmp_path / "b.extxyz", count=4, seed=1)
    plan = make_plan(config_of(train, validation=validation, test_fraction=0.0))
    asked = {}

    def spy(key, trainer, potential, params, batches, count, **how):
        asked["train"] = np.asarray(trainer.split(key, count, trainer.members))
        raise supervised.NotFinite("enough seen")

    monkeypatch.setattr(supervised, "fit", spy)
    with supervised.FolderStore(tmp_path / "run") as store, pytest.raises(BadInput):
        supervised._fit(plan, store, lambda event: None)
    assert asked["train"].tolist() == [[True] * 9 + [False] * 4] * 2


def test_fractions_divide_without_overlap_and_the_seed_decides(tmp_path):
    path = write_dimers(tmp_path / "a.extxyz", count=20)
    how = {"validation_fraction": 0.2, "test_fraction": 0.1, "train_fraction": 0.5}

    def energies(seed):
        sets = make_plan({**config_of(path, **how), "seed": seed}).sets
        return [sorted(part.energy) for part in sets]

    parts = energies(3)
    assert [len(part) for part in parts] == [10, 4, 2]
    assert len({energy for part in parts for energy in part}) == 16
    assert energies(3) == parts
    assert energies(4) != parts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": "none.extxyz"}, "none.extxyz: no such file"),
        ({"train": "empty.extxyz"}, "empty"),
        ({"train": "bare.extxyz"}, "no energies and no forces"),
        ({"test": "argon.extxyz"}, "argon.extxyz"),
        ({"validation": "a.extxyz", "validation_fraction": 0.1}, "found both"),
        ({"test_fraction": 0.9, "validation_fraction": 0.2}, "add up to at most 1"),
        ({"test_fraction": 1.5}, "data.test_fraction: expected 0 to 1"),
        ({"validation_fraction": "x"}, "data.validation_fraction"),
        ({"tset": "a.extxyz"}, "did you mean 'test'"),
    ],
)
def test_bad_data_are_one_line(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    write_dimers("a.extxyz", count=10)
    write_dimers("argon.extxyz", count=3, symbol="Ar")
    ase.io.write("bare.extxyz", ase.Atoms("O2", [[0, 0, 0], [2, 0, 0]]))
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(BadInput) as caught:
        make_plan(config_of("a.extxyz", **change) | {"rounds": 3})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_structure_is_trained_on_and_not_given_away(tmp_path):
    path = write_dimers(tmp_path / "one.extxyz", count=1)
    sets = make_plan(config_of(path)).sets
    assert sets.test is None
    assert len(sets.train.energy) == 1
