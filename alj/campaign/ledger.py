"""The ledger of a run: every structure proposed, every label paid for, every failure.

One SQLite file, one writer. A label's identity is a hash of its engine's settings and its
structure; attempts at it are numbered, so that a relabeling stands beside the failure that it
replaces. A ledger holds labels of one convention (engine, method, what its energy is), unless it is
told otherwise: numbers of two references are not one potential.
"""

import contextlib
import errno
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alj.campaign import trees
from alj.campaign.attempts import PROVENANCE, Attempt, Replacement, settings_mark
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
    about text, convention text, replaces text,
    primary key (hash, attempt)
);
create index if not exists labels_by_status on labels (status, kind);
pragma user_version = 2;
"""

_LATER = ("about", "convention", "replaces")
"""Columns of version 2."""

_LAST = "attempt = (select max(attempt) from labels where hash = l.hash)"
_STANDING = (
    "replaces is null and hash not in "
    "(select replaces from labels where replaces not null and status = 'ok')"
)


class Ledger:
    """Opens or creates the ledger in a run folder; a context manager.

    `mixed` allows labels of several conventions. Raises BadInput where the file is damaged,
    DiskFull where there is no space.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False, mixed: bool = False):
        self.path = Path(folder).absolute() / NAME
        self._mixed, self._known_convention = mixed, ""
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
                    self._complete()
                self._complete_now = set(_LATER) <= self._columns()
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

    def conventions(self) -> list[str]:
        """The conventions of the labels in it, the most frequent first."""
        if not self._complete_now:
            return []
        with self._clear_errors():
            rows = self._base.execute(
                "select convention from labels where status = 'ok' and convention != '' "
                "group by convention order by count(*) desc"
            ).fetchall()
        return [row[0] for row in rows]

    def _columns(self) -> set[str]:
        return {row[1] for row in self._base.execute("pragma table_info(labels)")}

    def _complete(self) -> None:
        """Columns that a ledger of an earlier version does not have."""
        for name in set(_LATER) - self._columns():
            self._base.execute(f"alter table labels add column {name} text")

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
        """Remember finished labels and failures, all or none, safely on disk on return.

        Raises BadInput where a label is of another convention than those that are here.
        """
        if not attempts:
            return
        self._check_conventions(attempts)
        with self._transaction():
            self._base.executemany(
                "insert into labels (hash, attempt, status, kind, message, log_tail, engine, "
                "settings, version, host, seconds, time, structure, labels, about, "
                "convention, replaces) values (?, (select coalesce(max(attempt), -1) + 1 from "
                "labels where hash = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(attempt) for attempt in attempts],
            )

    def _check_conventions(self, attempts: Sequence[Attempt]) -> None:
        good = [a for a in attempts if not isinstance(a.answer, LabelingFailed)]
        self.check_conventions({attempt.convention for attempt in good} - {""})

    def check_conventions(self, wanted: set[str]) -> None:
        """Raise BadInput where labels of other conventions are here already."""
        known = self._known_convention or next(iter(self.conventions()), "")
        self._known_convention = known or next(iter(wanted), "")
        strange = wanted - {self._known_convention}
        if strange and not self._mixed:
            raise BadInput(
                f"{self.path} holds labels of {self._known_convention}; labels of "
                f"{', '.join(sorted(strange))} must not be mixed with them: use another folder, or "
                "say so (`alj label --mixed`, in a configuration `data.mixed_engines: true`)"
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

    def provenance(self, hashes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Where each label comes from: version, settings (first digits of their hash), host,
        seconds, and what its engine says of it (multiplicity, fallback, tries, …)."""
        found = {}
        for hash_ in dict.fromkeys(hashes):
            with self._clear_errors():
                row = self._base.execute(
                    f"select version, settings, host, seconds, about, convention from labels as l "
                    f"where hash = ? and status = 'ok' and {_LAST}",
                    (hash_,),
                ).fetchone()
            if row is not None:
                version, settings, host, seconds, about, convention = row
                mark = settings_mark(json.loads(settings))
                told = {"version": version, "settings": mark, "host": host, "seconds": seconds}
                told |= json.loads(about or "{}")
                kept = {name: told[name] for name in PROVENANCE if name in told}
                found[hash_] = {"reference": convention or "", **kept}
        return found

    def failures(self) -> list[dict[str, Any]]:
        """Labels whose last attempt failed and that nothing has replaced; tries again are not
        failures of their own.

        hash, kind, message, log_tail, attempts, engine, host, seconds, time, structure.
        """
        names = ("hash", "kind", "message", "log_tail", "attempts", "engine", "host", "seconds")
        with self._clear_errors():
            rows = self._base.execute(
                "select hash, kind, message, log_tail, attempt + 1, engine, host, seconds, time, "
                f"structure from labels as l where status = 'failed' and {_LAST} and "
                f"{self._standing()} order by time, hash"
            ).fetchall()
        return [
            {
                **dict(zip((*names, "time"), row, strict=False)),
                "structure": self._decoded(row[0], row[-1]),
            }
            for row in rows
        ]

    def replacements(self) -> list[Replacement]:
        """Labels that made failures good, in an order that does not depend on when they came."""
        with self._clear_errors():
            rows = self._base.execute(
                "select hash, structure, labels, convention from labels as l where status = 'ok' "
                f"and {_LAST} and replaces not null order by replaces, hash"
            ).fetchall()
        return [
            Replacement(
                hash_, self._decoded(hash_, structure), self._decoded(hash_, labels), convention
            )
            for hash_, structure, labels, convention in rows
        ]

    def attempts_to_replace(self, hash_: str) -> int:
        """How often a failure was tried again."""
        with self._clear_errors():
            query = "select count(*) from labels where replaces = ?"
            return self._base.execute(query, (hash_,)).fetchone()[0]

    def counts(self) -> dict[str, Any]:
        """`proposed`, `kept`, `dropped` structures; `labeled`, `failed` labels, `attempts` in all,
        `failures` by kind. A failure that was made good does not count as one."""
        with self._clear_errors():
            proposed, kept, dropped = self._base.execute(
                "select count(*), coalesce(sum(kept = 1), 0), coalesce(sum(kept = 0), 0) "
                "from structures"
            ).fetchone()
            labeled = self._base.execute(
                f"select count(*) from labels as l where status = 'ok' and {_LAST}"
            ).fetchone()[0]
            attempts = self._base.execute("select count(*) from labels").fetchone()[0]
            failures = dict(
                self._base.execute(
                    f"select kind, count(*) from labels as l where status = 'failed' and {_LAST} "
                    f"and {self._standing()} group by kind order by kind"
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

    def _standing(self) -> str:
        """Condition on failures: that they are no second try, and that none has replaced them."""
        return _STANDING if self._complete_now else "1"

    def answers(self) -> Iterator[tuple[str, Structure, Labels | LabelingFailed]]:
        """Hash, structure and what the last attempt said, of everything that was ever asked."""
        with self._clear_errors():
            rows = self._base.execute(
                "select hash, structure, status, kind, message, log_tail, labels from labels as l "
                f"where {_LAST} order by time, hash"
            )
            for hash_, structure, *answer in rows:
                yield hash_, self._decoded(hash_, structure), self._answer(hash_, tuple(answer))

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
        json.dumps(attempt.about, sort_keys=True),
        attempt.convention,
        attempt.replaces or None,
    )
