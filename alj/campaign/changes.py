"""Changes to structures: supercells, strains, displacements, vacancies, substitutions.

Each takes a structure and gives one or more; a list of them is applied in its order.
"""

from collections.abc import Callable
from typing import Any

import ase.build
import numpy as np
from ase.data import chemical_symbols

from alj.campaign.built import Built, atomic_number, exactly_one, of_atoms, to_atoms
from alj.types import BadInput


def supercell(
    built: Built,
    generator: np.random.Generator,
    *,
    repeats: list[int] | list[list[int]] | None = None,
    minimum_length_A: float | None = None,
) -> list[Built]:
    """A larger cell of the same crystal; a total charge is repeated with it.

    Args:
        repeats: Repeats along the three lattice vectors, or an integer matrix whose rows are the
            new lattice vectors in terms of the old.
        minimum_length_A: Instead, as many repeats as make all heights of the cell this long.
    """
    exactly_one({"repeats": repeats, "minimum_length_A": minimum_length_A}, "supercell")
    cell = np.asarray(built.structure.cell)
    periodic = cell.any(axis=1)
    if not periodic.any():
        raise BadInput("supercell: expected a periodic cell, found a molecule")
    if repeats is None:
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(cell)[:, periodic], axis=0)
        numbers = np.ones(3, int)
        # The tolerance keeps a cell that is exactly long enough from being doubled.
        numbers[periodic] = np.ceil((minimum_length_A or 0.0) / heights - 1e-9).clip(1)
        matrix = np.diag(numbers)
    else:
        matrix = _matrix(repeats)
    still = ~periodic
    if (matrix[still] != np.eye(3, dtype=int)[still]).any() or matrix[periodic][:, still].any():
        raise BadInput("supercell: expected 1 repeat along directions that are not periodic")
    times = round(float(np.linalg.det(matrix)))
    charge, multiplicity = (int(v) for v in built.structure[3:])
    atoms = ase.build.make_supercell(to_atoms(built), matrix)
    atoms.info["charge"] = charge * times
    atoms.info["multiplicity"] = (multiplicity - 1) * times + 1 if multiplicity else 0
    return [of_atoms(atoms, **built.info)]


def strain(
    built: Built,
    generator: np.random.Generator,
    *,
    isotropic: tuple[float, float] | None = None,
    voigt: tuple[float, float, float, float, float, float] | None = None,
    random: float | None = None,
    count: int = 1,
) -> list[Built]:
    """Strained cells: every lattice vector and position r becomes (1 + e) r, with e symmetric.

    Args:
        isotropic: Range of linear strains, such as [-0.05, 0.05]; `count` of them, evenly spaced.
        voigt: Instead, one strain: xx, yy, zz, yz, xz, xy, the last three twice the tensor's.
        random: Instead, random strains: every component of e uniform up to this size.
        count: Number of structures.
    """
    kind = exactly_one({"isotropic": isotropic, "voigt": voigt, "random": random}, "strain")
    if not np.asarray(built.structure.cell).any():
        raise BadInput("strain: expected a periodic cell, found a molecule")
    if isotropic is not None:
        low, high = isotropic
        if low > high:
            raise BadInput(f"strain.isotropic: expected low ≤ high, found [{low:g}, {high:g}]")
        _check_stretch(1.0 + low, kind)
        linear = np.linspace(low, high, count) if count > 1 else [0.5 * (low + high)]
        tensors = [value * np.eye(3) for value in linear]
    elif voigt is not None:
        if count != 1:
            raise BadInput(f"strain.count: expected 1 for one strain, found {count}")
        tensors = [_tensor(np.array(voigt))]
    else:
        size = random or 0.0
        if size < 0:
            raise BadInput(f"strain.random: expected a size of 0 or more, found {size:g}")
        scales = size * np.array([1, 1, 1, 2, 2, 2])
        tensors = [_tensor(scales * generator.uniform(-1, 1, 6)) for _ in range(count)]
    return [_strained(built, tensor, kind) for tensor in tensors]


def rattle(
    built: Built, generator: np.random.Generator, *, standard_deviation_A: float, count: int = 1
) -> list[Built]:
    """Random displacements of all atoms, normal in each coordinate.

    Args:
        standard_deviation_A: Of each coordinate.
        count: Number of structures.
    """
    structures = []
    for _ in range(count):
        atoms = to_atoms(built)
        atoms.positions += generator.normal(0.0, standard_deviation_A, atoms.positions.shape)
        structures.append(of_atoms(atoms, **built.info))
    return structures


def vacancies(
    built: Built,
    generator: np.random.Generator,
    *,
    element: str | None = None,
    number: int | None = None,
    fraction: float | None = None,
    count: int = 1,
) -> list[Built]:
    """Atoms removed at random; the total charge stays, a multiplicity is forgotten.

    Args:
        element: Chemical symbol of what is removed; null for any.
        number: Number of atoms removed.
        fraction: Instead, the fraction of them, rounded.
        count: Number of structures.
    """
    structures = []
    for _ in range(count):
        removed = _picked(built, generator, element, number, fraction, "vacancies")
        if len(removed) == len(built.structure.species):
            raise BadInput(
                f"vacancies: expected atoms to be left, found all {len(removed)} removed"
            )
        atoms = to_atoms(built)
        del atoms[removed]
        atoms.info["multiplicity"] = 0
        structures.append(of_atoms(atoms, **built.info))
    return structures


def substitute(
    built: Built,
    generator: np.random.Generator,
    *,
    by: str,
    element: str | None = None,
    number: int | None = None,
    fraction: float | None = None,
    count: int = 1,
) -> list[Built]:
    """Atoms replaced at random; the total charge stays, a multiplicity is forgotten.

    Args:
        by: Chemical symbol of what takes their places.
        element: Chemical symbol of what is replaced; null for any.
        number: Number of atoms replaced.
        fraction: Instead, the fraction of them, rounded.
        count: Number of structures.
    """
    structures = []
    for _ in range(count):
        replaced = _picked(built, generator, element, number, fraction, "substitute")
        atoms = to_atoms(built)
        atoms.numbers[replaced] = atomic_number(by, "substitute.by")
        atoms.info["multiplicity"] = 0
        structures.append(of_atoms(atoms, **built.info))
    return structures


CHANGES: tuple[Callable[..., list[Built]], ...] = (
    supercell,
    strain,
    rattle,
    vacancies,
    substitute,
)


def _matrix(repeats: list[int] | list[list[int]]) -> np.ndarray:
    """The integer matrix of a supercell. Raises BadInput."""
    shape = np.shape(np.array(repeats, dtype=object))
    if shape == (3,):
        numbers = np.array(repeats, int)
        if numbers.min() < 1:
            raise BadInput(f"supercell: expected three numbers of 1 or more, found {repeats}")
        return np.diag(numbers)
    if shape != (3, 3):
        raise BadInput(f"supercell: expected three numbers or a 3x3 matrix, found {repeats}")
    matrix = np.array(repeats, int)
    if round(float(np.linalg.det(matrix))) < 1:
        raise BadInput(f"supercell: expected a matrix of positive determinant, found {repeats}")
    return matrix


def _tensor(voigt: np.ndarray) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = voigt * np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _strained(built: Built, tensor: np.ndarray, kind: str) -> Built:
    deformation = np.eye(3) + tensor
    _check_stretch(float(np.linalg.eigvalsh(deformation)[0]), kind)
    structure = built.structure
    atoms = to_atoms(built)
    atoms.set_cell(np.asarray(structure.cell) @ deformation)
    atoms.positions = np.asarray(structure.positions) @ deformation
    known: dict[str, Any] = dict(built.info)
    before = np.asarray(known.pop("deformation", np.eye(3))).reshape(3, 3)
    return of_atoms(atoms, **known, deformation=(before @ deformation).ravel().tolist())


def _check_stretch(stretch: float, kind: str) -> None:
    if stretch < _LEAST_STRETCH:
        raise BadInput(
            f"strain.{kind}: expected lengths of more than {_LEAST_STRETCH:g} of what they were, "
            f"found {stretch:.3g}; a strain of -0.05 is a compression by 5 %"
        )


_LEAST_STRETCH = 0.1
"""Beyond, a cell has all but collapsed."""


def _picked(
    built: Built, generator, element: str | None, number: int | None, fraction, where: str
) -> np.ndarray:
    """Random atoms of an element. Raises BadInput where there are too few."""
    exactly_one({"number": number, "fraction": fraction}, where)
    species = np.asarray(built.structure.species)
    of = "any element" if element is None else element
    chosen = np.arange(len(species))
    if element is not None:
        chosen = np.flatnonzero(species == atomic_number(element, f"{where}.element"))
    if len(chosen) == 0:
        names = ", ".join(chemical_symbols[z] for z in np.unique(species))
        raise BadInput(f"{where}.element: expected one of {names}, found {of}")
    wanted = round((fraction or 0.0) * len(chosen)) if number is None else number
    if wanted < 1 and number is None:
        raise BadInput(f"{where}.fraction: {fraction:g} of {len(chosen)} atoms is none; give more")
    if not 1 <= wanted <= len(chosen):
        raise BadInput(
            f"{where}.number: expected 1 to {len(chosen)} (atoms of {of}), found {wanted}"
        )
    return generator.choice(chosen, wanted, replace=False)
