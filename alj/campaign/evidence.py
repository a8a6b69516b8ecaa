"""What selectors look at: computed for a pool in padded batches, only what is needed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.potentials.priors import without_prior
from alj.types import Context, Evidence, Params, Potential
from alj.uncertainty import force_spread

CHUNK = 32
"""Structures described at once; bounds memory."""


def gather(
    potential: Potential,
    params: Params,
    pool: Dataset,
    known: Dataset,
    needs: tuple[str, ...],
    **given,
) -> Evidence:
    """The evidence of a pool that `needs` names; `given` are fields that the caller already has.

    `params` are those of a committee of `potential`; `known` is the training set.
    """
    wanted = set(needs) - set(given)
    fields = dict(given)
    if wanted & {"features", "known_features"}:
        fields["features"] = features(potential, params, pool)
        fields["known_features"] = features(potential, params, known)
    if wanted & {"energy_spread", "energies"}:
        energies = member_energies(potential, params, pool)
        fields.setdefault("energies", energies.mean(axis=1))
        atoms = datasets.sizes(pool)
        fields["energy_spread"] = _spread(energies) / atoms
    for name, data in (("force_spread", pool), ("known_force_spread", known)):
        if name in wanted:
            fields[name] = by_structure(_force_spreads, potential, params, data, potential.cutoff)
    if "descriptors" in wanted:
        fields["descriptors"] = by_structure(
            _mean_descriptors, potential, params, pool, potential.cutoff
        )
    return Evidence(**{name: fields[name] for name in fields if name in Evidence._fields})


def member_energies(potential: Potential, params: Params, data: Dataset) -> np.ndarray:
    """Energies (structures, members) in eV."""
    return by_structure(_energies, potential, params, data, potential.cutoff)


def features(potential: Potential, params: Params, data: Dataset) -> np.ndarray:
    """Last-layer features per atom of all members, (structures, members · features)."""
    return by_structure(_features, potential, params, data, potential.cutoff)


def by_structure(function, potential, params, data: Dataset, cutoff: float):
    """`function(potential, params, structures, neighbors)` for all structures, in their order.

    Per-atom results are padded with zeros to the largest structure.
    """
    rows: list = [None] * datasets.count(data)
    for batch in datasets.stream(
        data, cutoff, at_most=CHUNK, at_least=CHUNK, table=datasets.roomy(data)
    ):
        values = np.asarray(function(potential, params, batch.structures, batch.neighbors))
        for place, index in enumerate(np.asarray(batch.index)):
            if index >= 0:
                rows[index] = values[place]
    longest = np.max([row.shape for row in rows], axis=0, initial=0) if rows else ()
    filled = [np.pad(r, [(0, n - m) for n, m in zip(longest, r.shape, strict=True)]) for r in rows]
    return np.stack(filled) if filled else np.zeros((0, 0))


def _spread(values: np.ndarray) -> np.ndarray:
    return np.std(values, axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))


@partial(jax.jit, static_argnums=0)
def _energies(potential, params, structures, neighbors):
    def one(structure, table):
        described = potential.describe(structure, table)
        return jnp.sum(jax.vmap(potential.evaluate, (0, None))(params, described), axis=1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)


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
def _force_spreads(potential, params, structures, neighbors):
    doubt, context = force_spread(potential), Context(params=params)
    return jax.lax.map(lambda pair: doubt(context, *pair), (structures, neighbors), batch_size=4)


@partial(jax.jit, static_argnums=0)
def _mean_descriptors(potential, params, structures, neighbors):
    def one(structure, table):
        described = without_prior(potential.describe(structure, table))
        mask = structure.species > 0
        arrays = [x for x in jax.tree.leaves(described) if jnp.issubdtype(x.dtype, jnp.floating)]
        rows = jnp.concatenate([x.reshape(mask.shape[0], -1) for x in arrays], axis=1)
        return jnp.sum(jnp.where(mask[:, None], rows, 0.0), axis=0) / jnp.maximum(jnp.sum(mask), 1)

    return jax.lax.map(lambda pair: one(*pair), (structures, neighbors), batch_size=8)
