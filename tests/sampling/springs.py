"""Atoms tied to each other by springs: a local potential whose statistics are known exactly.

    E = k/4 Σ_i Σ_j≠i |r_ij|² = (k N / 2) Σ_i |r_i − center|²

is harmonic with d = 3(N−1) degrees of freedom: in the canonical ensemble E/kT follows a gamma
distribution of shape d/2, and the volume below an energy E grows as E^(d/2).
"""

import jax
import jax.numpy as jnp
import numpy as np

from alj.potentials.combine import local
from alj.types import Structure

SPRING = 0.5


def _atomic(params, environment):
    squares = jnp.sum(environment.vectors**2, axis=-1)
    tied = environment.neighbor_species > 0
    return 0.25 * params["body"]["spring"] * jnp.sum(jnp.where(tied, squares, 0.0), axis=-1)


def springs():
    """The potential; its spring constant (eV/Å^2) is a parameter."""
    return local(
        _atomic,
        cutoff=8.0,
        init=lambda key: {"body": {"spring": jnp.asarray(SPRING)}, "readout": {}, "constants": {}},
    )


def clusters(count: int, atoms: int = 4) -> Structure:
    """`count` clusters near their minimum, in a cell that is large enough."""
    generator = np.random.default_rng(0)
    return Structure(
        positions=jnp.asarray(20.0 + 0.1 * generator.normal(size=(count, atoms, 3))),
        species=jnp.full((count, atoms), 8),
        cell=jnp.tile(40.0 * jnp.eye(3)[None], (count, 1, 1)),
        charge=jnp.zeros(count, int),
        multiplicity=jnp.zeros(count, int),
    )


def freedoms(atoms: int) -> int:
    return 3 * (atoms - 1)


def begin(sampler, potential, structures, targets=None):
    """A batched stepper, its state and context."""
    from alj.stepping import batched
    from alj.types import Context

    context = Context(params=potential.init(jax.random.key(1)), targets=targets)
    stepper = batched(sampler.stepper)
    init = stepper.init if stepper.host else jax.jit(stepper.init)
    state = init(jax.random.key(2), sampler.place(structures), context)
    return stepper, state, context
