"""Walkers on a ladder of temperatures: their baths, and where they stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import clusters, springs

from alj.potentials.combine import committee, member_energies_and_forces
from alj.potentials.disagreement import largest_deviation
from alj.sampling import temperature_parallel
from alj.stepping import batched, run
from alj.types import BadInput, Context

BRIEF = {"name": "nvt_langevin", "steps": 60, "record_every": 3, "timestep_fs": 1.0}


@pytest.fixture(scope="module")
def several():
    """Springs of three members that disagree."""
    one = springs()
    params = jax.tree.map(
        lambda leaf: jnp.stack([leaf, 1.1 * leaf, 1.3 * leaf]), one.init(jax.random.key(0))
    )
    return one, params


def walked(one, params, **settings):
    sampler = temperature_parallel(committee(one), dynamics=BRIEF, **settings)
    start, context = sampler.place(clusters(3)), Context(params=params)
    stepper = batched(sampler.stepper)
    state = jax.jit(stepper.init)(jax.random.key(1), start, context)
    return run(stepper, jax.random.key(2), state, context, steps=sampler.steps)[1]


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


def test_a_single_potential_cannot_be_watched(several):
    one, _ = several
    with pytest.raises(BadInput, match="mean of a committee"):
        temperature_parallel(one)
    with pytest.raises(BadInput, match="lowest_K <= highest_K"):
        temperature_parallel(committee(one), lowest_K=500.0, highest_K=300.0)
