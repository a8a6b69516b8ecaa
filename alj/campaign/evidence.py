"""What selectors look at: computed for a pool in padded batches, only what is needed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from alj.campaign import classes, datasets, scores
from alj.campaign.datasets import Dataset
from alj.campaign.evaluate import predict
from alj.campaign.models import model_of
from alj.campaign.values import VALUES, of_data
from alj.potentials.combine import energy_and_forces, member_energies_and_forces, members
from alj.potentials.disagreement import largest_deviation
from alj.potentials.priors import without_prior
from alj.types import Context, Evidence, Params, Potential
from alj.uncertainty import energy_spread, force_spread
from alj.uncertainty.fisher import gradient_directions, projected_gradient

CHUNK = 32
"""Structures described at once; bounds memory."""


def gather(
    potential: Potential,
    params: Params,
    pool: Dataset,
    known: Dataset,
    needs: tuple[str, ...],
    *,
    information: scores.Information | None = None,
    network: classes.Map | None = None,
    held_out: Dataset | None = None,
    **given,
) -> Evidence:
    """The evidence of a pool that `needs` names; `given` are fields that the caller already has.

    `params` are those of a committee of `potential`; `known` is the training set, `information`
    what it says of the last weights, where this has been summed already, and `network` its classes,
    where these have been learned already; `held_out` are labels that nothing is trained on.
    """
    wanted = set(needs) - set(given)
    fields = dict(given)
    for name, function in (("features", features), ("gradient_features", gradient_features)):
        for field, data in ((name, pool), (f"known_{name}", known)):
            if field in wanted:
                fields[field] = function(potential, params, data)
    if wanted & {"energy_spread", "energies", "energies_per_atom"}:
        energies = member_energies(potential, params, pool)
        fields.setdefault("energies", energies.mean(axis=1))
        atoms = datasets.sizes(pool)
        fields["energies_per_atom"] = energies.mean(axis=1) / atoms
        spread = _spread(energies)
        if "energy_spread" in wanted and potential.variances is not None:
            spread = by_structure(_energy_spreads, potential, params, pool, potential.cutoff)
        fields["energy_spread"] = spread / atoms
    for name, data in (("force_spread", pool), ("known_force_spread", known)):
        if name in wanted:
            fields[name] = by_structure(_force_spreads, potential, params, data, potential.cutoff)
    fields |= _fisher_scores(potential, params, pool, known, wanted, information)
    if "force_deviation" in wanted:
        found = by_structure(_deviations, potential, params, pool, potential.cutoff)
        fields["force_deviation"] = found.reshape(-1)
    if held_out is not None and wanted & {"held_out_deviation", "held_out_error"}:
        labeled = datasets.select(held_out, np.flatnonzero(_with_forces(held_out)))
        found = deviations_and_errors(potential, params, labeled)
        fields["held_out_deviation"], fields["held_out_error"] = found
    fields |= classes.evidence_of(pool, known, wanted, network)
    for name, data in (("descriptors", pool), ("known_descriptors", known)):
        if name in wanted:
            fields[name] = by_structure(
                _mean_descriptors, potential, params, data, potential.cutoff
            )
    for name, function in (
        ("atomic_energies", _atomic_energies), ("force_magnitudes", _force_magnitudes),
    ):  # fmt: skip
        if name in wanted:
            found = by_structure(function, potential, params, pool, potential.cutoff)
            there = np.arange(found.shape[1])[None] < datasets.sizes(pool)[:, None]
            fields[name] = np.where(there, found, np.nan)
    fields |= of_data(pool, wanted & set(VALUES))
    return Evidence(**{name: fields[name] for name in fields if name in Evidence._fields})


def deviations_and_errors(
    potential: Potential, params: Params, data: Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Of every structure χ, and the largest error of the mean force on an atom, both in eV/Å.

    The latter is NaN where not all forces are labeled.
    """
    if not datasets.count(data):
        return np.zeros(0), np.zeros(0)
    deviations = by_structure(_deviations, potential, params, data, potential.cutoff).reshape(-1)
    answer = predict(model_of(potential, params, {"members": members(params)}), data)
    return deviations, largest_errors(answer.forces, data)


def largest_errors(forces: np.ndarray, data: Dataset) -> np.ndarray:
    """The largest error of a force on an atom of every structure, eV/Å; NaN without a label."""
    wrong = np.linalg.norm(forces - data.forces, axis=1)
    return np.maximum.reduceat(wrong, data.offsets[:-1]) if len(wrong) else np.zeros(0)


def _with_forces(data: Dataset) -> np.ndarray:
    """Of which structures all forces are labeled."""
    return np.isfinite(largest_errors(np.zeros_like(data.forces), data))


def member_energies(potential: Potential, params: Params, data: Dataset) -> np.ndarray:
    """Energies (structures, members) in eV."""
    return by_structure(_energies, potential, params, data, potential.cutoff)


def features(potential: Potential, params: Params, data: Dataset) -> np.ndarray:
    """Last-layer features per atom of all members, (structures, members · features)."""
    return by_structure(_features, potential, params, data, potential.cutoff)


def gradient_features(
    potential: Potential, params: Params, data: Dataset, count: int = 128
) -> np.ndarray:
    """Gradients of the energy per atom with respect to all weights, projected at random on `count`
    directions, the same for all structures; shared evenly among the members."""
    each = max(count // members(params), 1)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    directions = gradient_directions(jax.random.key(0), one, each)
    return by_structure(_gradient_features, potential, (params, directions), data, potential.cutoff)


def information_for(potential, params, known: Dataset, needs) -> scores.Information | None:
    """What the training set says of the last weights, as far as these fields are made of it."""
    names = {name.removeprefix("known_") for name in needs}
    energy, forces = bool(names & {*scores.ENERGY}), bool(names & {*scores.FORCES})
    if not energy and not forces:
        return None
    return scores.information(potential, params, known, energy=energy, forces=forces)


def _fisher_scores(potential, params, pool, known, wanted, about) -> dict[str, np.ndarray]:
    """The Fisher scores that are wanted, of the pool and of the training set."""
    about = about or information_for(potential, params, known, wanted)
    found = {}
    for prefix, data in (("", pool), ("known_", known)):
        names = tuple(name for name in scores.SCORES if prefix + name in wanted)
        if names and about is not None:
            values = scores.scored(about, potential, params, data, names)
            found |= {prefix + name: value for name, value in values.items()}
    return found


def by_structure(function, potential, params, data: Dataset, cutoff: float):
    """`function(potential, params, structures, neighbors)` for all structures, in their order.

    Per-atom results are padded with zeros to the largest structure.
    """
    parts, places, longest = [], [], 0
    for batch in datasets.stream(
        data, cutoff, at_most=CHUNK, at_least=CHUNK, table=datasets.roomy(data)
    ):
        values = np.asarray(function(potential, params, batch.structures, batch.neighbors))
        index = np.asarray(batch.index)
        parts.append(values[index >= 0])
        places.append(index[index >= 0])
        longest = max((longest, *values.shape[1:2]))
    if not parts:
        return np.zeros((0, 0))
    width = (longest,) if parts[0].ndim > 1 else ()
    filled = np.zeros((datasets.count(data), *width), np.result_type(*parts))
    for place, part in zip(places, parts, strict=True):
        filled[(place, *(slice(0, n) for n in part.shape[1:]))] = part
    return filled


def _spread(values: np.ndarray) -> np.ndarray:
    return np.std(values, axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))


@partial(jax.jit, static_argnums=0)
def _energies(potential, params, structures, neighbors):
    def one(structure, table):
        described = potential.describe(structure, table)
        return jnp.sum(jax.vmap(potential.evaluate, (0, None))(params, described), axis=1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)


@partial(jax.jit, static_argnums=0)
def _atomic_energies(potential, params, structures, neighbors):
    def one(structure, table):
        described = potential.describe(structure, table)
        found = jax.vmap(potential.evaluate, (0, None))(params, described)
        return jnp.mean(found, axis=0)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)


@partial(jax.jit, static_argnums=0)
def _force_magnitudes(potential, params, structures, neighbors):
    def one(pair):
        found = jax.vmap(energy_and_forces, (None, 0, None, None))(potential, params, *pair)[1]
        return jnp.sqrt(jnp.sum(jnp.mean(found, axis=0) ** 2, axis=-1))

    return jax.lax.map(one, (structures, neighbors), batch_size=4)


@partial(jax.jit, static_argnums=0)
def _features(potential, params, structures, neighbors):
    def one(structure, table):
        described = potential.describe(structure, table)
        atoms = jnp.maximum(jnp.sum(structure.species > 0), 1)

        def member(params):
            def total(readout):
                return jnp.sum(potential.evaluate({**params, "readout": readout}, described))

            return ravel_pytree(jax.grad(total)(params["readout"]))[0] / atoms

        return jax.vmap(member)(params).reshape(-1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)


@partial(jax.jit, static_argnums=0)
def _gradient_features(potential, both, structures, neighbors):
    params, directions = both

    def one(structure, table):
        def member(params):
            return projected_gradient(potential, params, structure, table, directions)

        return jax.vmap(member)(params).reshape(-1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)


@partial(jax.jit, static_argnums=0)
def _force_spreads(potential, params, structures, neighbors):
    doubt, context = force_spread(potential), Context(params=params)
    return jax.lax.map(lambda pair: doubt(context, *pair), (structures, neighbors), batch_size=4)


@partial(jax.jit, static_argnums=0)
def _deviations(potential, params, structures, neighbors):
    def one(pair):
        return largest_deviation(member_energies_and_forces(potential, params, *pair)[1])[None]

    return jax.lax.map(one, (structures, neighbors), batch_size=4)


@partial(jax.jit, static_argnums=0)
def _energy_spreads(potential, params, structures, neighbors):
    doubt, context = energy_spread(potential), Context(params=params)
    return jax.lax.map(lambda pair: doubt(context, *pair), (structures, neighbors))


@partial(jax.jit, static_argnums=0)
def _mean_descriptors(potential, params, structures, neighbors):
    def one(structure, table):
        described = without_prior(potential.describe(structure, table))
        mask = structure.species > 0
        arrays = [x for x in jax.tree.leaves(described) if jnp.issubdtype(x.dtype, jnp.floating)]
        rows = jnp.concatenate([x.reshape(mask.shape[0], -1) for x in arrays], axis=1)
        return jnp.sum(jnp.where(mask[:, None], rows, 0.0), axis=0) / jnp.maximum(jnp.sum(mask), 1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)
