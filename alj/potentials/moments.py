"""Gaussian moments of environments, and the numbers made of them that no rotation changes.

With u = d/r the direction to a neighbor j of element z at the distance r,

    T_zk = Σ_{j of z} f_c(r) φ_k(r) Y(u) / √K,    φ_k(r) = (2γ/π)^¼ exp[-γ (r - μ_k)²],
    μ_k = r_min + k (Rc - r_min)/K,   γ = K²/Rc²,   k = 0 … K-1

Y are the 16 monomials of u up to the third degree from which, |u| being 1, all others follow. No
parameter touches T. The moments M0, M1, M2, M3 (tensors of rank 0 to 3) of n channels are linear in
it; their contractions to scalars are

    M0_r;  M1_r·M1_s;  M2_r:M2_s;  M3_r⋮M3_s;  tr(M2_r M2_s M2_t);  M1_r·M2_t·M1_s;
    M3_r,ijk M3_s,ijl M2_t,kl;  M3_r,ijk M2_s,ij M1_t,k

for r ≤ s in products of two, r ≤ s ≤ t in the first of three; in those of the next two r ≤ s and
any t, in the last one any r, s and t. `legacy` cuts all of three factors to r ≤ s ≤ t.

V. Zaverkin and J. Kästner, J. Chem. Theory Comput. 16, 5410 (2020), doi 10.1021/acs.jctc.0c00347;
V. Zaverkin, D. Holzmüller, I. Steinwart, J. Kästner, J. Chem. Theory Comput. 17, 6658 (2021),
doi 10.1021/acs.jctc.1c00527.
"""

import math
from itertools import combinations_with_replacement, product
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.arrays import safe_norm
from alj.potentials.symmetry_functions import fade
from alj.types import Environment

_EXPONENTS = (
    "", "x", "y", "z", "xx", "xy", "xz", "yy", "yz",
    "xxx", "xxy", "xxz", "xyy", "xyz", "yyy", "yyz",
)  # fmt: skip
"""The monomials; the others follow from zz = 1 - xx - yy."""
Symmetry = Literal["full", "legacy"]
Fade = Literal["cosine", "polynomial"]


def gaussian_sums(
    env: Environment,
    species: tuple[int, ...],
    *,
    cutoff: float,
    gaussians: int,
    nearest: float,
    form: Fade,
) -> Float[Array, "atoms waves 16"]:
    """The sums T of the module's formula; `cutoff` and `nearest` (r_min) in Å.

    Neighbors that are padded, of another species, or beyond the cutoff contribute exactly 0.
    """
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    masks = [(env.neighbor_species == z) & (squares < cutoff**2) for z in species]
    inside = masks[0] if len(masks) == 1 else jnp.any(jnp.stack(masks), axis=0)
    far = jnp.asarray([cutoff, 0.0, 0.0], env.vectors.dtype)
    vectors = jnp.where(inside[..., None], env.vectors, far[None, None])
    distances = safe_norm(vectors)
    overlap = distances == 0
    units = vectors / jnp.where(overlap, 1.0, distances)[..., None]
    gamma = gaussians**2 / cutoff**2
    spacing = (cutoff - nearest) / gaussians
    centers = nearest + spacing * jnp.arange(gaussians, dtype=distances.dtype)
    height = (2.0 * gamma / math.pi) ** 0.25 / math.sqrt(gaussians)
    fades = height * jnp.where(inside, _faded(distances, cutoff, form), 0.0)
    waves = jnp.exp(-gamma * (distances[..., None] - centers[None, None]) ** 2) * fades[..., None]
    radial = [jnp.where(mask[..., None], waves, 0.0) for mask in masks]
    radial = radial[0] if len(radial) == 1 else jnp.concatenate(radial, axis=-1)
    return jnp.einsum("ijk,ijm->ikm", radial, _monomials(units))


def _faded(distances, cutoff, form):
    if form == "cosine":
        return fade(distances * distances, cutoff)
    x = distances / cutoff
    return 1.0 + x**3 * (-10.0 + x * (15.0 - 6.0 * x))


def _monomials(units):
    """The 16 monomials of unit vectors, in the order of `_EXPONENTS`."""
    x, y, z = (units[..., i] for i in range(3))
    xx, xy, yy = x * x, x * y, y * y
    second = [xx, xy, x * z, yy, y * z]
    third = [xx * x, xx * y, xx * z, xy * y, xy * z, yy * y, yy * z]
    return jnp.stack([jnp.ones_like(x), x, y, z, *second, *third], axis=-1)


def invariants(
    sums: Float[Array, "atoms channels 16"], symmetry: Symmetry
) -> Float[Array, "atoms found"]:
    """The contractions of the module's list.

    Few products of many small matrices: written component by component the compiler would take
    minutes. The identity stands beside the M2_t as one more matrix to contract with, which turns
    products of three moments into those of two.
    """
    atoms, channels, _ = sums.shape
    whole = sums @ jnp.asarray(_FULL, sums.dtype)
    m0, m1 = whole[..., 0], whole[..., 1:4]
    m2 = whole[..., 4:13].reshape(atoms, channels, 3, 3)
    m3 = whole[..., 13:].reshape(atoms, channels, 9, 3)
    third = jnp.swapaxes(m3, 2, 3).reshape(atoms, 3 * channels, 9)
    flat = m2.reshape(atoms, channels, 9)
    rows = jnp.concatenate([third, flat], axis=1)
    products = jnp.einsum("apf,aqf->apq", third, rows)
    cubes = products[..., : 3 * channels].reshape(atoms, channels, 3, channels, 3)
    vectors = products[..., 3 * channels :].reshape(atoms, channels, 3, channels)
    lines = m2.reshape(atoms, 3 * channels, 3)
    squares = jnp.einsum("apk,aqk->apq", lines, lines)
    squares = squares.reshape(atoms, channels, 3, channels, 3)
    outer = m1[:, :, :, None, None] * m1[:, None, None]
    # (families, pairs r ≤ s, 3 × 3) with (M2_t and the identity, 3 × 3)
    matrices = jnp.concatenate([_pairs(each) for each in (squares, outer, cubes)], axis=1)
    unit = jnp.broadcast_to(jnp.eye(3, dtype=sums.dtype).reshape(1, 1, 9), (atoms, 1, 9))
    found = jnp.einsum("apf,atf->apt", matrices, jnp.concatenate([flat, unit], axis=1))
    found = found.reshape(atoms, 3, -1, channels + 1)
    last = jnp.einsum("arks,atk->arst", vectors, m1)
    return jnp.concatenate(
        [m0, *_twos(found[..., -1]), *_threes(found[..., :-1], last, symmetry)], axis=1
    )


def count_invariants(channels: int, symmetry: Symmetry) -> int:
    """How many invariants n channels have.

    >>> count_invariants(5, "full"), count_invariants(7, "legacy"), count_invariants(7, "full")
    (360, 427, 910)
    """
    n = channels
    two, three = n * (n + 1) // 2, n * (n + 1) * (n + 2) // 6
    return n + 3 * two + (4 * three if symmetry == "legacy" else three + 2 * two * n + n**3)


def _pairs(matrices):
    """(atoms, r, i, s, j) as (atoms, pairs r ≤ s, 9)."""
    atoms, channels = matrices.shape[:2]
    rows = [matrices[:, r, :, r:] for r in range(channels)]
    rows = [jnp.swapaxes(row, 1, 2).reshape(atoms, -1, 9) for row in rows]
    return jnp.concatenate(rows, axis=1)


def _twos(found):
    """Products of two moments of the ranks 1, 2 and 3; those of M2 were made of squares."""
    squares, outer, cubes = (found[:, family] for family in range(3))
    return outer, squares, cubes


def _threes(found, last, symmetry):
    """Products of three moments, family by family, each (atoms, rows)."""
    atoms, _, pairs, channels = found.shape
    squares, outer, cubes = (found[:, family] for family in range(3))
    if symmetry == "full":
        free = [each.reshape(atoms, pairs * channels) for each in (outer, cubes)]
        return [*_ordered(squares), *free, last.reshape(atoms, channels**3)]
    ends = [last[:, r, s, s:] for r in range(channels) for s in range(r, channels)]
    return [*_ordered(squares), *_ordered(outer), *_ordered(cubes), *ends]


def _ordered(found):
    """Of (atoms, pairs r ≤ s, t) those with t ≥ s."""
    pairs = combinations_with_replacement(range(found.shape[2]), 2)
    return [found[:, row, s:] for row, (_, s) in enumerate(pairs)]


def _full() -> np.ndarray:
    """(16, 40): all components of the moments of rank 0 to 3 from the 16 monomials."""
    words = [word for rank in range(4) for word in product("xyz", repeat=rank)]
    table = np.zeros((len(_EXPONENTS), len(words)))
    for column, word in enumerate(words):
        for monomial, factor in _reduced("".join(sorted(word))).items():
            table[_EXPONENTS.index(monomial), column] += factor
    return table


def _reduced(word: str) -> dict[str, float]:
    """A sorted monomial of a unit vector in terms of those with at most one z."""
    if not word.endswith("zz"):
        return {word: 1.0}
    found = {}
    for more, sign in (("", 1.0), ("xx", -1.0), ("yy", -1.0)):
        for monomial, factor in _reduced("".join(sorted(word[:-2] + more))).items():
            found[monomial] = found.get(monomial, 0.0) + sign * factor
    return found


_FULL = _full()
