"""SchNet: messages between atoms through filters that are continuous functions of distance.

Atom i begins with the embedding x_i = a_Z of its element and hears from its neighbors T times,

    x_i ← x_i + V2 σ(V1 Σ_j (U x_j) ∘ W(r_ij) + c1) + c2,
    W(r) = f_c(r) [B2 σ(B1 g(r) + b1) + b2],   g_k(r) = exp[-(r - μ_k)²/2Δ²],

∘ multiplies element by element, σ(x) = ln(½ e^x + ½) is the shifted softplus, f_c the cosine cutoff
and the μ_k divide the range from 0 to the cutoff evenly, Δ apart. Every block has weights of its
own. Then

    E_i = s [w · σ(A x_i + a) + b_Z] + e_Z

with the unit s and the zeros e_Z of energy from the training data, never trained. Through T blocks
an atom feels others at T times the cutoff. As SchNetPack has it, but for b_Z, which there is one
number for all elements: with one for each, other constants can be taken up exactly (`rebase`).

K. T. Schütt, H. E. Sauceda, P.-J. Kindermans, A. Tkatchenko and K.-R. Müller, J. Chem. Phys. 148,
241722 (2018), doi 10.1063/1.5019779; K. T. Schütt et al., J. Chem. Theory Comput. 15, 448 (2019),
doi 10.1021/acs.jctc.8b00908 (SchNetPack).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.potentials.atomistic import EnergyUnit, check_unit, energy_scale_and_shift
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.symmetry_functions import check_species, fade
from alj.types import BadInput, Environment, Params, Potential


def schnet(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.0,
    features: int = 128,
    gaussians: int = 25,
    interactions: int = 3,
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """SchNet: a network that learns its own description of atoms, by messages between them.

    Args:
        cutoff_A: atoms further apart exchange no messages, in Å.
        features: numbers that describe an atom, and filters; half as many in the last layer.
        gaussians: functions of distance that the filters are made of.
        interactions: rounds of messages; forces reach so many times the cutoff.
        energy_unit_min_eV: least unit of the network's output, in eV per atom.
        energy_unit_max_eV: largest unit of the network's output, in eV per atom.

    Raises BadInput for settings out of range.
    """
    unit = EnergyUnit(energy_unit_min_eV, energy_unit_max_eV)
    _check(species, cutoff_A, features, gaussians, interactions, unit)

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
        init=lambda key: _initial(key, len(species), features, gaussians, interactions),
        prepare=prepare,
        species=species,
    )
    return potential._replace(rebase=rebase)


@jax.custom_jvp
def shifted_softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """σ(x) = ln(½ e^x + ½), which is 0 at 0; its derivative is the logistic function.

    >>> float(shifted_softplus(jnp.zeros(())))
    0.0
    """
    return jnp.maximum(x, 0.0) + jnp.log(0.5 + 0.5 * jnp.exp(-jnp.abs(x)))


@shifted_softplus.defjvp
def _(primals, tangents):
    (x,), (slope,) = primals, tangents
    return shifted_softplus(x), jax.nn.sigmoid(x) * slope


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
    for block in body["interactions"]:
        heard = by_blocks(partial(_heard, species, cutoff, gaussians, block, x @ block["inward"]))
        x = x + _dense(
            block["outward"][1], shifted_softplus(_dense(block["outward"][0], heard(env)))
        )
    last = shifted_softplus(_dense(body["output"], x))
    output = last @ params["readout"]["weights"] + kinds @ body["bias"]
    return kinds @ constants["scale"] * output + kinds @ constants["shift"]


def _heard(species, cutoff, gaussians, block, said, env: Environment):
    """Σ_j (U x_j) ∘ W(r_ij) of some atoms, (rows, features); `said` holds U x of all."""
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    known = jnp.any(jnp.stack([env.neighbor_species == z for z in species]), axis=0)
    inside = known & (squares < cutoff * cutoff)
    apart = inside & (squares > 0)
    distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
    fades = jnp.where(inside, fade(jnp.where(inside, squares, 0.0), cutoff), 0.0)
    spacing = cutoff / (gaussians - 1)
    centers = jnp.arange(gaussians, dtype=squares.dtype)
    near = jnp.exp(-0.5 * (distances[..., None] / spacing - centers[None, None]) ** 2)
    filters = _dense(block["filter"][1], shifted_softplus(_dense(block["filter"][0], near)))
    # What pads has a fade of 0: any row will do.
    messages = said.at[env.neighbors].get(mode="clip") * filters
    return jnp.sum(messages * fades[..., None], axis=1)


def _dense(layer, x):
    """x · weights + biases along the last axis."""
    biases = layer["biases"]
    return x @ layer["weights"] + biases.reshape((1,) * (x.ndim - 1) + biases.shape)


def _initial(key, kinds, features, gaussians, interactions):
    """As SchNetPack: normal embeddings, weights uniform within ±[6/(inputs + outputs)]^½."""
    names = ["embedding", "output", "readout", *(f"block {i}" for i in range(interactions))]
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def weights(key, inputs, outputs):
        reach = math.sqrt(6.0 / (inputs + outputs))
        return jax.random.uniform(key, (inputs, outputs), minval=-reach, maxval=reach)

    def layer(key, inputs, outputs):
        return {"weights": weights(key, inputs, outputs), "biases": jnp.zeros(outputs)}

    def block(key):
        each = jax.random.split(key, 5)
        first, second = layer(each[1], gaussians, features), layer(each[2], features, features)
        return {
            "inward": weights(each[0], features, features),
            "filter": [first, second],
            "outward": [layer(each[3], features, features), layer(each[4], features, features)],
        }

    half = features // 2
    return {
        "body": {
            "embedding": jax.random.normal(keys["embedding"], (kinds, features)),
            "interactions": [block(keys[f"block {i}"]) for i in range(interactions)],
            "output": layer(keys["output"], features, half),
            "bias": jnp.zeros(kinds),
        },
        "readout": {"weights": weights(keys["readout"], half, 1)[:, 0]},
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
