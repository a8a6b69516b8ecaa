"""A test set that the reference makes itself: frames of walks on the true potential.

Only for references that are potentials of this package. Its frames are independent of the training:
other seeds, and drawn from the reference's own ensembles, where a network's errors are not hidden
by the network having chosen them.
"""

import jax
import numpy as np

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.plan import Walks, make_walks
from alj.campaign.rounds import explore
from alj.selection.shares import evenly_spaced
from alj.types import BadInput, Key, Labeler, Potential, Structure


def reference_test(key: Key, entries: list[dict], labeler: Labeler, start: Structure) -> Dataset:
    """Labeled frames of all entries, `candidates` evenly spaced ones per walk.

    Each entry is a sampler as in `sampler`, whose `config_type` names its frames. The first fifth
    of a walk in time is equilibration and not used. Raises BadInput where the reference is no
    potential of this package.
    """
    potential: Potential | None = getattr(labeler, "potential", None)
    if potential is None:
        raise BadInput(
            f"data.reference_test: expected a labeler that is a potential of this package, found "
            f"{labeler.name}; give a labeled file as data.test instead"
        )
    params = potential.init(jax.random.key(0))
    data = datasets.empty()
    for number, spec in enumerate(entries):
        walks = make_walks(spec, potential, f"data.reference_test[{number}]")
        frames = explore(jax.random.fold_in(key, number), walks, params, datasets.empty(), start)
        structures = _spread(frames, walks)
        answers = [labeler.label(structure) for structure in structures]
        name = walks.settings.config_type or walks.name
        info = [{"config_type": name}] * len(structures)
        data = datasets.append(data, structures, answers, info)
    return data


def _spread(frames, walks: Walks) -> list[Structure]:
    steps, count = frames.energy.shape
    structures = []
    for walk in range(count):
        first = 0 if walks.sampler.spacing == "energy" else steps // 5
        later = np.arange(first, steps)
        coordinate = frames.energy[later, walk] if first == 0 else later
        for step in later[evenly_spaced(np.asarray(coordinate), walks.settings.candidates)]:
            structures.append(jax.tree.map(lambda x, s=step, w=walk: x[s, w], frames.structure))
    return structures
