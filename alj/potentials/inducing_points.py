"""Which surroundings represent all others in a sparse Gaussian process.

Farthest points: always the one least similar to any chosen so far (T. F. Gonzalez, Theor. Comput.
Sci. 38, 293 (1985), doi 10.1016/0304-3975(85)90224-5). CUR: always the one that those chosen so far
represent worst, as the remaining diagonal of a pivoted Cholesky decomposition of the kernel matrix
says: the greedy choice of columns with orthogonalization of G. Imbalzano et al., J. Chem. Phys.
148, 241730 (2018), doi 10.1063/1.5024611, in the space of the kernel. Both begin with the first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def farthest(
    rows: Float[Array, "all width"], own: Bool[Array, " all"], count: int, zeta: int
) -> Float[Array, "count width"]:
    """`count` of the rows that are one's `own`, of length 1 each; rows of 0 where they run out."""

    def more(place, state):
        chosen, distance = state
        pick = jnp.argmax(distance)
        point = jnp.where(distance[pick] > _NONE, rows[pick], 0.0)
        apart = 1.0 - rows @ point
        distance = jnp.minimum(distance, apart).at[pick].set(0.0)
        return chosen.at[place].set(point), distance

    chosen = jnp.zeros((count, rows.shape[1]), rows.dtype)
    return jax.lax.fori_loop(0, count, more, (chosen, jnp.where(own, 2.0, 0.0)))[0]


def cur(
    rows: Float[Array, "all width"], own: Bool[Array, " all"], count: int, zeta: int
) -> Float[Array, "count width"]:
    """`count` of the rows that are one's `own`, of length 1 each; rows of 0 where they run out."""

    def more(place, state):
        chosen, left, columns = state
        pick = jnp.argmax(left)
        there = left[pick] > _NONE
        point = jnp.where(there, rows[pick], 0.0)
        column = (rows @ point) ** zeta - columns @ columns[pick]
        column = jnp.where(there, column / jnp.sqrt(jnp.where(there, left[pick], 1.0)), 0.0)
        left = jnp.where(own, jnp.maximum(left - column * column, 0.0), 0.0).at[pick].set(0.0)
        return chosen.at[place].set(point), left, columns.at[:, place].set(column)

    start = (
        jnp.zeros((count, rows.shape[1]), rows.dtype),
        jnp.where(own, 1.0, 0.0).astype(rows.dtype),
        jnp.zeros((rows.shape[0], count), rows.dtype),
    )
    return jax.lax.fori_loop(0, count, more, start)[0]


_NONE = 1e-12
"""What is nearer, or represented better, than this is there already."""
