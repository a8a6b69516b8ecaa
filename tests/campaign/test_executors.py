"""Executors: a worker may die, the others and their labels do not notice."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from campaign.engines import Blocks, Spring, point

from alj import registry
from alj.campaign.executors import (
    EXECUTORS,
    Journals,
    Local,
    inline,
    journal,
    local,
)
from alj.campaign.executors.answers import Answer
from alj.campaign.executors.dispatch import Dispatch, Work
from alj.campaign.executors.supervisor import LOSSES, Bounds
from alj.campaign.reading import empty_labels
from alj.types import BadInput, LabelingFailed


def test_executors_are_built_from_configurations():
    assert isinstance(registry.build(EXECUTORS, {"name": "local", "workers": 1}), Local)
    for spec in (
        {"name": "local", "workers": 0},
        {"name": "local", "memory_GB": 0.0},
        {"name": "local", "timeout_seconds": -1.0},
        {"name": "inline", "labels_per_task": 0},
    ):
        with pytest.raises(BadInput):
            registry.build(EXECUTORS, spec)


def test_inline_finishes_slow_engines_one_by_one(tmp_path):
    finished = list(inline().run(Spring(tmp_path), [point(1.0), point(2.0)]))
    assert [[index for index, _ in part] for part in finished] == [[0], [1]]


def collected(parts) -> dict:
    """All answers by index, each given once."""
    answers = {}
    for part in parts:
        for index, answer in part:
            assert index not in answers
            answers[index] = answer.result
    return answers


@pytest.fixture
def pool(request):
    """An executor of this machine, closed at the end."""
    executor = local(**getattr(request, "param", {"workers": 2, "labels_per_task": 3}))
    yield executor
    executor.close()


@pytest.mark.slow
def test_killed_workers_take_nothing_along(tmp_path, pool):
    """A structure that always kills is a crash; what would have died along with it is labeled."""
    xs = [1.0, -3.0, 2.0, 3.0, -1.0, 4.0, -4.0]
    spring = Spring(tmp_path)
    hashes = [f"{x}" for x in xs]
    answers = collected(pool.run(spring, [point(x) for x in xs], Journals(tmp_path / "j", hashes)))
    assert sorted(answers) == list(range(len(xs)))
    for x, answer in zip(xs, (answers[i] for i in range(len(xs))), strict=True):
        if x == -1:
            assert answer.kind == "not_converged"
        elif x == -3:
            assert answer.kind == "crash"
            assert f"lost {LOSSES} times" in answer.message
        else:
            assert answer.energy == x * x
    assert spring.calls().count(-3.0) == LOSSES
    assert spring.calls().count(-4.0) == 2
    assert all(spring.calls().count(x) == 1 for x in xs if x > -3)
    written = journal.harvest(tmp_path / "j")
    assert set(written) == set(hashes)
    assert float(written["-4.0"].result.energy) == 16.0

    for each in pool._supervisors:
        if each._process is not None:
            os.kill(each._process.pid, signal.SIGKILL)  # while idle
    time.sleep(0.2)
    (part,) = pool.run(spring, [point(7.0)])
    assert part[0][1].result.energy == 49.0


@pytest.mark.parametrize(
    "pool",
    [{"workers": 1, "labels_per_task": 4, "timeout_seconds": 15.0, "memory_GB": 0.6}],
    indirect=True,
)
def test_limits_and_crashes_are_told_apart(tmp_path, pool):
    """Each of them really happens; the labels beside them are not touched."""
    xs = [1.0, -7.0, -8.0, -9.0, -10.0, 2.0]
    answers = collected(pool.run(Spring(tmp_path), [point(x) for x in xs]))
    assert answers[0].energy == 1.0
    assert answers[5].energy == 4.0
    kinds = [answers[i].kind for i in range(1, 5)]
    assert kinds == ["timeout", "crash", "out_of_memory", "crash"]
    assert "SIGSEGV" in answers[2].message
    assert "Segmentation fault" in answers[2].log_tail
    assert "exit code 3" in answers[4].message
    assert "the last words of the engine" in answers[4].log_tail


@pytest.mark.slow
def test_a_crash_among_structures_labeled_together_is_one_structure_s(tmp_path, pool):
    answers = collected(pool.run(Blocks(tmp_path), [point(x) for x in (1.0, -8.0, 2.0)]))
    assert (answers[0].energy, answers[1].kind, answers[2].energy) == (1.0, "crash", 4.0)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [{"workers": 1, "memory_GB": 0.6}], indirect=True)
def test_a_label_is_not_blamed_for_what_others_leaked(tmp_path, pool):
    """160 MB each: the process is replaced, and every label comes out."""
    answers = collected(pool.run(Spring(tmp_path), [point(-14.0)] * 6))
    assert [float(answers[i].energy) for i in range(6)] == [196.0] * 6


@pytest.mark.slow
def test_a_torn_record_hides_none_behind_it(tmp_path, monkeypatch, pool):
    """Whoever appends after a killed process does so where the last whole record ends."""
    mend, mended = journal.mend, []
    monkeypatch.setattr(journal, "mend", lambda path: (mended.append(path), mend(path)))
    folder, xs = tmp_path / "j", [1.0, -3.0, 2.0]
    list(pool.run(Spring(tmp_path), [point(x) for x in xs], Journals(folder, ["a", "b", "c"])))
    assert len(mended) == LOSSES
    assert set(journal.harvest(folder)) == {"a", "b", "c"}


def test_a_disk_that_cannot_be_written_is_not_the_structure_s_fault(tmp_path, pool):
    folder = tmp_path / "j"
    folder.mkdir()
    (folder / "none").mkdir()
    journals = Journals(folder, ["a"])
    parts = Dispatch(
        Work(lambda task: submitted(pool, task, folder / "none"), 1, 1, Bounds()),
        Spring(tmp_path), [point(1.0)], journals,
    ).answers()  # fmt: skip
    with pytest.raises(OSError, match="Is a directory"):
        list(parts)


def submitted(pool, task, journal_path):
    """A task whose journal is a folder."""
    list(pool.run(Spring(journal_path.parent), []))
    pool._threads = pool._threads or ThreadPoolExecutor(1)
    return pool._submit(task._replace(journal=str(journal_path)))


def alive(pid):
    """Whether a process is there and not only not yet taken away."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_nothing_outlives_a_driver_that_is_killed(tmp_path):
    """Not even a labeler that holds Python's lock, nor its files."""
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from campaign.engines import Holder, point
        from alj.campaign.executors import local
        list(local(workers=1).run(Holder({str(tmp_path)!r}), [point(1.0)]))
    """
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "TMPDIR": str(scratch)}
    ) as driver:
        until = time.monotonic() + 60.0
        while not (tmp_path / "pid.txt").exists() and time.monotonic() < until:
            time.sleep(0.05)
        driver.kill()
    pid = int((tmp_path / "pid.txt").read_text())
    until = time.monotonic() + 20.0
    while alive(pid) or list(scratch.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_what_an_engine_started_dies_with_it(tmp_path):
    """Programs that a labeler has started are killed when it runs out of time."""
    executor = local(workers=1, timeout_seconds=1.0)
    try:
        answers = collected(executor.run(Spring(tmp_path), [point(-11.0)]))
        assert answers[0].kind == "timeout"
        pid = int((tmp_path / "pid.txt").read_text())
        for _ in range(50):
            if not alive(pid):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the program goes on")
    finally:
        executor.close()


def test_a_labeler_of_a_script_travels_and_one_that_cannot_is_one_line(pool):
    class Hidden:
        """Defined where no other process can import it."""

        name, settings = "hidden", {}

        def label(self, structure):
            return empty_labels(1)._replace(energy=np.asarray(3.0))

    answers = collected(pool.run(Hidden(), [point(1.0)]))
    assert answers[0].energy == 3.0

    class Locked(Hidden):
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(BadInput, match="cannot be sent to another process"):
        list(pool.run(Locked(), [point(1.0)]))


@pytest.mark.parametrize("build", [inline, lambda: local(workers=1)])
def test_an_engine_that_is_not_there_is_said_once(tmp_path, build):
    """It is not the structures' fault: none of them is called a failure."""
    executor = build()
    try:
        with pytest.raises(BadInput, match="not installed"):
            list(executor.run(Spring(tmp_path), [point(1.0), point(-12.0), point(2.0)]))
    finally:
        executor.close()


def test_journals_survive_a_torn_record(tmp_path):
    path = tmp_path / f"one{journal.SUFFIX}"
    failed = Answer(LabelingFailed("timeout", "slow", "tail"), 2.0, "here", {"tries": 2})
    good = Answer(empty_labels(2)._replace(energy=np.asarray(1.5)), 0.5, "here")
    journal.append(path, "a", failed)
    whole = path.stat().st_size
    journal.append(path, "b", good)
    path.write_bytes(path.read_bytes()[:-3])
    records, end = journal.read(path)
    assert [hash_ for hash_, _ in records] == ["a"]
    assert end == whole
    journal.mend(path)
    journal.append(path, "c", good)
    (_, again), (_, label) = journal.read(path)[0]
    assert again.result.args == failed.result.args
    assert again._replace(result=None) == failed._replace(result=None)
    assert float(label.result.energy) == 1.5
    journal.discard(tmp_path, ["a"])
    assert path.exists()
    journal.discard(tmp_path, ["a", "c"])
    assert not path.exists()


def test_failures_survive_the_way_back():
    failure = pickle.loads(pickle.dumps(LabelingFailed("timeout", "slow", "tail")))
    assert (failure.kind, failure.message, failure.log_tail) == ("timeout", "slow", "tail")
