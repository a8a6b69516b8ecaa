"""Starting structures built in code: random packings, minimized with the reference engine."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.optimize
import scipy.spatial
from ase.data import atomic_masses, atomic_numbers

from alj.types import BadInput, Key, Labeler, Structure
from alj.units import number_density

_TRIES = 20_000


def random_start(
    labeler: Labeler,
    key: Key,
    *,
    species: str = "O",
    atoms: int = 108,
    mass_amu: float | None = None,
    density_g_per_cc: float = 1.0,
    minimum_distance_A: float = 2.3,
    minimization_steps: int = 100,
) -> tuple[Structure, int]:
    """A cubic box of one species at random, minimized with the reference; and the calls that took.

    Args:
        species: Chemical symbol; O stands for a bead of coarse-grained water.
        atoms: Number of atoms.
        mass_amu: Mass of one; null takes the element's.
        density_g_per_cc: Density of the box.
        minimum_distance_A: No two atoms are placed closer than this.
        minimization_steps: Most L-BFGS iterations with the reference's forces.

    Raises:
        BadInput: the symbol is unknown, or the packing is too dense for the distance.
    """
    if species not in atomic_numbers or species == "X":
        raise BadInput(f"species: expected a chemical symbol such as O, found {species!r}")
    number = atomic_numbers[species]
    mass = float(atomic_masses[number]) if mass_amu is None else mass_amu
    length = (atoms / number_density(density_g_per_cc, mass)) ** (1.0 / 3.0)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
    fields: dict[str, Any] = {
        "positions": _packed(generator, atoms, length, minimum_distance_A),
        "species": np.full(atoms, number, np.int32),
        "cell": length * np.eye(3),
        "charge": np.zeros((), np.int32),
        "multiplicity": np.zeros((), np.int32),
    }
    return minimized(Structure(**fields), labeler, minimization_steps)


def minimized(start: Structure, labeler: Labeler, steps: int) -> tuple[Structure, int]:
    """The structure after at most `steps` L-BFGS iterations, and the labels that took."""
    calls = 0

    def energy_and_gradient(flat):
        nonlocal calls
        calls += 1
        labels = labeler.label(start._replace(positions=flat.reshape(-1, 3)))
        return float(labels.energy), -np.asarray(labels.forces, float).ravel()

    if steps < 1:
        return start, 0
    result = scipy.optimize.minimize(
        energy_and_gradient,
        np.asarray(start.positions, float).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps},
    )
    return start._replace(positions=result.x.reshape(-1, 3)), calls


def scaled(structure: Structure, density_factor: float) -> Structure:
    """The structure at another density, atoms and cell scaled alike."""
    scale = density_factor ** (-1.0 / 3.0)
    return structure._replace(
        positions=np.asarray(structure.positions) * scale, cell=np.asarray(structure.cell) * scale
    )


START_BUILDERS: tuple[Callable, ...] = (random_start,)


def _packed(generator, atoms: int, length: float, closest: float) -> np.ndarray:
    """Random sequential placement in a periodic cube."""
    placed = np.zeros((0, 3))
    for _ in range(_TRIES):
        candidates = generator.uniform(0.0, length, (64, 3))
        for candidate in candidates:
            apart = candidate - placed
            apart -= length * np.round(apart / length)
            if len(placed) == 0 or np.min(np.sum(apart**2, axis=1)) >= closest**2:
                placed = np.concatenate([placed, candidate[None]])
            if len(placed) == atoms:
                return placed
    raise BadInput(
        f"could not place {atoms} atoms {closest} Å apart in a box of {length:.2f} Å: expected a "
        "lower density_g_per_cc or minimum_distance_A"
    )
