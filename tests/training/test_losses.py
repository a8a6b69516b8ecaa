"""Losses against plain NumPy, and descriptions computed once against everything computed anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import toy_batch, toy_potential

from alj.geometry.neighbors import TableSize, batch_tables
from alj.training.batching import enlarged
from alj.training.descriptions import describe, predict_batch, predict_together
from alj.training.losses import (
    Emphasis,
    Prediction,
    batch_residuals,
    high_energy_weights,
    loss,
    root_mean_squares,
    structure_sums,
    sums,
    units,
)

BATCH = toy_batch(6)
EVERYTHING = ("energy", "forces", "stress")


def predicted(seed=3):
    generator = np.random.default_rng(seed)
    return Prediction(
        jnp.asarray(generator.normal(size=6)),
        jnp.asarray(generator.normal(size=(6, 5, 3))),
        jnp.asarray(generator.normal(size=(6, 3, 3))),
    )


def with_holes():
    labels = BATCH.labels._replace(
        energy=BATCH.labels.energy.at[1].set(jnp.nan),
        forces=BATCH.labels.forces.at[2, 0].set(jnp.nan).at[3].set(jnp.nan),
        stress=BATCH.labels.stress.at[:5].set(jnp.nan),
    )
    return BATCH._replace(labels=labels, weights=jnp.asarray([1.0, 2.0, 3.0, 1.0, 0.5, 0.0]))


def test_loss_equals_numpy_over_what_is_labeled():
    batch, guess = with_holes(), predicted()
    weights, scale = Emphasis(1.0, 0.3, 0.2), Emphasis(0.05, 2.0, 0.1)
    total = sums(batch_residuals(guess, batch), batch.weights)
    w = np.asarray(batch.weights)
    energy = ((np.asarray(guess.energy) - np.asarray(batch.labels.energy)) / 5 / 0.05) ** 2
    forces = ((np.asarray(guess.forces) - np.asarray(batch.labels.forces)) / 2.0) ** 2

    def mean(values):
        wide = np.broadcast_to(w.reshape((-1,) + (1,) * (values.ndim - 1)), values.shape)
        known = ~np.isnan(values) & (wide > 0)
        return np.sum((wide * values)[known]) / np.sum(wide[known])

    # The only stress label belongs to a structure of weight 0: stress adds nothing.
    expected = mean(energy) + 0.3 * mean(forces)
    assert float(loss(total, weights, scale)) == pytest.approx(expected, rel=1e-12)
    errors = root_mean_squares(total)
    assert float(errors.energy) == pytest.approx(0.05 * np.sqrt(mean(energy)), rel=1e-12)
    assert np.isnan(errors.stress)


def test_loss_over_structures_equals_numpy():
    """w_E <(ΔE)²/√N> + w_F <|ΔF|²/N>; a structure without a label is not in its mean."""
    batch, guess = with_holes(), predicted()
    atoms = jnp.asarray([5.0, 4.0, 5.0, 5.0, 3.0, 5.0])
    total = structure_sums(batch_residuals(guess, batch), batch.weights, atoms)
    energy, force = np.zeros(2), np.zeros(2)
    for i, weight in enumerate(np.asarray(batch.weights)):
        # Residuals of the energy come per atom of the structure, which has 5.
        off = (float(guess.energy[i]) - float(batch.labels.energy[i])) / 5 * float(atoms[i])
        if not np.isnan(off):
            energy += weight * np.array([off**2 / np.sqrt(atoms[i]), 1.0])
        off = np.asarray(guess.forces[i]) - np.asarray(batch.labels.forces[i])
        if not np.isnan(off).all():
            force += weight * np.array([np.nansum(off**2) / atoms[i], 1.0])
    one = Emphasis(1.0, 1.0, 1.0)
    expected = energy[0] / energy[1] + 0.3 * force[0] / force[1]
    assert float(loss(total, Emphasis(1.0, 0.3, 0.2), one)) == pytest.approx(expected, rel=1e-12)


def test_charges_and_dipoles_count_where_they_are_given():
    """Neither what is NaN, nor padded atoms, nor dipoles of ions, which depend on the origin."""
    generator = np.random.default_rng(4)
    charges, dipole = 0.4 * generator.normal(size=(6, 5)), generator.normal(size=(6, 3))
    charges[1], dipole[3] = np.nan, np.nan
    labels = BATCH.labels._replace(charges=jnp.asarray(charges), dipole=jnp.asarray(dipole))
    structures = BATCH.structures._replace(
        species=BATCH.structures.species.at[4, 3:].set(0), charge=jnp.asarray([0, 0, 1, 0, 0, 0])
    )
    batch = BATCH._replace(
        labels=labels, structures=structures, weights=jnp.asarray([1.0, 2.0, 3.0, 1.0, 0.5, 0.0])
    )
    guess = Prediction(jnp.zeros(6), charges=jnp.full((6, 5), 0.3), dipole=jnp.full((6, 3), -0.2))
    found, w = batch_residuals(guess, batch), np.asarray(batch.weights)
    off, moment = (0.3 - charges) ** 2, np.sum((-0.2 - dipole) ** 2, axis=1)
    off[4, 3:], moment[2] = np.nan, np.nan
    mean = np.nansum(w[:, None] * off) / np.sum(w[:, None] * np.isfinite(off))
    moments = np.nansum(w * moment) / (3 * np.sum(w * np.isfinite(moment)))
    total = sums(found, batch.weights)
    weights, scale = Emphasis(0.0, charges=0.5, dipole=2.0), Emphasis(1.0, charges=0.1, dipole=0.4)
    expected = 0.5 * mean / 0.1**2 + 2.0 * moments / 0.4**2
    assert float(loss(total, weights, scale)) == pytest.approx(expected, rel=1e-12)
    errors = root_mean_squares(total)
    assert float(errors.charges) == pytest.approx(np.sqrt(mean), rel=1e-12)
    assert float(errors.dipole) == pytest.approx(np.sqrt(moments), rel=1e-12)
    atoms = np.array([5.0, 5.0, 5.0, 5.0, 3.0, 5.0])
    each = np.nansum(off, axis=1) / atoms
    known = w * np.isfinite(charges[:, 0])
    total = structure_sums(found, batch.weights, jnp.asarray(atoms))
    expected = np.sum(known * each) / np.sum(known) + 3 * moments
    one = Emphasis(0.0, 0.0, 0.0, 1.0, 1.0)
    assert float(loss(total, one, one._replace(energy=1.0))) == pytest.approx(expected, rel=1e-12)
    measured = units((batch,))
    assert float(measured.charges) == pytest.approx(_spread(batch, charges), rel=1e-12)
    assert float(measured.dipole) == pytest.approx(np.sqrt(np.nanmean(dipole[[0, 1, 4, 5]] ** 2)))


def _spread(batch, charges) -> float:
    """Of charges about the mean of their element."""
    species = np.asarray(batch.structures.species)[:, : charges.shape[1]]
    known = np.isfinite(charges) & (species > 0)
    off = charges[known]
    for number in np.unique(species[known]):
        off[species[known] == number] -= off[species[known] == number].mean()
    return float(np.sqrt(np.mean(off**2)))


@pytest.mark.parametrize("columns", [3, 16], ids=["of neighbors", "of all atoms"])
def test_minibatch_equals_one_after_the_other(columns):
    """Chosen structures together, and the gradient of their forces: as each anew."""
    potential, quantities = toy_potential(), EVERYTHING
    structures = BATCH.structures._replace(cell=10.0 * BATCH.structures.cell)
    neighbors = batch_tables(structures, potential.cutoff, size=TableSize(columns, (1, 1, 1)))
    batch = BATCH._replace(structures=structures, neighbors=neighbors)
    params = potential.init(jax.random.key(0))
    once = describe(potential, batch, quantities, "once")
    assert once is not None
    assert once.affected.shape[-1] == min(columns + 1, 5)
    places = jnp.asarray([4, 1, 1])

    @jax.jit
    @jax.value_and_grad
    def together(params, described):
        found = predict_together(potential, quantities, params, batch, described, places)
        return sum(jnp.sum(jnp.sin(part)) for part in jax.tree.leaves(found))

    for quick, slow in zip(
        jax.tree.leaves(together(params, once)),
        jax.tree.leaves(together(params, None)),
        strict=True,
    ):
        assert np.allclose(quick, slow, rtol=1e-9, atol=1e-11)


def test_missing_labels_do_not_poison_gradients():
    batch = with_holes()

    def value(energy, forces):
        found = batch_residuals(Prediction(energy, forces, None), batch)
        return loss(sums(found, batch.weights), Emphasis(1.0, 1.0, 1.0), Emphasis(1.0, 1.0, 1.0))

    slopes = jax.grad(value, (0, 1))(predicted().energy, predicted().forces)
    assert all(np.all(np.isfinite(slope)) for slope in slopes)
    assert slopes[0][1] == 0
    assert np.all(slopes[1][3] == 0)
    assert np.all(np.asarray(slopes[0])[[0, 2, 3, 4]] != 0)


def test_padding_changes_no_loss():
    batch, guess = with_holes(), predicted()
    longer = enlarged(batch, 16)
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, 10)] + [(0, 0)] * (x.ndim - 1)), guess)
    weights, scale = Emphasis(1.0, 0.3, 0.2), units((batch,))
    values = [
        float(loss(sums(batch_residuals(g, b), b.weights), weights, scale))
        for g, b in ((guess, batch), (padded, longer))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-14)


def test_units_and_high_energy_weights():
    energies = np.asarray(BATCH.labels.energy) / 5
    scale = units((BATCH,), energy_limits=(1e-6, 10.0), force_limits=(1e-6, 10.0))
    assert float(scale.energy) == pytest.approx(np.std(energies), rel=1e-10)
    assert float(scale.forces) == pytest.approx(
        np.sqrt(np.mean(np.asarray(BATCH.labels.forces) ** 2)), rel=1e-10
    )
    assert float(units((BATCH,), energy_limits=(0.5, 0.6)).energy) == 0.5
    (factor,) = high_energy_weights((BATCH,), 0.01)
    expected = 1 / np.sqrt(1 + ((energies - energies.min()) / 0.01) ** 2)
    assert np.allclose(factor, expected, rtol=1e-12)


@pytest.mark.parametrize("cutoff_images", [5.0, 2.6])
def test_described_once_equals_described_anew(cutoff_images):
    """Energy, forces and stress; in the small box atoms see several images of one neighbor."""
    potential = toy_potential()
    shrink = cutoff_images / 5.0
    structures = BATCH.structures._replace(
        positions=shrink * BATCH.structures.positions, cell=shrink * BATCH.structures.cell
    )
    batch = BATCH._replace(
        structures=structures, neighbors=batch_tables(structures, potential.cutoff)
    )
    batch = enlarged(batch, 8)
    params = potential.init(jax.random.key(0))
    once = describe(potential, batch, EVERYTHING, "once")
    assert once is not None
    assert describe(potential, batch, EVERYTHING, "anew") is None

    @jax.jit
    def both(batch, once):
        arguments = (potential, EVERYTHING, params, batch)
        return predict_batch(*arguments, once), predict_batch(*arguments, None)

    for quick, slow in zip(*map(jax.tree.leaves, both(batch, once)), strict=True):
        assert np.allclose(quick, slow, rtol=1e-10, atol=1e-11)
        assert np.std(np.asarray(slow)[:6]) > 0
