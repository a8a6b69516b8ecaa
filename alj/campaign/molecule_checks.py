"""What a molecule says of a potential: bonds stretched, vibrations, and whether it holds in MD.

Each check takes ASE atoms and any ASE calculator, so that a potential and its reference go through
the same code.
"""

import tempfile
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from scipy.sparse.csgraph import connected_components

from alj.types import BadInput

_FMAX = 1e-3
_STEPS = 500


def bond_scans(
    atoms: ase.Atoms,
    calculator: Any,
    *,
    shortest: float = 0.8,
    longest: float = 1.5,
    points: int = 15,
    most: int = 6,
) -> dict[str, Any]:
    """Energy along rigid stretches of bonds: one of each kind, no rings.

    Args:
        shortest: length to begin with, in units of the relaxed one.
        longest: length to end with.
        points: of each scan.
        most: bonds at most.
    """
    start = relaxed_molecule(atoms, calculator)
    scans = {}
    for name, (i, j), group in _bonds(start)[:most]:
        axis = start.positions[j] - start.positions[i]
        length = float(np.linalg.norm(axis))
        lengths, energies = length * np.linspace(shortest, longest, points), []
        for each in lengths:
            moved = start.copy()
            moved.positions[group] += (each - length) * axis / length
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        low = start_energy(start, calculator)
        scans[name] = {
            "relaxed_A": length,
            "length_A": lengths.tolist(),
            "energy_eV": (np.array(energies) - low).tolist(),
        }
    if not scans:
        raise BadInput("no bond to stretch outside of rings")
    return {
        "deepest_below_minimum_eV": float(min(min(s["energy_eV"]) for s in scans.values())),
        "scans": scans,
    }


def vibrations(
    atoms: ase.Atoms, calculator: Any, *, displacement_A: float = 0.01
) -> dict[str, Any]:
    """Wavenumbers of the relaxed molecule by finite differences; imaginary ones are negative.

    Args:
        displacement_A: of each atom, up and down, in Å.
    """
    start = relaxed_molecule(atoms, calculator)
    start.calc = calculator
    with tempfile.TemporaryDirectory() as folder:
        found = Vibrations(start, name=str(Path(folder) / "vibrations"), delta=displacement_A)
        found.run()
        energies: Any = found.get_energies()
    wavenumbers = np.where(energies.imag > 0, -energies.imag, energies.real) / units.invcm
    # Translations and rotations, whose wavenumbers are noise about zero.
    zero = 3 if len(atoms) == 1 else 5 if _linear(start) else 6
    order = np.argsort(np.abs(wavenumbers))
    kept = np.sort(wavenumbers[order[zero:]])
    return {
        "wavenumber_per_cm": kept.tolist(),
        "lowest_per_cm": float(kept[0]) if len(kept) else None,
        "highest_per_cm": float(kept[-1]) if len(kept) else None,
        "zero_point_energy_eV": float(0.5 * units.invcm * kept[kept > 0].sum()),
    }


def stability(
    atoms: ase.Atoms,
    calculator: Any,
    *,
    temperature_K: float = 500.0,
    steps: int = 2000,
    timestep_fs: float = 0.5,
    frames: int = 10,
    longest: float = 1.5,
    seed: int = 0,
) -> dict[str, Any]:
    """Langevin dynamics: how long the bonds hold; frames to be shown to the reference.

    Args:
        temperature_K: of the bath, in K.
        steps: of the dynamics.
        timestep_fs: of each step, in fs.
        frames: so many are kept.
        longest: a bond longer than this, in units of its relaxed length, is broken.
        seed: of velocities and bath.
    """
    start = relaxed_molecule(atoms, calculator)
    pairs = _pairs(start)
    relaxed = start.get_all_distances()[tuple(pairs.T)]
    start.calc = calculator
    rng = np.random.default_rng(seed)
    scale = np.sqrt(units.kB * temperature_K * start.get_masses())[:, None]
    start.set_momenta(scale * rng.normal(size=(len(start), 3)))
    dynamics = Langevin(
        start, timestep_fs * units.fs, temperature_K=temperature_K, friction=0.01 / units.fs,
        rng=rng, fixcm=False,
    )  # fmt: skip
    every, held, kept, stretch = max(1, steps // frames), 0, [], 0.0
    for step in range(steps):
        dynamics.run(1)
        now = float(np.max(start.get_all_distances()[tuple(pairs.T)] / relaxed, initial=0.0))
        stretch = max(stretch, now)
        if not np.isfinite(start.positions).all() or now > longest:
            break
        held = step + 1
        if held % every == 0:
            kept.append(start.copy())
    return {
        "held_ps": held * timestep_fs / 1000,
        "of_ps": steps * timestep_fs / 1000,
        "largest_stretch": stretch,
        "frames": kept,
    }


def relaxed_molecule(atoms: ase.Atoms, calculator: Any) -> ase.Atoms:
    """Positions at rest, without the calculator. Raises BadInput where it does not end."""
    moved = atoms.copy()
    moved.calc = calculator
    if not BFGS(moved, logfile=None).run(fmax=_FMAX, steps=_STEPS):
        raise BadInput(f"the molecule does not come to rest within {_STEPS} steps")
    moved.calc = None
    return moved


def start_energy(atoms: ase.Atoms, calculator: Any) -> float:
    """Energy in eV of atoms as they are."""
    here = atoms.copy()
    here.calc = calculator
    return float(here.get_potential_energy())


def _pairs(atoms: ase.Atoms) -> np.ndarray:
    """Bonded pairs by covalent radii, (bonds, 2)."""
    found = build_neighbor_list(atoms, _radii(atoms), bothways=False, self_interaction=False)
    pairs = [(i, int(j)) for i in range(len(atoms)) for j in found.get_neighbors(i)[0]]
    return np.array(sorted(pairs), int).reshape(-1, 2)


def _radii(atoms: ase.Atoms) -> list[float]:
    """Covalent radii, with the room that a stretched bond needs."""
    return [1.15 * radius for radius in natural_cutoffs(atoms)]


def _bonds(atoms: ase.Atoms) -> list[tuple[str, tuple[int, int], np.ndarray]]:
    """One bond of each kind (elements and their numbers of neighbors), and the side that moves."""
    pairs = _pairs(atoms)
    table = np.zeros((len(atoms), len(atoms)), int)
    table[tuple(pairs.T)] = table[tuple(pairs.T[::-1])] = 1
    degrees, seen, bonds = table.sum(axis=1), set(), []
    for i, j in pairs.tolist():
        kind = tuple(sorted((atoms.symbols[k], int(degrees[k])) for k in (i, j)))
        cut = table.copy()
        cut[i, j] = cut[j, i] = 0
        _, part = connected_components(cut, directed=False)
        if kind in seen or part[i] == part[j]:
            continue
        seen.add(kind)
        name = f"{atoms.symbols[i]}{i}-{atoms.symbols[j]}{j}"
        bonds.append((name, (i, j), np.flatnonzero(part == part[j])))
    return bonds


def _linear(atoms: ase.Atoms) -> bool:
    centered = atoms.positions - atoms.positions.mean(axis=0)
    values = np.linalg.svd(centered, compute_uv=False)
    return bool(len(atoms) == 2 or values[1] < 1e-2 * values[0])
