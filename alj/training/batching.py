"""Batches for training: rounded up, cast, shuffled; and which part of the params is trained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import bucket, pad_axis
from alj.training.tracking import Fold, rows
from alj.types import Batch, Key, Labels, Neighbors, Params, Structure


def enlarged(batch: Batch, smallest: int) -> Batch:
    """The batch with empty structures added up to a bucket of at least `smallest`.

    A growing data set then meets a handful of shapes, and each step is compiled a handful of times.
    Small ones double: there a step costs less than the compilation that a closer fit would take.
    """
    batch = jax.device_get(batch)
    count, atoms = batch.structures.species.shape
    size = bucket(count, smallest)
    if size < _DOUBLING:
        size = 1 << (size - 1).bit_length()

    def longer(leaf, fill):
        return jnp.asarray(pad_axis(leaf, size, fill))

    def padded(tree, *fills):
        return [longer(leaf, fill) for leaf, fill in zip(tree, fills, strict=True)]

    return Batch(
        Structure(*padded(batch.structures, 0.0, 0, 0.0, 0, 0)),
        Neighbors(*padded(batch.neighbors, atoms, 0, False)),
        Labels(*padded(batch.labels, *[np.nan] * len(batch.labels))),
        longer(batch.weights, 0.0),
        longer(batch.index, -1),
    )


_DOUBLING = 128


def in_precision(tree: Any, precision: str) -> Any:
    """Floating leaves in that precision."""

    def cast(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def without_neighbors(batch: Batch) -> Batch:
    """The batch with neighbor tables of no columns: a described batch needs none, and the shape of
    the table must not decide what is compiled."""
    tables = batch.neighbors
    return batch._replace(
        neighbors=tables._replace(indices=tables.indices[:, :, :0], shifts=tables.shifts[:, :, :0])
    )


def minibatches(
    key: Key, fold: Fold, batch_size: int
) -> tuple[tuple[Int[Array, "steps share"], Bool[Array, "steps share"]], ...]:
    """Shuffled places in each batch, and which of them train; one row a minibatch.

    Every minibatch takes the same share of each batch. Those that train come first, so that only
    the last minibatches are partly empty, or wholly so where padding is large.
    """
    counts = [batch.index.shape[0] for batch in fold.batches]
    steps = -(-sum(counts) // batch_size)
    found = []
    for one, batch in zip(jax.random.split(key, len(counts)), fold.batches, strict=True):
        count = batch.index.shape[0]
        share = -(-count // steps)
        train = rows(fold.train, batch) > 0
        order = jnp.argsort(jnp.where(train, jax.random.uniform(one, (count,)), 2.0))
        places = jnp.pad(order, (0, steps * share - count))
        inside = jnp.arange(steps * share) < count
        found.append((places.reshape(steps, share), (train[places] & inside).reshape(steps, share)))
    return tuple(found)


def trained_part(params: Params):
    """Body and readout, and the function that puts others back beside the constants."""
    trained = {"body": params["body"], "readout": params["readout"]}
    return trained, lambda trained: {**params, **trained}


def raveled(params: Params) -> tuple[Float[Array, " parameters"], Any]:
    """What is trained as one vector, and the function that makes params of a vector."""
    trained, rebuild = trained_part(params)
    vector, unravel = ravel_pytree(trained)
    return vector, lambda vector: rebuild(unravel(vector))
