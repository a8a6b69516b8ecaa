"""Choice along steered walks: thresholds of their own, differences, and the whole of the path."""

import jax
import numpy as np
import pytest

from alj.selection.along_path import along_path
from alj.types import BadInput, Evidence

KEY = jax.random.key(0)


def pulled(spread, energies, walks=None, variable=None) -> Evidence:
    """Frames in order; the variable grows by 0.02 Å a frame."""
    count = len(spread)
    return Evidence(
        energies=np.asarray(energies, float),
        energy_spread=np.asarray(spread, float),
        walks=np.zeros(count, int) if walks is None else walks,
        spacing=np.arange(count, dtype=float),
        variable=0.02 * np.arange(count) if variable is None else variable,
    )


def test_the_threshold_is_that_of_the_beginning_of_each_walk():
    calm = np.tile([0.9, 1.1], 50)  # mean 1, deviation 0.1
    loud = np.linspace(1.0, 2.0, 50)
    one = np.concatenate([calm, loud])
    # a second walk whose spread is ten times as large throughout must be judged by its own
    both = np.concatenate([one, 10 * one])
    walks = np.repeat([0, 1], 150)
    evidence = pulled(both, np.arange(300.0), walks)
    selector = along_path(count=200, reference_frames=100)
    chosen = selector.choose(KEY, evidence, 200)
    chosen = chosen[chosen >= 0]
    expected = np.flatnonzero(one > 1.0 + 3 * 0.1)
    np.testing.assert_array_equal(np.sort(chosen), np.concatenate([expected, expected + 150]))
    report = selector.report(evidence)
    assert report["beyond"] == 2 * len(expected)
    np.testing.assert_allclose(report["threshold_eV_per_atom"], 0.5 * (1.3 + 13.0))


def test_a_frame_must_differ_in_energy_and_in_the_variable():
    spread = np.concatenate([np.tile([0.9, 1.1], 5), np.full(20, 5.0)])
    energies = 0.02 * np.arange(30)  # eV: 1 kcal/mol is more than two frames
    selector = along_path(count=30, reference_frames=10)
    chosen = selector.choose(KEY, pulled(spread, energies), 30)
    np.testing.assert_array_equal(chosen[chosen >= 0], np.arange(10, 30, 3))
    still = pulled(spread, energies, variable=np.full(30, 6.4))
    chosen = selector.choose(KEY, still, 30)
    assert chosen[chosen >= 0].tolist() == [10]


def test_the_choice_reaches_the_end_and_is_dense_where_the_members_differ():
    spread = np.concatenate([np.tile([0.9, 1.1], 5), np.full(80, 2.0), np.full(20, 16.0)])
    evidence = pulled(spread, np.arange(110.0))
    chosen = along_path(count=20, reference_frames=10).choose(KEY, evidence, 20)
    assert chosen.min() == 10
    assert chosen.max() == 109
    late = np.sum(chosen >= 90)
    assert 12 <= late <= 15  # two thirds of the summed spread


def test_frames_before_the_pull_are_passed_over_and_bad_input_is_one_line():
    spread = np.concatenate([np.full(20, 9.0), np.tile([0.9, 1.1], 10), np.full(5, 3.0)])
    variable = np.concatenate([np.full(20, np.nan), 0.1 * np.arange(25)])
    evidence = pulled(spread, np.arange(45.0), variable=variable)
    chosen = along_path(reference_frames=20).choose(KEY, evidence, 50)
    assert chosen[chosen >= 0].tolist() == list(range(40, 45))
    nothing = pulled(spread, np.arange(45.0), variable=np.full(45, np.nan))
    assert np.all(along_path(reference_frames=20).choose(KEY, nothing, 5) == -1)
    with pytest.raises(BadInput, match="reference_frames"):
        along_path(reference_frames=1)
    with pytest.raises(BadInput, match="energy_step_eV"):
        along_path(energy_step_eV=-1.0)
