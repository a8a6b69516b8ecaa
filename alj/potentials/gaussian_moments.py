"""Gaussian-moment networks: invariants of learned tensors, one network for all elements.

    E_i = σ_Z w·h(x_i)/√d + μ_Z,    x_i = (G_i - mean_Z)/std_Z,    M_s = Σ_zk β_Z,zsk T_zk

G_i are the invariants (`moments`) of the moments M_s of n channels, which a trained table β makes
of the Gaussian sums T for every pair of elements. h is the last hidden layer of

    h ← a(W h/√d + 0.1 b),   a(x) = 1.677 SiLU(x), of unit second moment,

with weights of unit variance (the tangent-kernel parametrization: one learning rate suits all
widths). σ_Z and μ_Z begin with the spread and the zeros of the training energies and are trained.
Everything linear comes first: T has no parameters, so that it is computed once for a committee, and
once for a whole training.

V. Zaverkin and J. Kästner, J. Chem. Theory Comput. 16, 5410 (2020), doi 10.1021/acs.jctc.0c00347;
V. Zaverkin, D. Holzmüller, I. Steinwart, J. Kästner, J. Chem. Theory Comput. 17, 6658 (2021),
doi 10.1021/acs.jctc.1c00527.
"""

import math
from functools import partial
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.potentials.atomistic import EnergyUnit, check_unit, energy_scale_and_shift
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.moments import count_invariants, gaussian_sums, invariants
from alj.potentials.symmetry_functions import check_species
from alj.types import BadInput, Potential


def gaussian_moments(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.0,
    channels: int = 5,
    gaussians: int = 7,
    nearest_A: float = 0.5,
    symmetry: Literal["full", "legacy"] = "full",
    cutoff_function: Literal["cosine", "polynomial"] = "cosine",
    hidden: tuple[int, ...] = (256, 128),
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """Gaussian-moment network: 360 invariants of tensors that are learned, and a network of them.

    Args:
        cutoff_A: atoms further away are not seen, in Å.
        channels: moments of each rank; 5 with `symmetry: full` make 360 invariants, 7 with
            `symmetry: legacy` the 427 of the paper.
        gaussians: Gaussians of the distance that the channels are made of.
        nearest_A: center of the first Gaussian, in Å.
        symmetry: which contractions are taken: "full" all different ones, "legacy" those of the
            first paper.
        cutoff_function: "cosine", or a "polynomial" with two continuous derivatives.
        hidden: widths of the hidden layers.
        energy_unit_min_eV: least unit of the network's output, in eV per atom.
        energy_unit_max_eV: largest unit of the network's output, in eV per atom.

    Raises BadInput for settings out of range.
    """
    unit = EnergyUnit(energy_unit_min_eV, energy_unit_max_eV)
    _check(species, cutoff_A, nearest_A, channels, gaussians, hidden, unit)
    sums = by_blocks(
        partial(
            gaussian_sums,
            species=species,
            cutoff=cutoff_A,
            gaussians=gaussians,
            nearest=nearest_A,
            form=cutoff_function,
        )
    )
    inputs = partial(_inputs, species, symmetry)

    def describe(env):
        return sums(env), env.species

    def evaluate(params, description):
        params = jax.tree.map(lambda leaf: leaf.astype(description[0].dtype), params)
        body, constants = params["body"], params["constants"]
        kinds = _kinds(description[1], species, description[0].dtype)
        x = inputs(body["radial"], description)
        x = (x - kinds @ constants["mean"]) * (kinds @ (1.0 / constants["std"]))
        for layer in body["network"]:
            x = unit_silu(
                x @ layer["weights"] / math.sqrt(x.shape[1]) + 0.1 * layer["biases"][None]
            )
        output = x @ params["readout"]["weights"] / math.sqrt(x.shape[1])
        output = (kinds @ body["scale"]) * output + kinds @ body["shift"]
        return (kinds @ constants["scale"]) * output + kinds @ constants["shift"]

    @jax.jit
    def prepare(params, batches):
        wide = jnp.result_type(float)
        rows = partial(_rows, inputs, describe, params["body"]["radial"], species, cutoff_A, wide)
        mean, std = _moments_of_inputs(*_joined([rows(batch) for batch in batches]))
        scale, shift = energy_scale_and_shift(batches, species, unit, wide)
        new = {"mean": mean, "std": std, "scale": scale, "shift": shift}
        old = params["constants"]
        return {**params, "constants": {name: new[name].astype(old[name].dtype) for name in old}}

    @jax.jit
    def rebase(params, batches):
        scale, shift = energy_scale_and_shift(batches, species, unit, jnp.result_type(float))
        return _rebased(params, scale, shift)

    width = count_invariants(channels, symmetry)
    potential = local(
        lambda params, env: evaluate(params, describe(env)),
        cutoff=cutoff_A,
        init=lambda key: _initial(key, len(species), channels, gaussians, (width, *hidden)),
        prepare=prepare,
        species=species,
        describe=describe,
        evaluate=evaluate,
    )
    return potential._replace(rebase=rebase)


def unit_silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """SiLU, scaled to a mean square of 1 over normal deviates."""
    return _UNIT * jax.nn.silu(x)


_UNIT = 1.6765324703310907


def _check(species, cutoff, nearest, channels, gaussians, hidden, unit):
    check_species(species)
    if not (math.isfinite(cutoff) and 0 <= nearest < cutoff):
        raise BadInput(f"expected 0 <= nearest_A < cutoff_A, in Å; found {nearest} and {cutoff}")
    if channels < 1 or gaussians < 1:
        raise BadInput(
            f"channels and gaussians must be at least 1, found {channels} and {gaussians}"
        )
    if not hidden or min(hidden) < 1:
        raise BadInput(f"hidden must list at least one layer width of at least 1, found {hidden}")
    check_unit(unit)


def _kinds(of, species, dtype):
    # One-hot products instead of gathers, whose backward pass is a scatter.
    return jnp.stack([of == z for z in species], axis=1).astype(dtype)


def _inputs(species, symmetry, radial, description):
    """The invariants (atoms, invariants) of described atoms."""
    sums, of = description
    kinds, _, channels, _ = radial.shape
    # For each element of the atom: (channels, sums of all neighboring elements).
    table = jnp.swapaxes(radial, 1, 2).reshape(kinds, -1).astype(sums.dtype)
    mine = _kinds(of, species, sums.dtype) @ table
    mine = mine.reshape(sums.shape[0], channels, -1)
    return invariants(jnp.einsum("acp,apm->acm", mine, sums), symmetry)


def _initial(key, kinds, channels, gaussians, widths):
    """β uniform in (-1, 1), weights of unit variance, zero biases."""
    radial, *keys = jax.random.split(key, len(widths) + 1)
    layers = [
        {"weights": jax.random.normal(keys[i], (n, m)), "biases": jnp.zeros(m)}
        for i, (n, m) in enumerate(pairwise(widths))
    ]
    table = jax.random.uniform(radial, (kinds, kinds, channels, gaussians), minval=-1.0)
    return {
        "body": {
            "radial": table,
            "network": layers,
            "scale": jnp.ones(kinds),
            "shift": jnp.zeros(kinds),
        },
        "readout": {"weights": jax.random.normal(keys[-1], (widths[-1],))},
        "constants": {
            "mean": jnp.zeros((kinds, widths[0])),
            "std": jnp.ones((kinds, widths[0])),
            "scale": jnp.ones(kinds),
            "shift": jnp.zeros(kinds),
        },
    }


def _rebased(params, scale, shift):
    """The same function on new units and zeros of energy; the inputs keep what they began with."""
    old, body = params["constants"], params["body"]
    scale, shift = scale.astype(old["scale"].dtype), shift.astype(old["shift"].dtype)
    moved = (old["scale"] * body["shift"] + old["shift"] - shift) / scale
    body = {**body, "scale": body["scale"] * old["scale"] / scale, "shift": moved}
    return {**params, "body": body, "constants": {**old, "scale": scale, "shift": shift}}


def _rows(inputs, describe, radial, species, cutoff, dtype, batch):
    """Invariants of all atoms of a batch, and which of the species each is (none: padding)."""

    def one(pair):
        structure, neighbors = pair
        return inputs(radial, describe(environment(structure, neighbors, cutoff)))

    found = jax.lax.map(one, (batch.structures, batch.neighbors), batch_size=8)
    of = jnp.where(batch.weights[:, None] > 0, batch.structures.species, 0)
    kinds = _kinds(of.ravel(), species, dtype)
    found = found.reshape(-1, found.shape[-1]).astype(dtype)
    return jnp.where(jnp.any(kinds > 0, axis=1)[:, None], found, 0.0), kinds


def _joined(rows):
    return tuple(jnp.concatenate(parts) for parts in zip(*rows, strict=True))


def _moments_of_inputs(inputs, kinds):
    """Mean and standard deviation over the atoms of each element; 1 where nothing varies."""
    count = jnp.maximum(jnp.sum(kinds, axis=0), 1.0)[:, None]
    mean = kinds.T @ inputs / count
    std = jnp.sqrt(kinds.T @ (inputs - kinds @ mean) ** 2 / count)
    # A constant input carries only rounding noise, which must not be blown up.
    return mean, jnp.where(std > 1e-5 * jnp.abs(mean), std, 1.0)
