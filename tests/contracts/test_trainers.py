"""What every trainer must do: learn, in committees, with labels missing, and say when it failed."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import take, toy_batch, toy_potential, without_labels

from alj.training import TRAINERS, Fold, NotFinite, fit
from alj.training.descriptions import describe
from alj.types import BadInput, Context

POTENTIAL = toy_potential()
SETTINGS = {
    "gradient": {"epochs": 12, "batch_size": 4, "learning_rate": 0.02, "precision": "float64"},
    "levenberg_marquardt": {"steps": 12},
    "bayesian_regression": {"split": "k_fold"},
}
SOLVED = {"bayesian_regression"}
"""Trainers declared to solve in one step of host code: nothing falls, nothing is traced."""
BATCH = toy_batch(14)


@cache
def trainer(name):
    """One object per trainer: its identity is what the compiled step belongs to."""
    builder = {made.__name__: made for made in TRAINERS}[name]
    settings = SETTINGS.get(name, {})
    return builder(POTENTIAL, members=3, **settings)


def trained(key, some, params, batch, count, **options):
    """Blocks of four steps everywhere: one compiled program serves nearly all tests."""
    seed = jax.random.key(key)
    return fit(seed, some, POTENTIAL, params, (batch,), count, **{"block": 4, **options})


@cache
def fitted(name):
    """The reference training, with the states after each block."""
    kept = {}

    def keep(done, state, progress):
        kept[done] = state

    made = trained(1, trainer(name), None, BATCH, 14, on_block=keep)
    return made, kept


def same(first, second):
    """Whether two trees agree bit by bit."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.fixture(params=[builder.__name__ for builder in TRAINERS])
def name(request):
    return request.param


@pytest.fixture(params=[each.__name__ for each in TRAINERS if each.__name__ not in SOLVED])
def descending(request):
    return request.param


def test_builds_with_its_defaults():
    for builder in TRAINERS:
        assert builder(POTENTIAL).steps > 0


def test_loss_falls_for_every_member(descending):
    history = fitted(descending)[0].history
    assert history.train_loss.shape == (12, 3)
    assert np.all(history.train_loss[-1] < 0.8 * history.train_loss[0])
    assert np.all(history.finite)


@pytest.mark.parametrize("name", sorted(SOLVED))
def test_one_step_solves(name):
    history = fitted(name)[0].history
    assert history.train_loss.shape == (1, 3)
    assert np.all(history.finite)


def test_members_differ_and_the_best_has_the_lowest_loss(name):
    made = fitted(name)[0]
    weights = np.asarray(made.params["readout"]["weights"])
    assert weights.shape == (3, 3)
    assert np.all(np.std(weights, axis=0) > 0)
    assert made.best == np.argmin(made.loss)


def test_best_on_validation_is_the_best_of_the_history(name):
    """The kept params, judged from outside by the potential itself, have the kept error."""
    made = fitted(name)[0]
    assert np.all(made.loss <= np.min(made.history.validation_loss, axis=0) * (1 + 1e-12))
    described = jax.vmap(POTENTIAL.describe)(BATCH.structures, BATCH.neighbors)
    evaluate = jax.vmap(jax.vmap(POTENTIAL.evaluate, (None, 0)), (0, None))
    energies = jnp.sum(evaluate(made.params, described), axis=-1)
    error = (np.asarray(energies) - np.asarray(BATCH.labels.energy)[None]) / 5
    for member in range(3):
        left_out = ~made.train[member]
        assert 0 < left_out.sum() < 14
        found = np.sqrt(np.mean(error[member, left_out] ** 2))
        assert found == pytest.approx(made.error.energy[member], rel=1e-9)


def test_resumed_with_uneven_blocks_is_bit_identical(name):
    made, kept = fitted(name)
    at = min(kept)
    again = fit(
        jax.random.key(1),
        trainer(name),
        POTENTIAL,
        None,
        (BATCH,),
        14,
        resume=(at, kept[at]),
        block=8,
    )
    assert again.steps == trainer(name).steps
    assert same(made.params, again.params)
    assert same(made.loss, again.loss)


def test_structures_without_labels_count_for_nothing(name):
    """Same result as with those rows absent: NaN reaches neither losses nor gradients."""
    some, holes = take(BATCH, list(range(7))), without_labels(take(BATCH, list(range(8))), [7])
    few = trained(2, trainer(name), None, some, 7)
    more = trained(2, trainer(name), None, holes, 8)
    for a, b in zip(jax.tree.leaves(few.params), jax.tree.leaves(more.params), strict=True):
        assert np.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_single_missing_labels_are_ignored(name):
    """One energy without label leaves everything finite."""
    labels = BATCH.labels._replace(energy=BATCH.labels.energy.at[0].set(jnp.nan))
    made = trained(1, trainer(name), None, BATCH._replace(labels=labels), 14)
    assert np.all(made.finite)
    assert np.all(np.isfinite(made.loss))


def test_nan_is_reported(name):
    """Atoms at NaN: the members are named, nothing is returned as if it were good."""
    positions = BATCH.structures.positions.at[:, 0].set(jnp.nan)
    broken = BATCH._replace(structures=BATCH.structures._replace(positions=positions))
    with pytest.raises(NotFinite, match=r"0, 1, 2"):
        trained(1, trainer(name), None, broken, 14)


def test_few_structures_train_all_members(name):
    made = trained(3, trainer(name), None, take(BATCH, [0, 1, 2]), 3)
    assert np.all(made.train)
    assert np.all(np.isnan(made.history.validation_error.energy))
    assert np.std(np.asarray(made.params["readout"]["weights"])[:, 0]) > 0


def test_growing_data_of_one_bucket_compile_once(descending):
    traces = []
    base = trainer(descending)

    def counted(key, state, context):
        traces.append(1)
        return base.stepper.step(key, state, context)

    watched = base._replace(stepper=base.stepper._replace(step=counted))
    for count in (5, 6, 8):
        some = take(BATCH, list(range(count)))
        trained(count, watched, None, some, count)
    assert len(traces) == 1


def test_warm_start_goes_on_from_the_params(name):
    """Without a single step of training the params come back as they went in."""
    made = fitted(name)[0]
    idle = trainer(name)._replace(start="warm", steps=0)
    again = trained(9, idle, made.params, BATCH, 14)
    assert same(made.params, again.params)
    fresh = idle._replace(start="fresh")
    assert not same(made.params, trained(9, fresh, made.params, BATCH, 14).params)
    two = jax.tree.map(lambda leaf: leaf[:2], made.params)
    with pytest.raises(BadInput, match="3 members, found 2"):
        trained(9, idle, two, BATCH, 14)


def test_a_step_runs_alone_and_in_a_vmap(descending):
    """The stepper is written for one member; several in a vmap do the same to rounding."""
    one = trainer(descending)
    described = describe(POTENTIAL, BATCH, one.quantities)
    mask = jnp.ones(16, bool).at[14:].set(False)
    fold = Fold((BATCH,), (described,), mask, jnp.zeros(16, bool))
    starts = jax.vmap(POTENTIAL.init)(jax.random.split(jax.random.key(5), 2))
    context = Context(data=fold)

    def stepped(start):
        state = one.stepper.init(jax.random.key(6), start, context)
        return one.params_of(one.stepper.step(jax.random.key(7), state, context)[0])

    together = jax.jit(jax.vmap(stepped))(starts)
    alone = jax.jit(stepped)(jax.tree.map(lambda leaf: leaf[0], starts))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        assert np.allclose(a[0], b, rtol=1e-7, atol=1e-9)
