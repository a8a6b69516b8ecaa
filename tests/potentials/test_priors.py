"""A network on priors: its params, its committee, its training, and the hole that a prior fills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, table
from training.toys import CUTOFF, toy_batch, toy_potential

from alj.arrays import stack_trees
from alj.potentials import (
    CLASSICAL,
    POTENTIALS,
    behler_parrinello,
    build_potential,
    lennard_jones,
    nacl_tosi_fumi,
    pair_repulsion,
    resolve_potential,
    zbl,
)
from alj.potentials.combine import (
    PARTS,
    committee,
    energy,
    energy_forces_stress,
    everything,
    last_layer_features,
    sum_of,
)
from alj.potentials.priors import has_parameters, with_prior, without_prior
from alj.sampling.host_moves import host_energies
from alj.training import fit, gradient, levenberg_marquardt
from alj.training.descriptions import describe, predict_batch
from alj.types import BadInput
from alj.units import BOLTZMANN

NETWORK = toy_potential()
PRIORS = zbl((), inner_A=0.8, outer_A=1.9), pair_repulsion((), reach_A=2.4)
UNDER = sum_of(*PRIORS)
NOTHING = {part: ({}, {}) for part in PARTS}
BOTH = with_prior(NETWORK, *PRIORS)
BATCH = toy_batch(8)
PARAMS = [NETWORK.prepare(NETWORK.init(jax.random.key(i)), (BATCH,)) for i in range(3)]
ALL = ("energy", "forces", "stress")


@jax.jit
def answers(params):
    """Network, priors, both, and the committee of three, for the first structure."""
    one = jax.tree.map(lambda leaf: leaf[0], (BATCH.structures, BATCH.neighbors))
    three = stack_trees(PARAMS)
    return (
        energy_forces_stress(NETWORK, params, *one),
        energy_forces_stress(UNDER, NOTHING, *one),
        energy_forces_stress(BOTH, params, *one),
        energy_forces_stress(committee(BOTH), three, *one),
        energy_forces_stress(committee(NETWORK), three, *one),
        last_layer_features(NETWORK, params, *one),
        last_layer_features(BOTH, params, *one),
    )


def test_a_sum_in_which_the_prior_counts_once():
    network, under, both, mean_of_both, mean, features, same = answers(PARAMS[0])
    assert abs(float(under[0])) > 0.1
    for parts in zip(network, under, both, strict=True):
        np.testing.assert_allclose(parts[2], parts[0] + parts[1], rtol=1e-12, atol=1e-12)
    for parts in zip(mean, under, mean_of_both, strict=True):
        np.testing.assert_allclose(parts[2], parts[0] + parts[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(same, features, rtol=1e-13)


def test_params_and_description_are_the_networks_own():
    key = jax.random.key(7)
    shapes = [jax.eval_shape(potential.init, key) for potential in (NETWORK, BOTH)]
    assert shapes[0] == shapes[1]
    assert with_prior(NETWORK) is NETWORK
    assert BOTH.cutoff == CUTOFF
    assert with_prior(NETWORK, lennard_jones((8,))).cutoff == 8.5
    assert BOTH.hops == 1
    one = jax.tree.map(lambda leaf: leaf[0], (BATCH.structures, BATCH.neighbors))
    mine, theirs = BOTH.describe(*one), NETWORK.describe(*one)
    assert jax.tree.all(jax.tree.map(np.array_equal, without_prior(mine), theirs))
    assert without_prior(theirs) is theirs


def test_the_network_is_prepared_on_the_difference():
    network, prior = behler_parrinello((8,)), pair_repulsion((8,), reach_A=3.0)
    structures = [liquid(i) for i in range(4)]
    batch = labeled(structures, [-4.0, -3.0, np.nan, -5.0], 3.5, 24)
    tables = [table(s, 3.5, 24) for s in structures]
    nothing = prior.init(jax.random.key(0))
    under = jnp.stack(
        [energy(prior, nothing, s, t) for s, t in zip(structures, tables, strict=True)]
    )
    assert np.all(under > 0.1)
    rest = batch._replace(labels=batch.labels._replace(energy=batch.labels.energy - under))
    both, fresh = with_prior(network, prior), network.init(jax.random.key(1))
    expected = network.prepare(fresh, (rest,))
    found = both.prepare(fresh, (batch,))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)
    plain = network.prepare(fresh, (batch,))["constants"]["shift"]
    assert np.all(np.abs(plain - found["constants"]["shift"]) > 1e-3)
    moved = both.rebase(found, (batch._replace(weights=batch.weights.at[0].set(0.0)),))
    kept = network.rebase(found, (rest._replace(weights=rest.weights.at[0].set(0.0)),))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), moved, kept)


def test_described_once_equals_anew():
    """Energies, forces and stress from descriptions, the prior's derivatives among them."""
    described = describe(BOTH, BATCH, ALL, "once")
    assert described is not None

    @jax.jit
    def both_ways(batch, described):
        return [predict_batch(BOTH, ALL, PARAMS[0], batch, way) for way in (described, None)]

    once, anew = both_ways(BATCH, described)
    for mine, theirs in zip(jax.tree.leaves(once), jax.tree.leaves(anew), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["levenberg_marquardt", "gradient"])
def test_trainers_learn_the_difference(kind):
    """The teacher is the network itself on the prior: what is learned is the network."""
    found = jax.jit(
        lambda s, n: jax.lax.map(lambda pair: everything(BOTH, PARAMS[1], *pair), (s, n))
    )(BATCH.structures, BATCH.neighbors)
    labels = BATCH.labels._replace(energy=found[0], forces=found[1], stress=found[2])
    batch = BATCH._replace(labels=labels)
    common = {"members": 2, "force_weight": 1.0, "split": "all", "descriptions": "once"}
    if kind == "gradient":
        trainer = gradient(
            BOTH, learning_rate=0.03, epochs=60, precision="float64", batch_size=8, **common
        )
    else:
        trainer = levenberg_marquardt(BOTH, steps=25, l2=1e-9, form="primal", **common)
    fitted = fit(jax.random.key(3), trainer, BOTH, None, (batch,), 8)
    assert jax.tree.structure(fitted.params) == jax.tree.structure(PARAMS[0])
    errors = fitted.history.train_error.forces
    assert np.all(errors[-1] < (0.05 if kind == "levenberg_marquardt" else 0.5) * errors[0])


def test_where_there_is_a_kernel():
    assert BOTH.kernel is None
    assert with_prior(behler_parrinello((8,)), zbl((8,))).kernel is not None
    assert with_prior(behler_parrinello((8,), angular="G4"), zbl((8,))).kernel is None


def test_a_network_is_no_prior():
    for build in POTENTIALS:
        species = (11, 17) if build is nacl_tosi_fumi else (8,)
        assert has_parameters(build(species)) == (build not in CLASSICAL)
    with pytest.raises(BadInput, match="nothing to train"):
        with_prior(NETWORK, NETWORK)


@pytest.mark.parametrize(
    ("prior", "hint"),
    [
        ("zbll", r"potential\.prior\.name: unknown name 'zbll', did you mean 'zbl'"),
        (["zbl", "lj"], r"potential\.prior\[1\]\.name: unknown name 'lj'"),
        ({"name": "zbl", "inner": 1.0}, r"potential\.prior\.inner: .*did you mean 'inner_A'"),
        ([{"name": "zbl", "inner_A": 2.5}], r"potential\.prior\[0\]: .*0 <= inner_A < outer_A"),
        (["behler_parrinello"], r"potential\.prior\[0\]\.name: .* is trained"),
        (3, r"potential\.prior: expected a name or a mapping"),
    ],
)
def test_what_is_wrong_with_a_prior_is_said(prior, hint):
    with pytest.raises(BadInput, match=hint):
        build_potential({"name": "behler_parrinello", "prior": prior}, (8,))


def test_configured_priors():
    section = {"name": "behler_parrinello", "prior": ["zbl", {"name": "pair_repulsion"}]}
    resolved = resolve_potential(section)
    assert [prior["name"] for prior in resolved["prior"]] == ["zbl", "pair_repulsion"]
    assert resolve_potential(resolved) == resolved
    assert section["prior"] == ["zbl", {"name": "pair_repulsion"}]
    for plain in ("behler_parrinello", {"name": "behler_parrinello", "prior": None}):
        assert "prior" not in resolve_potential(plain)
        assert build_potential(plain, (8,)).cutoff == 3.5
    with pytest.raises(BadInput, match="did you mean 'prior'"):
        resolve_potential({"name": "behler_parrinello", "priors": "zbl"})
    far = build_potential({"name": "behler_parrinello", "prior": "lennard_jones"}, (8,))
    assert far.cutoff == 8.5


@pytest.mark.slow
def test_a_hot_walk_falls_into_the_hole_unless_there_is_a_prior():
    """Trained on a liquid without a pair below 2.1 Å, a network knows no wall further in."""
    liquids = [liquid(i) for i in range(24)]
    teacher = lennard_jones((8,), epsilon_eV=0.05, sigma_A=2.4, cutoff_A=3.5)
    unlabeled = labeled(liquids, np.zeros(24), 3.5, 24)
    energies = jax.jit(jax.vmap(lambda s, n: energy(teacher, {}, s, n)))(
        unlabeled.structures, unlabeled.neighbors
    )
    batch = unlabeled._replace(labels=unlabeled.labels._replace(energy=energies))
    network = behler_parrinello((8,), hidden=(4,))
    nearest, highest = {}, {}
    for name, prior in (("without", ()), ("with", (pair_repulsion((8,), reach_A=2.3),))):
        potential = with_prior(network, *prior)
        trainer = levenberg_marquardt(potential, steps=30, members=1, split="all", form="dual")
        fitted = fit(jax.random.key(0), trainer, potential, None, (batch,), 24)
        assert fitted.error.energy[0] < 0.01
        params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
        nearest[name], highest[name] = hot_walk(potential, params, liquids[0])
    assert nearest["without"] < 1.0
    assert nearest["with"] > 1.4
    assert highest["with"] < 10.0


def hot_walk(potential, params, start):
    """Shortest distance met and highest energy of 1200 Metropolis moves at 5000 K."""
    start = jax.tree.map(np.asarray, start)
    generator = np.random.default_rng(1)

    def energy_at(positions):
        moved = start._replace(positions=positions)
        return np.sum(host_energies(potential, params, moved, potential.cutoff))

    positions, shortest, highest = start.positions.copy(), np.inf, -np.inf
    now = energy_at(positions)
    for _ in range(1200):
        moved, atom = positions.copy(), generator.integers(len(positions))
        moved[atom] += generator.uniform(-0.5, 0.5, 3)
        then = energy_at(moved)
        if np.log(generator.uniform()) <= -(then - now) / (BOLTZMANN * 5000.0):
            positions, now = moved, then
            between = np.delete(positions, atom, axis=0) - positions[atom]
            between -= np.round(between @ np.linalg.inv(start.cell)) @ start.cell
            shortest = min(shortest, np.min(np.linalg.norm(between, axis=1)))
            highest = max(highest, now)
    return shortest, highest
