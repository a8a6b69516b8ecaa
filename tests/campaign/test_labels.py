"""Labels by content: computed once, remembered whatever they say, given back in order."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from campaign.engines import Blocks, Spring, point

from alj.campaign.executors import inline
from alj.campaign.labels import content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.types import LabelingFailed


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
        first = label_all(
            inline(), spring, [point(x) for x in xs], ledger, lambda *p: progress.append(p)
        )
        calls = len(spring.calls())
        again = label_all(inline(), spring, [point(x) for x in [*xs, 5.0]], ledger)
        assert ledger.counts()["failures"] == {"crash": 1, "not_converged": 1, "out_of_memory": 1}
    assert progress[-1] == (5, 5)
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


def test_the_infrastructure_is_given_another_chance(tmp_path):
    spring = Spring(tmp_path)
    with Ledger(tmp_path) as ledger:
        for _ in range(2):
            (answer,) = label_all(inline(), spring, [point(-6.0)], ledger)
            assert answer.kind == "infrastructure"
        assert ledger.counts()["attempts"] == 2


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
