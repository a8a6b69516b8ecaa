"""The error indicator of ESOINN-DP: what a committee knows, questions, does not know, or breaks on.

    χ ≤ δ  known,   δ < χ ≤ 2δ  questionable,   χ > 2δ  unknown,   broken where χ is not a number

with χ the largest deviation of a member's force on an atom from the mean
(`potentials.disagreement`) and, for members of target accuracies a_i, δ = √(Σ a_i²) (eq. 16): two
of 0.13 eV/Å give 0.18. These are classes of their own, not the trust levels of
`selection.trust_levels`.

Two things that eq. 16 does not say. The mean of m members has the variance Σσ²/m², not Σσ²; and the
maximum over atoms grows with their number, so that a model which is exactly as good as it should be
is less often "known" the larger the structure is. Hence two other limits: `size_aware_limit`, and
`potentials.disagreement.held_out_limit`, which asks labels that nothing was trained on. Eq. 16 is
the default; the others are settings (`limit`) of `selection.esoinn_quota`, of `alj reduce` and, by
size, of `sampling.temperature_parallel`.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from alj.potentials.combine import member_energies_and_forces
from alj.potentials.disagreement import expected_largest, largest_deviation
from alj.types import BadInput, Context, Neighbors, Potential, Structure

KNOWN, QUESTIONABLE, UNKNOWN, BROKEN = 0, 1, 2, 3
NAMES = ("known", "questionable", "unknown", "broken")


def error_indicator(potential: Potential):
    """χ in eV/Å as a function `(context, structure, neighbors)` of the members' potential."""

    def indicator(context: Context, structure: Structure, neighbors: Neighbors):
        _, forces = member_energies_and_forces(potential, context.params, structure, neighbors)
        return largest_deviation(forces)

    return indicator


def accuracy_limit(accuracies_eV_per_A: Sequence[float]) -> float:
    """δ = √(Σ a_i²) in eV/Å (eq. 16).

    >>> round(accuracy_limit((0.13, 0.13)), 3)
    0.184

    Raises:
        BadInput: an accuracy is not a positive number.
    """
    given = np.asarray(accuracies_eV_per_A, float).reshape(-1)
    if len(given) == 0 or not np.all(np.isfinite(given) & (given > 0)):
        raise BadInput(f"target accuracies: expected positive numbers in eV/Å, found {given}")
    return math.sqrt(float(np.sum(given**2)))


def size_aware_limit(
    accuracy_eV_per_A: float, atoms: int | np.ndarray, members: int, quantile: float = 0.95
) -> Float[np.ndarray, "*structures"]:
    """δ in eV/Å below which χ of n atoms stays, if every member is as accurate as it should be.

    Raises:
        BadInput: fewer than two members, or a probability that is none.
    """
    return np.asarray(expected_largest(accuracy_eV_per_A, atoms, members, quantile))


def judged(
    indicators: Float[np.ndarray, "*structures"], limits: float | Float[np.ndarray, "*structures"]
) -> Int[np.ndarray, "*structures"]:
    """KNOWN, QUESTIONABLE, UNKNOWN or BROKEN for each χ and its δ, both in eV/Å.

    >>> judged(np.array([0.1, 0.3, 0.4, np.nan]), 0.18).tolist()
    [0, 1, 2, 3]
    """
    chi, limits = np.asarray(indicators, float), np.asarray(limits, float)
    level = np.where(chi > 2 * limits, UNKNOWN, np.where(chi > limits, QUESTIONABLE, KNOWN))
    return np.where(np.isfinite(chi), level, BROKEN)
