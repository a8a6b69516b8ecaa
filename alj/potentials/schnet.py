"""SchNet: messages between atoms through filters that are continuous functions of distance.

Atom i begins with the embedding x_i = a_Z of its element and hears from its neighbors T times,

    x_i ← x_i + V2 σ(V1 Σ_j (U x_j) ∘ W(r_ij) + c1) + c2,
    W(r) = f_c(r) [B2 σ(B1 g(r) + b1) + b2],   g_k(r) = exp[-(r - μ_k)²/2Δ²],

∘ multiplies element by element, σ(x) = ln(½ e^x + ½) is the shifted softplus, f_c the cosine cutoff
and the μ_k divide the range from 0 to the cutoff evenly, Δ apart. Every block has weights of its
own. Then

    E_i = s [w · h(x_i) + b_Z] + e_Z,   h ← σ(A h + a)

with the unit s and the zeros e_Z of energy from the training data, never trained. Through T blocks
an atom feels others at T times the cutoff. As SchNetPack has it, but for b_Z, which there is one
number for all elements: with one for each, other constants can be taken up exactly (`rebase`).

K. T. Schütt, H. E. Sauceda, P.-J. Kindermans, A. Tkatchenko and K.-R. Müller, J. Chem. Phys. 148,
241722 (2018), doi 10.1063/1.5019779; K. T. Schütt et al., J. Chem. Theory Comput. 15, 448 (2019),
doi 10.1021/acs.jctc.8b00908 (SchNetPack).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from alj.arrays import instantiated
from alj.potentials.atomistic import EnergyUnit, check_unit, energy_scale_and_shift
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.symmetry_functions import check_species, fade
from alj.types import BadInput, Environment, Params, Potential

FEW_ATOMS = 512
"""Up to so many, the filters of all blocks are kept from one block to the next."""


def schnet(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.0,
    features: int = 128,
    gaussians: int = 25,
    interactions: int = 3,
    filters: int | None = None,
    hidden: tuple[int, ...] | None = None,
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """SchNet: a network that learns its own description of atoms, by messages between them.

    Args:
        cutoff_A: atoms further apart exchange no messages, in Å.
        features: numbers that describe an atom.
        gaussians: functions of distance that the filters are made of.
        interactions: rounds of messages; forces reach so many times the cutoff.
        filters: numbers in a message; null: as many as features.
        hidden: widths of the layers that make the energy of an atom; null: one, of half as many as
            features.
        energy_unit_min_eV: least unit of the network's output, in eV per atom.
        energy_unit_max_eV: largest unit of the network's output, in eV per atom.

    Raises BadInput for settings out of range.
    """
    unit = EnergyUnit(energy_unit_min_eV, energy_unit_max_eV)
    hidden = (features // 2,) if hidden is None else hidden
    filters = features if filters is None else filters
    _check(species, cutoff_A, features, gaussians, interactions, unit)
    if filters < 1 or not hidden or min(hidden) < 1:
        raise BadInput(
            f"expected filters and at least one hidden layer, none empty; found {filters}, {hidden}"
        )
    sizes = Sizes(len(species), features, filters, gaussians, interactions, hidden)

    @jax.jit
    def prepare(params, batches):
        old = params["constants"]
        scale, shift = energy_scale_and_shift(batches, species, unit, jnp.result_type(float))
        new = {"scale": scale.astype(old["scale"].dtype), "shift": shift.astype(old["shift"].dtype)}
        return {**params, "constants": new}

    @jax.jit
    def rebase(params, batches):
        return _rebased(params, prepare(params, batches)["constants"])

    potential = local(
        partial(_atomic_energies, species, cutoff_A, gaussians),
        cutoff=cutoff_A,
        hops=interactions,
        init=partial(_initial, sizes),
        prepare=prepare,
        species=species,
    )
    return potential._replace(rebase=rebase)


def shifted_softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """σ(x) = ln(½ e^x + ½), which is 0 at 0; its derivative is the logistic function.

    >>> float(shifted_softplus(jnp.zeros(())))
    0.0
    """
    return _softplus_and_slope(x)[0]


@jax.custom_jvp
def _softplus_and_slope(x):
    """σ(x) and the logistic function, both from one exponential.

    With t = e^-|x|, ln ½(1 + t) = 2 artanh s, s = (t - 1)/(t + 3) between -1/3 and 0: in float32
    eight terms of its series are exact and take a third of the time of a logarithm.
    """
    t = jnp.exp(-jnp.abs(x))
    if x.dtype == jnp.float32:
        s = (t - 1.0) / (t + 3.0)
        logarithm = 2.0 * s * jnp.polyval(_ARTANH, s * s, unroll=len(_ARTANH))
    else:
        logarithm = jnp.log(0.5 + 0.5 * t)
    logistic = 1.0 / (1.0 + t)
    return jnp.maximum(x, 0.0) + logarithm, jnp.where(x >= 0, logistic, t * logistic)


_ARTANH = np.array([1 / 15, 1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0], np.float32)


@_softplus_and_slope.defjvp
def _(primals, tangents):
    (x,), (along,) = primals, tangents
    value, slope = _softplus_and_slope(x)
    return (value, slope), (slope * along, slope * (1.0 - slope) * along)


def _check(species, cutoff, features, gaussians, interactions, unit):
    check_species(species)
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise BadInput(f"cutoff_A must be a positive length in Å, found {cutoff}")
    if features < 2 or gaussians < 2 or interactions < 1:
        raise BadInput(
            "expected features and gaussians of at least 2 and at least 1 of interactions, "
            f"found {features}, {gaussians} and {interactions}"
        )
    check_unit(unit)


def _atomic_energies(species, cutoff, gaussians, params: Params, env: Environment):
    params = jax.tree.map(lambda leaf: leaf.astype(env.vectors.dtype), params)
    body, constants = params["body"], params["constants"]
    # A one-hot product instead of a gather, whose backward pass is a scatter.
    kinds = jnp.stack([env.species == z for z in species], axis=1).astype(env.vectors.dtype)
    x = kinds @ body["embedding"]
    listen = by_blocks if env.species.shape[0] > FEW_ATOMS else lambda function: function
    for block in body["interactions"]:
        heard = listen(partial(_heard, species, cutoff, gaussians, block, x @ block["inward"]))
        x = x + _dense(
            block["outward"][1], shifted_softplus(_dense(block["outward"][0], heard(env)))
        )
    for layer in body["output"]:
        x = shifted_softplus(_dense(layer, x))
    output = x @ params["readout"]["weights"] + kinds @ body["bias"]
    return kinds @ constants["scale"] * output + kinds @ constants["shift"]


def _heard(species, cutoff, gaussians, block, said, env: Environment):
    """Σ_j (U x_j) ∘ W(r_ij) of some atoms, (rows, filters); `said` holds U x of all."""
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    known = jnp.any(jnp.stack([env.neighbor_species == z for z in species]), axis=0)
    inside = known & (squares < cutoff * cutoff)
    apart = inside & (squares > 0)
    distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
    # What pads is put at the cutoff, where filters are 0: any row will do.
    distances = jnp.where(inside, distances, cutoff)
    filters = _filters(cutoff, gaussians, block["filter"], distances)
    return jnp.sum(said.at[env.neighbors].get(mode="clip") * filters, axis=1)


def _filters_anew(cutoff, gaussians, layers, distances):
    """W(r), (rows, neighbors, filters)."""
    centers = jnp.arange(gaussians, dtype=distances.dtype)
    scaled = distances[..., None] * ((gaussians - 1) / cutoff)
    near = jnp.exp(-0.5 * (scaled - centers[None, None]) ** 2)
    found = _dense(layers[1], shifted_softplus(_dense(layers[0], near)))
    fades = jnp.where(distances < cutoff, fade(distances * distances, cutoff), 0.0)
    return found * fades[..., None]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _filters(cutoff, gaussians, layers, distances):
    """`_filters_anew`, with slopes along r that are computed on the way there.

    Filters depend on one number: to follow it forward costs one more pass and keeps one number for
    each filter, where the way back would keep all layers.
    """
    return _filters_anew(cutoff, gaussians, layers, distances)


@partial(_filters.defjvp, symbolic_zeros=True)
def _(cutoff, gaussians, primals, tangents):
    (layers, distances), (of_layers, along) = primals, tangents
    anew = partial(_filters_anew, cutoff, gaussians)
    value, slope = jax.jvp(partial(anew, layers), (distances,), (jnp.ones_like(distances),))
    change = slope * instantiated(distances, along)[..., None]
    if not all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(of_layers)):
        moves = jax.tree.map(instantiated, layers, of_layers)
        change = change + jax.jvp(lambda given: anew(given, distances), (layers,), (moves,))[1]
    return value, change


def _dense(layer, x):
    """x · weights + biases along the last axis."""
    biases = layer["biases"]
    return x @ layer["weights"] + biases.reshape((1,) * (x.ndim - 1) + biases.shape)


class Sizes(NamedTuple):
    """How many of everything there are; `hidden` are widths of layers."""

    kinds: int
    features: int
    filters: int
    gaussians: int
    interactions: int
    hidden: tuple[int, ...]


def _initial(sizes: Sizes, key):
    """As SchNetPack: normal embeddings, weights uniform within ±[6/(inputs + outputs)]^½."""
    kinds, features, filters, gaussians, interactions, hidden = sizes
    names = ["embedding", "output", "readout", *(f"block {i}" for i in range(interactions))]
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def weights(key, inputs, outputs):
        reach = math.sqrt(6.0 / (inputs + outputs))
        return jax.random.uniform(key, (inputs, outputs), minval=-reach, maxval=reach)

    def layer(key, inputs, outputs):
        return {"weights": weights(key, inputs, outputs), "biases": jnp.zeros(outputs)}

    def block(key):
        each = jax.random.split(key, 5)
        first, second = layer(each[1], gaussians, filters), layer(each[2], filters, filters)
        return {
            "inward": weights(each[0], features, filters),
            "filter": [first, second],
            "outward": [layer(each[3], filters, features), layer(each[4], features, features)],
        }

    above = jax.random.split(keys["output"], len(hidden))
    widths = zip(above, (features, *hidden), hidden, strict=False)
    return {
        "body": {
            "embedding": jax.random.normal(keys["embedding"], (kinds, features)),
            "interactions": [block(keys[f"block {i}"]) for i in range(interactions)],
            "output": [layer(key, inputs, outputs) for key, inputs, outputs in widths],
            "bias": jnp.zeros(kinds),
        },
        "readout": {"weights": weights(keys["readout"], hidden[-1], 1)[:, 0]},
        "constants": {"scale": jnp.ones(kinds), "shift": jnp.zeros(kinds)},
    }


def _rebased(params, new):
    """The same function on new constants: the last layer takes up the difference."""
    old, body = params["constants"], params["body"]
    ratio = old["scale"] / new["scale"]
    bias = ratio * body["bias"] + (old["shift"] - new["shift"]) / new["scale"]
    # One unit serves all elements, so that one ratio does.
    readout = {"weights": ratio[0] * params["readout"]["weights"]}
    return {"body": {**body, "bias": bias}, "readout": readout, "constants": new}
