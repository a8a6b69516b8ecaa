"""Uniform choice: the rule against a slow one written from the words, and what it does to tails."""

import jax
import numpy as np
import pytest

from alj.selection.property_uniform import one_trajectory, property_uniform, uniform_in
from alj.types import BadInput, Evidence


def slowly(values, anchors):
    """Structures that anchors take, one after another, by looking at all values each time."""
    flat = [(v, i) for i, row in enumerate(values) for v in row if np.isfinite(v)]
    targets = np.linspace(min(flat)[0], max(flat)[0], anchors)
    order = sorted(range(anchors), key=lambda i: min(i, anchors - 1 - i))
    chosen = []
    for place in order:
        nearest = min(flat, key=lambda one: abs(one[0] - targets[place]))
        flat.remove(nearest)
        if nearest[1] not in chosen:
            chosen.append(nearest[1])
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_anchors_take_the_nearest_value_that_is_left(seed):
    values = np.random.default_rng(seed).normal(size=(15, 4))
    values[3, 2:] = np.nan
    for count in (2, 5, 10, 15):
        found = uniform_in(values, count)
        assert len(set(found)) == len(found) == count
        enough = [slowly(values, anchors) for anchors in range(count, 59)]
        assert found.tolist() in [one[:count] for one in enough if len(one) >= count]


def test_of_one_number_for_each_structure_it_is_an_even_grid():
    values = np.random.default_rng(0).permutation(101).astype(float)[:, None]
    found = uniform_in(values, 11)
    np.testing.assert_array_equal(np.sort(values[found, 0]), np.arange(0, 101, 10))


def test_rare_atoms_are_found_that_the_mean_hides():
    """Structures with one odd atom: all of them by atoms, as few as by chance by the whole."""
    generator = np.random.default_rng(1)
    atomic = generator.normal(size=(400, 50))
    odd = generator.choice(400, 20, replace=False)
    atomic[odd, 0] = np.linspace(8.0, 16.0, 20)
    evidence = Evidence(
        label_atomic_energies=atomic, label_energies=atomic.mean(axis=1),
        columns={"bond": atomic},
    )  # fmt: skip
    key = jax.random.key(0)

    def found(**settings):
        chosen = property_uniform(of="labels", **settings).choose(key, evidence, 40)
        return len(set(chosen) & set(odd))

    assert found(property="atomic_energies") == found(property="column", column="bond") >= 18
    assert found(property="energy") < 18


def test_what_is_not_there_is_refused():
    with pytest.raises(BadInput, match="column: NAME"):
        property_uniform(property="column")
    with pytest.raises(BadInput, match="column: NAME"):
        property_uniform(column="e_bmh")
    key = jax.random.key(0)
    nothing = Evidence(label_atomic_energies=np.full((3, 2), np.nan), columns={"a": np.zeros(3)})
    with pytest.raises(BadInput, match="atomic energies among the labels"):
        property_uniform(of="labels").choose(key, nothing, 2)
    with pytest.raises(BadInput, match="'b' of numbers in the data, found a"):
        property_uniform(property="column", column="b").choose(key, nothing, 2)


def test_one_trajectory_is_one():
    walks = np.repeat([4, 7, 9], [30, 5, 30])
    spacing = np.random.default_rng(0).permutation(65).astype(float)
    evidence = Evidence(walks=walks, spacing=spacing)
    drawn = set()
    for seed in range(8):
        for contiguous in (False, True):
            key = jax.random.key(seed)
            chosen = one_trajectory(contiguous=contiguous).choose(key, evidence, 12)
            assert len(set(chosen)) == 12
            assert len(set(walks[chosen])) == 1
            drawn.add(walks[chosen[0]])
            if contiguous:
                own = np.sort(spacing[walks == walks[chosen[0]]])
                first = np.searchsorted(own, spacing[chosen[0]])
                np.testing.assert_array_equal(spacing[chosen], own[first : first + 12])
    assert drawn == {4, 9}
