"""Features that turn with the molecule: spherical harmonics, and products of them that turn alike.

A feature of degree l is 2l + 1 numbers x_lm which a rotation of the molecule mixes by the Wigner
matrix D^l and an inversion multiplies by (-1)^l. Two of them couple to a third,

    [x ⊗ y]_l m = Σ_m1 Σ_m2 C(l1 m1 l2 m2 | l m) x_l1 m1 y_l2 m2,   |l1 - l2| ≤ l ≤ l1 + l2,

with Clebsch-Gordan coefficients C. Where l1 + l2 + l is odd the product has the other parity (a
pseudotensor, such as the cross product) and is left out. The harmonics themselves are made so:
Y_0 = 1, Y_1 = √3 (x, y, z)/r and Y_l ∝ [Y_(l-1) ⊗ Y_1]_l, with Σ_m Y_lm² = 2l + 1, so that every
component has a mean square of 1 over the sphere. Signs and order are e3x's, m = 1, -1, 0 for
l = 1: x, y, z.

O. T. Unke and H. Maennel, arXiv:2401.07595 (2024) (e3x); N. Thomas, T. Smidt, S. Kearnes, L. Yang,
L. Li, K. Kohlhoff and P. Riley, arXiv:1802.08219 (2018) (tensor field networks).
"""

import math
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.arrays import double_precision

Degrees = list[Array]
"""One array for each degree l = 0, 1, …: (…, 2l + 1) or (…, 2l + 1, features)."""


def paths(first: int, second: int, largest: int) -> tuple[tuple[int, int, int], ...]:
    """The (l1, l2, l) of all products of degrees up to `first` and `second`, by l.

    >>> paths(1, 1, 1)
    ((0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1))
    """
    return tuple(
        (one, other, degree)
        for degree in range(largest + 1)
        for one in range(first + 1)
        for other in range(second + 1)
        if abs(one - other) <= degree <= one + other and (one + other + degree) % 2 == 0
    )


@lru_cache(maxsize=256)
def clebsch_gordan(one: int, other: int, degree: int) -> np.ndarray:
    """C of one path, (2·one + 1, 2·other + 1, 2·degree + 1), Σ over the first two of C² is 1."""
    import e3x  # brings flax along, which takes its time

    # Without this the table would have the precision of whoever asks first.
    with double_precision():
        found = e3x.so3.clebsch_gordan_for_degrees(one, other, degree, cartesian_order=True)
        table = np.array(found)
    table.flags.writeable = False
    return table


def harmonics(directions: Float[Array, "*shape 3"], largest: int) -> Degrees:
    """Y_l of unit vectors, (*shape, 2l + 1) for l = 0 … `largest`.

    Of a zero vector all but Y_0 are 0. They are polynomials: no division whose slope could diverge.

    >>> [y.tolist() for y in harmonics(jnp.array([0.0, 0.0, 1.0]), 1)]  # doctest: +ELLIPSIS
    [[1.0], [0.0, 0.0, 1.73205...]]
    """
    found = [jnp.ones_like(directions[..., :1]), math.sqrt(3.0) * directions]
    for degree in range(2, largest + 1):
        table = _stretched(degree).astype(directions.dtype)
        # The outer product in one matrix product with the table.
        outer = found[degree - 1][..., :, None] * found[1][..., None, :]
        flat = outer.reshape(*outer.shape[:-2], -1)
        found.append(flat @ table.reshape(-1, table.shape[-1]))
    return found[: largest + 1]


@lru_cache(maxsize=16)
def _stretched(degree: int) -> np.ndarray:
    """C(l-1, 1 | l) times what makes Σ_m Y_lm² = 2l + 1 for every direction."""
    table = clebsch_gordan(degree - 1, 1, degree)
    axis = np.array([0.0, 0.0, 1.0])
    below = [np.ones(1), math.sqrt(3.0) * axis]
    for lower in range(2, degree):
        below.append(np.einsum("i,j,ijk->k", below[-1], below[1], _stretched(lower)))
    length = np.linalg.norm(np.einsum("i,j,ijk->k", below[degree - 1], below[1], table))
    return table * (math.sqrt(2 * degree + 1) / length)


def couple(
    one: Float[Array, "rows m1 features"],
    other: Float[Array, "rows m2 features"],
    degree: int,
) -> Float[Array, "rows m features"]:
    """[x ⊗ y]_degree, feature by feature."""
    table = clebsch_gordan(one.shape[1] // 2, other.shape[1] // 2, degree)
    if one.shape[1] == 1 or other.shape[1] == 1:
        # C is a unit matrix.
        return one * other
    # Written out: one loop over rows and features, where a product with the table would be many.
    x = [one[:, i] for i in range(one.shape[1])]
    y = [other[:, j] for j in range(other.shape[1])]
    found = [
        sum(x[i] * y[j] * float(table[i, j, m]) for i, j in np.argwhere(table[:, :, m]))
        for m in range(2 * degree + 1)
    ]
    return jnp.stack(found, axis=1)


def split(x: Float[Array, "rows m *features"]) -> Degrees:
    """Degrees that lie one after the other along the second axis, apart."""
    top = math.isqrt(x.shape[1])
    return [x[:, degree**2 : (degree + 1) ** 2] for degree in range(top)]
