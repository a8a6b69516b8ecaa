"""A smoke campaign: it learns, says why it stops, and a killed one ends bit-identical."""

import copy
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from campaign.tiny import labeled

from alj.campaign import datasets, events, models, rounds
from alj.campaign.config import dump
from alj.campaign.ledger import Ledger
from alj.campaign.loop import check, run_campaign
from alj.campaign.plan import make_plan
from alj.campaign.store import FolderStore, read_claim
from alj.types import BadInput

WALK = {"walks": 2, "candidates": 4, "minimum_distance_A": 2.5}
CONFIG = {
    "seed": 3,
    "rounds": 3,
    "precision": "float64",
    "data": {
        "random_start": {
            "species": "Ar",
            "atoms": 16,
            "density_g_per_cc": 1.0,
            "minimum_distance_A": 2.9,
            "minimization_steps": 5,
        },
        "boot": {"name": "perturbation", "frames": 6, "walks": 1},
        "reference_test": [
            {"name": "metropolis_mc", "cycles": 20, "temperature_K": 90.0, **WALK},
        ],
    },
    "potential": {"name": "behler_parrinello", "cutoff_A": 5.0, "hidden": [4]},
    "trainer": {"name": "levenberg_marquardt", "members": 2, "steps": 6, "split": "all"},
    "sampler": [
        {"name": "metropolis_mc", "cycles": 20, "temperature_K": 90.0, **WALK},
        {"name": "nested_mc", "cycles": 20, **WALK},
    ],
    "selector": {"name": "d_optimal", "count": 3},
    "labeler": {"name": "lennard_jones", "cutoff_A": 6.0},
    "stop": {"labels": 100},
}

KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
from campaign.test_loop import CONFIG
from alj.campaign.loop import run_campaign

def on_event(event):
    if event["event"] == "stage" and (event["round"], event["stage"]) == (1, sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

run_campaign(CONFIG, sys.argv[1], on_event)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    outcome = run_campaign(CONFIG, folder)
    return folder, outcome


def end_of(folder):
    with FolderStore(folder) as store:
        return store.path("003/state").read_bytes()


def test_a_campaign_runs_and_tells_what_it_did(undisturbed):
    folder, outcome = undisturbed
    assert outcome.exit_code == 0
    assert "3 rounds" in outcome.reason
    told = events.read(folder)
    rounds = [event for event in told if event["event"] == "round"]
    assert [r["round"] for r in rounds] == [0, 1, 2]
    assert [r["labels"] for r in rounds] == [6, 9, 12]
    assert all(np.isfinite(r["test_mae_meV_per_atom"]) for r in rounds)
    assert told[-1]["event"] == "finished"
    with Ledger(folder, read_only=True) as ledger:
        assert ledger.counts()["labeled"] == 12
        assert ledger.counts()["attempts"] == 12
    model = models.load(folder)
    assert model.members == 2
    labeled, _ = datasets.read(folder / "rounds" / "001" / "labeled.extxyz")
    assert datasets.count(labeled) == 3
    assert np.isfinite(labeled.forces).all()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["label", "train"])
def test_a_killed_campaign_resumes_to_the_same_bits(undisturbed, tmp_path, stage):
    folder = tmp_path / "killed"
    paths = os.pathsep.join(["tests", *sys.path])
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), stage],
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    told: list[dict] = []
    run_campaign(CONFIG, folder, told.append)
    assert told[0]["event"] == "campaign"
    assert told[0]["resumed"]
    assert [event["round"] for event in told if event["event"] == "round"] == [1, 2]
    assert end_of(folder) == end_of(undisturbed[0])
    with Ledger(folder, read_only=True) as ledger:
        assert ledger.counts()["attempts"] == 12


def test_more_rounds_extend_and_other_changes_are_refused(undisturbed):
    folder, _ = undisturbed
    longer = {**CONFIG, "rounds": 4}
    older = read_claim(folder)
    del older["config"]["grow_by"]  # as if the folder were from before that setting
    (folder / "run.yaml").write_text(dump(older))
    told: list[dict] = []
    run_campaign(longer, folder, told.append)
    assert [event["round"] for event in told if event["event"] == "round"] == [3]
    other = copy.deepcopy(CONFIG)
    other["trainer"]["steps"] = 7
    with pytest.raises(BadInput, match=r"steps"):
        run_campaign(other, folder)


def test_it_stops_at_its_label_limit(tmp_path):
    short = {**CONFIG, "rounds": 5, "stop": {"labels": 6}}
    outcome = run_campaign(short, tmp_path / "short")
    assert "6 labels" in outcome.reason


def test_check_labels_one_structure_and_forecasts():
    lines = check(CONFIG)
    assert "16 atoms" in lines[0]
    assert any("labels" in line for line in lines)


def test_a_cutoff_without_neighbors_is_refused(tmp_path):
    blind = {**CONFIG, "potential": {"name": "behler_parrinello", "cutoff_A": 0.5}}
    with pytest.raises(BadInput, match="no atom has a neighbor"):
        check(blind)
    with pytest.raises(BadInput, match="no atom has a neighbor"):
        run_campaign(blind, tmp_path / "blind")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("sampler", [{"name": "metropolis_mc", "temperture_K": 3}], "temperature_K"),
        ("sampler", [{"name": "metropolis_mc", "temperature_K": -5.0}], "temperature_K"),
        ("sampler", [{"name": "metropolis_mc", "walks": 0}], "walks"),
        ("selector", "d_optimel", "d_optimal"),
        ("labeler", None, "labeler"),
        ("precision", "float16", "precision"),
        ("data", {}, "random_start"),
        ("data", {"start": "nowhere.extxyz"}, "nowhere"),
        ("trainer", {"name": "levenberg_marquardt", "steps": "many"}, "steps"),
        ("potentail", {}, "potential"),
    ],
)
def test_bad_configurations_get_one_clear_line(path, value, words):
    with pytest.raises(BadInput, match=words) as caught:
        make_plan({**CONFIG, path: value})
    assert "\n" not in str(caught.value)


def test_a_round_chooses_a_share_of_what_is_labeled():
    plan = make_plan(CONFIG)
    many = datasets.select(labeled(5), [0] * 300)
    assert rounds._count(plan, many) == plan.selector.count
    assert rounds._count(plan._replace(grow_by=0.1), many) == 30
