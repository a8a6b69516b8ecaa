"""Labels of structures that are sure to be chosen, computed while the round's other walkers run.

What comes out only goes into the journals, where the round's labeling finds it. Labels depend on
their structures alone, so timing changes nothing but the time.
"""

import contextlib
import queue
import threading

from alj.campaign.executors import Executor, Journals, journal
from alj.campaign.labels import JOURNALS, content_hash, host_structure
from alj.campaign.ledger import Ledger
from alj.types import BadInput, Labeler, Structure


class Ahead:
    """Labels what it is given, in a thread, where the executor works in the background."""

    def __init__(self, executor: Executor, labeler: Labeler, ledger: Ledger):
        self._executor, self._labeler, self._ledger = executor, labeler, ledger
        self._folder = ledger.path.parent / JOURNALS
        self._given: set[str] = set()
        self._queue: queue.SimpleQueue[dict[str, Structure] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, structures: list[Structure]) -> None:
        """Begin with the labels of these, except for those that are known."""
        if not self._executor.in_background or not structures:
            return
        hosted = [host_structure(structure) for structure in structures]
        wanted = {content_hash(self._labeler, structure): structure for structure in hosted}
        known = {*self._given, *self._ledger.find(list(wanted)), *journal.harvest(self._folder)}
        new = {hash_: structure for hash_, structure in wanted.items() if hash_ not in known}
        self._given |= set(new)
        if not new:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="labels ahead", daemon=True)
            self._thread.start()
        self._queue.put(new)

    def wait(self) -> None:
        """Until nothing is under way any more; the executor is free then."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _work(self) -> None:
        # what goes wrong here does so again when the round asks for its labels, and is told there
        with contextlib.suppress(BadInput, OSError):
            while (part := self._queue.get()) is not None:
                journals = Journals(self._folder, list(part))
                for _ in self._executor.run(self._labeler, list(part.values()), journals):
                    pass
