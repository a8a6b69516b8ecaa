"""Replica exchange against exact distributions; what it does with tables and frozen replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sampling.springs import begin, clusters, springs
from sampling.wells import at_rest, stiffnesses, wells

from alj.sampling.replica_exchange import replica_exchange
from alj.sampling.thermostats import kinetic_energy
from alj.stepping import batched, run
from alj.types import Context
from alj.units import BOLTZMANN

KEY = jax.random.key(13)
LADDER = (300.0, 450.0, 700.0)
ATOMS, COUNT = 2, 512
BATH = {"timestep_fs": 2.0, "skin_A": 5.0, "drift": "keep"}


def canonical(start):
    """The start with positions drawn from the distribution of each rung, in harmonic wells."""
    places = start.structure.positions
    drawn = np.random.default_rng(3).normal(size=places.shape)
    kT = BOLTZMANN * np.asarray(LADDER)[None, :, None, None]
    moved = places + jnp.asarray(drawn * np.sqrt(kT / stiffnesses(ATOMS)))
    return start._replace(structure=start.structure._replace(positions=moved))


def expected_acceptance(cold: float, hot: float, shape: float) -> float:
    """The mean of min(1, exp Δ) over energies of two harmonic systems, by quadrature."""
    levels = (np.arange(1000) + 0.5) / 1000
    first, second = (scipy.stats.gamma(shape).ppf(levels) * kT for kT in (cold, hot))
    gain = (1 / cold - 1 / hot) * (first[:, None] - second[None, :])
    return float(np.exp(np.minimum(gain, 0.0)).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nvt_langevin", "nvt_nose_hoover"])
def test_exchanges_keep_every_distribution_and_happen_as_often_as_expected(name):
    potential = wells(ATOMS)
    sampler = replica_exchange(
        potential,
        temperatures_K=LADDER,
        exchange_every=20,
        dynamics={"name": name, "steps": 400, "record_every": 400, **BATH},
    )
    assert sampler.ensemble == "NVT"
    stepper = batched(sampler.stepper)
    context = Context(params=potential.init(KEY))
    start = canonical(sampler.place(at_rest(COUNT, ATOMS)))
    state = jax.jit(stepper.init)(jax.random.key(1), start, context)
    after, frames = run(stepper, KEY, state, context, steps=1)
    kT, shape = BOLTZMANN * np.asarray(LADDER), 1.5 * ATOMS
    kinetic = jax.vmap(jax.vmap(kinetic_energy))(after.replicas.momenta, after.replicas.bodies)
    for rung in range(3):
        for energies in (frames.observed.energies[0, :, rung], kinetic[:, rung]):
            found = scipy.stats.kstest(energies / kT[rung], scipy.stats.gamma(shape).cdf)
            assert found.pvalue > 1e-3
            other = kT[(rung + 1) % 3]
            wrong = scipy.stats.kstest(energies / other, scipy.stats.gamma(shape).cdf)
            assert wrong.pvalue < 1e-6
    np.testing.assert_array_equal(after.attempted, 10)
    for pair in range(2):
        share = np.asarray(after.accepted[:, pair]) / 10
        expected = expected_acceptance(kT[pair], kT[pair + 1], shape)
        assert 0.2 < expected < 0.8
        assert abs(share.mean() - expected) < 4 * share.std(ddof=1) / np.sqrt(COUNT)
    # every copy goes everywhere, and none is lost
    np.testing.assert_array_equal(np.sort(after.walkers, axis=1), np.tile([0, 1, 2], (COUNT, 1)))
    assert abs(np.mean(np.asarray(after.walkers) == np.arange(3)) - 1 / 3) < 0.15
    np.testing.assert_allclose(frames.energy[0], frames.observed.energies[0, :, 0])


@pytest.mark.slow
def test_exchanges_are_in_the_books():
    """What the equations of motion and the baths conserve does not jump when rungs trade."""
    potential = wells(ATOMS)
    sampler = replica_exchange(
        potential,
        temperatures_K=LADDER,
        exchange_every=10,
        dynamics={"name": "nvt_nose_hoover", "steps": 200, "record_every": 5, **BATH},
    )
    stepper, state, context = begin(sampler, potential, at_rest(8, ATOMS))
    after, frames = run(stepper, KEY, state, context, steps=sampler.steps)
    assert after.accepted.sum() > 20
    assert np.ptp(frames.energy, axis=0).min() > 0.02
    assert np.ptp(frames.conserved, axis=0).max() < 2e-3


SPRINGY = {"name": "nvt_langevin", "steps": 12, "record_every": 4}


def springy(**settings):
    potential = springs()
    sampler = replica_exchange(
        potential, temperatures_K=LADDER, exchange_every=6, dynamics=SPRINGY, **settings
    )
    return sampler, *begin(sampler, potential, clusters(2, atoms=6))


@pytest.mark.slow
def test_overflow_of_one_replica_is_replayed():
    sampler, stepper, state, context = springy()
    table = state.replicas.table
    small = table.neighbors._replace(
        indices=table.neighbors.indices[..., :2], shifts=table.neighbors.shifts[..., :2, :]
    )
    never = jnp.full_like(table.positions, jnp.nan)
    tight = table._replace(neighbors=small, positions=never)
    _, wide = run(stepper, KEY, state, context, steps=3)
    again = state._replace(replicas=state.replicas._replace(table=tight))
    grown, replayed = run(stepper, KEY, again, context, steps=3)
    assert grown.replicas.table.neighbors.indices.shape[-1] >= 5
    np.testing.assert_allclose(wide.observed.energies, replayed.observed.energies, atol=1e-12)
    assert sampler.steps == 3


@pytest.mark.slow
def test_many_ladders_are_as_each_alone():
    sampler, _, state, context = springy()
    step, keys = jax.jit(sampler.stepper.step), jax.random.split(KEY, 2)
    together, _ = jax.jit(jax.vmap(sampler.stepper.step, (0, 0, None)))(keys, state, context)
    for index in range(2):
        alone, frame = step(keys[index], jax.tree.map(lambda leaf: leaf[index], state), context)
        places = together.replicas.structure.positions[index]
        np.testing.assert_allclose(alone.replicas.structure.positions, places, atol=1e-10)
    assert frame.structure.positions.shape == (6, 3)


@pytest.mark.slow
def test_frames_of_all_take_turns_and_a_frozen_replica_is_shown_and_left_alone():
    _, stepper, state, context = springy(frames="all")
    _, frames = run(stepper, KEY, state, context, steps=3)
    np.testing.assert_array_equal(frames.observed.shown[:, 0], [1, 2, 0])
    picked = np.take_along_axis(frames.observed.energies, frames.observed.shown[..., None], axis=-1)
    np.testing.assert_allclose(frames.energy, picked[..., 0])

    _, stepper, state, context = springy()
    wild = state.replicas.momenta.at[:, 2].multiply(1e4)
    state = state._replace(replicas=state.replicas._replace(momenta=wild))
    after, frames = run(stepper, KEY, state, context, steps=3)
    np.testing.assert_array_equal(frames.observed.shown[:, 0], [2, 0, 0])
    np.testing.assert_array_equal(frames.stopped[:, 0], [True, False, False])
    assert (after.attempted[:, 1] == 0).all()
    assert (after.attempted[:, 0] > 0).all()
    np.testing.assert_array_equal(after.replicas.stopped[0], [False, False, True])
