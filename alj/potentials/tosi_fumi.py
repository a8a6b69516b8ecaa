"""Rock salt and its melt: Born, Mayer, Huggins, Tosi and Fumi's rigid ions of sodium chloride.

    E_i = ½ Σ_j [A exp((σ - r)/ρ) - C/r⁶ - D/r⁸] + ½ q_i φ_i,   q(Na) = 1, q(Cl) = -1, ρ = 0.317 Å

The pair terms end abruptly at a cutoff; φ is the Coulomb potential of all other ions and of all
images (`electrostatics`). At less than about 1 Å the dispersion wins and ions collapse: this is no
potential for impacts.

F. G. Fumi, M. P. Tosi, J. Phys. Chem. Solids 25, 31 (1964), doi 10.1016/0022-3697(64)90159-3;
M. P. Tosi, F. G. Fumi, ibid. 45, doi 10.1016/0022-3697(64)90160-X.
"""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from alj.geometry.environment import environment
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.electrostatics import Splitting, far_potentials, refusal, screened, split
from alj.types import BadInput, Environment, Potential, Structure

SODIUM, CHLORINE = 11, 17


class Pair(NamedTuple):
    """Names of the formula above: A in eV, σ in Å, C in eV Å⁶, D in eV Å⁸."""

    A: float
    sigma: float
    C: float
    D: float


def _published(pauling: float, sigma: float, C: float, D: float) -> Pair:
    """Pauling's factor, σ in Å, C in 1e-79 J m⁶ and D in 1e-99 J m⁸, as published.

    Eight digits in eV, as they are usually copied, change the energy of 100 ions by 1e-6 eV.
    """
    return Pair(pauling * 0.338 / ELECTRON, sigma, C / ELECTRON, D / ELECTRON)


ELECTRON = 1.602176634
"""Elementary charge in 1e-19 C."""

SODIUMS = _published(1.25, 2.340, 1.68, 0.8)
UNLIKE = _published(1.00, 2.755, 11.2, 13.9)
CHLORINES = _published(0.75, 3.170, 116.0, 233.0)
RHO = 0.317


def nacl_tosi_fumi(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 10.0,
    accuracy: float = 1e-9,
    coulomb: bool = True,
    mesh: tuple[int, int, int] | None = None,
) -> Potential:
    """Sodium chloride as rigid ions (Tosi and Fumi), with Ewald sums.

    Atomic energies are half of the pair terms and of charge times potential; they do not depend on
    how the Coulomb sum is split. Periodic cells must be neutral (NaN otherwise); where nothing
    repeats the Coulomb sum is the plain one over all pairs.

    Args:
        cutoff_A: pair terms end here, without a shift, and so does the near half of the Coulomb
            sum, in Å.
        accuracy: of Coulomb forces, rms in eV/Å; decides how the sum is split.
        coulomb: off leaves the pair terms alone, a local potential.
        mesh: points along the lattice vectors for smooth particle-mesh Ewald, for ten thousand ions
            and more (`electrostatics.suitable_mesh` says how many); none sums exactly.

    Raises BadInput for other elements and settings out of range.
    """
    if not set(species) <= {SODIUM, CHLORINE}:
        raise BadInput(
            f"nacl_tosi_fumi knows Na and Cl (11 and 17), found {sorted(species)}: "
            "use another potential"
        )
    if not coulomb:
        if not (math.isfinite(cutoff_A) and cutoff_A > 0):
            raise BadInput(f"cutoff_A must be a positive length in Å, found {cutoff_A}")
        alone = by_blocks(partial(_near_energies, cutoff_A, None))
        return local(lambda params, env: alone(env), cutoff=cutoff_A, species=(SODIUM, CHLORINE))
    how = split(cutoff_A, accuracy, mesh=mesh)
    near = by_blocks(partial(_near_energies, cutoff_A, how))

    def atomic_energies(params, structure, neighbors):
        charges = ionic_charges(structure)
        bonds = near(environment(structure, neighbors, cutoff_A))
        return bonds + 0.5 * charges * far_potentials(charges, structure, how)

    classical = local(lambda params, env: near(env), cutoff=cutoff_A, species=(SODIUM, CHLORINE))
    return classical._replace(
        atomic_energies=atomic_energies,
        describe=lambda structure, neighbors: atomic_energies({}, structure, neighbors),
        evaluate=lambda params, energies: energies,
        hops=None,
        environment_energies=None,
        describe_environment=None,
    )


def ionic_charges(structure: Structure):
    """+1 for Na, -1 for Cl, 0 for padding, in e."""
    of = structure.species
    signs = jnp.where(of == SODIUM, 1.0, jnp.where(of == CHLORINE, -1.0, 0.0))
    return signs.astype(structure.positions.dtype)


def unsuitable(structure: Structure) -> str | None:
    """Why a structure has no energy: a charged cell, a slab or a wire; or None (host)."""
    of = np.asarray(structure.species)
    return refusal((of == SODIUM) * 1.0 - (of == CHLORINE), np.asarray(structure.cell))


def _near_energies(cutoff: float, how: Splitting | None, env: Environment):
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    inside = (env.neighbor_species > 0) & (squares < cutoff**2) & (env.species > 0)[:, None]
    overlap = inside & (squares == 0)
    square = jnp.where(inside & ~overlap, squares, 1.0)
    r, inverse = jnp.sqrt(square), 1.0 / square
    sodium, sodium_there = (env.species == SODIUM)[:, None], env.neighbor_species == SODIUM

    def choose(sodiums, unlike, chlorines):
        like = jnp.where(sodium & sodium_there, sodiums, chlorines)
        return jnp.where(sodium ^ sodium_there, unlike, like).astype(r.dtype)

    def column(function):
        return choose(*(function(pair) for pair in (SODIUMS, UNLIKE, CHLORINES)))

    # A exp(σ/ρ) is one number for each kind of pair.
    size = column(lambda pair: pair.A * math.exp(pair.sigma / RHO))
    dispersion = column(lambda pair: pair.C) + column(lambda pair: pair.D) * inverse
    bonds = size * jnp.exp(-r / RHO) - dispersion * inverse**3
    if how is not None:
        bonds = bonds + choose(1.0, -1.0, 1.0) * screened(how, r)
    # An infinite energy, without a direction, where ions coincide.
    bonds = jnp.where(inside, jnp.where(overlap, jnp.inf, bonds), 0.0)
    return 0.5 * jnp.sum(bonds, axis=-1)
