"""Where labels are computed: in this process, or in processes of this machine.

An executor only carries work out; what was finished is remembered by `labels.label_all`. Whatever a
reference engine does to the process that runs it stays there: a worker is its own pool of one, so
a killed one takes nothing along but the structures that it was labeling, and these are known.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError
from typing import Any, NamedTuple, Protocol, runtime_checkable

from alj.types import BadInput, Labeler, LabelingFailed, Labels, Structure

LOSSES = 3
"""A structure that takes its worker along so often, each time alone, is a `crash`."""


class Answer(NamedTuple):
    """What one attempt at a label gave, where, and how long it took."""

    result: Labels | LabelingFailed
    seconds: float
    host: str


@runtime_checkable
class Executor(Protocol):
    """Runs a labeler on structures, yielding what is finished as it comes, in any order.

    Each yielded list holds (index into `structures`, answer); every index comes exactly once.
    """

    def run(
        self, labeler: Labeler, structures: list[Structure]
    ) -> Iterator[list[tuple[int, Answer]]]: ...

    def close(self) -> None: ...


def inline(*, labels_per_task: int = 64) -> Executor:
    """Labels in this process, one after another.

    Args:
        labels_per_task: labels that are finished, and remembered, together; engines that label one
            by one finish each alone.
    """
    if labels_per_task < 1:
        raise BadInput(f"labels_per_task must be 1 or more, found {labels_per_task}")
    return Inline(labels_per_task)


def local(*, workers: int | None = None, labels_per_task: int = 8) -> Executor:
    """Labels in processes of this machine; a killed one is replaced and its labels are repeated.

    Args:
        workers: number of processes; null for one per core.
        labels_per_task: labels sent to a process, finished and remembered together: several for
            labels of milliseconds, 1 for labels of seconds.
    """
    for name, value in (("workers", workers), ("labels_per_task", labels_per_task)):
        if value is not None and value < 1:
            raise BadInput(f"{name} must be 1 or more, found {value}")
    return Local(workers or _cores(), labels_per_task)


EXECUTORS = (inline, local)


class Inline:
    """See `inline`."""

    def __init__(self, labels_per_task: int):
        self._size = labels_per_task

    def run(
        self, labeler: Labeler, structures: list[Structure]
    ) -> Iterator[list[tuple[int, Answer]]]:
        size = self._size if hasattr(labeler, "label_many") else 1
        for members in _tasks(len(structures), size):
            answers = label_block(labeler, [structures[i] for i in members])
            yield list(zip(members, answers, strict=True))

    def close(self) -> None:
        """Nothing is open."""


class Local:
    """See `local`."""

    def __init__(self, workers: int, labels_per_task: int):
        self._size = labels_per_task
        self._labeler: Labeler | None = None
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers

    def run(
        self, labeler: Labeler, structures: list[Structure]
    ) -> Iterator[list[tuple[int, Answer]]]:
        if labeler is not self._labeler:
            self.close()  # a worker holds one labeler, so that it compiles or starts up once
            self._labeler = labeler
        waiting = deque(_tasks(len(structures), self._size))
        losses = [0] * len(structures)
        running: dict[Future, tuple[int, list[int]]] = {}
        idle = list(range(len(self._pools)))
        while waiting or running:
            while waiting and idle:
                worker, members = idle.pop(0), waiting.popleft()
                future = self._submit(worker, [structures[i] for i in members])
                running[future] = worker, members
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, members = running.pop(future)
                idle.append(worker)
                try:
                    yield list(zip(members, future.result(), strict=True))
                except BrokenProcessPool:
                    self._drop(worker)
                    if len(members) > 1:
                        waiting.extend([i] for i in members)
                        continue
                    losses[members[0]] += 1
                    if losses[members[0]] < LOSSES:
                        waiting.append(members)
                    else:
                        yield [(members[0], _lost())]

    def close(self) -> None:
        """End the workers."""
        for worker in range(len(self._pools)):
            self._drop(worker)
        self._labeler = None

    def _submit(self, worker: int, structures: list[Structure]) -> Future:
        """Start a task; a worker that died while idle is replaced."""
        for _ in range(2):
            pool = self._pools[worker]
            if pool is None:
                given: Any = (self._labeler, os.getpid())
                spawn = multiprocessing.get_context("spawn")
                pool = ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=given)
                self._pools[worker] = pool
            try:
                with _worker_environment():  # the process is started by the first submission
                    return pool.submit(_work, structures)
            except BrokenProcessPool:
                self._drop(worker)
            except (PicklingError, AttributeError, TypeError) as error:
                raise BadInput(
                    f"the labeler cannot be sent to another process ({error}); "
                    "use `executor: inline`, or define it at the top of a module"
                ) from None
        raise BadInput("labeling processes die at once; is there enough memory?")

    def _drop(self, worker: int) -> None:
        pool, self._pools[worker] = self._pools[worker], None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def label_block(labeler: Labeler, structures: list[Structure]) -> list[Answer]:
    """Label structures one after another, or at once where the labeler can; nothing is raised.

    An exception that is not LabelingFailed becomes a `crash` with its traceback.
    """
    many = getattr(labeler, "label_many", None)
    host = socket.gethostname()
    if many is not None and len(structures) > 1:
        start = time.perf_counter()
        try:
            results = many(structures)
        except Exception:  # let the one that is to blame be found below
            results = None
        if results is not None:
            each = (time.perf_counter() - start) / len(structures)
            return [Answer(result, each, host) for result in results]
    answers = []
    for structure in structures:
        start = time.perf_counter()
        result = _labeled(labeler, structure)
        answers.append(Answer(result, time.perf_counter() - start, host))
    return answers


def _labeled(labeler: Labeler, structure: Structure) -> Labels | LabelingFailed:
    try:
        return labeler.label(structure)
    except LabelingFailed as failure:
        return failure
    except MemoryError as error:
        return LabelingFailed("out_of_memory", str(error) or "out of memory")
    except Exception as error:
        tail = traceback.format_exc()[-2000:]
        return LabelingFailed("crash", f"{type(error).__name__}: {error}", tail)


def _lost() -> Answer:
    message = f"the process that labeled it was lost {LOSSES} times"
    return Answer(LabelingFailed("crash", message), 0.0, socket.gethostname())


def _tasks(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _cores() -> int:
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_WORKER: dict[str, Any] = {}
"""In a worker: the labeler that it was started with."""


def _begin(labeler: Labeler, parent: int) -> None:
    """First thing in a worker: leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _WORKER["labeler"] = labeler
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _work(structures: list[Structure]) -> list[Answer]:
    return label_block(_WORKER["labeler"], structures)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """What a process started within inherits: one thread per engine, no accelerator."""
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
