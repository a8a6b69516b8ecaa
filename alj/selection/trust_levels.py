"""Choice between two trust levels of the force spread, as in concurrent learning (DP-GEN).

The largest spread of any atom's force, x = max_i ‖std F_i‖, sorts the candidates:

    accurate: x < low        known already
    candidate: low ≤ x < high    worth a label
    failed: x ≥ high         too far out, often unphysical; also where x is not a number

L. Zhang, D.-Y. Lin, H. Wang, R. Car, W. E, Phys. Rev. Materials 3, 023804 (2019),
doi 10.1103/PhysRevMaterials.3.023804; Y. Zhang et al., Comput. Phys. Commun. 253, 107206 (2020),
doi 10.1016/j.cpc.2020.107206. There the standard deviation divides by the number of members, here
by one less (a factor of √(4/3) for four). Automatic levels are ours, not the papers'.
"""

import math
from typing import Literal

import jax
import numpy as np

from alj.selection.shares import padded
from alj.types import BadInput, Evidence, Key, Selector

KNOWN_QUANTILE = 0.95
"""The automatic lower level: what this share of the training set stays below."""

HIGH_OVER_LOW = 4.0
"""The automatic upper level is at least this multiple of the lower one."""


def trust_levels(
    *,
    count: int = 10,
    low_eV_per_A: float | None = None,
    high_eV_per_A: float | None = None,
    prefer: Literal["random", "largest"] = "random",
) -> Selector:
    """Candidates whose force spread lies between two trust levels; fewer where fewer do.

    Automatic levels follow the committee from round to round. The lower one is the 95 % quantile
    of the same spread over the training set: below it a structure is as well known as what was
    learned. The upper one is 4 times that, or the median of the pool where this is more: a
    committee of the first rounds agrees on little beyond its data, and must not stop learning.

    Args:
        count: Structures chosen in a round, at most.
        low_eV_per_A: Lower trust level, below which a candidate counts as accurate; null:
            automatic.
        high_eV_per_A: Upper trust level, from which on it counts as failed and is never chosen;
            null: automatic.
        prefer: Among those in between, "random" ones or those of the "largest" spread.

    Raises:
        BadInput: the levels are not 0 < low < high.
    """
    given = [level for level in (low_eV_per_A, high_eV_per_A) if level is not None]
    if not all(0 < x < math.inf for x in given) or sorted(set(given)) != given:
        raise BadInput(
            "expected 0 < low_eV_per_A < high_eV_per_A (null: automatic), "
            f"found {low_eV_per_A} and {high_eV_per_A}"
        )

    def levels(evidence: Evidence) -> tuple[np.ndarray, float, float]:
        spread = _largest(evidence.force_spread)
        known = None if low_eV_per_A is not None else _largest(evidence.known_force_spread)
        low, high = _levels(spread, known, low_eV_per_A, high_eV_per_A)
        return spread, low, high

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        spread, low, high = levels(evidence)
        between = np.flatnonzero((spread >= low) & (spread < high))
        # Sorted, so that the choice does not depend on the order of the pool.
        between = between[np.argsort(-spread[between], kind="stable")]
        if prefer == "random":
            between = between[np.asarray(jax.random.permutation(key, len(between)))]
        return padded(between, count)

    def report(evidence: Evidence) -> dict:
        spread, low, high = levels(evidence)
        level = np.digitize(spread, (low, high))
        shares = np.bincount(level, minlength=3) / max(len(level), 1)
        named = dict(zip(("accurate", "candidate", "failed"), shares.tolist(), strict=True))
        return {**named, "low_eV_per_A": low, "high_eV_per_A": high}

    needs = ("force_spread", *(("known_force_spread",) if low_eV_per_A is None else ()))
    return Selector(choose, needs, count, report)


def _largest(spreads) -> np.ndarray:
    """The largest spread of any atom of each structure; infinite where one is not a number."""
    spreads = np.asarray(spreads, float)
    largest = np.max(spreads, axis=1, initial=0.0) if spreads.size else np.zeros(len(spreads))
    return np.where(np.isfinite(largest), largest, np.inf)


def _levels(spread, known, low, high) -> tuple[float, float]:
    """The levels given, and what is automatic in place of those that are not."""
    if low is None:
        known = known[np.isfinite(known)]
        low = float(np.quantile(known, KNOWN_QUANTILE)) if len(known) else 0.0
        low = low if high is None else min(low, high / HIGH_OVER_LOW)
    if high is None:
        # Just above the median, so that a pool of one has a candidate.
        finite = spread[np.isfinite(spread)]
        middle = float(np.nextafter(np.median(finite), np.inf)) if len(finite) else 0.0
        high = max(HIGH_OVER_LOW * low, middle)
    return low, high
