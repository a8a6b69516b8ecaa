"""Array functions that every floor needs: NaN-safe roots and powers, buckets, padding, keys."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from alj.types import Key


def safe_norm(vectors: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """Length of vectors, with gradient 0 (not NaN) where the vector is zero."""
    square = jnp.sum(vectors * vectors, axis=-1)
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def safe_power(base: Float[Array, "*shape"], exponent: float) -> Float[Array, "*shape"]:
    """`base ** exponent` for base ≥ 0, with value and gradient 0 (not NaN) where base is 0."""
    zero = base <= 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, base) ** exponent)


def bucket(count: int, smallest: int = 1) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that holds `count`.

    Sizes rounded up to buckets waste at most a third and keep the number of compilations
    logarithmic in the largest size.

    >>> [bucket(n) for n in (1, 5, 13, 100)]
    [1, 6, 16, 128]
    """
    size = max(count, smallest, 1)
    power = 1 << (size - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= size else power


def double_precision(enable: bool = True):
    """Context in which JAX computes in float64 (or not), without touching the global switch."""
    scoped = getattr(jax, "enable_x64", None)
    if scoped is None:  # jax < 0.8 keeps it under jax.experimental
        scoped = importlib.import_module("jax.experimental").enable_x64
    return scoped(enable)


def pad_axis(array, length: int, value, axis: int = 0) -> np.ndarray:
    """`array` (host) extended along `axis` to `length` with `value`."""
    array = np.asarray(array)
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, length - array.shape[axis])
    return np.pad(array, widths, constant_values=value)


def split_named(key: Key, *names: str) -> tuple[Key, ...]:
    """One key for each name, independent of the order and number of the others.

    >>> import jax
    >>> walk, choose = split_named(jax.random.key(0), "walk", "choose")
    """
    return tuple(jax.random.fold_in(key, _stable_hash(name)) for name in names)


def _stable_hash(name: str) -> int:
    value = 2166136261
    for byte in name.encode():
        value = ((value ^ byte) * 16777619) % 2**32
    return value


def stack_trees(trees):
    """Trees of equal structure, stacked along a new leading axis (host or device)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take_tree(tree, index):
    """`leaf[index]` for every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def instantiated(primal: Array, tangent: Array | SymbolicZero) -> Array:
    """The tangent that a rule with symbolic zeros was given, as an array."""
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent


def across_devices(function: Callable, shared: Any, rows: Any):
    """`function(shared, rows)`, each device doing its share of the rows (every leaf's first axis).

    `function` must treat each row for itself: then nothing but the time depends on how many devices
    there are. As many take part as divide the number of rows.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    taking_part = max(n for n in range(1, jax.device_count() + 1) if count % n == 0)
    if taking_part == 1:
        return function(shared, rows)
    mesh = Mesh(np.asarray(jax.devices()[:taking_part]), ("rows",))
    whole, share = PartitionSpec(), PartitionSpec("rows")
    # What is the same everywhere and what is not may be mixed: rows never meet.
    spread = jax.shard_map(
        function, mesh=mesh, in_specs=(whole, share), out_specs=share, check_vma=False
    )
    return spread(shared, rows)
