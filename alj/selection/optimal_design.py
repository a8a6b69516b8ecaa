"""Optimal experimental design: structures that shrink the variance of what a network predicts.

The last layer of a trained network is a linear regression with features g. Its Fisher information
A = Σ g gᵀ + λ I gives every candidate the variance q = gᵀ A⁻¹ g in units of the noise of the
labels, and labeling it changes the mean variance over the training set in proportion to
q / (1 + q), which grows with q. Three strategies rank by it: QS1 with the features of the energy,
QS2 with those of the forces, averaged over their components, and QS3 = QS1 + β QS2.
V. Zaverkin, J. Kästner, Mach. Learn.: Sci. Technol. 2, 035009 (2021), doi:10.1088/2632-2153/abe294,
after D. A. Cohn, Neural Netw. 9, 1071 (1996), doi:10.1016/0893-6080(95)00137-9.

Ranked once, near-duplicates are chosen together. Greedy D-optimal design takes one after the other
and lets A gain g* g*ᵀ of what it chose, so that q ← q − (gᵀ A⁻¹ g*)² / (1 + q*), and log det A
grows by log(1 + q*), the most that any one can add. V. V. Fedorov, Theory of Optimal Experiments,
Academic Press (1972).
"""

from typing import Literal

import numpy as np

from alj.selection import feature_space
from alj.selection.feature_space import Features
from alj.selection.lazy_greedy import lazy_greedy
from alj.selection.shares import even_shares, padded
from alj.types import BadInput, Evidence, Key, Selector

Estimate = Literal["exact", "largest", "sketched"]
Threshold = Literal["none", "median", "mean"]


def qs1(*, count: int = 10, threshold: Threshold = "none") -> Selector:
    """The candidates of the largest variance of the energy, all from one ranking.

    Args:
        count: Structures chosen in a round.
        threshold: Choose only what varies more than the "median" or "mean" of the training set.
    """
    return _ranking({"qs1": 1.0}, count, threshold)


def qs2(
    *, count: int = 10, estimate: Estimate = "exact", threshold: Threshold = "none"
) -> Selector:
    """The candidates of the largest mean variance of the force components, from one ranking.

    Args:
        count: Structures chosen in a round.
        estimate: The variances "exact", their "largest" instead of their mean over components, or
            "sketched" along random directions at less cost.
        threshold: Choose only what varies more than the "median" or "mean" of the training set.
    """
    return _ranking({_forces(estimate): 1.0}, count, threshold)


def qs3(
    *,
    count: int = 10,
    beta: float = 1.5,
    estimate: Estimate = "exact",
    threshold: Threshold = "none",
) -> Selector:
    """The candidates of the largest QS1 + β QS2: variances of energy and forces, one ranking.

    Args:
        count: Structures chosen in a round.
        beta: Weight of the forces (the paper: 1.5 for ethanol, 4.6 for nitrogen on ice).
        estimate: The variances of forces "exact", their "largest" instead of their mean, or
            "sketched" at less cost.
        threshold: Choose only what varies more than the "median" or "mean" of the training set.

    Raises:
        BadInput: beta is negative.
    """
    if not beta >= 0:
        raise BadInput(f"beta: expected at least 0, found {beta}")
    # Eq. 22 adds saturated terms; a sketch knows the numerators only.
    of_energy = "qs1" if estimate == "sketched" else "qs1_saturated"
    return _ranking({of_energy: 1.0, _forces(estimate): beta}, count, threshold)


def d_optimal(
    *,
    count: int = 10,
    prior: float = 1e-6,
    balanced: bool = False,
    features: Features = "last_layer",
) -> Selector:
    """Candidates that shrink the posterior variance of the energy the most, one after the other.

    Each is chosen with all before it, and the training set, counted as known: duplicates of what
    was chosen have no variance left. Of equal ones the first is taken. Candidates whose features
    are not finite numbers come last.

    Args:
        count: Structures chosen in a round.
        prior: λ in units of the mean diagonal of Σ g gᵀ over training set and candidates.
        balanced: Whether every sampler gets the same share of the choice.
        features: Gradients of the energy per atom with respect to the weights of the
            "last_layer", or of all layers ("gradient", projected at random).

    Raises:
        BadInput: the prior is not positive; training features are not finite (when choosing).
    """
    if not prior > 0:
        raise BadInput(f"prior: expected a positive number, found {prior}")

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        pool, known = feature_space.fetch(evidence, features)
        norms = feature_space.squared_norms(pool)
        measurable = np.isfinite(norms)
        groups = np.asarray(evidence.samplers) if balanced else np.zeros(len(pool), int)
        names, groups = np.unique(groups, return_inverse=True)
        shares = even_shares(count, np.bincount(groups[measurable], minlength=len(names)))
        matrix = feature_space.information(known, norms, prior)
        chosen = _greedy(pool, matrix, measurable, groups, shares)
        return padded(feature_space.with_the_rest(chosen, measurable, count), count)

    def report(evidence: Evidence) -> dict:
        pool, _ = feature_space.fetch(evidence, features)
        norms = feature_space.squared_norms(pool)
        return {"not_finite": float(np.sum(~np.isfinite(norms)))}

    return Selector(choose, (*feature_space.fields(features), "samplers"), count, report)


def _greedy(pool, matrix, measurable, groups, shares) -> list[int]:
    """Picks of the largest variance, `matrix` gaining each of them."""
    lower = feature_space.factor(matrix)
    bounds = np.empty(len(pool))
    for rows, chunk in feature_space.chunks(pool):
        bounds[rows] = feature_space.variances(lower, chunk)
    bounds[~measurable] = -np.inf

    def refresh(rows):
        return feature_space.variances(lower, pool[rows].astype(np.float64))

    def add(pick):
        # Factored anew rather than updated: d³/3 operations are few, and errors don't pile up.
        nonlocal lower
        row = pool[pick].astype(np.float64)
        matrix[...] += np.outer(row, row)
        lower = feature_space.factor(matrix)

    return lazy_greedy(bounds, refresh, add, groups, shares)


def _forces(estimate: Estimate) -> str:
    return "qs2" if estimate == "exact" else f"qs2_{estimate}"


def _ranking(weights: dict[str, float], count: int, threshold: Threshold) -> Selector:
    """The largest weighted sums of these scores; NaN and infinite ones come last.

    The informativeness is I = score / threshold; with a threshold, only I > 1 qualifies.
    """
    known = tuple(f"known_{name}" for name in weights)

    def scores(evidence: Evidence, names) -> np.ndarray:
        terms = [np.asarray(getattr(evidence, name), np.float64) for name in names]
        total = sum(w * term for w, term in zip(weights.values(), terms, strict=True))
        return np.where(np.isfinite(total), total, np.nan)

    def limit(evidence: Evidence) -> float:
        middle = np.nanmedian if threshold == "median" else np.nanmean
        of_known = scores(evidence, known)
        if not np.any(np.isfinite(of_known)):
            raise BadInput(
                f"threshold: {threshold}: expected finite scores of the training set in "
                f"{', '.join(known)}, found {len(of_known)} others; use threshold: none"
            )
        return float(middle(of_known))

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        score = scores(evidence, weights)
        order = np.argsort(-score, kind="stable")
        if threshold != "none":
            order = order[score[order] > limit(evidence)]
        return padded(order, count)

    def report(evidence: Evidence) -> dict:
        score = scores(evidence, weights)
        finite = score[np.isfinite(score)]
        found = {"not_finite": float(len(score) - len(finite))}
        if len(finite):
            found |= {"median_score": float(np.median(finite)), "largest_score": float(max(finite))}
        if threshold != "none":
            at = limit(evidence)
            found |= {"threshold": at, "informative": float(np.mean(score > at))}
        return found

    needs = (*weights, *(known if threshold != "none" else ()))
    return Selector(choose, needs, count, report)
