"""Fisher scores of structures, streamed in padded batches: what the last weights would learn.

The information of the training set is summed once per model, in float64; a pool is scored batch
by batch, so that only its scores are kept. Of a committee every member has its own information, and
scores are means over the members.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import across_devices, double_precision
from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.potentials.combine import energy_and_forces
from alj.types import BadInput, Batch, Params, Potential
from alj.uncertainty import fisher

ENERGY = ("qs1", "qs1_saturated", "atomic_qs1")
FORCES = ("qs2", "qs2_largest", "qs2_sketched")
SCORES = (*ENERGY, *FORCES)
"""Scores of a pool; `known_` before them means those of the training set."""

CHUNK = 256
"""Structures in a batch at most; bounds memory."""

_TOGETHER = 8
"""Structures whose rows are held at once."""

_SIGNS_SEED = 0


class Information(NamedTuple):
    """What a training set says of the last weights of each member; None: not asked for.

    `energy` and `forces` are Cholesky factors (members, weights, weights); the noises L/N, in eV²
    and (eV/Å)², have one entry for each member, N counting the `labeled` structures; `ranks` say in
    how many directions the labels speak louder than the prior.
    """

    energy: np.ndarray | None
    forces: np.ndarray | None
    energy_noise: np.ndarray
    force_noise: np.ndarray
    ranks: dict[str, list[int]]
    labeled: dict[str, int]


def information(
    potential: Potential,
    params: Params,
    known: Dataset,
    *,
    energy: bool = True,
    forces: bool = False,
    prior: float = fisher.PRIOR,
    on_batch: Callable[[int], Any] | None = None,
) -> Information:
    """The information of a training set. `on_batch` is told how many structures are done.

    A structure counts for what it is labeled with. Raises BadInput for a potential without last
    weights, a training set without such labels, or information that is not finite.
    """
    refusal = fisher.no_readout(potential, params)
    if refusal is not None:
        raise refusal
    if datasets.count(known) == 0:
        raise BadInput("Fisher scores need a training set, found none; give the labeled structures")
    wanted = (energy, forces)
    total, done = None, 0
    with double_precision():
        for batch in stream(known, potential, params):
            found = jax.device_get(_sums(potential, wanted, params, batch))
            total = found if total is None else jax.tree.map(np.add, total, found)
            done += int(np.sum(np.asarray(batch.index) >= 0))
            if on_batch is not None:
                on_batch(done)
    assert total is not None
    matrices, (squares, counts) = total
    factors, ranks = {}, {}
    labeled = {name: round(float(np.max(count))) for name, count in counts.items()}
    for name, of_members in matrices.items():
        if not labeled[name]:
            raise BadInput(
                f"Fisher scores of {name}: expected {name} among the labels of the training set, "
                "found none; use qs1 where only energies are labeled, qs2 where only forces are"
            )
        solved = [fisher.fisher(matrix, prior=prior) for matrix in of_members]
        factors[name] = np.stack([one.lower for one in solved])
        ranks[name] = [one.rank for one in solved]
    noise = {name: squares[name] / np.maximum(counts[name], 1.0) ** 2 for name in squares}
    return Information(
        factors.get("energy"), factors.get("forces"), noise["energy"], noise["forces"], ranks,
        labeled,
    )  # fmt: skip


def scored(
    about: Information,
    potential: Potential,
    params: Params,
    data: Dataset,
    names: tuple[str, ...],
    *,
    signs: int = fisher.SIGNS,
    on_batch: Callable[[int], Any] | None = None,
) -> dict[str, np.ndarray]:
    """Scores of every structure by name (see `Evidence`): (n,), of atoms (n, atoms)."""
    largest = int(np.max(datasets.sizes(data), initial=1))
    found = {
        name: np.zeros((datasets.count(data), *((largest,) if name == "atomic_qs1" else ())))
        for name in names
    }

    def keep(index, values) -> int:
        index, values = np.asarray(index), jax.device_get(values)
        real = index >= 0
        for name in names:
            rows = values[name][real]
            found[name][(index[real], *(slice(0, n) for n in rows.shape[1:]))] = rows[
                (slice(None), *(slice(0, largest) for _ in rows.shape[1:]))
            ]
        return int(real.sum())

    done, waiting = 0, deque()
    with double_precision():
        for batch in stream(data, potential, params):
            values = batch_scores(potential, names, signs, params, about[:4], batch)
            waiting.append((batch.index, values))
            # The next batch is made while this one is computed.
            done += keep(*waiting.popleft()) if len(waiting) > 1 else 0
            if on_batch is not None and done:
                on_batch(done)
        while waiting:
            done += keep(*waiting.popleft())
            if on_batch is not None:
                on_batch(done)
    return found


def stream(data: Dataset, potential: Potential, params: Params) -> Iterator[Batch]:
    """Padded batches in the precision of the params; sums and solves are float64."""
    return datasets.stream(
        data,
        potential.cutoff,
        dtype=jnp.result_type(*jax.tree.leaves(params["readout"])),
        at_most=CHUNK,
        table=datasets.roomy(data),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _sums(potential, wanted, params, batch: Batch):
    """Information and squared residuals of a batch, summed over its structures, for each member."""
    energy, forces = wanted

    def member(params, structure, neighbors, labels, weight):
        found = {}
        value, pull = energy_and_forces(potential, params, structure, neighbors)
        real = (structure.species > 0)[:, None] & (weight > 0)
        off = {"energy": value - labels.energy, "forces": pull - labels.forces}
        has = {
            "energy": ~jnp.isnan(labels.energy) & (weight > 0),
            "forces": ~jnp.isnan(labels.forces) & real,
        }
        if energy:
            row = fisher.energy_row(potential, params, structure, neighbors).astype(float)
            found["energy"] = jnp.where(has["energy"], jnp.outer(row, row), 0.0)
        if forces:
            rows = fisher.force_rows(potential, params, structure, neighbors).astype(float)
            rows = jnp.where(has["forces"].reshape(-1, 1), rows, 0.0)
            found["forces"] = rows.T @ rows
        # Eqs. 8 and 18 of the paper: means over structures, of forces of the means within each.
        some = {name: jnp.maximum(jnp.sum(has[name]), 1) for name in has}
        squares = {
            name: jnp.sum(jnp.where(has[name], off[name], 0.0) ** 2) / some[name] for name in off
        }
        return found, (squares, {name: jnp.any(has[name]).astype(float) for name in has})

    def together(rows):
        every = jax.vmap(jax.vmap(member, (0, *[None] * 4)), (None, 0, 0, 0, 0))
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), every(params, *rows))

    weights = (batch.index >= 0).astype(float)
    groups = jax.tree.map(_grouped, (batch.structures, batch.neighbors, batch.labels, weights))
    shapes = jax.eval_shape(together, jax.tree.map(lambda leaf: leaf[0], groups))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, rows):
        return jax.tree.map(jnp.add, total, together(rows)), None

    return jax.lax.scan(add, zeros, groups)[0]


def _grouped(leaf):
    """(batch, …) as (groups, together, …); batches are of bucketed size."""
    size = max(n for n in range(1, _TOGETHER + 1) if leaf.shape[0] % n == 0)
    return leaf.reshape(leaf.shape[0] // size, size, *leaf.shape[1:])


@partial(jax.jit, static_argnums=(0, 1, 2))
def batch_scores(potential, names, count, params, about, batch: Batch):
    """Scores of one batch by name, means over the members; `about` are the fields of `Information`
    up to the noises, `count` the directions of a sketch."""
    atoms = batch.structures.species.shape[1]
    # The rows of one structure are many already.
    exact = bool({"qs2", "qs2_largest"} & set(names))
    signs = fisher.random_signs(jax.random.key(_SIGNS_SEED), count, atoms)

    def member(params, energy, forces, energy_noise, force_noise, structure, neighbors):
        given = (potential, params, structure, neighbors)
        coordinates = 3.0 * jnp.maximum(jnp.sum(structure.species > 0), 1)
        found = {}
        if {"qs1", "qs1_saturated"} & set(names):
            q = fisher.variances(energy, fisher.energy_row(*given))
            every = {"qs1": energy_noise * q, "qs1_saturated": energy_noise * q / (1.0 + q)}
            found |= {name: value for name, value in every.items() if name in names}
        if "atomic_qs1" in names:
            rows = fisher.atomic_rows(*given)
            found["atomic_qs1"] = energy_noise * fisher.variances(energy, rows)
        if exact:
            mean, largest = fisher.force_scores(forces, fisher.force_rows(*given), coordinates)
            every = {"qs2": force_noise * mean, "qs2_largest": force_noise * largest}
            found |= {name: value for name, value in every.items() if name in names}
        if "qs2_sketched" in names:
            # What pads has no neighbors, and adds nothing.
            rows = fisher.sketched_rows(*given, signs)
            found["qs2_sketched"] = force_noise * fisher.sketched_score(forces, rows, coordinates)
        return found

    def block(shared, rows):
        params, about = shared
        axes = (0, *(None if each is None else 0 for each in about), None, None)

        def one(pair):
            every = jax.vmap(member, axes)(params, *about, *pair)
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), every)

        return jax.lax.map(one, rows, batch_size=1 if exact else _TOGETHER)

    return across_devices(block, (params, about), (batch.structures, batch.neighbors))
