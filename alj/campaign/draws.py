"""Frames drawn from the ensembles of a potential: test sets that the reference makes itself.

Only for references that are potentials of this package. Frames of a test set are independent of the
training: other seeds, and drawn from the reference's own ensembles, where a network's errors are
not hidden by the network having chosen them.
"""

import jax
import numpy as np

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.exploring import explore
from alj.campaign.plan import Walks, make_walks, reference_potential
from alj.selection.shares import evenly_spaced
from alj.types import Key, Labeler, Params, Structure


def reference_test(key: Key, entries: list[dict], labeler: Labeler, start: Structure) -> Dataset:
    """Labeled frames of all entries, `candidates` evenly spaced ones per walk.

    Each entry is a sampler as in `sampler`, whose `config_type` names its frames. Raises BadInput
    where the reference is no potential of this package.
    """
    potential, params = reference_potential(labeler, "data.reference_test")
    data = datasets.empty()
    for number, spec in enumerate(entries):
        walks = make_walks(spec, potential, f"data.reference_test[{number}]")
        structures = drawn(jax.random.fold_in(key, number), walks, params, start)
        answers = [labeler.label(structure) for structure in structures]
        name = walks.settings.config_type or walks.name
        info = [{"config_type": name}] * len(structures)
        data = datasets.append(data, structures, answers, info)
    return data


def drawn(key: Key, walks: Walks, params: Params, start: Structure) -> list[Structure]:
    """`candidates` evenly spaced frames of every walk from `start`.

    The first fifth of a walk that is read in time is equilibration and not used.
    """
    frames = explore(key, walks, params, datasets.empty(), start)
    steps, count = frames.energy.shape
    structures = []
    for walk in range(count):
        first = 0 if walks.sampler.spacing == "energy" else steps // 5
        later = np.arange(first, steps)
        coordinate = frames.energy[later, walk] if first == 0 else later
        for step in later[evenly_spaced(np.asarray(coordinate), walks.settings.candidates)]:
            structures.append(jax.tree.map(lambda x, s=step, w=walk: x[s, w], frames.structure))
    return structures
