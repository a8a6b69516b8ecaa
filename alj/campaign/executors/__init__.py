"""Where labels are computed: in this process, in processes of this machine, or on a cluster.

An executor only carries work out; what was finished is remembered by `labels.label_all`, and before
that by journals (`journal.py`), so that no finished label is lost, whoever is killed.
"""

import contextlib
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

from alj.campaign.executors.answers import (
    Answer,
    block_size,
    label_each,
    label_together,
    together,
)
from alj.campaign.executors.clusters import parsl
from alj.campaign.executors.dispatch import Dispatch, Journals, Work
from alj.campaign.executors.supervisor import (
    Bounds,
    Supervisor,
    Task,
    at_least_one,
    bounds_of,
)
from alj.types import Labeler, Structure

__all__ = [
    "EXECUTORS",
    "Answer",
    "Executor",
    "Journals",
    "default_executor",
    "inline",
    "local",
    "parsl",
]


@runtime_checkable
class Executor(Protocol):
    """Runs a labeler on structures, yielding what is finished as it comes, in any order.

    Each yielded list holds (index into `structures`, answer); every index comes exactly once.
    Raises BadInput where nothing can be labeled at all: the engine is not installed, say.
    `in_background`: it works while this process does something else. `on_note` takes what a user
    should know meanwhile.
    """

    in_background: bool

    def run(
        self,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[list[tuple[int, Answer]]]: ...

    def close(self) -> None: ...


def inline(*, labels_per_task: int = 64) -> Executor:
    """Labels in this process, one after another: no time limit, and an engine's crash is ours.

    Args:
        labels_per_task: labels that are finished, and remembered, together; engines that label one
            by one finish each alone.
    """
    return Inline(at_least_one("labels_per_task", labels_per_task))


def local(
    *,
    workers: int | None = None,
    labels_per_task: int = 8,
    timeout_seconds: float | None = 3600.0,
    memory_GB: float | None = None,
) -> Executor:
    """Labels in processes of this machine; a killed one is replaced and its labels are repeated.

    Args:
        workers: number of processes; null for one per core.
        labels_per_task: labels sent to a process together; each is remembered when it is finished.
        timeout_seconds: wall time that one label may take; null for any. It fails as `timeout`.
        memory_GB: memory that one process may hold, programs that it starts included; null for
            any. The label that takes more fails as `out_of_memory`.
    """
    count = at_least_one("workers", workers or (_cores() if workers is None else 0))
    return Local(
        count,
        at_least_one("labels_per_task", labels_per_task),
        bounds_of(timeout_seconds, memory_GB),
    )


EXECUTORS = (inline, local, parsl)


def default_executor(labeler: Labeler) -> dict[str, Any]:
    """Potentials of this package label in this process; engines do not, for they may die. What
    waits in a queue has no time limit.
    """
    if hasattr(labeler, "potential"):
        return {"name": "inline"}
    waits = getattr(getattr(labeler, "engine", None), "waits", False)
    return {"name": "local", **({"timeout_seconds": None} if waits else {})}


class Inline:
    """See `inline`."""

    in_background = False

    def __init__(self, labels_per_task: int):
        self._size = labels_per_task

    def run(
        self,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[list[tuple[int, Answer]]]:
        if not together(labeler):
            for index, answer in enumerate(label_each(labeler, structures)):
                yield [(index, answer)]
            return
        size = block_size(labeler, self._size)
        for start in range(0, len(structures), size):
            part = structures[start : start + size]
            yield list(enumerate(label_together(labeler, part), start))

    def close(self) -> None:
        """Nothing is open."""


class Local:
    """See `local`: threads of this process, each of which watches over a labeling process."""

    in_background = True

    def __init__(self, workers: int, labels_per_task: int, bounds: Bounds):
        self._count, self._size, self._bounds = workers, labels_per_task, bounds
        self._threads: ThreadPoolExecutor | None = None
        self._supervisors: list[Supervisor] = []
        self._free: queue.SimpleQueue[Supervisor] = queue.SimpleQueue()

    def run(
        self,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[list[tuple[int, Answer]]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="labels")
            self._supervisors = [Supervisor() for _ in range(self._count)]
            self._free = queue.SimpleQueue()
            for supervisor in self._supervisors:
                self._free.put(supervisor)
        work = Work(self._submit, self._size, 2 * self._count, self._bounds)
        yield from Dispatch(work, labeler, structures, journals).answers()

    def close(self) -> None:
        """End the processes."""
        threads, self._threads = self._threads, None
        for supervisor in self._supervisors:
            supervisor.close()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def _submit(self, task: Task) -> Future:
        assert self._threads is not None
        return self._threads.submit(self._supervised, task)

    def _supervised(self, task: Task) -> list[Answer]:
        supervisor = self._free.get()
        try:
            return supervisor.run(task)
        finally:
            self._free.put(supervisor)


def _cores() -> int:
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
