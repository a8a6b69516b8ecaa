"""Widths that change inside a campaign: potential, model and report follow, and a kill changes
nothing."""

import copy

import pytest
from campaign.test_loop import CONFIG

from alj.campaign import events, models, widths
from alj.campaign.loop import run_campaign
from alj.campaign.plan import make_plan
from alj.campaign.store import FolderStore
from alj.types import BadInput

TRAINER = {
    "name": "gradient", "members": 2, "epochs": 4, "force_weight": 1.0, "split": "all",
    "precision": "float64",
}  # fmt: skip
EASY = {"candidates": 3, "accuracy_eV_per_A": 100.0}
"""Everything reaches this: the smallest candidate wins."""


def config(**changes):
    made = copy.deepcopy(CONFIG)
    made["data"].pop("reference_test")
    made |= {"rounds": 2, "trainer": TRAINER, "widths": EASY, "sampler": CONFIG["sampler"][:1]}
    made["potential"] = {**made["potential"], "hidden": [10]}
    return {**made, **changes}


@pytest.mark.slow
def test_smaller_networks_take_over_and_a_run_that_is_killed_ends_the_same(tmp_path):
    whole = tmp_path / "whole"
    assert run_campaign(config(), whole).exit_code == 0
    rounds = [event for event in events.read(whole) if event["event"] == "round"]
    hidden = [event["widths_hidden"][0] for event in rounds]
    assert 10 > hidden[0] > hidden[1]
    for event in rounds:
        best = min(event["widths_tried"], key=lambda one: one["weights"])
        assert best["widths"] == event["widths_hidden"]
        assert best["weights"] == event["widths_weights"]
    model = models.load(whole)
    assert model.config["potential"]["hidden"] == hidden[1:]
    stages = [e["stage"] for e in events.read(whole) if e["event"] == "stage"]
    assert stages.count("widths") == 2

    class Killed(BaseException):
        """As a signal would end it."""

    def kill(event):
        if event["event"] == "stage" and (event["round"], event["stage"]) == (1, "widths"):
            raise Killed

    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        run_campaign(config(), cut, kill)
    run_campaign(config(), cut)
    ends = []
    for folder in (whole, cut):
        with FolderStore(folder) as store:
            ends.append(store.path("002/widths").read_bytes())
    assert ends[0] == ends[1]


def test_widths_are_read_off_the_section_of_the_potential():
    assert widths.widths_of({"name": "behler_parrinello", "hidden": [5, 4]}) == (5, 4)
    inner = {"name": "ani", "hidden": {"1": [6, 3], "8": [6, 3]}}
    assert widths.widths_of({"name": "meta_networks", "body": inner}) == (6, 3)
    with pytest.raises(BadInput, match="the same"):
        widths.widths_of({"name": "ani", "hidden": {"1": [6, 3], "8": [5, 3]}})
    with pytest.raises(BadInput, match="expected a potential with `hidden` given"):
        widths.widths_of({"name": "ml_bop"})


def test_mistakes_are_named():
    with pytest.raises(
        BadInput, match=r"widths\.candidate: unknown key, did you mean 'candidates'"
    ):
        make_plan(config(widths={"candidate": 3}))
    with pytest.raises(BadInput, match="expected a trainer with force_weight above 0"):
        widths.check(make_plan(config(trainer={**TRAINER, "force_weight": 0.0})))
    with pytest.raises(BadInput, match="`hidden` given"):
        widths.check(make_plan(config(potential={"name": "schnet"}, sampler="nvt_langevin")))
    assert make_plan(config(widths={})).config["widths"]["candidates"] == 8
    assert make_plan(config(widths=None)).config["widths"] is None
