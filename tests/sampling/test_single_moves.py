"""Local energy differences against full recomputation, and the two engines against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.io import read

from alj.geometry.neighbors import batch_tables
from alj.potentials import lennard_jones, ml_bop
from alj.potentials.combine import committee, energy
from alj.sampling import metropolis_mc, nested_mc, perturbation
from alj.stepping import batched, run
from alj.types import Context, Structure


def water(data_folder, *frames: int) -> Structure:
    atoms = [read(data_folder / "mlbop_crosscheck_10.extxyz", i) for i in frames]
    return Structure(
        positions=jnp.asarray(np.stack([a.positions for a in atoms])),
        species=jnp.asarray(np.stack([a.numbers for a in atoms])),
        cell=jnp.asarray(np.stack([a.cell.array for a in atoms])),
        charge=jnp.zeros(len(atoms), int),
        multiplicity=jnp.zeros(len(atoms), int),
    )


def walked(sampler, potential, structures, params=None, seed=7):
    params = potential.init(jax.random.key(1)) if params is None else params
    stepper, context = batched(sampler.stepper), Context(params=params)
    state = stepper.init(jax.random.key(2), sampler.place(structures), context)
    return run(stepper, jax.random.key(seed), state, context, steps=sampler.steps)[1]


def recomputed(potential, params, frames):
    """Total energies of all frames from scratch."""
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), frames.structure)
    tables = batch_tables(flat, potential.cutoff)
    total = jax.jit(jax.vmap(lambda s, n: energy(potential, params, s, n)))
    return np.asarray(total(flat, tables)).reshape(frames.energy.shape)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["host", "jax"])
def test_local_differences_equal_full_recomputation(data_folder, engine):
    potential = ml_bop((8,))
    sampler = metropolis_mc(potential, cycles=48, cycles_per_frame=4, engine=engine)
    frames = walked(sampler, potential, water(data_folder, 0, 9))
    # 48 cycles of 108 moves and two walkers: more than 10⁴ moves, one cell triclinic.
    assert 0.2 < frames.acceptance.mean() < 0.95
    full = recomputed(potential, potential.init(jax.random.key(1)), frames)
    np.testing.assert_allclose(frames.energy, full, atol=1e-8, rtol=0)


@pytest.mark.slow
def test_both_engines_walk_the_same_path(data_folder):
    potential = ml_bop((8,))
    both = [
        walked(nested_mc(potential, cycles=8, engine=engine), potential, water(data_folder, 0, 9))
        for engine in ("host", "jax")
    ]
    np.testing.assert_allclose(both[0].energy, both[1].energy, atol=1e-10, rtol=0)
    first, second = (f.structure.positions for f in both)
    np.testing.assert_allclose(first, second, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["host", "jax"])
def test_cells_below_twice_the_cutoff_count_images_once(engine):
    potential = lennard_jones((18,), epsilon_eV=0.01, sigma_A=3.4, cutoff_A=6.0)
    generator = np.random.default_rng(1)
    grid = 3.9 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)
    small = Structure(
        positions=jnp.asarray(grid + 0.1 * generator.normal(size=grid.shape))[None],
        species=jnp.full((1, 8), 18),
        cell=7.8 * jnp.eye(3)[None],
        charge=jnp.zeros(1, int),
        multiplicity=jnp.zeros(1, int),
    )
    sampler = metropolis_mc(
        potential, cycles=40, cycles_per_frame=5, temperature_K=200.0, engine=engine
    )
    frames = walked(sampler, potential, small)
    assert frames.acceptance.mean() > 0.1
    full = recomputed(potential, potential.init(jax.random.key(1)), frames)
    np.testing.assert_allclose(frames.energy, full, atol=1e-9, rtol=0)


def test_minimum_distance_and_floor_guard(data_folder):
    potential = ml_bop((8,))
    start = water(data_folder, 0)
    sampler = nested_mc(
        potential, cycles=60, initial_ceiling_eV_per_atom=None, minimum_distance_A=2.0
    )
    frames = walked(sampler, potential, start)
    vectors = frames.structure.positions[-1, 0]
    length = float(start.cell[0, 0, 0])
    apart = vectors[:, None] - vectors[None]
    apart -= length * np.round(apart / length)
    distances = np.linalg.norm(apart, axis=-1) + 10 * np.eye(108)
    assert distances.min() >= 2.0

    # A floor above the energy of a liquid: the walk is stopped, sent back, and at last frozen.
    stepper = batched(
        metropolis_mc(
            potential, cycles=60, cycles_per_frame=2, temperature_K=10.0, restarts=2
        ).stepper
    )
    floor = {"floor_eV_per_atom": jnp.asarray(-0.37)}
    context = Context(params=potential.init(jax.random.key(1)), targets=floor)
    place = metropolis_mc(potential).place
    state = stepper.init(jax.random.key(2), place(start), context)
    state, frames = run(stepper, jax.random.key(3), state, context, steps=30)
    stopped = np.flatnonzero(frames.stopped[:, 0])
    assert int(state.guard.restarts[0]) == 2
    assert frames.stopped[-1, 0]
    assert np.all(frames.energy[stopped, 0] < -0.37 * 108)
    assert frames.energy[-1, 0] == frames.energy[-2, 0]


def test_perturbation_stays_in_its_ranges(data_folder):
    potential = ml_bop((8,))
    start = water(data_folder, 0)
    sampler = perturbation(potential, frames=50, amplitude_A=(0.1, 0.2), density_factor=(0.5, 2.0))
    frames = walked(sampler, potential, start)
    scale = frames.structure.cell[:, 0, 0, 0] / float(start.cell[0, 0, 0])
    density = scale**-3.0
    assert density.min() > 0.5
    assert density.max() < 2.0
    assert density.std() > 0.1
    unscaled = frames.structure.positions[:, 0] / scale[:, None, None]
    moved = np.abs(unscaled - np.asarray(start.positions))
    assert np.all(moved.max(axis=(1, 2)) * scale < 0.2)
    assert np.all(moved.max(axis=(1, 2)) * scale > 0.08)


@pytest.mark.slow
def test_committee_mean_walks_as_one_potential(data_folder):
    from alj.potentials import behler_parrinello

    single = behler_parrinello((8,))
    params = jax.vmap(single.init)(jax.random.split(jax.random.key(0), 3))
    start = water(data_folder, 0)
    mean = committee(single)
    frames = walked(metropolis_mc(mean, cycles=10), mean, start, params)
    full = recomputed(mean, params, frames)
    np.testing.assert_allclose(frames.energy, full, atol=1e-8, rtol=0)


def test_sweeps_lower_for_every_platform():
    from sampling.springs import clusters, springs

    potential = springs()
    sampler = nested_mc(potential, cycles=8, engine="jax")
    context = Context(params=potential.init(jax.random.key(0)))
    place = jax.tree.map(lambda x: x[0], sampler.place(clusters(1)))

    def step(seed):
        state = sampler.stepper.init(jax.random.key(seed), place, context)
        return sampler.stepper.step(jax.random.key(seed + 1), state, context)[1].energy

    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(0)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
