"""The ledger of a run as a viewer reads it: without a lock, without JAX, one row at a time.

Structures lie in it as trees (`campaign/trees.py`): a magic line, a checksum, a JSON line, then
the bytes of arrays. Of these a viewer needs dictionaries of NumPy arrays and nothing else.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alj.monitor.folders import Damaged

_MAGIC = b"alj tree 1\n"
_LIFE = ("status", "kind", "message", "log_tail", "engine", "version", "host", "seconds", "time")
_STANDING = "status = 'failed' and attempt = (select max(attempt) from labels where hash = l.hash)"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """The ledger, read only; None where there is none yet. Raises Damaged."""
    path = folder / "ledger.sqlite"
    if not path.is_file():
        yield None
        return
    try:
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        with contextlib.closing(base):
            base.row_factory = sqlite3.Row
            base.text_factory = lambda data: data.decode("utf-8", "replace")
            yield base
    except sqlite3.Error:
        raise Damaged("ledger.sqlite cannot be read") from None


def life_of(base: sqlite3.Connection, hash_: str) -> dict[str, Any]:
    """What became of a structure: when it was proposed, and every attempt to label it."""
    proposed = base.execute(
        "select round, place, origin, score, model, kept, why, time from structures "
        "where hash = ? order by time limit 50",
        (hash_,),
    ).fetchall()
    attempts = base.execute(
        "select * from labels where hash = ? order by attempt limit 50", (hash_,)
    ).fetchall()
    told = []
    for row in attempts:
        names = row.keys()
        one = {name: row[name] for name in _LIFE}
        one |= {"attempt": row["attempt"] + 1}
        for name in ("convention", "replaces"):
            one[name] = row[name] if name in names else None
        one["about"] = _parsed(row["about"]) if "about" in names else {}
        if row["labels"] is not None:
            one |= _energy(row["labels"])
        told.append(one)
    return {"hash": hash_, "proposed": [dict(row) for row in proposed], "attempts": told}


def failures(base: sqlite3.Connection, most: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The newest labels whose last attempt failed and that nothing replaced; counts by kind."""
    standing = _STANDING
    if "replaces" in {row["name"] for row in base.execute("pragma table_info(labels)")}:
        standing += (
            " and replaces is null and hash not in (select replaces from labels "
            "where replaces not null and status = 'ok')"
        )
    counts = base.execute(
        f"select kind, count(*) as number from labels as l where {standing} group by kind"
    ).fetchall()
    rows = base.execute(
        "select hash, kind, message, log_tail, attempt + 1 as attempts, engine, host, seconds, "
        f"time, structure from labels as l where {standing} order by time desc limit ?",
        (most,),
    ).fetchall()
    found = []
    for row in rows:
        one = {name: row[name] for name in row.keys() if name != "structure"}  # noqa: SIM118
        with contextlib.suppress(Damaged):
            tree = decoded(row["structure"])
            one["structure"] = {name: tree[name] for name in ("species", "positions", "cell")}
        found.append(one)
    return found, {str(row["kind"]): row["number"] for row in counts}


def errors_before_learning(base: sqlite3.Connection) -> dict[int, list[float]]:
    """Of each round |predicted - labeled| of what was chosen, eV/atom, before it was learned."""
    found: dict[int, list[float]] = {}
    rows = base.execute(
        "select round, score from structures where round >= 0 and score is not null"
    )
    for row in rows:
        found.setdefault(row["round"], []).append(row["score"])
    return found


def seconds_of_labels(base: sqlite3.Connection) -> dict[str, float]:
    """Time that labels took, in all attempts: seconds by engine."""
    rows = base.execute("select engine, sum(seconds) as spent from labels group by engine")
    return {str(row["engine"]): float(row["spent"] or 0.0) for row in rows}


def decoded(data: bytes | None) -> dict[str, Any]:
    """A stored NamedTuple as a dictionary of arrays and plain values. Raises Damaged."""
    data = bytes(data or b"")
    start = len(_MAGIC) + 65
    content = data[start:]
    digest = data[len(_MAGIC) : start - 1]
    if not data.startswith(_MAGIC) or hashlib.sha256(content).hexdigest().encode() != digest:
        raise Damaged("ledger.sqlite holds a structure that is damaged")
    head, _, rest = content.partition(b"\n")
    position = 0

    def build(node: dict[str, Any]) -> Any:
        nonlocal position
        kind = next(iter(node))
        if kind == "value":
            return node["value"]
        if kind in ("named", "dict"):
            parts = node["fields"] if kind == "named" else node["dict"]
            return {name: build(part) for name, part in parts.items()}
        if kind in ("list", "tuple"):
            return [build(part) for part in node[kind]]
        dtype = np.dtype(node[kind])
        size = int(np.prod(node["shape"], dtype=int))
        array = np.frombuffer(rest, dtype, size, position).reshape(node["shape"])
        position += array.nbytes
        return array

    try:
        return build(json.loads(head))
    except (KeyError, TypeError, ValueError, StopIteration):
        raise Damaged("ledger.sqlite holds a structure of another version") from None


def _energy(labels: bytes) -> dict[str, Any]:
    try:
        tree = decoded(labels)
        forces = np.asarray(tree["forces"], float)
        largest = float(np.max(np.linalg.norm(forces, axis=-1))) if forces.size else None
        return {"energy_eV": float(tree["energy"]), "largest_force_eV_per_A": largest}
    except (Damaged, KeyError, TypeError, ValueError):
        return {}


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
