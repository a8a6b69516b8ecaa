"""Small random liquids and prepared potentials for the tests of potentials."""

import jax
import jax.numpy as jnp
import numpy as np

from alj.geometry.neighbors import TableSize, neighbor_table
from alj.geometry.periodic import images_needed
from alj.types import Batch, Labels, Structure

TRICLINIC = np.array([[7.4, 0.0, 0.0], [0.9, 7.1, 0.0], [-0.5, 0.6, 7.6]])


def structure(positions, species, cell=None) -> Structure:
    cell = np.zeros((3, 3)) if cell is None else cell
    return Structure(
        jnp.asarray(positions), jnp.asarray(species), jnp.asarray(cell), jnp.array(0), jnp.array(0)
    )


def liquid(seed: int, atoms: int = 12, species=(8,), cell=TRICLINIC, nearest=2.1) -> Structure:
    """Random positions in a cell, no two (images) nearer than `nearest` Å."""
    rng = np.random.default_rng(seed)
    images = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    points = []
    while len(points) < atoms:
        new = rng.random(3) @ cell
        gaps = [np.linalg.norm(p + images @ cell - new, axis=1).min() for p in points]
        if min(gaps, default=9.0) > nearest:
            points.append(new)
    kinds = [species[i % len(species)] for i in range(atoms)]
    return structure(np.array(points), np.array(kinds), cell)


def table(s: Structure, cutoff: float, capacity: int):
    """A neighbor table of fixed capacity, which must suffice."""
    size = TableSize(capacity, images_needed(np.asarray(s.cell), cutoff))
    found = compiled_table(s, cutoff, size)
    assert not bool(found.overflow)
    return found


compiled_table = jax.jit(neighbor_table, static_argnums=(1, 2))


def padded(s: Structure, atoms: int) -> Structure:
    extra = atoms - s.species.shape[0]
    return s._replace(
        positions=jnp.pad(s.positions, ((0, extra), (0, 0))), species=jnp.pad(s.species, (0, extra))
    )


def labeled(structures, energies, cutoff: float, capacity: int, weights=None) -> Batch:
    """A batch with energies only."""
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *structures)
    tables = [table(s, cutoff, capacity) for s in structures]
    count, atoms = stack.species.shape
    missing = Labels(
        energy=jnp.asarray(energies, float),
        forces=jnp.full((count, atoms, 3), jnp.nan),
        stress=jnp.full((count, 3, 3), jnp.nan),
        dipole=jnp.full((count, 3), jnp.nan),
        charges=jnp.full((count, atoms), jnp.nan),
        atomic_energies=jnp.full((count, atoms), jnp.nan),
    )
    return Batch(
        stack,
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables),
        missing,
        jnp.ones(count) if weights is None else jnp.asarray(weights, float),
        jnp.arange(count),
    )


def prepared(potential, structures, capacity: int, seed: int = 0):
    """Params with constants from two structures of made-up energies."""
    energies = [-0.4 * len(s.species) + 0.9 * i for i, s in enumerate(structures)]
    batch = labeled(structures, energies, potential.cutoff, capacity)
    return potential.prepare(potential.init(jax.random.key(seed)), (batch,))
