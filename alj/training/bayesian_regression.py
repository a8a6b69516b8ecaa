"""Bayesian linear regression of the last weights: solved, not descended, in float64.

Energies, forces and stress are affine in the readout weights w, so that with a prior w ~ N(0, s²)
and labels with independent normal errors σ the posterior is normal too, with

    A = RᵀR = Σ_rows φᵀφ/σ² + 1/s²,    w = A⁻¹ Σ_rows φᵀ (y - y₀)/σ²,

φ being the derivatives of a label with respect to w. R comes from QR decompositions of [R; φ/σ],
slab after slab: the square of φ, whose condition number would eat the digits, is never formed, and
memory is that of one slab. Made for the sparse Gaussian process (`potentials.gaussian_process`),
whose weights have a prior of unit variance by construction; any other potential fits its readout on
top of a body as it was initialized.

L. Foster et al., J. Mach. Learn. Res. 10, 857 (2009) (stable and efficient Gaussian process
calculations); A. P. Bartók and G. Csányi, Int. J. Quantum Chem. 115, 1051 (2015),
doi 10.1002/qua.24927 (gradients, and one noise for each kind of label).
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from alj.potentials.combine import energy_forces_stress, readout_rows
from alj.training.losses import QUANTITIES, Emphasis
from alj.training.splits import split_by_name
from alj.training.tracking import Fold, Progress, all_residuals, check_training, measure, rows
from alj.types import BadInput, Context, Key, Params, Potential, Stepper, Trainer

SLAB_ROWS = 4096
"""Labels that are decomposed at once."""


class _State(NamedTuple):
    """The params, and how good they are (see `training.Fitted`)."""

    params: Params
    best_loss: Float[Array, "*members"]
    best_error: Emphasis
    best_force_mae: Float[Array, "*members"]
    finite: Bool[Array, "*members"]


def bayesian_regression(
    potential: Potential,
    *,
    energy_noise_eV: float = 0.001,
    force_noise_eV_per_A: float = 0.02,
    stress_noise_eV_per_A3: float | None = None,
    prior: float = 1.0,
    members: int = 1,
    split: Literal["k_fold", "random", "inherited", "all"] = "all",
    validation_fraction: float = 0.1,
) -> Trainer:
    """Last weights by Bayesian regression in one step, with their posterior covariance.

    Nothing is stopped early, so that no structure need be held back (`split: all`); members differ
    by what they are trained on, or by what their potential draws at random.

    Args:
        energy_noise_eV: standard deviation of an energy label for each atom, in eV; of N atoms √N
            times as much.
        force_noise_eV_per_A: of a component of a force, in eV/Å.
        stress_noise_eV_per_A3: of a component of the stress, in eV/Å^3; null leaves stress out.
        prior: standard deviation of the weights before any data; 1 for `gaussian_process`.
        members: potentials trained; their mean is the model.
        split: which structures are held back; "all" trains on all of them.
        validation_fraction: share of the structures that are held back.

    Raises BadInput for settings that cannot be used, and for a potential without last weights.
    """
    check_training(1, members, None, None)
    noise = Emphasis(energy_noise_eV, force_noise_eV_per_A, stress_noise_eV_per_A3 or 1.0)
    if not min(*noise[:3], prior) > 0:
        raise BadInput(
            "bayesian_regression: expected positive noises and a positive prior, found "
            f"{energy_noise_eV}, {force_noise_eV_per_A}, {stress_noise_eV_per_A3} and {prior}"
        )
    shapes = jax.eval_shape(lambda: potential.init(jax.random.key(0)))
    if not jax.tree.leaves(shapes["readout"]):
        raise BadInput(
            "bayesian_regression fits last weights, and this potential has none; use "
            "gaussian_process or a network"
        )
    with_stress = stress_noise_eV_per_A3 is not None
    quantities = ("energy", "forces", "stress") if with_stress else ("energy", "forces")
    weights = Emphasis(1.0, 1.0, 1.0 if with_stress else 0.0)

    def init(key: Key, params: Params, context: Context) -> _State:
        nothing = jnp.asarray(jnp.nan)
        return _State(
            params, jnp.asarray(jnp.inf), Emphasis(*[nothing] * len(QUANTITIES)), nothing,
            jnp.asarray(True),
        )  # fmt: skip

    def step(key: Key, state: _State, context: Context) -> tuple[_State, Progress]:
        fold: Fold = context.data
        params = _solved(potential, state.params, fold, noise, prior, with_stress)
        found = _residuals(potential, quantities, params, fold.batches)
        factors = tuple(batch.weights for batch in fold.batches)
        progress = measure(found, fold, factors, weights, noise, 0.0)
        held = bool(np.any(fold.validation))
        loss = progress.validation_loss if held else progress.train_loss
        error = progress.validation_error if held else progress.train_error
        loss = jnp.where(progress.finite & jnp.isfinite(loss), loss, jnp.inf)
        after = _State(params, loss, error, progress.force_mae, progress.finite)
        return after, progress

    return Trainer(
        Stepper(init, step, host=True),
        params_of=lambda state: state.params,
        steps=1,
        members=members,
        split=split_by_name(split, validation_fraction),
        quantities=quantities,
        precision="float64",
        descriptions="anew",
    )


def _solved(potential, params, fold: Fold, noise, prior, with_stress) -> Params:
    """Params with the posterior mean as readout, and R among the constants that have a place."""
    flat, tree = ravel_pytree(params["readout"])
    width = flat.shape[0]
    zero = {**params, "readout": tree(jnp.zeros_like(flat))}
    # R, and beside it the transformed labels.
    upper = np.zeros((width + 1, width + 1))
    upper[np.arange(width), np.arange(width)] = 1.0 / prior
    slab: list[np.ndarray] = []
    for batch in fold.batches:
        mine = np.asarray(rows(fold.train, batch) * batch.weights)
        for place in np.flatnonzero(mine > 0):
            one = jax.tree.map(
                lambda leaf, i=place: leaf[i], (batch.structures, batch.neighbors, batch.labels)
            )
            found = jax.device_get(_labeled_rows(potential, zero, *one))
            slab.append(_scaled(found, noise, float(mine[place]), with_stress))
            if sum(map(len, slab)) >= SLAB_ROWS:
                upper, slab = _decomposed(upper, slab), []
    if slab:
        upper = _decomposed(upper, slab)
    if not np.all(np.isfinite(upper)):
        readout = np.full(width, np.nan)
    else:
        readout = scipy.linalg.solve_triangular(upper[:width, :width], upper[:width, width])
    constants = dict(params["constants"])
    if "posterior" in constants:
        constants["posterior"] = jnp.asarray(upper[:width, :width])
    return {**params, "readout": tree(jnp.asarray(readout)), "constants": constants}


@partial(jax.jit, static_argnums=0)
def _labeled_rows(potential, zero, structure, neighbors, labels):
    """Derivatives of all labels, and what is left of these without the readout; NaN: no label."""
    found = readout_rows(potential, zero, structure, neighbors)
    energy, forces, stress = energy_forces_stress(potential, zero, structure, neighbors)
    real = structure.species > 0
    left = (
        labels.energy - energy,
        jnp.where(real[:, None], labels.forces - forces, jnp.nan),
        labels.stress - stress,
    )
    return (found.energy, found.forces, found.stress), left, jnp.sum(real)


def _scaled(found, noise: Emphasis, weight: float, with_stress: bool) -> np.ndarray:
    """[φ, y - y₀]/σ of the labels that there are, (labels, weights + 1)."""
    derivatives, left, atoms = found
    sigmas = (noise.energy * np.sqrt(max(int(atoms), 1)), noise.forces, noise.stress)
    parts = []
    for phi, y, sigma in list(zip(derivatives, left, sigmas, strict=True))[: 2 + with_stress]:
        both = np.concatenate([phi.reshape(-1, phi.shape[-1]), y.reshape(-1, 1)], axis=1)
        parts.append(np.sqrt(weight) / sigma * both[~np.isnan(y.reshape(-1))])
    return np.concatenate(parts)


def _decomposed(upper: np.ndarray, slab: list[np.ndarray]) -> np.ndarray:
    """R of [R; slab]."""
    stacked = np.asfortranarray(np.concatenate([upper, *slab]))
    slab.clear()
    if not np.all(np.isfinite(stacked)):
        return np.full_like(upper, np.nan)
    found = scipy.linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
    return np.ascontiguousarray(np.asarray(found[0])[: upper.shape[0]])


@partial(jax.jit, static_argnums=(0, 1))
def _residuals(potential, quantities, params, batches):
    return all_residuals(potential, quantities, params, [(batch, None) for batch in batches])
