"""One structure as a builder gives it, and the door between it and ASE."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.formula import Formula
from ase.neighborlist import neighbor_list

from alj.annotations import suggest
from alj.campaign.reading import read_atoms, structure_of
from alj.labeling.atoms import atoms_of
from alj.types import BadInput, Structure
from alj.units import mass_density

SUFFIXES = (
    ".xyz .extxyz .cif .pdb .vasp .poscar .gen .json .db .traj .mol .sdf .gro .res .xsf .gz "
    ".npz .zip .bz2"
)
"""Endings by which a text is known to be the name of a file of structures."""


class Built(NamedTuple):
    """A structure, unpadded on the host, and what is written beside it (`info`)."""

    structure: Structure
    info: dict[str, Any]


def of_atoms(atoms: ase.Atoms, **info: Any) -> Built:
    """The structure in ASE atoms; charge and multiplicity are those in `atoms.info`."""
    return Built(structure_of(atoms), info)


def to_atoms(built: Built) -> ase.Atoms:
    """ASE atoms with charge and multiplicity in `info` only."""
    structure = built.structure
    atoms = atoms_of(structure._replace(charge=np.zeros((), np.int32)))
    atoms.info = {"charge": int(structure.charge), "multiplicity": int(structure.multiplicity)}
    return atoms


def names_a_file(text: str) -> bool:
    """Whether a text is meant as a file: by its ending, or because it leads to one in a folder."""
    path = Path(text)
    known = path.suffix.lower() in SUFFIXES.split() or path.name in ("POSCAR", "CONTCAR")
    return known or ("/" in text and path.is_file())


def from_file(path: str, *, periodic: bool) -> list[Built]:
    """All structures in a file of any format that ASE reads, their labels left behind.

    Raises BadInput where they are not periodic as expected.
    """
    found = []
    for index, atoms in enumerate(read_atoms(path)):
        place = f"{path}: structure {index} (counting from 0)"
        if bool(atoms.pbc.any()) != periodic:
            expected = ("a molecule", "a periodic cell")
            raise BadInput(
                f"{place}: expected {expected[periodic]}, found {expected[not periodic]}; "
                f"use the builder `{'molecule' if periodic else 'crystal'}`"
            )
        try:
            found.append(of_atoms(atoms))
        except BadInput as error:
            raise BadInput(f"{place}: {error}") from None
    return found


def atomic_number(symbol: str, where: str) -> int:
    """The atomic number of a chemical symbol. Raises BadInput with the nearest one."""
    if symbol not in atomic_numbers or symbol == "X":
        known = [name for name in atomic_numbers if name != "X"]
        near = suggest(symbol, known).partition("?")
        hint = f"{near[0]}?" if near[1] else ""
        raise BadInput(f"{where}: expected a chemical symbol such as O, found {symbol!r}{hint}")
    return atomic_numbers[symbol]


def composition(formula: str, where: str) -> dict[int, int]:
    """Atoms of each atomic number in a formula, in its order. Raises BadInput.

    >>> composition("SiO2", "formula")
    {14: 1, 8: 2}
    """
    try:
        parts = Formula(formula).count()
    except ValueError:
        parts = {}
    if not parts or min(parts.values()) < 1:
        raise BadInput(f"{where}: expected a formula such as NaCl or SiO2, found {formula!r}")
    return {atomic_number(symbol, where): number for symbol, number in parts.items()}


def exactly_one(settings: dict[str, Any], where: str = "") -> str:
    """The name of the only setting that is given. Raises BadInput for none and for several."""
    given = [name for name, value in settings.items() if value is not None]
    if len(given) != 1:
        names = list(settings)
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        prefix = f"{where}: " if where else ""
        raise BadInput(
            f"{prefix}expected exactly one of {expected}, found {' and '.join(given) or 'none'}"
        )
    return given[0]


def nearest(structures: Iterable[Structure]) -> float | None:
    """The smallest distance between two atoms in Å, images included; None for single atoms."""
    found = [_nearest(structure) for structure in structures]
    return min((distance for distance in found if distance is not None), default=None)


def density(structure: Structure) -> float | None:
    """g/cm^3 of a cell that is periodic in all directions, None of any other."""
    cell = np.asarray(structure.cell)
    if not cell.any(axis=1).all():
        return None
    mass = float(atomic_masses[np.asarray(structure.species)].sum())
    return mass_density(1.0, mass, abs(float(np.linalg.det(cell))))


def _nearest(structure: Structure) -> float | None:
    atoms = atoms_of(structure)
    if len(atoms) == 1 and not atoms.pbc.any():
        return None
    reach = 2.0
    while True:
        distances = neighbor_list("d", atoms, reach)
        if len(distances):
            return float(distances.min())
        reach *= 1.5
