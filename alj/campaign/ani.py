"""Data sets of the ANI potentials in HDF5: ANI-1 (`ani_gdb_s01.h5` …) and ANI-1x.

ANI-1 has 22 million conformations of 57462 molecules of H, C, N and O with up to eight heavy atoms,
ωB97x/6-31G(d): J. S. Smith, O. Isayev, A. E. Roitberg, Sci. Data 4, 170193 (2017), doi
10.1038/sdata.2017.193. A group for each molecule, at any depth, holds

    coordinates  (conformations, atoms, 3)  Å           energies  (conformations,)  hartree
    species      (atoms,)                   symbols     smiles    characters, one by one

Energies are total energies of all electrons; there are no forces. `coordinatesHE` and `energiesHE`,
conformations of high energy, are passed over, as the authors' own reader does by default.

ANI-1x has `atomic_numbers` for `species`, and `wb97x_dz.energy` (hartree) and `wb97x_dz.forces`
(hartree/Å) among others: J. S. Smith et al., Sci. Data 7, 134 (2020), doi
10.1038/s41597-020-0473-z.

One block of conformations is in memory at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ase
import h5py
import numpy as np
from ase.data import atomic_numbers

from alj.types import BadInput
from alj.units import HARTREE

BLOCK = 4096
"""Conformations of one molecule that are read at once."""

REFERENCES = {"energies": "wB97x/6-31G(d) (ANI-1)", "wb97x_dz.energy": "wB97x/6-31G(d) (ANI-1x)"}
"""For each name of the energies whose they are."""


class Block(NamedTuple):
    """Conformations of one molecule: positions (n, atoms, 3) in Å, species (atoms,); energies (n,)
    in eV and forces in eV/Å, None where there are none; `about` is the same for all of them."""

    positions: np.ndarray
    species: np.ndarray
    energies: np.ndarray | None
    forces: np.ndarray | None
    about: dict[str, Any]


def holds(path: Path) -> bool:
    """Whether a file is HDF5 with molecules in the manner of ANI."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return next(_molecules(file), None) is not None
    except OSError:
        return True  # HDF5 that is damaged is to be told of here, and not by another reader


def count(path: Path) -> int:
    """The number of conformations in a file, without reading them. Raises BadInput."""
    return sum(len(_checked(path, group)["coordinates"]) for group in _opened(path))


def blocks(path: Path, start: int = 0) -> Iterator[Block]:
    """All conformations from number `start` on, in the order of the file. Raises BadInput."""
    seen = 0
    for group in _opened(path):
        own = _checked(path, group)
        total = len(own["coordinates"])
        if seen + total > start:
            yield from _blocks(path, group, own, max(start - seen, 0))
        seen += total


def atoms_of(path: Path) -> Iterator[ase.Atoms]:
    """The conformations one after another, with `REF_energy` and `REF_forces` in eV and Å."""
    for block in blocks(path):
        for row in range(len(block.positions)):
            yield one(block, row)


def one(block: Block, row: int) -> ase.Atoms:
    """One conformation of a block, with its labels."""
    atoms = ase.Atoms(block.species, block.positions[row])
    atoms.info |= block.about
    if block.energies is not None and np.isfinite(block.energies[row]):
        atoms.info["REF_energy"] = float(block.energies[row])
    if block.forces is not None and np.isfinite(block.forces[row]).all():
        atoms.set_array("REF_forces", block.forces[row])
    return atoms


def _opened(path: Path) -> Iterator[h5py.Group]:
    """The groups of molecules. Raises BadInput where the file cannot be read or has none."""
    found = False
    try:
        with h5py.File(path, "r") as file:
            for group in _molecules(file):
                found = True
                yield group
            names = list(file)[:3]
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{path}: expected a whole HDF5 file, found one that is damaged or cut off ({reason}); "
            "download it again"
        ) from None
    if not found:
        raise BadInput(
            f"{path}: expected groups with coordinates and species (or atomic_numbers), found "
            f"{', '.join(names) or 'nothing'}"
        )


def _molecules(group: h5py.Group) -> Iterator[h5py.Group]:
    """All groups that hold coordinates of atoms, depth first, in the order of the file."""
    if "coordinates" in group and ("species" in group or "atomic_numbers" in group):
        yield group
        return
    for name in group:
        inner = group.get(name)
        if isinstance(inner, h5py.Group):
            yield from _molecules(inner)


def _checked(path: Path, group: h5py.Group) -> dict[str, Any]:
    """The arrays of a molecule, not read yet, which agree in their shapes. Raises BadInput."""
    place = f"{path}: {group.name}"
    energy = next((name for name in REFERENCES if name in group), None)
    own: dict[str, Any] = {"coordinates": group["coordinates"], "energy": energy}
    own["species"] = _species(group, place)
    shape, atoms = own["coordinates"].shape, len(own["species"])
    if len(shape) != 3 or shape[1:] != (atoms, 3):
        raise BadInput(
            f"{place}: expected coordinates of shape (conformations, {atoms}, 3) as species has "
            f"it, found {shape}"
        )
    wanted = {energy: shape[:1], "wb97x_dz.forces": shape}
    for name, size in wanted.items():
        found = getattr(group.get(name), "shape", size) if name is not None else size
        if found != size:
            raise BadInput(f"{place}: expected {name} of shape {size}, found {found}")
    return own


def _species(group: h5py.Group, place: str) -> np.ndarray:
    """Atomic numbers of the molecule's atoms."""
    if "atomic_numbers" in group:
        numbers = np.asarray(group["atomic_numbers"])
        strange = [n for n in numbers.ravel().tolist() if n not in atomic_numbers.values() or n < 1]
    else:
        raw = [_text(one) for one in np.asarray(group["species"]).ravel()]
        strange = [name for name in raw if atomic_numbers.get(name, 0) < 1]
        numbers = np.array([atomic_numbers.get(name, 0) for name in raw])
    if strange or not numbers.size or numbers.ndim != 1:
        raise BadInput(
            f"{place}: expected the chemical symbols (species) or atomic numbers of its atoms, "
            f"found {strange[0]!r}" if strange else f"{place}: expected one row of atoms in species"
        )  # fmt: skip
    return numbers.astype(np.int32)


def _blocks(path: Path, group: h5py.Group, own: dict[str, Any], start: int) -> Iterator[Block]:
    energy = own["energy"]
    about: dict[str, Any] = {"config_type": str(group.name).rpartition("/")[2]}
    if "smiles" in group:
        about["smiles"] = "".join(_text(one) for one in np.asarray(group["smiles"]).ravel())
    if energy is not None:
        about["reference"] = REFERENCES[energy]
    total = len(own["coordinates"])
    for begin in range(start, total, BLOCK):
        rows = slice(begin, min(begin + BLOCK, total))
        positions = np.asarray(own["coordinates"][rows], np.float64)
        if not np.isfinite(positions).all():
            wrong = begin + int(np.argmax(~np.isfinite(positions).all(axis=(1, 2))))
            raise BadInput(f"{path}: {group.name}: a coordinate of row {wrong} is not finite")
        forces = _read(group, "wb97x_dz.forces", rows)
        yield Block(positions, own["species"], _read(group, energy, rows), forces, about)


def _read(group: h5py.Group, name: str | None, rows: slice) -> np.ndarray | None:
    """Energies or forces in eV; None where there are none."""
    if name is None or name not in group:
        return None
    return np.asarray(group[name][rows], np.float64) * HARTREE  # pyright: ignore[reportIndexIssue]


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
