"""Everything derived once for all potentials: energies, forces, stress, features, committees, sums.

Functions take `(potential, params, structure, neighbors)` of one structure and one member; `vmap`
at the boundary. A committee is the same potential whose params have one more leading axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.geometry.periodic import volume
from alj.types import (
    Environment,
    HostKernel,
    Key,
    Neighbors,
    Params,
    Potential,
    ReadoutRows,
    Structure,
)

PARTS = ("body", "readout", "constants")
"""The parts of every params tree; `constants` are set by `prepare` and never trained."""


def local(
    atomic: Callable[[Params, Environment], Float[Array, " atoms"]],
    *,
    cutoff: float,
    init: Callable[[Key], Params] | None = None,
    prepare: Callable | None = None,
    hops: int = 1,
    species: tuple[int, ...] = (),
    describe: Callable[[Environment], object] | None = None,
    evaluate: Callable[[Params, object], Float[Array, " atoms"]] | None = None,
    kernel: Callable[[], HostKernel] | None = None,
) -> Potential:
    """Lift a function of environments to a potential.

    `describe` and `evaluate` split `atomic` where a part of it has no parameters (a descriptor).
    Without `init` the potential is classical: all parts of its params are empty.
    """
    described: Callable[[Environment], Any] = describe or (lambda env: env)
    evaluated: Callable[[Params, Any], Float[Array, " atoms"]] = evaluate or atomic

    def masked(species_of, energies):
        return jnp.where(species_of > 0, energies, 0.0)

    def environment_energies(params, env):
        return masked(env.species, atomic(params, env))

    def atomic_energies(params, structure, neighbors):
        return environment_energies(params, environment(structure, neighbors, cutoff))

    def describe_environment(env):
        return env.species, described(env)

    def describe_structure(structure, neighbors):
        return describe_environment(environment(structure, neighbors, cutoff))

    def evaluate_description(params, description):
        return masked(description[0], evaluated(params, description[1]))

    return Potential(
        init=init or (lambda key: {part: {} for part in PARTS}),
        prepare=prepare or (lambda params, batches: params),
        atomic_energies=atomic_energies,
        describe=describe_structure,
        evaluate=evaluate_description,
        cutoff=cutoff,
        hops=hops,
        species=species,
        environment_energies=environment_energies if hops == 1 else None,
        kernel=kernel,
        describe_environment=describe_environment if hops == 1 else None,
    )


def energy(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, ""]:
    """Total energy in eV, summed in float64 where x64 is on."""
    atoms = potential.atomic_energies(params, structure, neighbors)
    return jnp.sum(atoms, dtype=jnp.promote_types(atoms.dtype, jnp.result_type(float)))


def energy_and_forces(potential, params, structure, neighbors):
    """Energy in eV and forces (atoms, 3) in eV/Å."""

    def total(positions):
        return energy(potential, params, structure._replace(positions=positions), neighbors)

    value, gradient = jax.value_and_grad(total)(structure.positions)
    return value, -gradient


def forces(potential, params, structure, neighbors) -> Float[Array, " atoms 3"]:
    """Forces in eV/Å."""
    return energy_and_forces(potential, params, structure, neighbors)[1]


def energy_forces_stress(potential, params, structure, neighbors):
    """Energy (eV), forces (eV/Å) and stress (3, 3) in eV/Å^3, tension positive.

    The stress is the derivative of the energy with respect to a symmetric strain of positions and
    cell, over the volume (of a slab: area times 1 Å).
    """
    return everything(potential, params, structure, neighbors)[:3]


def everything(potential, params, structure, neighbors):
    """Energy, forces and stress as in `energy_forces_stress`, and atomic energies, in one pass."""

    def total(positions, strain):
        deform = jnp.eye(3, dtype=positions.dtype) + 0.5 * (strain + strain.T)
        strained = structure._replace(positions=positions @ deform, cell=structure.cell @ deform)
        atoms = potential.atomic_energies(params, strained, neighbors)
        return jnp.sum(atoms, dtype=jnp.promote_types(atoms.dtype, jnp.result_type(float))), atoms

    strain = jnp.zeros((3, 3), structure.positions.dtype)
    slopes = jax.value_and_grad(total, (0, 1), has_aux=True)
    (value, atoms), (gradient, virial) = slopes(structure.positions, strain)
    return value, -gradient, virial / volume(structure.cell), atoms


def charges(potential, params, structure, neighbors) -> Float[Array, " atoms"] | None:
    """Partial charges in e; None of a potential without charges."""
    if potential.charges is None:
        return None
    return potential.charges(params, potential.describe(structure, neighbors))


def dipole(charges: Float[Array, " atoms"], structure: Structure) -> Float[Array, "3"]:
    """Σ q r in e Å, of ions with respect to the origin."""
    return charges @ structure.positions.astype(charges.dtype)


def stress(potential, params, structure, neighbors) -> Float[Array, "3 3"]:
    """Stress in eV/Å^3, tension positive."""
    return energy_forces_stress(potential, params, structure, neighbors)[2]


def last_layer_features(potential, params, structure, neighbors) -> Float[Array, " features"]:
    """Gradient of the energy with respect to the readout weights, flattened.

    The atomic energy is affine in the readout, so this is the sum of the last hidden layer over
    the atoms, times their scale; no layer needs a name.
    """

    def total(readout):
        return energy(potential, {**params, "readout": readout}, structure, neighbors)

    return ravel_pytree(jax.grad(total)(params["readout"]))[0]


def readout_rows(potential, params, structure, neighbors) -> ReadoutRows:
    """Derivatives of energy, atomic energies, forces and stress with respect to the readout.

    One tangent for each weight, unless the potential knows a shorter way.
    """
    if potential.readout_rows is not None:
        return potential.readout_rows(params, structure, neighbors)
    flat, tree = ravel_pytree(params["readout"])

    def found(weights):
        return everything(potential, {**params, "readout": tree(weights)}, structure, neighbors)

    _, push = jax.linearize(found, flat)
    rows = jax.lax.map(push, jnp.eye(flat.shape[0], dtype=flat.dtype), batch_size=16)
    value, forces, stress, atomic = (jnp.moveaxis(leaf, 0, -1) for leaf in rows)
    return ReadoutRows(value, atomic, forces, stress)


def members(params: Params) -> int:
    """The number of members of a committee's params."""
    return jax.tree.leaves(params)[0].shape[0]


def committee(potential: Potential) -> Potential:
    """The mean of a committee as one potential; its params carry a leading member axis.

    What does not depend on the member is described once. Its forces are the mean of the members'.
    """

    def mean(evaluate):
        return lambda params, x: jnp.mean(jax.vmap(evaluate, (0, None))(params, x), axis=0)

    def atomic_energies(params, structure, neighbors):
        return mean(potential.evaluate)(params, potential.describe(structure, neighbors))

    def init(key):
        raise TypeError("initialize the members of a committee, then stack their params")

    by_rows = potential.environment_energies
    return potential._replace(
        init=init,
        prepare=jax.vmap(potential.prepare, (0, None)),
        rebase=potential.rebase and jax.vmap(potential.rebase, (0, None)),
        atomic_energies=atomic_energies,
        evaluate=mean(potential.evaluate),
        environment_energies=by_rows and mean(by_rows),
        member=potential,
        readout_rows=None,
        variances=None,
        charges=potential.charges and mean(potential.charges),
    )


def member_energies_and_forces(potential, params, structure, neighbors):
    """Every member's energy (members,) and forces (members, atoms, 3)."""
    return jax.vmap(energy_and_forces, (None, 0, None, None))(
        potential, params, structure, neighbors
    )


def spread(values: Float[Array, "members *shape"]) -> Float[Array, "*shape"]:
    """Standard deviation over members, ddof 1 (0 for a single member)."""
    if values.shape[0] < 2:
        return jnp.zeros_like(values[0])
    return jnp.std(values, axis=0, ddof=1)


def sum_of(*potentials: Potential) -> Potential:
    """The sum of potentials; a network on potentials without params is `priors.with_prior`.

    Every part of the params is a tuple with one entry per potential. `prepare` prepares each on
    the same data.
    """

    def split(params):
        return [{part: params[part][i] for part in PARTS} for i in range(len(potentials))]

    def join(each):
        return {part: tuple(params[part] for params in each) for part in PARTS}

    def init(key):
        keys = jax.random.split(key, len(potentials))
        return join([p.init(k) for p, k in zip(potentials, keys, strict=True)])

    def prepare(params, batches):
        parts = zip(potentials, split(params), strict=True)
        return join([p.prepare(part, batches) for p, part in parts])

    def added(name):
        def total(params, *arguments):
            parts = zip(potentials, split(params), strict=True)
            return _added([getattr(p, name)(part, *arguments) for p, part in parts])

        return total

    def describe(structure, neighbors):
        return tuple(p.describe(structure, neighbors) for p in potentials)

    def evaluate(params, descriptions):
        parts = zip(potentials, split(params), descriptions, strict=True)
        return _added([p.evaluate(part, description) for p, part, description in parts])

    def describe_environment(env):
        return tuple(p.describe_environment(env) for p in potentials if p.describe_environment)

    hops = [p.hops for p in potentials if p.hops is not None]
    by_rows = all(p.environment_energies is not None for p in potentials)
    known = [set(p.species) for p in potentials if p.species]
    return Potential(
        init=init,
        prepare=prepare,
        atomic_energies=added("atomic_energies"),
        describe=describe,
        evaluate=evaluate,
        cutoff=max(p.cutoff for p in potentials),
        hops=max(hops) if len(hops) == len(potentials) else None,
        species=tuple(sorted(set.intersection(*known))) if known else (),
        environment_energies=added("environment_energies") if by_rows else None,
        describe_environment=describe_environment if by_rows else None,
    )


def _added(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
