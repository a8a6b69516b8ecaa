"""Smooth particle-mesh Ewald: reciprocal sums of many charges by B-splines and fast transforms.

    Q(m) = Σ_j q_j Π_d M_p(u_jd - m_d),   u = K × fractional coordinate
    φ_j = Σ_m Π_d M_p(u_jd - m_d) θ(m),   θ = F⁻¹[A |b1 b2 b3|² F(Q)],   A = (4π/V) exp(-k²/4α²)/k²
    b_d(n) = exp(2πi (p - 1) n/K) / Σ_{l=0}^{p-2} M_p(l + 1) exp(2πi n l/K)

M_p is the cardinal B-spline of order p. The forces are the exact derivatives of this energy, whose
error of the order (spacing α)^p does not conserve momentum beyond it.

U. Essmann, L. Perera, M. L. Berkowitz, T. Darden, H. Lee, L. G. Pedersen, J. Chem. Phys. 103, 8577
(1995), doi 10.1063/1.470117.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from alj.geometry.periodic import reciprocal, volume
from alj.potentials.reciprocal_sums import Field

BLOCK = 512
"""Charges whose windows of the mesh are held at once."""


def on_mesh(alpha: float, mesh, order: int, charges, positions, cell, active) -> Field:
    """The field of `over_vectors` on a mesh; zeros unless active."""

    def solve():
        return _solve(alpha, mesh, order, charges, positions, cell)

    def nothing():
        zero = jnp.zeros_like
        return Field(zero(charges), zero(positions), zero(cell))

    return jax.lax.cond(active, solve, nothing)


def splines(offsets, order: int):
    """M_p and its derivative at offset + 0, 1, … p-1 for offsets in [0, 1), (…, p) each."""
    one = [offsets, 1.0 - offsets]  # order 2, at offset and offset + 1
    values, slopes = one, one
    for p in range(3, order + 1):
        before = [*values, jnp.zeros_like(offsets)]
        shifted = [jnp.zeros_like(offsets), *values]
        slopes = [right - left for right, left in zip(before, shifted, strict=True)]
        values = [
            ((offsets + i) * right + (p - i - offsets) * left) / (p - 1)
            for i, (right, left) in enumerate(zip(before, shifted, strict=True))
        ]
    return jnp.stack(values, axis=-1), jnp.stack(slopes, axis=-1)


def _solve(alpha, mesh, order, charges, positions, cell):
    inverse = reciprocal(cell)
    points = np.array([mesh])
    places = positions @ inverse
    places = (places - jnp.floor(places)) * points
    # A coordinate a hair below 0 is wrapped to exactly K.
    corners = jnp.minimum(jnp.floor(places).astype(jnp.int32), points.astype(np.int32) - 1)
    atoms = charges.shape[0]
    blocks = -(-atoms // BLOCK)

    def cut(leaf):
        widths = [(0, blocks * BLOCK - atoms), *[(0, 0)] * (leaf.ndim - 1)]
        return jnp.pad(leaf, widths).reshape(blocks, BLOCK, *leaf.shape[1:])

    cuts = cut(charges), cut(places - corners), cut(corners)
    spread = _spread(mesh, order, *cuts)
    waves = jnp.fft.rfftn(_folded(spread, order))
    factors, strain = _influence(alpha, mesh, order, inverse, waves)
    scale = 4 * math.pi / volume(cell)
    potential = jnp.fft.irfftn(factors * waves, s=mesh) * (scale * math.prod(mesh))
    values, slopes = jax.lax.map(
        partial(_gather, order, _unfolded(potential, order)), (cuts[1], cuts[2])
    )
    slopes = slopes.reshape(-1, 3)[:atoms] * points
    return Field(values.reshape(-1)[:atoms], slopes @ inverse.T, scale * strain)


def _weights(order, offsets):
    """Weights of the window of each charge along the three directions, and their derivatives.

    A window begins p-1 points before the corner below the charge: M_p(offset + p-1) comes first.
    """
    values, slopes = splines(offsets, order)
    return values[..., ::-1], slopes[..., ::-1]


def _spread(mesh, order, charges, offsets, corners):
    """The mesh of charges, with p-1 more points below in each direction."""
    numbers = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(0, 1, 2),
    )

    def add(total, block):
        q, offset, corner = block
        w = _weights(order, offset)[0]
        first = q[:, None] * w[:, 0]
        windows = first[:, :, None, None] * w[:, 1][:, None, :, None] * w[:, 2][:, None, None, :]
        total = jax.lax.scatter_add(
            total, corner, windows, numbers, mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
        )
        return total, None

    empty = jnp.zeros([points + order - 1 for points in mesh], charges.dtype)
    return jax.lax.scan(add, empty, (charges, offsets, corners))[0]


def _gather(order, potential, block):
    """Potentials and gradients by the coordinates on the mesh, of a block of charges."""
    offsets, corners = block
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=(1, 2, 3), collapsed_slice_dims=(), start_index_map=(0, 1, 2)
    )
    windows = jax.lax.gather(
        potential,
        corners,
        numbers,
        (order, order, order),
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    w, dw = _weights(order, offsets)

    def along(rows, weights):
        return jnp.sum(rows * weights.reshape(-1, *[1] * (rows.ndim - 2), order), axis=-1)

    rows, turned = along(windows, w[:, 2]), along(windows, dw[:, 2])
    lines = along(rows, w[:, 1])
    gradient = [
        along(lines, dw[:, 0]),
        along(along(rows, dw[:, 1]), w[:, 0]),
        along(along(turned, w[:, 1]), w[:, 0]),
    ]
    return along(lines, w[:, 0]), jnp.stack(gradient, axis=-1)


def _folded(spread, order):
    """The points below are images of the last ones."""
    extra = order - 1
    for axis in range(3):
        below = jax.lax.slice_in_dim(spread, 0, extra, axis=axis)
        spread = jax.lax.slice_in_dim(spread, extra, None, axis=axis)
        last = [slice(None)] * 3
        last[axis] = slice(-extra, None)
        spread = spread.at[tuple(last)].add(below)
    return spread


def _unfolded(potential, order):
    """The mesh with its last p-1 points once more below the first."""
    for axis in range(3):
        below = jax.lax.slice_in_dim(potential, potential.shape[axis] - order + 1, None, axis=axis)
        potential = jnp.concatenate([below, potential], axis=axis)
    return potential


def _influence(alpha, mesh, order, inverse, waves):
    """exp(-k²/4α²)/k² |b|² on the half mesh of frequencies, and the strain derivative / (4π/V)."""
    whole = [np.fft.fftfreq(points, 1 / points) for points in mesh]
    whole[2] = np.arange(mesh[2] // 2 + 1)
    # Frequencies beyond the half are there once, the first and the middle one are their own images.
    often = np.where((whole[2] == 0) | (2 * whole[2] == mesh[2]), 1.0, 2.0)
    shapes = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    ns = [n.reshape(shape) for n, shape in zip(whole, shapes, strict=True)]
    k = [2 * math.pi * sum(inverse[c, d] * ns[d] for d in range(3)) for c in range(3)]
    squares = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    zero = squares == 0
    squares = jnp.where(zero, 1.0, squares)
    factors = jnp.where(zero, 0.0, jnp.exp(-squares / (4 * alpha**2)) / squares)
    for points, n, shape in zip(mesh, whole, shapes, strict=True):
        factors = factors * _bluntness(points, order)[n.astype(int)].reshape(shape)
    energies = 0.5 * often.reshape(1, 1, -1) * factors * (waves.real**2 + waves.imag**2)
    scaled = 2 * energies * (1 / squares + 1 / (4 * alpha**2))
    both = jnp.stack(
        [jnp.stack([jnp.sum(scaled * k[i] * k[j]) for j in range(3)]) for i in range(3)]
    )
    return factors, both - jnp.sum(energies) * jnp.eye(3, dtype=energies.dtype)


def _bluntness(points: int, order: int) -> np.ndarray:
    """|b|² along one direction (host); 0 where an odd order has no answer, at the middle."""
    values = np.array(splines_at_integers(order))
    n = np.arange(points)
    below = np.exp(2j * np.pi * np.outer(n, np.arange(order - 1)) / points) @ values
    size = np.abs(below) ** 2
    known = size > 1e-10
    return np.where(known, 1.0 / np.where(known, size, 1.0), 0.0)


def splines_at_integers(order: int) -> list[float]:
    """M_p(1) … M_p(p-1).

    >>> splines_at_integers(4)
    [0.16666666666666666, 0.6666666666666666, 0.16666666666666666]
    """
    values = [1.0]  # order 2, at 1
    for p in range(3, order + 1):
        at = [0.0, *values, 0.0]
        values = [(i * at[i] + (p - i) * at[i - 1]) / (p - 1) for i in range(1, p)]
    return values
