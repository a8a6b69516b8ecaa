"""Gradient training: names and settings of optimizers, averaging, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import toy_batch, toy_potential

from alj.potentials.combine import energy_and_forces, forces
from alj.training import fit, fitting, gradient
from alj.types import BadInput

POTENTIAL = toy_potential()
BATCH = toy_batch(14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adam_w"}, "did you mean 'adamw'"),
        ({"optimizer_settings": {"weight_decy": 1e-3}, "optimizer": "adamw"}, "'weight_decay'"),
        ({"optimizer_settings": {"b1": float("nan")}}, "finite number"),
        ({"learning_rate": -1.0}, "must be positive"),
        ({"learning_rates": {"wieghts": 0.1}}, "there are: weights, readout|did you mean"),
        ({"learning_rates": {"readout": -0.1}}, "learning_rates.readout"),
        ({"energy_weight": 0.0}, "nor all 0"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"schedule": "plateau", "final_rate_fraction": 1.0}, "below 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        gradient(POTENTIAL, **settings)


def test_every_kind_of_optimizer_is_found():
    names = ["adam", "adamw", "amsgrad", "sgd", "lion", "rmsprop", "lbfgs", "adabelief", "muon"]
    assert all(gradient(POTENTIAL, optimizer=name).steps == 300 for name in names)


@pytest.mark.slow
def test_parts_learn_at_rates_of_their_own():
    """A part of rate 0 stays where it was, the others move as they would without it."""

    def moved(rates):
        trainer = gradient(
            POTENTIAL, optimizer="sgd", epochs=1, learning_rate=1e-5, members=1, batch_size=99,
            split="all", schedule="constant", precision="float64", learning_rates=rates,
        )  # fmt: skip
        made = fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14)
        still = gradient(
            POTENTIAL, optimizer="sgd", epochs=1, learning_rate=1e-50, members=1, batch_size=99,
            split="all", schedule="constant", precision="float64",
        )  # fmt: skip
        start = fit(jax.random.key(1), still, POTENTIAL, None, (BATCH,), 14)
        return jax.tree.map(lambda a, b: np.asarray(a - b), made.params, start.params)

    usual, held, faster = moved(None), moved({"readout": 0.0}), moved({"readout": 2e-5})
    for leaf in jax.tree.leaves(held["readout"]):
        assert np.all(leaf == 0)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(usual["readout"]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, 2 * a, rtol=1e-9),
        usual["readout"],
        faster["readout"],
    )
    jax.tree.map(np.testing.assert_array_equal, usual["body"], held["body"])


def test_averaging_schedule_and_missing_forces():
    """The rate falls to its fraction; with a clip of almost nothing the params hardly move."""
    trainer = gradient(
        POTENTIAL,
        optimizer="sgd",
        epochs=5,
        learning_rate=0.1,
        final_rate_fraction=0.1,
        schedule="exponential",
        force_weight=1.0,
        stress_weight=0.1,
        ema_decay=0.9,
        gradient_clip=1e-9,
        members=2,
        precision="float32",
    )
    forces = BATCH.labels.forces.at[1, 2, 0].set(jnp.nan).at[4].set(jnp.nan)
    batch = BATCH._replace(labels=BATCH.labels._replace(forces=forces))
    made = fit(jax.random.key(1), trainer, POTENTIAL, None, (batch,), 14)
    assert np.allclose(made.history.pace[:, 0], 0.1 * 0.1 ** (np.arange(5) / 4), rtol=1e-6)
    assert made.params["body"]["weights"].dtype == np.float32
    losses = made.history.train_loss
    assert np.allclose(losses, losses[:1], rtol=1e-4)
    assert np.all(np.isfinite(made.error.forces))
    assert np.all(np.isfinite(made.error.stress))


def idle(**settings):
    """Trained with a rate so small that no parameter moves."""
    trainer = gradient(
        POTENTIAL, optimizer="sgd", learning_rate=1e-30, members=2, precision="float32", **settings
    )
    return fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14, block=10)


def test_plateau_lowers_the_rate_and_stops_where_it_would_be_too_small():
    """Nothing gets better after the first epoch: 0.8 every two epochs, until below 0.6."""
    made = idle(schedule="plateau", plateau_patience=2, final_rate_fraction=0.6, epochs=40)
    factors = made.history.pace[:, 0] / 1e-30
    # Epoch 0 is the first of all, hence better than none; the drops come at its end plus 2, 4, 6.
    assert np.allclose(factors[:7], [1.0] * 3 + [0.8] * 2 + [0.64] * 2, rtol=1e-6)
    assert np.all(made.history.stopped[:, 0] == (np.arange(10) >= 7))
    assert made.steps == 10
    with pytest.raises(BadInput, match="plateau_patience"):
        gradient(POTENTIAL, plateau_patience=0)


@pytest.mark.slow
def test_force_mae_is_that_of_training_and_validation_together():
    """Against forces of the potential itself; without forces there is none."""
    made = idle(epochs=2, force_weight=1.0)
    assert 0 < made.train[0].sum() < 14

    def forces_of(params):
        return jax.vmap(lambda *pair: forces(POTENTIAL, params, *pair))(
            BATCH.structures, BATCH.neighbors
        )

    off = np.asarray(jax.vmap(forces_of)(made.params)) - np.asarray(BATCH.labels.forces)[None]
    assert np.allclose(made.force_mae, np.mean(np.abs(off), axis=(1, 2, 3)), rtol=1e-4)
    assert np.all(np.isnan(idle(epochs=2).force_mae))


def test_loss_of_the_ani_papers():
    """What is reported is the mean over the structures that train, in eV and Å."""
    made = idle(epochs=2, loss="ani", energy_weight=2.0, force_weight=0.1)

    def of_one(params, structure, neighbors):
        return energy_and_forces(POTENTIAL, params, structure, neighbors)

    each = jax.vmap(jax.vmap(of_one, (None, 0, 0)), (0, None, None))
    energies, found = map(np.asarray, each(made.params, BATCH.structures, BATCH.neighbors))
    energy = (energies - np.asarray(BATCH.labels.energy)) ** 2 / np.sqrt(5)
    force = np.sum((found - np.asarray(BATCH.labels.forces)) ** 2, axis=(2, 3)) / 5
    for member, trains in enumerate(made.train):
        expected = np.mean((2.0 * energy + 0.1 * force)[member, trains])
        assert made.history.train_loss[0, member] == pytest.approx(expected, rel=1e-4)


def test_members_of_large_networks_learn_on_devices_of_their_own(monkeypatch):
    """Two host devices are there in the tests; where members learn does not matter to them."""
    trainer = gradient(
        POTENTIAL, optimizer="sgd", epochs=2, learning_rate=1e-5, members=2, batch_size=99,
        split="all", precision="float64",
    )  # fmt: skip
    together = fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14)
    monkeypatch.setattr(fitting, "_LARGE", 0)
    fitting._together.cache_clear()
    apart = fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14)
    fitting._together.cache_clear()
    for one, other in zip(
        jax.tree.leaves(together.params), jax.tree.leaves(apart.params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10)
        assert len(other.devices()) == 1
