"""Atoms at random places of a periodic cube: melts, glasses, coarse-grained beads."""

import numpy as np
from ase import Atoms
from ase.data import atomic_masses

from alj.campaign.built import Built, composition, of_atoms
from alj.types import BadInput
from alj.units import number_density

_TRIES = 20_000
_JAMMED = 0.5
"""Share of the volume that spheres cannot fill when placed one after another (they jam at 0.38)."""


def random_atoms(
    generator: np.random.Generator,
    count: int | None,
    *,
    formula: str = "Ar",
    atoms: int = 64,
    mass_amu: float | None = None,
    density_g_per_cc: float = 1.0,
    minimum_distance_A: float = 2.3,
) -> list[Built]:
    """Atoms at random in a periodic cube, none too close to another.

    Args:
        formula: A chemical symbol, or a formula such as SiO2 whose proportions are kept.
        atoms: Number of atoms.
        mass_amu: Mass of one, for beads that stand for a molecule; null takes the elements'.
        density_g_per_cc: Density of the box.
        minimum_distance_A: No two atoms are placed closer than this.

    Raises:
        BadInput: the formula is unknown, or the packing is too dense for the distance.
    """
    unit = composition(formula, "formula")
    per_unit = sum(unit.values())
    if atoms < 1 or atoms % per_unit:
        raise BadInput(f"atoms: expected a multiple of the {per_unit} of {formula}, found {atoms}")
    numbers = np.repeat(list(unit), [n * (atoms // per_unit) for n in unit.values()])
    mass = float(atomic_masses[numbers].mean()) if mass_amu is None else mass_amu
    length = edge(atoms, mass, density_g_per_cc)
    built = []
    for _ in range(count or 1):
        positions = apart(generator, atoms, length, minimum_distance_A)
        built.append(of_atoms(Atoms(numbers, positions, cell=length * np.eye(3), pbc=True)))
    return built


def edge(atoms: int, mass_amu: float, density_g_per_cc: float) -> float:
    """Edge in Å of the cube that holds atoms of one mass at a density."""
    return (atoms / number_density(density_g_per_cc, mass_amu)) ** (1.0 / 3.0)


def apart(generator: np.random.Generator, atoms: int, length: float, closest: float) -> np.ndarray:
    """Random sequential placement in a periodic cube; raises BadInput where it gets stuck."""
    placed = np.zeros((0, 3))
    share = np.pi / 6.0 * closest**3 * atoms / length**3
    for _ in range(_TRIES if share < _JAMMED else 0):
        candidates = generator.uniform(0.0, length, (64, 3))
        for candidate in candidates:
            away = candidate - placed
            away -= length * np.round(away / length)
            if len(placed) == 0 or np.min(np.sum(away**2, axis=1)) >= closest**2:
                placed = np.concatenate([placed, candidate[None]])
            if len(placed) == atoms:
                return placed
    raise BadInput(
        f"could not place {atoms} atoms {closest} Å apart in a box of {length:.2f} Å: expected a "
        "lower density_g_per_cc or minimum_distance_A"
    )
