"""Bayesian regression: against normal equations written out, slab by slab, and what is refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import take, toy_batch, toy_potential, without_labels

from alj.potentials import lennard_jones
from alj.potentials.combine import everything, readout_rows
from alj.training import bayesian_regression, fit
from alj.types import BadInput

POTENTIAL = toy_potential()
BATCH = toy_batch(6)
NOISE = {"energy_noise_eV": 0.02, "force_noise_eV_per_A": 0.1, "prior": 2.0}


def solved(batch, count, **settings):
    trainer = bayesian_regression(POTENTIAL, **{**NOISE, **settings})
    return fit(jax.random.key(0), trainer, POTENTIAL, None, (batch,), count)


def normal_equations(params, batch, structures, *, stress=None):
    """The posterior mean from Φᵀ Φ/σ² + 1/s², by differentiating one weight at a time."""
    params = jax.tree.map(lambda leaf: leaf[0], params)
    width = params["readout"]["weights"].shape[0]
    rows, wanted = [], []
    program = jax.jit(lambda w, s, n: everything(
        POTENTIAL, {**params, "readout": {"weights": w}}, s, n))  # fmt: skip
    for i in structures:
        s, n, label = jax.tree.map(
            lambda leaf, i=i: leaf[i], (batch.structures, batch.neighbors, batch.labels)
        )
        base = program(jnp.zeros(width), s, n)
        each = [program(w, s, n) for w in jnp.eye(width)]
        parts = [(0, label.energy, 0.02 * np.sqrt(5)), (1, label.forces, 0.1)]
        for place, y, sigma in parts + ([(2, label.stress, stress)] if stress else []):
            y = np.asarray(y - base[place]).ravel()
            phi = np.stack([np.asarray(one[place] - base[place]).ravel() for one in each], 1)
            there = ~np.isnan(y)
            rows.append(phi[there] / sigma)
            wanted.append(y[there] / sigma)
    phi, y = np.concatenate(rows), np.concatenate(wanted)
    return np.linalg.solve(phi.T @ phi + np.eye(width) / 4.0, phi.T @ y)


@pytest.mark.parametrize("slab", [4096, 5])
@pytest.mark.parametrize("stress", [None, 0.01])
def test_the_mean_is_that_of_the_normal_equations(monkeypatch, slab, stress):
    monkeypatch.setattr(sys.modules["alj.training.bayesian_regression"], "SLAB_ROWS", slab)
    batch = without_labels(BATCH, [2])
    made = solved(batch, 6, stress_noise_eV_per_A3=stress)
    expected = normal_equations(made.params, batch, [0, 1, 3, 4, 5], stress=stress)
    np.testing.assert_allclose(made.params["readout"]["weights"][0], expected, rtol=1e-8)


def test_rows_are_what_one_weight_more_would_add():
    """Affine: rows times weights, and what is there without weights, are the predictions."""
    params = POTENTIAL.init(jax.random.key(1))
    pair = jax.tree.map(lambda leaf: leaf[0], (BATCH.structures, BATCH.neighbors))
    found = jax.jit(lambda p, s, n: readout_rows(POTENTIAL, p, s, n))(params, *pair)
    weights = params["readout"]["weights"]
    zero = {**params, "readout": {"weights": jnp.zeros_like(weights)}}
    whole, base = everything(POTENTIAL, params, *pair), everything(POTENTIAL, zero, *pair)
    for row, place in ((found.energy, 0), (found.forces, 1), (found.stress, 2), (found.atomic, 3)):
        np.testing.assert_allclose(row @ weights, whole[place] - base[place], atol=1e-12)


def test_without_labels_the_prior_is_left():
    made = solved(without_labels(take(BATCH, [0, 1]), [0]), 2, prior=1e-9)
    assert np.abs(made.params["readout"]["weights"]).max() < 1e-9


def test_what_is_refused():
    with pytest.raises(BadInput, match="positive noises"):
        bayesian_regression(POTENTIAL, force_noise_eV_per_A=0.0)
    rigid = lennard_jones((1,), epsilon_eV=0.1, sigma_A=2.0, cutoff_A=3.0)
    with pytest.raises(BadInput, match="none; use gaussian_process"):
        bayesian_regression(rigid)
