"""Host kernels: committees, activations, environments larger and emptier than expected."""

import jax
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, table

from alj.arrays import stack_trees
from alj.geometry.environment import environment
from alj.potentials import behler_parrinello, lennard_jones, ml_bop
from alj.potentials.combine import committee

CAPACITY = 24


def host(kernel, params, env, species):
    arrays = kernel.arrays(params)
    assert all(part.dtype == np.float64 for part in arrays)
    scratch = np.full(kernel.scratch(env.vectors.shape[1]), np.nan)
    vectors, of = np.asarray(env.vectors), np.asarray(env.neighbor_species)
    count = np.sum(of > 0, axis=1)
    return np.array(
        [
            kernel.energy(vectors[i], of[i], count[i], int(species[i]), arrays, scratch)
            for i in range(len(vectors))
        ]
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": (10, 10)},
        {"hidden": (3, 20, 5), "activation": "silu", "cutoff_A": 3.9, "regular_table": True},
        {"hidden": (7,), "activation": "sigmoid"},
    ],
)
def test_committee_mean(settings):
    potential = behler_parrinello((8,), **settings)
    mean = committee(potential)
    structures = [liquid(41), liquid(42)]
    batch = labeled(structures, [-4.0, -5.0], potential.cutoff, CAPACITY)
    params = mean.prepare(
        stack_trees([potential.init(jax.random.key(i)) for i in range(3)]), (batch,)
    )
    assert params["constants"]["mean"].shape[0] == 3
    far = table(structures[0], potential.cutoff + 0.4, CAPACITY)
    env = environment(structures[0], far, potential.cutoff)
    # The first atom has no neighbors.
    env = env._replace(neighbor_species=env.neighbor_species.at[0].set(0))
    energies = jax.jit(mean.environment_energies)
    found = host(mean.kernel(), params, env, structures[0].species)
    np.testing.assert_allclose(found, energies(params, env), rtol=1e-12, atol=1e-12)

    # Saturated units.
    params = {**params, "body": jax.tree.map(lambda x: 40.0 * x, params["body"])}
    found = host(mean.kernel(), params, env, structures[0].species)
    np.testing.assert_allclose(found, energies(params, env), rtol=1e-11, atol=1e-11)


def test_where_there_is_no_kernel():
    assert behler_parrinello((8,), angular="G4").kernel is None
    assert behler_parrinello((1, 8)).kernel is None
    assert ml_bop(()).kernel is not None
    assert lennard_jones(()).kernel is not None
