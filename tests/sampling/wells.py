"""Atoms in harmonic wells of their own, stiffer along one axis than along another.

    E = ½ Σ_i Σ_a k_ia (x_ia - c_ia)²

In the canonical ensemble E/kT and K/kT both follow a gamma distribution of shape 3N/2, and are
independent. Frequencies differ, so a thermostat that scales all momenta alike mixes them too.
"""

import jax.numpy as jnp
import numpy as np

from alj.types import Potential, Structure


def stiffnesses(atoms: int) -> np.ndarray:
    """Spring constants in eV/Å^2, incommensurate."""
    return 1.0 + 3.0 * (np.sqrt(5.0) * np.arange(1, 3 * atoms + 1).reshape(atoms, 3) % 1.0)


def centers(atoms: int) -> np.ndarray:
    return 10.0 * np.arange(3 * atoms, dtype=float).reshape(atoms, 3)


def wells(atoms: int, scale: float = 1.0) -> Potential:
    """The potential; its parameter scales all spring constants."""
    springs, middles = scale * jnp.asarray(stiffnesses(atoms)), jnp.asarray(centers(atoms))

    def evaluate(params, structure):
        return (
            0.5
            * params["body"]["scale"]
            * jnp.sum(springs * (structure.positions - middles) ** 2, axis=-1)
        )

    return Potential(
        init=lambda key: {"body": {"scale": jnp.asarray(1.0)}, "readout": {}, "constants": {}},
        prepare=lambda params, batches: params,
        atomic_energies=lambda params, structure, neighbors: evaluate(params, structure),
        describe=lambda structure, neighbors: structure,
        evaluate=evaluate,
        cutoff=1.0,
        hops=None,
    )


def at_rest(count: int, atoms: int, species: int = 8) -> Structure:
    """`count` copies with every atom in the middle of its well; no cell."""
    return Structure(
        positions=jnp.tile(jnp.asarray(centers(atoms))[None], (count, 1, 1)),
        species=jnp.full((count, atoms), species),
        cell=jnp.zeros((count, 3, 3)),
        charge=jnp.zeros(count, int),
        multiplicity=jnp.zeros(count, int),
    )
