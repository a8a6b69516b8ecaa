"""The quota of ESOINN-DP: unknown first, 1 : 3 : 1, one per node, unphysical frames aside."""

import jax
import numpy as np
import pytest

from alj.selection.esoinn_queries import BOUNDARY, FAR, INSIDE
from alj.selection.esoinn_quota import esoinn_quota, quotas
from alj.types import BadInput, Evidence

KEY = jax.random.key(0)


def evidence(chi, regions, nodes=None, **changes):
    count = len(chi)
    fields = {
        "force_deviation": np.asarray(chi, float),
        "regions": np.asarray(regions),
        "nodes": np.arange(count) if nodes is None else np.asarray(nodes),
        "spectra": np.random.default_rng(0).normal(size=(count, 4)),
        "closest_radii": np.ones(count),
        "species": np.tile([8, 1, 1], (count, 1)),
        "energies": np.zeros(count),
    }
    return Evidence(**{**fields, **changes})


def picked(found, count, **settings):
    chosen = esoinn_quota(**settings).choose(KEY, found, count)
    return chosen[chosen >= 0]


@pytest.mark.parametrize("seed", range(20))
def test_quotas_are_filled_as_far_as_there_is_anything(seed):
    generator = np.random.default_rng(seed)
    available = tuple(generator.integers(0, 60, size=3).tolist())
    count = int(generator.integers(1, 100))
    found = quotas(available, count, (1.0, 3.0, 1.0))
    assert sum(found) == min(count, sum(available))
    assert all(0 <= own <= most for own, most in zip(found, available, strict=True))
    fair = np.array([1, 3, 1]) / 5 * count
    if all(most >= share + 1 for most, share in zip(available, fair, strict=True)):
        assert np.all(np.abs(np.array(found) - fair) < 1)


def test_an_unfilled_share_passes_to_the_boundary_then_far_then_inside():
    assert quotas((0, 50, 50), 10, (1.0, 3.0, 1.0)) == [0, 8, 2]
    assert quotas((50, 1, 50), 10, (1.0, 3.0, 1.0)) == [2, 1, 7]
    assert quotas((50, 1, 1), 10, (1.0, 3.0, 1.0)) == [8, 1, 1]


def test_unknown_structures_come_before_questionable_ones_and_known_ones_never():
    chi = [0.1] * 10 + [0.3] * 10 + [0.5] * 10
    found = evidence(chi, [BOUNDARY] * 30)
    chosen = picked(found, 15)
    assert set(chosen[:10]) == set(range(20, 30))
    assert set(chosen[10:]) <= set(range(10, 20))
    assert len(picked(found, 30)) == 20
    assert len(picked(found, 30, questionable=False)) == 10


def test_shares_of_regions():
    regions = np.repeat([INSIDE, BOUNDARY, FAR], 40)
    chosen = picked(evidence([1.0] * 120, regions), 50)
    assert np.bincount(regions[chosen]).tolist() == [10, 30, 10]


def test_every_node_gives_one_before_any_gives_a_second():
    nodes = np.repeat(np.arange(6), 5)
    chosen = picked(evidence([1.0] * 30, [BOUNDARY] * 30, nodes), 12)
    assert sorted(np.bincount(nodes[chosen[:6]])) == [1] * 6
    assert sorted(np.bincount(nodes[chosen])) == [2] * 6


def test_farthest_first():
    """Of a line of points the ends and the middle come first."""
    line = np.linspace(0.0, 1.0, 33)[:, None]
    chosen = picked(evidence([1.0] * 33, [BOUNDARY] * 33, np.zeros(33, int), spectra=line), 3)
    gaps = np.diff(np.sort(line[chosen, 0]))
    assert gaps.min() > 0.3


def test_unphysical_frames_are_set_aside_and_counted():
    chi = np.array([1.0, np.nan, 1.0, 1.0, 1.0])
    close = np.array([1.0, 1.0, 0.3, 1.0, 1.0])
    energies = np.array([0.0, 0.0, 0.0, 60.0, np.nan])
    found = evidence(chi, [BOUNDARY] * 5, closest_radii=close, energies=energies)
    # what no potential has walked has no energy: it stays
    assert set(picked(found, 5)) == {0, 4}
    report = esoinn_quota().report(found)
    assert report["set_aside"] == 3
    assert report["broken"] == 1
    assert report["unknown"] == pytest.approx(0.4)


def test_a_size_aware_limit_grows_with_the_number_of_atoms():
    species = np.zeros((2, 27), int)
    species[0, :3], species[1] = [8, 1, 1], np.tile([8, 1, 1], 9)
    found = evidence([0.7, 0.7], [BOUNDARY] * 2, species=species)
    assert set(picked(found, 2, limit="size_aware", questionable=False)) == {0}
    assert set(picked(found, 2, questionable=False)) == {0, 1}


def test_a_held_out_limit_is_what_labels_say_once_there_are_enough():
    """χ of held-out structures is a tenth of their errors: 50 of them are right, up to χ 0.05."""
    chi = np.linspace(0.001, 0.1, 100)
    labels = {"held_out_deviation": chi, "held_out_error": 10.0 * chi}
    candidates = ([0.04, 0.058, 0.2], [BOUNDARY] * 3)
    selector = esoinn_quota(limit="held_out", tolerance_eV_per_A=0.505, coverage=0.9)
    assert {"held_out_deviation", "held_out_error"} <= set(selector.needs)
    report = selector.report(evidence(*candidates, **labels))
    # 50 right ones are at least 90 % of 54
    assert report["limit_eV_per_A"] == pytest.approx(0.054)
    assert report["known"] == report["questionable"] == report["unknown"] == pytest.approx(1 / 3)
    few = {name: values[:8] for name, values in labels.items()}
    report = selector.report(evidence(*candidates, **few))
    assert report["limit_eV_per_A"] == 0.18
    with pytest.raises(
        BadInput, match=r"needs labels that nothing is trained on.*held_out_fraction"
    ):
        selector.report(evidence(*candidates))


def test_settings_out_of_range_are_refused():
    with pytest.raises(BadInput, match="positive limit"):
        esoinn_quota(limit_eV_per_A=0.0)
    with pytest.raises(BadInput, match="not all 0"):
        esoinn_quota(inside_share=0.0, boundary_share=0.0, far_share=0.0)
    with pytest.raises(BadInput, match="coverage: expected a number between 0 and 1"):
        esoinn_quota(coverage=1.0)
    with pytest.raises(BadInput, match="tolerance_eV_per_A: expected more than 0"):
        esoinn_quota(tolerance_eV_per_A=0.0)
