"""Failed labels of a campaign: a pause when they are too many, second chances, and what joins."""

import copy
import hashlib

import numpy as np
import pytest
from campaign.test_loop import CONFIG

from alj.campaign import datasets, loop
from alj.campaign.executors import journal
from alj.campaign.labels import content_hash
from alj.campaign.ledger import Ledger
from alj.campaign.plan import make_plan
from alj.campaign.relabel import relabel
from alj.campaign.store import FolderStore
from alj.cli import invoke
from alj.labeling import build_labeler
from alj.types import BadInput, LabelingFailed


class Flaky:
    """The labeler, which fails on a third of the structures: on the same ones every time."""

    def __init__(self, inner):
        self.name, self.settings, self._inner = inner.name, inner.settings, inner

    def label(self, structure):
        lot = int(content_hash(self._inner, structure)[:8], 16) % 6
        if lot < 2:
            kind = ("not_converged", "bad_input")[lot]
            raise LabelingFailed(kind, "by lot", "last line of the log")
        return self._inner.label(structure)


def flaky_plan(config):
    plan = make_plan(config)
    return plan._replace(labeler=Flaky(plan.labeler))


def campaign(**changes):
    config = copy.deepcopy(CONFIG)
    config["data"].pop("reference_test")
    config["data"]["boot"]["frames"] = 12
    config["selector"]["count"] = 6
    return {**config, **changes}


def state_of(folder, name):
    with FolderStore(folder) as store:
        return store.remember(name, lambda: pytest.fail(f"{name} is not there"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A campaign with failures, and the ledger's view of them."""
    folder = tmp_path_factory.mktemp("runs") / "flaky"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_plan", flaky_plan)
        assert loop.run_campaign(campaign(), folder).exit_code == 0
    with Ledger(folder, read_only=True) as ledger:
        return folder, ledger.failures()


def test_failures_are_told_with_their_logs(finished, capsys):
    folder, failures = finished
    assert {row["kind"] for row in failures} == {"not_converged", "bad_input"}
    assert invoke(["status", str(folder), "--failures"]) == 0
    text = capsys.readouterr().out
    assert text.count("| last line of the log") == len(failures)
    assert "Ar16  not_converged: by lot" in text
    assert f"alj relabel {folder}" in text


def test_what_cannot_be_tried_again_is_one_line(finished, tmp_path):
    folder, _ = finished
    for arguments, message in (
        ({"kinds": ["not_convergd"]}, "did you mean 'not_converged'"),
        ({"overrides": ["trainer.members=3"]}, r"expected labeler\.KEY"),
        ({"overrides": ["labeler.cutof_A=3"]}, "did you mean 'cutoff_A'"),
    ):
        with pytest.raises(BadInput, match=message):
            relabel(folder, **arguments)
    with pytest.raises(BadInput, match="not a run folder"):
        relabel(tmp_path)


def test_labels_that_come_out_join_the_next_round_and_change_no_earlier_one(finished):
    folder, failures = finished
    kinds = [row["kind"] for row in failures]
    before = state_of(folder, "003/state")[0]
    with FolderStore(folder) as store:
        bytes_before = store.path("003/state").read_bytes()
    found = relabel(folder)  # the plain labeler, which does not fail
    assert (found.tried, found.labeled) == (kinds.count("not_converged"),) * 2
    assert relabel(folder).tried == 0
    with Ledger(folder, read_only=True) as ledger:
        counts = ledger.counts()
        assert counts["failures"] == {"bad_input": kinds.count("bad_input")}
        rows = {row["hash"] for row in ledger.structures()}
        assert {row["hash"] for row in failures} <= rows
        labels = {one.hash: one.labels for one in ledger.replacements()}

    assert loop.run_campaign(campaign(rounds=4), folder).exit_code == 0
    with FolderStore(folder) as store:
        assert store.path("003/state").read_bytes() == bytes_before
    after = state_of(folder, "004/state")[0]
    late = [i for i, info in enumerate(after.data.info) if info.get("origin") == "relabeled"]
    assert len(late) == found.labeled
    assert sorted(after.data.energy[late]) == sorted(float(x.energy) for x in labels.values())
    assert datasets.count(after.data) == datasets.count(before.data) + 6 + found.labeled
    with Ledger(folder, read_only=True) as ledger:
        (told,) = {r["origin"] for r in ledger.structures(3)} - {"metropolis_mc", "nested_mc"}
        assert told == "relabeled"
    assert loop.run_campaign(campaign(rounds=5), folder).exit_code == 0
    last = state_of(folder, "005/state")[0]
    assert [i.get("origin") for i in last.data.info].count("relabeled") == found.labeled


def test_other_settings_are_other_keys(tmp_path, monkeypatch):
    """A second try knows its own settings, and what it replaces."""
    monkeypatch.setattr(loop, "make_plan", flaky_plan)
    folder = tmp_path / "run"
    assert loop.run_campaign(campaign(rounds=1), folder).exit_code == 0
    with Ledger(folder, read_only=True) as ledger:
        failures = ledger.failures()
    found = relabel(folder, ["bad_input"], ["labeler.shift=false"])
    assert found.labeled == [row["kind"] for row in failures].count("bad_input") > 0
    unshifted = build_labeler({**CONFIG["labeler"], "shift": False})
    by_lot = [row for row in failures if row["kind"] == "bad_input"]
    with Ledger(folder, read_only=True) as ledger:
        energies = {float(one.labels.energy) for one in ledger.replacements()}
    assert energies == {float(unshifted.label(row["structure"]).energy) for row in by_lot}


def test_too_many_failures_pause_with_a_reason_and_second_chances_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "make_plan", flaky_plan)
    folder = tmp_path / "run"
    config = campaign(stop={"labels": 1000, "failed_labels": 1})
    outcome = loop.run_campaign(config, folder)
    assert outcome.exit_code == loop.PAUSED
    assert "labels failed" in outcome.reason
    assert loop.run_campaign(config, folder).exit_code == loop.PAUSED
    relabel(folder, ["not_converged", "bad_input"])
    monkeypatch.setattr(loop, "make_plan", make_plan)
    assert loop.run_campaign(config, folder).exit_code == 0
    first = state_of(folder, "001/state")[0]
    assert datasets.count(first.data) == 12  # also what failed in this very round


def marked(folder):
    with FolderStore(folder) as store:
        return hashlib.sha256(store.path("003/state").read_bytes()).hexdigest()


@pytest.mark.slow
def test_labels_ahead_of_the_round_change_nothing_but_the_time(tmp_path, monkeypatch):
    """Structures of one sampler are labeled while the next one walks, to the same bits."""
    ahead, early = [], []
    taken, waited = loop.Ahead.take, loop.Ahead.wait

    def wait(self):
        waited(self)
        early.append(len(journal.harvest(self._folder)))

    monkeypatch.setattr(loop.Ahead, "wait", wait)

    def take(self, structures):
        ahead.append(len(structures))
        taken(self, structures)

    monkeypatch.setattr(loop.Ahead, "take", take)
    config = campaign(choose_from="each")
    config["selector"]["count"] = 5
    loop.run_campaign({**config, "executor": "inline"}, tmp_path / "inline")
    assert ahead == [12, 3, 5, 3, 5]  # all that is chosen so far: boot; both samplers, twice
    background = {"name": "local", "workers": 1}
    loop.run_campaign({**config, "executor": background}, tmp_path / "local")
    assert marked(tmp_path / "inline") == marked(tmp_path / "local")
    assert early[3:] == [12, 5, 5]  # before the round asks, in the background only
    assert early[:3] == [0, 0, 0]
    with Ledger(tmp_path / "local", read_only=True) as ledger:
        assert ledger.counts()["attempts"] == 22
        samplers = [row["origin"] for row in ledger.structures(1)]
    assert samplers == ["metropolis_mc"] * 3 + ["nested_mc"] * 2
    assert np.isfinite(state_of(tmp_path / "local", "003/state")[0].data.energy).all()
