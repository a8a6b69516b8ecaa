"""Measures of error and of agreement between two sets of numbers: pure array functions.

An error is prediction minus reference. `bias` is its mean and `scatter` its standard deviation:
RMSE² = bias² + scatter². A constant shift of the energy moves no atom, so the two are reported
apart.
"""

import numpy as np
from jaxtyping import Float


def mae(errors: Float[np.ndarray, "..."]) -> float:
    """Mean absolute error; NaN of no errors.

    >>> mae(np.array([1.0, -3.0]))
    2.0
    """
    return _mean(np.abs(errors))


def rmse(errors: Float[np.ndarray, "..."]) -> float:
    """Root of the mean square error; NaN of no errors."""
    return _mean(np.square(errors)) ** 0.5


def bias(errors: Float[np.ndarray, "..."]) -> float:
    """Mean error, signed; NaN of no errors."""
    return _mean(errors)


def scatter(errors: Float[np.ndarray, "..."]) -> float:
    """Standard deviation about the bias; NaN of no errors."""
    return _mean(np.square(errors - bias(errors))) ** 0.5


def largest(errors: Float[np.ndarray, "..."]) -> float:
    """Largest absolute error; NaN of no errors."""
    return float(np.max(np.abs(errors))) if np.size(errors) else float("nan")


def pearson(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Linear correlation; NaN where one side does not vary or fewer than two are given.

    >>> round(pearson(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])), 12)
    1.0
    """
    if np.size(first) < 2:
        return float("nan")
    a, b = first - np.mean(first), second - np.mean(second)
    norm = np.sqrt(np.sum(a * a)) * np.sqrt(np.sum(b * b))
    return float(np.sum(a * b) / norm) if norm > 0 else float("nan")


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Correlation of the ranks, ties sharing their mean rank; NaN as for `pearson`."""
    return pearson(ranks(first), ranks(second))


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 0; equal values share the mean of the ranks that they occupy.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - 0.5 * (counts + 1.0))[inverse]


def _mean(values):
    return float(np.mean(values)) if np.size(values) else float("nan")
