"""What an engine shows of itself before a campaign believes it: slopes, order, memory, units.

It uses nothing but `label`, so it tests what a campaign will use, fallbacks and limits included.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ase
import numpy as np
from ase.build import bulk, molecule

from alj.types import Labeler, LabelingFailed, Labels, Structure


class Check(NamedTuple):
    """One check: `number` is how far the engine is off, `limit` how far it may be.

    A check of what could not be computed has NaN as its number, and a `reason`.
    """

    check: str
    passed: bool
    number: float
    limit: float
    reason: str = ""


def self_test(labeler: Labeler, structure: Structure | None = None) -> list[Check]:
    """About 20 labels of a small molecule, and as many of a crystal where the engine takes cells.

    Forces (and the stress) are compared with differences of the energy; labels with those of the
    same atoms in another order, and again after another structure; bond length, stretching
    frequency and dipole of water with measured ones, to tell wrong units from rough methods.
    `structure` replaces the test structures, but for the units.
    """
    engine = getattr(labeler, "engine", None)
    groups = [{"your structure": structure}] if structure is not None else _test_structures(engine)
    checks: list[Check] = []
    failure = "it knows neither H and O nor the elements of a test crystal"
    for group in groups:
        for name, one in group.items():
            try:
                labels = labeler.label(one)
            except LabelingFailed as failed:
                failure = str(failed)
                continue
            checks += _of_structure(labeler, name, one, labels)
            break
    if not checks:
        checks.append(Check("labels a structure", False, np.nan, 0.0, failure))
    if getattr(engine, "electrons", False) and _knows(engine, (1, 8)):
        checks += _of_water(labeler)
    return checks


_STEP_A = 4e-3
_DIRECTIONS = 3
_OH_A, _HOH_DEGREES, _STRETCH_PER_CM, _DIPOLE_EA = 0.9572, 104.52, 3832.0, 0.3861
"""Of water; the frequency is the harmonic one of the symmetric stretch. W. S. Benedict, N. Gailar,
E. K. Plyler, J. Chem. Phys. 24, 1139 (1956), doi 10.1063/1.1742731; dipole: S. A. Clough et al.,
J. Chem. Phys. 59, 2254 (1973), doi 10.1063/1.1680328."""

_PER_CM = 521.4709
"""1/cm of an oscillator with 1 eV/Å^2 and 1 amu."""


def _test_structures(engine) -> list[dict[str, Structure]]:
    """Molecules, and compressed crystals where it takes cells; one of each that it labels does."""
    molecules = {"water": molecule("H2O"), "N2": molecule("N2"), "methane": molecule("CH4")}
    crystals = {
        "NaCl crystal": bulk("NaCl", "rocksalt", 5.45),
        "Si crystal": bulk("Si", "diamond", 5.25),
        "Cu crystal": bulk("Cu", "fcc", 3.5, cubic=True),
    }
    groups = [molecules, crystals] if getattr(engine, "periodic", True) else [molecules]
    rng, found = np.random.default_rng(1), []
    for group in groups:
        for atoms in group.values():
            atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
        known = {name: _structure(a) for name, a in group.items() if _knows(engine, a.numbers)}
        found.append(known)
    return found


def _knows(engine, numbers) -> bool:
    known = getattr(engine, "elements", ())
    return not known or set(map(int, numbers)) <= set(known)


def _structure(atoms: ase.Atoms) -> Structure:
    fields: dict[str, Any] = {
        "positions": np.array(atoms.positions),
        "species": np.asarray(atoms.numbers, np.int32),
        "cell": np.array(atoms.cell.array),
        "charge": np.asarray(0, np.int32),
        "multiplicity": np.asarray(0, np.int32),
    }
    return Structure(**fields)


def _of_structure(labeler: Labeler, name: str, one: Structure, labels: Labels) -> list[Check]:
    """What must hold of any structure."""
    found = _guarded(f"forces of {name} (eV/Å off)", 0.01, _slopes, labeler, one, labels)
    if np.isfinite(labels.stress).all():
        found += _guarded(f"stress of {name} (eV/Å^3 off)", 1e-3, _strains, labeler, one, labels)
    found += _guarded(
        f"order of the atoms of {name} (eV, eV/Å)", 1e-3, _reordered, labeler, one, labels
    )
    found += _guarded(
        f"memory of other structures, {name} (eV, eV/Å)", 1e-5, _remembers, labeler, one, labels
    )
    return found


def _guarded(check: str, limit: float, measure: Callable[..., float], *arguments) -> list[Check]:
    """One check; a structure that cannot be labeled fails it."""
    try:
        number = float(measure(*arguments))
    except LabelingFailed as failure:
        return [Check(check, False, np.nan, limit, str(failure))]
    return [Check(check, bool(number <= limit), number, limit)]


def _slope(energy: Callable[[float], float]) -> float:
    """Derivative from four points; its error goes with the fourth power of the step."""
    far, near = energy(2 * _STEP_A) - energy(-2 * _STEP_A), energy(_STEP_A) - energy(-_STEP_A)
    return (8 * near - far) / (12 * _STEP_A)


def _slopes(labeler: Labeler, one: Structure, labels: Labels) -> float:
    """Largest error of the forces along random directions in which all atoms move."""
    rng, errors = np.random.default_rng(2), []
    for _ in range(_DIRECTIONS):
        direction = rng.normal(size=one.positions.shape)
        direction /= np.linalg.norm(direction)

        def energy(step, direction=direction):
            moved = np.asarray(one.positions) + step * direction
            return float(labeler.label(one._replace(positions=moved)).energy)

        errors.append(abs(_slope(energy) + np.sum(direction * np.asarray(labels.forces))))
    return max(errors)


def _strains(labeler: Labeler, one: Structure, labels: Labels) -> float:
    """Error of the stress along one strain in which every element takes part."""
    noise = np.random.default_rng(3).normal(size=(3, 3))
    strain = (noise + noise.T) / np.linalg.norm(noise + noise.T)

    def energy(step):
        deform = np.eye(3) + step * strain
        strained = {"positions": one.positions @ deform, "cell": one.cell @ deform}
        return float(labeler.label(one._replace(**strained)).energy)

    volume = abs(np.linalg.det(np.asarray(one.cell)))
    return abs(_slope(energy) / volume - np.sum(strain * np.asarray(labels.stress)))


def _reordered(labeler: Labeler, one: Structure, labels: Labels) -> float:
    """Largest change of energy or forces with the atoms in reverse."""
    turned = one._replace(positions=one.positions[::-1], species=one.species[::-1])
    found = labeler.label(turned)
    return _change(labels, found._replace(forces=np.asarray(found.forces)[::-1]))


def _remembers(labeler: Labeler, one: Structure, labels: Labels) -> float:
    """Largest change of energy or forces after a label of another structure."""
    noise = np.random.default_rng(4).normal(scale=0.05, size=one.positions.shape)
    labeler.label(one._replace(positions=np.asarray(one.positions) + noise))
    return _change(labels, labeler.label(one))


def _change(labels: Labels, others: Labels) -> float:
    forces = np.abs(np.asarray(labels.forces) - np.asarray(others.forces)).max()
    return max(float(forces), abs(float(labels.energy) - float(others.energy)))


def _of_water(labeler: Labeler) -> list[Check]:
    """Length, frequency and dipole of a water molecule that is stretched symmetrically."""
    names = ("O–H bond of water (Å off)", "O–H stretch of water (fraction off)")
    limits = (0.08, 0.5)
    lengths = np.array([_OH_A - 0.02, _OH_A + 0.02])
    try:
        stretched = [labeler.label(_water(length)) for length in lengths]
    except LabelingFailed as failure:
        return [
            Check(name, False, np.nan, limit, str(failure))
            for name, limit in zip(names, limits, strict=True)
        ]
    bonds = _water(1.0).positions[1:]
    pulls = [float(np.sum(bonds * np.asarray(labels.forces)[1:])) / 2 for labels in stretched]
    stiffness = (pulls[0] - pulls[1]) / (lengths[1] - lengths[0])
    best = lengths.mean() + np.mean(pulls) / stiffness if stiffness else np.nan
    half = np.radians(_HOH_DEGREES) / 2
    inverse_mass = 1 / 1.00783 + 2 * np.cos(half) ** 2 / 15.9949
    frequency = _PER_CM * np.sqrt(max(stiffness, 0.0) * inverse_mass)
    found = [abs(best - _OH_A), abs(frequency / _STRETCH_PER_CM - 1)]
    middle = stretched[0]
    if np.isfinite(middle.dipole).all():
        names, limits = (*names, "dipole of water (fraction off)"), (*limits, 0.8)
        along = bonds.sum(axis=0) / np.linalg.norm(bonds.sum(axis=0))
        found.append(np.linalg.norm(np.asarray(middle.dipole) / _DIPOLE_EA - along))
    if np.isfinite(middle.charges).all():
        names, limits = (*names, "sum of the charges of water (e)"), (*limits, 1e-3)
        found.append(abs(float(np.sum(middle.charges))))
    return [
        Check(name, bool(number <= limit), float(number), limit)
        for name, limit, number in zip(names, limits, found, strict=True)
    ]


def _water(length_A: float) -> Structure:
    """Oxygen first, in the origin."""
    half = np.radians(_HOH_DEGREES) / 2
    x, z = length_A * np.sin(half), length_A * np.cos(half)
    return _structure(ase.Atoms("OH2", [(0.0, 0.0, 0.0), (x, 0.0, z), (-x, 0.0, z)]))
