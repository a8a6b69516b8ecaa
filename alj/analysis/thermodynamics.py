"""Means of correlated series with their errors, and densities: what a simulation reports.

Neighbors in a series of a simulation resemble each other, so the error of their mean is larger
than their scatter over √n. Averaging neighbors in pairs, again and again, leaves the mean as it is
and makes them forget each other: the naive error of the blocks grows until it reaches a plateau,
the true one. H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from alj.types import BadInput
from alj.units import mass_density

SMALLEST_BLOCKS = 32
"""Blocks at least: fewer know their own scatter worse than to an eighth."""


class BlockError(NamedTuple):
    """The mean of a series, the standard error of the mean, and how it was found.

    `correlation_steps` is the statistical inefficiency: that many steps of the series are worth
    one independent value (1: all are). `block` is the length in steps of the blocks at the plateau;
    `converged` says that one was seen: without it the error is a lower bound.
    """

    mean: float
    error: float
    correlation_steps: float
    block: int
    converged: bool


def block_error(series: Float[np.ndarray, " steps"]) -> BlockError:
    """The mean of a correlated series and its error by blocking.

    After m halvings, with n' = n / 2^m blocks left, the error and its own uncertainty are

        ε_m = √(c / (n' - 1)),   δε_m = ε_m / √(2 (n' - 1)),

    c being the mean square deviation of the blocks. The plateau begins at the first m whose ε_m no
    later level exceeds by more than both uncertainties together,
    ε_l ≤ ε_m + √(δε_m² + δε_l²), l > m; levels of fewer than `SMALLEST_BLOCKS` blocks are too
    uncertain to be asked. To err on the safe side where the levels still rise within these
    uncertainties, the error reported is that one level further on, if it is the larger. Where only
    the last level is left, the series is too short for its correlations and `converged` is False.
    A step too many is dropped from the end of an odd number of blocks. A series of one value has an
    unknown error, NaN.

    >>> block_error(np.array([1.0, 3.0] * 64)).mean
    2.0

    Raises:
        BadInput: there are no values.
    """
    values = np.asarray(series, float)
    if values.ndim != 1 or not len(values):
        raise BadInput(f"block_error: expected a series of values, found shape {values.shape}")
    mean = float(values.mean())
    if len(values) < 2:
        return BlockError(mean, float("nan"), float("nan"), 1, False)
    errors, doubts = _levels(values)
    last = len(errors) - 1
    first = next(
        m
        for m in range(last + 1)
        if np.all(errors[m + 1 :] <= errors[m] + np.hypot(doubts[m], doubts[m + 1 :]))
    )
    level = min(first + 1, last) if errors[min(first + 1, last)] > errors[first] else first
    naive = errors[0]
    ratio = (errors[level] / naive) ** 2 if naive > 0 else 1.0
    return BlockError(mean, float(errors[level]), float(ratio), 2**level, first < last)


def mean_of_walks(walks: Sequence[Float[np.ndarray, "_"]]) -> BlockError:
    """The mean over independent walks, each weighted by its length, and its error.

    Every walk is blocked on its own; with weights w = n_i / Σ n the error is ε = √(Σ w² ε_i²). Two
    walks or more also tell their error by how they differ, √(Σ w² (x_i - x)² · k / (k - 1)). That
    one is reported where it exceeds ε by more than two of its own uncertainties, ε / √(2 (k - 1)):
    the walks are then stuck in different states or not equilibrated, and `converged` is False.
    Else it says that walks of more than half of all steps reached their plateaus. `block` is the
    longest of all; `correlation_steps` is the weighted mean.

    Raises:
        BadInput: there is no walk, or one without values.
    """
    if not len(walks):
        raise BadInput("mean_of_walks: expected at least one walk, found none")
    each = [block_error(np.asarray(walk)) for walk in walks]
    lengths = np.asarray([len(walk) for walk in walks], float)
    weights = lengths / lengths.sum()
    means = np.asarray([one.mean for one in each])
    mean = float(weights @ means)
    within = np.sqrt(np.sum((weights * [one.error for one in each]) ** 2))
    error, count = within, len(each)
    converged = bool(weights @ [one.converged for one in each] > 0.5)
    if count > 1:
        between = np.sqrt(np.sum((weights * (means - mean)) ** 2) * count / (count - 1))
        if not between <= within * (1.0 + 2.0 / np.sqrt(2.0 * (count - 1))):
            error, converged = between, False
    return BlockError(
        mean,
        float(error),
        float(weights @ [one.correlation_steps for one in each]),
        max(one.block for one in each),
        converged,
    )


def density_g_per_cc(
    cells: Float[np.ndarray, "*batch 3 3"], mass_amu: float
) -> Float[np.ndarray, "*batch"]:
    """Densities of periodic boxes that hold `mass_amu` in all.

    >>> float(density_g_per_cc(14.7832 * np.eye(3), 108 * 18.015).round(4))  # 108 waters
    1.0
    """
    volumes = np.abs(np.linalg.det(np.asarray(cells, float)))
    return np.asarray(mass_density(1.0, mass_amu, 1.0) / volumes)


def _levels(values):
    """Errors of the mean and their uncertainties, for blocks of 1, 2, 4, … steps."""
    errors, doubts = [], []
    while len(values) >= 2 and (not errors or len(values) >= SMALLEST_BLOCKS):
        free = len(values) - 1
        error = np.sqrt(np.mean((values - values.mean()) ** 2) / free)
        errors.append(error)
        doubts.append(error / np.sqrt(2.0 * free))
        values = 0.5 * (values[0 : len(values) // 2 * 2 : 2] + values[1::2])
    return np.asarray(errors), np.asarray(doubts)
