"""A committee trained on a part of a pool that is labeled already."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from alj.campaign import datasets
from alj.campaign.supervised import fixed_split
from alj.training.fitting import Fitted, fit
from alj.types import Key, Trainer


def fit_on(
    plan: Any, trainer: Trainer, key: Key, train: np.ndarray, validation: np.ndarray
) -> Fitted:
    """Trained on some places of `plan.pool`, others stopping it.

    Without `validation` the trainer's own split decides. `plan` is that of a replay: it also has
    the potential, and the precision in its config.
    """
    data = datasets.select(plan.pool, np.concatenate([train, validation]))
    table = datasets.roomy(plan.pool)
    dtype = jnp.dtype(plan.config["precision"])
    batches = datasets.batches(data, plan.potential.cutoff, dtype=dtype, table=table)
    if len(validation):
        trainer = trainer._replace(split=fixed_split(len(train)))
    return fit(key, trainer, plan.potential, None, batches, datasets.count(data))
