"""Levenberg-Marquardt training: damped least squares for small networks, in float64.

    S(θ) = Σ_s w_s² [a_E (ΔE_s/(N_s u_E))² + a_F |ΔF_s|² / (3 N_s u_F²)] + l |θ|²

with ΔE_s, ΔF_s the errors of structure s and u_E, u_F the units of energy per atom and of force.
A step solves the damped normal equations and is kept only where S falls; the damping follows the
ratio of the fall to the one that the linearization promised. Symmetry functions are strongly
collinear, so this curvature-aware method earns its keep. Measured on water: damping in units of
the identity serves energies best; with forces a fit can stall at large damping, and is helped by
another metric (the diagonal of JᵀJ), hence "automatic".

Energies are served best by Nielsen's smooth control of the damping. With forces the valley is
narrow and bent, and a fit crawls along at a middling damping; "delayed" control divides the damping
by five at a success and only doubles it at a failure (`benchmarks/training.py controls`).

Where the dual form serves (fewer residuals than parameters), the step follows the curvature of the
residuals: on 120 structures of water this reached after 60 steps the loss of 100 plain ones.

D. W. Marquardt, J. Soc. Ind. Appl. Math. 11, 431 (1963), doi 10.1137/0111030; the control of the
damping follows H. B. Nielsen, report IMM-REP-1999-05, Technical University of Denmark (1999);
the acceleration M. K. Transtrum and J. P. Sethna, arXiv:1201.5885 (2012).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alj.training.batching import minibatches, raveled
from alj.training.least_squares import (
    Target,
    cost,
    curvature,
    direction,
    linearize,
    residual_rows,
    row_count,
)
from alj.training.losses import Emphasis, high_energy_weights, units
from alj.training.splits import split_by_name
from alj.training.tracking import (
    Fold,
    Progress,
    all_residuals,
    check_training,
    measure,
    rows,
    select,
    tracked,
)
from alj.types import BadInput, Context, Key, Params, Potential, Stepper, Trainer


class _State(NamedTuple):
    """`growth` is the factor of the next rejection; `stalled` counts steps at large damping."""

    params: Params
    damping: Float[Array, "*members"]
    growth: Float[Array, "*members"]
    diagonal: Bool[Array, "*members"]
    stalled: Int[Array, "*members"]
    last: Progress


def levenberg_marquardt(
    potential: Potential,
    *,
    steps: int = 100,
    members: int = 3,
    l2: float = 1e-4,
    damping: float = 1.0,
    damping_growth: float = 2.0,
    damping_kind: Literal["automatic", "identity", "diagonal"] = "automatic",
    damping_control: Literal["automatic", "nielsen", "delayed"] = "automatic",
    stall_steps: int = 10,
    batch_size: int | None = None,
    energy_weight: float = 1.0,
    force_weight: float = 0.0,
    energy_unit_eV: float | None = None,
    force_unit_eV_per_A: float | None = None,
    high_energy_scale_eV: float | None = None,
    form: Literal["automatic", "primal", "dual"] = "automatic",
    split: Literal["k_fold", "random", "inherited", "all"] = "k_fold",
    validation_fraction: float = 0.1,
    start: Literal["fresh", "warm"] = "fresh",
    patience: int | None = None,
    descriptions: Literal["automatic", "once", "anew"] = "automatic",
) -> Trainer:
    """Levenberg-Marquardt least squares: the method of choice for small networks on energies.

    Args:
        steps: steps at most; with batches, passes over the data.
        members: networks trained together; their mean is the better potential.
        l2: penalty on the square of the parameters, against the sum over structures.
        damping: the damping to begin with; with batches also the least.
        damping_growth: factor of the damping after a first rejected step; by Nielsen's control it
            doubles with each further one.
        damping_kind: metric of the damping; "automatic" begins with the identity and, where forces
            are trained on, changes the metric when the fit stalls.
        damping_control: how the damping follows success; "automatic" is "delayed" where forces are
            trained on, else "nielsen".
        stall_steps: steps at a damping above 100 that count as a stall; the damping then restarts.
        batch_size: structures per step, each step made and judged on its own batch; null: all.
        energy_weight: weight of the energies.
        force_weight: weight of the forces; 0 leaves them out.
        energy_unit_eV: unit of the error per atom, in eV; null: the spread of the energies per
            atom, between 0.02 and 0.15.
        force_unit_eV_per_A: unit of the force errors, in eV/Å; null: their root mean square,
            between 0.1 and 2.
        high_energy_scale_eV: structures this much per atom above the lowest, in eV, get their
            residuals scaled by 1/√2, still higher ones by less; null: all count the same.
        form: of the linear algebra; "automatic" takes the cheaper one.
        split: which structures validate a member; "all" trains on all of them.
        validation_fraction: share of the structures that validate.
        start: "fresh" begins anew at each fit, "warm" with the last parameters.
        patience: steps without a better validation loss after which a member stops; null: never.
        descriptions: whether descriptors are computed "once" before the training or "anew".

    Raises BadInput for settings that cannot be used.
    """
    check_training(steps, members, batch_size, patience)
    if damping <= 0 or damping_growth <= 1 or l2 < 0:
        raise BadInput(
            "levenberg_marquardt needs damping > 0, damping_growth > 1 and l2 >= 0; found "
            f"damping = {damping}, damping_growth = {damping_growth}, l2 = {l2}"
        )
    if energy_weight < 0 or force_weight < 0 or energy_weight + force_weight == 0:
        raise BadInput(
            "energy_weight and force_weight must not be negative nor both 0; found "
            f"{energy_weight} and {force_weight}"
        )
    quantities = ("energy", "forces") if force_weight > 0 else ("energy",)
    weights = Emphasis(energy_weight, force_weight, 0.0)
    delayed = damping_control == "delayed" or (damping_control == "automatic" and force_weight > 0)

    # A small batch is fitted perfectly by ever longer steps, which forget all others.
    least = _LEAST if batch_size is None else damping

    def scales(fold: Fold):
        found = units(fold.batches, quantities)
        return found._replace(
            energy=found.energy if energy_unit_eV is None else energy_unit_eV,
            forces=found.forces if force_unit_eV_per_A is None else force_unit_eV_per_A,
        )

    def report(params, fold: Fold, pace):
        pairs = list(zip(fold.batches, fold.described, strict=True))
        found = all_residuals(potential, quantities, params, pairs)
        shares = _shares(fold, high_energy_weights(fold.batches, high_energy_scale_eV))
        return measure(found, fold, shares, weights, scales(fold), pace)

    def init(key: Key, params: Params, context: Context) -> _State:
        pace = jnp.asarray(damping, float)
        return _State(
            params,
            pace,
            jnp.asarray(damping_growth, float),
            jnp.asarray(damping_kind == "diagonal"),
            jnp.zeros((), jnp.int32),
            report(params, context.data, damping),
        )

    def attempt(state: _State, targets: tuple[Target, ...]):
        """One step on `targets`, judged on them."""
        parameters, rebuild = raveled(state.params)
        fewer = row_count(targets, quantities) < parameters.shape[0]
        dual = fewer if form == "automatic" else form == "dual"
        linear = linearize(potential, quantities, parameters, rebuild, targets, dual=dual)
        metric = _metric(linear, state.diagonal)
        damped = state.damping * metric
        move = direction(linear, parameters, l2, damped)
        bent = move
        if dual:
            bent = move + curved(targets, rebuild, parameters, linear, move, damped)
        params = rebuild(parameters + bent)
        found = all_residuals(
            potential, quantities, params, [(t.batch, t.described) for t in targets]
        )
        before = linear.cost + l2 * parameters @ parameters
        after = cost(found, targets) + l2 * (parameters + bent) @ (parameters + bent)
        slope = linear.gradient + l2 * parameters
        promised = state.damping * jnp.sum(metric * move * move) - move @ slope
        gain = (before - after) / promised
        accepted = jnp.isfinite(after) & (gain > 0)
        moved = regulated(state, accepted, gain)
        return (
            moved._replace(params=select(accepted, params, state.params)),
            accepted,
            found,
        )

    def curved(targets, rebuild, parameters, linear, move, damping):
        """The geodesic acceleration: where the residuals bend along the step, it follows.

        The second derivative along the step comes from one more evaluation of the residuals.
        """
        ahead = rebuild(parameters + _AHEAD * move)
        found = all_residuals(
            potential, quantities, ahead, [(t.batch, t.described) for t in targets]
        )
        change = (residual_rows(found, targets) - linear.residual) / _AHEAD
        second = (2.0 / _AHEAD) * (change - linear.jacobian @ move)
        nothing = jnp.zeros_like(parameters)
        turn = 0.5 * direction(linear._replace(residual=second), nothing, l2, damping)
        small = jnp.linalg.norm(turn) < _SHARPEST * jnp.linalg.norm(move)
        return jnp.where(small, turn, 0.0)

    def regulated(state: _State, accepted, gain) -> _State:
        """The damping by one rule or the other, then the restart of a stalled fit."""
        shrink = jnp.maximum(1.0 / 3.0, 1.0 - (2.0 * jnp.clip(gain, 0.0, 1.0) - 1.0) ** 3)
        faster = jnp.minimum(2.0 * state.growth, 1e6)
        if delayed:
            shrink, faster = 0.2, damping_growth
        factor = jnp.where(accepted, shrink, state.growth)
        growth = jnp.where(accepted, damping_growth, faster)
        value = jnp.clip(state.damping * factor, least, _MOST)
        stalled = jnp.where(value > _STALL, state.stalled + 1, 0)
        restart = stalled >= stall_steps
        change = restart & (damping_kind == "automatic") & ("forces" in quantities)
        return state._replace(
            damping=jnp.where(restart, damping, value),
            growth=jnp.where(restart, damping_growth, growth),
            diagonal=state.diagonal ^ change,
            stalled=jnp.where(restart, 0, stalled),
        )

    def step(key: Key, state: _State, context: Context) -> tuple[_State, Progress]:
        fold = context.data
        scale = scales(fold)
        factors = high_energy_weights(fold.batches, high_energy_scale_eV)
        targets = _targets(fold, factors, weights, scale)
        if batch_size is None:
            moved, accepted, found = attempt(state, targets)
            shares = _shares(fold, factors)
            seen = measure(found, fold, shares, weights, scale, moved.damping)
            seen = select(accepted, seen, state.last._replace(pace=moved.damping))
        else:
            moved = one_by_one(minibatches(key, fold, batch_size), state, targets)
            seen = report(moved.params, fold, moved.damping)
        return moved._replace(last=seen), seen

    def one_by_one(chosen, state, targets):
        """Each minibatch makes a step and judges it; without training structures it makes none."""

        def body(state, chosen):
            some = tuple(
                _part(target, *places) for target, places in zip(targets, chosen, strict=True)
            )
            there = jnp.concatenate([t.energy_factor + t.force_factor for t in some])
            return select(jnp.any(there > 0), attempt(state, some)[0], state), None

        return jax.lax.scan(body, state, chosen)[0]

    stepper, params_of = tracked(
        Stepper(init, step), lambda state: state.params, lambda state: state.last, patience
    )
    return Trainer(
        stepper=stepper,
        params_of=params_of,
        steps=steps,
        members=members,
        split=split_by_name(split, validation_fraction),
        start=start,
        patience=patience,
        quantities=quantities,
        precision="float64",
        descriptions=descriptions,
    )


_STALL = 100.0
_AHEAD, _SHARPEST = 0.1, 1.5
_LEAST, _MOST = 1e-10, 1e10


def _metric(linear, diagonal):
    """1, or the curvature of each parameter relative to the mean one, which keeps the unit."""
    own = curvature(linear)
    mean = jnp.maximum(jnp.mean(own), jnp.finfo(own.dtype).tiny)
    return jnp.where(diagonal, jnp.maximum(own / mean, 1e-6), 1.0)


def _targets(fold, factors, weights, scale) -> tuple[Target, ...]:
    """The factor of every structure's residuals; forces also count less where they are large."""
    targets = []
    for batch, described, factor in zip(fold.batches, fold.described, factors, strict=True):
        share = rows(fold.train, batch) * jnp.sqrt(batch.weights) * factor
        known = ~jnp.isnan(batch.labels.forces) & (batch.structures.species > 0)[..., None]
        components = jnp.maximum(jnp.sum(known, axis=(1, 2)), 1)
        squares = jnp.sum(jnp.where(known, batch.labels.forces, 0.0) ** 2, axis=(1, 2)) / components
        calm = 1.0 / jnp.sqrt(1.0 + squares / scale.forces**2)
        targets.append(
            Target(
                batch,
                described,
                share * jnp.sqrt(weights.energy) / scale.energy,
                share * calm * jnp.sqrt(weights.forces / components) / scale.forces,
            )
        )
    return tuple(targets)


def _shares(fold, factors):
    """Weights of the structures in the losses: the factors act on residuals, these on squares."""
    pairs = zip(fold.batches, factors, strict=True)
    return tuple(batch.weights * factor**2 for batch, factor in pairs)


def _part(target, places, there):
    some = jax.tree.map(lambda leaf: leaf[places], target)
    return some._replace(
        energy_factor=jnp.where(there, some.energy_factor, 0.0),
        force_factor=jnp.where(there, some.force_factor, 0.0),
    )
