"""What a committee disagrees on, atom by atom: standard deviations over its members (ddof 1).

Where members know their own doubt (a Gaussian process), its variance is added: the variance of a
mixture is the mean of the variances and the variance of the means.

Seung, Opper, Sompolinsky, Query by committee (1992), doi:10.1145/130385.130417.
"""

import jax
import jax.numpy as jnp

from alj.potentials.combine import member_energies_and_forces, spread
from alj.types import Potential, Uncertainty, Variances


def force_spread(potential: Potential) -> Uncertainty:
    """The length of the standard deviation of each atom's force, in eV/Å."""

    def uncertainty(context, structure, neighbors):
        _, forces = member_energies_and_forces(potential, context.params, structure, neighbors)
        squares = spread(forces) ** 2
        if potential.variances is not None:
            squares = squares + _own(potential, context.params, structure, neighbors).forces
        return safe_root(jnp.sum(squares, axis=-1))

    return uncertainty


def atomic_energy_spread(potential: Potential) -> Uncertainty:
    """The standard deviation of each atomic energy, in eV."""

    def uncertainty(context, structure, neighbors):
        described = potential.describe(structure, neighbors)
        energies = jax.vmap(potential.evaluate, (0, None))(context.params, described)
        if potential.variances is None:
            return spread(energies)
        own = _own(potential, context.params, structure, neighbors)
        return safe_root(spread(energies) ** 2 + own.atomic)

    return uncertainty


def energy_spread(potential: Potential) -> Uncertainty:
    """The standard deviation of the energy of the structure, in eV."""

    def uncertainty(context, structure, neighbors):
        described = potential.describe(structure, neighbors)
        energies = jax.vmap(potential.evaluate, (0, None))(context.params, described)
        square = spread(jnp.sum(energies, axis=1)) ** 2
        if potential.variances is not None:
            square = square + _own(potential, context.params, structure, neighbors).energy
        return safe_root(square)

    return uncertainty


def _own(potential: Potential, params, structure, neighbors) -> Variances:
    """The mean of the members' own variances."""
    assert potential.variances is not None
    found = jax.vmap(potential.variances, (0, None, None))(params, structure, neighbors)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)


def safe_root(squares):
    """√ with a derivative of 0, not infinity, at 0."""
    there = squares > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)
