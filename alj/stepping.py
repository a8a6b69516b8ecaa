"""The one driver: MD, Monte Carlo, nested sampling and trainers are all run by `run`.

The scan is compiled once per (stepper, block length, shapes). Parameters travel in the context, so
retraining never recompiles a sampler. Keys are folded in by step number, so a run cut into any
blocks, or resumed from a state that was kept, follows the same path.
"""

from collections.abc import Callable
from functools import partial
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

    The context is shared. `init` takes stacked starts and one key, split over the batch.
    """

    def init(key, starts, context):
        count = jax.tree.leaves(starts)[0].shape[0]
        return jax.vmap(stepper.init, (0, 0, None))(jax.random.split(key, count), starts, context)

    def step(key, states, context):
        count = jax.tree.leaves(states)[0].shape[0]
        return jax.vmap(stepper.step, (0, 0, None))(jax.random.split(key, count), states, context)

    def overflowed(states):
        return jnp.any(jax.vmap(stepper.overflowed)(states))

    return Stepper(init, step, stepper.overflowed and overflowed, stepper.grow)


_GROWTHS = 8


def _replayed(stepper, key, state, context, done, length):
    for _ in range(_GROWTHS):
        after, info = _advance(stepper, key, state, context, jnp.asarray(done), length)
        if stepper.overflowed is None or not bool(stepper.overflowed(after)):
            return after, info
        state = stepper.grow(state)
    raise RuntimeError(
        f"a neighbor table still overflows after {_GROWTHS} enlargements near step {done}: "
        "expected a finite density; the system has probably collapsed"
    )


@partial(jax.jit, static_argnums=(0, 5))
def _advance(stepper, key, state, context, done, length):
    def body(state, offset):
        return stepper.step(jax.random.fold_in(key, done + offset), state, context)

    return jax.lax.scan(body, state, jnp.arange(length))
