"""What a run folder says about itself: state, counts, errors. Reads files only, and no JAX.

A status must come at once, so this module stands on the standard library: it reads the lines of
`events.jsonl` and counts the failures in the ledger by itself.
"""

import contextlib
import fcntl
import itertools
import json
import math
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple


class Summary(NamedTuple):
    """The state of a run. Counts are totals; `errors` are those of the last round that has them.

    state: "running", "finished", "paused", "interrupted" or "new". reason: why it ended or paused.
    rounds: the "round" events, the last one of each round. stage: what is being done.
    started, last: unix seconds. seconds: spent while running. remaining: estimated seconds left.
    """

    state: str
    reason: str
    rounds: list[dict]
    round: int
    planned: int
    stage: str
    labels: int
    kept: int
    failed: int
    failures: dict[str, int]
    errors: dict[str, float]
    labeler: str
    atoms: int
    started: float
    last: float
    seconds: float
    remaining: float | None


ERRORS = (
    "test_mae_meV_per_atom",
    "candidate_mae_meV_per_atom",
    "candidate_bias_meV_per_atom",
    "candidate_scatter_meV_per_atom",
    "validation_rmse_meV_per_atom",
    "train_rmse_meV_per_atom",
)


LAST = ("refit", "anchor", "properties")
"""Stages after the last round, which came sooner than planned: rounds no longer tell the time."""


def summarize(folder: Path) -> Summary:
    """The state of the run in `folder`."""
    state = summary_of(read_events(folder))
    if state.state == "running" and not in_use(folder):
        state = state._replace(state="interrupted", remaining=None)
    return state._replace(failures=state.failures or _failures_in_ledger(folder))


def summary_of(events: list[dict]) -> Summary:
    """The state of a run as its events tell it."""
    rounds = last_of_each_round(events)
    last_round = rounds[-1] if rounds else {}
    first = next((e for e in events if e["event"] in ("campaign", "training")), {})
    begun = [e for e in events if e["event"] == "stage"]
    ends = [e for e in events if e["event"] in ("finished", "paused", "campaign", "training")]
    end = ends[-1] if ends else {}
    ended = end.get("event") in ("finished", "paused")
    errors = {}
    for name in ERRORS:
        known = [e[name] for e in rounds if known_number(e.get(name))]
        errors |= {name: known[-1]} if known else {}
    failures: Counter = Counter(last_round.get("failures") or {})
    planned = max([int(e.get("rounds") or 0) for e in events if e["event"] == "campaign"] + [0])
    spent = _seconds(events)
    stage = str(begun[-1].get("stage") or "") if begun and not ended else ""
    return Summary(
        state=str(end["event"]) if ended else ("running" if events else "new"),
        reason=str(end.get("reason") or "") if ended else "",
        rounds=rounds,
        round=int((begun[-1] if begun else last_round).get("round") or 0),
        planned=planned,
        stage=stage,
        labels=int(last_round.get("labels") or 0),
        kept=int(last_round.get("kept") or 0),
        failed=int(last_round.get("failed") or 0),
        failures={kind: n for kind, n in failures.items() if n},
        errors=errors,
        labeler=str(first.get("labeler") or ""),
        atoms=int(first.get("atoms") or 0),
        started=float(first.get("time") or 0.0),
        last=float(events[-1].get("time") or 0.0) if events else 0.0,
        seconds=spent,
        remaining=None if ended or stage.startswith(LAST) else _remaining(rounds, planned),
    )


def read_events(folder: Path) -> list[dict]:
    """All whole events of a run; a half-written line is left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        lines = (folder / "events.jsonl").read_bytes().splitlines()
        return [event for line in lines if (event := parsed(line))]
    return []


def parsed(line: bytes) -> dict[str, Any] | None:
    """The event on a line, or None."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def last_of_each_round(events: list[dict]) -> list[dict]:
    """The "round" events in order, the later of two for the same round (a resumed run)."""
    rounds = {e.get("round", 0): e for e in events if e["event"] == "round"}
    return [rounds[index] for index in sorted(rounds)]


def known_number(value: Any) -> bool:
    """Whether a value of an event says something; before it is written it may still be NaN."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def in_use(folder: Path) -> bool:
    """Whether a process holds the folder's lock."""
    try:
        with (folder / "lock").open("rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except OSError:
        return False


def duration(seconds: float | int | None) -> str:
    """Seconds in the words of a reader.

    >>> [duration(s) for s in (0.2, 75, 7300, 100000, None)]
    ['0 s', '1 min 15 s', '2 h 1 min', '1 d 3 h', 'unknown']
    """
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    for name, size, lower, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {lower}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _seconds(events):
    """Time between events, without the pauses between a stop and the next start."""
    spent = 0.0
    for before, after in itertools.pairwise(events):
        if after["event"] not in ("campaign", "training"):
            spent += max(0.0, float(after.get("time") or 0) - float(before.get("time") or 0))
    return spent


def _remaining(rounds, planned):
    """Rounds left, at the pace of the last three; stopping rules may end it sooner."""
    if len(rounds) < 2 or not planned:
        return None
    recent = rounds[-4:]
    each = (recent[-1].get("time", time.time()) - recent[0].get("time", 0.0)) / (len(recent) - 1)
    return max(0.0, each * (planned - 1 - int(rounds[-1].get("round") or 0)))


def _failures_in_ledger(folder: Path) -> dict[str, int]:
    path = folder / "ledger.sqlite"
    query = (
        "select kind, count(*) from labels as l where status = 'failed' and attempt = "
        "(select max(attempt) from labels where hash = l.hash) group by kind order by kind"
    )
    if not path.exists():
        return {}
    try:
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        with contextlib.closing(base):
            return dict(base.execute(query).fetchall())
    except sqlite3.Error:
        return {}
