"""Samplers against exact results for harmonic systems."""

import jax
import numpy as np
import pytest
import scipy.stats
from sampling.springs import begin, clusters, freedoms, springs

from alj.sampling import metropolis_mc, nested_mc
from alj.stepping import run
from alj.units import BOLTZMANN


def test_metropolis_gives_the_canonical_distribution():
    potential = springs()
    temperature, chains, atoms = 600.0, 256, 4
    sampler = metropolis_mc(
        potential, cycles=600, cycles_per_frame=60, temperature_K=temperature, step_A=0.5
    )
    stepper, state, context = begin(sampler, potential, clusters(chains, atoms))
    _, frames = run(stepper, jax.random.key(3), state, context, steps=sampler.steps)
    # 60 cycles apart the frames of a cluster of 4 are independent; the first two equilibrate.
    reduced = frames.energy[3:].ravel() / (BOLTZMANN * temperature)
    shape = freedoms(atoms) / 2
    assert scipy.stats.kstest(reduced, scipy.stats.gamma(shape).cdf).pvalue > 1e-3
    error = np.sqrt(shape / len(reduced))
    assert abs(reduced.mean() - shape) < 4 * error


@pytest.mark.slow
def test_nested_ensemble_finds_the_density_of_states():
    potential = springs()
    chains, atoms = 64, 4
    sampler = nested_mc(
        potential,
        cycles=2000,
        cycles_per_stage=50,
        step_A=0.5,
        initial_ceiling_eV_per_atom=1.0,
    )
    stepper, state, context = begin(sampler, potential, clusters(chains, atoms))
    _, frames = run(stepper, jax.random.key(4), state, context, steps=sampler.steps)
    ladder = np.log(frames.ceiling[3:])
    per_stage = np.diff(ladder, axis=0)
    # A halved volume: E^(d/2) falls by 2, so ln E falls by (2/d) ln 2 in every stage.
    expected = -2.0 / freedoms(atoms) * np.log(2.0)
    means = per_stage.mean(axis=0)
    error = means.std(ddof=1) / np.sqrt(chains)
    assert error < 0.01 * abs(expected)
    assert abs(means.mean() - expected) < max(4 * error, 0.01 * abs(expected))


@pytest.mark.slow
def test_a_nested_walk_above_its_ceiling_descends():
    potential = springs()
    high = clusters(2)
    high = high._replace(positions=20.0 + 10.0 * (high.positions - 20.0))
    sampler = nested_mc(potential, cycles=200, initial_ceiling_eV_per_atom=1e-4)
    stepper, state, context = begin(sampler, potential, high)
    _, frames = run(stepper, jax.random.key(5), state, context, steps=sampler.steps)
    assert np.all(np.diff(frames.energy[:10], axis=0) <= 1e-12)
    assert np.all(frames.energy[-1] < frames.energy[0] / 2)
