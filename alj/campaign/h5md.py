"""H5MD trajectories as structures, also of other programs.

H5MD 1.1: P. de Buyl, P. H. Colberg, F. Höfling, Comput. Phys. Commun. 185, 1546 (2014),
doi:10.1016/j.cpc.2014.01.018. Each group of `particles` is a walk. Species have to be atomic
numbers, which the format leaves open. Units are read where the file gives them (module `units`);
without, Å and eV are assumed. What is written: `trajectories.H5md`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import h5py
import numpy as np
from ase import units

from alj.types import BadInput

SUFFIXES = (".h5", ".h5md", ".hdf5")

LENGTHS = {"": 1.0, "angstrom": 1.0, "a": 1.0, "å": 1.0, "nm": 10.0, "pm": 0.01, "bohr": units.Bohr}
ENERGIES = {
    "": 1.0,
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": units.Hartree,
    "kcal mol-1": units.kcal / units.mol,
    "kj mol-1": units.kJ / units.mol,
}
_ENERGY_NAMES = ("energy_eV", "energy", "potential_energy")


def holds(path: Path) -> bool:
    """Whether a path is an H5MD file: an HDF5 file with the group `h5md`."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return "h5md" in file
    except OSError:
        return False


def atoms_in(path: Path) -> Iterator[ase.Atoms]:
    """The frames, walk after walk, with `REF_energy` and `REF_forces` where there are any.

    Raises BadInput for what is damaged, and for species and units that say nothing.
    """
    try:
        with h5py.File(path, "r") as file:
            walks: Any = file.get("particles", {})
            found = [name for name in sorted(walks) if "position" in walks[name]]
            if not found:
                raise BadInput(f"{path}: holds no positions; expected particles/*/position")
            for name in found:
                yield from _walk(walks[name], file.get(f"observables/{name}"), f"{path}: {name}")
    except (OSError, KeyError) as error:
        raise BadInput(f"{path}: damaged or no H5MD: {error}") from None


def _walk(group: Any, observables: Any, where: str) -> Iterator[ase.Atoms]:
    element = group["position"]
    positions, step = element["value"], element["step"]
    scale = _unit(positions, LENGTHS, where)
    numbers = _species(group, where)
    pbc = [_text(one) == "periodic" for one in group["box"].attrs["boundary"]]
    cells = _cells(group["box"], len(positions), where)
    forces = _series(group, "force", len(positions))
    energies, energy_unit = _energies(observables, len(positions), where)
    for i in range(len(positions)):
        atoms = ase.Atoms(numbers, scale * np.asarray(positions[i]), cell=cells[i], pbc=pbc)
        atoms.info["walk"] = where.rpartition(" ")[2]
        atoms.info["step"] = int(step[i]) if getattr(step, "ndim", 0) else i
        if "time" in element and getattr(element["time"], "ndim", 0):
            time = float(element["time"][i])
            atoms.info |= {"time_fs": time} if np.isfinite(time) else {}
        if forces is not None and np.isfinite(forces[i]).all():
            atoms.arrays["REF_forces"] = np.asarray(forces[i]) * _of_forces(forces, where)
        if energies is not None and np.isfinite(energies[i]):
            atoms.info["REF_energy"] = float(energies[i]) * energy_unit
        yield atoms


def _species(group: Any, where: str) -> np.ndarray:
    stored: Any = group.get("species")
    if isinstance(stored, h5py.Group):
        series: Any = stored["value"]
        stored = series[0]
    numbers = None if stored is None else np.asarray(stored)
    if (
        numbers is None
        or numbers.dtype.kind not in "iu"
        or not ((numbers > 0) & (numbers < 119)).all()
    ):
        raise BadInput(f"{where}: its species are no atomic numbers; expected 1 to 118")
    return numbers


def _cells(box: Any, frames: int, where: str) -> np.ndarray:
    """Rows of lattice vectors for each frame, in Å."""
    edges = box.get("edges")
    if edges is None:
        return np.zeros((frames, 3, 3))
    changing = isinstance(edges, h5py.Group)
    values = edges["value"] if changing else edges
    array = np.asarray(values, float) * _unit(values, LENGTHS, where)
    array = array if changing else array[None]
    array = np.stack([np.diag(a) for a in array]) if array.ndim == 2 else array
    return np.broadcast_to(array, (frames, 3, 3)) if len(array) == 1 else array


def _series(group: Any, name: str, frames: int) -> Any:
    """A dataset with a row for each frame; None where there is none."""
    found = group.get(f"{name}/value") if group is not None else None
    return found if found is not None and len(found) == frames else None


def _energies(observables: Any, frames: int, where: str) -> tuple[Any, float]:
    for name in _ENERGY_NAMES:
        found = _series(observables, name, frames)
        if found is not None and found.ndim == 1:
            return found, _unit(found, ENERGIES, where)
    return None, 1.0


def _of_forces(forces: Any, where: str) -> float:
    """From `energy length-1` to eV/Å."""
    text = _text(forces.attrs.get("unit", "eV Angstrom-1"))
    energy, _, length = text.replace(" mol-1", "~").rpartition(" ")
    names = energy.replace("~", " mol-1").lower(), length.removesuffix("-1").lower()
    if names[0] not in ENERGIES or names[1] not in LENGTHS:
        raise BadInput(f"{where}: forces are in '{text}'; expected such as 'eV Angstrom-1'")
    return ENERGIES[names[0]] / LENGTHS[names[1]]


def _unit(dataset: Any, known: dict[str, float], where: str) -> float:
    text = _text(dataset.attrs.get("unit", ""))
    if text.lower() not in known:
        raise BadInput(
            f"{where}: unit '{text}' of {dataset.name}; expected one of {', '.join(known)}"
        )
    return known[text.lower()]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
