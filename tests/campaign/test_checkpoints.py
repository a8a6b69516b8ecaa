"""Checkpoints inside a training: resumed from any of them, it reaches the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from campaign.tiny import labeled, trained

from alj import registry
from alj.campaign import checkpoints, datasets
from alj.campaign.checkpoints import Checkpoint
from alj.campaign.store import FolderStore
from alj.training import TRAINERS
from alj.training.fitting import fit
from alj.types import BadInput

STEPS = 12
SPECS = [
    {"name": "levenberg_marquardt", "steps": STEPS, "members": 2},
    {"name": "gradient", "epochs": STEPS, "members": 2, "batch_size": 8, "patience": 3},
]


class Killed(BaseException):
    pass


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", -1.0)
    with FolderStore(tmp_path) as opened:
        yield opened


def fitted_by(trainer, checkpoint, *, killed_after=None):
    potential, _ = trained()
    data = labeled(12)
    seen = []

    def on_block(done, state, info):
        checkpoint.on_block(done, state, info)
        seen.append(done)
        if done == killed_after:
            raise Killed

    result = fit(
        jax.random.key(4), trainer, potential, None,
        datasets.batches(data, potential.cutoff), datasets.count(data),
        block=2, on_block=on_block, resume=checkpoint.resume(),
    )  # fmt: skip
    return result, seen


@pytest.mark.parametrize(
    "spec",
    [SPECS[0], pytest.param(SPECS[1], marks=pytest.mark.slow)],
    ids=lambda spec: spec["name"],
)
def test_resumed_from_any_checkpoint_the_bits_are_the_same(store, spec):
    trainer = registry.build(TRAINERS, spec, trained()[0])
    whole, blocks = fitted_by(trainer, Checkpoint(store, "whole", steps=STEPS))
    for killed_after in blocks[:-1]:
        name = f"killed-{killed_after}"
        with pytest.raises(Killed):
            fitted_by(trainer, Checkpoint(store, name, steps=STEPS), killed_after=killed_after)
        again = Checkpoint(store, name, steps=STEPS)
        result, seen = fitted_by(trainer, again)
        assert seen[0] == killed_after + 2
        assert result.steps == whole.steps
        assert result.best == whole.best
        for ours, theirs in zip(
            jax.tree.leaves((result.params, result.history.train_loss[-1])),
            jax.tree.leaves((whole.params, whole.history.train_loss[-1])),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
        again.forget()
        assert Checkpoint(store, name, steps=STEPS).resume() is None


def test_the_last_state_and_one_about_something_else_are_not_resumed(store):
    info = None
    checkpoint = Checkpoint(store, "x", steps=4, about="these labels")
    checkpoint.on_block(2, {"a": jnp.arange(3.0)}, info)
    done, leaves = Checkpoint(store, "x", steps=4, about="these labels").resume()
    assert done == 2
    np.testing.assert_array_equal(leaves[0], np.arange(3.0))
    checkpoint.on_block(4, {"a": jnp.zeros(3)}, info)
    assert Checkpoint(store, "x", steps=4, about="these labels").resume()[0] == 2
    assert Checkpoint(store, "x", steps=4, about="other labels").resume() is None


def test_history_goes_on_and_time_decides(store, monkeypatch):
    def summarize(info):
        return {"value": np.asarray(info)}

    checkpoint = Checkpoint(store, "x", steps=9, summarize=summarize)
    checkpoint.on_block(1, (), 10.0)
    rarely = Checkpoint(store, "x", steps=9, seconds=1000.0, summarize=summarize)
    rarely.on_block(2, (), 20.0)
    assert [float(block["value"]) for block in rarely.history] == [10.0, 20.0]
    assert Checkpoint(store, "x", steps=9).resume()[0] == 1


def test_leaves_that_do_not_fit_are_refused():
    trainer = registry.build(TRAINERS, SPECS[0], trained()[0])
    potential, data = trained()[0], labeled(12)
    batches = datasets.batches(data, potential.cutoff)
    with pytest.raises(BadInput, match="checkpoint"):
        fit(
            jax.random.key(4), trainer, potential, None, batches, datasets.count(data),
            resume=(1, [np.zeros(3)]),
        )  # fmt: skip
