"""Replays on a labeled pool: same start, growing sets, resumed paths, tables, bad settings."""

import json

import numpy as np
import pytest
from potentials.liquids import liquid

from alj.analysis.label_efficiency import Curve, efficiency, labels_to_reach
from alj.campaign import config as configuration
from alj.campaign import datasets
from alj.campaign.replay import follow, make_plan, replay_settings, rounds_of
from alj.campaign.replay_results import lines, table, write
from alj.campaign.store import FolderStore
from alj.labeling import build_labeler
from alj.types import BadInput


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Small liquids with the labels of a pair potential."""
    engine = build_labeler({"name": "lennard_jones", "epsilon_eV": 0.05, "sigma_A": 2.4})
    made = [liquid(seed, atoms=8, nearest=1.9) for seed in range(70)]
    data = datasets.append(datasets.empty(), made, [engine.label(s) for s in made], [{}] * 70)
    path = tmp_path_factory.mktemp("pool") / "pool.extxyz"
    datasets.write(path, data)
    return path


def config(pool):
    return {
        "seeds": [1, 2],
        "data": {"pool": str(pool), "test_count": 15},
        "potential": {"name": "behler_parrinello", "hidden": [6], "cutoff_A": 3.4},
        "trainer": {"name": "gradient", "members": 1, "epochs": 6, "batch_size": 8,
                    "force_weight": 1.0, "learning_rate": 0.01},
        "selectors": {"random": "random", "greedy": "d_optimal",
                      "disputed": "qs1"},
        "replay": {"start": 10, "until": 16, "share": 0.4, "validation": 5},
    }  # fmt: skip


@pytest.fixture(scope="module")
def paths(pool, tmp_path_factory):
    plan, folder = make_plan(config(pool)), tmp_path_factory.mktemp("replay")
    reports = {}
    for name in plan.selectors:
        reports[name] = {}
        for seed in plan.seeds:
            with FolderStore(folder / "paths" / f"{name}-{seed}") as store:
                reports[name][seed] = follow(plan, name, seed, store)
    return plan, folder, reports


@pytest.mark.slow
def test_sets_grow_from_the_same_start(paths):
    plan, _, reports = paths
    assert rounds_of(plan.settings) == [10, 14, 16]
    for seed in plan.seeds:
        for name in plan.selectors:
            path = reports[name][seed]
            assert [report["labels"] for report in path] == [10, 14, 16]
            chosen = np.concatenate([report["chosen"] for report in path])
            assert len(chosen) == len(np.unique(chosen)) == 6
            assert np.all(chosen < datasets.count(plan.pool))
    # The same start and, before anything is chosen, the same network: equal errors to the last bit.
    first = [reports[name][1][0]["errors"] for name in ("random", "greedy")]
    assert first[0] == first[1]
    assert reports["random"][1][0]["errors"] != reports["random"][2][0]["errors"]
    assert set(reports["disputed"][1][0]["correlation"]) == {"qs1"}


@pytest.mark.slow
def test_a_path_goes_on_where_it_was(paths):
    plan, folder, reports = paths
    with FolderStore(folder / "paths" / "greedy-1") as store:
        store.forget("round-002")
        again = follow(plan, "greedy", 1, store)
    assert again[-1]["errors"] == reports["greedy"][1][-1]["errors"]


@pytest.mark.slow
def test_tables_and_figures(paths):
    plan, folder, reports = paths
    write(plan, folder, reports)
    text = lines(plan, reports)
    assert len(text) == 7
    assert text[0].split() == ["quantity", "target", "random", "greedy", "disputed"]
    # Every seed of the reference has reached the target.
    for _, target, needed in table(plan, reports):
        assert 10 <= needed["random"].labels <= 16
        ends = [path[-1]["errors"] for path in reports["random"].values()]
        assert any(np.isclose(target, list(end.values())).any() for end in ends)
    assert "nan" not in "".join(text)
    stored = json.loads((folder / "replay.json").read_text())
    assert stored["greedy"]["2"][2]["labels"] == 16
    for name in ("curves.csv", "labels_to_target.csv", "correlations.csv", "learning_force.png"):
        assert (folder / name).stat().st_size > 100


def test_labels_to_reach_an_error():
    labels = np.array([100.0, 200.0, 400.0])
    straight = 1000.0 / labels
    assert labels_to_reach(labels, straight, 4.0) == pytest.approx(250.0)
    assert np.isnan(labels_to_reach(labels, straight, 1.0))
    halved = labels_to_reach(labels, straight / 2, 2.5)
    assert halved == pytest.approx(200.0)

    def curve(factor, spread):
        return Curve(labels, np.stack([straight * factor * s for s in (1 / spread, 1.0, spread)]))

    found = efficiency(
        {"random": curve(1.0, 1.05), "better": curve(0.6, 1.05), "same": curve(0.98, 1.05),
         "worse": curve(1.5, 1.05)}, 4.5, "random",
    )  # fmt: skip
    assert [one.verdict for one in found.values()] == [
        "reference", "fewer", "not distinguishable", "more",
    ]  # fmt: skip
    assert found["better"].saved == pytest.approx(0.4, abs=0.01)
    one_seed = {"random": Curve(labels, straight[None]), "other": Curve(labels, straight[None] / 2)}
    assert efficiency(one_seed, 4.5, "random")["other"].verdict == "one seed"


def test_judged_sizes(pool):
    own = {"name": "qs1", "trainer": {"epochs": 3}}
    plan = make_plan({**config(pool), "selectors": {"random": "random", "disputed": own}})
    assert rounds_of(replay_settings(start=100, until=400, share=0.25))[-2:] == [381, 400]
    with pytest.raises(BadInput, match="share"):
        replay_settings(share=0.0)
    assert plan.trainers["disputed"].steps == 3
    assert plan.trainers["random"].steps == 6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("seeds=[]", "seeds: expected different numbers"),
        ("selectors=[random, d_optimal, d_optimal]", "not all different"),
        ("replay.until=60", "expected at least 65"),
        ("replay.reference=best", "none of: random"),
        ("selectors.random=randon", "did you mean"),
        ("trainer.epoch=3", "did you mean 'epochs'"),
        ("data.pool=nowhere.extxyz", "nowhere.extxyz"),
    ],
)
def test_bad_configurations(pool, change, match):
    from alj.campaign.replay import KEYS

    with pytest.raises(BadInput, match=match):
        make_plan(configuration.override_one(config(pool), change, KEYS))


@pytest.mark.slow
def test_changed_settings_of_a_selector_are_refused(paths):
    plan, folder, _ = paths
    other = {**plan.config, "selectors": {**plan.config["selectors"], "greedy": {"name": "qs1"}}}
    with (
        FolderStore(folder / "paths" / "greedy-2") as store,
        pytest.raises(BadInput, match="another name"),
    ):
        follow(plan._replace(config=other), "greedy", 2, store)
