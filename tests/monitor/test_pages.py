"""The report: self-contained, escaped, cheap, and right for a run at any moment."""

import fcntl
import json
import re
import time

import pytest
from monitor.conftest import NASTY, add_event, add_failures, round_event, write_results

from alj.monitor.drawings import read_results
from alj.monitor.pages import error_rows, write_report
from alj.monitor.summary import summarize
from alj.types import BadInput


def held(page):
    """The data that a report holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


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


def test_the_page_needs_nothing_else_and_no_text_of_a_run_is_markup(run):
    write_results(run)
    (run / "model").mkdir()
    add_event(run, {"event": "finished", "reason": f"kept {NASTY}", "exit": 0})
    page = write_report(run).read_text(encoding="utf-8")
    assert NASTY not in page
    assert "default-src 'none'" in page
    assert "unsafe-inline'; img" in page  # of attributes only
    assert not re.search(r"script-src[^;]*unsafe", page)
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    data = held(page)
    overview = data["pages"]["overview"]
    assert overview["reason"] == f"kept {NASTY}"
    assert (overview["labels"], overview["kept"], overview["failed"]) == (21, 20, 1)
    assert overview["seed"] == 7
    assert overview["versions"]["jax"] == "0.10.2"
    assert overview["has_model"]
    assert overview["sets"]["test"][0]["energy_mae"] == pytest.approx(2.0)
    assert NASTY in data["pages"]["configuration"]["text"]


def test_a_half_finished_run_says_so(run):
    overview = held(write_report(run).read_text(encoding="utf-8"))["pages"]["overview"]
    assert (overview["state"], overview["round"]) == ("interrupted", 2)
    assert overview["sets"] == {}
    assert not overview["has_model"]


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


def test_failures_are_shown_with_their_logs(run):
    add_failures(run, "slow & <hung>", "slow again")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<hung>" not in page
    told = held(page)["pages"]["failures"]
    assert told["kinds"] == {"timeout": 2}
    assert {row["message"] for row in told["failures"]} == {"slow & <hung>", "slow again"}
    assert all(NASTY in row["log_tail"] for row in told["failures"])


def test_drawing_keeps_to_its_time_and_catches_up_later(run):
    write_report(run, seconds=0.0)
    first = {p.name for p in (run / "figures").glob("*.png")}
    write_report(run, seconds=0.0)
    assert len({p.name for p in (run / "figures").glob("*.png")}) <= len(first) + 1
    write_report(run)
    assert len(list((run / "figures").glob("*.png"))) == 5


def test_damaged_results_cost_their_page_only(run):
    (run / "results").mkdir()
    (run / "results" / "test.npz").write_bytes(b"no archive")
    (run / "run.yaml").unlink()
    pages = held(write_report(run).read_text(encoding="utf-8"))["pages"]
    assert "test.npz" in pages["training"]["error"]
    assert pages["map"] == {"count": 0}


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="expected a run folder"):
        write_report(tmp_path)
    with pytest.raises(BadInput, match="no such run folder"):
        write_report(tmp_path / "nothing")
