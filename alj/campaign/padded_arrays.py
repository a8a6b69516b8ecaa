"""Structures of any sizes in one `.npz`, padded to the largest: the format of N-ASW.

    R  (structures, atoms, 3)  positions             N  (structures,)        numbers of atoms
    Z  (structures, atoms)     atomic numbers        E  (structures,)        total energies
    F  (structures, atoms, 3)  forces

*Documented* by the authors of N-ASW for their sets of ethanol (readme of
github.com/viktorzaverkin/ethanol_datasets_git): these five names; positions in Å, total energies in
kcal/mol, forces in kcal/mol/Å. N-ASW itself (Molpeceres, Zaverkin, Kästner, zenodo 2020, doi
10.5281/zenodo.4013889; PBEh-3c/def2-mSVP; their paper MNRAS 499, 1373, 2020, doi
10.1093/mnras/staa2891) has structures of 3 to 378 atoms and is *assumed* to be the same: it was not
at hand when this was written. Assumed too: what is beyond a structure's N atoms is padding (Z = 0
there), Z may be one row for all structures, and N may be missing where Z tells.

Units are not taken on trust. Text arrays `e_unit` and `r_unit` (the names that sGDML uses) decide
where they are there. Otherwise lengths are Å, and the unit of the energies is the one in which they
are total energies of all electrons, by the energy of neutral atoms (hartree)

    E(Z) = -0.768745 Z^{7/3} + Z²/2 - 0.269900 Z^{5/3}

(J. Schwinger, Phys. Rev. A 24, 2353, 1981, doi 10.1103/PhysRevA.24.2353), right to 1 % from carbon
on and to 8 % for hydrogen, while units differ by factors of 4 and more. Forces have the unit of the
energies over that of the lengths.
"""

import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

import ase
import numpy as np
from ase.units import Bohr

from alj.types import BadInput
from alj.units import HARTREE, KCAL_PER_MOL

ENERGIES = {
    "kcal/mol": KCAL_PER_MOL,
    "eV": 1.0,
    "hartree": HARTREE,
    "kJ/mol": KCAL_PER_MOL / 4.184,
    "meV": 1e-3,
}
"""Units of energy in eV."""

LENGTHS = {"Å": 1.0, "bohr": Bohr, "nm": 10.0}
"""Units of length in Å."""

_ALSO = {
    "ha": "hartree", "eh": "hartree", "a.u.": "hartree", "kcal mol-1": "kcal/mol",
    "kj mol-1": "kJ/mol", "ang": "Å", "angstrom": "Å", "a": "Å", "a0": "bohr",
}  # fmt: skip
_LIKELY = (0.75, 1.3)
"""Energies over those of neutral atoms; 1.17 for H2, nearer to 1 for all else."""


def atoms_of(content: bytes, place: str, config_type: str | None = None) -> Iterator[ase.Atoms]:
    """The structures, with `REF_energy` and `REF_forces` in eV and Å where there are E and F.

    Raises BadInput, which begins with `place`.
    """
    try:
        with np.load(BytesIO(content), allow_pickle=False) as file:
            names = [name for name in ("R", "Z", "z", "N", "E", "F") if name in file.files]
            arrays = {name: file[name] for name in names}
            units = {n: str(file[n].item()) for n in ("e_unit", "r_unit") if n in file.files}
            others = file.files
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"{place}: expected a whole .npz of plain arrays, found one that cannot be read "
            f"({reason}); download it again"
        ) from None
    try:
        yield from _structures(arrays, units, others, config_type)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None


def unit_of(energies: np.ndarray, species: list[np.ndarray]) -> str:
    """The unit in which these are total energies of atoms of these numbers. Raises BadInput."""
    expected = np.array([_neutral(numbers).sum() for numbers in species])
    ratio = float(np.median(energies / (expected * HARTREE)))
    for name in ("kcal/mol", "eV", "hartree", "kJ/mol"):
        if _LIKELY[0] < ratio * ENERGIES[name] < _LIKELY[1]:
            return name
    first = " ".join(f"{value:.6g}" for value in energies[:3])
    raise BadInput(
        f"expected E to be total energies of all electrons in kcal/mol, eV, hartree or kJ/mol, "
        f"found {first} …, which is none of them; say the unit in a text array e_unit "
        '(np.savez(file, **np.load(old), e_unit="kcal/mol"))'
    )


def _structures(arrays: dict, units: dict, names: list[str], config_type) -> Iterator[ase.Atoms]:
    positions, species, counts = _shapes(arrays, names)
    length = _unit(units.get("r_unit", "Å"), LENGTHS, "r_unit")
    kinds = [species[i, :n] for i, n in enumerate(counts.tolist())]
    energies, forces = arrays.get("E"), arrays.get("F")
    scale = 1.0
    if energies is not None:
        energies = energies.reshape(-1)
        given = units.get("e_unit") or unit_of(energies, kinds)
        scale = _unit(given, ENERGIES, "e_unit")
    elif forces is not None:
        scale = _unit(units.get("e_unit", ""), ENERGIES, "e_unit")
    for i, numbers in enumerate(kinds):
        atoms = ase.Atoms(numbers, positions[i, : len(numbers)] * length)
        if energies is not None:
            atoms.info["REF_energy"] = float(energies[i]) * scale
        if forces is not None:
            atoms.set_array("REF_forces", forces[i, : len(numbers)] * (scale / length))
        if config_type:
            atoms.info["config_type"] = config_type
        yield atoms


def _shapes(arrays: dict, names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, atomic numbers and numbers of atoms, which agree. Raises BadInput."""
    if "z" in arrays:
        arrays.setdefault("Z", arrays.pop("z"))
    missing = [name for name in ("R", "Z") if name not in arrays]
    if missing:
        raise BadInput(
            f"expected arrays R, Z, N, E and F, found no {' and no '.join(missing)} but "
            f"{', '.join(names[:8]) or 'nothing'}; rename the arrays, or write extxyz"
        )
    positions, species = arrays["R"], arrays["Z"]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise BadInput(f"expected R of shape (structures, atoms, 3), found {positions.shape}")
    structures, most = positions.shape[:2]
    if species.shape == (most,):
        species = np.tile(species, (structures, 1))
    wanted = {"Z": (structures, most), "N": (structures,), "F": positions.shape}
    found = {**{name: array.shape for name, array in arrays.items()}, "Z": species.shape}
    found["N"] = (np.size(arrays["N"]),) if "N" in arrays else wanted["N"]
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            raise BadInput(f"expected {name} of shape {shape} as R has it, found {found[name]}")
    if "E" in arrays and arrays["E"].size != structures:
        raise BadInput(f"expected {structures} energies in E, found {arrays['E'].size}")
    counts = (species > 0).sum(axis=1)
    real = np.arange(most) < counts[:, None]
    stated = arrays["N"].reshape(-1) if "N" in arrays else counts
    wrong = np.flatnonzero((stated != counts) | ((species > 0) != real).any(axis=1))
    if len(wrong):
        i = int(wrong[0])
        raise BadInput(
            f"structure {i} (counting from 0): expected N = {stated[i]} atomic numbers and then "
            f"zeros in Z, found {counts[i]} that are not 0; its arrays do not belong together"
        )
    return positions, species.astype(np.int64), counts


def _neutral(numbers: np.ndarray) -> np.ndarray:
    """Energies of neutral atoms in hartree, see the top of this file."""
    z = numbers.astype(np.float64)
    return -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)


def _unit(name: str, known: dict[str, float], where: str) -> float:
    """The factor of a unit. Raises BadInput with those that are known."""
    plain = {known_name.lower(): known_name for known_name in known}
    meant = plain.get(name.lower()) or _ALSO.get(name.lower(), "")
    if meant not in known:
        raise BadInput(f"expected {where} to be one of {', '.join(known)}, found {name!r}")
    return known[meant]
