"""Gradient training: any optimizer of optax, on any of energy, forces, stress, charges and dipole.

    L = a_E <(ΔE/N u_E)²> + a_F <(ΔF/u_F)²> + a_S <(Δσ/u_S)²> + …    (loss: units)
    L = a_E <(ΔE)²/√N> + a_F <|ΔF|²/N> + a_S <|Δσ|²> + …             (loss: ani; eV and Å)

and a_q <(Δq/u_q)²> + a_μ <(Δμ/u_μ)²>, or a_q <|Δq|²/N> + a_μ <|Δμ|²>, of potentials with charges
(`potentials.partial_charges`), in e and e Å. The means of the first run over labels, those of the
second over structures of N atoms. One step is one epoch of shuffled minibatches. What is judged,
and kept where it is the best on validation, is the exponential moving average of the parameters
where there is one.

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
import optax.contrib

from alj.arrays import take_tree
from alj.registry import suggest
from alj.training.batching import minibatches, trained_part
from alj.training.descriptions import predict_together
from alj.training.losses import (
    NO_SUMS,
    QUANTITIES,
    Emphasis,
    add,
    batch_residuals,
    high_energy_weights,
    structure_sums,
    sums,
    units,
)
from alj.training.losses import loss as combined
from alj.training.splits import split_by_name
from alj.training.tracking import (
    Fold,
    Progress,
    all_residuals,
    check_training,
    judged,
    measure,
    tracked,
)
from alj.types import BadInput, Context, Key, Params, Potential, Stepper, Trainer


class _Plateau(NamedTuple):
    """The factor of the rate, the lowest loss so far, and for how many epochs it was not beaten."""

    factor: Any
    lowest: Any
    stale: Any


class _State(NamedTuple):
    params: Params
    average: Params
    optimizer: Any
    epoch: Any
    plateau: _Plateau
    last: Progress


def gradient(
    potential: Potential,
    *,
    optimizer: str = "adam",
    optimizer_settings: Mapping[str, float] | None = None,
    learning_rate: float = 1e-3,
    learning_rates: Mapping[str, float] | None = None,
    schedule: Literal["constant", "cosine", "linear", "exponential", "plateau"] = "cosine",
    final_rate_fraction: float = 0.01,
    plateau_patience: int = 10,
    warmup_epochs: int = 0,
    epochs: int = 300,
    batch_size: int = 32,
    members: int = 3,
    loss: Literal["units", "ani"] = "units",
    energy_weight: float = 1.0,
    force_weight: float = 0.0,
    stress_weight: float = 0.0,
    charge_weight: float = 0.0,
    dipole_weight: float = 0.0,
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
        optimizer: name of an optax optimizer, such as adam, adamw, sgd, lion, muon.
        optimizer_settings: further numbers that it takes, such as {weight_decay: 1e-4}.
        learning_rate: rate at the beginning.
        learning_rates: rates of parts of the potential that shall have another one, by name, such
            as {radial: 0.02, scale: 0.001} of gaussian_moments; "readout" are the last weights.
        schedule: how the rate falls over the epochs; "plateau" takes 0.8 times the rate whenever
            validation has not got better for a while.
        final_rate_fraction: rate at the end over the rate at the beginning; on a plateau schedule
            a member stops where its rate would fall below.
        plateau_patience: epochs without a better validation loss after which "plateau" acts.
        warmup_epochs: epochs in which the rate rises linearly.
        epochs: passes over the data at most.
        batch_size: structures per update.
        members: networks trained together; their mean is the better potential.
        loss: "units" measures errors in units of the labels and means over labels; "ani" is the
            loss of the ANI papers, per structure of N atoms energy_weight (ΔE)²/√N + force_weight
            |ΔF|²/N + stress_weight |Δσ|² + charge_weight |Δq|²/N + dipole_weight |Δμ|², in eV, Å
            and e.
        energy_weight: weight of the mean squared error of the energy per atom, in squares of the
            spread of the energies.
        force_weight: weight of the mean squared force error, in squares of the typical force.
        stress_weight: weight of the mean squared stress error, in squares of the typical stress.
        charge_weight: weight of the mean squared error of labeled charges, in squares of their
            spread about the mean of each element; of potentials with charges only.
        dipole_weight: weight of the mean squared error of components of labeled dipoles, in squares
            of the typical one; those of ions do not count, for they depend on the origin.
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
    weights = Emphasis(energy_weight, force_weight, stress_weight, charge_weight, dipole_weight)
    _check_weights(potential, weights)
    if not 0 <= ema_decay < 1 or not 0 < final_rate_fraction <= 1:
        raise BadInput(
            "gradient needs 0 <= ema_decay < 1 and 0 < final_rate_fraction <= 1; found "
            f"{ema_decay} and {final_rate_fraction}"
        )
    if plateau_patience < 1 or (schedule == "plateau" and final_rate_fraction == 1):
        raise BadInput(
            "plateau_patience must be at least 1, and final_rate_fraction below 1 for schedule: "
            f"plateau; found {plateau_patience} and {final_rate_fraction}"
        )
    change = _transformation(optimizer, optimizer_settings or {}, learning_rate, gradient_clip)
    paces = _paces(potential, learning_rates or {}, learning_rate)
    quantities = tuple(
        name
        for name, weight in zip(QUANTITIES, weights, strict=True)
        if weight > 0 or name == "energy"
    )

    def rate(epoch, plateau):
        """The factor of the learning rate."""
        return plateau.factor * _factor(schedule, final_rate_fraction, warmup_epochs, epochs, epoch)

    def summed(found, shares, batch):
        if loss == "units":
            return sums(found, shares)
        atoms = jnp.maximum(jnp.sum(batch.structures.species > 0, axis=1), 1)
        return structure_sums(found, shares, atoms.astype(found.energy.dtype))

    def scales(fold: Fold):
        return units(fold.batches, quantities) if loss == "units" else _ONES

    def factors(fold: Fold):
        found = high_energy_weights(fold.batches, high_energy_scale_eV)
        return tuple(
            batch.weights * factor**2 for batch, factor in zip(fold.batches, found, strict=True)
        )

    def report(params, fold: Fold, pace):
        pairs = list(zip(fold.batches, fold.described, strict=True))
        found = all_residuals(potential, quantities, params, pairs)
        return measure(found, fold, factors(fold), weights, scales(fold), pace, summed)

    def init(key: Key, params: Params, context: Context) -> _State:
        epoch = jnp.zeros((), jnp.int32)
        trained, _ = trained_part(params)
        plateau = _Plateau(jnp.ones(()), jnp.asarray(jnp.inf), epoch)
        found = report(params, context.data, learning_rate * rate(epoch, plateau))
        return _State(params, params, change.init(trained), epoch, plateau, found)

    def objective(trained, rebuild, parts, scale):
        total = NO_SUMS
        for batch, described, places, share in parts:
            predicted = predict_together(
                potential, quantities, rebuild(trained), batch, described, places
            )
            some = take_tree(batch, places)
            total = add(total, summed(batch_residuals(predicted, some), share, some))
        squares = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(trained))
        return combined(total, weights, scale) + l2 * squares

    def step(key: Key, state: _State, context: Context) -> tuple[_State, Progress]:
        fold: Fold = context.data
        scale, shares = scales(fold), factors(fold)
        speed = rate(state.epoch, state.plateau)

        def update(carry, parts):
            params, average, memory = carry
            trained, rebuild = trained_part(params)

            def value_of(trained):
                return objective(trained, rebuild, parts, scale)

            value, slope = jax.value_and_grad(value_of)(trained)
            changes, after = change.update(
                slope, memory, trained, value=value, grad=slope, value_fn=value_of
            )
            changes = jax.tree.map(
                lambda leaf, pace: (speed * pace * leaf).astype(leaf.dtype), changes, paces
            )
            moved = rebuild(optax.apply_updates(trained, changes))
            mean = jax.tree.map(lambda a, b: ema_decay * a + (1 - ema_decay) * b, average, moved)
            return moved, mean, after

        def minibatch(carry, chosen):
            """An update, unless nothing in the minibatch trains."""
            shares_there = [
                jnp.where(there, share[places], 0.0)
                for (places, there), share in zip(chosen, shares, strict=True)
            ]
            places = [places for places, _ in chosen]
            parts = list(zip(fold.batches, fold.described, places, shares_there, strict=True))
            some = jnp.any(jnp.concatenate(shares_there) > 0)
            return jax.lax.cond(some, lambda: update(carry, parts), lambda: carry), None

        start_from = (state.params, state.average, state.optimizer)
        chosen = minibatches(key, fold, batch_size)
        (params, average, memory), _ = jax.lax.scan(minibatch, start_from, chosen)
        found = report(average, fold, learning_rate * speed)
        plateau = state.plateau
        if schedule == "plateau":
            plateau = _watched(plateau, judged(found)[0], plateau_patience)
            found = found._replace(stopped=plateau.factor < final_rate_fraction)
        return _State(params, average, memory, state.epoch + 1, plateau, found), found

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
        # Either way members may stop early, which `fit` looks for between blocks.
        patience=plateau_patience if patience is None and schedule == "plateau" else patience,
        quantities=quantities,
        precision=precision,
        descriptions=descriptions,
    )


_ONES = Emphasis(1.0, 1.0, 1.0, 1.0, 1.0)


def _check_weights(potential: Potential, weights: Emphasis) -> None:
    if min(weights) < 0 or sum(weights) == 0:
        raise BadInput(
            "energy_weight, force_weight, stress_weight, charge_weight and dipole_weight must not "
            f"be negative nor all 0; found {', '.join(map(str, weights))}"
        )
    if potential.charges is None and weights.charges + weights.dipole > 0:
        raise BadInput(
            "charge_weight and dipole_weight: the potential has no charges to fit; use "
            "partial_charges, or leave both at 0"
        )


def _optimizers() -> dict[str, Any]:
    """The functions of optax that make an optimizer from a learning rate, contributed ones too."""
    found = {}
    for module in (optax.contrib, optax):
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith(("_", "scale_by_")):
                continue
            if inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters:
                found[name] = value
    return found


def _transformation(name, settings, learning_rate, clip) -> optax.GradientTransformationExtraArgs:
    known = _optimizers()
    if name not in known:
        raise BadInput(f"optimizer: optax has no optimizer {name!r}{suggest(name, known)}")
    parameters = inspect.signature(known[name]).parameters
    taken = [key for key in parameters if key != "learning_rate"]
    for key, value in settings.items():
        if key not in taken:
            raise BadInput(f"optimizer_settings: {name} takes no {key!r}{suggest(key, taken)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"optimizer_settings.{key} must be a finite number, found {value!r}")
    if learning_rate <= 0 or (clip is not None and clip <= 0):
        raise BadInput(
            f"learning_rate and gradient_clip must be positive; found {learning_rate} and {clip}"
        )
    # A count, such as the iterations of muon, comes as 3.0 out of a section of floats.
    whole = {key: int(settings[key]) for key in settings if type(parameters[key].default) is int}
    made = known[name](learning_rate=learning_rate, **{**settings, **whole})
    parts = [made] if clip is None else [optax.clip_by_global_norm(clip), made]
    return optax.with_extra_args_support(optax.chain(*parts))


def _paces(potential: Potential, rates: Mapping[str, float], usual: float):
    """How much faster than usual each leaf of body and readout learns."""
    shapes, _ = trained_part(jax.eval_shape(lambda: potential.init(jax.random.key(0))))
    body = shapes["body"] if isinstance(shapes["body"], dict) else {}
    for name, rate in rates.items():
        if name not in (*body, "readout"):
            raise BadInput(
                f"learning_rates: no part {name!r}{suggest(name, [*body, 'readout'])}; there are: "
                f"{', '.join([*body, 'readout'])}"
            )
        if not (isinstance(rate, int | float) and 0 <= rate < math.inf):
            raise BadInput(
                f"learning_rates.{name}: expected a number of at least 0, found {rate!r}"
            )

    def pace(path, _):
        names = [str(getattr(entry, "key", "")) for entry in path[:2]]
        part = names[0] if names[0] == "readout" else names[-1]
        return rates.get(part, usual) / usual

    return jax.tree_util.tree_map_with_path(pace, shapes)


def _watched(plateau: _Plateau, value, patience: int) -> _Plateau:
    """The plateau after an epoch that ended with this loss."""
    better = value < plateau.lowest
    stale = jnp.where(better, 0, plateau.stale + 1)
    act = stale >= patience
    return _Plateau(
        jnp.where(act, _PLATEAU * plateau.factor, plateau.factor),
        jnp.minimum(value, plateau.lowest),
        jnp.where(act, 0, stale),
    )


_PLATEAU = 0.8


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
