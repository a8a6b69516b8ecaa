"""A constant energy per atom: the zero of energy, moved.

    E_i = c

No force, no structure and no density depends on it. It is how a campaign anchors a potential to its
reference, and shifts a baseline whose atoms have another zero.
"""

import math

import jax.numpy as jnp

from alj.potentials.combine import local
from alj.types import BadInput, Environment, HostKernel, Potential

_NEAR = 0.1
"""A cutoff in Å: an environment must have one, here without a neighbor in it."""


def constant(species: tuple[int, ...], *, energy_eV: float = 0.0) -> Potential:
    """The same energy for every atom.

    Args:
        energy_eV: energy c of an atom, in eV.

    Raises BadInput for an energy that is not finite.
    """
    if not math.isfinite(energy_eV):
        raise BadInput(f"energy_eV must be finite, found {energy_eV}")

    def atomic(params, env: Environment):
        return jnp.full(env.species.shape, energy_eV, env.vectors.dtype)

    def kernel() -> HostKernel:
        from alj.potentials.pair_kernels import constant_kernel

        return constant_kernel(energy_eV)

    return local(atomic, cutoff=_NEAR, species=species, kernel=kernel)
