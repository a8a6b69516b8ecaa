"""Journals of finished labels: what a worker has finished is on disk before anybody waits for it.

Each task has one file, written by one process, record after record. Whoever is killed, the records
before are whole; a torn one at the end is cut off. So the folder of journals, not the program that
carried the work out, is the record of truth, and a driver that comes back reads what it missed.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alj.campaign import trees
from alj.campaign.executors.answers import Answer
from alj.types import BadInput, LabelingFailed

_HEAD = struct.Struct("<qq")
"""Before each record: the length of its hash and of the rest, in bytes."""

SUFFIX = ".journal"


def append(path: Path, hash_: str, answer: Answer) -> None:
    """Add a record, behind the last whole one."""
    name, data = hash_.encode(), trees.encode(_plain(answer))
    with path.open("ab") as file:
        file.write(_HEAD.pack(len(name), len(data)) + name + data)


def mend(path: Path) -> None:
    """Cut off what a killed process left half-written, so that more can be appended."""
    if path.exists():
        _, end = read(path)
        with path.open("r+b") as file:
            file.truncate(end)


def read(path: Path, start: int = 0) -> tuple[list[tuple[str, Answer]], int]:
    """The records from byte `start` on, and where the last whole one ends."""
    found, end = [], start
    for hash_, data, behind in _records(path, start):
        try:
            found.append((hash_, _answer(trees.decode(data, str(path)))))
        except BadInput:
            break
        end = behind
    return found, end


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
        if all(hash_ in known for hash_, _, _ in _records(path, 0)):
            path.unlink(missing_ok=True)


def _records(path: Path, start: int) -> Iterator[tuple[str, bytes, int]]:
    """Hash and bytes of the whole records from byte `start` on, and where each ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return
    at = 0
    while at + _HEAD.size <= len(content):
        name, data = _HEAD.unpack_from(content, at)
        middle = at + _HEAD.size + name
        end = middle + data
        if min(name, data) < 0 or end > len(content):
            return
        yield content[at + _HEAD.size : middle].decode(), content[middle:end], start + end
        at = end


def _plain(answer: Answer) -> dict[str, Any]:
    result, seconds, host, about = answer
    failed = isinstance(result, LabelingFailed)
    record = {"failed": failed, "seconds": seconds, "host": host, "about": about}
    return {**record, "result": list(result.__reduce__()[1]) if failed else result}


def _answer(record: dict[str, Any]) -> Answer:
    result = LabelingFailed(*record["result"]) if record["failed"] else record["result"]
    return Answer(result, record["seconds"], record["host"], record["about"])
