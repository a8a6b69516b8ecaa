"""Lennard-Jones: the test liquid of every simulation code.

    E_i = ½ Σ_j [u(r_ij) - u(r_c)],   u(r) = 4ε [(σ/r)^12 - (σ/r)^6] for r < r_c, 0 beyond

J. E. Jones, Proc. R. Soc. A 106, 463 (1924), doi 10.1098/rspa.1924.0082.
"""

import math
from functools import partial

import jax.numpy as jnp

from alj.potentials.combine import local
from alj.types import BadInput, Environment, Potential


def lennard_jones(
    species: tuple[int, ...],
    *,
    epsilon_eV: float = 0.0104,
    sigma_A: float = 3.4,
    cutoff_A: float = 8.5,
    shift: bool = True,
) -> Potential:
    """Lennard-Jones between all atoms alike, truncated at a cutoff (defaults: argon, 2.5 σ).

    Args:
        epsilon_eV: depth of the well in eV.
        sigma_A: distance at which the energy crosses zero, in Å.
        cutoff_A: nothing is felt beyond, in Å.
        shift: subtract the energy at the cutoff, so that the energy is continuous there (the
            force is not).

    Raises BadInput for settings out of range.
    """
    for name, value in (("sigma_A", sigma_A), ("cutoff_A", cutoff_A)):
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"{name} must be a positive length in Å, found {value}")
    if not math.isfinite(epsilon_eV):
        raise BadInput(f"epsilon_eV must be a finite energy in eV, found {epsilon_eV}")
    edge = (sigma_A / cutoff_A) ** 6
    offset = 4 * epsilon_eV * (edge * edge - edge) if shift else 0.0

    def kernel():
        from alj.potentials.pair_kernels import lennard_jones_kernel

        return lennard_jones_kernel(4 * epsilon_eV, sigma_A, cutoff_A, offset)

    return local(
        partial(_atomic_energies, 4 * epsilon_eV, sigma_A, cutoff_A, offset),
        cutoff=cutoff_A,
        species=species,
        kernel=kernel,
    )


def _atomic_energies(strength, sigma, cutoff, offset, params, env: Environment):
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    inside = (env.neighbor_species > 0) & (squares < cutoff**2)
    sixth = (sigma**2 / jnp.where(inside, squares, 1.0)) ** 3
    bonds = strength * (sixth * sixth - sixth) - offset
    return 0.5 * jnp.sum(jnp.where(inside, bonds, 0.0), axis=-1)
