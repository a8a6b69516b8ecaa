"""Selectors against explicit formulas."""

import jax
import numpy as np
import pytest
from contracts.test_selectors import evidence

from alj.selection import committee, random, spaced, trust_levels
from alj.types import BadInput, Evidence

KEY = jax.random.key(0)


def test_spaced_takes_even_steps_in_every_walk():
    walks = np.repeat([0, 1], 101)
    spacing = np.tile(np.linspace(0.0, 1.0, 101), 2)
    pool = Evidence(walks=walks, spacing=spacing)
    chosen = np.asarray(spaced().choose(KEY, pool, 10))
    for walk in (0, 1):
        taken = spacing[chosen[walks[chosen] == walk]]
        np.testing.assert_allclose(np.sort(taken), np.linspace(0, 1, 5), atol=1e-12)


def test_committee_keeps_its_distance():
    pool = evidence()
    chosen = np.asarray(committee(minimum_distance=0.8).choose(KEY, pool, 5))
    points = pool.descriptors - pool.descriptors.mean(axis=0)
    points /= np.sqrt(np.mean(np.sum(points**2, axis=1)))
    apart = np.linalg.norm(points[chosen][:, None] - points[chosen][None], axis=-1)
    assert np.min(apart + 10 * np.eye(5)) >= 0.8
    assert chosen[0] == np.argmax(pool.energy_spread)
    close = committee(minimum_distance=0.0).choose(KEY, pool, 5)
    np.testing.assert_array_equal(close, np.argsort(-pool.energy_spread)[:5])
    by_force = committee(quantity="force", minimum_distance=0.0).choose(KEY, pool, 1)
    assert by_force[0] == np.argmax(pool.force_spread.max(axis=1))


def forces_of(largest):
    """Three atoms a structure; the second one has the largest spread."""
    return np.outer(largest, [0.3, 1.0, 0.0])


LARGEST = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, np.nan, 9e9])


def test_trust_levels_divide_the_pool_exactly():
    pool = Evidence(force_spread=forces_of(LARGEST))
    selector = trust_levels(low_eV_per_A=0.1, high_eV_per_A=0.3)
    assert selector.needs == ("force_spread",)
    chosen = np.asarray(selector.choose(jax.random.key(1), pool, 8))
    assert sorted(chosen[:4]) == [1, 2, 3, 4]
    assert chosen[4:].tolist() == [-1] * 4
    report = selector.report(pool)
    expected = {"accurate": 1 / 9, "candidate": 4 / 9, "failed": 4 / 9}
    assert report == pytest.approx({**expected, "low_eV_per_A": 0.1, "high_eV_per_A": 0.3})

    largest = trust_levels(low_eV_per_A=0.1, high_eV_per_A=0.3, prefer="largest")
    assert np.asarray(largest.choose(jax.random.key(4), pool, 2)).tolist() == [4, 3]
    draws = [selector.choose(k, pool, 2) for k in jax.random.split(jax.random.key(2), 60)]
    counts = np.bincount(np.concatenate(draws), minlength=9)
    # 60 draws of 2 out of 4: each is taken 30 ± 4 times, and the others never.
    assert np.all(np.abs(counts[1:5] - 30) < 20)
    assert counts.sum() == counts[1:5].sum()


def test_automatic_trust_levels_follow_the_training_set():
    known = forces_of(np.linspace(0.0, 0.1, 101))
    calm = Evidence(force_spread=forces_of([0.05, 0.2, 0.3, 0.5]), known_force_spread=known)
    selector = trust_levels()
    assert "known_force_spread" in selector.needs
    report = selector.report(calm)
    assert report["low_eV_per_A"] == pytest.approx(0.095)
    assert report["high_eV_per_A"] == pytest.approx(0.38)
    assert sorted(np.asarray(selector.choose(jax.random.key(4), calm, 4))) == [-1, -1, 1, 2]

    # Far from its data a committee still learns from the better half of the pool.
    wild = calm._replace(force_spread=forces_of([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert sorted(np.asarray(selector.choose(jax.random.key(4), wild, 5))) == [-1, -1, 0, 1, 2]
    assert selector.report(wild)["high_eV_per_A"] == pytest.approx(3.0)

    # A level given keeps the other one on its side.
    assert trust_levels(high_eV_per_A=0.2).report(calm)["low_eV_per_A"] == pytest.approx(0.05)
    assert trust_levels(low_eV_per_A=0.2).report(calm)["high_eV_per_A"] == pytest.approx(0.8)
    for pool in (calm, wild, calm._replace(force_spread=forces_of(LARGEST))):
        report = selector.report(pool)
        assert sum(report[k] for k in ("accurate", "candidate", "failed")) == pytest.approx(1.0)


def test_a_committee_without_doubt_still_chooses():
    nothing = Evidence(force_spread=np.zeros((3, 2)), known_force_spread=np.zeros((4, 2)))
    assert sorted(np.asarray(trust_levels().choose(jax.random.key(4), nothing, 3))) == [0, 1, 2]


def test_random_draws_are_uniform():
    pool = evidence()
    keys = jax.random.split(jax.random.key(3), 300)
    counts = np.bincount(np.concatenate([random().choose(k, pool, 10) for k in keys]), minlength=30)
    # 300 draws of 10 out of 30: each is taken 100 ± 8 times.
    assert np.all(np.abs(counts - 100) < 40)


def test_bad_settings_are_refused():
    with pytest.raises(BadInput, match="minimum_distance"):
        committee(minimum_distance=-1.0)
    for levels in ((0.3, 0.1), (0.0, 0.1), (0.2, 0.2), (None, -1.0), (float("inf"), None)):
        with pytest.raises(BadInput, match="low_eV_per_A"):
            trust_levels(low_eV_per_A=levels[0], high_eV_per_A=levels[1])
