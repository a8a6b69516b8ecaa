"""What the spread meant in one round is held against the next."""

import numpy as np
from campaign.tiny import labeled, trained

from alj.campaign import datasets, drifting, evidence


def rounds(*scales, count: int = 200):
    """Errors that are normal with so many times the spread, round after round: the warnings."""
    rng, before, said = np.random.default_rng(0), None, []
    for scale in scales:
        spread = rng.uniform(0.01, 0.1, count)
        before, warning = drifting.compared(scale * spread * rng.normal(size=count), spread, before)
        said.append(warning)
    return said


def test_a_spread_that_keeps_its_meaning_raises_no_alarm():
    assert rounds(2.0, 2.0, 2.0, 2.0) == [None] * 4


def test_errors_that_outgrow_the_spread_are_told_once():
    first, second, third = rounds(1.0, 3.0, 3.0)
    assert first is None
    assert "too small" in second
    assert third is None


def test_the_rate_of_false_alarms_is_the_promised_one():
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        before, _ = drifting.compared(rng.normal(size=40), np.ones(40), None)
        alarms += drifting.compared(rng.normal(size=40), np.ones(40), before)[1] is not None
    assert alarms <= 11  # 4 are expected at a rate of 1 %


def test_few_labels_say_nothing_and_what_is_not_known_is_left_out():
    before, warning = drifting.compared(np.ones(19), np.ones(19), None)
    assert (len(before), warning) == (0, None)
    errors = np.where(np.arange(60) % 3, 0.5, np.nan)
    ratios, _ = drifting.compared(errors, np.where(np.arange(60) % 2, 0.1, 0.0), None)
    np.testing.assert_allclose(ratios, np.full(20, 5.0))
    kept, _ = drifting.compared(np.ones(3), np.ones(3), ratios)
    assert kept is ratios


def test_spreads_are_those_of_the_members_per_atom():
    potential, params = trained()
    data = labeled(24)
    found = drifting.spreads(potential, params, data)
    energies = evidence.member_energies(potential, params, data)
    np.testing.assert_allclose(found, energies.std(axis=1, ddof=1) / 8)
    few = datasets.select(data, range(5))
    assert np.isnan(drifting.spreads(potential, params, few)).all()
    assert np.isnan(drifting.spreads(potential, None, data)).all()
