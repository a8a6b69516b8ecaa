"""The ledger: attempts are remembered, the last one counts, damage and a full disk are clear."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alj.campaign.attempts import Attempt
from alj.campaign.ledger import NAME, Ledger
from alj.campaign.reading import empty_labels
from alj.campaign.store import DiskFull
from alj.types import BadInput, LabelingFailed, Structure

STRUCTURE = Structure(
    np.zeros((1, 3)), np.array([8], np.int32), np.zeros((3, 3)), np.int32(0), np.int32(0)
)
LABELS = empty_labels(1)._replace(energy=np.array(-1.5), forces=np.array([[1 / 3, 0.0, -0.1]]))


def attempt(name: str, answer) -> Attempt:
    return Attempt(name, STRUCTURE, answer, "engine", {"accuracy": 1e-3}, "engine 1", "here", 0.5)


def test_the_last_attempt_counts(tmp_path):
    failure = LabelingFailed("not_converged", "no luck", "tail")
    with Ledger(tmp_path) as ledger:
        ledger.add([attempt("a", LABELS), attempt("b", failure)])
    with Ledger(tmp_path) as ledger:
        found = ledger.find(["b", "a", "c", "a"])
        assert set(found) == {"a", "b"}
        assert np.array_equal(found["a"].forces, LABELS.forces)
        assert np.isnan(found["a"].stress).all()
        assert (found["b"].kind, found["b"].message, found["b"].log_tail) == (
            failure.kind,
            failure.message,
            failure.log_tail,
        )
        (row,) = ledger.failures()
        assert (row["hash"], row["kind"], row["attempts"]) == ("b", "not_converged", 1)
        assert np.array_equal(row["structure"].species, [8])
        ledger.add([attempt("b", LABELS)])
        assert ledger.failures() == []
        counts = ledger.counts()
        assert (counts["labeled"], counts["failed"], counts["attempts"]) == (2, 0, 3)


def test_recording_a_round_again_leaves_no_second_copy(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.record(0, ["a"], origins=["boot"])
        ledger.record(1, ["b", "c", "d"])
        ledger.record(
            1,
            ["b", "c"],
            origins=["walk 1", "walk 2"],
            scores=[0.25, np.nan],
            model="001",
            kept=[True, False],
            why=["wrong by 3 meV", "right"],
        )
        first, second = ledger.structures(1)
        assert (first["hash"], first["origin"], first["score"], first["kept"]) == (
            "b",
            "walk 1",
            0.25,
            1,
        )
        assert second["score"] is None
        assert len(ledger.structures()) == 3
        counts = ledger.counts()
        assert (counts["proposed"], counts["kept"], counts["dropped"]) == (3, 1, 1)


def test_a_transaction_is_all_or_nothing(tmp_path):
    broken = attempt("b", LABELS)._replace(settings={"x": object()})
    with Ledger(tmp_path) as ledger:
        with pytest.raises(TypeError):
            ledger.add([attempt("a", LABELS), broken])
        assert ledger.find(["a", "b"]) == {}


def test_damage_is_one_clear_line(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.add([attempt(str(i), LABELS) for i in range(50)])
    path = tmp_path / NAME
    whole = path.read_bytes()
    for cut in (whole[:100], whole[: len(whole) // 2], b"x" * 100 + whole[100:]):
        path.write_bytes(cut)
        with pytest.raises(BadInput, match=r"ledger\.sqlite is damaged") as caught:
            Ledger(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_label_that_changed_on_disk_is_not_believed(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.add([attempt("a", LABELS)])
    base = sqlite3.connect(tmp_path / NAME)
    (data,) = base.execute("select labels from labels").fetchone()
    base.execute("update labels set labels = ?", (data[:-1] + bytes([data[-1] ^ 1]),))
    base.commit()
    base.close()
    with Ledger(tmp_path) as ledger, pytest.raises(BadInput, match="damaged"):
        ledger.find(["a"])


def test_a_full_disk_is_clear_and_loses_nothing(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.add([attempt("a", LABELS)])
        pages = ledger._base.execute("pragma page_count").fetchone()[0]
        ledger._base.execute(f"pragma max_page_count = {pages}")
        with pytest.raises(DiskFull, match="no space left"):
            ledger.add([attempt(str(i), LABELS) for i in range(200)])
        ledger._base.execute("pragma max_page_count = 100000")
        assert set(ledger.find(["a", "0"])) == {"a"}
        ledger.add([attempt("b", LABELS)])


def test_reading_needs_a_run_folder(tmp_path):
    with pytest.raises(BadInput, match="not a run folder"):
        Ledger(tmp_path, read_only=True)
    Ledger(tmp_path).close()
    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.counts()["attempts"] == 0


KILLS = """
import os, random, signal, sys, time
from campaign.test_ledger import LABELS, attempt
from alj.campaign.ledger import Ledger

folder, moments = sys.argv[1], random.Random(0)
for _ in range(40):
    heard, said = os.pipe()
    child = os.fork()  # before JAX has started any thread
    if child == 0:
        with Ledger(folder) as ledger:
            os.write(said, b"o")
            first = ledger.counts()["attempts"]
            for number in range(first, 10**6):
                ledger.add([attempt(str(number), LABELS)])
                os.write(said, b"x")
    assert os.read(heard, 1) == b"o"
    finished, enough = 0, moments.randrange(6)  # moments in labels: a busy machine writes few
    while finished < enough:
        finished += len(os.read(heard, 1))
    time.sleep(moments.uniform(0.0, 0.002))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(said)
    while part := os.read(heard, 65536):
        finished += len(part)
    os.close(heard)
    with Ledger(folder) as ledger:
        held = ledger.counts()["attempts"]
    print(finished, held, flush=True)
"""


def test_killed_at_any_moment_it_holds_every_finished_label(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, lines = 0, done.stdout.splitlines()
    for line in lines:
        finished, held = map(int, line.split())
        assert finished <= held - before <= finished + 1
        before = held
    assert len(lines) == 40
    assert before > 40
    with Ledger(tmp_path) as ledger:
        assert len(ledger.find([str(number) for number in range(before)])) == before
