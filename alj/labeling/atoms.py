"""Between `Structure` and what engines of the ASE world read and answer."""

from collections.abc import Mapping
from typing import Any

import ase
import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from alj.labeling.engine import labels_of
from alj.types import Labels, Structure


def atoms_of(structure: Structure, multiplicity: int = 0) -> ase.Atoms:
    """ASE atoms; total charge and multiplicity are in `info` (`charge`, `multiplicity`, where it
    is known) and as initial charge and magnetic moment on the first atom.
    """
    cell = np.asarray(structure.cell, np.float64)
    atoms = ase.Atoms(
        np.asarray(structure.species),
        np.asarray(structure.positions, np.float64),
        cell=cell,
        pbc=cell.any(axis=1),
    )
    charge = int(structure.charge)
    atoms.info["charge"] = charge
    if charge:
        atoms.set_initial_charges([charge] + [0] * (len(atoms) - 1))
    if multiplicity:
        atoms.info["multiplicity"] = multiplicity
        if multiplicity > 1:
            atoms.set_initial_magnetic_moments([multiplicity - 1] + [0] * (len(atoms) - 1))
    return atoms


def labels_from(results: Mapping[str, Any], structure: Structure) -> Labels:
    """Labels from a calculator's `results` (eV, eV/Å, eV/Å^3, e Å, e); raises KeyError without
    energy or forces. The stress of what is not periodic in all directions is left out.
    """
    stress = results.get("stress") if np.asarray(structure.cell).any(axis=1).all() else None
    if stress is not None and np.shape(stress) == (6,):
        stress = voigt_6_to_full_3x3_stress(stress)
    return labels_of(
        len(structure.species),
        results["energy"],
        results["forces"],
        stress=stress,
        dipole=results.get("dipole"),
        charges=results.get("charges"),
    )
