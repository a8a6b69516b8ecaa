"""Neural potentials of atoms: a fixed descriptor, one small network per element, summed over atoms.

    E_i = s_Z [w_Z · h_Z(x_i) + b_Z] + e_Z,   x_i = (G_i - mean_Z) / std_Z

G_i is the descriptor of atom i of element Z, h_Z the last hidden layer, s_Z and e_Z the unit and
the zero of energy. Mean, std, unit and zero come from the training data and are never trained.

J. Behler and M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007), doi 10.1103/PhysRevLett.98.146401.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.potentials.combine import local
from alj.potentials.symmetry_functions import (
    RADIAL_ETAS,
    Descriptor,
    angular_table,
    check_species,
    symmetry_functions,
)
from alj.types import BadInput, Batch, HostKernel, Potential

ACTIVATIONS = {"tanh": jnp.tanh, "silu": jax.nn.silu, "sigmoid": jax.nn.sigmoid}


class EnergyUnit(NamedTuple):
    """Limits in eV of the energy unit s, which otherwise is the spread of the training energies."""

    smallest: float = 0.02
    largest: float = 0.15


USUAL_UNIT = EnergyUnit()


def check_unit(unit: EnergyUnit) -> None:
    """Raises BadInput for limits that are none."""
    if not (0 < unit.smallest <= unit.largest and math.isfinite(unit.largest)):
        raise BadInput(
            "energy units must be finite with 0 < energy_unit_min_eV <= energy_unit_max_eV, "
            f"found {unit.smallest} and {unit.largest}"
        )


def behler_parrinello(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 3.5,
    hidden: tuple[int, ...] = (10, 10),
    activation: str = "tanh",
    angular: str = "G5",
    regular_table: bool = False,
    energy_unit_min_eV: float = 0.02,
    energy_unit_max_eV: float = 0.15,
) -> Potential:
    """Behler-Parrinello network: 25 radial and 25 angular symmetry functions per element (pair).

    Args:
        cutoff_A: atoms further away are not seen, in Å.
        hidden: widths of the hidden layers.
        activation: tanh, silu or sigmoid.
        angular: G5, or G4, which also fades with the distance between the two neighbors.
        regular_table: give the twelfth angular function λ = -1, as the pattern of the published
            table suggests, instead of +1 as printed.
        energy_unit_min_eV: least unit of the network's output, in eV per atom.
        energy_unit_max_eV: largest unit of the network's output, in eV per atom; a few extreme
            training energies must not set the scale.

    Raises BadInput for settings out of range.
    """
    table = angular_table(regular=regular_table)
    descriptor = symmetry_functions(species, cutoff_A=cutoff_A, angular=table, form=angular)

    def kernel():
        from alj.potentials.behler_kernel import behler_kernel

        return behler_kernel(species[0], cutoff_A, RADIAL_ETAS, table, hidden, activation)

    return atomistic(
        descriptor,
        species,
        hidden=hidden,
        activation=activation,
        unit=EnergyUnit(energy_unit_min_eV, energy_unit_max_eV),
        kernel=kernel if angular == "G5" and len(species) == 1 else None,
    )


def atomistic(
    descriptor: Descriptor,
    species: tuple[int, ...],
    *,
    hidden: tuple[int, ...] = (10, 10),
    activation: str = "tanh",
    unit: EnergyUnit = USUAL_UNIT,
    kernel: Callable[[], HostKernel] | None = None,
) -> Potential:
    """A network per element on any descriptor.

    Params: `body` holds the hidden layers and the output bias, `readout` the output weights, each
    with a leading axis over `species`.
    """
    _check(species, hidden, activation, unit)
    act = ACTIVATIONS[activation]

    def describe(env):
        return descriptor.function(env), env.species

    def evaluate(params, description):
        inputs, of = description
        params = jax.tree.map(lambda leaf: leaf.astype(inputs.dtype), params)
        body, constants = params["body"], params["constants"]
        # One-hot products instead of gathers, whose backward pass is a scatter.
        kinds = jnp.stack([of == z for z in species], axis=1).astype(inputs.dtype)
        x = (inputs - kinds @ constants["mean"]) * (kinds @ (1.0 / constants["std"]))
        for layer in body["layers"]:
            x = act(_by_kind(kinds, x, layer["weights"]) + kinds @ layer["biases"])
        output = jnp.sum(x * (kinds @ params["readout"]["weights"]), axis=1) + kinds @ body["bias"]
        return kinds @ constants["scale"] * output + kinds @ constants["shift"]

    @jax.jit
    def prepare(params, batches):
        return _prepared(params, batches, descriptor, species, unit)

    @jax.jit
    def rebase(params, batches):
        return _rebased(params, _prepared(params, batches, descriptor, species, unit)["constants"])

    potential = local(
        lambda params, env: evaluate(params, describe(env)),
        cutoff=descriptor.cutoff,
        init=lambda key: _initial(key, len(species), (descriptor.width, *hidden)),
        prepare=prepare,
        species=species,
        describe=describe,
        evaluate=evaluate,
        kernel=kernel,
    )
    return potential._replace(rebase=rebase)


def _check(species, hidden, activation, unit):
    check_species(species)
    if not hidden or min(hidden) < 1:
        raise BadInput(f"hidden must list at least one layer width of at least 1, found {hidden}")
    if activation not in ACTIVATIONS:
        raise BadInput(f"activation must be one of {sorted(ACTIVATIONS)}, found {activation!r}")
    check_unit(unit)


def _by_kind(kinds, x, weights):
    """x @ weights[kind of each row]; densely over all kinds, which are few."""
    return sum(kinds[:, z, None] * (x @ weights[z]) for z in range(weights.shape[0]))


def _initial(key, kinds, widths):
    """LeCun normal weights, so that every layer's input has about unit variance; zero biases."""
    keys = jax.random.split(key, len(widths))
    layers = [
        {
            "weights": jax.random.normal(keys[i], (kinds, n, m)) / math.sqrt(n),
            "biases": jnp.zeros((kinds, m)),
        }
        for i, (n, m) in enumerate(pairwise(widths))
    ]
    readout = jax.random.normal(keys[-1], (kinds, widths[-1])) / math.sqrt(widths[-1])
    constants = {
        "mean": jnp.zeros((kinds, widths[0])),
        "std": jnp.ones((kinds, widths[0])),
        "scale": jnp.ones(kinds),
        "shift": jnp.zeros(kinds),
    }
    return {
        "body": {"layers": layers, "bias": jnp.zeros(kinds)},
        "readout": {"weights": readout},
        "constants": constants,
    }


def _prepared(params, batches, descriptor, species, unit):
    """Params with the constants of the batches; padding and missing energies are ignored."""
    wide = jnp.result_type(float)
    mean, std = input_moments(batches, descriptor, species, wide)
    scale, shift = energy_scale_and_shift(batches, species, unit, wide)
    constants = {"mean": mean, "std": std, "scale": scale, "shift": shift}
    old = params["constants"]
    return {**params, "constants": {name: constants[name].astype(old[name].dtype) for name in old}}


def _rebased(params, constants):
    """The same function on new constants: the first and the last layer take up the difference."""
    old, first = params["constants"], params["body"]["layers"][0]
    weights = first["weights"] * (constants["std"] / old["std"])[..., None]
    move = (constants["mean"] - old["mean"]) / old["std"]
    biases = first["biases"] + jnp.sum(move[..., None] * first["weights"], axis=1)
    output = old["scale"] * params["body"]["bias"] + old["shift"] - constants["shift"]
    body = {
        "layers": [{"weights": weights, "biases": biases}, *params["body"]["layers"][1:]],
        "bias": output / constants["scale"],
    }
    readout = params["readout"]["weights"] * (old["scale"] / constants["scale"])[:, None]
    return {"body": body, "readout": {"weights": readout}, "constants": constants}


def input_moments(
    batches: tuple[Batch, ...], descriptor: Descriptor, species: tuple[int, ...], dtype: Any
) -> tuple[Float[Array, "kinds inputs"], Float[Array, "kinds inputs"]]:
    """Mean and standard deviation of a descriptor over the atoms of each element.

    Inputs that do not vary get the deviation 1; padded atoms and structures of weight 0 are left
    out.
    """
    rows = [_descriptor_rows(batch, descriptor, species, dtype) for batch in batches]
    inputs, kinds = (jnp.concatenate(parts) for parts in zip(*rows, strict=True))
    count = jnp.maximum(jnp.sum(kinds, axis=0), 1.0)[:, None]
    mean = kinds.T @ inputs / count
    squares = [
        jnp.sum(kinds[:, z, None] * (inputs - mean[z][None]) ** 2, axis=0) for z in range(len(mean))
    ]
    std = jnp.sqrt(jnp.stack(squares) / count)
    # A constant input carries only rounding noise, which must not be blown up.
    return mean, jnp.where(std > _CONSTANT * jnp.abs(mean), std, 1.0)


_CONSTANT = 1e-5


def _descriptor_rows(batch, descriptor, species, dtype):
    """Descriptors of all atoms of a batch, and which of the species each is (none: padding)."""

    def one(pair):
        structure, neighbors = pair
        return descriptor.function(environment(structure, neighbors, descriptor.cutoff))

    inputs = jax.lax.map(one, (batch.structures, batch.neighbors))
    of = jnp.where(batch.weights[:, None] > 0, batch.structures.species, 0)
    kinds = jnp.stack([of == z for z in species], axis=-1)
    inputs = jnp.where(jnp.any(kinds, axis=-1)[..., None], inputs, 0.0)
    return (
        inputs.reshape(-1, descriptor.width).astype(dtype),
        kinds.reshape(-1, len(species)).astype(dtype),
    )


def energy_scale_and_shift(
    batches: tuple[Batch, ...], species: tuple[int, ...], unit: EnergyUnit, dtype: Any
) -> tuple[Float[Array, " kinds"], Float[Array, " kinds"]]:
    """Unit s (eV, the same for all elements) and zero e_Z (eV) of atomic energies of each element.

    Weighted least squares of the energy per atom on the composition gives the zeros, the standard
    deviation of what remains the unit, within its limits. The solution is that of least norm around
    the mean energy per atom, so that a composition which never varies is no obstacle.
    """
    parts = []
    for batch in batches:
        of = batch.structures.species
        counts = jnp.stack([jnp.sum(of == z, axis=1) for z in species], axis=1).astype(dtype)
        atoms = jnp.maximum(jnp.sum(counts, axis=1), 1.0)
        known = (batch.weights > 0) & jnp.isfinite(batch.labels.energy)
        energies = jnp.where(known, batch.labels.energy.astype(dtype), 0.0) / atoms
        weights = jnp.where(known, batch.weights.astype(dtype), 0.0)
        parts.append((counts / atoms[:, None], energies, weights))
    fractions, energies, weights = (jnp.concatenate(each) for each in zip(*parts, strict=True))
    total = jnp.maximum(jnp.sum(weights), jnp.finfo(dtype).tiny)
    center = jnp.sum(weights * energies) / total
    weighted = fractions * (weights / total)[:, None]
    tolerance = float(jnp.finfo(dtype).eps) ** 0.5
    inverse = jnp.linalg.pinv(weighted.T @ fractions, rtol=tolerance, hermitian=True)
    shift = center + inverse @ (weighted.T @ (energies - center))
    residuals = energies - fractions @ shift
    std = jnp.sqrt(jnp.sum(weights * residuals**2) / total)
    scale = jnp.clip(std, unit.smallest, unit.largest)
    return jnp.full(len(species), scale), shift
