"""Sparse Gaussian process: it interpolates, doubts less the more it has seen, and its rows are
derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, padded, table

from alj.arrays import stack_trees
from alj.campaign import datasets
from alj.campaign.evidence import gather
from alj.potentials import gaussian_process
from alj.potentials.combine import energy, energy_and_forces, readout_rows
from alj.potentials.inducing_points import cur, farthest
from alj.training import bayesian_regression, fit
from alj.types import BadInput

SALT = (11, 17)
SMALL = {"cutoff_A": 3.9, "atom_sigma_A": 0.6, "n_max": 4, "l_max": 3}
CAPACITY = 24
STRUCTURES = [padded(liquid(seed, atoms=8, species=SALT), 10) for seed in range(6)]
ENERGIES = [-2.0, 1.0, 0.3, -0.7, 0.0, 1.4]


def batch_of(places):
    return labeled(
        [STRUCTURES[i] for i in places], [ENERGIES[i] for i in places], SMALL["cutoff_A"], CAPACITY
    )


def trained(places, points=24, **noise):
    potential = gaussian_process(SALT, inducing_points=points, **SMALL)
    trainer = bayesian_regression(potential, **noise)
    batch = batch_of(places)
    made = fit(jax.random.key(0), trainer, potential, None, (batch,), len(places))
    return potential, jax.tree.map(lambda leaf: leaf[0], made.params)


def told(potential, params, i):
    s = STRUCTURES[i]
    n = table(s, 3.9, CAPACITY)
    return float(jax.jit(energy, static_argnums=0)(potential, params, s, n))


def doubted(potential, params, i):
    s = STRUCTURES[i]
    return jax.jit(potential.variances)(params, s, table(s, 3.9, CAPACITY))


@pytest.mark.slow
def test_with_every_surrounding_inducing_and_no_noise_it_interpolates():
    potential, params = trained(range(6), energy_noise_eV=1e-7)
    found = [told(potential, params, i) for i in range(6)]
    np.testing.assert_allclose(found, ENERGIES, atol=1e-4)
    potential, params = trained(range(6), energy_noise_eV=10.0)
    assert max(abs(told(potential, params, i) - e) for i, e in enumerate(ENERGIES)) > 0.1


@pytest.mark.slow
def test_doubt_shrinks_with_data_and_is_the_priors_without_any():
    potential, whole = trained(range(6), energy_noise_eV=1e-3)
    # The same inducing points: what shrinks is what labels have taught.
    empty = {**whole, "constants": {**whole["constants"], "posterior": jnp.eye(48)}}
    before = doubted(potential, empty, 5)
    np.testing.assert_allclose(before.atomic[:8], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(before.atomic[8:], 0.0)
    sizes = []
    for known in (1, 3, 5, 6):
        batch = batch_of(range(known))
        trainer = bayesian_regression(potential, energy_noise_eV=1e-3)
        start = jax.tree.map(lambda leaf: leaf[None], empty)
        made = fit(
            jax.random.key(0), trainer._replace(start="warm"), potential._replace(rebase=None),
            start, (batch,), known,
        )  # fmt: skip
        found = doubted(potential, jax.tree.map(lambda leaf: leaf[0], made.params), 5)
        sizes.append(float(found.energy))
        assert np.all(found.atomic <= before.atomic + 1e-9)
        assert np.all(found.forces <= before.forces + 1e-9)
    assert before.energy > sizes[0] > sizes[1] > sizes[2] > sizes[3]
    # Of a structure trained on: about the noise of its own label, 8 atoms.
    assert sizes[3] < 8 * 1e-6 * 1.01


def test_the_posterior_is_that_of_the_whole_gaussian_process():
    """Every surrounding inducing: mean and variance of a new energy by the textbook's formulas."""
    potential, params = trained(range(5), points=20, energy_noise_eV=0.05)
    describe = jax.jit(potential.describe)
    about = [describe(s, table(s, 3.9, CAPACITY))[1] for s in STRUCTURES]

    def covariance(a, b):
        same = a.of.astype(float) @ b.of.astype(float).T
        return float(jnp.sum((a.inputs @ b.inputs.T) ** 4 * same))

    kernel = np.array([[covariance(a, b) for b in about] for a in about])
    known, new = kernel[:5, :5] + 8 * 0.05**2 * np.eye(5), kernel[5, :5]
    mean = np.mean(ENERGIES[:5])  # the composition never varies
    expected = mean + new @ np.linalg.solve(known, np.array(ENERGIES[:5]) - mean)
    assert told(potential, params, 5) == pytest.approx(expected, abs=1e-5)
    # The variance where all is represented: of a structure that was trained on.
    found = doubted(potential, params, 2)
    left = kernel[2, 2] - kernel[2, :5] @ np.linalg.solve(known, kernel[2, :5])
    assert float(found.energy) == pytest.approx(left, rel=1e-4)


def test_rows_are_derivatives():
    potential, params = trained(range(6), points=9)
    s = STRUCTURES[3]
    n = table(s, 4.2, CAPACITY)
    rows = [
        jax.jit(lambda p, one=one: readout_rows(one, p, s, n))(params)
        for one in (potential, potential._replace(readout_rows=None))
    ]
    for quick, slow in zip(*rows, strict=True):
        np.testing.assert_allclose(quick, slow, atol=1e-11)
    weights = params["readout"]["weights"].ravel()
    _, forces = jax.jit(energy_and_forces, static_argnums=0)(potential, params, s, n)
    np.testing.assert_allclose(rows[0].forces @ weights, forces, atol=1e-9)


@pytest.mark.parametrize("choose", [cur, farthest])
def test_inducing_points_are_different_and_their_own(choose):
    rows = np.random.default_rng(0).normal(size=(30, 4))
    rows[20:] = rows[:10]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    own = np.arange(30) % 3 != 0
    found = np.asarray(choose(jnp.asarray(rows), jnp.asarray(own), 16, 2))
    there = np.linalg.norm(found, axis=1) > 0.5
    wanted = 16 if choose is farthest else 10  # (p·p')² in four dimensions has rank 10
    assert there.sum() == wanted
    picked = [np.flatnonzero(np.abs(rows - one).max(axis=1) < 1e-12) for one in found[there]]
    assert all(own[places].any() for places in picked)
    assert len({places[0] for places in picked}) == wanted


@pytest.mark.slow
def test_its_doubt_is_evidence():
    """For selectors of committees, of one model alone; and Fisher scores by the same rows."""
    potential, params = trained(range(4))
    data = datasets.append(datasets.empty(), [jax.tree.map(np.asarray, s) for s in STRUCTURES])
    known = datasets.select(data, [0, 1, 2, 3])
    known = known._replace(energy=np.array(ENERGIES[:4]))
    needs = (
        "energy_spread",
        "force_spread",
        "qs1",
        "features",
        "known_features",
        "atomic_energies",
    )
    found = gather(potential, stack_trees([params]), data, known, needs)
    own = doubted(potential, params, 5)
    assert found.energy_spread[5] * 8 == pytest.approx(float(own.energy) ** 0.5, rel=1e-6)
    expected = np.sqrt(np.sum(np.asarray(own.forces), axis=1))[:8]
    np.testing.assert_allclose(found.force_spread[5], expected, rtol=1e-6)
    assert np.min(found.energy_spread[4:]) > np.max(found.energy_spread[:4])
    assert np.min(found.qs1[4:]) > np.max(found.qs1[:4])


def test_settings_out_of_range():
    for wrong in ({"zeta": 0}, {"delta_eV": 0.0}, {"inducing_points": 0}, {"transition_A": 9.0}):
        with pytest.raises(BadInput):
            gaussian_process(SALT, **wrong)
