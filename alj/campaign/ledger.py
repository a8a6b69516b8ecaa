"""The ledger of a run: every structure proposed, every label paid for, every failure.

One SQLite file, one writer. A label's identity is a hash of its engine's settings and its
structure; attempts at it are numbered, so that a relabeling stands beside the failure that it
replaces.
"""

import contextlib
import errno
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alj.campaign import trees
from alj.campaign.store import DiskFull
from alj.types import BadInput, LabelingFailed, Labels, Structure

NAME = "ledger.sqlite"

_TABLES = """
create table if not exists structures (
    round integer not null, place integer not null, hash text not null, origin text,
    score real, model text, kept integer, why text, time real not null,
    primary key (round, place)
);
create index if not exists structures_by_hash on structures (hash);
create table if not exists labels (
    hash text not null, attempt integer not null, status text not null, kind text,
    message text, log_tail text, engine text not null, settings text not null, version text,
    host text, seconds real, time real not null, structure blob not null, labels blob,
    primary key (hash, attempt)
);
create index if not exists labels_by_status on labels (status, kind);
pragma user_version = 1;
"""


class Attempt(NamedTuple):
    """One try at a label. `answer` is the labels or the failure; times in seconds."""

    hash: str
    structure: Structure
    answer: Labels | LabelingFailed
    engine: str
    settings: dict[str, Any]
    version: str = ""
    host: str = ""
    seconds: float = 0.0


class Ledger:
    """Opens or creates the ledger in a run folder; a context manager.

    Raises BadInput where the file is damaged, DiskFull where there is no space.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False):
        self.path = Path(folder) / NAME
        if read_only and not self.path.exists():
            raise BadInput(
                f"{folder} has no {NAME}: it is not a run folder, or nothing has run yet"
            )
        with self._clear_errors():
            mode = "ro" if read_only else "rwc"
            self._base = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=30.0,
                isolation_level=None,
            )
            try:
                if self._base.execute("pragma quick_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("the check of the file fails")
                if not read_only:
                    # on network file systems a rollback journal works, a write-ahead log does not
                    self._base.execute("pragma journal_mode = delete")
                    self._base.execute("pragma synchronous = full")
                    self._base.executescript(_TABLES)
            except BaseException:
                self._base.close()
                raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._base.close()

    def record(
        self,
        round_: int,
        hashes: Sequence[str],
        *,
        origins: Sequence[str] | None = None,
        scores: Sequence[float] | None = None,
        model: str = "",
        kept: Sequence[bool | None] | None = None,
        why: Sequence[str] | None = None,
    ) -> None:
        """Who proposed the structures of a round, and what became of them, in one transaction.

        Recording a round again replaces what was said of it, so that a resumed round leaves no
        second copy. `scores` is the selector's uncertainty, `kept` None while undecided.
        """
        count, now = len(hashes), time.time()
        columns = (
            [round_] * count,
            range(count),
            hashes,
            origins or [None] * count,
            [None] * count if scores is None else [float(score) for score in scores],
            [model] * count,
            [None] * count if kept is None else [None if k is None else int(k) for k in kept],
            why or [None] * count,
            [now] * count,
        )
        with self._transaction():
            self._base.execute("delete from structures where round = ?", (round_,))
            self._base.executemany(
                "insert into structures values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                list(zip(*columns, strict=True)),
            )

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Remember finished labels and failures, all or none, safely on disk on return."""
        with self._transaction():
            for attempt in attempts:
                self._base.execute(
                    "insert into labels values (?, (select coalesce(max(attempt), -1) + 1 from "
                    "labels where hash = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    _row(attempt),
                )

    def find(self, hashes: Sequence[str]) -> dict[str, Labels | LabelingFailed]:
        """What the last attempt at each of these labels said, of those that were tried."""
        found: dict[str, Labels | LabelingFailed] = {}
        for hash_ in dict.fromkeys(hashes):
            with self._clear_errors():
                row = self._base.execute(
                    "select status, kind, message, log_tail, labels from labels where hash = ? "
                    "order by attempt desc limit 1",
                    (hash_,),
                ).fetchone()
            if row is not None:
                found[hash_] = self._answer(hash_, row)
        return found

    def failures(self) -> list[dict[str, Any]]:
        """Labels whose last attempt failed: hash, kind, message, log_tail, attempts, structure."""
        with self._clear_errors():
            rows = self._base.execute(
                "select hash, kind, message, log_tail, attempt + 1, structure from labels as l "
                "where status = 'failed' and attempt = "
                "(select max(attempt) from labels where hash = l.hash) order by time, hash"
            ).fetchall()
        names = ("hash", "kind", "message", "log_tail", "attempts")
        return [
            {**dict(zip(names, row, strict=False)), "structure": self._decoded(row[0], row[-1])}
            for row in rows
        ]

    def counts(self) -> dict[str, Any]:
        """`proposed`, `kept`, `dropped` structures; `labeled`, `failed` labels, `attempts` in all,
        `failures` by kind."""
        with self._clear_errors():
            proposed, kept, dropped = self._base.execute(
                "select count(*), coalesce(sum(kept = 1), 0), coalesce(sum(kept = 0), 0) "
                "from structures"
            ).fetchone()
            last = "attempt = (select max(attempt) from labels where hash = l.hash)"
            labeled = self._base.execute(
                f"select count(*) from labels as l where status = 'ok' and {last}"
            ).fetchone()[0]
            attempts = self._base.execute("select count(*) from labels").fetchone()[0]
            failures = dict(
                self._base.execute(
                    f"select kind, count(*) from labels as l where status = 'failed' and {last} "
                    "group by kind order by kind"
                ).fetchall()
            )
        return {
            "proposed": proposed,
            "kept": kept,
            "dropped": dropped,
            "labeled": labeled,
            "failed": sum(failures.values()),
            "attempts": attempts,
            "failures": failures,
        }

    def structures(self, round_: int | None = None) -> list[dict[str, Any]]:
        """The rows of the structures table, of one round or of all, in order."""
        chosen, arguments = ("", ()) if round_ is None else (" where round = ?", (round_,))
        with self._clear_errors():
            cursor = self._base.execute(
                f"select * from structures{chosen} order by round, place", arguments
            )
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _answer(self, hash_: str, row: tuple) -> Labels | LabelingFailed:
        status, kind, message, log_tail, labels = row
        if status == "failed":
            return LabelingFailed(kind, message, log_tail or "")
        return self._decoded(hash_, labels)

    def _decoded(self, hash_: str, data: bytes):
        return trees.decode(bytes(data or b""), f"{self.path}: label {hash_[:12]}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._clear_errors():
            self._base.execute("begin immediate")
            try:
                yield
                self._base.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._base.execute("rollback")
                raise

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """SQLite's errors as BadInput (damaged, unreadable) or DiskFull."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                raise DiskFull(
                    errno.ENOSPC,
                    f"no space left while writing {self.path} ({text}); nothing is lost: free "
                    "space and run again",
                ) from None
            if "locked" in text:
                raise BadInput(f"{self.path} is in use by another process; wait for it") from None
            raise BadInput(
                f"{self.path} is damaged or cannot be opened ({text}); restore it from a copy, or "
                "delete it and run again: labels are then computed afresh"
            ) from None


def _row(attempt: Attempt) -> tuple:
    answer = attempt.answer
    failed = isinstance(answer, LabelingFailed)
    reason = (answer.kind, answer.message, answer.log_tail) if failed else (None, None, None)
    return (
        attempt.hash,
        attempt.hash,
        "failed" if failed else "ok",
        *reason,
        attempt.engine,
        json.dumps(attempt.settings, sort_keys=True),
        attempt.version,
        attempt.host,
        attempt.seconds,
        time.time(),
        trees.encode(attempt.structure),
        None if failed else trees.encode(answer),
    )
