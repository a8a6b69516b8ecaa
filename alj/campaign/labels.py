"""Labels by content: nothing is ever computed twice, and nothing finished is ever lost."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import jax
import numpy as np

from alj.campaign.attempts import Attempt
from alj.campaign.executors import Answer, Executor, Journals, journal
from alj.campaign.ledger import Ledger
from alj.campaign.references import convention_of
from alj.types import Labeler, LabelingFailed, Labels, Structure

PAUSES = (0.0, 1.0, 5.0)
"""Seconds before each attempt at a label that the infrastructure, not the structure, failed."""

JOURNALS = "labels"
"""The folder, beside the ledger, in which workers write down what they finish."""


def content_hash(labeler: Labeler, structure: Structure) -> str:
    """The identity of a label: engine, settings, species, positions, cell, charge, multiplicity.

    Positions and cell count as float64, to the last bit; padded atoms do not count.
    """
    one = host_structure(structure)
    settings = json.dumps([labeler.name, labeler.settings], sort_keys=True)
    digest = hashlib.sha256(settings.encode())
    for array in one:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def host_structure(structure: Structure) -> Structure:
    """A structure without padding, float64 and on the host; −0 becomes 0."""
    positions, species, cell, charge, multiplicity = jax.device_get(tuple(structure))
    real = np.asarray(species) > 0
    fields: dict[str, Any] = {
        "positions": np.asarray(positions, np.float64)[real] + 0.0,
        "species": np.asarray(species, np.int32)[real],
        "cell": np.asarray(cell, np.float64) + 0.0,
        "charge": np.asarray(charge, np.int32),
        "multiplicity": np.asarray(multiplicity, np.int32),
    }
    return Structure(**fields)


class Progress(NamedTuple):
    """How far the labels are that have to be computed: counts, and seconds since the beginning."""

    done: int
    total: int
    failed: int
    seconds: float

    @property
    def note(self) -> str:
        """Rate, failures and time left in a few words."""
        rate = self.done / self.seconds if self.seconds > 0 else 0.0
        failed = f", {self.failed} failed" if self.failed else ""
        if not self.done or self.done == self.total:
            return f"{rate:.3g} labels/s{failed}"
        left = (self.total - self.done) / rate
        return f"{rate:.3g} labels/s{failed}, about {left:.0f} s left"


def label_all(
    executor: Executor,
    labeler: Labeler,
    structures: Sequence[Structure],
    ledger: Ledger,
    on_label: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    *,
    again: Collection[str] = (),
    keys: Sequence[str] | None = None,
    replaces: Sequence[str] | None = None,
) -> list[Labels | LabelingFailed]:
    """Labels or failures of `structures`, in their order, whatever the order of the answers.

    What the ledger knows is not computed again, failures included, except for those of the
    `infrastructure`, which are tried three times; equal structures are labeled once. Each answer is
    in the ledger before the next ones are waited for; what workers finished while nobody waited is
    taken from their journals. `on_label` hears of the progress, `on_note` whatever else the user
    should know. Failures of the kinds in `again` are tried again. `keys` take the place of the
    content hashes, where a label is a second try at the failure in `replaces`.
    """
    hosted = [host_structure(structure) for structure in structures]
    hashes = list(keys or (content_hash(labeler, structure) for structure in hosted))
    known = ledger.find(hashes)
    answers = {h: answer for h, answer in known.items() if getattr(answer, "kind", "") not in again}
    first = {hash_: i for i, hash_ in reversed(list(enumerate(hashes)))}
    missing = sorted(i for hash_, i in first.items() if _open(answers.get(hash_)))

    def remember(finished: list[tuple[int, Answer]]) -> None:
        attempts = [
            _attempt(labeler, hashes[i], hosted[i], answer, replaces[i] if replaces else "")
            for i, answer in finished
        ]
        ledger.add(attempts)
        answers.update({attempt.hash: attempt.answer for attempt in attempts})

    if missing:
        ledger.check_conventions({convention_of(labeler)})
    folder = ledger.path.parent / JOURNALS
    journal.discard(folder, [hash_ for hash_, answer in known.items() if not _open(answer)])
    left_behind = journal.harvest(folder)
    remember([(i, left_behind[hashes[i]]) for i in missing if hashes[i] in left_behind])
    journal.discard(folder, answers)
    missing = [i for i in missing if _open(answers.get(hashes[i]))]
    watch = _Watch(len(missing), on_label)
    for pause in PAUSES:
        if not missing:
            break
        time.sleep(pause)
        journals = Journals(folder, [hashes[i] for i in missing])
        for finished in executor.run(labeler, [hosted[i] for i in missing], journals, on_note):
            remember([(missing[k], answer) for k, answer in finished])
            watch.count([answer.result for _, answer in finished])
        missing = [i for i in missing if _open(answers.get(hashes[i]))]
    journal.discard(folder, answers)
    return [answers[hash_] for hash_ in hashes]


class _Watch:
    """Counts labels as they come and tells how far they are; one tried again counts again."""

    def __init__(self, total: int, on_label: Callable[[Progress], None] | None):
        self.total, self.tell = total, on_label
        self.done, self.failed, self.begun = 0, 0, 0.0

    def count(self, results: list[Labels | LabelingFailed]) -> None:
        self.begun = self.begun or time.monotonic()  # not when processes began to start
        closed = [result for result in results if not _open(result)]
        self.done += len(closed)
        self.failed += sum(isinstance(result, LabelingFailed) for result in closed)
        if self.tell is not None:
            self.tell(Progress(self.done, self.total, self.failed, time.monotonic() - self.begun))


def _open(answer: Labels | LabelingFailed | None) -> bool:
    lost = isinstance(answer, LabelingFailed) and answer.kind == "infrastructure"
    return answer is None or lost


def _attempt(
    labeler: Labeler, hash_: str, structure: Structure, answer: Answer, replaces: str = ""
) -> Attempt:
    about = dict(answer.about)
    return Attempt(
        hash=hash_,
        structure=structure,
        answer=answer.result,
        engine=labeler.name,
        settings=labeler.settings,
        version=about.pop("version", None) or getattr(labeler, "version", "") or _package_version(),
        host=answer.host,
        seconds=answer.seconds,
        about=about,
        convention=about.pop("convention", None) or convention_of(labeler),
        replaces=replaces,
    )


@cache
def _package_version() -> str:
    try:
        return f"alj {version('alj')}"
    except PackageNotFoundError:
        return "alj"
