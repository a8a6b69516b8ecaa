"""What one attempt at a label gave, and how attempts are made: no failure of a label is raised."""

import socket
import time
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from alj.types import BadInput, Labeler, LabelingFailed, Labels, Structure


class Answer(NamedTuple):
    """What one attempt at a label gave, where, how long it took (s), and its provenance."""

    result: Labels | LabelingFailed
    seconds: float
    host: str
    about: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def label_each(labeler: Labeler, structures: list[Structure]) -> Iterator[Answer]:
    """Label structures one after another.

    An exception that is not LabelingFailed becomes a `crash` with its traceback; BadInput (the
    engine is not installed, say) is raised, for it is not the structure's fault.
    """
    host = socket.gethostname()
    for structure in structures:
        start = time.perf_counter()
        result, about = _labeled(labeler, structure)
        yield Answer(result, time.perf_counter() - start, host, about)


def label_together(labeler: Labeler, structures: list[Structure]) -> Iterator[Answer]:
    """Label structures at once where the labeler can (`label_many`), else one after another.

    `label_many(structures)` returns Labels or LabelingFailed for each, `label_many_about` the same
    with provenance.
    """
    about_many = getattr(labeler, "label_many_about", None)
    many = getattr(labeler, "label_many", None)
    if (many is None and about_many is None) or len(structures) < 2:
        yield from label_each(labeler, structures)
        return
    start = time.perf_counter()
    try:
        if about_many is not None:
            results = about_many(structures)
        else:
            results = [(result, {}) for result in many(structures)]  # type: ignore[misc]
        results = [
            (_on_host(result), about)
            for _, (result, about) in zip(structures, results, strict=True)
        ]
    except BadInput:
        raise
    except Exception:  # let the one that is to blame be found
        yield from label_each(labeler, structures)
        return
    each = (time.perf_counter() - start) / len(structures)
    host = socket.gethostname()
    yield from (Answer(result, each, host, about) for result, about in results)


def together(labeler: Labeler) -> bool:
    """Whether the labeler has a way of its own to label several structures at once."""
    return hasattr(labeler, "label_many") or hasattr(labeler, "label_many_about")


def block_size(labeler: Labeler, at_least: int) -> int:
    """How many structures go together: as many as the labeler wants in one call of its program."""
    return max(at_least, getattr(labeler, "block", 1))


def _labeled(
    labeler: Labeler, structure: Structure
) -> tuple[Labels | LabelingFailed, dict[str, Any]]:
    documented = getattr(labeler, "label_about", None)
    try:
        labels, about = documented(structure) if documented else (labeler.label(structure), {})
        return _on_host(labels), about
    except LabelingFailed as failure:
        return failure, {}
    except BadInput:
        raise
    except MemoryError as error:
        return LabelingFailed("out_of_memory", str(error) or "out of memory"), {}
    except Exception as error:
        tail = traceback.format_exc()[-2000:]
        return LabelingFailed("crash", f"{type(error).__name__}: {error}", tail), {}


def _on_host(result: Labels | LabelingFailed) -> Labels | LabelingFailed:
    """Labels as float64 NumPy arrays."""
    if isinstance(result, LabelingFailed):
        return result
    fields: list[Any] = [np.asarray(field, np.float64) for field in result]
    return Labels(*fields)
