"""Whether an uncertainty means what it says: scales, coverage, drift, thresholds for errors.

An uncertainty u is calibrated if errors are as large as it says: of |error| ≤ s u hold as many as
were promised. Two scales s do that, from labels that the model was not trained on:

* conformal: the ⌈(n + 1) c⌉-th smallest of n ratios |error| / u. A new label lies within s u with a
  probability of at least c, and at most c + 1 / (n + 1), whatever the distribution, as long as new
  and old may be exchanged. V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random
  World, Springer (2005), doi:10.1007/b106715; J. Lei et al., J. Am. Stat. Assoc. 113, 1094
  (2018), doi:10.1080/01621459.2017.1307116.
* Gaussian: s² = ⟨error² / u²⟩, of the largest likelihood if errors are normal with width s u.

Atoms and components of one structure are not exchangeable with those of others: a guarantee for
structures needs one ratio each. Calibration curve and error: V. Kuleshov, N. Fenner, S. Ermon,
Proc. Mach. Learn. Res. 80, 2796 (2018), arXiv:1807.00263. Ceiling and informativeness: V. Zaverkin,
J. Kästner, Mach. Learn.: Sci. Technol. 2, 035009 (2021), doi:10.1088/2632-2153/abe294.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from alj.types import BadInput

LEVELS = np.arange(1, 100) / 100
"""Where calibration curves are taken."""


class Calibration(NamedTuple):
    """What held-out labels taught about the uncertainty of one quantity.

    conformal: s of |error| ≤ s u, which the share `coverage` of new labels keeps.
    gaussian: s of errors that are normal with width s u.
    coverage: what was asked for.
    ratios: the |error| / u seen, in order; what comes later is compared with them.
    """

    conformal: float
    gaussian: float
    coverage: float
    ratios: Float[np.ndarray, " n"]


class Correlation(NamedTuple):
    """Of a score with the size of errors; NaN where one of them does not vary."""

    pearson: float
    spearman: float


def calibrate(
    errors: Mapping[str, Float[np.ndarray, "..."]],
    uncertainties: Mapping[str, Float[np.ndarray, "..."]],
    *,
    coverage: float = 0.9,
) -> dict[str, Calibration]:
    """Both scales of every quantity, such as "energy" (eV) and "forces" (eV/Å).

    Args:
        errors: Prediction minus reference on labels that the model was not trained on.
        uncertainties: What was said of each, in the same units.
        coverage: The share of new labels that the conformal scale is to cover.

    Raises:
        BadInput: the two don't fit each other, an uncertainty is not positive, or there are too few
            labels for the coverage.

    >>> spread = np.linspace(0.5, 1.5, 40)
    >>> found = calibrate({"energy": 3.0 * spread}, {"energy": spread})["energy"]
    >>> round(found.conformal, 12), round(found.gaussian, 12)
    (3.0, 3.0)
    """
    return {
        name: Calibration(
            conformal_scale(errors[name], uncertainties[name], coverage=coverage),
            gaussian_scale(errors[name], uncertainties[name]),
            coverage,
            np.sort(_ratios(errors[name], uncertainties[name])),
        )
        for name in errors
    }


def conformal_scale(
    errors: Float[np.ndarray, "..."],
    uncertainties: Float[np.ndarray, "..."],
    *,
    coverage: float = 0.9,
) -> float:
    """The ⌈(n + 1) c⌉-th smallest |error| / u: new labels lie within it with probability ≥ c.

    Raises:
        BadInput: the coverage is not between 0 and 1; too few labels for it; see `calibrate`.
    """
    if not 0 < coverage < 1:
        raise BadInput(f"coverage: expected a number between 0 and 1, found {coverage}")
    ratios = np.sort(_ratios(errors, uncertainties))
    rank = _rank(len(ratios), coverage)
    if rank > len(ratios):
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise BadInput(
            f"a coverage of {coverage:g}: expected at least {needed} labels, found {len(ratios)}; "
            "label more structures or ask for less"
        )
    return float(ratios[rank - 1])


def gaussian_scale(
    errors: Float[np.ndarray, "..."], uncertainties: Float[np.ndarray, "..."]
) -> float:
    """s = √⟨error² / u²⟩, at which `negative_log_likelihood` is smallest."""
    return float(np.sqrt(np.mean(_ratios(errors, uncertainties) ** 2)))


def coverage_at(
    levels: Float[np.ndarray, " levels"],
    errors: Float[np.ndarray, "..."],
    uncertainties: Float[np.ndarray, "..."],
    *,
    scale: float = 1.0,
) -> Float[np.ndarray, " levels"]:
    """The share of errors inside the central interval that a normal of width s u has at each level.

    >>> one = np.ones(3)
    >>> coverage_at(np.array([0.6827, 0.9545]), np.array([0.5, -1.5, 3.0]), one).tolist()
    [0.3333333333333333, 0.6666666666666666]
    """
    ratios = np.sort(_ratios(errors, uncertainties)) / scale
    limits = scipy.stats.norm.ppf(0.5 * (1.0 + np.asarray(levels, float)))
    return np.searchsorted(ratios, limits, side="right") / len(ratios)


def calibration_error(
    errors: Float[np.ndarray, "..."],
    uncertainties: Float[np.ndarray, "..."],
    *,
    scale: float = 1.0,
) -> float:
    """Mean distance of the calibration curve from the diagonal, over the levels 1 % … 99 %."""
    found = coverage_at(LEVELS, errors, uncertainties, scale=scale)
    return float(np.mean(np.abs(found - LEVELS)))


def negative_log_likelihood(
    errors: Float[np.ndarray, "..."],
    uncertainties: Float[np.ndarray, "..."],
    *,
    scale: float = 1.0,
) -> float:
    """⟨½ error² / (s u)² + ln (s u) + ½ ln 2π⟩: the smaller, the better errors were foretold."""
    ratios = _ratios(errors, uncertainties) / scale
    widths = np.log(scale * np.asarray(uncertainties, float))
    return float(np.mean(0.5 * ratios**2) + np.mean(widths) + 0.5 * math.log(2.0 * math.pi))


def drift(
    calibration: Calibration,
    errors: Float[np.ndarray, "..."],
    uncertainties: Float[np.ndarray, "..."],
    *,
    rate: float = 0.01,
) -> str | None:
    """One sentence if new labels have left what the calibration saw, else None.

    Two tests share the rate of false alarms: whether fewer labels are covered than chance explains
    (beta-binomial, since the scale itself came from n labels), and whether the ratios |error| / u
    have another distribution (Kolmogorov and Smirnov). Labels that are many for each structure are
    not independent, and raise more alarms than the rate.

    Raises:
        BadInput: the rate is not between 0 and 1; see `calibrate`.
    """
    if not 0 < rate < 1:
        raise BadInput(f"rate: expected a number between 0 and 1, found {rate}")
    if np.size(errors) == 0:
        return None
    ratios, seen = _ratios(errors, uncertainties), len(calibration.ratios)
    covered, rank = int(np.sum(ratios <= calibration.conformal)), _rank(seen, calibration.coverage)
    # Given the scale, its coverage is Beta(rank, n + 1 - rank); so the count is beta-binomial.
    chance = scipy.stats.betabinom.cdf(covered, len(ratios), rank, seen + 1 - rank)
    if chance < rate / 2:
        return (
            f"{covered} of {len(ratios)} new labels lie within the interval made for "
            f"{calibration.coverage:.0%} (chance {chance:.1g}): the uncertainty is too small for "
            "what is explored now; calibrate it anew"
        )
    chance = np.asarray(scipy.stats.ks_2samp(ratios, calibration.ratios))[1]
    if chance < rate / 2:
        middle, before = np.median(ratios), np.median(calibration.ratios)
        return (
            f"errors of {len(ratios)} new labels are {middle:.2g} times their uncertainty in the "
            f"middle, where the calibration saw {before:.2g} (chance {chance:.1g}): calibrate it "
            "anew"
        )
    return None


def uncertainty_at(error: float, scale: float) -> float:
    """The uncertainty below which errors stay below `error`: error / s.

    With a conformal scale of coverage c this holds for the share c of new labels; `error` in the
    units of the uncertainty, eV/Å for forces.

    >>> uncertainty_at(0.05, 2.0)  # errors of 0.05 eV/Å
    0.025
    """
    if not (error > 0 and scale > 0):
        raise BadInput(f"expected a positive error and scale, found {error} and {scale}")
    return error / scale


def score_threshold(
    known: Float[np.ndarray, " m"], *, middle: Literal["median", "mean"] = "median"
) -> float:
    """σ_th of learning on the fly: the median, or mean, of the score over the training set.

    The mean follows the few training structures that are still badly known, the median does not.
    """
    finite = np.asarray(known, float)[np.isfinite(known)]
    if not len(finite):
        raise BadInput(f"expected finite scores of the training set, found {np.size(known)} others")
    return float(np.median(finite) if middle == "median" else np.mean(finite))


def informativeness(
    scores: Float[np.ndarray, " n"],
    known: Float[np.ndarray, " m"],
    *,
    middle: Literal["median", "mean"] = "median",
) -> Float[np.ndarray, " n"]:
    """I = score / σ_th; what has I > 1 is worth a label."""
    threshold = score_threshold(known, middle=middle)
    if not threshold > 0:
        raise BadInput(f"expected positive scores of the training set, found {threshold}")
    return np.asarray(scores, float) / threshold


def correlation(scores: Float[np.ndarray, " n"], errors: Float[np.ndarray, " n"]) -> Correlation:
    """Pearson's and Spearman's correlation of scores with |error|."""
    scores, sizes = np.asarray(scores, float), np.abs(np.asarray(errors, float))
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(sizes) == 0:
        return Correlation(math.nan, math.nan)
    ranks = scipy.stats.rankdata(scores), scipy.stats.rankdata(sizes)
    return Correlation(float(np.corrcoef(scores, sizes)[0, 1]), float(np.corrcoef(*ranks)[0, 1]))


def ceiling(
    variances: Float[np.ndarray, "n components"],
    generator: np.random.Generator,
    *,
    scores: Float[np.ndarray, " n"] | None = None,
    draws: int = 20,
) -> Correlation:
    """The correlation with errors that could be seen at best, were the posterior exact (eq. 23).

    Even then a large variance need not mean a large error. Errors of the components of a structure
    are drawn from normal distributions with these variances, and the mean of their sizes is
    correlated with the scores; the mean over all draws.

    Args:
        variances: Of every component of the forces (or one column, of the energy); NaN pads.
        generator: Of the errors drawn.
        scores: What is correlated; the mean of the variances of each structure by default (QS2).
        draws: How often errors are drawn.
    """
    given = np.isfinite(variances)
    widths = np.sqrt(np.where(given, variances, 0.0))
    counts = np.maximum(np.sum(given, axis=1), 1)
    ranked = np.sum(widths**2, axis=1) / counts if scores is None else scores
    found = []
    for _ in range(draws):
        sizes = np.abs(generator.normal(size=widths.shape)) * widths
        found.append(correlation(ranked, np.sum(sizes, axis=1) / counts))
    return Correlation(*np.mean(found, axis=0).tolist())


def _rank(count: int, coverage: float) -> int:
    """⌈(n + 1) c⌉, unharmed by c being a binary fraction."""
    return math.ceil((count + 1) * coverage - 1e-9)


def _ratios(errors, uncertainties) -> Float[np.ndarray, " n"]:
    """|error| / u of everything, in one row."""
    sizes, widths = np.abs(np.asarray(errors, float)), np.asarray(uncertainties, float)
    if sizes.shape != widths.shape or sizes.size == 0:
        raise BadInput(
            f"expected as many uncertainties as errors, found {widths.shape} and {sizes.shape}"
        )
    bad = int(np.sum(~((widths > 0) & np.isfinite(widths) & np.isfinite(sizes))))
    if bad:
        raise BadInput(
            "expected finite errors and positive, finite uncertainties, found others in "
            f"{bad} of {widths.size} places; leave these out"
        )
    return (sizes / widths).reshape(-1)
