"""Executors: a worker may die, the others and their labels do not notice."""

import os
import pickle
import signal
import time

import pytest
from campaign.engines import Spring, point

from alj import registry
from alj.campaign.executors import EXECUTORS, LOSSES, Local, inline, local
from alj.types import BadInput, LabelingFailed


def test_executors_are_built_from_configurations():
    assert isinstance(registry.build(EXECUTORS, {"name": "local", "workers": 1}), Local)
    for spec in ({"name": "local", "workers": 0}, {"name": "inline", "labels_per_task": 0}):
        with pytest.raises(BadInput):
            registry.build(EXECUTORS, spec)


def test_inline_finishes_slow_engines_one_by_one(tmp_path):
    finished = list(inline().run(Spring(tmp_path), [point(1.0), point(2.0)]))
    assert [[index for index, _ in part] for part in finished] == [[0], [1]]


def test_killed_workers_take_nothing_along(tmp_path):
    """A structure that always kills is a crash; what died along with it is labeled."""
    xs = [1.0, -3.0, 2.0, 3.0, -1.0, 4.0]
    spring, executor = Spring(tmp_path), local(workers=2, labels_per_task=2)
    try:
        answers = {}
        for part in executor.run(spring, [point(x) for x in xs]):
            for index, answer in part:
                assert index not in answers
                answers[index] = answer.result
        assert sorted(answers) == list(range(len(xs)))
        for index, x in enumerate(xs):
            if x == -1:
                assert answers[index].kind == "not_converged"
            elif x == -3:
                assert answers[index].kind == "crash"
            else:
                assert answers[index].energy == x * x
        assert spring.calls().count(-3.0) == LOSSES + 1  # once among others, then alone

        workers = {pid for pool in executor._pools for pid in (pool._processes if pool else {})}
        for pid in workers:
            os.kill(pid, signal.SIGKILL)  # while idle
        time.sleep(0.2)
        (part,) = executor.run(spring, [point(7.0)])
        assert part[0][1].result.energy == 49.0
    finally:
        executor.close()


def test_a_labeler_that_cannot_travel_is_one_line():
    class Hidden(Spring):
        pass

    executor = local(workers=1)
    try:
        with pytest.raises(BadInput, match="cannot be sent to another process"):
            list(executor.run(Hidden("."), [point(1.0)]))
    finally:
        executor.close()


def test_failures_survive_the_way_back():
    failure = pickle.loads(pickle.dumps(LabelingFailed("timeout", "slow", "tail")))
    assert (failure.kind, failure.message, failure.log_tail) == ("timeout", "slow", "tail")
