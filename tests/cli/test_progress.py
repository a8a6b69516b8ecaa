"""The progress view: lines where nobody watches, a panel on a terminal, nothing when quiet."""

import io

from rich.console import Console

from alj.cli.progress import View, line_of, panel, sparkline
from alj.monitor.summary import summary_of

EVENTS = [
    {"event": "campaign", "round": 0, "rounds": 5, "run": "runs/x", "labeler": "ml_bop_water"},
    {"event": "stage", "round": 0, "stage": "train"},
    {"event": "progress", "round": 0, "stage": "train", "done": 40, "total": 100},
    {"event": "round", "round": 0, "labels": 11, "kept": 10, "failed": 1, "seconds": {"train": 9}},
    {"event": "stage", "round": 1, "stage": "explore"},
    {
        "event": "round", "round": 1, "labels": 21, "kept": 20, "failed": 1,
        "seconds": {"train": 9}, "test_mae_meV_per_atom": 12.3456,
        "candidate_mae_meV_per_atom": None, "validation_rmse_meV_per_atom": float("nan"),
    },
    {"event": "stage", "round": 2, "stage": "explore"},
]  # fmt: skip
TIMED = [{"time": 100.0 + 10 * i, **event} for i, event in enumerate(EVENTS)]


def shown(terminal, quiet=False, events=TIMED):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    with View(console, quiet=quiet) as view:
        for event in events:
            view(event)
    return stream.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_stage_and_round():
    lines = shown(False).splitlines()
    assert lines[0] == "runs/x: started, at most 5 rounds"
    assert lines[1] == "round 0 of 5: train"
    assert lines[2].startswith("round 0 of 5 done: 11 labels, 10 kept, 1 failed; no error known")
    assert "test MAE 12.3 meV/atom" in lines[4]
    assert "left" in lines[4]
    assert len(lines) == 6


def test_a_terminal_gets_one_panel_with_all_that_matters():
    text = shown(True)
    for words in ("round", "2 of 4 · explore", "21 computed, 20 kept, 1 failed", "12.3", "elapsed"):
        assert words in text
    assert "round 0 of 5 done" not in text
    assert "nan" not in text


def test_quiet_is_silent():
    assert shown(False, quiet=True) == ""
    assert shown(True, quiet=True) == ""


def test_the_time_left_follows_the_pace_of_the_rounds():
    summary = summary_of(TIMED)
    assert summary.remaining == 60.0  # two rounds of 20 s made, three to go
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(panel(summary, {}, now=TIMED[-1]["time"] + 5.0))
    assert "about 55 s left" in console.file.getvalue()


def test_the_panel_says_how_far_a_stage_is():
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(panel(summary_of(TIMED[:2]), TIMED[2], now=150.0))
    assert "40/100" in console.file.getvalue()
    assert "not known yet" in console.file.getvalue()


def test_the_end_says_why():
    end = {"time": 200.0, "event": "paused", "reason": "label budget"}
    assert line_of(end, summary_of([*TIMED, end])) == "paused: label budget (1 min 40 s)"


def test_a_sparkline_falls_with_the_error():
    assert sparkline([100.0, 10.0, 1.0]) == "█▄▁"
    assert sparkline([5.0]) == "▁"
