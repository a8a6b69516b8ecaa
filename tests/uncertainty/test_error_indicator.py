"""The error indicator: what it measures, what chance gives, and what its limits promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alj.potentials.disagreement import expected_largest, held_out_limit, largest_deviation
from alj.types import BadInput
from alj.uncertainty.error_indicator import (
    BROKEN,
    KNOWN,
    QUESTIONABLE,
    UNKNOWN,
    accuracy_limit,
    judged,
    size_aware_limit,
)


def test_the_largest_deviation_is_that_of_the_worst_atom_of_the_worst_member():
    forces = np.random.default_rng(0).normal(size=(3, 5, 3))
    mean = forces.mean(axis=0)
    worst = max(np.linalg.norm(forces[i, j] - mean[j]) for i in range(3) for j in range(5))
    np.testing.assert_allclose(largest_deviation(jnp.asarray(forces)), worst, rtol=1e-12)
    broken = forces.copy()
    broken[1, 2, 0] = np.nan
    assert np.isnan(largest_deviation(jnp.asarray(broken)))


@pytest.mark.parametrize(("members", "atoms"), [(2, 3), (2, 27), (3, 9)])
def test_members_of_the_target_accuracy_stay_below_the_size_aware_limit(members, atoms):
    """In closed form for two members; a bound that is nearly met for three."""
    draws = 0.13 * jax.random.normal(jax.random.key(1), (20_000, members, atoms, 3))
    chi = np.asarray(jax.vmap(largest_deviation)(draws))
    share = np.mean(chi <= size_aware_limit(0.13, atoms, members, 0.95))
    # four standard errors of the share
    assert -0.0062 < share - 0.95 < (0.0062 if members == 2 else 0.012)


def test_the_published_limit_knows_less_the_larger_a_structure_is():
    delta = accuracy_limit((0.13, 0.13))
    assert delta == pytest.approx(0.13 * np.sqrt(2))
    medians = expected_largest(0.13, np.array([3, 9, 27]), 2, 0.5)
    assert np.all(np.diff(medians) > 0)
    assert medians[0] > delta  # water itself is not "known" more often than not


def test_levels():
    chi = np.array([0.0, 0.18, 0.1801, 0.36, 0.3601, np.inf, np.nan])
    levels = [KNOWN, KNOWN, QUESTIONABLE, QUESTIONABLE, UNKNOWN, BROKEN, BROKEN]
    assert judged(chi, 0.18).tolist() == levels
    assert judged(np.array([0.2, 0.2]), np.array([0.1, 0.3])).tolist() == [QUESTIONABLE, KNOWN]


def test_what_the_held_out_limit_calls_known_is_known():
    generator = np.random.default_rng(2)

    def drawn(count):
        chi = generator.exponential(size=count)
        return chi, chi * generator.exponential(size=count)

    shares = []
    for _ in range(50):
        limit = held_out_limit(*drawn(400), 0.5, 0.9)
        chi, errors = drawn(4000)
        shares.append(np.mean(errors[chi <= limit] <= 0.5))
    assert 0.88 < np.mean(shares) < 0.95
    assert held_out_limit(np.ones(30), np.ones(30), 0.5) == 0.0


def test_refusals():
    with pytest.raises(BadInput, match="positive numbers"):
        accuracy_limit((0.13, -1.0))
    with pytest.raises(BadInput, match="two members"):
        size_aware_limit(0.13, 3, 1)
    with pytest.raises(BadInput, match="one error for each"):
        held_out_limit(np.ones(0), np.ones(0), 0.1)
