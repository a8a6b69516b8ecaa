"""Meta-networks: which networks answer, what they have in common, and that shapes stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import structure, table

from alj.potentials import build_potential, meta_networks
from alj.potentials.combine import committee, energy_and_forces, member_energies_and_forces
from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.potentials.meta_networks import (
    assembled,
    committee_of,
    holding,
    nearest_classes,
    networks_of,
)
from alj.types import BadInput

BODY = {"name": "behler_parrinello", "hidden": [5], "cutoff_A": 3.5}
SIZES = (2, 4, 6, 8)
SCALE = 50.0


def cluster(atoms, seed=0):
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)[:atoms]
    moved = np.random.default_rng(seed).normal(0.0, 0.1, grid.shape)
    positions = np.zeros((8, 3))
    positions[:atoms] = 2.2 * grid + moved
    species = np.where(np.arange(8) < atoms, 8, 0)
    return structure(positions, species)


@pytest.fixture(scope="module")
def built():
    """A class of its own for each size of cluster; networks as they begin."""
    potential = meta_networks((8,), nearest=2, classes=5, nodes=12, atoms=8, body=BODY)
    parts = potential.networks
    networks = networks_of(potential.init(jax.random.key(0)))
    both = [cluster(atoms, seed) for atoms in SIZES for seed in (0, 1)]
    spectra = coulomb_spectra(
        np.stack([s.positions for s in both]), np.stack([s.species for s in both]), length=8
    )
    one = assembled(parts, networks, spectra / SCALE, np.repeat(np.arange(4), 2), SCALE)
    return potential, networks, committee_of(parts, one)


@pytest.mark.slow
def test_the_networks_of_the_nearest_classes_answer(built):
    potential, networks, params = built
    body = potential.networks.body
    program = jax.jit(lambda s, t: member_energies_and_forces(potential, params, s, t))
    alone = jax.jit(lambda p, s, t: energy_and_forces(body, p, s, t))
    answering = jax.jit(lambda s: nearest_classes(potential, params, s))
    for place, atoms in enumerate(SIZES):
        s = cluster(atoms, 7)
        neighbors = table(s, potential.cutoff, 12)
        chosen = np.asarray(answering(s))
        assert chosen[0] == place
        assert abs(int(chosen[1]) - place) == 1
        energies, forces = program(s, neighbors)
        for rank, c in enumerate(chosen):
            own = jax.tree.map(lambda leaf, c=c: leaf[c], networks)
            energy, force = alone(own, s, neighbors)
            np.testing.assert_allclose(energies[rank], energy, rtol=1e-12)
            np.testing.assert_allclose(forces[rank], force, atol=1e-12)
        mean = energy_and_forces(committee(potential), params, s, neighbors)
        np.testing.assert_allclose(mean[0], np.mean(energies), rtol=1e-12)
        np.testing.assert_allclose(mean[1], np.mean(forces, axis=0), atol=1e-12)


def test_forces_are_those_at_fixed_assignment_where_it_flips(built):
    """From one class to the next the energy jumps; on either side forces are its derivative."""
    potential, networks, _ = built
    s = cluster(4)
    # classes of wider and wider clusters of four
    wide = np.stack([factor * s.positions for factor in (0.8, 1.1, 1.6, 2.4)])
    spectra = coulomb_spectra(wide, np.tile(s.species, (4, 1)), length=8)
    parts = potential.networks
    one = assembled(parts, networks, spectra / SCALE, np.arange(4), SCALE)
    params = committee_of(parts, one)
    # of all pairs: what lies beyond the cutoff is ignored
    neighbors = table(s, 40.0, 12)

    @jax.jit
    def at(shift):
        moved = s._replace(positions=s.positions * (1.0 + shift))
        energy, forces = energy_and_forces(committee(potential), params, moved, neighbors)
        return energy, jnp.sum(forces * s.positions), nearest_classes(potential, params, moved)

    classes, energies, forces = [], [], []
    for shift in np.linspace(-0.3, 1.5, 40):
        energy, force, chosen = at(shift)
        classes.append(tuple(np.asarray(chosen).tolist()))
        energies.append(float(energy))
        forces.append(float(force))
    assert len(set(classes)) > 1
    for shift in np.linspace(-0.25, 1.45, 5):
        before, now, after = at(shift - 1e-5), at(shift), at(shift + 1e-5)
        if np.array_equal(before[2], after[2]):
            slope = (after[0] - before[0]) / 2e-5
            np.testing.assert_allclose(-now[1], slope, rtol=1e-5, atol=1e-7)


def test_held_networks_answer_until_others_are_nearer_by_the_margin(built):
    """Of two classes, one of which is 8 % nearer: which answers depends on who answered before."""
    potential, networks, _ = built
    parts, s = potential.networks, cluster(4)
    spectrum = np.asarray(coulomb_spectra(s.positions[None], s.species[None], length=8))[0] / SCALE
    away = np.eye(8) * np.array([1.0, 1.08, 1.5, 9.0, 9.0, 9.0, 9.0, 9.0])[:, None]
    nodes = spectrum[None] + 1e-2 * away[:3]
    params = committee_of(parts, assembled(parts, networks, nodes, np.array([2, 0, 1]), SCALE))
    neighbors = table(s, potential.cutoff, 12)

    @jax.jit
    def answer(params):
        energies, _ = member_energies_and_forces(potential, params, s, neighbors)
        return nearest_classes(potential, params, s), energies

    def held(classes, hysteresis):
        return answer(holding(params, jnp.asarray(classes), hysteresis))

    free, alone = answer(params)
    assert free.tolist() == [2, 0]
    assert held([0, 1], 0.05)[0].tolist() == [2, 0]
    assert held([0, 1], 0.20)[0].tolist() == [0, 2]
    assert held([0, 1], 0.40)[0].tolist() == [0, 1]
    # to hold what answers anyway changes nothing
    kept, energies = held([2, 0], 0.3)
    assert kept.tolist() == [2, 0]
    np.testing.assert_array_equal(energies, alone)


def test_more_classes_compile_nothing(built):
    potential, networks, params = built
    parts, traces = potential.networks, []
    s = cluster(6)
    neighbors = table(s, potential.cutoff, 12)

    @jax.jit
    def energy(params):
        traces.append(1)
        return jnp.sum(potential.atomic_energies(params, s, neighbors))

    first = jax.tree.map(lambda leaf: leaf[0], params)
    energy(first)
    more = assembled(parts, networks, np.eye(8)[:7], np.arange(7) % 5, 1.0)
    energy(more)
    assert len(traces) == 1
    with pytest.raises(BadInput, match="at most 12 nodes of 5 classes, found 6 of 6"):
        assembled(parts, networks, np.eye(8)[:6], np.arange(6), 1.0)


def test_structures_that_are_too_large_have_no_energy():
    potential = meta_networks((8,), classes=3, nodes=4, atoms=4, body=BODY)
    params = potential.init(jax.random.key(0))
    for atoms, finite in ((4, True), (6, False)):
        s = cluster(atoms)
        found = potential.atomic_energies(params, s, table(s, potential.cutoff, 12))
        assert bool(jnp.all(jnp.isfinite(found[:atoms]))) == finite


def test_a_prior_lies_under_every_network():
    prior = {"name": "zbl", "outer_A": 3.0}
    spec = {"name": "meta_networks", "classes": 3, "nodes": 4, "body": BODY, "prior": prior}
    potential = build_potential(spec, (8,))
    bare = build_potential({**spec, "prior": []}, (8,))
    params, s = bare.init(jax.random.key(1)), cluster(4)
    neighbors = table(s, potential.cutoff, 12)
    inner = jax.tree.map(lambda leaf: leaf[0], networks_of(params))
    np.testing.assert_allclose(
        potential.atomic_energies(params, s, neighbors),
        potential.networks.body.atomic_energies(inner, s, neighbors),
        rtol=1e-12,
    )
    alone = bare.atomic_energies(params, s, neighbors)
    assert np.all(np.asarray(potential.atomic_energies(params, s, neighbors) - alone)[:4] > 0.0)


def test_refusals():
    with pytest.raises(BadInput, match="2 <= nearest <= classes <= nodes"):
        meta_networks((8,), nearest=1, body=BODY)
    with pytest.raises(BadInput, match="hiden"):
        build_potential({"name": "meta_networks", "body": {**BODY, "hiden": [3]}}, (8,))
