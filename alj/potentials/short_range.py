"""Repulsion at short distance: what keeps atoms apart where no data teach a network to do so.

`zbl` is the screened Coulomb repulsion of two nuclei,

    E_i = ½ Σ_j [u(r_ij) + S(r_ij)],   u(r) = k Z_i Z_j φ(r/a) / r
    a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    φ(x) = 0.18175 e^(-3.19980 x) + 0.50986 e^(-0.94229 x)
           + 0.28022 e^(-0.40290 x) + 0.02817 e^(-0.20162 x)

with k = e²/4πε0, switched off between an inner radius r_1 and an outer one r_c as in LAMMPS, so
that value, slope and curvature are continuous at both and vanish at the outer one:

    S(r) = C + A (t - r_1)³/3 + B (t - r_1)⁴/4,   t = max(r, r_1)
    A = [-3 u'(r_c) + d u''(r_c)]/d²,   B = [2 u'(r_c) - d u''(r_c)]/d³,   d = r_c - r_1
    C = -u(r_c) + d u'(r_c)/2 - d² u''(r_c)/12

J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Matter, Pergamon
(1985); the switching is that of `pair_style zbl` of LAMMPS, https://docs.lammps.org/pair_zbl.html.

`pair_repulsion` is for beads, which have no nuclei:

    E_i = ½ Σ_j ε (R/r_ij - 1)^n   for r_ij < R, 0 beyond

It is ε at half of its reach R and diverges as r^-n; with n ≥ 3 value, slope and curvature vanish
at R.
"""

import math
from functools import partial

import jax.numpy as jnp

from alj.potentials.combine import local
from alj.types import BadInput, Environment, Potential
from alj.units import HARTREE

COULOMB = HARTREE * 0.529177210903
"""e²/4πε0 in eV Å."""

SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Weights and decays of φ."""

SCREENING_LENGTH, SCREENING_POWER = 0.46850, 0.23


def zbl(
    species: tuple[int, ...],
    *,
    inner_A: float = 1.0,
    outer_A: float = 2.0,
) -> Potential:
    """Screened repulsion of nuclei (Ziegler, Biersack, Littmark), for any elements; see the module.

    Args:
        inner_A: the switching begins here, in Å.
        outer_A: nothing is felt beyond, in Å.

    Raises BadInput unless 0 <= inner_A < outer_A.

    >>> zbl((1, 8), outer_A=1.6).cutoff
    1.6
    """
    if not (0 <= inner_A < outer_A and math.isfinite(outer_A)):
        raise BadInput(
            f"expected finite lengths with 0 <= inner_A < outer_A in Å, found {inner_A} "
            f"and {outer_A}"
        )

    def kernel():
        from alj.potentials.pair_kernels import zbl_kernel

        return zbl_kernel(inner_A, outer_A)

    return local(
        partial(_zbl_energies, inner_A, outer_A), cutoff=outer_A, species=species, kernel=kernel
    )


def pair_repulsion(
    species: tuple[int, ...],
    *,
    strength_eV: float = 10.0,
    reach_A: float = 2.5,
    exponent: int = 3,
) -> Potential:
    """Repulsion ε (R/r - 1)^n between all beads (or atoms) alike, smooth at its reach R.

    Choose the reach a little below the shortest distance met at the temperatures of interest, so
    that only what data cannot teach is left to it.

    Args:
        strength_eV: energy ε of a pair at half of the reach, in eV.
        reach_A: nothing is felt beyond, in Å.
        exponent: n, at least 3; a larger one is softer near the reach and harder near the core.

    Raises BadInput for settings out of range.
    """
    if not (math.isfinite(reach_A) and reach_A > 0):
        raise BadInput(f"reach_A must be a positive length in Å, found {reach_A}")
    if not (math.isfinite(strength_eV) and strength_eV > 0):
        raise BadInput(f"strength_eV must be a positive energy in eV, found {strength_eV}")
    if not 3 <= exponent <= 30:
        raise BadInput(f"exponent: expected 3 to 30, found {exponent}; less is not smooth")

    def kernel():
        from alj.potentials.pair_kernels import repulsion_kernel

        return repulsion_kernel(strength_eV, reach_A, exponent)

    return local(
        partial(_repulsion_energies, strength_eV, reach_A, exponent),
        cutoff=reach_A,
        species=species,
        kernel=kernel,
    )


def _zbl_energies(inner, outer, params, env: Environment):
    inside, overlap, r = _distances(env, outer)
    here = env.species[:, None].astype(r.dtype)
    there = jnp.where(inside, env.neighbor_species, 1).astype(r.dtype)
    here = jnp.where(inside, here, 1.0)
    decay = (here**SCREENING_POWER + there**SCREENING_POWER) / SCREENING_LENGTH
    charge = COULOMB * here * there
    u = charge / r * _screening(r * decay)[0]
    bonds = u + _switch(charge, decay, inner, outer, r)
    return _half_sum(bonds, inside, overlap)


def _screening(x):
    """φ and its first two derivatives."""
    terms = [[weight * (-rate) ** n * jnp.exp(-rate * x) for weight, rate in SCREENING]
             for n in range(3)]  # fmt: skip
    return [sum(each[1:], each[0]) for each in terms]


def _switch(charge, decay, inner, outer, r):
    """S; its coefficients differ from pair to pair of elements."""
    width = outer - inner
    value, slope, curvature = _screening(outer * decay)
    slope, curvature = slope * decay, curvature * decay**2
    second = charge * (curvature / outer - 2 * slope / outer**2 + 2 * value / outer**3)
    first = charge * (slope / outer - value / outer**2)
    cubic = (-3 * first + width * second) / width**2
    quartic = (2 * first - width * second) / width**3
    constant = -charge * value / outer + width * first / 2 - width**2 * second / 12
    t = jnp.maximum(r - inner, 0.0)
    return constant + t**3 * (cubic / 3 + quartic / 4 * t)


def _repulsion_energies(strength, reach, exponent, params, env: Environment):
    inside, overlap, r = _distances(env, reach)
    return _half_sum(strength * (reach / r - 1.0) ** exponent, inside, overlap)


def _distances(env: Environment, cutoff):
    """Which neighbors are felt, which sit on their atom, and distances that are safe elsewhere."""
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    inside = (env.neighbor_species > 0) & (squares < cutoff**2)
    inside = inside & (env.species > 0)[:, None]
    overlap = inside & (squares == 0)
    return inside, overlap, jnp.sqrt(jnp.where(inside & ~overlap, squares, 1.0))


def _half_sum(bonds, inside, overlap):
    """Half of each bond to its atom; an infinite energy, without a direction, on an overlap."""
    bonds = jnp.where(inside, jnp.where(overlap, jnp.inf, bonds), 0.0)
    return 0.5 * jnp.sum(bonds, axis=-1)
