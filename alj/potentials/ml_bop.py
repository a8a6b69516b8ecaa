"""ML-BOP: a water molecule as one bead that interacts by a Tersoff bond-order potential.

    E_i = ½ Σ_j f_C(r_ij) [A exp(-λ1 r_ij) - b_ij B exp(-λ2 r_ij)]
    b_ij = (1 + (β ζ_ij)^n)^(-1/2n)
    ζ_ij = Σ_{k≠i,j} f_C(r_ik) g(cosθ_ijk),   g(x) = 1 + c²/d² - c²/(d² + (x - cosθ0)²)
    f_C(r) = ½ - ½ sin(π(r - R)/2D) from R - D to R + D, 1 below and 0 above

b_ij differs from b_ji. The form and its meaning of D (half of the width) are those of the `tersoff`
style of LAMMPS with m = 1, γ = 1, λ3 = 0.

H. Chan et al., Nat. Commun. 10, 379 (2019), doi 10.1038/s41467-018-08222-6;
J. Tersoff, Phys. Rev. B 37, 6991 (1988), doi 10.1103/PhysRevB.37.6991.
"""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

from alj.arrays import safe_power
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.types import BadInput, Environment, Potential


class TersoffParameters(NamedTuple):
    """Names of the formula above; A and B in eV, λ in 1/Å, R and D in Å."""

    c: float = 77638.534354
    d: float = 16.148387
    cos0: float = -0.471029
    n: float = 0.770018
    beta: float = 1e-6
    lambda1: float = 2.750522
    lambda2: float = 2.199640
    A: float = 1684.301476
    B: float = 473.621419
    R: float = 3.282761
    D: float = 0.270511


WATER_BEAD = 8
"""Atomic number that stands for the bead (mass 18.015)."""


def ml_bop(species: tuple[int, ...]) -> Potential:
    """Coarse-grained water (ML-BOP), the reference of the water campaigns; cutoff 3.553272 Å.

    Takes species 8 only, one bead per molecule. Raises BadInput for any other.
    """
    if not set(species) <= {WATER_BEAD}:
        raise BadInput(
            f"ml_bop knows one bead per water molecule, species {WATER_BEAD} (O); "
            f"found {sorted(species)}: use another potential, or rename the beads"
        )
    return tersoff(TersoffParameters(), WATER_BEAD)


def tersoff(parameters: TersoffParameters, bead: int) -> Potential:
    """The Tersoff form above for one species."""

    def kernel():
        from alj.potentials.pair_kernels import tersoff_kernel

        return tersoff_kernel(parameters, bead)

    atomic = by_blocks(partial(_atomic_energies, parameters, bead))
    return local(
        lambda params, env: atomic(env),
        cutoff=parameters.R + parameters.D,
        species=(bead,),
        kernel=kernel,
    )


def _atomic_energies(p: TersoffParameters, bead: int, env: Environment):
    # Atoms last: vector lanes full of atoms.
    vectors = jnp.transpose(env.vectors, (2, 1, 0))
    of = jnp.transpose(env.neighbor_species)
    squares = jnp.sum(vectors * vectors, axis=0)
    inside = (of == bead) & (squares < (p.R + p.D) ** 2)
    overlap = squares == 0
    root = jnp.sqrt(jnp.where(inside & ~overlap, squares, 1.0))
    units = vectors * jnp.where(inside & ~overlap, 1.0 / root, 0.0)[None]
    r = jnp.where(overlap, 0.0, root)
    fades = jnp.where(inside, _fade(p, r), 0.0)
    cosines = jnp.sum(units[:, :, None] * units[:, None, :], axis=0)
    others = ~jnp.eye(cosines.shape[0], dtype=bool)[:, :, None]
    angles = jnp.where(others, _angle(p, cosines), 0.0)
    zeta = jnp.sum(angles * fades[None], axis=1)
    order = (1.0 + safe_power(p.beta * zeta, p.n)) ** (-0.5 / p.n)
    bonds = p.A * jnp.exp(-p.lambda1 * r) - order * p.B * jnp.exp(-p.lambda2 * r)
    return jnp.where(env.species == bead, 0.5 * jnp.sum(fades * bonds, axis=0), 0.0)


def _fade(p, r):
    """f_C; the sine's argument is clipped, so that nothing outside of the window matters."""
    return 0.5 - 0.5 * jnp.sin(0.5 * math.pi * jnp.clip((r - p.R) / p.D, -1.0, 1.0))


def _angle(p, cosines):
    """g(x), as one fraction: the difference of the two large terms of the formula loses digits."""
    square = (cosines - p.cos0) ** 2
    return 1.0 + p.c**2 / p.d**2 * square / (p.d**2 + square)
