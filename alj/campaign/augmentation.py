"""Noisy copies of chosen structures: a label says most about a surface together with its slopes."""

import jax
import numpy as np

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.sections import Augmentation
from alj.types import Key


def noisy_copies(key: Key, settings: Augmentation, chosen: Dataset) -> Dataset:
    """Copies of each structure with every coordinate displaced by up to the amplitude.

    They keep the information of their originals, with "augmentation" as their origin.
    """
    structures, info = [], []
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
    for structure, about in zip(datasets.structures(chosen), chosen.info, strict=True):
        for _ in range(settings.copies):
            size = structure.positions.shape
            noise = generator.uniform(-settings.amplitude_A, settings.amplitude_A, size)
            structures.append(structure._replace(positions=structure.positions + noise))
            info.append({**about, "origin": "augmentation"})
    return datasets.append(datasets.empty(), structures, info=info)
