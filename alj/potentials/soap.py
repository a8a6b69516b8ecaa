"""Smooth overlap of atomic positions: the power spectrum of an atom's surroundings.

Every neighbor j of atom i, and i itself, is a Gaussian of width σ; those of one element Z make a
density, expanded in an orthonormal radial basis g_n and spherical harmonics,

    ρ_Z(r) = Σ_j f_c(r_j) exp(-|r - r_j|²/2σ²),    c_Znlm = Σ_j f_c(r_j) R_nl(r_j) Y_lm(r_j),
    R_nl(s) = 4π ∫ g_n(r) exp[-(r² + s²)/2σ²] i_l(r s/σ²) r² dr,
    p_ZnZ'n'l = (2l + 1)^-½ Σ_m c_Znlm c_Z'n'lm.

p·p' is the overlap of the densities of two surroundings, squared and averaged over all rotations
(up to a factor), whatever orthonormal basis of the same functions is taken: Gaussians of width σ at
n_max distances from 0 to the cutoff. R_nl is tabulated once as a series of Chebyshev polynomials.
Of the symmetric p each pair is kept once, with a factor √2, and p is scaled to length 1. f_c falls
from 1 to 0 over the last stretch before the cutoff as half a cosine.

A. P. Bartók, R. Kondor and G. Csányi, Phys. Rev. B 87, 184115 (2013),
doi 10.1103/PhysRevB.87.184115; for several elements S. De, A. P. Bartók, G. Csányi and M. Ceriotti,
Phys. Chem. Chem. Phys. 18, 13754 (2016), doi 10.1039/c6cp00415f.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Shaped

from alj.potentials.symmetry_functions import check_species
from alj.types import BadInput, Environment


class Soap(NamedTuple):
    """Settings, and R_nl as coefficients (polynomials, n_max · (l_max + 1)), l running fastest."""

    species: tuple[int, ...]
    cutoff: float
    transition: float
    sigma: float
    n_max: int
    l_max: int
    series: Float[np.ndarray, "terms functions"]

    @property
    def channels(self) -> int:
        """Radial functions of all elements."""
        return len(self.species) * self.n_max

    @property
    def width(self) -> int:
        """Numbers in a power spectrum."""
        return self.channels * (self.channels + 1) // 2 * (self.l_max + 1)


def soap(
    species: tuple[int, ...],
    *,
    cutoff_A: float,
    transition_A: float,
    sigma_A: float,
    n_max: int,
    l_max: int,
) -> Soap:
    """The settings with all that is computed once. Raises BadInput for those out of range."""
    check_species(species)
    if not (0 < transition_A <= cutoff_A < math.inf and 0 < sigma_A < cutoff_A):
        raise BadInput(
            "expected 0 < transition_A <= cutoff_A and 0 < atom_sigma_A < cutoff_A, in Å; found "
            f"{transition_A}, {cutoff_A} and {sigma_A}"
        )
    if n_max < 1 or not 0 <= l_max <= 10:
        raise BadInput(f"expected n_max of at least 1, l_max of 0 to 10; found {n_max}, {l_max}")
    series = _series(cutoff_A, sigma_A, n_max, l_max)
    return Soap(species, cutoff_A, transition_A, sigma_A, n_max, l_max, series)


def power_spectra(soap: Soap, env: Environment) -> Float[Array, "atoms width"]:
    """p of every atom, scaled to length 1; 0 for atoms that pad."""
    return scaled(spectrum(soap, expansion(soap, env)))


def scaled(p: Float[Array, "atoms width"]) -> Float[Array, "atoms width"]:
    """Every row divided by its length, where it has any."""
    square = jnp.sum(p * p, axis=-1, keepdims=True)
    there = square > 0
    return p * jnp.where(there, jax.lax.rsqrt(jnp.where(there, square, 1.0)), 0.0)


def expansion(soap: Soap, env: Environment) -> Float[Array, "atoms channels harmonics"]:
    """c_Znlm of every atom: elements and radial functions, then (l, m)."""
    kinds = one_hot(soap, env.neighbor_species, env.vectors.dtype)
    radial, angular = edges(soap, env.vectors, jnp.any(kinds > 0, axis=-1))
    rows = env.species.shape[0]
    own = one_hot(soap, env.species, env.vectors.dtype)
    found = []
    for degree in range(soap.l_max + 1):
        of = (kinds[..., None] * radial[..., None, :, degree]).reshape(rows, -1, soap.channels)
        some = angular[..., degree**2 : (degree + 1) ** 2]
        found.append(jnp.einsum("ajc,ajm->acm", of, some))
    # The atom itself, at distance 0: Y_00 alone.
    itself = jnp.asarray(_at_center(soap), env.vectors.dtype)
    found[0] = found[0] + (own[:, :, None] * itself[None, None]).reshape(rows, -1, 1)
    return jnp.concatenate(found, axis=-1)


def spectrum(
    soap: Soap, c: Float[Array, "atoms channels harmonics"]
) -> Float[Array, "atoms width"]:
    """p of the module's formula, each pair of channels once."""
    total = c.shape[1]
    # A pair is (a, a + d); products of rolled arrays need no gather, whose backward pass is slow.
    pairs = []
    for d in range(total // 2 + 1):
        rolled = jnp.concatenate([c[:, d:], c[:, :d]], axis=1) if d else c
        half = 0 < 2 * d == total
        products = (c * rolled)[:, : total // 2] if half else c * rolled
        pairs.append(products if d == 0 else math.sqrt(2.0) * products)
    sums = jnp.asarray(_sums_over_m(soap.l_max), c.dtype)
    return (jnp.concatenate(pairs, axis=1) @ sums).reshape(c.shape[0], -1)


def unpacked(
    soap: Soap, vectors: Float[Array, "rows width"]
) -> Float[Array, "rows degrees channels channels"]:
    """V of ∂(p·v)/∂c_alm = Σ_b V_lab c_blm, for each row v like a power spectrum."""
    total, rows = soap.channels, vectors.shape[0]
    first = np.concatenate([np.arange(total if 2 * d != total or d == 0 else total // 2)
                            for d in range(total // 2 + 1)])  # fmt: skip
    apart = np.concatenate([np.full(total if 2 * d != total or d == 0 else total // 2, d)
                            for d in range(total // 2 + 1)])  # fmt: skip
    second = (first + apart) % total
    factors = np.where(apart == 0, 1.0, math.sqrt(2.0))[:, None] / np.sqrt(
        2.0 * np.arange(soap.l_max + 1) + 1.0
    )
    values = vectors.reshape(rows, len(first), -1) * jnp.asarray(factors, vectors.dtype)[None]
    values = jnp.swapaxes(values, 1, 2)
    matrix = jnp.zeros((rows, soap.l_max + 1, total, total), vectors.dtype)
    return matrix.at[:, :, first, second].add(values).at[:, :, second, first].add(values)


def edges(
    soap: Soap, vectors: Float[Array, "*shape 3"], there: Array
) -> tuple[Float[Array, "*shape radial degrees"], Float[Array, "*shape harmonics"]]:
    """f_c R_nl and Y_lm of vectors to neighbors; 0 where there is none, or beyond the cutoff."""
    squares = jnp.sum(vectors * vectors, axis=-1)
    inside = there & (squares < soap.cutoff**2)
    apart = inside & (squares > 0)
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
    start = soap.cutoff - soap.transition
    along = jnp.clip((r - start) / soap.transition, 0.0, 1.0)
    fade = jnp.where(inside, 0.5 * (1.0 + jnp.cos(jnp.pi * along)), 0.0)
    waves = _chebyshev(r / soap.cutoff, soap.series.shape[0])
    radial = waves @ jnp.asarray(soap.series, vectors.dtype)
    radial = (fade[..., None] * radial).reshape(*r.shape, soap.n_max, soap.l_max + 1)
    # Where nothing is, or atoms coincide, any direction does: R is 0 there but for l = 0.
    upwards = jnp.zeros_like(vectors).at[..., 2].set(1.0)
    return radial, _harmonics(soap.l_max, jnp.where(apart[..., None], vectors, upwards))


def one_hot(soap: Soap, of: Array, dtype) -> Shaped[Array, "*shape species"]:
    """Which of the elements each atom is."""
    return jnp.stack([of == z for z in soap.species], axis=-1).astype(dtype)


def _harmonics(degree: int, vectors):
    """Y_lm, orthonormal, e3x's order of m."""
    import e3x  # brings flax along, which takes its time

    with jax.numpy_rank_promotion("allow"):
        found = e3x.so3.spherical_harmonics(
            vectors, degree, r_is_normalized=False, cartesian_order=False,
            normalization="orthonormal",
        )  # fmt: skip
    return found.astype(vectors.dtype)  # its tables are float64 wherever that is on


def _chebyshev(share: Float[Array, "*shape"], terms: int) -> Float[Array, "*shape terms"]:
    """T_k(x), k < `terms`, for x from -REACH to REACH over shares 0 to 1 of the cutoff.

    T_k = cos kθ with cos θ = x. By doubling the number of known angles: few operations on long
    arrays, no cosine and no chain of recurrences. The ends ±1, where θ has no slope, are left out.
    """
    cosine = (_REACH * (2.0 * share - 1.0))[..., None]
    sine = jnp.sqrt(1.0 - cosine * cosine)
    known = jnp.ones_like(cosine), jnp.zeros_like(cosine)
    while known[0].shape[-1] < terms:
        c, s = known
        known = (
            jnp.concatenate([c, c * cosine - s * sine], axis=-1),
            jnp.concatenate([s, s * cosine + c * sine], axis=-1),
        )
        cosine, sine = cosine * cosine - sine * sine, 2.0 * sine * cosine
    return known[0][..., :terms]


_REACH = 0.95


def _series(cutoff, sigma, n_max, l_max) -> np.ndarray:
    """Coefficients of R_nl, as many as reach 1e-11 of the largest."""
    nodes = np.cos(np.pi * (np.arange(128) + 0.5) / 128)
    values = _radial(cutoff * (nodes / _REACH + 1.0) / 2.0, cutoff, sigma, n_max, l_max)
    angles = np.arange(128)[:, None] * np.arccos(nodes)[None]
    series = 2.0 / 128 * np.cos(angles) @ values.reshape(128, -1)
    series[0] *= 0.5
    matters = np.flatnonzero(np.abs(series).max(axis=1) > 1e-11 * np.abs(series).max())
    return series[: int(matters[-1]) + 1]


def _radial(distances, cutoff, sigma, n_max, l_max) -> np.ndarray:
    """R_nl at these distances, (distances, n_max, l_max + 1), by quadrature.

    R is continued to negative distances by its parity, (-1)^l.
    """
    end = cutoff + 8.0 * sigma
    nodes, weights = np.polynomial.legendre.leggauss(max(200, int(30 * end / sigma)))
    r, weights = 0.5 * end * (nodes + 1.0), 0.5 * end * weights
    centers = np.linspace(0.0, cutoff, n_max)
    functions = np.exp(-0.5 * ((r[None] - centers[:, None]) / sigma) ** 2)
    overlap = (functions * weights * r**2) @ functions.T
    values, vectors = np.linalg.eigh(overlap)
    basis = vectors @ np.diag(values**-0.5) @ vectors.T @ functions
    s = np.abs(distances)[:, None]
    argument = r[None] * s / sigma**2
    bell = np.exp(-0.5 * ((r[None] - s) / sigma) ** 2)
    found = np.empty((len(distances), n_max, l_max + 1))
    for degree in range(l_max + 1):
        smooth = _scaled_bessel(degree, argument) * bell * weights * r**2
        sign = np.where(distances < 0, (-1.0) ** degree, 1.0)[:, None]
        found[:, :, degree] = 4.0 * np.pi * sign * (smooth @ basis.T)
    return found


def _scaled_bessel(degree: int, x: np.ndarray) -> np.ndarray:
    """exp(-x) i_l(x), i_l the modified spherical Bessel function."""
    safe = np.maximum(x, 1e-30)
    return np.sqrt(0.5 * np.pi / safe) * scipy.special.ive(degree + 0.5, safe)


def _at_center(soap: Soap) -> np.ndarray:
    """R_n0(0) Y_00."""
    waves = np.asarray(_REACH * -1.0)
    terms = np.cos(np.arange(soap.series.shape[0]) * np.arccos(waves))
    return (terms @ soap.series).reshape(soap.n_max, -1)[:, 0] / math.sqrt(4.0 * math.pi)


def _sums_over_m(l_max: int) -> np.ndarray:
    """((l_max + 1)², l_max + 1): the sum over the m of each degree, divided by √(2l + 1)."""
    degrees = np.concatenate([np.full(2 * degree + 1, degree) for degree in range(l_max + 1)])
    return (degrees[:, None] == np.arange(l_max + 1)) / np.sqrt(2.0 * np.arange(l_max + 1) + 1.0)
