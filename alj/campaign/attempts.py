"""What a ledger holds: attempts at labels, what replaced failures, and where labels come from."""

import hashlib
import json
from typing import Any, NamedTuple

from alj.types import LabelingFailed, Labels, Structure


class Attempt(NamedTuple):
    """One try at a label. `answer` is the labels or the failure; times in seconds.

    `about` is its provenance as plain values; `convention` says whose energies these are;
    `replaces` is the hash of the failure that it makes good, or "".
    """

    hash: str
    structure: Structure
    answer: Labels | LabelingFailed
    engine: str
    settings: dict[str, Any]
    version: str = ""
    host: str = ""
    seconds: float = 0.0
    about: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    convention: str = ""
    replaces: str = ""


class Replacement(NamedTuple):
    """A label that made a failure good, and whose it is."""

    hash: str
    structure: Structure
    labels: Labels
    convention: str


PROVENANCE = (
    "version",
    "settings",
    "host",
    "seconds",
    "multiplicity",
    "fallback",
    "tries",
)
"""What is told of where a label comes from, beside its convention."""


def settings_mark(settings: dict[str, Any]) -> str:
    """Settings of a labeler in twelve characters, the first of which is a letter."""
    text = json.dumps(settings, sort_keys=True).encode()
    return f"s{hashlib.sha256(text).hexdigest()[:11]}"
