"""The one driver: MD, Monte Carlo, nested sampling and trainers are all run by `run`.

The scan is compiled once per (stepper, block length, shapes). Parameters travel in the context, so
retraining never recompiles a sampler. Keys are folded in by step number, so a run cut into any
blocks, or resumed from a state that was kept, follows the same path. Steppers of host code are
looped over with the same keys.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alj.types import Context, Key, Stepper


def run(
    stepper: Stepper,
    key: Key,
    state: Any,
    context: Context,
    *,
    steps: int,
    start: int = 0,
    block: int | None = None,
    on_block: Callable[[int, Any, Any], bool | None] | None = None,
) -> tuple[Any, Any]:
    """Advance `state` by `steps` and return it with the infos, stacked along a leading axis.

    `start` is the number of steps already behind `state` (resuming). After each block of `block`
    steps `on_block(steps_done, state, infos_of_the_block)` is called; a true answer ends the run.
    A block in which a table overflowed is replayed from its first state with larger tables and
    the same keys. Raises RuntimeError when growing does not help.
    """
    block = min(block or steps, steps) or 1
    infos, done = [], start
    while done < start + steps:
        length = min(block, start + steps - done)
        state, info = _replayed(stepper, key, state, context, done, length)
        infos.append(jax.device_get(info))
        done += length
        if on_block is not None and on_block(done, state, infos[-1]):
            break
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *infos) if infos else None


def batched(stepper: Stepper) -> Stepper:
    """The same stepper for many states at once: state, key and info gain a leading axis.

    The context is shared. `init` takes stacked starts and one key, split over the batch. Host
    steppers run in threads, one for each core.
    """
    every = _threaded if stepper.host else _vmapped

    def init(key, starts, context):
        return every(stepper.init, key, starts, context)

    def step(key, states, context):
        return every(stepper.step, key, states, context)

    def overflowed(states):
        assert stepper.overflowed is not None
        return jnp.any(jax.vmap(stepper.overflowed)(states))

    watched = overflowed if stepper.overflowed is not None else None
    return Stepper(init, step, watched, stepper.grow, stepper.host)


_GROWTHS = 8


def _count(tree) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


def _vmapped(function, key, states, context):
    keys = jax.random.split(key, _count(states))
    return jax.vmap(function, (0, 0, None))(keys, states, context)


def _threaded(function, key, states, context):
    keys = jax.random.split(key, _count(states))

    def one(i):
        return function(keys[i], jax.tree.map(lambda leaf: np.asarray(leaf)[i], states), context)

    results = list(_threads().map(one, range(_count(states))))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


@cache
def _threads() -> ThreadPoolExecutor:
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return ThreadPoolExecutor(len(usable(0)))


def _replayed(stepper, key, state, context, done, length):
    for _ in range(_GROWTHS):
        advance = _looped if stepper.host else _scanned
        after, info = advance(stepper, key, state, context, jnp.asarray(done), length)
        if stepper.overflowed is None or not bool(stepper.overflowed(after)):
            return after, info
        state = stepper.grow(state)
    raise RuntimeError(
        f"a neighbor table still overflows after {_GROWTHS} enlargements near step {done}: "
        "expected a finite density; the system has probably collapsed"
    )


@partial(jax.jit, static_argnums=(0, 5))
def _scanned(stepper, key, state, context, done, length):
    def body(state, offset):
        return stepper.step(jax.random.fold_in(key, done + offset), state, context)

    return jax.lax.scan(body, state, jnp.arange(length))


def _looped(stepper, key, state, context, done, length):
    infos = []
    for offset in range(length):
        state, info = stepper.step(jax.random.fold_in(key, done + offset), state, context)
        infos.append(info)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *infos)
