"""Smooth Coulomb sums with their derivatives: over reciprocal vectors, or over all pairs.

A phase exp(ik·r) is a product of three, one for each lattice vector, and a structure factor a sum
of eight real products of cosines and sines,

    S(σ1 n1, σ2 n2, n3) = Σ_αβγ (iσ1)^α (iσ2)^β i^γ M_αβγ,   M_αβγ = Σ_j q_j x_j^α y_j^β z_j^γ

with α, β, γ = 0 for cos(n θ), 1 for sin(n θ), which all four signs share. M is one matrix product
for a tile of n's, and so is the way back, φ_j = Σ W_αβγ x_j^α y_j^β z_j^γ: half of the arithmetic
of complex phases, a twentieth of the time of computing each phase. How many tiles there are depends
on the cell, so they are a loop: one program serves all cells.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.geometry.periodic import reciprocal, volume

TILE = (8, 4, 12)
"""Integers along each reciprocal vector that one turn of the loop sums."""

ROWS = 64
"""Charges whose distances to all others are computed at once."""


class Field(NamedTuple):
    """Of charges q with φ = G q: the potential, its gradient, the strain derivative of ½ q·G q.

    Gradients are those of the potential at the place of each charge, so that the energy changes by
    q_i times them.
    """

    potential: Float[Array, " atoms"]
    slopes: Float[Array, "atoms 3"]
    strain: Float[Array, "3 3"]


def over_vectors(alpha: float, largest: float, charges, positions, cell, active) -> Field:
    """(4π/V) Σ exp(-k²/4α²)/k² Re[S* exp(ik·r)] over 0 < |k| <= `largest`; zeros unless active.

    An integer n that belongs to such a k is at most `largest` |a|/2π.
    """
    inverse = reciprocal(cell)
    angles = 2 * math.pi * (positions @ inverse).T
    lengths = jnp.sqrt(jnp.sum(cell * cell, axis=1))
    bounds = jnp.floor(largest * lengths / (2 * math.pi)).astype(int)
    tiles = bounds // np.array(TILE) + 1
    steps = [jnp.arange(size, dtype=angles.dtype) for size in TILE]
    starts = [_waves(n[:, None] * angle[None, :]) for n, angle in zip(steps, angles, strict=True)]

    jump = _waves(TILE[2] * angles[2][None])

    def place(d, number):
        """The integers of a tile along one direction, and their waves."""
        first = (number * TILE[d]).astype(angles.dtype)
        return first + steps[d], _turned(starts[d], _waves(first * angles[d][None]))

    def add_slab(slab, total):
        n1, x = place(0, slab)

        def add_line(line, kept):
            n2, y = place(1, line)
            products = (x[:, :, None, None] * y[None, None]).reshape(-1, atoms)
            y_slopes = _slopes(y, n2)

            def add_tile(number, state):
                z, kept = state
                integers = n1, n2, number * TILE[2] + steps[2]
                vectors, factors = _vectors(alpha, largest, integers, inverse)

                def add(kept):
                    back, strain = _tile(alpha, charges, products, z, integers, vectors, factors)
                    found = (*_contract(y, y_slopes, back), strain)
                    return tuple(old + new for old, new in zip(kept, found, strict=True))

                kept = jax.lax.cond(jnp.any(factors > 0), add, lambda kept: kept, kept)
                return _turned(z, jump), kept

            return jax.lax.fori_loop(0, tiles[2], add_tile, (starts[2], kept))[1]

        empty = jnp.zeros((2 * TILE[0], atoms), angles.dtype)
        start = (empty, empty, empty, total[1])
        *rows, strain = jax.lax.fori_loop(0, tiles[1], add_line, start)
        plain, turned, third = (each.reshape(x.shape) for each in rows)
        sums = [(x, plain), (_slopes(x, n1), plain), (x, turned), (x, third)]
        found = jnp.stack([jnp.sum(waves * each, axis=(0, 1)) for waves, each in sums])
        return total[0] + found, strain

    atoms = charges.shape[0]
    start = (jnp.zeros((4, atoms), angles.dtype), jnp.zeros((3, 3), angles.dtype))
    sums, strain = jax.lax.fori_loop(0, jnp.where(active, tiles[0], 0), add_slab, start)
    scale = 4 * math.pi / volume(cell)
    slopes = 2 * math.pi * scale * (sums[1:].T @ inverse.T)
    return Field(scale * sums[0], slopes, scale * strain)


def over_pairs(alpha: float, charges, positions, active) -> Field:
    """Σ_j q_j erf(α r_ij)/r_ij over all charges, itself included; zeros unless active."""
    atoms = charges.shape[0]
    blocks = -(-atoms // ROWS)
    here = jnp.pad(positions, ((0, blocks * ROWS - atoms), (0, 0)))

    def add(block, total):
        some = jax.lax.dynamic_slice_in_dim(here, block * ROWS, ROWS)
        gaps = [some[:, d][:, None] - positions[:, d][None, :] for d in range(3)]
        value, slope = _smooth_bond(alpha, sum(gap * gap for gap in gaps))
        columns = [value @ charges, *((slope * gap) @ charges for gap in gaps)]
        return jax.lax.dynamic_update_slice_in_dim(
            total, jnp.stack(columns, axis=1), block * ROWS, axis=0
        )

    start = jnp.zeros((blocks * ROWS, 4), positions.dtype)
    turns = jnp.where(active, blocks, 0)
    sums = jax.lax.fori_loop(0, turns, add, start)[:atoms]
    slopes = sums[:, 1:]
    return Field(sums[:, 0], slopes, positions.T @ (charges[:, None] * slopes))


def _smooth_bond(alpha, squares):
    """erf(α r)/r, and its derivative over r; their limits where r is nearly 0."""
    near = squares < 1e-6
    square = jnp.where(near, 1.0, squares)
    r, edge = jnp.sqrt(square), 2 * alpha / math.sqrt(math.pi)
    value = jax.lax.erf(alpha * r) / r
    slope = (edge * jnp.exp(-(alpha**2) * square) - value) / square
    return jnp.where(near, edge, value), jnp.where(near, -2 / 3 * alpha**2 * edge, slope)


def _waves(angles):
    """Cosines and sines, (n, 2, atoms)."""
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def _turned(waves, by):
    """Waves whose angles are larger by those of `by`, (1, 2, atoms)."""
    c, s = by[:, 0], by[:, 1]
    return jnp.stack([waves[:, 0] * c - waves[:, 1] * s, waves[:, 1] * c + waves[:, 0] * s], axis=1)


def _vectors(alpha, largest, integers, inverse):
    """The vectors k of a tile, (3, signs, n1, n2, n3), and exp(-k²/4α²)/k² times how often each
    counts: once for k and once for -k, which is not in the tile.

    Where n1 = 0 both of its signs are the same vector, where n3 = 0 the other half is there.
    """
    signs = np.array(_SIGNS, float)
    n1 = integers[0][None, :, None, None] * signs[:, 0].reshape(4, 1, 1, 1)
    n2 = integers[1][None, None, :, None] * signs[:, 1].reshape(4, 1, 1, 1)
    n3 = integers[2][None, None, None, :]
    b1, b2, b3 = (2 * math.pi * inverse[:, d].reshape(3, 1, 1, 1, 1) for d in range(3))
    vectors = b1 * n1[None] + b2 * n2[None] + b3 * n3[None]
    squares = jnp.sum(vectors * vectors, axis=0)
    counts = [jnp.where(n == 0, 0.5, 1.0) for n in integers]
    often = counts[0][:, None, None] * counts[1][None, :, None] * counts[2][None, None, :]
    inside = (squares > 0) & (squares <= largest**2)
    squares = jnp.where(inside, squares, 1.0)
    factors = 2 * often[None] * jnp.exp(-squares / (4 * alpha**2)) / squares
    return vectors, jnp.where(inside, factors, 0.0)


def _tile(alpha, charges, products, z, integers, vectors, factors):
    """The sums over n3 and their derivatives, (2, 2 n1, 2 n2, atoms), and a tile's strain."""
    atoms, (a, b, c) = charges.shape[0], TILE
    flat = z.reshape(2 * c, atoms)
    moments = products @ (charges[None, :] * flat).T
    ordered = moments.reshape(a, 2, b, 2, c, 2).transpose(1, 3, 5, 0, 2, 4).reshape(8, a * b * c)
    parts = jnp.asarray(_PARTS, moments.dtype)
    amplitudes = parts @ ordered
    weights = factors.reshape(4, -1)
    back = parts.T @ (jnp.repeat(weights, 2, axis=0) * amplitudes)
    back = back.reshape(2, 2, 2, a, b, c).transpose(3, 0, 4, 1, 5, 2).reshape(4 * a * b, c, 2)
    n = integers[2][None, :]
    turned = jnp.stack([n * back[..., 1], -n * back[..., 0]], axis=-1)
    sums = jnp.concatenate([back, turned]).reshape(8 * a * b, 2 * c) @ flat
    energies = 0.5 * weights * jnp.sum(amplitudes.reshape(4, 2, -1) ** 2, axis=1)
    strain = _strain(alpha, energies, vectors.reshape(3, 4, -1))
    return sums.reshape(2, 2 * a, 2 * b, atoms), strain


def _contract(y, y_slopes, sums):
    """From sums over n3 those over n2: plain ones, derivatives by the second and third angle.

    Written out term by term, so that vector lanes are full of atoms.
    """
    waves, turned = (each.reshape(-1, 1, each.shape[-1]) for each in (y, y_slopes))
    terms = range(waves.shape[0])
    return (
        sum(waves[m] * sums[0][:, m] for m in terms),
        sum(turned[m] * sums[0][:, m] for m in terms),
        sum(waves[m] * sums[1][:, m] for m in terms),
    )


def _slopes(waves, n):
    """Derivatives of cos(nθ) and sin(nθ) by θ."""
    return n[:, None, None] * jnp.stack([-waves[:, 1], waves[:, 0]], axis=1)


def _strain(alpha, energies, vectors):
    """Σ E_k [2 k k (1/k² + 1/4α²) - 1]: vectors shrink as the cell grows, and so does 1/V."""
    squares = jnp.sum(vectors * vectors, axis=0)
    squares = jnp.where(squares > 0, squares, 1.0)
    scaled = 2 * energies * (1 / squares + 1 / (4 * alpha**2))
    both = jnp.einsum("isk,jsk->ij", scaled[None] * vectors, vectors)
    return both - jnp.sum(energies) * jnp.eye(3, dtype=energies.dtype)


_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def _parts() -> np.ndarray:
    """Real and imaginary part of S for each pair of signs, of the eight products (8, 8)."""
    rows = []
    for first, second in _SIGNS:
        phases = [
            (1j * first) ** a * (1j * second) ** b * 1j**c
            for a in (0, 1)
            for b in (0, 1)
            for c in (0, 1)
        ]
        rows += [[phase.real for phase in phases], [phase.imag for phase in phases]]
    return np.array(rows)


_PARTS = _parts()
