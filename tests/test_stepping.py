"""The driver: one path whatever the blocks, replay on overflow, no retrace for new parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alj.stepping import batched, run
from alj.types import Context, Stepper

TRACES = []


def random_walk(reach_per_slot=1.0, largest=10**6):
    """A walk that needs a table with more slots the further it gets."""

    def init(key, start, context):
        return {"x": start, "table": jnp.zeros(2), "full": jnp.asarray(False)}

    def step(key, state, context):
        TRACES.append(1)
        x = state["x"] + context.params * jax.random.normal(key, ())
        full = state["full"] | (jnp.abs(x) > reach_per_slot * state["table"].shape[-1])
        return {**state, "x": x, "full": full}, x

    def grow(state):
        size = min(2 * state["table"].shape[-1], largest)
        lead = state["table"].shape[:-1]
        return {**state, "table": jnp.zeros((*lead, size)), "full": jnp.zeros(lead, bool)}

    return Stepper(init, step, lambda state: state["full"], grow)


ROOMY = random_walk(reach_per_slot=1e9)
TIGHT = random_walk()
CONTEXT = Context(params=jnp.asarray(1.0))
START = jnp.asarray(0.5)


def path(stepper, **how):
    state = stepper.init(jax.random.key(1), START, CONTEXT)
    return run(stepper, jax.random.key(0), state, CONTEXT, **how)


@pytest.mark.parametrize("block", [None, 1, 5, 12, 100])
def test_blocks_of_any_size_give_the_same_path(block):
    whole_state, whole = path(ROOMY, steps=12)
    state, infos = path(ROOMY, steps=12, block=block)
    np.testing.assert_array_equal(infos, whole)
    np.testing.assert_array_equal(state["x"], whole_state["x"])


def test_a_run_resumed_from_a_kept_state_follows_the_same_path():
    _, whole = path(ROOMY, steps=12)
    kept = {}
    path(ROOMY, steps=5, block=5, on_block=lambda done, state, info: kept.update({done: state}))
    _, rest = run(ROOMY, jax.random.key(0), kept[5], CONTEXT, steps=7, start=5)
    np.testing.assert_array_equal(rest, whole[5:])


def test_an_overflow_is_replayed_with_the_same_keys():
    state, infos = path(TIGHT, steps=12, block=4)
    assert np.abs(infos).max() > 2.0  # it did overflow
    assert state["table"].shape[0] > 2
    np.testing.assert_array_equal(infos, path(ROOMY, steps=12)[1])


def test_growing_without_end_is_reported():
    hopeless = random_walk(largest=2, reach_per_slot=1e-9)
    with pytest.raises(RuntimeError, match="still overflows"):
        path(hopeless, steps=4)


def test_a_true_answer_ends_the_run():
    seen = []

    def stop(done, state, info):
        seen.append(done)
        return done >= 8

    _, infos = path(ROOMY, steps=12, block=4, on_block=stop)
    assert seen == [4, 8]
    assert len(infos) == 8


def test_no_steps_are_no_infos():
    state, infos = path(ROOMY, steps=0)
    assert infos is None
    assert float(state["x"]) == 0.5


def test_new_parameters_do_not_retrace():
    path(ROOMY, steps=12)
    before = len(TRACES)
    other = CONTEXT._replace(params=jnp.asarray(2.0))
    state = ROOMY.init(jax.random.key(1), START, other)
    _, infos = run(ROOMY, jax.random.key(0), state, other, steps=12)
    assert len(TRACES) == before
    _, first = path(ROOMY, steps=12)
    np.testing.assert_allclose(infos - 0.5, 2 * (first - 0.5), rtol=1e-12)


def test_many_states_walk_apart_and_grow_together():
    many = batched(TIGHT)
    starts = jnp.asarray([0.0, 0.0, 1.0])
    states = many.init(jax.random.key(1), starts, CONTEXT)
    after, infos = run(many, jax.random.key(0), states, CONTEXT, steps=12, block=4)
    assert infos.shape == (12, 3)
    assert len(np.unique(infos[0])) == 3
    assert after["table"].shape[0] == 3
    assert np.abs(infos).max() <= after["table"].shape[1]
    _, again = run(many, jax.random.key(0), states, CONTEXT, steps=12)
    np.testing.assert_array_equal(infos, again)
