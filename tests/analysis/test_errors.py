"""Error measures against their definitions and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from alj.analysis import errors


@pytest.fixture
def sample():
    return np.random.default_rng(0).normal(0.3, 2.0, 50)


def test_rmse_is_made_of_bias_and_scatter(sample):
    assert errors.rmse(sample) ** 2 == pytest.approx(
        errors.bias(sample) ** 2 + errors.scatter(sample) ** 2, rel=1e-12
    )
    assert abs(errors.bias(sample)) <= errors.mae(sample) <= errors.rmse(sample)
    assert errors.rmse(sample) <= errors.largest(sample)


def test_a_shift_changes_the_bias_only(sample):
    assert errors.scatter(sample + 5.0) == pytest.approx(errors.scatter(sample), rel=1e-12)
    assert errors.bias(sample + 5.0) == pytest.approx(errors.bias(sample) + 5.0, rel=1e-12)


def test_correlations_agree_with_scipy_also_with_ties(sample):
    other = np.round(sample + np.random.default_rng(1).normal(size=50))
    expected = stats.pearsonr(sample, other).statistic
    assert errors.pearson(sample, other) == pytest.approx(expected, rel=1e-12)
    expected = stats.spearmanr(sample, other).statistic
    assert errors.spearman(sample, other) == pytest.approx(expected, rel=1e-12)
    assert errors.ranks(other) == pytest.approx(stats.rankdata(other) - 1.0)


def test_ranks_do_not_change_under_a_rising_function(sample):
    assert errors.spearman(sample, np.exp(sample)) == pytest.approx(1.0)


def test_nothing_measured_is_nan():
    nothing = np.zeros(0)
    for measure in (errors.mae, errors.rmse, errors.bias, errors.scatter, errors.largest):
        assert math.isnan(measure(nothing))
    assert math.isnan(errors.pearson(np.ones(3), np.arange(3.0)))
    assert math.isnan(errors.spearman(nothing, nothing))
