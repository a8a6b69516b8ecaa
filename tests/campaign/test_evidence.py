"""Evidence: what a selector asks for, of the pool and of the training set."""

import jax
import numpy as np
from potentials.liquids import liquid, table
from training.toys import CUTOFF, toy_potential

from alj.arrays import stack_trees
from alj.campaign import datasets
from alj.campaign.evidence import gather
from alj.potentials import pair_repulsion
from alj.potentials.priors import with_prior
from alj.selection import trust_levels
from alj.types import Context
from alj.uncertainty import force_spread

NETWORK = toy_potential()
BOTH = with_prior(NETWORK, pair_repulsion((), reach_A=2.6))
MEMBERS = stack_trees([NETWORK.init(jax.random.key(i)) for i in range(3)])
SIZES = (12, 9, 12, 10)


def dataset(seeds):
    structures = [
        jax.tree.map(np.asarray, liquid(seed, atoms=SIZES[seed % len(SIZES)])) for seed in seeds
    ]
    return datasets.append(datasets.empty(), structures)


def test_force_spreads_of_pool_and_training_set():
    pool, known = dataset((0, 1, 2)), dataset((3, 5))
    selector = trust_levels(count=2)
    found = gather(BOTH, MEMBERS, pool, known, selector.needs)
    assert found.force_spread.shape == (3, 12)
    assert found.known_force_spread.shape == (2, 10)
    assert found.energies is None
    # A prior that all members share adds nothing to their dispute.
    spread = jax.jit(force_spread(NETWORK))
    for row, seed in ((0, 0), (1, 1), (2, 2)):
        s = liquid(seed, atoms=SIZES[seed])
        expected = spread(Context(params=MEMBERS), s, table(s, CUTOFF, 24))
        np.testing.assert_allclose(
            found.force_spread[row, : len(expected)], expected, rtol=1e-9, atol=1e-12
        )
        np.testing.assert_array_equal(found.force_spread[row, len(expected) :], 0.0)
    chosen = np.asarray(selector.choose(jax.random.key(0), found, 2))
    report = selector.report(found)
    assert np.sum(chosen >= 0) == min(2, round(3 * report["candidate"]))


def test_a_prior_is_no_descriptor():
    pool, known = dataset((0, 1)), dataset((3,))
    with_, without = (
        gather(potential, MEMBERS, pool, known, ("descriptors",)).descriptors
        for potential in (BOTH, NETWORK)
    )
    np.testing.assert_allclose(with_, without, rtol=1e-12)
