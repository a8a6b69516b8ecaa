"""The part of a potential that no parameter touches, computed once for a whole training.

With descriptions D_i of the atoms and e_i = ∂E/∂D_i,

    E = Σ_i E(D_i),   F_j = -Σ_m e_{a(j,m)} · T_jm,   σ = (1/V) Σ_i e_i · S_i

where T_jm = ∂D_{a(j,m)}/∂x_j are the derivatives of those descriptions a(j, ·) that atom j enters
(its own and its neighbors'; simply all, in order, where that takes no more room), and S_i = ∂D_i/∂ε
those with respect to a strain. Then a step of training costs what the network costs. A potential
that is not local, or data too large for the memory allowed, is evaluated anew at each step instead.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.arrays import take_tree
from alj.geometry.environment import environment
from alj.geometry.periodic import volume
from alj.potentials import combine
from alj.potentials.elements import joined, listed, unlisted
from alj.training.losses import Prediction
from alj.types import Batch, Environment, Neighbors, Params, Potential, Structure

MEMORY_LIMIT_BYTES = 1.5e9
"""Derivatives of descriptions are kept while they stay below this."""


class Described(NamedTuple):
    """Descriptions of structures, and their derivatives where forces or stress are wanted.

    `slopes` are the T of the module's formula, leaves (atoms, 3, entries, …), `affected` the
    a(j, m), (atoms, entries); as many entries as atoms are all atoms in order. `strains` are the S,
    leaves (3, 3, atoms, …). Only floating leaves of the description have derivatives.
    """

    description: Any
    slopes: Any = None
    affected: Int[Array, "*batch atoms entries"] | None = None
    strains: Any = None


def describe(
    potential: Potential, batch: Batch, quantities: tuple[str, ...], choice: str = "automatic"
) -> Described | None:
    """Everything about a batch that training needs but parameters do not touch; None: do it anew.

    `choice` is "once", "anew" or "automatic", which decides by the size of the derivatives.
    """
    derivatives = "forces" in quantities or "stress" in quantities
    if choice == "anew" or (derivatives and potential.describe_environment is None):
        return None
    shapes = jax.eval_shape(partial(_described, potential, quantities), _one(batch))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    if choice == "automatic" and size * batch.index.shape[0] > MEMORY_LIMIT_BYTES:
        return None
    # Chunks of one size share one compiled program, whatever the number of structures.
    chunk = math.gcd(_CHUNK, batch.index.shape[0])
    pairs = jax.device_get((batch.structures, batch.neighbors))
    parts = [
        jax.device_get(
            _describe_chunk(potential, quantities, jax.tree.map(lambda x: x[i : i + chunk], pairs))
        )
        for i in range(0, batch.index.shape[0], chunk)
    ]
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return jax.tree.map(jnp.asarray, found._replace(description=listed(found.description)))


def predict(
    potential: Potential,
    quantities: tuple[str, ...],
    params: Params,
    structure: Structure,
    neighbors: Neighbors,
    described: Described | None,
) -> Prediction:
    """What `quantities` asks of one structure, and its energy."""
    if described is None:
        return _anew(potential, quantities, params, structure, neighbors)
    if not {"forces", "stress"} & set(quantities):
        found = Prediction(total_energy(potential, params, described.description))
        if potential.charges is None:
            return found
        own = partial(potential.charges, params, described.description)
        return _charged(quantities, structure, found, own)
    moving, rebuild = split_floating(described.description)

    def total(moving):
        return total_energy(potential, params, rebuild(moving))

    value, slopes = jax.value_and_grad(total)(moving)
    forces = stress = None
    if "forces" in quantities:
        forces = jnp.zeros_like(structure.positions)
        for slope, along in zip(slopes, described.slopes, strict=True):
            forces = forces - _apply(_flat(along, 2), _entering(slope, described.affected))
    if "stress" in quantities:
        virial = sum(
            jnp.einsum("abf,f->ab", _flat(along, 2), slope.reshape(-1))
            for slope, along in zip(slopes, described.strains, strict=True)
        )
        stress = virial / volume(structure.cell)
    return Prediction(value, forces, stress)


def predict_batch(
    potential: Potential,
    quantities: tuple[str, ...],
    params: Params,
    batch: Batch,
    described: Described | None,
) -> Prediction:
    """`predict` for every structure of a batch."""

    def one(row):
        return predict(potential, quantities, params, *row)

    return over_structures(one, (batch.structures, batch.neighbors, described))


def predict_together(
    potential: Potential,
    quantities: tuple[str, ...],
    params: Params,
    batch: Batch,
    described: Described | None,
    places: Int[Array, " some"],
) -> Prediction:
    """`predict` for the structures at some places of a batch, all at once, to be differentiated.

    The derivatives of the descriptions are read where they lie: to copy those of a minibatch would
    take as long as the networks.
    """
    if described is None or potential.describe_environment is None:
        some = take_tree((batch.structures, batch.neighbors, described), places)
        return jax.vmap(partial(predict, potential, quantities, params))(*some)
    structures, description = take_tree((batch.structures, described.description), places)
    moving, rebuild = split_floating(description)

    def evaluate(moving):
        # Atoms of all structures as one: a matrix product of rows is faster than one of blocks.
        atoms = potential.evaluate(params, joined(rebuild(moving))).reshape(len(places), -1)
        wide = jnp.promote_types(atoms.dtype, jnp.result_type(float))
        return jnp.sum(atoms, axis=1, dtype=wide)

    if quantities == ("energy",):
        return Prediction(evaluate(moving))
    energies, pull = jax.vjp(evaluate, moving)
    (slopes,) = pull(jnp.ones_like(energies))
    forces = stress = None
    if "forces" in quantities:
        assert described.affected is not None
        forces = jnp.zeros_like(structures.positions)
        for slope, along in zip(slopes, described.slopes, strict=True):
            near = jax.vmap(_entering)(slope, described.affected[places])
            forces = forces - contracted(_flat(along, 3), places, near)
    if "stress" in quantities:
        virial = sum(
            contracted(_flat(along, 3), places, slope.reshape(len(places), 1, -1))
            for slope, along in zip(slopes, described.strains, strict=True)
        )
        stress = virial / jax.vmap(volume)(structures.cell)[:, None, None]
    return Prediction(energies, forces, stress)


@jax.custom_vjp
def contracted(
    table: Float[Array, "count rows three inputs"],
    places: Int[Array, " some"],
    vectors: Float[Array, "some blocks inputs"],
) -> Float[Array, "some rows three"]:
    """`table[place] @ vector` for each place and its vector; only the vectors are differentiated.

    Blocks are rows, or one block for all rows. On CPUs each entry of the table is multiplied where
    it lies: eight times faster than to gather them first.
    """
    return _where_they_lie(_apply, table, places, vectors)


def _contracted_forward(table, places, vectors):
    return contracted(table, places, vectors), (table, places, vectors.shape[1] == 1)


def _contracted_backward(kept, slopes):
    table, places, shared = kept

    def back(table, slope):
        if shared:
            return slope.reshape(1, -1) @ table.reshape(-1, table.shape[-1])
        return jnp.einsum("jcf,jc->jf", table, slope)

    return None, None, _where_they_lie(back, table, places, slopes)


contracted.defvjp(_contracted_forward, _contracted_backward)


def _where_they_lie(function, table, places, others):
    if jax.default_backend() != "cpu":
        return jax.vmap(function)(table[places], others)
    return jax.lax.map(lambda pair: function(table[pair[0]], pair[1]), (places, others))


def _apply(table, vectors):
    """`table @ vector` row by row; or the one vector for all rows."""
    if vectors.shape[0] == 1:
        return (table.reshape(-1, table.shape[-1]) @ vectors[0]).reshape(table.shape[:2])
    return jnp.einsum("jcf,jf->jc", table, vectors)


def over_structures(function: Callable[[Any], Any], structures: Any) -> Any:
    """`function` of every structure, a few at a time.

    On CPUs the intermediates of about a hundred atoms, for all members of a committee, stay in the
    cache: five times faster than everything at once. `structures[0]` is a `Structure`.
    """
    count, atoms = structures[0].species.shape
    wanted = max(1, _ATOMS_AT_ONCE[jax.default_backend() == "cpu"] // max(atoms, 1))
    if wanted >= count:
        return jax.vmap(function)(structures)
    size = max(n for n in range(1, wanted + 1) if count % n == 0)
    if size == 1:
        return jax.lax.map(function, structures)
    parts = jax.tree.map(
        lambda leaf: leaf.reshape(count // size, size, *leaf.shape[1:]), structures
    )
    found = jax.lax.map(jax.vmap(function), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), found)


def total_energy(potential: Potential, params: Params, description: Any):
    """Energy in eV of one described structure, summed in float64 where x64 is on."""
    atoms = potential.evaluate(params, description)
    return jnp.sum(atoms, dtype=jnp.promote_types(atoms.dtype, jnp.result_type(float)))


def split_floating(tree: Any):
    """The floating leaves of a tree, and the function that puts others back in their place."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(moving):
        rest = iter(moving)
        return structure.unflatten(
            [next(rest) if moves else leaf for moves, leaf in zip(floating, leaves, strict=True)]
        )

    return [leaf for moves, leaf in zip(floating, leaves, strict=True) if moves], rebuild


def take_atoms(tree: Any, rows: Int[Array, " rows"]) -> Any:
    """The description of some atoms; rows beyond the last give the last."""
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), unlisted(tree))


_CHUNK = 16
_ATOMS_AT_ONCE = {True: 128, False: 65536}


def _one(batch):
    return jax.tree.map(lambda leaf: leaf[0], (batch.structures, batch.neighbors))


@partial(jax.jit, static_argnums=(0, 1))
def _describe_chunk(potential, quantities, pairs):
    return jax.lax.map(partial(_described, potential, quantities), pairs)


def _described(potential, quantities, pair) -> Described:
    structure, neighbors = pair
    if "forces" not in quantities and "stress" not in quantities:
        return Described(potential.describe(structure, neighbors))
    env = environment(structure, neighbors, potential.cutoff)
    description = potential.describe_environment(env)
    pairwise = _pair_derivatives(potential, env)
    slopes = affected = strains = None
    if "forces" in quantities:
        atoms, columns = neighbors.indices.shape
        if 1 + columns < atoms:
            slopes, affected = _by_moved_atom(pairwise, neighbors, structure.species)
        else:
            slopes, affected = _by_moved_atom_of_all(pairwise, neighbors)
    if "stress" in quantities:
        strains = [
            _symmetric(jnp.einsum("incf,ind->cdif", _flat(along, 3), env.vectors)).reshape(
                (3, 3, along.shape[0], *along.shape[3:])
            )
            for along in pairwise
        ]
    return Described(description, slopes, affected, strains)


def _pair_derivatives(potential, env: Environment):
    """∂D_i/∂v_in for each floating leaf, (atoms, neighbors, 3, …).

    A description depends on no vectors but its own atom's, so one direction is followed for all
    atoms at once.
    """
    columns = env.vectors.shape[1]

    def floating(vectors):
        return split_floating(potential.describe_environment(env._replace(vectors=vectors)))[0]

    _, push = jax.linearize(floating, env.vectors)
    directions = jnp.eye(3 * columns, dtype=env.vectors.dtype).reshape(-1, columns, 3)

    def along(direction):
        return push(jnp.broadcast_to(direction[None], env.vectors.shape))

    found = jax.lax.map(along, directions, batch_size=3)
    real = env.neighbor_species > 0

    def arranged(leaf):
        leaf = jnp.moveaxis(leaf.reshape(columns, 3, *leaf.shape[1:]), 2, 0)
        mask = real.reshape(real.shape + (1,) * (leaf.ndim - 2))
        return jnp.where(mask, leaf, 0.0)

    return [arranged(leaf) for leaf in found]


def _by_moved_atom(pairwise, neighbors: Neighbors, species):
    """Regroup ∂D_i/∂v_in by the atom that moves: itself, then its neighbors."""
    atoms = neighbors.indices.shape[0]
    indices, shifts = neighbors.indices, neighbors.shifts
    me = jnp.arange(atoms, dtype=indices.dtype)
    # The slot of the neighbor's own list that points back along the same line.
    theirs = indices.at[indices].get(mode="fill", fill_value=atoms)
    their_shifts = shifts.at[indices].get(mode="fill", fill_value=0)
    back = (theirs == me[:, None, None]) & jnp.all(their_shifts == -shifts[:, :, None, :], axis=-1)
    slot, found = jnp.argmax(back, axis=-1), jnp.any(back, axis=-1)
    affected = jnp.concatenate([me[:, None], indices], axis=1)

    def regroup(along):
        own = -jnp.sum(along, axis=1)
        others = along.at[indices, slot].get(mode="clip")
        mask = (found & (species > 0)[:, None]).reshape(found.shape + (1,) * (along.ndim - 2))
        entries = jnp.concatenate([own[:, None], jnp.where(mask, others, 0.0)], axis=1)
        return jnp.moveaxis(entries, 2, 1)

    return [regroup(along) for along in pairwise], affected


def _by_moved_atom_of_all(pairwise, neighbors: Neighbors):
    """The same with an entry for every atom, which the images of a neighbor share."""
    atoms = neighbors.indices.shape[0]
    me = jnp.arange(atoms, dtype=neighbors.indices.dtype)

    def regroup(along):
        square = jnp.zeros((atoms, atoms, *along.shape[2:]), along.dtype)
        square = square.at[me[:, None], neighbors.indices].add(along, mode="drop")
        square = square.at[me, me].add(-jnp.sum(along, axis=1))
        return jnp.moveaxis(square, 0, 2)

    return [regroup(along) for along in pairwise], jnp.broadcast_to(me, (atoms, atoms))


def _symmetric(strains):
    return 0.5 * (strains + jnp.swapaxes(strains, 0, 1))


def _flat(leaf, axes):
    """`leaf` with everything beyond its first `axes` axes as one."""
    return leaf.reshape(*leaf.shape[:axes], math.prod(leaf.shape[axes:]))


def _entering(slope, affected):
    """What each atom's entries multiply, (atoms, …); one row where these are all atoms."""
    if affected.shape[0] == affected.shape[1]:
        return slope.reshape(1, -1)
    return _flat(_flat(slope, 1).at[affected].get(mode="clip"), 1)


def _anew(potential, quantities, params, structure, neighbors):
    arguments = (potential, params, structure, neighbors)
    if "stress" in quantities:
        found = Prediction(*combine.energy_forces_stress(*arguments))
    elif "forces" in quantities:
        found = Prediction(*combine.energy_and_forces(*arguments))
    else:
        found = Prediction(combine.energy(*arguments))
    return _charged(quantities, structure, found, lambda: combine.charges(*arguments))


def _charged(quantities, structure, found: Prediction, charges_of) -> Prediction:
    """The prediction with charges and dipole, as far as `quantities` asks."""
    if not {"charges", "dipole"} & set(quantities):
        return found
    own = charges_of()
    return found._replace(
        charges=own if "charges" in quantities else None,
        dipole=combine.dipole(own, structure) if "dipole" in quantities else None,
    )
