"""A run folder, opened: locked, claimed by its configuration, with events going into it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alj.campaign import events
from alj.campaign.labels import Progress, label_all
from alj.campaign.ledger import Ledger
from alj.campaign.plan import Plan
from alj.campaign.store import EXTENDABLE, FolderStore, claim
from alj.types import LabelingFailed, Labels, Structure


class RunFolder(NamedTuple):
    """A folder that this process owns.

    `emit` writes an event and hands it to whoever watches. `told` holds the rounds whose event an
    earlier process wrote: a `round` event is written once, whatever happens.
    """

    path: Path
    store: FolderStore
    emit: Callable[[dict[str, Any]], None]
    told: frozenset[int]


class Run(NamedTuple):
    """What the stages of one campaign share."""

    plan: Plan
    folder: Path
    store: FolderStore
    ledger: Ledger
    emit: Callable[[dict[str, Any]], None]
    told: frozenset[int]

    def labels(
        self,
        structures: list[Structure],
        on_label: Callable[[Progress], None] | None = None,
    ) -> list[Labels | LabelingFailed]:
        """Labels or failures of structures, as the plan has them computed, remembered for ever."""
        return label_all(
            self.plan.executor, self.plan.labeler, structures, self.ledger, on_label, self.note
        )

    def note(self, text: str) -> None:
        """Tell whoever watches."""
        self.emit({"event": "note", "text": text})


@contextlib.contextmanager
def run_folder(
    path: str | Path,
    config: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None] | None = None,
    *,
    extendable: tuple[str, ...] = EXTENDABLE,
    resolve: Callable[[dict], dict] | None = None,
) -> Iterator[RunFolder]:
    """Open or create the folder of a run of the resolved `config`; it is ours within the block.

    Raises BadInput where another process owns it, or where it belongs to a configuration that
    differs in more than the `extendable` keys once `resolve` has filled in the defaults of today;
    DiskFull where there is no space.
    """
    path = Path(path)

    def emit(event: dict[str, Any]) -> None:
        events.append(path, event)
        if on_event is not None:
            on_event({"time": time.time(), **event})

    with FolderStore(path) as store:
        claim(path, config, extendable=extendable, resolve=resolve)
        yield RunFolder(path, store, emit, events.rounds_told(path))
