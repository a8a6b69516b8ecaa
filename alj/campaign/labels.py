"""Labels by content: nothing is ever computed twice, and nothing finished is ever lost."""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from alj.campaign.executors import Answer, Executor
from alj.campaign.ledger import Attempt, Ledger
from alj.types import Labeler, LabelingFailed, Labels, Structure


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


def label_all(
    executor: Executor,
    labeler: Labeler,
    structures: Sequence[Structure],
    ledger: Ledger,
    on_label: Callable[[int, int], None] | None = None,
) -> list[Labels | LabelingFailed]:
    """Labels or failures of `structures`, in their order, whatever the order of the answers.

    What the ledger knows is not computed again, failures included, except for those of the
    `infrastructure`; equal structures are labeled once. Each answer is in the ledger before the
    next ones are waited for. `on_label(done, total)` counts those that had to be computed.
    """
    hosted = [host_structure(structure) for structure in structures]
    hashes = [content_hash(labeler, structure) for structure in hosted]
    answers = ledger.find(hashes)
    first = {hash_: i for i, hash_ in reversed(list(enumerate(hashes)))}
    missing = sorted(i for hash_, i in first.items() if _open(answers.get(hash_)))
    done = 0
    for finished in executor.run(labeler, [hosted[i] for i in missing]):
        attempts = [
            _attempt(labeler, hashes[missing[k]], hosted[missing[k]], a) for k, a in finished
        ]
        ledger.add(attempts)
        answers |= {attempt.hash: attempt.answer for attempt in attempts}
        done += len(attempts)
        if on_label is not None:
            on_label(done, len(missing))
    return [answers[hash_] for hash_ in hashes]


def _open(answer: Labels | LabelingFailed | None) -> bool:
    lost = isinstance(answer, LabelingFailed) and answer.kind == "infrastructure"
    return answer is None or lost


def _attempt(labeler: Labeler, hash_: str, structure: Structure, answer: Answer) -> Attempt:
    result = answer.result
    if not isinstance(result, LabelingFailed):
        fields: list[Any] = [np.asarray(field, np.float64) for field in result]
        result = Labels(*fields)
    return Attempt(
        hash=hash_,
        structure=structure,
        answer=result,
        engine=labeler.name,
        settings=labeler.settings,
        version=getattr(labeler, "version", "") or _package_version(),
        host=answer.host,
        seconds=answer.seconds,
    )


def _package_version() -> str:
    try:
        return f"alj {version('alj')}"
    except PackageNotFoundError:
        return "alj"
