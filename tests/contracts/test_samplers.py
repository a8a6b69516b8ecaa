"""What every sampler promises, over the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import begin, clusters, springs

from alj.sampling import SAMPLERS
from alj.stepping import run

SMALL = {
    "metropolis_mc": {"cycles": 8, "cycles_per_frame": 2},
    "nested_mc": {"cycles": 8, "cycles_per_stage": 2},
    "npt_mc": {"cycles": 8, "cycles_per_frame": 2},
    "perturbation": {"frames": 4},
}


@pytest.fixture(params=SAMPLERS, ids=lambda builder: builder.__name__)
def case(request):
    potential = springs()
    sampler = request.param(potential, **SMALL.get(request.param.__name__, {}))
    return sampler, potential, begin(sampler, potential, clusters(2))


def test_sampler_contract(case):
    sampler, _, (stepper, state, context) = case
    key = jax.random.key(5)
    after, frames = run(stepper, key, state, context, steps=sampler.steps)

    # The state's tree, shapes and dtypes are fixed under a step.
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype) == (now.shape, now.dtype)

    # Same key, same path, in blocks of any size; another key, another path.
    _, again = run(stepper, key, state, context, steps=sampler.steps, block=sampler.steps)
    np.testing.assert_array_equal(frames.structure.positions, again.structure.positions)
    _, other = run(stepper, jax.random.key(6), state, context, steps=sampler.steps)
    assert not np.array_equal(frames.structure.positions, other.structure.positions)

    # New parameters do not retrace.
    traces = []
    counted = stepper._replace(step=lambda *a: traces.append(1) or stepper.step(*a))
    for spring in (0.5, 0.7):
        params = {"body": {"spring": jnp.asarray(spring)}, "readout": {}, "constants": {}}
        run(counted, key, state, context._replace(params=params), steps=sampler.steps)
    assert len(traces) == 1


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
