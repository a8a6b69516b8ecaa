"""How far the members of a committee lie from their mean: the measure, and what chance gives.

    χ = max_i max_j ‖F_i(j) - F̄(j)‖,   F̄ = (1/m) Σ_i F_i

over the m members i and the atoms j (ESOINN-DP, eq. 15). Members whose force components err
independently and normally by a deviate from their mean by a √(1 - 1/m) in each component, so that
of n atoms

    P(χ ≤ x) ≥ [P₃(x / (a √(1 - 1/m)))]^k,   k = n for m = 2, n m beyond,

with P₃ the distribution of the length of three normal numbers. For two members, whose deviations
are equal and opposite, it is an equality; else the bound of Z. Šidák, J. Am. Stat. Assoc. 62, 626
(1967), doi:10.1080/01621459.1967.10482935, which is nearly met. So χ grows with the number of
atoms although nothing is predicted worse.
"""

import math

import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

from alj.types import BadInput


def largest_deviation(forces: Float[Array, "members atoms 3"]) -> Float[Array, ""]:
    """χ in eV/Å of the members' forces; 0 of padded atoms, NaN where a force is not a number."""
    squares = jnp.sum((forces - jnp.mean(forces, axis=0, keepdims=True)) ** 2, axis=-1)
    return jnp.sqrt(jnp.max(squares))


def expected_largest(
    accuracy: float, atoms: int | np.ndarray, members: int, quantile: float = 0.95
) -> np.ndarray:
    """What χ stays below with a probability of `quantile`, where every member errs as it may.

    Args:
        accuracy: Root mean square error a of the force components of a member, in eV/Å.
        atoms: Number of atoms n, or an array of them.
        members: Number of members m.
        quantile: The probability.

    Raises:
        BadInput: fewer than two members, or a probability that is none.

    >>> expected_largest(0.13, np.array([3, 27]), 2).round(3).tolist()
    [0.294, 0.355]
    """
    if members < 2 or not 0 < quantile < 1 or not accuracy > 0:
        raise BadInput(
            "expected a positive accuracy, at least two members and a quantile between 0 and 1; "
            f"found {accuracy}, {members} and {quantile}"
        )
    count = np.maximum(np.asarray(atoms), 1) * (1 if members == 2 else members)
    width = accuracy * math.sqrt(1.0 - 1.0 / members)
    return np.asarray(width * scipy.stats.chi.ppf(quantile ** (1 / count), 3))


def held_out_limit(
    indicators: Float[np.ndarray, " structures"],
    errors: Float[np.ndarray, " structures"],
    tolerance_eV_per_A: float,
    coverage: float = 0.9,
) -> float:
    """The largest δ of which held-out labels say: of those with χ ≤ δ, enough err little.

    `errors` are the largest force errors of structures that nothing was trained on; `coverage` of
    those that count as known shall lie below the tolerance. Of n known ones a share of at least
    (n + 1) / n of it is asked for, as in conformal prediction. 0 where no δ does.

    >>> held_out_limit(np.arange(1.0, 21.0), np.arange(1.0, 21.0), 15.0, 0.75)
    19.0

    Raises:
        BadInput: arrays of different length, or none.
    """
    chi, found = np.asarray(indicators, float), np.asarray(errors, float)
    if chi.shape != found.shape or chi.ndim != 1 or len(chi) == 0:
        raise BadInput(
            f"held-out limit: expected one error for each indicator, found {found.shape} and "
            f"{chi.shape}"
        )
    order = np.argsort(chi, kind="stable")
    below = np.cumsum(found[order] <= tolerance_eV_per_A)
    counts = np.arange(1, len(chi) + 1)
    good = np.flatnonzero((below >= np.ceil((counts + 1) * coverage)) & np.isfinite(chi[order]))
    return float(chi[order][good[-1]]) if len(good) else 0.0


def fewest_held_out(coverage: float) -> int:
    """How many held-out structures it takes before any limit has this coverage.

    >>> fewest_held_out(0.9), fewest_held_out(0.75)
    (9, 3)
    """
    if not 0 < coverage < 1:
        raise BadInput(f"coverage: expected a number between 0 and 1, found {coverage}")
    return math.ceil(round(coverage / (1.0 - coverage), 9))
