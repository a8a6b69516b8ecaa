"""What happens in a run, one JSON object per line of `events.jsonl`; the monitor reads it live."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alj.campaign.store import disk_full_is_clear

NAME = "events.jsonl"


def append(folder: str | Path, event: dict[str, Any]) -> None:
    """Add one event; its `time` (unix seconds) is filled in. Raises DiskFull.

    Numbers that are not finite become null. A line that a crash left half-written is closed first.
    """
    path = Path(folder) / NAME
    line = json.dumps({"time": time.time(), **_plain(event)}, allow_nan=False) + "\n"
    with disk_full_is_clear(path), path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else "\n" + line
        _write(file, line.encode())


def read(folder: str | Path) -> list[dict[str, Any]]:
    """All whole events so far; none where there is no such file yet."""
    path = Path(folder) / NAME
    if not path.exists():
        return []
    return [event for line in path.read_bytes().splitlines() if (event := _parsed(line))]


def rounds_told(folder: str | Path) -> frozenset[int]:
    """The rounds of which a `round` event was written."""
    return frozenset(event["round"] for event in read(folder) if event["event"] == "round")


def follow(
    folder: str | Path, stop: Callable[[], bool], *, interval_seconds: float = 0.5
) -> Iterator[dict[str, Any]]:
    """Events from the beginning on, as they come, until `stop()` is true and all were given."""
    path, position = Path(folder) / NAME, 0
    while True:
        last = stop()
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    position += len(line)
                    if event := _parsed(line):
                        yield event
        if last:
            return
        time.sleep(interval_seconds)


def _write(file: BinaryIO, data: bytes) -> None:
    """Every event goes through here; on return the system has it, and a kill loses nothing."""
    file.write(data)
    file.flush()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _plain(value: Any) -> Any:
    """Arrays as lists, tuples as lists, what is not finite as None, anything else as text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
