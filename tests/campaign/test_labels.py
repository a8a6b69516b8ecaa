"""Labels by content: computed once, remembered whatever they say, given back in order."""

import contextlib
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from campaign.engines import Blocks, Spring, point

from alj.campaign import labels
from alj.campaign.executors import Answer, inline, journal, local
from alj.campaign.labels import JOURNALS, content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.types import BadInput, LabelingFailed


def test_the_hash_sees_everything_that_matters_and_nothing_else(tmp_path):
    spring, one = Spring(tmp_path), point(1.0)
    same = content_hash(spring, one)
    padded = one._replace(
        positions=np.pad(one.positions, ((0, 2), (0, 0))), species=np.pad(one.species, (0, 2))
    )
    assert content_hash(Blocks(tmp_path), padded) == same
    assert content_hash(spring, one._replace(cell=-0.0 * one.cell)) == same
    assert content_hash(spring, one._replace(positions=one.positions.astype(np.float32))) == same
    different = [
        content_hash(Spring(tmp_path, accuracy=1e-4), one),
        content_hash(spring, point(np.nextafter(1.0, 2.0))),
        content_hash(spring, point(1.0, charge=1)),
        content_hash(spring, one._replace(multiplicity=np.int32(3))),
        content_hash(spring, one._replace(species=np.array([1], np.int32))),
        content_hash(spring, one._replace(cell=np.eye(3))),
    ]
    assert len({same, *different}) == 7


@pytest.mark.parametrize("engine", [Spring, Blocks])
def test_every_label_once_in_order_with_failures(tmp_path, engine):
    spring = engine(tmp_path)
    xs = [3.0, -1.0, 2.0, 3.0, -2.0, -5.0, 2.0]
    progress = []
    with Ledger(tmp_path) as ledger:
        first = label_all(inline(), spring, [point(x) for x in xs], ledger, progress.append)
        calls = len(spring.calls())
        again = label_all(inline(), spring, [point(x) for x in [*xs, 5.0]], ledger)
        assert ledger.counts()["failures"] == {"crash": 1, "not_converged": 1, "out_of_memory": 1}
    assert progress[-1][:3] == (5, 5, 3)
    assert set(spring.calls()[calls:]) == {5.0}
    kinds = [a.kind if isinstance(a, LabelingFailed) else float(a.energy) for a in first]
    assert kinds == [9.0, "not_converged", 4.0, 9.0, "crash", "out_of_memory", 4.0]
    assert "ZeroDivisionError" in first[4].log_tail
    assert first[1].log_tail == again[1].log_tail == "the tail of a log"
    for one, other in zip(first, again, strict=False):
        if not isinstance(one, LabelingFailed):
            assert all(
                np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True)
            )


def test_the_infrastructure_is_given_another_chance(tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "PAUSES", (0.0, 0.01, 0.01))
    spring = Spring(tmp_path)
    with Ledger(tmp_path) as ledger:
        for _ in range(2):
            (answer,) = label_all(inline(), spring, [point(-6.0)], ledger)
            assert answer.kind == "infrastructure"
        assert ledger.counts()["attempts"] == 6


def test_a_kill_loses_nothing_that_was_finished(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from campaign.engines import Spring, point
        from alj.campaign.executors import inline
        from alj.campaign.labels import label_all
        from alj.campaign.ledger import Ledger
        with Ledger({str(tmp_path)!r}) as ledger:
            label_all(inline(), Spring({str(tmp_path)!r}),
                      [point(x) for x in (1.0, 2.0, -4.0, 3.0)], ledger)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    spring = Spring(tmp_path)
    assert spring.calls() == [1.0, 2.0, -4.0]
    subprocess.run(command, check=True, timeout=60)
    assert spring.calls() == [1.0, 2.0, -4.0, -4.0, 3.0]
    with Ledger(tmp_path) as ledger:
        assert ledger.counts()["attempts"] == 4


def test_what_workers_finished_while_nobody_waited_is_not_computed_again(tmp_path):
    """A journal that a killed driver left behind is read; one of other structures stays."""
    spring, folder = Spring(tmp_path), tmp_path / JOURNALS
    folder.mkdir()
    mine, other = content_hash(spring, point(3.0)), "of another structure"
    label = Answer(Spring(tmp_path).label(point(3.0)), 0.5, "elsewhere", {"tries": 2})
    journal.append(folder / f"a{journal.SUFFIX}", mine, label)
    journal.append(folder / f"b{journal.SUFFIX}", other, label)
    with Ledger(tmp_path) as ledger:
        answers = label_all(inline(), spring, [point(2.0), point(3.0)], ledger)
        assert ledger.counts()["attempts"] == 2
    assert [float(a.energy) for a in answers] == [4.0, 9.0]
    assert spring.calls() == [3.0, 2.0]  # the first one above
    assert list(journal.harvest(folder)) == [other]


def test_a_failure_that_is_tried_again_is_not_read_from_an_old_journal(tmp_path):
    spring, folder = Spring(tmp_path), tmp_path / JOURNALS
    with Ledger(tmp_path) as ledger:
        label_all(inline(), spring, [point(-1.0)], ledger)
        folder.mkdir(exist_ok=True)
        left = Answer(LabelingFailed("not_converged", "of a killed driver"), 0.5, "elsewhere")
        journal.append(folder / f"a{journal.SUFFIX}", content_hash(spring, point(-1.0)), left)
        (answer,) = label_all(inline(), spring, [point(-1.0)], ledger, again=["not_converged"])
    assert answer.message == "no luck"
    assert spring.calls() == [-1.0, -1.0]


def test_second_tries_join_in_an_order_of_their_own(tmp_path):
    """Whoever was labeled first."""
    spring, xs = Spring(tmp_path), [1.0, 2.0, 3.0]
    orders = []
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        (tmp_path / name).mkdir()
        with Ledger(tmp_path / name) as ledger:
            for i in order:
                label_all(
                    inline(), spring, [point(xs[i])], ledger, keys=[f"new {i}"], replaces=[f"{i}"]
                )
            orders.append([one.hash for one in ledger.replacements()])
    assert orders == [["new 0", "new 1", "new 2"]] * 2


def test_a_labeler_that_changes_the_folder_does_not_mislead_its_journal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executor = local(workers=1)
    with contextlib.closing(executor), Ledger(".") as ledger:
        answers = label_all(executor, Spring(tmp_path), [point(-13.0), point(2.0)], ledger)
    assert [float(answer.energy) for answer in answers] == [169.0, 4.0]


def test_a_ledger_refuses_labels_of_another_reference(tmp_path):
    """Unless it is told otherwise."""
    other = Spring(tmp_path)
    other.name = "another"
    with Ledger(tmp_path) as ledger:
        label_all(inline(), Spring(tmp_path), [point(1.0)], ledger)
        with pytest.raises(
            BadInput, match=r"labels of spring; labels of another must not be mixed"
        ):
            label_all(inline(), other, [point(2.0)], ledger)
    with Ledger(tmp_path) as ledger, pytest.raises(BadInput, match="mixed"):
        label_all(inline(), other, [point(2.0)], ledger)
    with Ledger(tmp_path, mixed=True) as ledger:
        label_all(inline(), other, [point(2.0)], ledger)
        assert sorted(ledger.conventions()) == ["another", "spring"]


@pytest.mark.slow
def test_the_driver_is_killed_and_nothing_finished_is_computed_twice(tmp_path, monkeypatch):
    """Workers write down what they finish before the driver knows."""
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from campaign.engines import Counted, point
        from alj.campaign.executors import local
        from alj.campaign.labels import label_all
        from alj.campaign.ledger import Ledger
        with Ledger({str(tmp_path)!r}) as ledger:
            executor = local(workers=2, labels_per_task=4)
            label_all(executor, Counted({str(tmp_path)!r}), [point(float(x)) for x in range(40)],
                      ledger)
            executor.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    finished = tmp_path / "finished.txt"
    for _ in range(2):
        with subprocess.Popen(command) as driver:
            before = finished.read_text().count("\n") if finished.exists() else 0
            while not finished.exists() or finished.read_text().count("\n") < before + 8:
                assert driver.poll() is None
                time.sleep(0.02)
            driver.kill()
        until = time.monotonic() + 20.0
        while list(scratch.iterdir()):  # until the workers have noticed and tidied up
            assert time.monotonic() < until
            time.sleep(0.1)
    subprocess.run(command, check=True, timeout=60)
    xs = [float(line) for line in finished.read_text().split()]
    assert sorted(xs) == [float(x) for x in range(40)]
    with Ledger(tmp_path) as ledger:
        assert ledger.counts()["attempts"] == 40
