"""Fit a committee: all members in one program, split, tracked, resumable.

The compiled step depends on the trainer and on shapes only; data and masks travel in the context.
Retraining on more data of the same bucket therefore compiles nothing. Build the trainer once.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from alj.arrays import across_devices, bucket, split_named
from alj.stepping import run
from alj.training.batching import enlarged, in_precision, without_neighbors
from alj.training.descriptions import describe
from alj.training.losses import Emphasis
from alj.training.tracking import Fold, Progress
from alj.types import BadInput, Batch, Context, Key, Params, Potential, Stepper, Trainer

FEW = 10
"""Below this many structures all members train on all of them, and differ by their seeds."""


class Fitted(NamedTuple):
    """A trained committee.

    `params` of the best step of each member, with a leading member axis; `best` the member with the
    lowest loss on validation (on training where nothing validates); `loss` and `error` (eV/atom,
    eV/Å, eV/Å^3) of the members there; `force_mae` their mean absolute error of force components
    over training and validation together, eV/Å, NaN where forces are not fitted; `finite` is False
    for members that met a NaN; `train` (members, count) says what each was trained on; `history`
    (steps, members) holds the steps made in this call, None if there were none; `steps` were made
    in all.
    """

    params: Params
    best: int
    loss: Float[np.ndarray, " members"]
    error: Emphasis
    force_mae: Float[np.ndarray, " members"]
    finite: Bool[np.ndarray, " members"]
    train: Bool[np.ndarray, "members count"]
    history: Progress | None
    steps: int


class NotFinite(FloatingPointError):
    """A member's loss was never finite."""


def fit(
    key: Key,
    trainer: Trainer,
    potential: Potential,
    params: Params | None,
    batches: tuple[Batch, ...],
    count: int,
    *,
    on_block: Callable[[int, Any, Progress], bool | None] | None = None,
    resume: tuple[int, Any | list] | None = None,
    block: int | None = None,
    before: Bool[np.ndarray, " known"] | None = None,
) -> Fitted:
    """Train `trainer.members` members of `potential` on a data set of `count` structures.

    `params` (a leading member axis) are where "warm" members start; fresh ones, and all where they
    are None, are initialized and prepared on the data. `on_block(steps_done, state, progress)` is
    called after every `block` steps (default: ten times); a true answer ends the training;
    `resume=(steps_done, state)` goes on from there and reaches the same parameters bit by bit; a
    list stands for the leaves of the state, in order. `before` is the split of the best member so
    far, for splits that inherit it.

    Raises BadInput without data or where leaves do not fit; NotFinite, naming them, where members
    never had a finite loss.
    """
    if count < 1 or not batches:
        raise BadInput("training needs at least one labeled structure, found none")
    seed, begin, divide, learn = split_named(key, "seed", "begin", "divide", "learn")
    # Scoped: least squares and energy sums want float64 whatever the caller runs in.
    with jax.enable_x64(True):
        sized = tuple(enlarged(batch, smallest=_smallest(trainer)) for batch in batches)
        sized = tuple(
            batch._replace(structures=in_precision(batch.structures, trainer.precision))
            for batch in sized
        )
        train = np.asarray(_split(divide, trainer, count, before))
        fold = _fold(trainer, potential, sized, train)
        context = Context(data=fold)
        stepper = _together(trainer.stepper, trainer.params_of)

        def beginning():
            starts = _starts(seed, trainer, potential, params, sized)
            return _begin(stepper, begin, starts, context)

        done, state = (0, beginning()) if resume is None else resume
        if isinstance(state, list):
            state = _whole(jax.eval_shape(beginning), state)
        state, history = run(
            stepper,
            learn,
            state,
            context,
            steps=max(trainer.steps - done, 0),
            start=done,
            block=block or _block(trainer, on_block),
            on_block=_watch(on_block),
        )
        # What learned on several devices goes on in programs for one.
        state = jax.tree.map(jnp.asarray, jax.device_get(state))
        reached = done + (0 if history is None else len(history.pace))
        return _fitted(state, trainer, train, history, reached)


def _smallest(trainer):
    """Energies are cheap, compilations are not: small data sets share a bucket."""
    return 128 if trainer.quantities == ("energy",) else 8


def _split(key, trainer, count, before):
    if count < FEW:
        return np.ones((trainer.members, count), bool)
    return trainer.split(key, count, trainer.members, before)


def _fold(trainer, potential, batches, train) -> Fold:
    described = tuple(
        describe(potential, batch, trainer.quantities, trainer.descriptions) for batch in batches
    )
    places = sum(batch.index.shape[0] for batch in batches)
    places = max(places, bucket(train.shape[1]))
    labeled = _labeled(batches, trainer.quantities, places)[None]
    room = ((0, 0), (0, places - train.shape[1]))
    kept = tuple(
        batch if once is None else without_neighbors(batch)
        for batch, once in zip(batches, described, strict=True)
    )
    kept = jax.tree.map(jnp.asarray, kept)
    masks = [jnp.asarray(np.pad(mask, room) & labeled) for mask in (train, ~train)]
    return Fold(kept, described, *masks)


def _labeled(batches, quantities, places):
    """Which places of the data set have a label to learn from: others must not fill minibatches."""
    found = np.zeros(places, bool)
    for batch in batches:
        labels, index = jax.device_get((batch.labels, batch.index))
        for name in quantities:
            given = ~np.isnan(getattr(labels, name).reshape(len(index), -1)).all(axis=1)
            found[index[given & (index >= 0)]] = True
    return found


@lru_cache(maxsize=64)
def _together(stepper: Stepper, params_of: Callable[[Any], Params]) -> Stepper:
    """The stepper for all members; only the masks in the context differ between them."""

    def init(key, starts, context):
        return _for_members(stepper.init, starts)(key, starts, context)

    def step(key, states, context):
        if stepper.host:
            return _one_by_one(stepper.step, key, states, context)
        return _for_members(stepper.step, params_of(states))(key, states, context)

    return Stepper(init, step, host=stepper.host)


def _one_by_one(step, key, states, context):
    """A step of host code, for one member after the other."""
    fold, found = context.data, []
    for member, mine in enumerate(jax.random.split(key, fold.train.shape[0])):
        state = jax.tree.map(lambda leaf, i=member: leaf[i], states)
        own = fold._replace(train=fold.train[member], validation=fold.validation[member])
        found.append(step(mine, state, context._replace(data=own)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _for_members(function, params):
    """`function` of all members at once; or of one after the other.

    Products of large matrices gain nothing from a batch: on CPUs large networks are faster one
    after the other, where what one member needs stays in the cache, and as many at a time as there
    are devices that share the members evenly: the same bits on any number of them.
    """
    axes = Context(params=None, data=Fold(None, None, 0, 0), targets=None)  # pyright: ignore
    sizes = [math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(params)]
    one_by_one = sum(sizes) > _LARGE and jax.default_backend() == "cpu"

    def every(key, states, context):
        fold = context.data
        keys = jax.random.split(key, fold.train.shape[0])
        if not one_by_one:
            return jax.vmap(function, (0, 0, axes))(keys, states, context)

        def one(context, member):
            key, state, train, validation = member
            mine = context.data._replace(train=train, validation=validation)
            return function(key, state, context._replace(data=mine))

        def some(context, rows):
            return jax.lax.map(partial(one, context), rows)

        return across_devices(some, context, (keys, states, fold.train, fold.validation))

    return every


_LARGE = 10_000


@partial(jax.jit, static_argnums=0)
def _begin(stepper, key, starts, context):
    return stepper.init(key, starts, context)


def _whole(expected, leaves: list):
    """The state that these leaves belong to; nothing is computed to find its shape."""
    shapes, tree = jax.tree.flatten(expected)
    found = [(np.shape(leaf), np.result_type(leaf)) for leaf in leaves]
    if found != [(shape.shape, shape.dtype) for shape in shapes]:
        raise BadInput(
            "the checkpoint of this training does not fit it (other arrays); remove the checkpoint "
            "and run again"
        )
    return jax.tree.unflatten(tree, leaves)


def _starts(key, trainer, potential, params, batches):
    if params is not None and trainer.start == "warm":
        found = jax.tree.leaves(params)[0].shape[0]
        if found != trainer.members:
            raise BadInput(
                f"a warm start needs params of {trainer.members} members, found {found}; "
                "set trainer.start: fresh, or keep the number of members"
            )
        params = in_precision(params, trainer.precision)
        return params if potential.rebase is None else _rebased(potential, params, batches)
    fresh = _initialized(potential, trainer.members, key)
    return in_precision(_prepared(potential, fresh, batches), trainer.precision)


@partial(jax.jit, static_argnums=(0, 1))
def _initialized(potential, members, key):
    return jax.vmap(potential.init)(jax.random.split(key, members))


@partial(jax.jit, static_argnums=0)
def _prepared(potential, params, batches):
    return jax.vmap(potential.prepare, (0, None))(params, batches)


@partial(jax.jit, static_argnums=0)
def _rebased(potential, params, batches):
    return jax.vmap(potential.rebase, (0, None))(params, batches)


def _watch(on_block):
    """Ends the run when every member has stopped."""

    def seen(done, state, progress):
        asked = on_block(done, state, progress) if on_block is not None else False
        return bool(asked) or bool(np.all(progress.stopped[-1]))

    return seen


def _block(trainer, on_block):
    """About ten blocks of one length; a block of another length would be another program."""
    if on_block is None and trainer.patience is None:
        return trainer.steps
    largest = max(1, trainer.steps // 10)
    return max(n for n in range(1, largest + 1) if trainer.steps % n == 0)


def _fitted(state, trainer, train, history, reached) -> Fitted:
    loss = np.asarray(state.best_loss)
    lost = np.flatnonzero(~np.isfinite(loss))
    if reached and lost.size:
        raise NotFinite(
            f"training: the loss of member(s) {', '.join(map(str, lost))} of {len(loss)} was never "
            "finite; check the labels, look for atoms on top of each other, lower the learning rate"
        )
    return Fitted(
        params=trainer.params_of(state),
        best=int(np.argmin(loss)),
        loss=loss,
        error=jax.tree.map(np.asarray, state.best_error),
        force_mae=np.asarray(state.best_force_mae),
        finite=np.asarray(state.finite),
        train=train,
        history=history,
        steps=reached,
    )
