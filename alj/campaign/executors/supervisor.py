"""A labeling process under watch: its time, its memory, and what it died of.

Whatever a reference engine does to the process that runs it stays there. The supervisor lives in a
thread of the driver (`local`) or in a worker on a cluster (`parsl`), so the rules are the same.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from alj.campaign.executors import child, journal
from alj.campaign.executors.answers import Answer
from alj.campaign.executors.child import Block
from alj.types import BadInput, LabelingFailed, Structure

LOSSES = 3
"""A structure that takes its process along so often is a `crash`."""

_CRASHES = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
}
_START_SECONDS = 300.0
_STARTS = 10
"""Processes that may be killed, one after the other, before they are ready to label."""
_WATCH_SECONDS = 0.2
_TAIL = 4000
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = dict.fromkeys(_THREADS, "1")
"""What engines are told before they are imported: a process has one core."""


class Bounds(NamedTuple):
    """What one label may take: seconds of wall time and GB of memory; None for any amount."""

    seconds: float | None = None
    memory_GB: float | None = None


def bounds_of(timeout_seconds: float | None, memory_GB: float | None) -> Bounds:
    """The bounds that settings name. Raises BadInput for one that nothing can keep."""
    for name, value in (("timeout_seconds", timeout_seconds), ("memory_GB", memory_GB)):
        if value is not None and value <= 0:
            raise BadInput(f"{name}: expected more than 0, or null for any, found {value:g}")
    return Bounds(timeout_seconds, memory_GB)


def at_least_one(name: str, value: int) -> int:
    """The value of a setting that counts. Raises BadInput below 1."""
    if value < 1:
        raise BadInput(f"{name} must be 1 or more, found {value}")
    return value


class Task(NamedTuple):
    """Structures for one worker, with the pickled labeler; `journal` is a path, or "".

    `places` are where the driver finds modules: the labeler's may be among them.
    """

    labeler: bytes
    structures: list[Structure]
    hashes: list[str]
    journal: str
    together: bool
    bounds: Bounds
    places: tuple[str, ...] = ()


class Supervisor:
    """Runs tasks in one process, which is started when it is needed and replaced when it dies."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._labeler, self._labeled = b"", 0
        self._watchdog: subprocess.Popen | None = None
        self._scratch: Path | None = None
        self._closed = False

    def run(self, task: Task) -> list[Answer]:
        """Answers in order. Raises BadInput where no process can label at all, or after `close`;
        OSError where finished labels cannot be written.
        """
        try:
            return self._run(task)
        except Exception:
            if self._closed:  # whatever stumbled over it
                raise BadInput("labeling was ended") from None
            raise
        finally:
            if self._closed:
                self._kill()

    def _run(self, task: Task) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(task.structures)
        losses, alone = [0] * len(answers), not task.together
        while (left := [i for i, answer in enumerate(answers) if answer is None]) and (
            not self._closed
        ):
            self._ensure(task)
            block = Block(
                [task.structures[i] for i in left],
                [task.hashes[i] for i in left],
                task.journal,
                not alone,
            )
            end = self._watch(block, left, answers, task.bounds)
            if end is None:
                continue
            if task.journal:
                journal.mend(Path(task.journal))
            if not alone:
                alone = True  # who is to blame shows when they go one by one
                continue
            if end.how == "out_of_memory" and end.labeled:
                continue  # perhaps earlier labels left it so large: in a new process, it shows
            first = next(i for i in left if answers[i] is None)
            losses[first] += 1
            verdict = _verdict(end, losses[first])
            if verdict is not None:
                answer = Answer(verdict, end.seconds, socket.gethostname())
                if task.journal:
                    journal.append(Path(task.journal), task.hashes[first], answer)
                answers[first] = answer
        if self._closed:
            raise BadInput("labeling was ended")
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """End the process, and whatever it has started."""
        self._closed = True
        self._kill()

    def _watch(
        self, block: Block, places: list[int], answers: list, bounds: Bounds
    ) -> "_End | None":
        """Collect the answers to a block; how it ended early, or None."""
        assert self._connection is not None
        each = len(places) if block.together else 1
        limit = None if bounds.seconds is None else bounds.seconds * each
        done, begun = 0, time.monotonic()
        looked = begun
        try:
            self._connection.send(block)
            while done < len(places):
                now = time.monotonic()
                spent = now - begun
                if self._closed:
                    raise BadInput("labeling was ended")
                if limit is not None and spent > limit:
                    return self._ended("timeout", f"longer than {bounds.seconds:g} s", spent)
                if bounds.memory_GB is not None and now - looked > _WATCH_SECONDS:
                    looked = now
                    if self._memory() > bounds.memory_GB:
                        text = f"more than {bounds.memory_GB:g} GB of memory"
                        return self._ended("out_of_memory", text, spent)
                wait = _WATCH_SECONDS
                if limit is not None:
                    wait = min(wait, limit - spent + 0.01)
                if self._connection.poll(wait):
                    index, answer = self._connection.recv()
                    if index == "broken":
                        raise BadInput(answer)
                    if index == "disk":
                        raise OSError(*answer)
                    answers[places[index]] = answer
                    self._labeled += 1
                    done, begun = done + 1, time.monotonic()
        except (EOFError, ConnectionError):
            return self._ended("lost", "", time.monotonic() - begun)
        return None

    def _ensure(self, task: Task) -> None:
        """A process with this labeler that waits for work."""
        running = self._process is not None and self._process.poll() is None
        if running and self._labeler == task.labeler:
            assert self._scratch is not None
            log = self._scratch / "log"
            if log.stat().st_size > 1_000_000:
                os.truncate(log, 0)
            return
        reason = ""
        for _ in range(_STARTS):
            self._kill()
            reason = self._start(task.labeler, task.places)
            if reason == "" or self._closed:
                return
            if f"exit code {-signal.SIGKILL}," not in reason:
                break
        raise BadInput(f"labeling processes die while they start: {reason}")

    def _start(self, labeler: bytes, places: tuple[str, ...]) -> str:
        """Start a process; why it is not ready, or "". Raises BadInput where it never will be."""
        self._scratch = Path(tempfile.mkdtemp(prefix="alj-label-"))
        ours, theirs = socket.socketpair()
        with (self._scratch / "log").open("ab") as log, ours, theirs:
            descriptor = theirs.fileno()
            begin = f"from {child.__name__} import main; main({descriptor})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", begin],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                start_new_session=True,  # so that it can be killed with all that it has started
                env={**os.environ, **ONE_THREAD, **self._places()},
            )
            self._connection = Connection(os.dup(ours.fileno()))
        self._watchdog = _watchdog(self._process.pid, self._scratch)
        self._labeler, self._labeled = labeler, 0
        try:
            self._connection.send((places, labeler))
            if not self._connection.poll(_START_SECONDS):
                return f"not ready after {_START_SECONDS:g} s"
            kind, text = self._connection.recv()
        except (EOFError, ConnectionError, BrokenPipeError):
            code = self._process.wait()
            said = self._tail().strip().splitlines() or ["nothing"]
            return f"exit code {code}, its last words: {said[-1]}"
        if kind == "broken":
            raise BadInput(f"the labeler cannot be used in a labeling process: {text}")
        return ""

    def _places(self) -> dict[str, str]:
        """Temporary files go where they are removed; the package is found where ours was."""
        assert self._scratch is not None
        (self._scratch / "tmp").mkdir()
        root = str(Path(__file__).parents[3])
        path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "TMPDIR": str(self._scratch / "tmp"),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(path),
        }

    def _memory(self) -> float:
        """GB that the process and its children hold."""
        assert self._process is not None
        total = 0
        with contextlib.suppress(psutil.Error):
            for each in (psutil.Process(self._process.pid), *_descendants(self._process.pid)):
                with contextlib.suppress(psutil.Error):
                    total += each.memory_info().rss
        return total / 1e9

    def _ended(self, how: str, text: str, seconds: float) -> "_End":
        """Kill what is left of the process and say how it ended."""
        assert self._process is not None
        if how == "lost":
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
        code = self._process.poll()
        tail = self._tail()
        self._kill()
        return _End(how, text, code, tail, seconds, self._labeled)

    def _tail(self) -> str:
        log = None if self._scratch is None else self._scratch / "log"
        if log is None or not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")

    def _kill(self) -> None:
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        scratch, self._scratch = self._scratch, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.kill()
            watchdog.communicate()
        if process is not None:
            started = _descendants(process.pid)  # also those that left the process group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            for one in started:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait()
        if connection is not None:
            connection.close()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _watchdog(pid: int, scratch: Path) -> subprocess.Popen:
    """A shell that ends a labeling process, and removes its files, once this process is gone.

    It waits for the end of a pipe that only we hold: a thread of the labeling process could not
    wait while an engine holds Python's lock.
    """
    script = 'cat >/dev/null; kill -9 "-$1" 2>/dev/null; rm -rf "$2"'
    return subprocess.Popen(
        ["sh", "-c", script, "alj-watchdog", str(pid), str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class _End(NamedTuple):
    """How a process ended: "timeout", "out_of_memory" or "lost", with which exit code, and how many
    labels it had finished before.
    """

    how: str
    text: str
    code: int | None
    tail: str
    seconds: float
    labeled: int


def _verdict(end: _End, losses: int) -> LabelingFailed | None:
    """What a structure's label is after its process ended so; None where it is tried again."""
    if end.how == "lost":
        code = end.code if end.code is not None else 0
        if code == -signal.SIGKILL:  # somebody else's doing, as far as anybody can tell
            if losses < LOSSES:
                return None
            message = f"the process that labeled it was lost {LOSSES} times"
        elif code < 0:
            message = f"the process that labeled it died of {signal.Signals(-code).name}"
            if -code not in _CRASHES and losses < LOSSES:
                return None
        else:
            message = f"the process that labeled it ended with exit code {code}"
        return LabelingFailed("crash", message, end.tail)
    return LabelingFailed(end.how, f"it took {end.text}", end.tail)


_OURS: list[Supervisor] = []


def run_task(task: Task) -> list[Answer]:
    """A task in a process of a cluster's worker, which keeps one supervisor for all its tasks."""
    if not _OURS:
        _OURS.append(Supervisor())
    return _OURS[0].run(task)
