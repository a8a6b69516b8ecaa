"""Meta-networks: one network for each class of structures, of which the nearest ones answer.

Classes are sets of prototypes, nodes of an incremental network (`selection.esoinn`) in the space of
Coulomb-matrix spectra. The m networks whose classes have their nearest node nearest to a structure
are a committee: their mean is the potential (ESOINN-DP, eq. 11 and 12), their spread the doubt.

A committee of this potential has m members; member k answers with the network of the k-th nearest
class (its `rank`). The networks themselves are the same for all members. Tables have room for
`classes` networks and `nodes` prototypes, so that a growing number of classes changes no shape and
compiles nothing. The assignment is made anew at every evaluation: where it flips, the energy jumps,
forces are those at fixed assignment, and a trajectory does not conserve energy. A trajectory may
hold on to its networks (`holding`).

M. Xu, T. Zhu, J. Z. H. Zhang, An incremental network for automatic training-set generation
(ESOINN-DP).
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj import registry
from alj.potentials import bodies
from alj.potentials.combine import PARTS
from alj.potentials.coulomb_spectra import coulomb_spectrum
from alj.potentials.partial_charges import partial_charges
from alj.types import BadInput, Key, Neighbors, Params, Potential, Structure

BODIES = (*bodies.BODIES, bodies.later(partial_charges))


class MetaNetworks(NamedTuple):
    """What meta-networks are made of: `body` is the potential of a single network; `nearest` are m;
    `classes` and `nodes` the room in the tables, `atoms` the length of spectra."""

    body: Potential
    nearest: int
    classes: int
    nodes: int
    atoms: int


def meta_networks(
    species: tuple[int, ...],
    *,
    nearest: int = 2,
    classes: int = 16,
    nodes: int = 512,
    atoms: int = 64,
    body: Annotated[Any, registry.Nested(lambda: BODIES)] = "ani",
) -> Potential:
    """A network for each class of structures; the nearest ones answer together.

    The trainer has as many `members` as networks answer. Molecules only: cells do not count in
    spectra. Structures of more atoms than there is room for have no energy (NaN).

    Args:
        nearest: Networks that answer together, and that a structure trains.
        classes: Room for so many networks; small classes join their nearest where it is full.
        nodes: Room for so many prototypes.
        atoms: Atoms of the largest structure.
        body: The potential that each network is, with its settings.

    Raises:
        BadInput: a setting is out of range.
    """
    if not 2 <= nearest <= classes or nodes < classes or atoms < 1:
        raise BadInput(
            "meta_networks: expected 2 <= nearest <= classes <= nodes and atoms of at least 1; "
            f"found {nearest}, {classes}, {nodes} and {atoms}"
        )
    made = bodies.made_later(BODIES, body, where="body")
    return of_networks(MetaNetworks(made(species), nearest, classes, nodes, atoms))


def of_networks(parts: MetaNetworks) -> Potential:
    """Meta-networks of any body; see `meta_networks`."""
    body = parts.body

    def init(key: Key) -> Params:
        networks = jax.vmap(body.init)(jax.random.split(key, parts.classes))
        return assembled(parts, networks, *no_prototypes(parts))

    def fitted(fit, params, batches):
        networks = jax.vmap(fit, (0, None))(networks_of(params), batches)
        return {**networks, "constants": {**params["constants"], "networks": networks["constants"]}}

    def describe(structure: Structure, neighbors: Neighbors):
        return body.describe(structure, neighbors), _spectrum(structure, parts.atoms)

    def answer(function, params, description):
        inner, spectrum = description
        constants = params["constants"]
        place = _nearest(constants, spectrum, parts.nearest)[constants["rank"]]
        one = jax.tree.map(lambda leaf: leaf[place], networks_of(params))
        return jnp.where(jnp.isfinite(spectrum[0]), function(one, inner), jnp.nan)

    evaluate = partial(answer, body.evaluate)

    def atomic_energies(params, structure, neighbors):
        return evaluate(params, describe(structure, neighbors))

    return Potential(
        init=init,
        prepare=partial(fitted, body.prepare),
        atomic_energies=atomic_energies,
        describe=describe,
        evaluate=evaluate,
        cutoff=body.cutoff,
        hops=None,
        species=body.species,
        rebase=partial(fitted, body.rebase) if body.rebase else None,
        networks=parts,
        charges=partial(answer, body.charges) if body.charges else None,
    )


def nearest_classes(
    potential: Potential, params: Params, structure: Structure
) -> Int[Array, " nearest"]:
    """The networks that answer for a structure, the nearest class first; params of a committee."""
    constants = jax.tree.map(lambda leaf: leaf[0], params["constants"])
    # What lies under the networks, or beside them, has no part in it.
    parts: MetaNetworks = potential.networks
    return _nearest(constants, _spectrum(structure, parts.atoms), parts.nearest)


def holding(params: Params, classes: Int[Array, " nearest"], hysteresis: float) -> Params:
    """Params of a committee whose networks of these classes answer for longer.

    Until other classes are nearer by a share of `hysteresis`: the distances to those that are held
    count (1 - hysteresis) times. For one evaluation or a few: whoever moves atoms keeps the
    classes, and holds anew those that answer. At the place where classes have been found, holding
    them leaves the answer as it is.
    """
    constants = params["constants"]
    held = jnp.any(constants["rooms"][..., None] == classes[None, None], axis=-1)
    dtype = constants["nodes"].dtype
    nearness = jnp.where(held, jnp.asarray((1.0 - hysteresis) ** 2, dtype), jnp.ones((), dtype))
    return {**params, "constants": {**constants, "nearness": nearness}}


def _nearest(
    constants: dict, spectrum: Float[Array, " length"], count: int
) -> Int[Array, " count"]:
    """The networks of the `count` nearest classes, the nearest first; of equals the lower one.

    Without any prototypes, and where there are fewer classes, the first ones that are left.
    """
    nodes, of = constants["nodes"].astype(spectrum.dtype), constants["classes"]
    far = jnp.asarray(jnp.inf, spectrum.dtype)
    scale = constants["scale"].astype(spectrum.dtype)
    squares = jnp.sum((nodes - spectrum[None] / scale) ** 2, axis=1)
    there = of >= 0
    classes = constants["rooms"].shape[0]
    mine = there[:, None] & (of[:, None] == jnp.arange(classes)[None])
    distances = jnp.min(jnp.where(mine, squares[:, None], far), axis=0)
    if "nearness" in constants:
        distances = distances * constants["nearness"].astype(distances.dtype)
    return jnp.argsort(distances, stable=True)[:count]


def networks_of(params: Params) -> Params:
    """The params of all networks, with a leading axis of classes, as those of the body."""
    constants = params["constants"]["networks"]
    return {"body": params["body"], "readout": params["readout"], "constants": constants}


def assembled(
    parts: MetaNetworks,
    networks: Params,
    nodes: Float[np.ndarray, "nodes atoms"],
    classes: Int[np.ndarray, " nodes"],
    scale: float,
    rank: int = 0,
) -> Params:
    """Params of one member: networks (leading axis of classes), prototypes and their classes.

    Prototypes are in units of `scale`. Raises BadInput where tables have no room for them.
    """
    if len(nodes) > parts.nodes or np.max(classes, initial=-1) >= parts.classes:
        raise BadInput(
            f"meta_networks: expected at most {parts.nodes} nodes of {parts.classes} classes, "
            f"found {len(nodes)} of {int(np.max(classes, initial=-1)) + 1}; raise both settings"
        )
    dtype = jnp.result_type(*jax.tree.leaves(networks["body"]))
    table, of = np.zeros((parts.nodes, parts.atoms)), np.full(parts.nodes, -1, np.int32)
    table[: len(nodes)], of[: len(nodes)] = nodes, classes
    constants = {
        "networks": networks["constants"],
        "nodes": jnp.asarray(table, dtype),
        "classes": jnp.asarray(of),
        "scale": jnp.asarray(scale, dtype),
        "rooms": jnp.arange(parts.classes, dtype=jnp.int32),
        "rank": jnp.asarray(rank, jnp.int32),
    }
    return {**{part: networks[part] for part in PARTS[:2]}, "constants": constants}


def committee_of(parts: MetaNetworks, params: Params) -> Params:
    """The committee of `nearest` members, with a leading axis, from the params of one of them."""
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * parts.nearest), params)
    ranks = jnp.arange(parts.nearest, dtype=jnp.int32)
    return {**many, "constants": {**many["constants"], "rank": ranks}}


def no_prototypes(parts: MetaNetworks):
    """Before there are classes: the first networks answer for all structures."""
    return np.zeros((0, parts.atoms)), np.zeros(0, np.int32), 1.0


def _spectrum(structure: Structure, length: int) -> Float[Array, " length"]:
    """The spectrum without a derivative; NaN where there are more atoms than it has room for."""
    positions = jax.lax.stop_gradient(structure.positions)
    found = coulomb_spectrum(positions, structure.species)[:length]
    found = jnp.pad(found, (0, length - found.shape[0]))
    return jnp.where(jnp.sum(structure.species > 0) <= length, found, jnp.nan)
