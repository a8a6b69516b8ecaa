"""What every sampler promises, over the registry."""

import inspect

import jax
import jax.export
import numpy as np
import pytest
from sampling.springs import begin, clusters, springs

from alj.potentials.combine import committee
from alj.sampling import SAMPLERS
from alj.sampling.molecular_dynamics import DYNAMICS
from alj.stepping import run

SMALL = {
    "metropolis_mc": {"cycles": 8, "cycles_per_frame": 2},
    "nested_mc": {"cycles": 8, "cycles_per_stage": 2},
    "npt_mc": {"cycles": 8, "cycles_per_frame": 2},
    "perturbation": {"frames": 4},
} | {builder.__name__: {"steps": 8, "record_every": 2} for builder in DYNAMICS}
SMALL["nvt_andersen"]["collision_time_fs"] = 5.0
BRIEF = {"name": "nvt_langevin", "steps": 8, "record_every": 2}
NEAR = {"name": "distance", "atoms": [0, 1]}
SMALL |= {
    "metadynamics": {
        "variables": (NEAR,),
        "widths": (0.2,),
        "deposit_every": 3,
        "dynamics": BRIEF,
    },
    "steered": {"variable": NEAR, "relaxation_steps": 3, "dynamics": BRIEF},
    "umbrella": {"variable": NEAR, "center": (0.2, 0.4), "dynamics": BRIEF},
    "replica_exchange": {"exchange_every": 3, "frames": "all", "dynamics": BRIEF},
    "uncertainty_bias": {"dynamics": BRIEF},
    "temperature_parallel": {"dynamics": BRIEF},
}
DETERMINISTIC = {"nve", "nvt_nose_hoover", "nvt_berendsen", "npt_nose_hoover", "fire"}
"""Those draw at most their start; a key of the run changes nothing."""


def several_springs():
    """The mean of a committee; `init` makes params of all members."""
    one = springs()
    keys = jax.random.split
    return committee(one)._replace(init=lambda key: jax.vmap(one.init)(keys(key, 3)))


POTENTIALS = dict.fromkeys(("uncertainty_bias", "temperature_parallel"), several_springs)
"""What those that do not take any potential walk on."""


@pytest.fixture(params=SAMPLERS, ids=lambda builder: builder.__name__)
def case(request):
    potential = POTENTIALS.get(request.param.__name__, springs)()
    sampler = request.param(potential, **SMALL.get(request.param.__name__, {}))
    deterministic = request.param.__name__ in DETERMINISTIC
    return sampler, deterministic, begin(sampler, potential, clusters(2))


def test_sampler_contract(case):
    sampler, deterministic, (stepper, state, context) = case
    key = jax.random.key(5)
    after, frames = run(stepper, key, state, context, steps=sampler.steps)

    # The state's tree, shapes and dtypes are fixed under a step.
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype) == (now.shape, now.dtype)

    # Same key, same path, in blocks of any size; another key, another path.
    _, again = run(stepper, key, state, context, steps=sampler.steps)
    np.testing.assert_array_equal(frames.structure.positions, again.structure.positions)
    _, pieces = run(stepper, key, state, context, steps=sampler.steps, block=2)
    np.testing.assert_array_equal(frames.structure.positions, pieces.structure.positions)
    _, other = run(stepper, jax.random.key(6), state, context, steps=sampler.steps)
    same = np.array_equal(frames.structure.positions, other.structure.positions)
    assert same == deterministic

    # New parameters do not retrace.
    traces = []
    counted = stepper._replace(step=lambda *a: traces.append(1) or stepper.step(*a))
    for factor in (1.0, 1.4):
        params = jax.tree.map(lambda leaf, factor=factor: factor * leaf, context.params)
        run(counted, key, state, context._replace(params=params), steps=sampler.steps)
    assert len(traces) == 1


@pytest.mark.parametrize("builder", SAMPLERS, ids=lambda builder: builder.__name__)
def test_every_step_lowers_for_every_device(builder):
    potential = POTENTIALS.get(builder.__name__, springs)()
    anywhere = {"engine": "jax"} if "engine" in inspect.signature(builder).parameters else {}
    sampler = builder(potential, **SMALL.get(builder.__name__, {}), **anywhere)
    stepper, state, context = begin(sampler, potential, clusters(2))

    def step(seed, state):
        return stepper.step(jax.random.wrap_key_data(seed), state, context)

    seed = jax.random.key_data(jax.random.key(0))
    exported = jax.export.export(jax.jit(step), platforms=["cpu", "cuda", "tpu"])(seed, state)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}


def test_overflow_is_replayed_with_the_same_keys():
    from alj.sampling import metropolis_mc

    potential = springs()
    sampler = metropolis_mc(potential, cycles=6, cycles_per_frame=2)
    stepper, state, context = begin(sampler, potential, clusters(2, atoms=6))
    small = state.walker.table._replace(
        indices=state.walker.table.indices[..., :2], shifts=state.walker.table.shifts[..., :2, :]
    )
    tight = state._replace(walker=state.walker._replace(table=small))
    _, wide = run(stepper, jax.random.key(1), state, context, steps=3)
    grown, replayed = run(stepper, jax.random.key(1), tight, context, steps=3)
    assert grown.walker.table.indices.shape[-1] >= 5
    np.testing.assert_allclose(wide.energy, replayed.energy, atol=1e-12)
