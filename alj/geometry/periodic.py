"""Periodic cells: heights, fractional coordinates, wrapping, volumes; triclinic, slabs and wires.

The rows of a cell are lattice vectors. A zero row is a direction that does not repeat; for algebra
it is replaced by a unit vector normal to the others, so that a slab's or a wire's cell inverts.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def periodic_axes(cell: Float[Array, "3 3"]) -> Bool[Array, " 3"]:
    """Which lattice vectors repeat."""
    return jnp.any(cell != 0, axis=-1)


def completed_cell(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """`cell` with its zero rows replaced by unit vectors normal to the remaining ones."""
    periodic = periodic_axes(cell)
    rows = [jnp.where(periodic[i], cell[i], 0.0) for i in range(3)]
    for i in range(3):
        rows[i] = jnp.where(periodic[i], rows[i], _normal(rows, i))
    return jnp.stack(rows)


def fractional(positions: Float[Array, "*atoms 3"], cell: Float[Array, "3 3"]):
    """Coordinates in units of the lattice vectors (Å along directions that do not repeat)."""
    return positions @ jnp.linalg.inv(completed_cell(cell))


def heights(cell: Float[Array, "3 3"]) -> Float[Array, " 3"]:
    """Distances between opposite faces in Å; infinite along directions that do not repeat."""
    inverse = jnp.linalg.inv(completed_cell(cell))
    return jnp.where(periodic_axes(cell), 1.0 / jnp.linalg.norm(inverse, axis=0), jnp.inf)


def volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume in Å^3; of a slab its area times 1 Å, of a wire its length times 1 Å^2."""
    return jnp.abs(jnp.linalg.det(completed_cell(cell)))


def wrap(positions: Float[Array, " atoms 3"], cell: Float[Array, "3 3"]):
    """Positions moved into the cell along the directions that repeat."""
    whole = jnp.floor(fractional(positions, cell))
    return positions - jnp.where(periodic_axes(cell)[None], whole, 0.0) @ cell


def minimum_image(vectors: Float[Array, "*shape 3"], cell: Float[Array, "3 3"], inverse):
    """Vectors reduced by rounding, and the shifts added: exact below half the smallest height.

    `inverse` is that of the completed cell, taken as an argument because callers reuse it.
    """
    whole = jnp.round(vectors @ inverse)
    shifts = -whole * periodic_axes(cell).astype(whole.dtype).reshape(
        (1,) * (whole.ndim - 1) + (3,)
    )
    return vectors + shifts @ cell, shifts.astype(jnp.int32)


def images_needed(cells: np.ndarray, cutoff: float) -> tuple[int, int, int]:
    """Images to search on either side of the nearest, per direction (host, for a batch of cells).

    A vector no longer than the cutoff has fractional components of at most cutoff/height, and the
    nearest image lies within ½: zero images where every cell is at least twice the cutoff high.
    """
    cells = np.reshape(cells, (-1, 3, 3))
    # columns of the pseudo-inverse are 1/height long, and zero where a direction does not repeat
    steepness = np.linalg.norm(np.linalg.pinv(cells), axis=-2).max(axis=0)
    needed = np.ceil(cutoff * steepness - 0.5000005)
    return tuple(int(n) for n in np.maximum(needed, 0))


def _normal(rows, i):
    """Unit vector normal to the non-zero ones of the two other rows."""
    a, b = rows[(i + 1) % 3], rows[(i + 2) % 3]
    cross = jnp.cross(a, b)
    area = jnp.linalg.norm(cross)
    one = jnp.where(jnp.any(a != 0), a, b)
    least = jnp.eye(3, dtype=a.dtype)[jnp.argmin(jnp.abs(one))]
    side = jnp.cross(one, least)
    length = jnp.linalg.norm(side)
    axis = jnp.eye(3, dtype=a.dtype)[i]
    single = jnp.where(length > 0, side / jnp.where(length > 0, length, 1.0), axis)
    return jnp.where(area > 0, cross / jnp.where(area > 0, area, 1.0), single)
