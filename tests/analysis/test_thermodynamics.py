"""Blocking against the exact error of an autoregressive series, and how walks are combined."""

import numpy as np
import pytest
from scipy.signal import lfilter

from alj.analysis.thermodynamics import block_error, density_g_per_cc, mean_of_walks
from alj.types import BadInput
from alj.units import number_density


def autoregressive(seed: int, memory: float, steps: int):
    """x_t = φ x_(t-1) + noise of unit variance, begun in its stationary distribution."""
    generator = np.random.default_rng(seed)
    first = memory * generator.normal() / np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], generator.normal(size=steps), zi=[first])[0]


def exact_error(memory: float, steps: int) -> float:
    """√(σ²/n [1 + 2 Σ_k (1 - k/n) φ^k]), the autocovariance being σ² φ^k, σ² = 1 / (1 - φ²)."""
    lags = np.arange(1, steps)
    correlation = 1 + 2 * np.sum((1 - lags / steps) * memory**lags)
    return np.sqrt(correlation / (1 - memory**2) / steps)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.98])
def test_the_error_of_a_correlated_series_is_the_exact_one(memory):
    steps, repeats = 2**16, 60
    found = [block_error(autoregressive(seed, memory, steps)) for seed in range(repeats)]
    assert np.mean([one.converged for one in found]) > 0.9
    exact = exact_error(memory, steps)
    # One error is known to some 10 %, and so their mean to 1.3 %; the choice may lean by 5 %.
    assert np.mean([one.error for one in found]) == pytest.approx(exact, rel=0.06)
    inefficiency = np.mean([one.correlation_steps for one in found])
    assert inefficiency == pytest.approx((1 + memory) / (1 - memory), rel=0.15)
    deviations = np.asarray([one.mean / one.error for one in found])
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(1.0, abs=4 / np.sqrt(2 * repeats))


def test_a_series_shorter_than_its_memory_says_so():
    found = [block_error(autoregressive(seed, 0.995, 2000)) for seed in range(20)]
    assert not any(one.converged for one in found)


def test_blocking_shifts_and_scales_with_its_series():
    series = autoregressive(1, 0.8, 5001)
    one, other = block_error(series), block_error(7.0 - 3.0 * series)
    assert other.mean == pytest.approx(7.0 - 3.0 * one.mean)
    assert other.error == pytest.approx(3.0 * one.error)
    assert other[2:] == pytest.approx(one[2:])
    constant = block_error(np.full(100, 2.5))
    assert constant[:3] == (2.5, 0.0, 1.0)


def test_walks_that_agree_combine_like_one_long_walk():
    walks = [autoregressive(seed, 0.9, steps) for seed, steps in enumerate([2**14] * 6 + [2**15])]
    together, each = mean_of_walks(walks), [block_error(walk) for walk in walks]
    assert together.converged
    assert together.mean == pytest.approx(np.concatenate(walks).mean())
    assert together.error == pytest.approx(exact_error(0.9, 2**17), rel=0.15)
    alone = mean_of_walks(walks[:1])
    assert alone == each[0]


def test_walks_that_disagree_are_told_by_their_spread():
    walks = [autoregressive(seed, 0.5, 4096) + 10.0 * seed for seed in range(4)]
    together = mean_of_walks(walks)
    assert not together.converged
    means = [walk.mean() for walk in walks]
    assert together.error == pytest.approx(np.std(means, ddof=1) / 2.0)


def test_no_values_are_refused():
    with pytest.raises(BadInput, match="at least one walk"):
        mean_of_walks([])
    with pytest.raises(BadInput, match="series of values"):
        block_error(np.zeros(0))
    assert np.isnan(block_error(np.ones(1)).error)


def test_densities_of_boxes_invert_the_number_density():
    edges = np.cbrt(108 / np.asarray([number_density(d, 18.015) for d in (0.9, 1.0)]))
    found = density_g_per_cc(edges[:, None, None] * np.eye(3), 108 * 18.015)
    np.testing.assert_allclose(found, [0.9, 1.0], rtol=1e-12)
