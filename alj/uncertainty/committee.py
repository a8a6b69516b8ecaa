"""What a committee disagrees on, atom by atom: standard deviations over its members (ddof 1).

Seung, Opper, Sompolinsky, Query by committee (1992), doi:10.1145/130385.130417.
"""

import jax
import jax.numpy as jnp

from alj.potentials.combine import member_energies_and_forces, spread
from alj.types import Potential, Uncertainty


def force_spread(potential: Potential) -> Uncertainty:
    """The length of the standard deviation of each atom's force, in eV/Å."""

    def uncertainty(context, structure, neighbors):
        _, forces = member_energies_and_forces(potential, context.params, structure, neighbors)
        return jnp.linalg.norm(spread(forces), axis=-1)

    return uncertainty


def atomic_energy_spread(potential: Potential) -> Uncertainty:
    """The standard deviation of each atomic energy, in eV."""

    def uncertainty(context, structure, neighbors):
        described = potential.describe(structure, neighbors)
        energies = jax.vmap(potential.evaluate, (0, None))(context.params, described)
        return spread(energies)

    return uncertainty
