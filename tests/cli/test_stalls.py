"""A run that stands still says so, once; one that computes, or waits for an engine, does not."""

import threading
import time

import pytest

from alj.cli.stalls import StallWatch


@pytest.mark.parametrize(
    ("used", "stage", "told"),
    [(lambda: 1.0, "explore", 1), (time.monotonic, "explore", 0), (lambda: 1.0, "label", 0)],
    ids=["idle", "busy", "waiting for labels"],
)
def test_only_a_run_that_stands_still_says_so(used, stage, told):
    lines, first = [], threading.Event()

    def say(line):
        lines.append(line)
        first.set()

    with StallWatch(say, patience_seconds=0.05, used=used) as watch:
        watch.event({"event": "stage", "stage": stage})
        first.wait(0.5)
    assert len(lines) == told
    assert all("explore" in line and "goes on where it was" in line for line in lines)


def test_it_ends_at_once_with_the_run():
    began = time.monotonic()
    with StallWatch(print, patience_seconds=60.0):
        pass
    assert time.monotonic() - began < 5.0
