"""Work of pulls against what is known exactly: a spring on a spring, and made-up breaks."""

import numpy as np
import pytest

from alj.analysis.work import (
    Break,
    WorkCurve,
    activation_energy,
    bonds,
    first_break,
    paired_difference,
    work_curve,
)
from alj.types import BadInput


def test_a_slow_pull_on_a_harmonic_bond_costs_the_springs_in_series():
    """At rest k_b ξ = k (λ - ξ): W = ½ k_b k / (k_b + k) λ², and ½ k_b ξ² is in the bond."""
    bond, spring = 3.0, 10.0
    anchor = np.linspace(0.0, 2.0, 4001)
    variable = spring / (bond + spring) * anchor
    curve = work_curve(variable, anchor, spring_eV_per_A2=spring)
    series = bond * spring / (bond + spring)
    np.testing.assert_allclose(curve.work, 0.5 * series * anchor**2, atol=1e-12)
    np.testing.assert_allclose(curve.molecular, 0.5 * bond * variable**2, atol=1e-12)


def test_pulling_back_returns_the_work():
    anchor = np.concatenate([np.linspace(1.0, 3.0, 101), np.linspace(3.0, 1.0, 101)])
    curve = work_curve(0.5 * anchor, anchor, spring_eV_per_A2=4.0)
    assert curve.work[100] > 1.0
    assert curve.work[-1] == pytest.approx(0.0, abs=1e-12)


def chain(lengths):
    """Frames of three carbons in a row with a hydrogen, the first bond as given."""
    frames = np.zeros((len(lengths), 4, 3))
    frames[:, 1, 0] = lengths
    frames[:, 2, 0] = np.asarray(lengths) + 1.5
    frames[:, 3, 1] = 1.1
    return frames


def test_the_first_broken_bond_is_found_and_hydrogen_is_none():
    frames = chain([1.5, 2.4, 2.51, 4.0])
    frames[:, 3, 1] = [1.1, 9.0, 9.0, 9.0]
    species = np.array([6, 6, 6, 1])
    assert bonds(frames[0], species).tolist() == [[0, 1], [1, 2]]
    found = first_break(frames, species=species)
    assert found is not None
    assert (found.frame, found.pair) == (2, (0, 1))
    assert found.length_A == pytest.approx(2.51)
    assert first_break(frames[:2], species=species) is None
    assert first_break(frames, [(1, 2)]) is None
    assert first_break(frames, [(0, 3)]).frame == 1
    assert first_break(frames, species=species, limit_A=2.3).frame == 1


def test_nothing_is_said_of_frames_behind_one_that_is_not_finite():
    frames = chain([1.5, np.nan, 3.0])
    assert first_break(frames, [(0, 1)]) is None


def test_the_activation_energy_is_the_largest_up_to_the_break():
    work = np.array([0.0, 2.0, 6.4, 5.9, 8.0])
    curve = WorkCurve(np.linspace(6.4, 8.9, 5), np.linspace(6.4, 9.4, 5), work, 0.1 * work)
    found = activation_energy(curve, Break(3, (0, 1), 2.6))
    assert (found.energy, found.frame, found.broken) == (6.4, 2, True)
    assert found.molecular == pytest.approx(0.9 * 6.4)
    assert found.variable == curve.variable[2]
    assert activation_energy(curve).energy == 8.0


def test_pairs_cancel_what_they_share():
    shared = np.random.default_rng(0).normal(6.4, 0.2, size=50)
    found = paired_difference(shared + 0.03, shared)
    assert found.mean == pytest.approx(0.03)
    assert found.error < 1e-12


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: work_curve(np.zeros(0), np.zeros(0), spring_eV_per_A2=1.0), "found none"),
        (lambda: work_curve(np.zeros(2), np.zeros(2), spring_eV_per_A2=0.0), "positive"),
        (lambda: first_break(chain([1.5])), "pairs of atoms or their species"),
        (lambda: first_break(chain([1.5]), []), "expected bonds"),
        (
            lambda: activation_energy(
                work_curve(np.zeros(2), np.zeros(2), spring_eV_per_A2=1.0), Break(5, (0, 1), 3.0)
            ),
            "expected a break among 2 frames",
        ),
        (lambda: paired_difference(np.zeros(0), np.zeros(0)), "at least one pair"),
    ],
)
def test_bad_input_is_one_line(act, words):
    with pytest.raises(BadInput, match=words):
        act()
