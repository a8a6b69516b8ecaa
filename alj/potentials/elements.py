"""Rows of atoms by element: a network of its own for each, computed for its own atoms only.

How many atoms an element has is a number in the data, which a compiled program does not know. It
either chooses among a few sizes while it runs, or is told: `listed` writes down, outside of it,
which atoms belong to each element, and the lengths of those lists are shapes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import instantiated
from alj.geometry.neighbors import compact
from alj.types import Params


class ByElement(NamedTuple):
    """Inputs of atoms, and which of the elements of a potential each of them is (none: padding).

    `rows` lists the atoms of each element, `atoms` pads; empty where that is to be found out while
    the program runs.
    """

    inputs: Float[Array, "*batch atoms inputs"]
    of: Bool[Array, "*batch atoms elements"]
    rows: tuple[Int[Array, "*batch rows"], ...] = ()


def by_element(
    description: ByElement,
    functions: list[Callable[[Params, Float[Array, "rows inputs"]], Float[Array, " rows"]]],
    params: Params,
) -> Float[Array, " atoms"]:
    """The function of its element for each atom, 0 for atoms of none.

    Functions of `(params, inputs)`; what else they use must not be differentiated.
    """
    inputs, of, rows = description
    total = jnp.zeros(inputs.shape[0], inputs.dtype)
    for kind, function in enumerate(functions):
        if rows:
            found = function(params, inputs.at[rows[kind]].get(mode="fill", fill_value=0.0))
            total = total.at[rows[kind]].add(found, mode="drop")
        elif len(functions) == 1:
            total = jnp.where(of[:, 0], function(params, inputs), 0.0)
        else:
            total = total + _of_some(function, params, inputs, of[:, kind])
    return total


def listed(description: Any) -> Any:
    """A description of a batch (on the host), with the rows of each element listed wherever it is
    `ByElement`.

    Lists are as long as the longest of the batch, rounded up to a sixteenth of the atoms, so that
    a growing data set seldom changes them.
    """

    def one(node):
        if not _is_by_element(node):
            return node
        of = np.asarray(node.of)
        atoms = of.shape[1]
        grain = -(-atoms // 16)
        lists = []
        for mask in np.moveaxis(of, 2, 0):
            most = max(int(mask.sum(axis=1).max(initial=0)), 1)
            length = min(-(-most // grain) * grain, atoms)
            # Stable: the atoms of the element first, in their order.
            order = np.argsort(~mask, axis=1, kind="stable")[:, :length]
            there = np.take_along_axis(mask, order, axis=1)
            lists.append(np.where(there, order, atoms).astype(np.int32))
        return node._replace(rows=tuple(lists))

    return jax.tree.map(one, description, is_leaf=_is_by_element)


def joined(description: Any) -> Any:
    """The descriptions of a batch of structures as that of all their atoms, one after the other."""

    def flat(leaf):
        return leaf.reshape(-1, *leaf.shape[2:])

    def one(node):
        if not _is_by_element(node):
            return flat(node)
        count, atoms = node.of.shape[:2]
        first = atoms * jnp.arange(count, dtype=jnp.int32)[:, None]
        lists = [jnp.where(rows < atoms, rows + first, count * atoms) for rows in node.rows]
        return ByElement(flat(node.inputs), flat(node.of), tuple(rows.ravel() for rows in lists))

    return jax.tree.map(one, description, is_leaf=_is_by_element)


def unlisted(description: Any) -> Any:
    """The description without such lists, for those who take some of its atoms."""
    return jax.tree.map(
        lambda node: node._replace(rows=()) if _is_by_element(node) else node,
        description,
        is_leaf=_is_by_element,
    )


def _is_by_element(node):
    return isinstance(node, ByElement)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_some(function, params, inputs, mask):
    """`function` (one number a row) of the rows of a mask, 0 elsewhere.

    The rows are gathered, in a number chosen among a few while the program runs: the smallest that
    holds them all. Computing every element's network for every atom would cost as many times.
    """
    return _switched(function, params, inputs, mask)


@partial(_of_some.defjvp, symbolic_zeros=True)
def _moved(function, primals, tangents):
    """Where only the inputs move, their slopes come from the same branch.

    Else every branch of the forward pass would hand over what the backward pass of any needs:
    zeros, most of it, which cost more than the networks.
    """
    params, inputs, mask = primals
    of_params, of_inputs, _ = tangents
    if all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(of_params)):
        slopes_too = partial(_with_slopes, function)
        found, slopes = _switched(slopes_too, params, inputs, mask)
        if isinstance(of_inputs, SymbolicZero):
            return found, jnp.zeros_like(found)
        return found, jnp.sum(slopes * of_inputs, axis=1)
    moves = jax.tree.map(instantiated, (params, inputs), (of_params, of_inputs))
    return jax.jvp(lambda p, x: _switched(function, p, x, mask), (params, inputs), moves)


def _with_slopes(function, params, inputs):
    """Values (rows,) and slopes (rows, inputs): a row's value depends on that row only."""
    found, back = jax.vjp(lambda x: function(params, x), inputs)
    return found, back(jnp.ones_like(found))[0]


def _switched(function, params, inputs, mask):
    """What `function` gives for the rows of a mask, with their number chosen while this runs."""
    atoms = inputs.shape[0]
    sizes = sorted({-(-atoms * share // 8) for share in _EIGHTHS})
    count = jnp.cumsum(mask, dtype=jnp.int32)

    def masked(found):
        return jnp.where(mask.reshape(-1, *[1] * (found.ndim - 1)), found, 0.0)

    def some(size, params, inputs):
        rows = compact(mask[None], size)[0][0]
        found = function(params, inputs.at[rows].get(mode="fill", fill_value=0.0))
        return jax.tree.map(lambda leaf: masked(leaf.at[count - 1].get(mode="clip")), found)

    def everything(params, inputs):
        return jax.tree.map(masked, function(params, inputs))

    branches = [*(partial(some, size) for size in sizes[:-1]), everything]
    if len(branches) == 1:
        return everything(params, inputs)
    most = largest(count[-1])
    chosen = jnp.sum(most > jnp.asarray(sizes[:-1], jnp.int32), dtype=jnp.int32)
    return jax.lax.switch(chosen, branches, params, inputs)


_EIGHTHS = (1, 3, 6, 8)


@jax.custom_batching.custom_vmap
def largest(counts: Int[Array, "*shape"]) -> Int[Array, ""]:
    """The largest of all counts, also of those of the other structures of a `vmap`.

    A `switch` on it remains a switch in a batch, where one on a batched number would compute all
    of its branches.
    """
    return jnp.max(counts, initial=0)


@largest.def_vmap
def _largest_of_batch(_, batched, counts):
    return largest(counts), False
