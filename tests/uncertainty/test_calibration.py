"""Calibration against what is known exactly of normal errors, and of ranks."""

import math

import numpy as np
import pytest
import scipy.stats

from alj.types import BadInput
from alj.uncertainty import calibration


def normal(count, seed=0, scale=1.0):
    """Errors that are normal with `scale` times the uncertainty said of them."""
    generator = np.random.default_rng(seed)
    uncertainties = np.exp(generator.normal(-3.0, 0.7, size=count))
    return scale * uncertainties * generator.normal(size=count), uncertainties


def test_normal_errors_are_covered_as_often_as_their_level_says():
    errors, uncertainties = normal(20_000)
    levels = np.array([0.1, 0.5, 0.6827, 0.9, 0.99])
    found = calibration.coverage_at(levels, errors, uncertainties)
    deviation = np.sqrt(levels * (1 - levels) / len(errors))
    assert np.all(np.abs(found - levels) < 4 * deviation)
    # The largest deviation anywhere is that of Kolmogorov's distribution; 1.95: once in 1000.
    everywhere = calibration.coverage_at(calibration.LEVELS, errors, uncertainties)
    assert np.max(np.abs(everywhere - calibration.LEVELS)) < 1.95 / np.sqrt(len(errors))
    assert calibration.calibration_error(errors, uncertainties) < 1.95 / np.sqrt(len(errors))
    # Half as wide as it should be: |z| < 2 × 0.6745 instead of 0.6745.
    half = calibration.coverage_at(np.array([0.5]), 0.5 * errors, uncertainties)
    exact = 2 * scipy.stats.norm.cdf(2 * scipy.stats.norm.ppf(0.75)) - 1
    assert abs(half[0] - exact) < 4 * np.sqrt(exact * (1 - exact) / len(errors))
    fitted = calibration.calibration_error(0.5 * errors, uncertainties, scale=0.5)
    assert calibration.calibration_error(0.5 * errors, uncertainties) > 10 * fitted


def test_the_scale_of_normal_errors_is_found():
    errors, uncertainties = normal(20_000, scale=2.7)
    scale = calibration.gaussian_scale(errors, uncertainties)
    assert abs(scale / 2.7 - 1) < 4 / np.sqrt(2 * len(errors))
    conformal = calibration.conformal_scale(errors, uncertainties, coverage=0.9)
    # The standard error of a quantile: √(p (1 - p) / n) over the density there.
    at = scipy.stats.norm.ppf(0.95)
    standard = np.sqrt(0.09 / len(errors)) / (2 * scipy.stats.norm.pdf(at))
    assert abs(conformal / 2.7 - at) < 4 * standard
    shaped = calibration.gaussian_scale(errors.reshape(-1, 4, 5), uncertainties.reshape(-1, 4, 5))
    assert shaped == pytest.approx(scale, rel=1e-12)


def test_the_likelihood_is_scipys_and_smallest_at_the_gaussian_scale():
    errors, uncertainties = normal(500, scale=1.8)
    for scale in (1.0, 1.8):
        expected = -np.mean(scipy.stats.norm.logpdf(errors, scale=scale * uncertainties))
        found = calibration.negative_log_likelihood(errors, uncertainties, scale=scale)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    best = calibration.gaussian_scale(errors, uncertainties)
    at = lambda s: calibration.negative_log_likelihood(errors, uncertainties, scale=s)  # noqa: E731
    assert at(best) < min(at(0.99 * best), at(1.01 * best))


@pytest.mark.parametrize("count", [9, 30, 99])
def test_a_conformal_scale_keeps_its_promise_whatever_the_distribution(count):
    generator = np.random.default_rng(count)
    covered, trials = 0, 4000
    for _ in range(trials):
        errors = generator.standard_cauchy(count + 1) ** 3
        uncertainties = generator.uniform(0.1, 1.0, count + 1)
        scale = calibration.conformal_scale(errors[:-1], uncertainties[:-1], coverage=0.9)
        covered += abs(errors[-1]) <= scale * uncertainties[-1]
    exact = math.ceil((count + 1) * 0.9 - 1e-9) / (count + 1)
    assert exact >= 0.9
    assert abs(covered / trials - exact) < 4 * np.sqrt(exact * (1 - exact) / trials)


def test_quantities_are_calibrated_each_for_itself():
    energy, of_energy = normal(50, seed=1)
    forces, of_forces = normal(600, seed=2, scale=5.0)
    found = calibration.calibrate(
        {"energy": energy, "forces": forces.reshape(50, 4, 3)},
        {"energy": of_energy, "forces": of_forces.reshape(50, 4, 3)},
        coverage=0.8,
    )
    assert found["energy"].conformal == calibration.conformal_scale(energy, of_energy, coverage=0.8)
    assert 4.0 < found["forces"].gaussian < 6.0
    assert len(found["forces"].ratios) == 600
    assert np.all(np.diff(found["forces"].ratios) >= 0)


def test_alarms_on_fresh_data_are_as_rare_as_the_rate_says():
    trials, rate, alarms = 1000, 0.05, 0
    for seed in range(trials):
        errors, uncertainties = normal(100, seed=seed, scale=2.0)
        seen = calibration.calibrate({"e": errors[:60]}, {"e": uncertainties[:60]})["e"]
        alarms += bool(calibration.drift(seen, errors[60:], uncertainties[60:], rate=rate))
    assert alarms / trials < rate + 4 * np.sqrt(rate * (1 - rate) / trials)
    assert alarms > 0


def test_drift_is_seen_in_coverage_and_in_the_distribution():
    errors, uncertainties = normal(200)
    seen = calibration.calibrate({"e": errors}, {"e": uncertainties})["e"]
    later, of_later = normal(60, seed=1, scale=2.0)
    assert "of 60 new labels lie within" in calibration.drift(seen, later, of_later)
    timid, of_timid = normal(60, seed=1, scale=0.3)
    assert "0." in calibration.drift(seen, timid, of_timid)
    assert "where the calibration saw" in calibration.drift(seen, timid, of_timid)
    assert calibration.drift(seen, *normal(60, seed=2)) is None
    assert calibration.drift(seen, np.zeros(0), np.zeros(0)) is None


def test_an_error_becomes_a_threshold_that_holds():
    errors, uncertainties = normal(4000, scale=3.0)
    scale = calibration.conformal_scale(errors[:2000], uncertainties[:2000], coverage=0.9)
    limit = calibration.uncertainty_at(0.25, scale)
    calm = uncertainties[2000:] <= limit
    assert 100 < np.sum(calm) < 1900
    assert np.mean(np.abs(errors[2000:][calm]) <= 0.25) > 0.9


def test_thresholds_on_the_fly_are_those_of_the_paper():
    known, scores = np.array([1.0, 2.0, 9.0, np.nan]), np.array([1.0, 3.0, 8.0])
    assert calibration.score_threshold(known) == 2.0
    assert calibration.score_threshold(known, middle="mean") == 4.0
    assert calibration.informativeness(scores, known).tolist() == [0.5, 1.5, 4.0]
    assert calibration.informativeness(scores, known, middle="mean").tolist() == [0.25, 0.75, 2.0]


def test_correlations_are_of_sizes_and_ranks():
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    found = calibration.correlation(scores, np.array([1.0, -4.0, 9.0, -16.0]))
    assert found.spearman == pytest.approx(1.0)
    assert found.pearson == pytest.approx(np.corrcoef(scores, scores**2)[0, 1])
    assert math.isnan(calibration.correlation(np.ones(4), scores).pearson)


@pytest.mark.parametrize("components", [1, 27])
def test_the_ceiling_is_that_of_folded_normals(components):
    """⟨|z|⟩ = √(2/π): covariances of mean sizes with mean variances in closed form."""
    generator = np.random.default_rng(0)
    count = 5000
    variances = generator.gamma(3.0, size=(count, 1)) * generator.gamma(
        4.0, size=(count, components)
    )
    scores, mean_size = variances.mean(axis=1), np.sqrt(2 / np.pi) * np.sqrt(variances).mean(axis=1)
    noise = (1 - 2 / np.pi) * np.mean(variances.mean(axis=1) / components)
    exact = np.cov(scores, mean_size)[0, 1] / np.sqrt(
        np.var(scores, ddof=1) * (np.var(mean_size, ddof=1) + noise)
    )
    found = calibration.ceiling(variances, np.random.default_rng(1))
    # Each draw has a standard error of about (1 - r²) / √n, and there are 20 of them.
    assert abs(found.pearson - exact) < 4 * (1 - exact**2) / np.sqrt(20 * count)
    padded = np.concatenate([variances, np.full((count, 3), np.nan)], axis=1)
    again = calibration.ceiling(padded, np.random.default_rng(1))
    assert abs(again.pearson - exact) < 4 * (1 - exact**2) / np.sqrt(20 * count)
    other = calibration.ceiling(variances, np.random.default_rng(1), scores=scores**2)
    assert other.spearman == pytest.approx(found.spearman, abs=1e-12)


def test_bad_input_is_one_line():
    one = np.ones(5)
    with pytest.raises(BadInput, match="at least 9 labels, found 5"):
        calibration.conformal_scale(one, one, coverage=0.9)
    with pytest.raises(BadInput, match="coverage"):
        calibration.conformal_scale(one, one, coverage=1.0)
    with pytest.raises(BadInput, match="as many uncertainties"):
        calibration.gaussian_scale(one, one[:3])
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(BadInput, match="1 of 5 places"):
            calibration.gaussian_scale(one, np.array([1.0, bad, 1.0, 1.0, 1.0]))
    with pytest.raises(BadInput, match="positive error"):
        calibration.uncertainty_at(0.0, 1.0)
    with pytest.raises(BadInput, match="training set"):
        calibration.score_threshold(np.array([np.nan]))
