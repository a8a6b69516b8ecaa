"""Comparisons: what is one strategy, where curves are read, what a target costs, by hand."""

import copy
import csv
import json

import numpy as np
import pytest

from alj.campaign import compare as comparing
from alj.campaign import config as configuration
from alj.campaign.compare import Run, compare, cost_rows, grouped, needed_rows
from alj.types import BadInput

BASE = {
    "seed": 1, "rounds": 5, "selector": {"name": "random", "count": 3},
    "sampler": [{"name": "nvt", "walks": 2}],
}  # fmt: skip


def run(name, seed, selector, errors, labels=(10, 100, 1000)):
    config = {**copy.deepcopy(BASE), "seed": seed, "selector": {"name": selector, "count": 3}}
    rounds = [
        {"event": "round", "round": i, "labels": n, "kept": n, "failed": 0,
         "test_mae_meV_per_atom": e, "seconds": {"train": 2.0, "label": 1.5}}
        for i, (n, e) in enumerate(zip(labels, errors, strict=True))
    ]  # fmt: skip
    return Run(name, config, rounds)


def test_runs_that_differ_in_the_seed_only_are_one_strategy():
    runs = [run("a", 1, "random", [9, 6, 3]), run("b", 2, "random", [9, 6, 3]),
            run("c", 1, "d_optimal", [9, 6, 3])]  # fmt: skip
    found = grouped(runs)
    assert {k: [r.name for r in v] for k, v in found.items()} == {
        "random": ["a", "b"], "d_optimal": ["c"],
    }  # fmt: skip
    runs[1].config["sampler"][0]["walks"] = 4
    assert len(grouped(runs)) == 3
    assert len(grouped(runs, ["selector"])) == 2
    assert list(grouped(runs, ["seed"])) == ["seed: 1", "seed: 2"]
    with pytest.raises(BadInput, match="selektor"):
        grouped(runs, ["selektor"])


def test_labels_to_a_target_are_those_of_straight_lines_in_logarithms():
    slow = run("slow", 1, "random", [100.0, 10.0, 1.0])
    fast = run("fast", 1, "d_optimal", [100.0, 10.0, 1.0], labels=(5, 50, 500))
    found = compare([slow, fast], target=10**0.5)
    assert found.base == "random"
    assert found.needed["random"].labels == pytest.approx(100 * 10**0.5)
    assert found.needed["d_optimal"].labels == pytest.approx(50 * 10**0.5)
    assert found.needed["d_optimal"].saved == pytest.approx(0.5)
    assert found.needed["d_optimal"].verdict == "one seed"


def test_seeds_make_a_band_at_common_numbers_of_labels():
    one = run("one", 1, "random", [100.0, 10.0, 1.0])
    two = run("two", 2, "random", [400.0, 40.0, 4.0], labels=(20, 200, 2000))
    curve = compare([one, two]).curves["all runs"]
    assert (curve.labels[0], curve.labels[-1]) == pytest.approx((20, 1000))
    np.testing.assert_allclose(curve.errors[0], 1000 / curve.labels)
    np.testing.assert_allclose(curve.errors[1], 8000 / curve.labels)
    apart = run("apart", 3, "random", [1.0, 1.0, 1.0], labels=(5000, 6000, 7000))
    with pytest.raises(BadInput, match="share no number of labels"):
        compare([one, apart])


def test_the_target_is_what_every_seed_has_reached():
    found = compare([run("a", 1, "random", [9, 2, 4]), run("b", 2, "random", [9, 3, 5])])
    assert found.target == 3
    assert found.needed["all runs"].labels <= 100


def test_candidates_belong_to_the_labels_of_the_round_before():
    one = run("a", 1, "random", [9, 6, 3])
    for event, error in zip(one.rounds, (None, 50.0, 20.0), strict=True):
        event["candidate_mae_meV_per_atom"] = error
    found = compare([one], quantity="candidate_mae_meV_per_atom")
    assert found.curves["a"].labels.tolist() == [10, 100]
    assert found.curves["a"].errors.tolist() == [[50, 20]]


def test_errors_that_not_all_runs_tell_are_not_compared():
    one, two = run("a", 1, "random", [9, 6, 3]), run("b", 1, "d_optimal", [9, 6, 3])
    for event in two.rounds:
        event["validation_rmse_meV_per_atom"] = event.pop("test_mae_meV_per_atom")
    with pytest.raises(BadInput, match="no error in common"):
        compare([one, two])
    with pytest.raises(BadInput, match="not every run"):
        compare([one, two], quantity="test_mae_meV_per_atom")
    with pytest.raises(BadInput, match="expected one of"):
        compare([one], quantity="mae")


def test_cost_is_the_sum_over_rounds():
    row = cost_rows(compare([run("a", 4, "random", [9, 6, 3])]))[0]
    assert (row["labels"], row["seed"], row["seconds"]) == (1000, 4, 10.5)
    assert (row["train_seconds"], row["label_seconds"]) == (6.0, 4.5)


def folder_of(path, one):
    path.mkdir()
    (path / "run.yaml").write_text(configuration.dump({"config": one.config}))
    lines = [json.dumps({"time": 1.0 + i, **e}) for i, e in enumerate(one.rounds)]
    (path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_the_command_writes_tables_figure_and_page(alj, tmp_path):
    one = folder_of(tmp_path / "one", run("one", 1, "random", [9.0, 6.0, 3.0]))
    two = folder_of(tmp_path / "two", run("two", 1, "d_optimal", [9.0, 3.0, 1.0]))
    code, text, error = alj("compare", one, two, "--out", tmp_path / "out", "--target", "3")
    assert (code, error) == (0, "")
    assert "d_optimal" in text
    with (tmp_path / "out" / "labels_to_target.csv").open() as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    assert float(rows["random"]["labels"]) == 1000
    assert float(rows["d_optimal"]["labels"]) == 100
    with (tmp_path / "out" / "cost.csv").open() as file:
        assert [row["seconds"] for row in csv.DictReader(file)] == ["10.5", "10.5"]
    assert (tmp_path / "out" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" in (tmp_path / "out" / "comparison.html").read_text()
    code, _, error = alj("compare", tmp_path)
    assert code == 2
    assert "not a run folder" in error


def test_what_cannot_be_compared_is_told(tmp_path):
    with pytest.raises(BadInput, match="no such run folder"):
        comparing.read_run(tmp_path / "nothing")
    empty = folder_of(tmp_path / "empty", Run("empty", BASE, []))
    with pytest.raises(BadInput, match="finished round"):
        comparing.read_run(empty)
    one = run("a", 1, "random", [9, 6, 3])
    with pytest.raises(BadInput, match="above 0"):
        compare([one], target=0.0)
    assert needed_rows(compare([one]))[0]["strategy"] == "a"
