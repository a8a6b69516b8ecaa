"""Walkers on a ladder of temperatures: their baths, and where they stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import clusters, springs

from alj.arrays import safe_norm
from alj.potentials.combine import committee, local, member_energies_and_forces
from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.potentials.disagreement import expected_largest, largest_deviation
from alj.potentials.meta_networks import (
    MetaNetworks,
    assembled,
    committee_of,
    networks_of,
    of_networks,
)
from alj.sampling import temperature_parallel
from alj.stepping import batched, run
from alj.types import BadInput, Context, Structure

BRIEF = {"name": "nvt_langevin", "steps": 60, "record_every": 3, "timestep_fs": 1.0}


@pytest.fixture(scope="module")
def several():
    """Springs of three members that disagree."""
    one = springs()
    params = jax.tree.map(
        lambda leaf: jnp.stack([leaf, 1.1 * leaf, 1.3 * leaf]), one.init(jax.random.key(0))
    )
    return one, params


def walked(one, params, begin=None, dynamics=BRIEF, **settings):
    sampler = temperature_parallel(committee(one), dynamics=dynamics, **settings)
    start = sampler.place(clusters(3) if begin is None else begin)
    context = Context(params=params)
    stepper = batched(sampler.stepper)
    state = jax.jit(stepper.init)(jax.random.key(1), start, context)
    return run(stepper, jax.random.key(2), state, context, steps=sampler.steps)[1]


@pytest.mark.slow
def test_the_ladder_is_geometric_and_the_indicator_that_of_the_frame(several):
    one, params = several
    frames = walked(one, params, lowest_K=100.0, highest_K=400.0, limit_eV_per_A=None)
    np.testing.assert_allclose(frames.observed.bath_K[-1], [100.0, 200.0, 400.0], rtol=1e-12)
    assert not np.any(frames.stopped)
    assert not np.any(frames.observed.flips)

    from alj.geometry.neighbors import neighbor_table, table_size

    @jax.jit
    def indicator(structure, table):
        return largest_deviation(member_energies_and_forces(one, params, structure, table)[1])

    for walk in range(3):
        s = jax.tree.map(lambda leaf, w=walk: jnp.asarray(leaf[-1, w]), frames.structure)
        size = table_size(jax.tree.map(lambda leaf: leaf[None], s), one.cutoff)
        chi = indicator(s, neighbor_table(s, one.cutoff, size))
        np.testing.assert_allclose(frames.observed.indicator[-1, walk], chi, rtol=1e-9)


def test_a_walker_stops_after_so_many_unknown_frames_in_a_row(several):
    one, params = several
    free = walked(one, params, limit_eV_per_A=None)
    chi = np.asarray(free.observed.indicator)
    limit = float(np.quantile(chi, 0.6)) / 2
    for patience in (1, 3):
        frames = walked(one, params, limit_eV_per_A=limit, unknown_frames=patience)
        stopped = np.asarray(frames.stopped)
        for walk in range(3):
            unknown = chi[:, walk] > 2 * limit
            runs = [all(unknown[i - patience + 1 : i + 1]) for i in range(patience - 1, len(chi))]
            first = runs.index(True) + patience - 1 if any(runs) else len(chi)
            assert not stopped[:first, walk].any()
            assert stopped[first:, walk].all()
        assert stopped.any()


LENGTHS = (1.1, 1.2, 1.3)


def molecules(count):
    positions = np.zeros((count, 2, 3))
    positions[:, 1, 0] = LENGTHS[1]
    none = jnp.zeros(count, int)
    return Structure(
        jnp.asarray(positions), jnp.full((count, 2), 8), jnp.zeros((count, 3, 3)), none, none
    )


@pytest.fixture(scope="module")
def classes():
    """A diatomic molecule that vibrates from the class of short bonds to that of long ones.

    All networks are the same, so that walks do not depend on which of them answer.
    """

    def atomic(params, env):
        stretch = safe_norm(env.vectors) - LENGTHS[1]
        there = env.neighbor_species > 0
        return 0.25 * params["body"]["spring"] * jnp.sum(jnp.where(there, stretch**2, 0.0), axis=1)

    start = {"body": {"spring": jnp.asarray(25.0)}, "readout": {}, "constants": {}}
    body = local(atomic, cutoff=4.0, init=lambda key: start)
    potential = of_networks(MetaNetworks(body, nearest=2, classes=3, nodes=4, atoms=2))
    nodes = spectra_of(LENGTHS)
    networks = networks_of(potential.init(jax.random.key(0)))
    one = assembled(potential.networks, networks, nodes, np.arange(3), 1.0)
    return potential, committee_of(potential.networks, one), nodes


def spectra_of(lengths):
    positions = np.zeros((len(lengths), 2, 3))
    positions[:, 1, 0] = lengths
    return np.asarray(coulomb_spectra(positions, np.full((len(lengths), 2), 8), length=2))


def test_hysteresis_keeps_the_networks_until_others_are_nearer_by_a_margin(classes):
    """Classes and flips of the frames are those of the rule, done again with plain NumPy."""
    potential, params, nodes = classes
    flips = {}
    for hysteresis in (0.0, 0.9):
        frames = walked(
            potential, params, molecules(2), limit_eV_per_A=None, hysteresis=hysteresis,
            dynamics={**BRIEF, "steps": 300},
        )  # fmt: skip
        for walk in range(2):
            places = np.asarray(frames.structure.positions)[:, walk]
            held = np.argsort(np.linalg.norm(nodes - spectra_of(LENGTHS[1:2]), axis=1))[:2]
            expected, counts = [], []
            for spectrum in spectra_of(np.linalg.norm(places[:, 1] - places[:, 0], axis=1)):
                distances = np.linalg.norm(nodes - spectrum[None], axis=1)
                distances[held] *= 1.0 - hysteresis
                now = np.argsort(distances, kind="stable")[:2]
                expected.append(now)
                counts.append(set(now.tolist()) != set(held.tolist()))
                held = now
            np.testing.assert_array_equal(frames.observed.classes[:, walk], expected)
            np.testing.assert_array_equal(frames.observed.flips[:, walk], np.cumsum(counts))
        flips[hysteresis] = np.asarray(frames.observed.flips)[-1].sum()
    assert flips[0.0] >= 10
    assert 0 < flips[0.9] <= flips[0.0] / 2


def test_a_size_aware_limit_is_that_of_the_number_of_atoms(several):
    one, params = several
    free = walked(one, params, limit_eV_per_A=None)
    chi = np.asarray(free.observed.indicator)
    # an accuracy at which about half of the frames of four atoms are unknown
    accuracy = float(np.median(chi)) / 2 / float(expected_largest(1.0, 4, 3))
    frames = walked(one, params, limit="size_aware", accuracy_eV_per_A=accuracy, unknown_frames=1)
    first = np.argmax(chi > np.median(chi), axis=0)
    stopped = np.asarray(frames.stopped)
    for walk in range(3):
        assert not stopped[: first[walk], walk].any()
        assert stopped[first[walk] :, walk].all() == (chi[first[walk], walk] > np.median(chi))


def test_a_single_potential_cannot_be_watched(several):
    one, _ = several
    with pytest.raises(BadInput, match="mean of a committee"):
        temperature_parallel(one)
    with pytest.raises(BadInput, match="lowest_K <= highest_K"):
        temperature_parallel(committee(one), lowest_K=500.0, highest_K=300.0)
    with pytest.raises(BadInput, match=r"found 0\.1 without meta_networks"):
        temperature_parallel(committee(one), hysteresis=0.1)
