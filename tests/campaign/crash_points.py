"""Every place where a campaign writes, as points at which it can be stopped; and what must survive.

A SIGKILL leaves the files as they are at that moment: nothing in the process cleans up. A copy of
the run folder made at a point is therefore what a kill there leaves, and hundreds of kills cost one
run. `python -m campaign.crash_points FOLDER POINT` kills itself for real instead.
"""

import contextlib
import errno
import functools
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alj.campaign import checkpoints, datasets, events, loop, trees
from alj.campaign import store as store_module
from alj.campaign.labels import content_hash
from alj.campaign.ledger import Ledger
from alj.campaign.plan import make_plan

WALK = {"walks": 1, "candidates": 4, "minimum_distance_A": 2.5}
CONFIG = {
    "seed": 3,
    "rounds": 2,
    "precision": "float64",
    "data": {
        "random_start": {
            "species": "Ar",
            "atoms": 16,
            "density_g_per_cc": 1.0,
            "minimum_distance_A": 2.9,
            "minimization_steps": 2,
        },
        "boot": {"name": "perturbation", "frames": 3, "walks": 1},
        "reference_test": [{"name": "metropolis_mc", "cycles": 30, "temperature_K": 90.0, **WALK}],
    },
    "potential": {"name": "behler_parrinello", "cutoff_A": 5.0, "hidden": [3]},
    "trainer": {"name": "levenberg_marquardt", "members": 2, "steps": 4, "split": "all"},
    "sampler": [{"name": "metropolis_mc", "cycles": 40, "temperature_K": 90.0, **WALK}],
    "selector": {"name": "d_optimal", "count": 2},
    "labeler": {"name": "lennard_jones", "cutoff_A": 6.0},
    "stop": {"labels": 100},
}

CALLS = "calls.txt"

Hook = Callable[[str], None]


class Counted:
    """A labeler that writes down the hash of every label before it gives it away, one at a time."""

    def __init__(self, inner):
        self.name, self.settings, self.potential = inner.name, inner.settings, inner.potential
        self.folder: Path | None = None
        self._inner = inner

    def label(self, structure):
        labels = self._inner.label(structure)
        if self.folder is not None:
            with (self.folder / CALLS).open("a") as file:
                file.write(content_hash(self, structure) + "\n")
        return labels


@functools.cache
def plan_of(config: str = json.dumps(CONFIG)):
    """One plan for all runs of a process: they share their compiled programs."""
    plan = make_plan(json.loads(config))
    return plan._replace(labeler=Counted(plan.labeler))


def run(folder: Path, on_event=None, config: dict | None = None):
    """Run or resume the campaign with a labeler that counts."""
    plan = plan_of(json.dumps(config or CONFIG))
    plan.labeler.folder = folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_plan", lambda config: plan)
        return loop.run_campaign(config or CONFIG, folder, on_event)


@contextlib.contextmanager
def watched(at: Hook) -> Iterator[None]:
    """Call `at(point)` before, within and after every write of file, ledger and events.

    Checkpoints are written after every block.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "SECONDS", -1.0)
        _watch_files(at, patch)
        patch.setattr(store_module.FolderStore, "forget", _forgetting(at))
        for kind in ("add", "record"):
            patch.setattr(Ledger, kind, _transaction(at, kind))
        patch.setattr(events, "_write", _appending(at))
        yield


def _watch_files(at: Hook, patch: pytest.MonkeyPatch) -> None:
    write, sync = store_module._write, store_module._sync_folder
    last = ""

    def writing(path: Path, data: bytes) -> None:
        nonlocal last
        last = path.name.split("-", 2)[-1]  # without the mark of a temporary
        last = last if last == "run.yaml" else f"{path.parent.name}/{last}"
        at(f"file {last}: before")
        path.write_bytes(data[: len(data) // 2])
        at(f"file {last}: half")
        write(path, data)
        at(f"file {last}: written")

    def syncing(folder: Path) -> None:
        at(f"file {last}: renamed")
        sync(folder)

    patch.setattr(store_module, "_write", writing)
    patch.setattr(store_module, "_sync_folder", syncing)


def _forgetting(at: Hook):
    forget = store_module.FolderStore.forget

    def forgetting(self, name: str) -> None:
        forget(self, name)
        at(f"file {name}: forgotten")

    return forgetting


def _transaction(at: Hook, kind: str):
    change = getattr(Ledger, kind)
    transaction = Ledger._transaction

    def changing(self, first, *rest, **others):
        name = f"ledger {kind} {first}" if kind == "record" else "ledger add"

        @contextlib.contextmanager
        def watching():
            with transaction(self):
                yield
                at(f"{name}: uncommitted")

        at(f"{name}: before")
        self._transaction = watching
        change(self, first, *rest, **others)
        at(f"{name}: committed")

    return changing


def _appending(at: Hook):
    def appending(file, data: bytes) -> None:
        event = json.loads(data)
        name = " ".join(str(event[k]) for k in ("event", "round", "stage", "done") if k in event)
        at(f"event {name}: before")
        half = len(data) // 2
        for part, point in ((data[:half], "half"), (data[half:], "after")):
            file.write(part)
            file.flush()
            at(f"event {name}: {point}")

    return appending


class Full:
    """A disk that is full from a point on: whatever is written then fails, the half of it done."""

    def __init__(self, point: str):
        self.point, self.full = point, False

    def __call__(self, point: str) -> None:
        self.full = self.full or point == self.point
        if self.full and point.startswith("ledger") and point.endswith("uncommitted"):
            raise sqlite3.OperationalError("database or disk is full")
        if self.full and point.endswith((": before", ": half")) and "ledger" not in point:
            raise OSError(errno.ENOSPC, "No space left on device")


def end_of(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, without times."""
    left = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name not in (CALLS, "ledger.sqlite", "run.yaml", "lock"):
            left[name] = path.read_bytes()
    told = events.read(folder)
    left["events.jsonl"] = [_timeless(event) for event in told if event["event"] == "round"]
    left["last event"] = _timeless(told[-1])
    for name in [name for name in left if name.endswith("report.tree")]:
        left[name] = _timeless(trees.decode(left[name], name))
    with Ledger(folder, read_only=True) as ledger:
        left["counts"] = ledger.counts()
        left["structures"] = [_timeless(row) for row in ledger.structures()]
        left["labels"] = sorted(
            row[:2] + row[3:]
            for row in ledger._base.execute("select hash, attempt, time, labels from labels")
        )
    return left


def _timeless(report: dict) -> str:
    return repr({k: v for k, v in sorted(report.items()) if k not in ("time", "seconds")})


def assert_same_end(one: dict, other: dict) -> None:
    assert sorted(one) == sorted(other)
    for name, content in one.items():
        assert content == other[name], f"{name} differs"


def calls(folder: Path) -> list[str]:
    """The hashes of all labels that were computed, start and test set included."""
    path = folder / CALLS
    return path.read_text().split() if path.exists() else []


def recorded(folder: Path) -> set[str]:
    """The hashes of the labels that the ledger holds; a ledger not yet made holds none."""
    try:
        with sqlite3.connect(folder / "ledger.sqlite") as base:
            return {row[0] for row in base.execute("select hash from labels")}
    except sqlite3.OperationalError:
        return set()


def assert_nothing_labeled_twice(folder: Path, kept: set[str]) -> None:
    """No label that the ledger held at a kill (`kept`) was computed again; at most one other was:
    the one that was finished, but not yet in the ledger."""
    counted = {hash_: calls(folder).count(hash_) for hash_ in recorded(folder)}
    assert {counted[hash_] for hash_ in kept} <= {1}
    assert sum(counted.values()) <= len(counted) + 1


def dataset_of(folder: Path) -> datasets.Dataset:
    """The data at the end of a run."""
    last = max((folder / "rounds").glob("*/state.tree"))
    state = trees.decode(last.read_bytes(), str(last))
    return (state if hasattr(state, "data") else state[0]).data


def same_data(one: datasets.Dataset, other: datasets.Dataset) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(one[:-1], other[:-1], strict=True)
    ) and one.info == other.info  # fmt: skip


def main(folder: str, point: str) -> None:
    """Run in `folder`; a real SIGKILL where `point` comes first."""

    def at(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(at):
        run(Path(folder))


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    main(*sys.argv[1:])
