"""What every trainer reports, and the best it has seen: early stopping wrapped around a Stepper."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alj.training.descriptions import Described, predict_batch
from alj.training.losses import (
    NO_SUMS,
    Emphasis,
    Residuals,
    Sums,
    add,
    batch_residuals,
    force_deviation,
    loss,
    root_mean_squares,
    sums,
)
from alj.types import BadInput, Batch, Context, Params, Potential, State, Stepper


class Fold(NamedTuple):
    """What one member learns from: `context.data` of every trainer.

    `described` holds one entry per batch (None: describe anew); `train` and `validation` are masks
    over the data set, at least as long as it, False beyond its end.
    """

    batches: tuple[Batch, ...]
    described: tuple[Described | None, ...]
    train: Bool[Array, "*members places"]
    validation: Bool[Array, "*members places"]


class Progress(NamedTuple):
    """The Info of a trainer's step.

    Losses are the trainer's own (dimensionless); errors are root mean squares in eV/atom, eV/Å,
    eV/Å^3, e and e Å, NaN where nothing is labeled; `force_mae` is the mean absolute error of the
    force components over training and validation together, eV/Å. `pace` is the learning rate or
    the damping. `finite` is False once a loss was NaN or infinite; `stopped` says that the member
    waits for the others.
    """

    train_loss: Float[Array, "*shape"]
    validation_loss: Float[Array, "*shape"]
    train_error: Emphasis
    validation_error: Emphasis
    force_mae: Float[Array, "*shape"]
    pace: Float[Array, "*shape"]
    finite: Bool[Array, "*shape"]
    stopped: Bool[Array, "*shape"]


class Tracked(NamedTuple):
    """A trainer's own state, and the best params on validation so far (on training without one)."""

    inner: Any
    best: Params
    best_loss: Float[Array, "*members"]
    best_error: Emphasis
    best_force_mae: Float[Array, "*members"]
    stale: Int[Array, "*members"]
    finite: Bool[Array, "*members"]


def tracked(
    stepper: Stepper,
    params_of: Callable[[State], Params],
    progress_of: Callable[[State], Progress],
    patience: int | None,
) -> tuple[Stepper, Callable[[Tracked], Params]]:
    """`stepper` with the best kept, and the member frozen after `patience` steps without a better.

    Returns the stepper, and the function that takes the best params out of its state. The start
    counts as a candidate. A step that is not finite is never the best; it marks the member. A
    stepper that reports `stopped` is frozen as well.
    """

    def init(key, params, context: Context) -> Tracked:
        inner = stepper.init(key, params, context)
        value, error = judged(progress_of(inner))
        return Tracked(
            inner,
            params_of(inner),
            value,
            error,
            progress_of(inner).force_mae,
            jnp.zeros((), jnp.int32),
            jnp.asarray(True),
        )

    def step(key, state: Tracked, context: Context):
        stopped = progress_of(state.inner).stopped
        if patience is not None:
            stopped = stopped | (state.stale >= patience)
        moved, progress = stepper.step(key, state.inner, context)
        value, error = judged(progress)
        better = value < state.best_loss
        after = Tracked(
            moved,
            select(better, params_of(moved), state.best),
            jnp.where(better, value, state.best_loss),
            select(better, error, state.best_error),
            jnp.where(better, progress.force_mae, state.best_force_mae),
            jnp.where(better, 0, state.stale + 1),
            state.finite & ~jnp.isnan(progress.train_loss),
        )
        after = select(stopped, state, after)
        progress = select(stopped, progress_of(state.inner), progress)
        return after, progress._replace(finite=after.finite, stopped=stopped)

    return Stepper(init, step), lambda state: state.best


def judged(progress: Progress) -> tuple[Float[Array, ""], Emphasis]:
    """The loss and the errors that count: on validation, on training where nothing validates.

    Infinite where one of the losses is not finite: a member may not be judged by validation alone
    while its training has blown up.
    """
    has_validation = ~jnp.isnan(progress.validation_error.energy)
    for error in progress.validation_error[1:]:
        has_validation = has_validation | ~jnp.isnan(error)
    value = jnp.where(has_validation, progress.validation_loss, progress.train_loss)
    error = jax.tree.map(
        lambda ours, theirs: jnp.where(has_validation, ours, theirs),
        progress.validation_error,
        progress.train_error,
    )
    good = jnp.isfinite(value) & jnp.isfinite(progress.train_loss)
    return jnp.where(good, value, jnp.inf), error


def rows(mask: Bool[Array, " places"], batch: Batch) -> Float[Array, " batch"]:
    """1 for the structures of the batch that are in a mask over the data set; padding never is."""
    inside = mask.at[batch.index].get(mode="fill", fill_value=False)
    return (inside & (batch.index >= 0)).astype(batch.weights.dtype)


def all_residuals(
    potential: Potential,
    quantities: tuple[str, ...],
    params: Params,
    pairs: list[tuple[Batch, Described | None]],
) -> tuple[Residuals, ...]:
    """Residuals of every structure, batch by batch."""
    return tuple(
        batch_residuals(predict_batch(potential, quantities, params, batch, once), batch)
        for batch, once in pairs
    )


def measure(
    found: tuple[Residuals, ...],
    fold: Fold,
    factors: tuple[Float[Array, " _"], ...],
    weights: Emphasis,
    scale: Emphasis,
    pace: Any,
    summed: Callable[[Residuals, Float[Array, " batch"], Batch], Sums] | None = None,
) -> Progress:
    """The report on residuals: losses weighted by `factors`, errors plain.

    `summed` makes the sums of the losses; without it they are those of all labels alike.
    """
    totals = [NO_SUMS] * 4
    deviation, components = jnp.zeros(()), jnp.zeros(())
    for residuals, batch, factor in zip(found, fold.batches, factors, strict=True):
        train, validation = rows(fold.train, batch), rows(fold.validation, batch)
        for place, share in enumerate((train * factor, validation * factor)):
            part = sums(residuals, share) if summed is None else summed(residuals, share, batch)
            totals[place] = add(totals[place], part)
        for place, share in ((2, train), (3, validation)):
            totals[place] = add(totals[place], sums(residuals, share))
        more, some = force_deviation(residuals, train + validation)
        deviation, components = deviation + more, components + some
    value = loss(totals[0], weights, scale)
    return Progress(
        value,
        loss(totals[1], weights, scale),
        root_mean_squares(totals[2]),
        root_mean_squares(totals[3]),
        jnp.where(components > 0, deviation / jnp.maximum(components, 1.0), jnp.nan),
        jnp.asarray(pace, value.dtype),
        jnp.isfinite(value),
        jnp.asarray(False),
    )


def select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """One of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def check_training(steps: int, members: int, batch_size: int | None, patience: int | None) -> None:
    """Raises BadInput where one of the settings that trainers share cannot be used."""
    given = {"steps": steps, "members": members, "batch_size": batch_size, "patience": patience}
    for name, value in given.items():
        if value is not None and value < 1:
            raise BadInput(f"{name} must be at least 1, found {value}")
