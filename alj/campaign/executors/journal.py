"""Journals of finished labels: what a worker has finished is on disk before anybody waits for it.

Each task has one file, written by one process, record after record. Whoever is killed, the records
before are whole; a torn one at the end is cut off. So the folder of journals, not the program that
carried the work out, is the record of truth, and a driver that comes back reads what it missed.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alj.campaign import trees
from alj.campaign.executors.answers import Answer
from alj.types import BadInput, LabelingFailed

_LENGTH = struct.Struct("<q")
SUFFIX = ".journal"


def append(path: Path, hash_: str, answer: Answer) -> None:
    """Add a record, behind the last whole one."""
    data = trees.encode(_plain(hash_, answer))
    with path.open("ab") as file:
        file.write(_LENGTH.pack(len(data)) + data)


def mend(path: Path) -> None:
    """Cut off what a killed process left half-written, so that more can be appended."""
    if path.exists():
        _, end = read(path)
        with path.open("r+b") as file:
            file.truncate(end)


def read(path: Path, start: int = 0) -> tuple[list[tuple[str, Answer]], int]:
    """The records from byte `start` on, and where the last whole one ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    found, at = [], 0
    while at + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        end = at + _LENGTH.size + length
        if length <= 0 or end > len(content):
            break
        try:
            found.append(_answer(trees.decode(content[at + _LENGTH.size : end], str(path))))
        except BadInput:
            break
        at = end
    return found, start + at


def harvest(folder: Path) -> dict[str, Answer]:
    """Everything that journals in the folder hold, by hash."""
    found: dict[str, Answer] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        for hash_, answer in read(path)[0]:
            found.setdefault(hash_, answer)
    return found


def discard(folder: Path, known: Iterable[str]) -> None:
    """Delete the journals all of whose records are known elsewhere by now."""
    known = set(known)
    for path in folder.glob(f"*{SUFFIX}"):
        if all(hash_ in known for hash_, _ in read(path)[0]):
            path.unlink(missing_ok=True)


def _plain(hash_: str, answer: Answer) -> dict[str, Any]:
    result, seconds, host, about = answer
    failed = isinstance(result, LabelingFailed)
    record = {"hash": hash_, "failed": failed, "seconds": seconds, "host": host, "about": about}
    return {**record, "result": list(result.__reduce__()[1]) if failed else result}


def _answer(record: dict[str, Any]) -> tuple[str, Answer]:
    result = LabelingFailed(*record["result"]) if record["failed"] else record["result"]
    rest = (record["seconds"], record["host"], record["about"])
    return record["hash"], Answer(result, *rest)
