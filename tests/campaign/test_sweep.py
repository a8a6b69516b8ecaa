"""Sweeps: all trials checked first, failures kept, resumed, searched by Optuna; one for real."""

import json
from pathlib import Path

import numpy as np
import pytest
from campaign.tiny import labeled

from alj.campaign import datasets
from alj.campaign.sweep import changed, make_sweep, run_sweep, summary
from alj.campaign.trials import TrialRunner
from alj.types import BadInput, LabelingFailed

BASE = """
config:
  data: {train: data.extxyz, validation_fraction: 0.0, test: data.extxyz}
  potential: {name: behler_parrinello, cutoff_A: 3.2, hidden: [4]}
  trainer: {name: gradient, members: 1, epochs: 2, force_weight: 1.0}
command: train
executor: inline
"""
GRID = (
    BASE
    + """
grid: {trainer.epochs: [2, 3], potential.cutoff_A: [3.0, 3.2]}
seeds: [1, 2]
"""
)
SEARCH = (
    BASE
    + """
search:
  parameters:
    potential.cutoff_A: {low: 2.0, high: 4.0}
    potential.hidden: {choices: [[4], [4, 4]]}
  trials: 12
"""
)


def sweep_of(tmp_path: Path, text: str):
    (tmp_path / "sweep.yaml").write_text(text)
    return make_sweep(tmp_path / "sweep.yaml")


@pytest.fixture
def runs(monkeypatch):
    """Trials without a network: the error is how far the cutoff is from 3 Å; 3.2 Å fails."""
    seen: list[dict] = []

    def run(self, folder: Path) -> None:
        from alj.campaign.config import read

        config = read(folder / "config.yaml")
        seen.append(config)
        cutoff = config["potential"]["cutoff_A"]
        if cutoff == 3.2:
            raise LabelingFailed("crash", "exit code 1: no such cutoff", "the log")
        (folder / "run" / "results").mkdir(parents=True, exist_ok=True)
        wrong = abs(cutoff - 3.0) + 0.01 * config["seed"] + 0.1 * len(config["potential"]["hidden"])
        arrays = {"energy": np.array([wrong]), "energy_reference": np.zeros(1)}
        np.savez(folder / "run" / "results" / "test.npz", **arrays)

    monkeypatch.setattr(TrialRunner, "_run", run)
    return seen


def test_a_grid_is_tried_once_and_failures_are_kept(tmp_path, runs):
    sweep = sweep_of(tmp_path, GRID)
    rows = run_sweep(sweep, tmp_path / "out")
    assert len(rows) == len(runs) == 8
    good = [row for row in rows if not row.reason]
    assert [row.value for row in good] == pytest.approx([110.0, 120.0] * 2)
    assert {row.parameters["potential.cutoff_A"] for row in good} == {3.0}
    bad = [row for row in rows if row.reason]
    assert all("no such cutoff" in row.reason and np.isnan(row.value) for row in bad)
    best = summary(rows)[0]
    assert best[0] == {"trainer.epochs": 2, "potential.cutoff_A": 3.0}
    assert best[1:] == (pytest.approx(115.0), pytest.approx(np.std([110, 120], ddof=1)), 0)
    text = (tmp_path / "out" / "trials.csv").read_text().splitlines()
    assert text[0] == "trial,seed,trainer.epochs,potential.cutoff_A,value,labels,seconds,reason"
    assert len(text) == 9
    again = run_sweep(sweep, tmp_path / "out")
    assert len(runs) == 8
    assert [row.value for row in again] == pytest.approx([row.value for row in rows], nan_ok=True)
    run_sweep(sweep, tmp_path / "out", again=True)
    assert len(runs) == 8 + len(bad)


def test_a_grid_that_grows_in_its_midst_keeps_what_is_there(tmp_path, runs):
    run_sweep(sweep_of(tmp_path, GRID), tmp_path / "out")
    larger = GRID.replace("[3.0, 3.2]", "[2.9, 3.0, 3.2]")
    rows = run_sweep(sweep_of(tmp_path, larger), tmp_path / "out")
    assert len(rows) == 12
    assert len(runs) == 8 + 4
    assert summary(rows)[0][0]["potential.cutoff_A"] == 3.0


def test_a_search_finds_the_minimum_and_goes_on_where_it_stopped(tmp_path, runs):
    text = SEARCH.replace("trials: 12", "trials: 30\n  together: 3")
    sweep = sweep_of(tmp_path, text)

    def stop(row) -> None:
        if row.number == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, tmp_path / "out", stop)
    before = len(runs)
    rows = run_sweep(sweep, tmp_path / "out")
    assert [row.number for row in rows] == list(range(30))
    assert len(runs) == 30
    assert before == 8
    best = summary(rows)[0]
    assert best[0]["potential.cutoff_A"] == pytest.approx(3.0, abs=0.15)
    assert best[0]["potential.hidden"] == [4]
    late = np.mean([row.value for row in rows[20:]])
    assert late < np.mean([row.value for row in rows[:10]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trainer.epochs", "trainer.epoch", r"trainer.epoch: unknown key, did you mean 'epochs'"),
        ("potential.cutoff_A", "potental.cutoff_A", r"unknown key 'potental', .* 'potential'"),
        ("[3.0, 3.2]", "[3.0, -1]", r"potential.cutoff_A.* \(with .*=-1\)"),
        ("grid:", "gird:", r"gird: unknown key, did you mean 'grid'"),
        ("executor: inline", "executor: inlin", r"did you mean 'inline'"),
        ("command: train", "command: trian", r"command: .*trian"),
        ("[3.0, 3.2]", "3.0", "expected lists of values"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(old, new, message, tmp_path, runs):
    with pytest.raises(BadInput, match=message):
        sweep_of(tmp_path, GRID.replace(old, new))
    assert runs == []


def test_searches_are_checked_too(tmp_path):
    for old, new, message in (
        ("low: 2.0", "lowest: 2.0", "expected {low, high} or {choices}"),
        ("high: 4.0", "high: -4.0", "cutoff_A"),
        ("[4, 4]", "[4, x]", "hidden"),
        ("trials: 12", "trails: 12", "did you mean 'trials'"),
    ):
        with pytest.raises(BadInput, match=message):
            sweep_of(tmp_path, SEARCH.replace(old, new))
    with pytest.raises(BadInput, match="one of grid and search"):
        sweep_of(tmp_path, BASE)


def test_values_keep_their_types():
    config = changed({"a": {"b": 1}}, {})
    assert config == {"a": {"b": 1}}
    found = changed({"potential": "ani"}, {"potential.hidden": [4, 4], "seed": 3})
    assert found == {"potential": {"name": "ani", "hidden": [4, 4]}, "seed": 3}


@pytest.mark.slow
def test_for_real_in_processes(alj, tmp_path):
    datasets.write(tmp_path / "data.extxyz", labeled())
    text = BASE.replace("executor: inline", "executor: {name: local, workers: 2}")
    text += "grid: {data.test: [data.extxyz, absent.extxyz]}\n"
    (tmp_path / "sweep.yaml").write_text(text)
    code, out, err = alj("sweep", "sweep.yaml", "--out", "out", "--quiet")
    assert code == 3, err
    assert "energy_mae_meV_per_atom" in out
    rows = (tmp_path / "out" / "trials.csv").read_text().splitlines()
    assert float(rows[1].split(",")[3]) > 0
    assert "absent.extxyz: no such file" in rows[2]
    failure = json.loads(next((tmp_path / "out" / "trials").glob("*/failure.json")).read_text())
    assert failure["kind"] == "bad_input"
