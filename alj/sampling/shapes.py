"""Distances between shapes: sets of points, compared after the best rotation and shift.

With both sets shifted to their centers, the rotation that minimizes Σ |x - R y|² is that of the
unit quaternion q which maximizes qᵀ K q, with K the symmetric 4 × 4 matrix of S = Σ y xᵀ. The
largest eigenvalue may be degenerate (points on a line), where Newton's method on the quartic
fails and derivatives of eigenvectors diverge. So q comes from squaring K + |K| over and over, and
the distance from R itself: no difference of large numbers, and by the envelope theorem its first
derivative at fixed R is exact (its second is not).

B. K. P. Horn, J. Opt. Soc. Am. A 4, 629 (1987), doi:10.1364/JOSAA.4.000629; D. L. Theobald, Acta
Cryst. A 61, 478 (2005), doi:10.1107/S0108767305015266.
*Path variables*: D. Branduardi, F. L. Gervasio, M. Parrinello, J. Chem. Phys. 126, 054103 (2007),
doi:10.1063/1.2432340.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SQUARINGS = 32
"""Powers up to 2^32 tell eigenvalues apart that differ by a part in 10⁹."""


def rotated_distance(points: Float[Array, "n 3"], target, weights) -> Float[Array, ""]:
    """Root of the weighted mean of |x - R y|² in Å, with gradient 0 where it is 0."""
    square = aligned_square(points, target, weights)
    zero = square <= 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def aligned_square(points: Float[Array, "n 3"], target, weights) -> Float[Array, ""]:
    """The weighted mean of |x - R y|² in Å^2 for the best R."""
    share = (weights / jnp.sum(weights))[None]
    x, y = points - share @ points, target - share @ target
    rotation = jax.lax.stop_gradient(best_rotation((share * y.T) @ x))
    return jnp.sum(share[0] * jnp.sum((x - y @ rotation.T) ** 2, axis=-1))


def best_rotation(covariance: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The rotation R that brings y onto x, from S_ab = Σ y_a x_b."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = covariance
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    key = jnp.stack([jnp.stack(row) for row in rows])
    size = jnp.sqrt(jnp.sum(key**2))
    eye = jnp.eye(4, dtype=key.dtype)
    # without extent every rotation is the best
    positive = jnp.where(size > 0, key / jnp.where(size > 0, size, 1.0), 0.0) + eye

    def squared(_, matrix):
        matrix = matrix @ matrix
        return matrix / jnp.trace(matrix)

    power = jax.lax.fori_loop(0, SQUARINGS, squared, positive / jnp.trace(positive))
    column = power[:, jnp.argmax(jnp.diagonal(power))]
    w, x, y, z = column / jnp.sqrt(jnp.sum(column**2))
    turned = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return jnp.stack([jnp.stack(row) for row in turned])


def progress(points: Float[Array, "n 3"], nodes: Float[Array, "p n 3"], sharpness: float):
    """Branduardi's s from 0 to 1 and z in Å^2; `sharpness` is λ in Å^-2."""
    ones = jnp.ones(points.shape[0], points.dtype)
    squares = jax.vmap(aligned_square, (None, 0, None))(points, nodes, ones)
    places = jnp.linspace(0.0, 1.0, nodes.shape[0], dtype=points.dtype)
    along = jnp.dot(places, jax.nn.softmax(-sharpness * squares))
    return along, -jax.nn.logsumexp(-sharpness * squares) / sharpness


def mean_square(first: np.ndarray, second: np.ndarray) -> float:
    """The mean of |x - R y|² in Å^2 (host)."""
    moved = superposed(first, second)
    return float(np.mean(np.sum((first - first.mean(axis=0) - moved) ** 2, axis=-1)))


def superposed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The second shape turned onto the first, about the origin (host).

    W. Kabsch, Acta Cryst. A 32, 922 (1976), doi:10.1107/S0567739476001873.
    """
    x, y = first - first.mean(axis=0), second - second.mean(axis=0)
    u, _, v = np.linalg.svd(y.T @ x)
    u[:, -1] *= np.sign(np.linalg.det(u @ v))
    return y @ (u @ v)


def interpolated(nodes: np.ndarray, between: int) -> np.ndarray:
    """Nodes turned one onto the other, with straight lines of `between` nodes put in (host)."""
    shapes = [nodes[0] - nodes[0].mean(axis=0)]
    for node in nodes[1:]:
        last, following = shapes[-1], superposed(shapes[-1], node)
        shares = np.arange(1, between + 2) / (between + 1)
        shapes += [last + share * (following - last) for share in shares]
    return np.stack(shapes)
