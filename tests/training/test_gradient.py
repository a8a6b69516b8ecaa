"""Gradient training: names and settings of optimizers, averaging, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.toys import toy_batch, toy_potential

from alj.training import fit, gradient
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
        ({"energy_weight": 0.0}, "nor all 0"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        gradient(POTENTIAL, **settings)


def test_every_kind_of_optimizer_is_found():
    names = ["adam", "adamw", "sgd", "lion", "rmsprop", "lbfgs", "adabelief"]
    assert all(gradient(POTENTIAL, optimizer=name).steps == 300 for name in names)


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
