"""Blocks of structures through any `concurrent.futures.Executor`, whatever its workers die of."""

import contextlib
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import NamedTuple

import cloudpickle

from alj.campaign.executors import journal
from alj.campaign.executors.answers import Answer, block_size, together
from alj.campaign.executors.supervisor import LOSSES, Bounds, Task
from alj.types import BadInput, Labeler, LabelingFailed, Structure

_POLL_SECONDS = 0.5


class Journals(NamedTuple):
    """Where finished labels are written as they come, and under which hash each."""

    folder: Path
    hashes: list[str]

    def of(self, members: list[int]) -> "Journals":
        """The same for some of the structures."""
        return Journals(self.folder, [self.hashes[i] for i in members])


class Work(NamedTuple):
    """How tasks are carried out.

    submit: starts a task. size: structures in a block. window: tasks under way at once.
    bounds: what one label may take. lost: exceptions that say that a worker is gone, with all that
    it was doing. idle: called about twice a second while nothing comes, with the seconds since
    something last came.
    """

    submit: Callable[[Task], Future]
    size: int
    window: int
    bounds: Bounds
    lost: tuple[type[BaseException], ...] = ()
    idle: Callable[[float], None] | None = None


class _Running(NamedTuple):
    """A task under way: which structures, and its journal (a path, or "")."""

    members: list[int]
    journal: str


class Dispatch:
    """One run over `structures`. Raises BadInput for a labeler that cannot travel.

    A block whose worker was lost is taken up again without what its journal holds; the structure
    that was in work goes alone, up to three times.
    """

    def __init__(
        self,
        work: Work,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None = None,
    ):
        self._work, self._structures, self._journals = work, structures, journals
        self._labeler, self._together = pickled(labeler), together(labeler)
        count, size = len(structures), block_size(labeler, work.size)
        starts = range(0, count, size)
        self._waiting = [list(range(i, min(i + size, count))) for i in starts][::-1]
        self._running: dict[Future, _Running] = {}
        self._read: dict[str, int] = {}
        self._open = set(range(count))
        self._losses = [0] * count
        self._places: dict[str, list[int]] = {}
        if journals is not None:
            journals.folder.mkdir(parents=True, exist_ok=True)
            for index, hash_ in enumerate(journals.hashes):
                self._places.setdefault(hash_, []).append(index)

    def answers(self) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index, answer) of every structure once, as they are finished."""
        last = time.monotonic()
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._work.window:
                    self._launch(self._waiting.pop())
                done = wait(self._running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done
                fresh = [
                    each
                    for future in (done or list(self._running))
                    for each in self._collected(future)
                ]
                if fresh:
                    last = time.monotonic()
                    yield fresh
                elif self._work.idle is not None:
                    self._work.idle(time.monotonic() - last)
        finally:
            for future in self._running:
                with contextlib.suppress(NotImplementedError):  # Parsl's cannot
                    future.cancel()

    def _launch(self, members: list[int]) -> None:
        path, hashes = "", [""] * len(members)
        if self._journals is not None:
            path = str(self._journals.folder / f"{uuid.uuid4().hex}{journal.SUFFIX}")
            hashes = [self._journals.hashes[i] for i in members]
        chosen = [self._structures[i] for i in members]
        task = Task(
            self._labeler, chosen, hashes, path, self._together, self._work.bounds, tuple(sys.path)
        )
        self._running[self._work.submit(task)] = _Running(members, path)

    def _collected(self, future: Future) -> list[tuple[int, Answer]]:
        """What a task has newly finished; where it has ended, all that it gave."""
        part = self._running[future]
        if not future.done():
            return self._first(self._written(part))
        del self._running[future]
        try:
            return self._first(zip(part.members, future.result(), strict=True))
        except self._work.lost as error:
            fresh = self._first(self._written(part))
            left = [i for i in part.members if i in self._open]
            return fresh + self._first(self._taken_up(left, part, error))

    def _written(self, part: _Running) -> list[tuple[int, Answer]]:
        """What has come into a task's journal since it was last read."""
        if not part.journal:
            return []
        records, end = journal.read(Path(part.journal), self._read.get(part.journal, 0))
        self._read[part.journal] = end
        return [(self._place(hash_, part.members), answer) for hash_, answer in records]

    def _first(self, answers: Iterable[tuple[int, Answer]]) -> list[tuple[int, Answer]]:
        """Those of structures that had no answer yet."""
        fresh = [(i, answer) for i, answer in dict(answers).items() if i in self._open]
        self._open -= {i for i, _ in fresh}
        return fresh

    def _place(self, hash_: str, members: list[int]) -> int:
        return next(i for i in self._places[hash_] if i in members)

    def _taken_up(
        self, left: list[int], part: _Running, error: BaseException
    ) -> list[tuple[int, Answer]]:
        """Send again what a lost worker left; a structure that was lost too often is a crash."""
        if not left:
            return []
        known = not self._together or len(part.members) == 1
        if not known:
            self._waiting.extend([i] for i in left)
            return []
        first, rest = left[0], left[1:]
        if rest:
            self._waiting.append(rest)
        self._losses[first] += 1
        if self._losses[first] < LOSSES:
            self._waiting.append([first])
            return []
        message = f"the worker that labeled it was lost {LOSSES} times"
        failure = LabelingFailed("crash", message, str(error)[-2000:])
        return [(first, Answer(failure, 0.0, socket.gethostname()))]


def pickled(labeler: Labeler) -> bytes:
    """The labeler as bytes; one that is defined in a script or a notebook travels by value."""
    try:
        return cloudpickle.dumps(labeler)
    except Exception as error:  # pickling raises whatever the object's own code does
        raise BadInput(
            f"the labeler cannot be sent to another process ({error}); use `executor: inline`"
        ) from None
