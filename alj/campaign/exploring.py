"""The walks of a round: where they begin, and their frames."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import pad_axis, split_named
from alj.campaign import build, classes, datasets
from alj.campaign.datasets import Dataset
from alj.campaign.plan import Walks
from alj.stepping import run
from alj.types import Context, Key, Structure


def explore(
    key: Key,
    walks: Walks,
    params,
    data: Dataset,
    start: Structure,
    targets: dict | None = None,
    on_progress=None,
    memory: dict | None = None,
):
    """Frames of all walks of one sampler, as host arrays with leading axes (step, walk).

    Walks begin at random structures of `data`, or at `start` where there are none or the settings
    say so.
    """
    seed, place, go = split_named(key, "seed", "place", "go")
    context = Context(params=params, targets=targets)
    memory = memory or {}
    placed = walks.sampler.place(_starts(seed, walks, data, start, memory.get("classes")))
    begin = walks.stepper.init if walks.stepper.host else partial(_begin, walks.stepper)
    begun = begin(place, placed, context)
    # Walks that became longer are cut into blocks of the same length, which compile nothing.
    block = -(-walks.sampler.steps // 5)
    steps = walks.sampler.steps * min(max(memory.get("length", 1), 1), walks.settings.longest)
    notify = on_progress and (lambda done, _, info: on_progress(walks.name, done, steps))
    _, frames = run(walks.stepper, go, begun, context, steps=steps, block=block, on_block=notify)
    return frames


@partial(jax.jit, static_argnums=0)
def _begin(stepper, key, placed, context):
    return stepper.init(key, placed, context)


def _starts(
    key: Key, walks: Walks, data: Dataset, start: Structure, network: classes.Map | None = None
) -> Structure:
    """Starts of the walks: structures of the data, brought to random densities."""
    settings = walks.settings
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
    # A share of less than one walk is one walk in some of the rounds.
    far_walks = int(settings.walks * settings.far_share + generator.uniform())
    starts, places = [], np.zeros(0, int)
    if settings.starts == "sparse" and network is not None:
        places = classes.sparse_places(network, data, settings.walks)
    for walk in range(settings.walks):
        far = walk >= settings.walks - far_walks
        low, high = settings.far_density_range if far else settings.density_range
        known = datasets.count(data)
        one = start
        if known and settings.starts != "start":
            place = places[walk] if len(places) else generator.integers(known)
            one = datasets.structure(data, int(place))
        factor = generator.uniform(low, high) * _density(start) / _density(one)
        starts.append(build.scaled(one, factor))
    # As long as the largest there is: from round to round other sizes start, and compile nothing.
    longest = np.max(datasets.sizes(data), initial=0) if settings.starts != "start" else 0
    most = max(int(longest), *(len(s.species) for s in starts))
    positions = np.stack([pad_axis(s.positions, most, 0.0) for s in starts])
    return Structure(
        positions=jnp.asarray(positions, jnp.result_type(float)),
        species=jnp.asarray(np.stack([pad_axis(s.species, most, 0) for s in starts]), jnp.int32),
        cell=jnp.asarray(np.stack([s.cell for s in starts]), jnp.result_type(float)),
        charge=jnp.asarray(np.stack([s.charge for s in starts]), jnp.int32),
        multiplicity=jnp.asarray(np.stack([s.multiplicity for s in starts]), jnp.int32),
    )


def _density(structure: Structure) -> float:
    """Atoms per Å^3 of a periodic structure; 1 where it is not periodic in all directions."""
    volume = abs(np.linalg.det(np.asarray(structure.cell)))
    return len(structure.species) / volume if volume > 0 else 1.0
