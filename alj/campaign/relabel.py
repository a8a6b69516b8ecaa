"""Second chances for failed labels of a run: new attempts beside the failures, with their own keys.

The failure stays in the ledger, so that the rounds that met it still end as they ended. A label
that comes out now stands beside it, says what it replaces, and joins the data of the next round.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from alj import registry
from alj.campaign.attempts import Replacement
from alj.campaign.config import override_one
from alj.campaign.executors import EXECUTORS
from alj.campaign.labels import Progress, content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.campaign.store import FolderStore, read_claim
from alj.labeling import build_labeler
from alj.types import FAILURE_KINDS, BadInput, Labeler, LabelingFailed

HOPELESS = ("bad_input",)
"""Kinds that are not tried again unless they are asked for: the same input is as bad again."""


class Relabeled(NamedTuple):
    """How many failures were tried again, and what became of them: labeled, or failed by kind."""

    tried: int
    labeled: int
    failures: dict[str, int]


def relabel(
    folder: str | Path,
    kinds: Collection[str] = (),
    overrides: Sequence[str] = (),
    on_label: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Relabeled:
    """Try the failed labels of the run in `folder` again, of the given kinds or of all but
    `HOPELESS`, with the run's labeler and executor after `overrides` (`labeler.KEY=VALUE`).

    Raises BadInput where the folder holds no run or is in use, for an unknown kind, and for
    overrides that concern anything else.
    """
    folder = Path(folder)
    for kind in kinds:
        if kind not in FAILURE_KINDS:
            raise BadInput(f"--kind: unknown kind{registry.suggest(kind, FAILURE_KINDS)}")
    config = read_claim(folder)["config"]
    if not config.get("labeler"):
        raise BadInput(f"{folder} has no labeler: it is a training, not a campaign")
    for override in overrides:
        if not override.startswith(("labeler.", "executor.")):
            raise BadInput(f"--set: expected labeler.KEY=… or executor.KEY=…, found {override}")
        config = override_one(config, override)
    labeler = build_labeler(config["labeler"])
    executor = registry.build(EXECUTORS, config["executor"], where="executor")
    mixed = bool(config["data"].get("mixed_engines"))
    with (
        contextlib.closing(executor),
        FolderStore(folder),
        Ledger(folder, mixed=mixed) as ledger,
    ):
        rows = [row for row in ledger.failures() if _wanted(row["kind"], kinds)]
        keys = {row["hash"]: _key(ledger, labeler, row) for row in rows}
        answers = label_all(
            executor, labeler, [row["structure"] for row in rows], ledger, on_label, on_note,
            keys=[keys[row["hash"]] for row in rows], replaces=[row["hash"] for row in rows],
        )  # fmt: skip
    failed = [answer.kind for answer in answers if isinstance(answer, LabelingFailed)]
    counts = {kind: failed.count(kind) for kind in sorted(set(failed))}
    return Relabeled(len(rows), len(rows) - len(failed), counts)


def joining(ledger: Ledger, joined: Collection[str]) -> list[Replacement]:
    """Labels that replace failures and are in no data yet."""
    return [one for one in ledger.replacements() if one.hash not in joined]


def _wanted(kind: str, kinds: Collection[str]) -> bool:
    return kind in kinds if kinds else kind not in HOPELESS


def _key(ledger: Ledger, labeler: Labeler, row: dict) -> str:
    """The key of the next attempt: of its settings where they changed, else of its number."""
    own = content_hash(labeler, row["structure"])
    number = ledger.attempts_to_replace(row["hash"])
    text = f"again {number} of {row['hash']} as {own}"
    return hashlib.sha256(text.encode()).hexdigest()
