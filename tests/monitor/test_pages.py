"""The report: self-contained, escaped, cheap, and right for a run at any moment."""

import fcntl
import json
import re
import time

import numpy as np
import pytest

from alj.campaign import config
from alj.campaign.attempts import Attempt
from alj.campaign.ledger import Ledger
from alj.monitor.drawings import read_results
from alj.monitor.pages import error_rows, write_report
from alj.monitor.summary import summarize
from alj.types import BadInput, LabelingFailed, Structure

NASTY = "<script>alert(1)</script>"


def round_event(index, **more):
    return {
        "event": "round", "round": index, "labels": 11 + 10 * index, "kept": 10 + 10 * index,
        "failed": 1, "failures": {"timeout": 1, "crash": 0}, "seconds": {"train": 2.0},
        "test_mae_meV_per_atom": 30.0 / (index + 1), "candidate_mae_meV_per_atom": None,
        "acceptance": {"metropolis_mc": 0.5}, "ladder": [[0.02, -0.1]],
        "chosen_energy_eV_per_atom": [-0.3], **more,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run of two rounds, made by hand."""
    folder = tmp_path / "water"
    folder.mkdir()
    claim = {
        "config": {"seed": 7, "potential": {"name": "behler_parrinello"}, "note": NASTY},
        "versions": {"alj": "0.1.0", "jax": "0.10.2"},
        "machine": {"host": "here", "processors": 2, "system": "Linux", "command": "alj run"},
    }
    (folder / "run.yaml").write_text(config.dump(claim))
    write_events(folder, [
        {"event": "campaign", "round": 0, "rounds": 5, "labeler": "ml_bop_water", "atoms": 108},
        {"event": "stage", "round": 0, "stage": "train"}, round_event(0), round_event(1),
        {"event": "stage", "round": 2, "stage": "explore"},
    ])  # fmt: skip
    return folder


def write_events(folder, events, start=1000.0):
    lines = [json.dumps({"time": start + 10 * i, **event}) for i, event in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")


def add_event(folder, event):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1100.0, **event}) + "\n")


def write_results(folder):
    (folder / "results").mkdir(exist_ok=True)
    atoms = np.array([2, 2, 1])
    reference = np.array([-0.4, -0.3, -0.2])
    np.savez(
        folder / "results" / "test.npz",
        energy_reference=reference,
        energy=reference + np.array([0.001, 0.001, -0.004]),
        forces_reference=np.zeros(15),
        forces=np.concatenate([np.full(12, 0.03), np.full(3, -0.06)]),
        config_type=np.array(["cold", "cold", NASTY]),
        atoms=atoms,
    )


def test_the_state_is_read_from_events_and_lock(run):
    summary = summarize(run)
    assert (summary.state, summary.round, summary.stage) == ("interrupted", 2, "explore")
    assert (summary.labels, summary.kept, summary.failed) == (21, 20, 1)
    assert summary.failures == {"timeout": 1}
    assert summary.errors["test_mae_meV_per_atom"] == 15.0
    with (run / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert summarize(run).state == "running"
        assert summarize(run).remaining == pytest.approx(30.0)
    add_event(run, {"event": "paused", "reason": "label budget"})
    assert summarize(run)[:2] == ("paused", "label budget")
    add_event(run, {"event": "campaign", "round": 2, "rounds": 9, "resumed": True})
    assert summarize(run).planned == 9
    add_event(run, {"event": "finished", "reason": "kept 300", "exit": 0})
    assert summarize(run)[:2] == ("finished", "kept 300")


def test_a_round_told_twice_counts_once_and_a_torn_line_is_no_event(run):
    add_event(run, round_event(1, labels=22))
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')
    summary = summarize(run)
    assert [event["labels"] for event in summary.rounds] == [11, 22]


def test_errors_are_told_for_all_and_for_each_kind(run):
    write_results(run)
    rows = {row["name"]: row for row in error_rows(read_results(run)["test"])}
    assert rows["all"]["energy_mae"] == pytest.approx(2.0)
    assert rows["cold"]["energy_bias"] == pytest.approx(1.0)
    assert rows[NASTY]["energy_mae"] == pytest.approx(4.0)
    assert rows["cold"]["force_mae"] == pytest.approx(30.0)
    assert rows[NASTY]["force_max"] == pytest.approx(60.0)


def test_the_page_needs_nothing_else_and_escapes_everything(run):
    write_results(run)
    (run / "model").mkdir()
    add_event(run, {"event": "finished", "reason": f"kept {NASTY}", "exit": 0})
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)[a-z]+:""", page)
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == len(list((run / "figures").glob("*.png")))
    for words in ("seed: 7", "21 computed, 20 kept, 1 failed", "alj evaluate", "timeout", "0.10.2"):
        assert words in page
    assert "This run" not in page


def test_a_half_finished_run_says_so(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert "interrupted in round 2" in page
    assert "Errors on the" not in page
    assert "How to use the model" not in page


def test_figures_are_redrawn_only_when_their_data_change(run):
    write_results(run)
    write_report(run)
    times = {p.name: p.stat().st_mtime_ns for p in (run / "figures").glob("*.png")}
    assert "energy_parity_test.png" in times
    start = time.monotonic()
    write_report(run)
    assert time.monotonic() - start < 2.0
    assert times == {p.name: p.stat().st_mtime_ns for p in (run / "figures").glob("*.png")}
    add_event(run, round_event(2))
    write_report(run)
    changed = {
        p.name for p in (run / "figures").glob("*.png") if p.stat().st_mtime_ns != times[p.name]
    }
    assert "learning_curve.png" in changed
    assert "energy_parity_test.png" not in changed


def test_failures_are_shown_with_a_reason_of_each_kind(run):
    one = np.zeros(1, np.int32)
    structure = Structure(np.zeros((1, 3)), one + 8, np.zeros((3, 3)), one[0], one[0])
    with Ledger(run) as ledger:
        for number, message in enumerate(("slow & <hung>", "slow again")):
            answer = LabelingFailed("timeout", message)
            ledger.add([Attempt(f"hash{number}", structure, answer, "engine", {})])
    page = write_report(run).read_text(encoding="utf-8")
    assert "slow &amp; &lt;hung&gt;" in page
    assert "slow again" not in page
    assert f"alj relabel {run}" in page


def test_drawing_keeps_to_its_time_and_catches_up_later(run):
    write_report(run, seconds=0.0)
    first = {p.name for p in (run / "figures").glob("*.png")}
    write_report(run, seconds=0.0)
    assert len({p.name for p in (run / "figures").glob("*.png")}) <= len(first) + 1
    write_report(run)
    assert len(list((run / "figures").glob("*.png"))) == 5


def test_damaged_results_and_a_missing_configuration_do_not_stop_the_report(run):
    (run / "results").mkdir()
    (run / "results" / "test.npz").write_bytes(b"no archive")
    (run / "run.yaml").unlink()
    assert "Rounds" in write_report(run).read_text(encoding="utf-8")


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="expected a run folder"):
        write_report(tmp_path)
    with pytest.raises(BadInput, match="no such run folder"):
        write_report(tmp_path / "nothing")
