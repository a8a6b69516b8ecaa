"""The constant of a potential that taught itself, against reweighting and against itself."""

import numpy as np
import pytest

from alj.campaign.anchoring import anchoring
from alj.types import BadInput
from alj.units import BOLTZMANN

ATOMS, TEMPERATURE = 20, 300.0


def draws(count: int, mean: float, spread: float):
    """Network and reference energies of frames of the network's own run, ΔE Gaussian."""
    generator = np.random.default_rng(7)
    reference = generator.normal(-7.0, 0.3, count)
    return reference + generator.normal(mean, spread, count), reference


def found(predicted, reference, ensemble):
    atoms = np.full(len(reference), ATOMS)
    return anchoring(predicted, reference, atoms, ensemble=ensemble, temperature_K=TEMPERATURE)


def test_on_the_references_frames_the_offset_removes_the_bias():
    predicted, reference = draws(40, 0.05, 0.02)
    one = found(predicted, reference, "reference")
    assert one.labels == 40
    shifted = predicted + ATOMS * one.offset
    np.testing.assert_allclose(np.mean(shifted - reference), 0.0, atol=1e-12)
    np.testing.assert_allclose(one.error, one.scatter / 40**0.5)
    np.testing.assert_allclose(one.bias, np.mean(predicted - reference) / ATOMS)


def test_on_its_own_frames_the_offset_is_that_of_reweighted_frames():
    predicted, reference = draws(400_000, -0.01, 0.02)
    one = found(predicted, reference, "network")
    # p_reference ∝ p_network exp(ΔE / kT): the mean error on the reference's frames, exactly.
    difference = predicted - reference
    weights = np.exp(difference / (BOLTZMANN * TEMPERATURE))
    there = np.average(difference, weights=weights)
    np.testing.assert_allclose(one.offset, -there / ATOMS, rtol=5e-3)
    assert abs(there) > 0.004


def test_the_error_bar_covers_the_spread_of_repeats():
    offsets = []
    for start in range(0, 20_000, 20):
        predicted, reference = (x[start : start + 20] for x in draws(20_000, -0.01, 0.02))
        offsets.append(found(predicted, reference, "network"))
    spread = np.std([one.offset for one in offsets])
    claimed = np.sqrt(np.mean([one.error**2 for one in offsets]))
    assert claimed == pytest.approx(spread, rel=0.15)


def test_failed_labels_are_left_out_and_two_are_needed():
    predicted, reference = draws(5, 0.05, 0.02)
    lost = np.where(np.arange(5) == 2, np.nan, reference)
    assert found(predicted, lost, "reference").labels == 4
    with pytest.raises(BadInput, match="at least 2 labeled frames, found 1"):
        found(predicted[:1], reference[:1], "reference")
