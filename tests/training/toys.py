"""A potential and data so small that every training compiles in a moment."""

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import safe_norm
from alj.geometry.neighbors import TableSize, batch_tables
from alj.potentials.combine import energy_forces_stress, local
from alj.types import Batch, Labels, Structure

CUTOFF = 3.0
ATOMS = 5
WIDTHS = (0.2, 0.6, 1.5)


def toy_potential(hidden: int = 3):
    """Three radial functions, one tanh layer, an affine readout; 5 hidden + 1 parameters."""

    def describe(env):
        squares = jnp.sum(env.vectors**2, axis=-1)
        fade = jnp.where(squares < CUTOFF**2, (1.0 - squares / CUTOFF**2) ** 3, 0.0)
        fade = jnp.where(env.neighbor_species > 0, fade, 0.0)
        return jnp.stack([jnp.sum(fade * jnp.exp(-eta * squares), axis=-1) for eta in WIDTHS], -1)

    def evaluate(params, inputs):
        body, constants = params["body"], params["constants"]
        x = jnp.tanh((inputs / constants["unit"][None]) @ body["weights"] + body["biases"][None])
        return x @ params["readout"]["weights"] + body["shift"]

    def init(key):
        first, last = jax.random.split(key)
        return {
            "body": {
                "weights": jax.random.normal(first, (len(WIDTHS), hidden)),
                "biases": jnp.zeros(hidden),
                "shift": jnp.zeros(()),
            },
            "readout": {"weights": jax.random.normal(last, (hidden,))},
            "constants": {"unit": jnp.ones(len(WIDTHS))},
        }

    def prepare(params, batches):
        unit = jnp.asarray([2.0, 1.0, 0.5], params["constants"]["unit"].dtype)
        return {**params, "constants": {"unit": unit}}

    return local(
        lambda params, env: evaluate(params, describe(env)),
        cutoff=CUTOFF,
        init=init,
        prepare=prepare,
        describe=describe,
        evaluate=evaluate,
    )


def springs():
    """The teacher: pairs that want to be 2 Å apart, smooth at the cutoff."""

    def atomic(params, env):
        lengths = safe_norm(env.vectors)
        fade = jnp.where(lengths < CUTOFF, (1.0 - (lengths / CUTOFF) ** 2) ** 3, 0.0)
        each = jnp.where(env.neighbor_species > 0, fade * (lengths - 2.0) ** 2, 0.0)
        return 0.5 * jnp.sum(each, axis=-1)

    return local(atomic, cutoff=CUTOFF)


def toy_batch(count: int, *, seed: int = 0, index=None) -> Batch:
    """Random periodic boxes of five atoms with energies, forces and stress of the teacher."""
    generator = np.random.default_rng(seed)
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 2.0]])
    positions = corners + generator.uniform(-0.4, 0.4, (count, ATOMS, 3))
    structures = Structure(
        jnp.asarray(positions),
        jnp.full((count, ATOMS), 18),
        jnp.broadcast_to(5.0 * jnp.eye(3), (count, 3, 3)),
        jnp.zeros(count, int),
        jnp.zeros(count, int),
    )
    neighbors = batch_tables(structures, CUTOFF, size=TableSize(16, (1, 1, 1)))
    assert not np.any(neighbors.overflow)
    energies, forces, stress = _labels(structures, neighbors)
    missing = jnp.full((count, ATOMS), jnp.nan)
    labels = Labels(energies, forces, stress, missing[:, :3], missing, missing)
    places = jnp.arange(count) if index is None else jnp.asarray(index)
    return Batch(structures, neighbors, labels, jnp.ones(count), places)


@jax.jit
def _labels(structures, neighbors):
    teacher = springs()
    params = teacher.init(jax.random.key(0))
    return jax.vmap(lambda s, n: energy_forces_stress(teacher, params, s, n))(structures, neighbors)


def take(batch: Batch, rows) -> Batch:
    """Some structures of a batch, numbered anew."""
    some = jax.tree.map(lambda leaf: leaf[jnp.asarray(rows)], batch)
    return some._replace(index=jnp.arange(len(rows)))


def without_labels(batch: Batch, rows) -> Batch:
    """The batch with all labels of some structures missing."""
    rows = jnp.asarray(rows)
    labels = jax.tree.map(lambda leaf: leaf.at[rows].set(jnp.nan), batch.labels)
    return batch._replace(labels=labels)
