"""Messages that have directions: an equivariant network, each layer a local cluster expansion.

An atom is described by F features of every degree l (`tensor_products`). It begins with scalars,
h_i,0 = a_Z of its element, and hears from its neighbors T times,

    m_i,l = Σ_j [R_l(r_ij) ∘ Y_l(r_ij) s_j,0 + R'_l(r_ij) ∘ s_j,l],   s = h U,   l > 0,
    m_i,0 = Σ_j [R_0(r_ij) ∘ s_j,0 + Σ_(l > 0) R"_l(r_ij) ∘ [Y_l(r_ij) ⊗ s_j,l]_0],
    R(r) = Σ_k W_k g_k(r)/N,   g_k(r) = f_c(r) sin(kπr/r_c)/(πr/r_c),

where ∘ multiplies feature by feature and f_c is the cosine cutoff, with which g_k, a Bessel
function, ends in a zero of third order at r_c. N is the root mean square of Σ_j g_k Y_l in the
training data (of degree l of Y), so that messages begin with about unit variance. The first knows
elements only: R, one for each element, takes the place of s. Sums over neighbors come before the
weights W: they are matrix products. What two degrees above 0 make of each other is left to products
of messages, once an atom rather than once a pair, with weights w for every path
and the element of i,

    p = m V,   q_l = Σ_(l1 l2) w ∘ [p_l1 ⊗ p_l2]_l,   t_l = Σ_(l1 l2) w' ∘ [q_l1 ⊗ p_l2]_l,

which know of angles (and t of dihedrals), and are added up with what the atom was,

    y = h A + p B + q C + t D + c,   h ← (h + γ(y) O)/√2,   γ(y)_0 = silu(y_0), γ(y)_l = σ(y_0) y_l.

All matrices mix features, one for each degree. Of the last layer scalars only are kept, and

    E_i = s [w · silu(A h_i,0 + a) + b_Z] + e_Z

with the unit s and the zeros e_Z of energy from the training data. Through T layers an atom feels
others at T times the cutoff. Energies do not change with rotations and reflections: there are no
pseudotensors.

O. T. Unke and H. Maennel, arXiv:2401.07595 (2024) (e3x, whose coefficients these are); S. Batzner
et al., Nat. Commun. 13, 2453 (2022), doi 10.1038/s41467-022-29939-5 (NequIP: messages, Bessel
functions, gates); I. Batatia et al., Adv. Neural Inf. Process. Syst. 35 (2022), arXiv:2206.07697
(MACE: products of messages); J. Gasteiger, J. Groß and S. Günnemann, ICLR (2020), arXiv:2003.03123.
"""

import math
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alj.geometry.environment import environment
from alj.potentials.atomistic import EnergyUnit, check_unit, energy_scale_and_shift
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.symmetry_functions import check_species, fade
from alj.potentials.tensor_products import couple, harmonics, paths, split
from alj.types import BadInput, Environment, Params, Potential


class _Shape(NamedTuple):
    """What the network is made of."""

    species: tuple[int, ...]
    cutoff: float
    features: int
    max_degree: int
    interactions: int
    radial_functions: int
    correlation: int


def equivariant(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.0,
    features: int = 32,
    max_degree: int = 2,
    interactions: int = 2,
    radial_functions: int = 8,
    correlation: int = 2,
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """Equivariant network: messages with directions, multiplied with each other. The most accurate.

    Args:
        cutoff_A: atoms further apart exchange no messages, in Å.
        features: numbers of each degree and order that describe an atom, and of the last layer.
        max_degree: highest degree of spherical harmonics; 1: vectors, 2: also quadrupoles.
        interactions: rounds of messages; forces reach so many times the cutoff.
        radial_functions: Bessel functions of distance.
        correlation: messages multiplied with each other at most, 1 to 3; 2 tells angles in one
            round, 3 dihedrals.
        energy_unit_min_eV: least unit of the network's output, in eV per atom.
        energy_unit_max_eV: largest unit of the network's output, in eV per atom.

    Raises BadInput for settings out of range.
    """
    unit = EnergyUnit(energy_unit_min_eV, energy_unit_max_eV)
    shape = _Shape(
        species, cutoff_A, features, max_degree, interactions, radial_functions, correlation
    )
    _check(shape, unit)

    @jax.jit
    def prepare(params, batches):
        wide = jnp.result_type(float)
        scale, shift = energy_scale_and_shift(batches, species, unit, wide)
        new = {"scale": scale, "shift": shift, "density": _density_scale(batches, shape, wide)}
        old = params["constants"]
        return {**params, "constants": {name: new[name].astype(old[name].dtype) for name in old}}

    @jax.jit
    def rebase(params, batches):
        return _rebased(params, prepare(params, batches)["constants"])

    potential = local(
        partial(_atomic_energies, shape),
        cutoff=cutoff_A,
        hops=interactions,
        init=partial(_initial, shape),
        prepare=prepare,
        species=species,
    )
    return potential._replace(rebase=rebase)


def _check(shape, unit):
    species = shape.species
    check_species(species)
    if not (math.isfinite(shape.cutoff) and shape.cutoff > 0):
        raise BadInput(f"cutoff_A must be a positive length in Å, found {shape.cutoff}")
    if min(shape.features, shape.radial_functions, shape.interactions) < 1:
        raise BadInput(
            "expected at least 1 of features, radial_functions and interactions, found "
            f"{shape.features}, {shape.radial_functions} and {shape.interactions}"
        )
    if not 0 <= shape.max_degree <= 4 or not 1 <= shape.correlation <= 3:
        raise BadInput(
            "expected a max_degree of 0 to 4 and a correlation of 1 to 3, found "
            f"{shape.max_degree} and {shape.correlation}"
        )
    check_unit(unit)


def _atomic_energies(shape, params: Params, env: Environment):
    params = jax.tree.map(lambda leaf: leaf.astype(env.vectors.dtype), params)
    body, constants = params["body"], params["constants"]
    # One-hot products instead of gathers, whose backward pass is a scatter.
    kinds = _one_hot(env.species, shape.species, env.vectors.dtype)
    hidden = _hidden(shape, params, env)
    last = jax.nn.silu(
        hidden[-1][0][:, 0] @ body["output"]["weights"] + body["output"]["biases"][None]
    )
    output = last @ params["readout"]["weights"] + kinds @ body["bias"]
    return kinds @ constants["scale"] * output + kinds @ constants["shift"]


def _hidden(shape, params, env):
    """h after each layer, by degrees: (rows, 2l + 1, features)."""
    body, spread = params["body"], params["constants"]["density"]
    kinds = _one_hot(env.species, shape.species, env.vectors.dtype)
    hidden, found = [(kinds @ body["embedding"])[:, None]], []
    for number, block in enumerate(body["interactions"]):
        if number == 0:
            density = split(by_blocks(partial(_density, shape))(env))
            weights = block["radial"] / spread[:, None, None]
            heard = _mixed(weights, density)
        else:
            said = jnp.concatenate(_mixed(block["said"], hidden), axis=1)
            listen = partial(_heard, shape, block["radial"], spread, said)
            heard = split(by_blocks(listen)(env))
        last = number + 1 == len(body["interactions"])
        hidden = _updated(shape, block, kinds, hidden, heard, 0 if last else shape.max_degree)
        found.append(hidden)
    return found


def _one_hot(of, species, dtype):
    return jnp.stack([of == z for z in species], axis=-1).astype(dtype)


def _pairs(shape, env: Environment):
    """g_k(r) (rows, neighbors, k), 0 beyond the cutoff, and Y_l(r) by degrees."""
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    known = jnp.any(_one_hot(env.neighbor_species, shape.species, bool), axis=-1)
    inside = known & (squares < shape.cutoff**2)
    # Two atoms in one place have the values of r = 0, no direction and no slope.
    apart = inside & (squares > 0)
    distances = jnp.sqrt(jnp.where(apart, squares, 1.0))
    directions = jnp.where(apart[..., None], env.vectors / distances[..., None], 0.0)
    fades = jnp.where(inside, fade(jnp.where(inside, squares, 0.0), shape.cutoff), 0.0)
    x = jnp.where(apart, distances, 0.0) * (math.pi / shape.cutoff)
    radial = fades[..., None] * _bessel(x, shape.radial_functions)
    return radial, harmonics(directions, shape.max_degree)


def _bessel(x, count):
    """sin(kx)/x for k = 1 … `count`, by the recurrence for sines of multiples."""
    twice = 2.0 * jnp.cos(x)
    found = [jnp.zeros_like(x), jnp.sinc(x / math.pi)]
    for _ in range(1, count):
        found.append(twice * found[-1] - found[-2])
    return jnp.stack(found[1:], axis=-1)


def _density(shape, env: Environment):
    """Σ_j g_k Y_lm over the neighbors of each element, (rows, degrees and orders, kinds · k)."""
    radial, angular = _pairs(shape, env)
    kinds = _one_hot(env.neighbor_species, shape.species, radial.dtype)
    each = (kinds[..., :, None] * radial[..., None, :]).reshape(*radial.shape[:2], -1)
    return jnp.einsum("ajm,ajk->amk", jnp.concatenate(angular, axis=-1), each)


def _heard(shape, weights, spread, said, env: Environment):
    """What atoms hear from neighbors who know more than their element; `said` is h U of all."""
    radial, angular = _pairs(shape, env)
    # What pads has radial functions of 0: any row will do.
    words = said.at[env.neighbors].get(mode="clip")
    ahead = jnp.concatenate(angular, axis=-1)
    # Order by order: as one sum it becomes a small matrix product per pair, five times slower.
    each = [ahead[..., m, None] * words[:, :, m] for m in range(words.shape[2])]
    degrees = range(1, shape.max_degree + 1)
    dots = [reduce(jnp.add, each[d**2 : (d + 1) ** 2])[:, :, None] for d in degrees]
    along = jnp.concatenate([words[:, :, 1:], *dots], axis=2)
    # Sums over neighbors are matrix products, before any weights: fewer numbers to weigh.
    pointed = (ahead[..., :, None] * radial[..., None, :]).reshape(*radial.shape[:2], -1)
    pointed = jnp.einsum("ajq,ajf->aqf", pointed, words[:, :, 0])
    pointed = split(pointed.reshape(pointed.shape[0], ahead.shape[-1], -1, words.shape[-1]))
    flat = along.reshape(*along.shape[:2], -1)
    carried = jnp.einsum("ajk,ajx->akx", radial, flat)
    carried = carried.reshape(*carried.shape[:2], -1, words.shape[-1])
    # Products and sums: as a contraction these would be many products of small matrices.
    heard = [
        jnp.sum(part * (weights["pointed"][degree] / spread[degree])[None, None], axis=2)
        for degree, part in enumerate(pointed)
    ]
    for degree in degrees:
        part = carried[:, :, degree**2 - 1 : (degree + 1) ** 2 - 1]
        filters = weights["carried"][degree - 1] / spread[0]
        heard[degree] += jnp.sum(part * filters[None, :, None], axis=1)
        part = carried[:, :, (shape.max_degree + 1) ** 2 - 2 + degree]
        filters = weights["met"][degree - 1] / (spread[degree] * math.sqrt(2 * degree + 1))
        heard[0] += jnp.sum(part * filters[None], axis=1)[:, None]
    return jnp.concatenate(heard, axis=1)


def _updated(shape, block, kinds, hidden, heard, top):
    """h of the next layer, up to degree `top`."""
    messages = _mixed(block["mix"], heard)
    terms = [
        _mixed(block["kept"], hidden[: top + 1]),
        _mixed(block["message"], messages[: top + 1]),
    ]
    product = messages
    for order, weights in enumerate(block["products"], start=2):
        largest = top if order == shape.correlation else shape.max_degree
        routes = _products(shape, order, largest)
        each = jnp.einsum("az,zpf->apf", kinds, weights)
        parts: list = [[] for _ in range(largest + 1)]
        for number, (one, other, degree) in enumerate(routes):
            found = couple(product[one], messages[other], degree)
            parts[degree].append(found * each[:, number, None])
        product = [reduce(jnp.add, found) for found in parts]
        terms.append(_mixed(block["product"][order - 2], product[: top + 1]))
    y = [sum(term[d] for term in terms if d < len(term)) for d in range(top + 1)]
    y[0] = y[0] + block["bias"][None, None]
    # Factors that bring the second moments of what a unit normal gives back to 1.
    gates = [_SILU * jax.nn.silu(y[0])]
    if top > 0:
        gates += [_GATE * jax.nn.sigmoid(y[0]) * each for each in y[1:]]
    new = _mixed(block["out"], gates)
    half = math.sqrt(0.5)
    return [half * (hidden[d] + x) if d < len(hidden) else x for d, x in enumerate(new)]


_SILU = 1.6765
"""1 over the root mean square of silu(x) for a unit normal x."""

_GATE = 1.8467
"""The same of the logistic function."""


def _products(shape, order, largest):
    """Paths of a product of messages; the first is one of a message with itself: l1 ≤ l2."""
    every = paths(shape.max_degree, shape.max_degree, largest)
    return [path for path in every if order > 2 or path[0] <= path[1]]


def _mixed(weights, x):
    """x · W of each degree."""
    return [part @ weights[degree] for degree, part in enumerate(x)]


def _initial(shape, key):
    """Normal weights such that signals have about unit variance in every layer."""
    kinds, features = len(shape.species), shape.features
    names = ["embedding", "output", "readout", *(f"block {i}" for i in range(shape.interactions))]
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    output = _normal(keys["output"], features, features, inputs=features)
    return {
        "body": {
            "embedding": _normal(keys["embedding"], kinds, features, inputs=1),
            "interactions": [
                _initial_block(shape, number, keys[f"block {number}"])
                for number in range(shape.interactions)
            ],
            "output": {"weights": output, "biases": jnp.zeros(features)},
            "bias": jnp.zeros(kinds),
        },
        "readout": {"weights": _normal(keys["readout"], features, inputs=features)},
        "constants": {
            "scale": jnp.ones(kinds),
            "shift": jnp.zeros(kinds),
            "density": jnp.ones(shape.max_degree + 1),
        },
    }


def _initial_block(shape, number, key):
    keys = iter(jax.random.split(key, 12))
    kinds, features, radials = len(shape.species), shape.features, shape.radial_functions
    every, last = shape.max_degree + 1, number + 1 == shape.interactions
    top, terms = 1 if last else every, 1 + shape.correlation

    def mix(degrees, terms=1):
        return _normal(next(keys), degrees, features, features, inputs=features * terms)

    def filters(degrees, inputs):
        return _normal(next(keys), degrees, radials, features, inputs=inputs * radials)

    if number == 0:
        shown = _normal(next(keys), every, kinds * radials, features, inputs=radials)
        listening = {"radial": shown}
    else:
        # Every degree of a message hears of two kinds.
        parts = {"pointed": filters(every, 2), "carried": filters(every - 1, 2)}
        parts["met"] = filters(every - 1, 2 * max(every - 1, 1))
        listening = {"radial": parts, "said": mix(every)}
    products = []
    for order in range(2, shape.correlation + 1):
        routes = _products(shape, order, top - 1 if order == shape.correlation else every - 1)
        size = [_moment(path, order) * sum(p[2] == path[2] for p in routes) for path in routes]
        weights = _normal(next(keys), kinds, len(routes), features, inputs=1)
        products.append(weights / jnp.sqrt(jnp.array(size))[None, :, None])
    return {
        **listening,
        "mix": mix(every),
        "kept": mix(1 if number == 0 else top, terms),
        "message": mix(top, terms),
        "products": products,
        "product": [mix(top, terms) for _ in products],
        "bias": jnp.zeros(features),
        "out": mix(top),
    }


def _normal(key, *size, inputs):
    return jax.random.normal(key, size) / math.sqrt(inputs)


def _moment(route, order):
    """Mean square of [p ⊗ p]_l of independent unit normals p."""
    one, other, degree = route
    if order > 2 or one != other:
        return 1.0
    return 2.0 * one + 3.0 if degree == 0 else 2.0


def _density_scale(batches, shape, dtype):
    """Root mean square over atoms of the density, of each degree, (degrees,); 1 where it is 0."""

    def one(pair):
        structure, neighbors = pair
        density = _density(shape, environment(structure, neighbors, shape.cutoff))
        squares = [
            jnp.mean(jnp.sum(part**2, -1), 1) / shape.radial_functions for part in split(density)
        ]
        return jnp.stack(squares, axis=-1).astype(dtype)

    total, count = jnp.zeros(shape.max_degree + 1, dtype), 0.0
    for batch in batches:
        squares = jax.lax.map(one, (batch.structures, batch.neighbors))
        known = jnp.any(_one_hot(batch.structures.species, shape.species, bool), axis=-1)
        known = known & (batch.weights[:, None] > 0)
        total = total + jnp.sum(jnp.where(known[..., None], squares, 0.0), axis=(0, 1))
        count = count + jnp.sum(known)
    mean = total / jnp.maximum(count, 1.0)
    return jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1.0)), 1.0)


def _rebased(params, new):
    """The same function on new constants: the last layer takes up the difference."""
    old, body = params["constants"], params["body"]
    ratio = old["scale"] / new["scale"]
    bias = ratio * body["bias"] + (old["shift"] - new["shift"]) / new["scale"]
    # One unit serves all elements, so that one ratio does. Messages keep theirs.
    readout = {"weights": ratio[0] * params["readout"]["weights"]}
    constants = {**new, "density": old["density"]}
    return {"body": {**body, "bias": bias}, "readout": readout, "constants": constants}
