"""Gradient training: any optimizer of optax, on any of energy, forces and stress.

    L = a_E <(ΔE/N u_E)²> + a_F <(ΔF/u_F)²> + a_S <(Δσ/u_S)²>

One step is one epoch of shuffled minibatches. What is judged, and kept where it is the best on
validation, is the exponential moving average of the parameters where there is one.

D. P. Kingma and J. Ba, arXiv:1412.6980 (Adam); B. T. Polyak and A. B. Juditsky, SIAM J. Control
Optim. 30, 838 (1992), doi 10.1137/0330046 (averaging).
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alj.registry import suggest
from alj.training.batching import minibatches, trained_part
from alj.training.descriptions import predict_together
from alj.training.losses import (
    NO_SUMS,
    Emphasis,
    add,
    batch_residuals,
    high_energy_weights,
    loss,
    sums,
    units,
)
from alj.training.splits import split_by_name
from alj.training.tracking import (
    Fold,
    Progress,
    all_residuals,
    check_training,
    measure,
    select,
    tracked,
)
from alj.types import BadInput, Context, Key, Params, Potential, Stepper, Trainer


class _State(NamedTuple):
    params: Params
    average: Params
    optimizer: Any
    epoch: Any
    last: Progress


def gradient(
    potential: Potential,
    *,
    optimizer: str = "adam",
    optimizer_settings: Mapping[str, float] | None = None,
    learning_rate: float = 1e-3,
    schedule: Literal["constant", "cosine", "linear", "exponential"] = "cosine",
    final_rate_fraction: float = 0.01,
    warmup_epochs: int = 0,
    epochs: int = 300,
    batch_size: int = 32,
    members: int = 3,
    energy_weight: float = 1.0,
    force_weight: float = 0.0,
    stress_weight: float = 0.0,
    high_energy_scale_eV: float | None = None,
    ema_decay: float = 0.0,
    gradient_clip: float | None = None,
    l2: float = 0.0,
    split: Literal["k_fold", "random", "inherited", "all"] = "random",
    validation_fraction: float = 0.1,
    start: Literal["fresh", "warm"] = "fresh",
    patience: int | None = None,
    precision: Literal["float32", "float64"] = "float32",
    descriptions: Literal["automatic", "once", "anew"] = "automatic",
) -> Trainer:
    """Stochastic gradient descent with any optimizer of optax.

    Args:
        optimizer: name of an optax optimizer, such as adam, adamw, sgd, lion.
        optimizer_settings: further numbers that it takes, such as {weight_decay: 1e-4}.
        learning_rate: rate at the beginning.
        schedule: how the rate falls over the epochs.
        final_rate_fraction: rate at the end over the rate at the beginning.
        warmup_epochs: epochs in which the rate rises linearly.
        epochs: passes over the data at most.
        batch_size: structures per update.
        members: networks trained together; their mean is the better potential.
        energy_weight: weight of the mean squared error of the energy per atom, in squares of the
            spread of the energies.
        force_weight: weight of the mean squared force error, in squares of the typical force.
        stress_weight: weight of the mean squared stress error, in squares of the typical stress.
        high_energy_scale_eV: structures this much per atom above the lowest, in eV, count half,
            still higher ones less; null: all count the same.
        ema_decay: decay per update of the averaged parameters, which are then the ones judged; 0
            takes the parameters themselves.
        gradient_clip: largest global norm of the gradient; null: no limit.
        l2: penalty on the square of the parameters.
        split: which structures validate a member; "all" trains on all of them.
        validation_fraction: share of the structures that validate.
        start: "fresh" begins anew at each fit, "warm" with the last parameters.
        patience: epochs without a better validation loss after which a member stops; null: never.
        precision: of params and structures while training.
        descriptions: whether descriptors are computed "once" before the training or "anew".

    Raises BadInput for an unknown optimizer or setting, and for settings that cannot be used.
    """
    check_training(epochs, members, batch_size, patience)
    weights = Emphasis(energy_weight, force_weight, stress_weight)
    if min(weights) < 0 or sum(weights) == 0:
        raise BadInput(
            "energy_weight, force_weight and stress_weight must not be negative nor all 0; "
            f"found {', '.join(map(str, weights))}"
        )
    if not 0 <= ema_decay < 1 or not 0 < final_rate_fraction <= 1:
        raise BadInput(
            "gradient needs 0 <= ema_decay < 1 and 0 < final_rate_fraction <= 1; found "
            f"{ema_decay} and {final_rate_fraction}"
        )
    change = _transformation(optimizer, optimizer_settings or {}, learning_rate, gradient_clip)
    quantities = tuple(
        name
        for name, weight in zip(("energy", "forces", "stress"), weights, strict=True)
        if weight > 0 or name == "energy"
    )

    def rate(epoch):
        """The factor of the learning rate."""
        return _factor(schedule, final_rate_fraction, warmup_epochs, epochs, epoch)

    def factors(fold: Fold):
        found = high_energy_weights(fold.batches, high_energy_scale_eV)
        return tuple(
            batch.weights * factor**2 for batch, factor in zip(fold.batches, found, strict=True)
        )

    def report(params, fold: Fold, epoch):
        pairs = list(zip(fold.batches, fold.described, strict=True))
        found = all_residuals(potential, quantities, params, pairs)
        pace = learning_rate * rate(epoch)
        return measure(found, fold, factors(fold), weights, units(fold.batches, quantities), pace)

    def init(key: Key, params: Params, context: Context) -> _State:
        epoch = jnp.zeros((), jnp.int32)
        trained, _ = trained_part(params)
        return _State(
            params, params, change.init(trained), epoch, report(params, context.data, epoch)
        )

    def objective(trained, rebuild, parts, scale):
        total = NO_SUMS
        for batch, described, share in parts:
            predicted = predict_together(potential, quantities, rebuild(trained), batch, described)
            total = add(total, sums(batch_residuals(predicted, batch), share))
        squares = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(trained))
        return loss(total, weights, scale) + l2 * squares

    def step(key: Key, state: _State, context: Context) -> tuple[_State, Progress]:
        fold: Fold = context.data
        scale, shares = units(fold.batches, quantities), factors(fold)
        speed = rate(state.epoch)

        def update(carry, chosen):
            params, average, memory = carry
            trained, rebuild = trained_part(params)
            parts = []
            for (places, there), batch, described, share in zip(
                chosen, fold.batches, fold.described, shares, strict=True
            ):
                some = jax.tree.map(lambda leaf: leaf[places], (batch, described, share))
                parts.append((some[0], some[1], jnp.where(there, some[2], 0.0)))

            def value_of(trained):
                return objective(trained, rebuild, parts, scale)

            value, slope = jax.value_and_grad(value_of)(trained)
            changes, after = change.update(
                slope, memory, trained, value=value, grad=slope, value_fn=value_of
            )
            changes = jax.tree.map(lambda leaf: (speed * leaf).astype(leaf.dtype), changes)
            moved = rebuild(optax.apply_updates(trained, changes))
            mean = jax.tree.map(lambda a, b: ema_decay * a + (1 - ema_decay) * b, average, moved)
            some = jnp.concatenate([share for _, _, share in parts])
            return select(jnp.any(some > 0), (moved, mean, after), carry), None

        start_from = (state.params, state.average, state.optimizer)
        chosen = minibatches(key, fold, batch_size)
        (params, average, memory), _ = jax.lax.scan(update, start_from, chosen)
        found = report(average, fold, state.epoch)
        return _State(params, average, memory, state.epoch + 1, found), found

    stepper, params_of = tracked(
        Stepper(init, step), lambda state: state.average, lambda state: state.last, patience
    )
    return Trainer(
        stepper=stepper,
        params_of=params_of,
        steps=epochs,
        members=members,
        split=split_by_name(split, validation_fraction),
        start=start,
        patience=patience,
        quantities=quantities,
        precision=precision,
        descriptions=descriptions,
    )


def _optimizers() -> dict[str, Any]:
    """The functions of optax that make an optimizer from a learning rate."""
    found = {}
    for name in dir(optax):
        value = getattr(optax, name)
        if name.startswith(("_", "scale_by_")):
            continue
        if inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters:
            found[name] = value
    return found


def _transformation(name, settings, learning_rate, clip) -> optax.GradientTransformationExtraArgs:
    known = _optimizers()
    if name not in known:
        raise BadInput(f"optimizer: optax has no optimizer {name!r}{suggest(name, known)}")
    taken = [key for key in inspect.signature(known[name]).parameters if key != "learning_rate"]
    for key, value in settings.items():
        if key not in taken:
            raise BadInput(f"optimizer_settings: {name} takes no {key!r}{suggest(key, taken)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"optimizer_settings.{key} must be a finite number, found {value!r}")
    if learning_rate <= 0 or (clip is not None and clip <= 0):
        raise BadInput(
            f"learning_rate and gradient_clip must be positive; found {learning_rate} and {clip}"
        )
    made = known[name](learning_rate=learning_rate, **settings)
    parts = [made] if clip is None else [optax.clip_by_global_norm(clip), made]
    return optax.with_extra_args_support(optax.chain(*parts))


def _factor(schedule, final, warmup, epochs, epoch):
    done = jnp.clip(epoch / max(epochs - 1, 1), 0.0, 1.0)
    if schedule == "cosine":
        factor = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    elif schedule == "linear":
        factor = 1.0 + (final - 1.0) * done
    elif schedule == "exponential":
        factor = final**done
    else:
        factor = jnp.ones_like(done)
    return factor * jnp.minimum(1.0, (epoch + 1) / (warmup + 1))
