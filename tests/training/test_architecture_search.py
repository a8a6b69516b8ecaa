"""The search of widths: what is drawn, what is counted, who wins, and zeros that change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import WIDTHS, toy_batch, toy_potential

from alj.potentials.atomistic import behler_parrinello
from alj.potentials.gaussian_moments import gaussian_moments
from alj.training import architecture_search as search_module
from alj.training import fit, gradient
from alj.training.architecture_search import (
    Search,
    _same,
    descriptor_length,
    drawn,
    filled_up,
    search_round,
    search_settings,
    search_widths,
    settled,
    weights_in,
)
from alj.types import BadInput

BATCH = toy_batch(14)
BUDGET = 30


def toy(widths):
    return toy_potential(widths[0])


def trainer(potential, steps=BUDGET):
    return gradient(
        potential, epochs=steps, batch_size=7, force_weight=1.0, learning_rate=0.05,
        schedule="constant", split="k_fold", precision="float64",
    )  # fmt: skip


def round_of(widths, accuracy, seed=0, candidates=4, train=trainer):
    settings = search_settings(
        start=widths, accuracy_eV_per_A=accuracy, candidates=candidates, rounds=3
    )
    begun = Search(settings.widths)
    return search_round(jax.random.key(seed), begun, settings, toy, train, (BATCH,), 14)


def test_candidates_lie_on_tenths_around_the_best_so_far():
    found = drawn(jax.random.key(1), (200, 100, 50), 40)
    assert found[0] == (200, 100, 50)
    assert len(set(found)) == 40
    steps = (np.array(found) / [200, 100, 50] - 1.0) * 10
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert np.abs(steps).max() == pytest.approx(5)
    assert min(min(one) for one in drawn(jax.random.key(2), (1, 1), 9)) == 1


def test_weights_are_those_of_equation_18():
    assert weights_in(1008, (200, 200, 200)) == 1008 * 200 + 2 * 200**2 + 200
    assert weights_in(1008, (71, 189, 218)) < weights_in(1008, (200, 200, 200))
    assert settled((200, 200), (181, 219))
    assert not settled((200, 200), (180, 200))


def test_the_length_of_the_descriptor_is_read_off_the_network():
    assert descriptor_length(toy, (3,)) == len(WIDTHS)
    behler = descriptor_length(lambda w: behler_parrinello((1, 8), hidden=w), (6, 5))
    one = behler_parrinello((1, 8), hidden=(6, 5)).init(jax.random.key(0))
    assert behler == one["constants"]["mean"].shape[-1]


@pytest.mark.slow
def test_zeros_change_nothing_where_no_rule_looks_at_the_width():
    small, wide = toy_potential(3), toy_potential(5)
    params = small.prepare(small.init(jax.random.key(0)), (BATCH,))
    filled = filled_up(params, wide.init(jax.random.key(1)))
    assert _same(small, wide, params, filled, BATCH)
    # and the slopes of what was filled in stay zero, through a whole training
    key, stack = jax.random.key(3), lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
    found = [
        fit(key, trainer(p)._replace(start="warm", members=1), p, stack(own), (BATCH,), 14)
        for p, own in ((small, params), (wide, filled))
    ]
    late = filled_up(jax.tree.map(lambda leaf: leaf[0], found[0].params), filled)
    for one, other in zip(jax.tree.leaves(late), jax.tree.leaves(found[1].params), strict=True):
        np.testing.assert_allclose(one, other[0], atol=1e-9)


def test_a_potential_whose_units_know_the_width_is_found_out():
    batch = BATCH._replace(structures=BATCH.structures._replace(
        species=jnp.full_like(BATCH.structures.species, 8)))  # fmt: skip
    small, wide = (gaussian_moments((8,), cutoff_A=3.0, hidden=(w,)) for w in (4, 6))
    params = small.init(jax.random.key(0))
    assert not _same(small, wide, params, filled_up(params, wide.init(jax.random.key(1))), batch)


def test_the_smallest_network_that_learns_well_enough_wins():
    easy = round_of((10,), accuracy=10.0)
    (candidates,) = easy.rounds
    assert all(one.reached_after == 1 for one in candidates)
    assert easy.widths == min(candidates, key=lambda one: one.weights).widths
    assert easy.widths < (10,)
    assert not easy.settled
    hopeless = round_of((10,), accuracy=1e-9)
    assert hopeless.widths == (10,)
    assert not hopeless.settled
    assert all(one.reached_after == -1 for one in hopeless.rounds[0])
    # a target between them: the winner has reached it, and nothing smaller has
    errors = sorted(one.error_eV_per_A for one in hopeless.rounds[0])
    between = round_of((10,), accuracy=float(np.mean(errors[:2])))
    good = [one for one in between.rounds[0] if one.reached_after > 0]
    assert between.widths in [one.widths for one in good]
    assert all(one.weights >= weights_in(3, between.widths) for one in good)


@pytest.mark.slow
def test_together_or_one_after_the_other_it_is_the_same(monkeypatch):
    together = round_of((6,), accuracy=1e-9)
    monkeypatch.setattr(search_module, "_same", lambda *_: False)
    alone = round_of((6,), accuracy=1e-9)
    assert [one.widths for one in together.rounds[0]] == [one.widths for one in alone.rounds[0]]
    # minibatches differ, so that errors are near each other and not equal
    for one, other in zip(together.rounds[0], alone.rounds[0], strict=True):
        assert one.error_eV_per_A == pytest.approx(other.error_eV_per_A, rel=0.5)


@pytest.mark.slow
def test_a_search_shrinks_until_it_settles_and_the_same_key_repeats_it():
    settings = search_settings(start=(8,), accuracy_eV_per_A=10.0, candidates=4, rounds=12)
    found = [
        search_widths(jax.random.key(5), settings, toy, lambda p: trainer(p, 2), (BATCH,), 14)
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert found[0].settled or len(found[0].rounds) == 12
    assert found[0].widths[0] < 4


def test_mistakes_are_named():
    with pytest.raises(BadInput, match="two candidates or more"):
        search_settings(candidates=1)
    with pytest.raises(BadInput, match="accuracy_eV_per_A: expected more than 0"):
        search_settings(accuracy_eV_per_A=0.0)
    with pytest.raises(BadInput, match="expected force_weight above 0"):
        round_of((3,), 1.0, train=lambda p: gradient(p, epochs=2))
