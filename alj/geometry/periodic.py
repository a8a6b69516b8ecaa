"""Periodic cells: heights, fractional coordinates, wrapping, volumes; triclinic, slabs and wires.

The rows of a cell are lattice vectors. A zero row is a direction that does not repeat: fractional
coordinates along it are 0, so that nothing is ever wrapped there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def periodic_axes(cell: Float[Array, "3 3"]) -> Bool[Array, " 3"]:
    """Which lattice vectors repeat."""
    return jnp.any(cell != 0, axis=-1)


def reciprocal(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The pseudo-inverse of the cell: `positions @ reciprocal(cell)` are fractional coordinates.

    Columns of directions that do not repeat are zero. Written out by cofactors of the Gram matrix,
    because a general matrix inverse of this size takes longer to compile than all the rest.
    """
    gram = _gram(cell)
    a, b, c = gram
    cofactors = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)
    return cell.T @ (cofactors / jnp.dot(a, jnp.cross(b, c)))


def fractional(positions: Float[Array, "*atoms 3"], cell: Float[Array, "3 3"]):
    """Coordinates in units of the lattice vectors; 0 along directions that do not repeat."""
    return positions @ reciprocal(cell)


def heights(cell: Float[Array, "3 3"]) -> Float[Array, " 3"]:
    """Distances between opposite faces in Å; infinite along directions that do not repeat."""
    steepness = jnp.sqrt(jnp.sum(reciprocal(cell) ** 2, axis=0))
    periodic = periodic_axes(cell)
    return jnp.where(periodic, 1.0 / jnp.where(periodic, steepness, 1.0), jnp.inf)


def volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume in Å^3; of a slab its area times 1 Å, of a wire its length times 1 Å^2."""
    a, b, c = _gram(cell)
    return jnp.sqrt(jnp.dot(a, jnp.cross(b, c)))


def wrap(positions: Float[Array, " atoms 3"], cell: Float[Array, "3 3"]):
    """Positions moved into the cell along the directions that repeat."""
    whole = jnp.floor(fractional(positions, cell))
    return positions - whole @ cell


def minimum_image(vectors: Float[Array, "*shape 3"], cell: Float[Array, "3 3"], inverse):
    """Vectors reduced by rounding, and the shifts added: exact below half the smallest height.

    `inverse` is `reciprocal(cell)`, an argument because callers reuse it.
    """
    shifts = -jnp.round(vectors @ inverse)
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
    first, second, third = (int(n) for n in np.maximum(needed, 0))
    return first, second, third


def _gram(cell):
    """Scalar products of the lattice vectors; a missing one counts as a normal of length 1."""
    return cell @ cell.T + jnp.diag(jnp.where(periodic_axes(cell), 0.0, 1.0).astype(cell.dtype))
