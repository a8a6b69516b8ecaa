"""Splits: who trains, who validates."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alj.training.splits import everything, inherited, k_fold, random, split_by_name
from alj.types import BadInput


@settings(deadline=None, max_examples=20)
@given(count=st.integers(10, 60), members=st.integers(1, 12), seed=st.integers(0, 100))
def test_folds_do_not_overlap_and_cover(count, members, seed):
    left_out = ~np.asarray(k_fold(0.1)(jax.random.key(seed), count, members))
    assert left_out.shape == (members, count)
    folds = min(max(members, 10), count)
    times = left_out[:folds].sum(axis=0)
    assert times.max() <= 1
    if members >= folds:
        assert times.min() == 1
    assert left_out.sum(axis=1).max() - left_out.sum(axis=1).min() <= 1


def test_random_leaves_out_the_fraction_and_follows_the_key():
    split = random(0.2)
    first, again, other = (np.asarray(split(jax.random.key(seed), 50, 3)) for seed in (1, 1, 2))
    assert np.all((~first).sum(axis=1) == 10)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_folds_stay_while_the_data_grow():
    split = k_fold(0.3)
    few, many = split(jax.random.key(0), 20, 4), split(jax.random.key(1), 90, 4)
    assert np.array_equal(few, many[:, :20])
    assert 0.2 < (~many).mean() < 0.4


def test_inherited_takes_over_the_split_of_the_best_and_draws_what_is_new():
    split = inherited(0.2)
    first = split(jax.random.key(0), 20, 4)
    assert np.all((~first).sum(axis=1) == 4)
    assert not np.array_equal(first[0], first[1])
    later = split(jax.random.key(1), 50, 4, first[2])
    assert np.array_equal(later[:, :20], np.tile(first[2], (4, 1)))
    assert np.all((~later[:, 20:]).sum(axis=1) == 6)
    assert not np.array_equal(later[0], later[1])
    assert np.array_equal(split(jax.random.key(2), 20, 3, first[2]), np.tile(first[2], (3, 1)))
    assert split(jax.random.key(2), 21, 3, first[2])[:, 20].all()


def test_names():
    assert np.all(split_by_name("all", 0.1)(jax.random.key(0), 5, 2))
    assert np.all(everything()(jax.random.key(0), 5, 2))
    with pytest.raises(BadInput, match="k_fold, random, inherited, all"):
        split_by_name("kfold", 0.1)
