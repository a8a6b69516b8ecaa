"""Whether forces are the slope of an energy, and finite differences where they are not."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from alj.types import Structure

OWN, CORRECTED, NEITHER = "own", "corrected", "neither"


class Answer(NamedTuple):
    """Of an engine: energy in eV, its forces, and what we believe that they lack, in eV/Å."""

    energy: float
    forces: np.ndarray
    missing: np.ndarray


def verdict(answer: Callable[[Structure], Answer], probes: Sequence[Structure]) -> str:
    """OWN where the engine's forces are right for all probes, CORRECTED where they lack what we
    believe, otherwise NEITHER.
    """
    own = corrected = 0.0
    for probe in probes:
        said = answer(probe)
        error = said.forces - finite_differences(lambda moved: answer(moved).energy, probe)
        own = max(own, np.abs(error).max())
        corrected = max(corrected, np.abs(error + said.missing).max())
    if own < _TOLERANCE_EV_PER_A:
        return OWN
    return CORRECTED if corrected < _TOLERANCE_EV_PER_A else NEITHER


def finite_differences(energy: Callable[[Structure], float], structure: Structure) -> np.ndarray:
    """Forces in eV/Å from central differences of 1e-3 Å, good to about 1e-4 eV/Å.

    Costs six energies for each atom.
    """
    positions = np.array(structure.positions, np.float64)
    forces = np.zeros(positions.shape)
    for place in np.ndindex(*positions.shape):
        sides = []
        for step in (_STEP_A, -_STEP_A):
            moved = positions.copy()
            moved[place] += step
            sides.append(energy(structure._replace(positions=moved)))
        forces[place] = (sides[1] - sides[0]) / (2 * _STEP_A)
    return forces


_STEP_A = 1e-3

_TOLERANCE_EV_PER_A = 5e-4
