"""ANI potentials: symmetry functions of angles and distances, one deep network per element.

    E_i = s [w_Z · h_Z(G_i) + b_Z] + e_Z

G_i is the descriptor of `ani_functions`, h_Z the last hidden layer of element Z, s and e_Z the unit
and the zero of energy, which come from the training data and are never trained. The elements have
networks of different widths; the descriptor is not normalized unless asked for.

J. S. Smith, O. Isayev and A. E. Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A;
C. Devereux et al., J. Chem. Theory Comput. 16, 4192 (2020), doi 10.1021/acs.jctc.0c00121 (ANI-2x).
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.potentials.ani_functions import ani_functions
from alj.potentials.atomistic import EnergyUnit, check_unit, energy_scale_and_shift, input_moments
from alj.potentials.combine import local
from alj.potentials.elements import ByElement, by_element
from alj.types import BadInput, Potential


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Φ(x), with Φ of erf: half the time of JAX's own, whose erfc is exact far below 0 as well.

    >>> float(gelu(jnp.zeros(())))
    0.0
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS = {"gelu": gelu, "celu": partial(jax.nn.celu, alpha=0.1)}

HIDDEN = {
    1: (256, 192, 160),
    6: (224, 192, 160),
    7: (192, 160, 128),
    8: (192, 160, 128),
}
"""Widths of the hidden layers of ANI-2x by atomic number; the other elements have 160, 128, 96."""


def ani(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.1,
    angular_cutoff_A: float = 3.5,
    hidden: Mapping[int | str, tuple[int, ...]] | None = None,
    activation: Literal["gelu", "celu"] = "gelu",
    normalize: bool = False,
    least_spread: float = 1e-6,
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """ANI network: the symmetry functions of ANI-2x, and a network for each element.

    Args:
        cutoff_A: atoms further away are not seen, in Å.
        angular_cutoff_A: atoms further away form no angles, in Å.
        hidden: widths of the hidden layers by atomic number, such as {1: [64, 64], 6: [96, 64]};
            what is not named has the widths of ANI-2x.
        activation: gelu, or celu with α = 0.1, as in ANI-2x itself.
        normalize: shift and scale the symmetry functions to mean 0 and spread 1 over the training
            data; ANI does not.
        least_spread: smallest spread that is scaled to 1. Of few training data some functions vary
            by next to nothing; scaled up, the first structure that is different explodes.
        energy_unit_min_eV: least unit of the networks' output, in eV per atom.
        energy_unit_max_eV: largest unit of the networks' output, in eV per atom.

    Raises BadInput for settings out of range.
    """
    unit = EnergyUnit(energy_unit_min_eV, energy_unit_max_eV)
    _check(activation, unit)
    if not 0 < least_spread < 1:
        raise BadInput(f"least_spread: expected a number between 0 and 1, found {least_spread}")
    descriptor = ani_functions(species, cutoff_A=cutoff_A, angular_cutoff_A=angular_cutoff_A)
    widths = [(descriptor.width, *each) for each in _widths(species, hidden or {})]
    act, least = ACTIVATIONS[activation], least_spread if normalize else None

    def describe(env):
        of = jnp.stack([env.species == z for z in species], axis=1)
        return ByElement(descriptor.function(env), of)

    def network(kind, params, x):
        constants, body = params["constants"], params["body"]
        if normalize:
            x = (x - constants["mean"][kind][None]) / constants["std"][kind][None]
        for layer in body["layers"][kind]:
            x = act(x @ layer["weights"] + layer["biases"][None])
        output = x @ params["readout"]["weights"][kind] + body["bias"][kind]
        return constants["scale"][kind] * output + constants["shift"][kind]

    networks = [partial(network, kind) for kind in range(len(species))]

    def evaluate(params, description):
        params = jax.tree.map(lambda leaf: leaf.astype(description.inputs.dtype), params)
        return by_element(description, networks, params)

    @jax.jit
    def prepare(params, batches):
        return _prepared(params, batches, descriptor, species, unit, least)

    @jax.jit
    def rebase(params, batches):
        new = _prepared(params, batches, descriptor, species, unit, least)["constants"]
        return _rebased(params, new)

    potential = local(
        lambda params, env: evaluate(params, describe(env)),
        cutoff=cutoff_A,
        init=lambda key: _initial(key, widths),
        prepare=prepare,
        species=species,
        describe=describe,
        evaluate=evaluate,
    )
    return potential._replace(rebase=rebase)


def _check(activation, unit):
    if activation not in ACTIVATIONS:
        raise BadInput(f"activation must be one of {sorted(ACTIVATIONS)}, found {activation!r}")
    check_unit(unit)


def _widths(species, hidden):
    """The hidden widths of every element; keys may be numbers or, from a file, their text."""
    given = {str(key): tuple(value) for key, value in hidden.items()}
    unknown = set(given) - {str(z) for z in species}
    if unknown:
        raise BadInput(
            f"hidden: expected atomic numbers among {sorted(species)}, found {sorted(unknown)}"
        )
    if any(not each or min(each) < 1 for each in given.values()):
        raise BadInput(f"hidden must list at least one layer width of at least 1, found {given}")
    return [given.get(str(z), HIDDEN.get(z, (160, 128, 96))) for z in species]


def _initial(key, widths):
    """LeCun normal weights, so that the spread of signals is kept; zero biases.

    The symmetry functions of a molecule are of the size 0.1 and mostly 0: networks of them start
    small, which is what an energy unit of the training data's spread asks for.
    """
    layers, readout = [], []
    for kind, width in enumerate(widths):
        keys = jax.random.split(jax.random.fold_in(key, kind), len(width))
        layers.append(
            [
                {
                    "weights": jax.random.normal(keys[i], (n, m)) / math.sqrt(n),
                    "biases": jnp.zeros(m),
                }
                for i, (n, m) in enumerate(pairwise(width))
            ]
        )
        readout.append(jax.random.normal(keys[-1], (width[-1],)) / math.sqrt(width[-1]))
    kinds, inputs = len(widths), widths[0][0]
    constants = {
        "mean": jnp.zeros((kinds, inputs)),
        "std": jnp.ones((kinds, inputs)),
        "scale": jnp.ones(kinds),
        "shift": jnp.zeros(kinds),
    }
    return {
        "body": {"layers": layers, "bias": jnp.zeros(kinds)},
        "readout": {"weights": readout},
        "constants": constants,
    }


def _prepared(params, batches, descriptor, species, unit, least):
    """Params with the constants of the batches; padding and missing energies are ignored.

    Inputs are normalized where there is a least spread.
    """
    wide = jnp.result_type(float)
    scale, shift = energy_scale_and_shift(batches, species, unit, wide)
    constants = {"scale": scale, "shift": shift}
    if least is not None:
        mean, std = input_moments(batches, descriptor, species, wide)
        constants |= {"mean": mean, "std": jnp.maximum(std, least)}
    old = params["constants"]
    new = {name: value.astype(old[name].dtype) for name, value in constants.items()}
    return {**params, "constants": {**old, **new}}


def _rebased(params, new):
    """The same function on new constants: the first and the last layer take up the difference."""
    old, body = params["constants"], params["body"]
    layers = []
    for kind, (first, *rest) in enumerate(body["layers"]):
        ratio = new["std"][kind] / old["std"][kind]
        move = (new["mean"][kind] - old["mean"][kind]) / old["std"][kind]
        weights = first["weights"] * ratio[:, None]
        biases = first["biases"] + move @ first["weights"]
        layers.append([{"weights": weights, "biases": biases}, *rest])
    output = old["scale"] * body["bias"] + old["shift"] - new["shift"]
    factors = old["scale"] / new["scale"]
    readout = [factors[kind] * last for kind, last in enumerate(params["readout"]["weights"])]
    return {
        "body": {"layers": layers, "bias": output / new["scale"]},
        "readout": {"weights": readout},
        "constants": new,
    }
