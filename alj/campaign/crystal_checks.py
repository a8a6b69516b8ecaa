"""What a crystal says of a potential: equation of state, elastic constants, phonons, vacancy.

Each check takes ASE atoms and any ASE calculator, so that a potential and its reference go through
the same code. Cells and positions are relaxed by the calculator that is judged.
"""

import tempfile
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import units
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.phonons import Phonons

from alj.analysis.elasticity import elastic_matrix, moduli, strain_matrix
from alj.types import BadInput

_FMAX = 1e-3
_STEPS = 300
TERAHERTZ = units._hplanck / units._e * 1e12
"""eV of a quantum of 1 THz."""


def equation_of_state(
    atoms: ase.Atoms, calculator: Any, *, range_percent: float = 6.0, points: int = 9
) -> dict[str, Any]:
    """Energy over volume, fitted by Birch and Murnaghan (Phys. Rev. 71, 809 (1947)).

    Args:
        range_percent: the volume goes so far up and down from the relaxed one.
        points: volumes in all, at least 5.
    """
    if points < 5:
        raise BadInput(f"points: expected at least 5, found {points}")
    start = relaxed_crystal(atoms, calculator)
    scales = np.linspace(1 - range_percent / 100, 1 + range_percent / 100, points)
    volumes, energies = scales * start.get_volume(), []
    for scale in scales:
        strained = start.copy()
        strained.set_cell(start.cell.array * scale ** (1 / 3), scale_atoms=True)
        energies.append(_relaxed(strained, calculator).get_potential_energy())
    count = len(start)
    fit = EquationOfState(volumes / count, np.array(energies) / count, eos="birchmurnaghan")
    volume, energy, bulk = fit.fit()
    return {
        "volume_A3_per_atom": float(volume),
        "energy_eV_per_atom": float(energy),
        "bulk_modulus_GPa": float(bulk / units.GPa),
        "cell_A": start.cell.cellpar().tolist(),
        "curve": {
            "volume_A3_per_atom": (volumes / count).tolist(),
            "energy_eV_per_atom": (np.array(energies) / count).tolist(),
        },
    }


def elastic_constants(
    atoms: ase.Atoms, calculator: Any, *, strain: float = 0.004
) -> dict[str, Any]:
    """The elastic matrix from stresses of six strains up and down, atoms relaxed in each.

    Args:
        strain: size of each strain.
    """
    if not 0 < strain < 0.1:
        raise BadInput(f"strain: expected 0 to 0.1, found {strain}")
    start = relaxed_crystal(atoms, calculator)
    sides = []
    for sign in (1, -1):
        stresses = []
        for index in range(6):
            strained = start.copy()
            deform = np.eye(3) + strain_matrix(index, sign * strain)
            strained.set_cell(start.cell.array @ deform, scale_atoms=True)
            stresses.append(_relaxed(strained, calculator).get_stress())
        sides.append(np.array(stresses))
    constants = elastic_matrix(sides[0], sides[1], strain) / units.GPa
    found = {f"{name}_GPa": value for name, value in moduli(constants).items()}
    named = {f"C{i + 1}{j + 1}_GPa": float(constants[i, j]) for i, j in ((0, 0), (0, 1), (3, 3))}
    return {**named, **found, "matrix_GPa": constants.tolist()}


def phonons(
    atoms: ase.Atoms,
    calculator: Any,
    *,
    length_A: float = 10.0,
    displacement_A: float = 0.01,
    points: int = 60,
) -> dict[str, Any]:
    """Dispersion along the path of the Bravais lattice, from finite displacements in a supercell.

    Args:
        length_A: the cell is repeated to at least this length in each direction, in Å.
        displacement_A: of each atom, up and down, in Å.
        points: wave vectors along the path.
    """
    start = relaxed_crystal(atoms, calculator)
    repeats = _repeats(start, length_A)
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder) / "phonons"
        found = Phonons(start, calculator, repeats, name=name, delta=displacement_A)
        found.run()
        found.read(acoustic=True)
    path = start.cell.bandpath(npoints=points)
    bands = np.asarray(found.band_structure(path.kpts)) / TERAHERTZ
    distances, ticks, labels = path.get_linear_kpoint_axis()
    return {
        "highest_THz": float(bands.max()),
        "lowest_THz": float(bands.min()),
        "supercell": list(repeats),
        "bands": {
            "distance": distances.tolist(), "frequency_THz": bands.tolist(),
            "ticks": ticks.tolist(), "labels": list(labels),
        },
    }  # fmt: skip


def vacancy(atoms: ase.Atoms, calculator: Any, *, length_A: float = 10.0) -> dict[str, Any]:
    """Energy to take an atom of an elemental crystal away: E(N-1) - (N-1)/N E(N), relaxed.

    Args:
        length_A: the cell is repeated to at least this length in each direction, in Å.
    """
    if len(set(atoms.numbers)) > 1:
        raise BadInput("a vacancy is judged in crystals of one element only")
    start = relaxed_crystal(atoms, calculator)
    whole = start.repeat(_repeats(start, length_A))
    whole.calc = calculator
    perfect, count = whole.get_potential_energy(), len(whole)
    del whole[0]
    whole.calc = calculator
    rigid = whole.get_potential_energy() - (count - 1) / count * perfect
    relaxed = _relaxed(whole, calculator).get_potential_energy() - (count - 1) / count * perfect
    return {
        "formation_energy_eV": float(relaxed),
        "unrelaxed_eV": float(rigid),
        "atoms": count - 1,
    }


def relaxed_crystal(atoms: ase.Atoms, calculator: Any) -> ase.Atoms:
    """Positions and cell at rest, without the calculator. Raises BadInput where it does not end."""
    moved = atoms.copy()
    moved.calc = calculator
    optimizer = BFGS(FrechetCellFilter(moved), logfile=None)  # type: ignore[arg-type]
    if not optimizer.run(fmax=_FMAX, steps=_STEPS):
        raise BadInput(f"the cell does not come to rest within {_STEPS} steps")
    moved.calc = None
    return moved


def _relaxed(atoms: ase.Atoms, calculator: Any) -> ase.Atoms:
    """Positions at rest in the cell that is given."""
    atoms.calc = calculator
    if not BFGS(atoms, logfile=None).run(fmax=_FMAX, steps=_STEPS):
        raise BadInput(f"the atoms do not come to rest within {_STEPS} steps")
    return atoms


def _repeats(atoms: ase.Atoms, length_A: float) -> tuple[int, int, int]:
    a, b, c = (max(1, int(np.ceil(length_A / length))) for length in atoms.cell.lengths())
    return a, b, c
