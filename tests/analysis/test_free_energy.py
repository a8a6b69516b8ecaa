"""Free energies against exact ones: Gaussian work, a biased double well, a tilted bias."""

import numpy as np
import pytest

from alj.analysis.free_energy import (
    free_energy_difference,
    jarzynski,
    jarzynski_profile,
    reweighted_profile,
)
from alj.types import BadInput

KT = 0.025852


def test_gaussian_work_has_an_exact_free_energy():
    """W ~ N(m, s²) gives ΔF = m - s²/2kT, by both estimators, within their errors."""
    mean, width = 1.3, 0.03
    exact = mean - width**2 / (2 * KT)
    pulls = []
    for seed in range(40):
        work = np.random.default_rng(seed).normal(mean, width, size=400)
        pulls.append(jarzynski(work, KT, seed=seed))
    for name in ("jarzynski", "cumulant"):
        values = np.array([getattr(one, name) for one in pulls])
        errors = np.array([getattr(one, f"{name}_error") for one in pulls])
        assert values.mean() == pytest.approx(exact, abs=4 * values.std(ddof=1) / np.sqrt(40))
        # the bootstrap knows the scatter of repetitions; with 40 of them to 11 %
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.35)
    assert all(one.dissipated > 0 for one in pulls)


def test_huge_work_does_not_underflow():
    found = jarzynski(np.array([600.0, 601.0, 640.0]), KT)
    assert found.jarzynski == pytest.approx(600.0 + KT * np.log(3), abs=1e-9)
    assert found.effective == pytest.approx(1.0, abs=1e-9)


def test_the_profile_of_pulls_is_the_difference_frame_by_frame():
    work = np.cumsum(np.random.default_rng(0).normal(0.01, 0.005, size=(50, 20)), axis=1)
    values, errors = jarzynski_profile(work, KT, seed=3)
    one = jarzynski(work[:, 7], KT, resamples=200, seed=3)
    assert (values[7], errors[7]) == (one.jarzynski, one.jarzynski_error)


def double_well(s):
    return 4.0 * KT * (s**2 - 1.0) ** 2 + 1.0 * KT * s


def drawn(seed, frames, bias):
    """Independent draws from exp(-[F + V]/kT) on a fine grid."""
    grid = np.linspace(-2.0, 2.0, 4001)
    density = np.exp(-(double_well(grid) + bias(grid)) / KT)
    return np.random.default_rng(seed).choice(grid, size=frames, p=density / density.sum())


def exact_profile(edges):
    """Averages over the bins of the density."""
    grid = np.linspace(-2.0, 2.0, 40001)
    counts = np.histogram(grid, edges, weights=np.exp(-double_well(grid) / KT))[0]
    return -KT * np.log(counts / counts.max())


EDGES = np.linspace(-1.5, 1.5, 31)


def test_a_static_bias_is_taken_out():
    bias = lambda s: -0.9 * double_well(s)  # noqa: E731 - nearly flat
    walks = [drawn(seed, 20000, bias) for seed in range(10)]
    profiles = [reweighted_profile(s, bias(s), KT, edges=EDGES) for s in walks]
    values = np.stack([one.free_energy for one in profiles])
    exact = exact_profile(EDGES)
    error = values.std(axis=0, ddof=1)
    assert np.all(np.abs(values.mean(axis=0) - exact) < 5 * error / np.sqrt(10) + 0.02 * KT)
    # the jackknife of one walk agrees with the scatter of ten, whose zero is the lowest bin
    claimed = np.mean([one.error for one in profiles])
    assert claimed == pytest.approx(error.mean(), rel=0.4)
    left, right = (-2.0, 0.0), (0.0, 2.0)
    found = free_energy_difference(profiles[0], KT, left, right)
    grid = np.linspace(-1.5, 1.5, 20001)
    weight = np.exp(-double_well(grid) / KT)
    exact_gap = -KT * np.log(weight[grid > 0].sum() / weight[grid < 0].sum())
    assert found == pytest.approx(exact_gap, abs=0.1 * KT)


def test_a_bias_whose_zero_drifts_needs_its_offset():
    """The same bias with a constant that grows in time, as hills do: c(t) takes it out exactly."""
    bias = lambda s: -0.9 * double_well(s)  # noqa: E731
    s = drawn(0, 20000, bias)
    drift = 3.0 * KT * np.arange(len(s)) / len(s)
    plain = reweighted_profile(s, bias(s), KT, edges=EDGES)
    relieved = reweighted_profile(s, bias(s) + drift, KT, edges=EDGES, offset_eV=drift)
    np.testing.assert_allclose(relieved.free_energy, plain.free_energy, atol=1e-12)
    assert relieved.effective == pytest.approx(plain.effective)


def test_bins_without_frames_are_unknown():
    s = np.random.default_rng(0).uniform(0.0, 1.0, size=1000)
    found = reweighted_profile(s, np.zeros(1000), KT, edges=np.linspace(0.0, 2.0, 9))
    assert np.isnan(found.free_energy[4:]).all()
    assert np.isfinite(found.free_energy[:4]).all()
    assert np.nanmin(found.free_energy) == 0.0


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: jarzynski(np.ones(1), KT), "two pulls"),
        (lambda: jarzynski(np.ones(3), 0.0), "positive kT"),
        (lambda: reweighted_profile(np.ones(5), np.ones(5), KT, edges=EDGES), "2 to 5 blocks"),
        (
            lambda: reweighted_profile(np.full(20, 9.0), np.ones(20), KT, edges=EDGES),
            "no frame lies between",
        ),
        (
            lambda: reweighted_profile(np.full(20, np.nan), np.ones(20), KT, edges=EDGES),
            "finite values",
        ),
    ],
)
def test_bad_input_is_one_line(act, words):
    with pytest.raises(BadInput, match=words):
        act()
