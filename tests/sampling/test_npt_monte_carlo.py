"""Constant-pressure Monte Carlo against what statistical mechanics says exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sampling.test_single_moves import recomputed, walked, water

from alj.analysis.thermodynamics import mean_of_walks
from alj.geometry.neighbors import batch_tables
from alj.potentials import lennard_jones, ml_bop
from alj.potentials.combine import energy, energy_forces_stress
from alj.sampling import npt_mc
from alj.stepping import batched, run
from alj.types import BadInput, Context, Structure
from alj.units import BOLTZMANN, EV_PER_A3_IN_BAR

ENGINES = pytest.mark.parametrize("engine", ["host", "jax"])
LAWS = pytest.mark.parametrize("engine", ["host", pytest.param("jax", marks=pytest.mark.slow)])
"""Statistics of both; by default of one, since another test holds the other to the same path."""

ROOM_TEMPERATURE = BOLTZMANN * 300.0


def ideal_gas(cutoff_A: float = 1.0):
    """No energy at all, yet a kernel for both engines; distances are seen up to the cutoff."""
    return lennard_jones((18,), epsilon_eV=0.0, sigma_A=1e-3, cutoff_A=cutoff_A)


def boxes(count: int, per_edge: int, edge_A: float) -> Structure:
    """Argon on a simple cubic lattice in cubic boxes."""
    grid = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3), -1).reshape(-1, 3) / per_edge
    return Structure(
        positions=jnp.tile(edge_A * jnp.asarray(grid)[None], (count, 1, 1)),
        species=jnp.full((count, per_edge**3), 18),
        cell=jnp.tile(edge_A * jnp.eye(3)[None], (count, 1, 1)),
        charge=jnp.zeros(count, int),
        multiplicity=jnp.zeros(count, int),
    )


def volumes(frames):
    return np.abs(np.linalg.det(np.asarray(frames.structure.cell)))


def bars(scale_A3: float, kT: float = ROOM_TEMPERATURE) -> float:
    """The pressure at which kT/p is a given volume."""
    return kT / scale_A3 * EV_PER_A3_IN_BAR


@pytest.mark.slow
@LAWS
def test_ideal_gas_has_the_gamma_distribution_of_volumes(engine):
    chains, atoms, scale = 48, 8, 150.0
    sampler = npt_mc(
        ideal_gas(),
        cycles=600,
        cycles_per_frame=20,
        pressure_bar=bars(scale),
        volume_step=1.0,
        target_acceptance=0.3,
        engine=engine,
    )
    frames = walked(sampler, ideal_gas(), boxes(chains, 2, 11.0))
    seen = volumes(frames)[sampler.steps // 5 :]
    shape = atoms + 1
    # Walks are independent, the frames of one are not: errors from how the walks differ.
    for found, expected in (
        (seen.mean(axis=0), shape * scale),
        (((seen - shape * scale) ** 2).mean(axis=0), shape * scale**2),
    ):
        error = found.std(ddof=1) / np.sqrt(chains)
        assert error < 0.1 * expected
        assert abs(found.mean() - expected) < 4 * error
    assert scipy.stats.kstest(seen[-1], scipy.stats.gamma(shape, scale=scale).cdf).pvalue > 1e-3


def _lattice_energy(potential, edges):
    """The energy of one atom and its images in cubic boxes."""
    each = boxes(len(edges), 1, 1.0)._replace(cell=edges[:, None, None] * jnp.eye(3)[None])
    params, tables = potential.init(jax.random.key(0)), batch_tables(each, potential.cutoff)
    return np.asarray(jax.vmap(lambda s, n: energy(potential, params, s, n))(each, tables))


@pytest.mark.slow
@LAWS
def test_one_atom_among_its_images_has_the_volumes_of_an_integral(engine):
    """P(V) ∝ V exp[-β (E(V) + p V)] with the lattice sum E: images, energies and the exponent."""
    potential = lennard_jones((18,), epsilon_eV=0.0104, sigma_A=3.4, cutoff_A=6.0)
    kT, scale = BOLTZMANN * 120.0, 40.0
    sampler = npt_mc(
        potential,
        cycles=480,
        cycles_per_frame=40,
        temperature_K=120.0,
        pressure_bar=bars(scale, kT),
        volume_step=0.8,
        equilibration=0.0,
        engine=engine,
    )
    frames = walked(sampler, potential, boxes(128, 1, 7.0))
    assert frames.energy.min() < -0.03  # the wells of images beyond the nearest are reached
    seen = volumes(frames)[2:].ravel()
    edges = np.linspace(2.9, 11.0, 300)
    grid = edges**3
    density = grid * np.exp(-_lattice_energy(potential, edges) / kT - grid / scale)
    cumulated = np.concatenate([[0], np.cumsum(np.diff(grid) * (density[1:] + density[:-1]))])
    exact = scipy.stats.kstest(seen, lambda v: np.interp(v, grid, cumulated / cumulated[-1]))
    assert exact.pvalue > 1e-3


@pytest.mark.slow
@LAWS
def test_no_volume_move_brings_images_closer_than_the_minimum(engine):
    """An ideal atom that keeps 4 Å from its images: P(V) ∝ V exp(-β p V) above 64 Å^3."""
    scale = 30.0
    sampler = npt_mc(
        ideal_gas(5.0),
        cycles=400,
        cycles_per_frame=40,
        pressure_bar=bars(scale),
        volume_step=0.8,
        minimum_distance_A=4.0,
        engine=engine,
    )
    seen = volumes(walked(sampler, ideal_gas(5.0), boxes(64, 1, 5.0)))[2:].ravel()
    assert seen.min() >= 64.0
    gamma = scipy.stats.gamma(2, scale=scale)
    result = scipy.stats.kstest(seen, lambda v: 1.0 - gamma.sf(v) / gamma.sf(64.0))
    assert result.pvalue > 1e-3


@pytest.mark.slow
def test_the_pressure_inside_is_the_pressure_outside():
    """⟨N kT / V - ∂E/∂V⟩ = p exactly, for any number of atoms: here 8 and their images."""
    potential = lennard_jones((18,), epsilon_eV=0.0104, sigma_A=3.4, cutoff_A=6.0)
    sampler = npt_mc(
        potential,
        cycles=1200,
        cycles_per_frame=10,
        temperature_K=150.0,
        pressure_bar=1000.0,
        volume_step=0.3,
        engine="host",
    )
    frames = walked(sampler, potential, boxes(16, 2, 8.0))
    kept = jax.tree.map(lambda x: jnp.asarray(x)[sampler.steps // 5 :], frames.structure)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)
    params, tables = potential.init(jax.random.key(1)), batch_tables(flat, potential.cutoff)
    stress = jax.jit(jax.vmap(lambda s, n: energy_forces_stress(potential, params, s, n)[2]))
    virial = -np.trace(stress(flat, tables), axis1=1, axis2=2) / 3.0
    density = 8 / np.abs(np.linalg.det(np.asarray(flat.cell)))
    inside = (density * BOLTZMANN * 150.0 + virial) * EV_PER_A3_IN_BAR
    found = mean_of_walks(list(inside.reshape(kept.species.shape[:2]).T))
    assert found.error < 50.0
    assert abs(found.mean - 1000.0) < 4 * found.error


@pytest.mark.slow
@ENGINES
def test_local_differences_equal_full_recomputation(data_folder, engine):
    potential = ml_bop((8,))
    sampler = npt_mc(
        potential, cycles=24, cycles_per_frame=2, pressure_bar=2e4, volume_step=0.05, engine=engine
    )
    frames = walked(sampler, potential, water(data_folder, 0, 9))
    assert len(np.unique(volumes(frames))) > 8
    full = recomputed(potential, potential.init(jax.random.key(1)), frames)
    np.testing.assert_allclose(frames.energy, full, atol=1e-8, rtol=0)


def assert_same_path(first, second):
    assert volumes(first).std(axis=0).min() > 0
    np.testing.assert_allclose(first.energy, second.energy, atol=1e-10, rtol=0)
    for one, other in zip(first.structure[:3], second.structure[:3], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10, rtol=0)


@pytest.mark.slow
def test_both_engines_walk_the_same_path(data_folder):
    potential = ml_bop((8,))
    both = [
        walked(
            npt_mc(potential, cycles=16, cycles_per_frame=4, pressure_bar=1e3, engine=engine),
            potential,
            water(data_folder, 0, 9),
        )
        for engine in ("host", "jax")
    ]
    assert_same_path(*both)


@pytest.mark.slow
def test_a_collapsing_box_grows_its_tables_and_walks_the_same_path():
    """From 20 Å, no images within reach, to a liquid of 8 atoms: the block is replayed."""
    potential = lennard_jones((18,), epsilon_eV=0.0104, sigma_A=3.4, cutoff_A=6.0)
    stepped, walks = {}, []
    for engine in ("host", "jax"):
        sampler = npt_mc(
            potential, cycles=120, pressure_bar=2e4, volume_step=0.3, minimum_distance_A=2.5,
            engine=engine,
        )  # fmt: skip
        stepper, context = batched(sampler.stepper), Context(potential.init(jax.random.key(1)))
        start = stepper.init(jax.random.key(2), sampler.place(boxes(2, 2, 20.0)), context)
        stepped[engine] = start, *run(stepper, jax.random.key(7), start, context, steps=12)
        walks.append(stepped[engine][2])
    before, after, _ = stepped["jax"]
    assert before.walker.offsets.shape[1] == 1
    assert after.walker.offsets.shape[1] > 1
    assert after.walker.table.indices.shape[-1] > before.walker.table.indices.shape[-1]
    assert volumes(walks[0])[-1].max() < 0.1 * 20.0**3
    assert_same_path(*walks)


def test_steps_adapt_and_then_stay():
    sampler = npt_mc(
        ideal_gas(), cycles=100, cycles_per_frame=5, pressure_bar=bars(50.0), volume_step=1.0,
        equilibration=0.5,
    )  # fmt: skip
    stepper, context = batched(sampler.stepper), Context(ideal_gas().init(jax.random.key(1)))
    state = stepper.init(jax.random.key(2), sampler.place(boxes(4, 3, 14.0)), context)
    half, _ = run(stepper, jax.random.key(3), state, context, steps=10)
    full, _ = run(stepper, jax.random.key(3), half, context, steps=10, start=10)
    assert np.all(half.volume_step < state.volume_step)
    np.testing.assert_array_equal(half.volume_step, full.volume_step)


def test_a_walk_that_falls_through_the_floor_gets_its_cell_back(data_folder):
    potential, start = ml_bop((8,)), water(data_folder, 0)
    sampler = npt_mc(
        potential, cycles=100, cycles_per_frame=2, temperature_K=10.0, pressure_bar=1e4, restarts=1
    )
    floor = {"floor_eV_per_atom": jnp.asarray(-0.37)}
    context = Context(params=potential.init(jax.random.key(1)), targets=floor)
    stepper = batched(sampler.stepper)
    state = stepper.init(jax.random.key(2), sampler.place(start), context)
    while not int(state.guard.restarts[0]):
        state, frames = run(
            stepper, jax.random.key(3), state, context, steps=1, start=int(state.done[0])
        )
    assert frames.stopped[0, 0]
    assert not np.array_equal(frames.structure.cell[0], start.cell)
    np.testing.assert_array_equal(state.walker.structure.cell, start.cell)
    np.testing.assert_array_equal(state.walker.structure.positions, start.positions)
    # No restart is left: below the floor both kinds of moves freeze.
    _, frames = run(stepper, jax.random.key(4), state, context, steps=40)
    assert frames.stopped[-1, 0]
    np.testing.assert_array_equal(frames.structure.cell[-1], frames.structure.cell[-2])
    np.testing.assert_array_equal(frames.structure.positions[-1], frames.structure.positions[-2])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("pressure_bar", -1.0),
        ("pressure_bar", float("nan")),
        ("temperature_K", 0.0),
        ("volume_step", 0.0),
        ("volume_step", 2.0),
        ("equilibration", 1.5),
        ("cycles", 0),
        ("step_A", 0.0),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value):
    with pytest.raises(BadInput, match=setting):
        npt_mc(ideal_gas(), **{setting: value})


@ENGINES
def test_a_box_that_is_not_periodic_is_refused(engine):
    box = boxes(2, 2, 10.0)
    slab = box._replace(cell=box.cell.at[1, 2].set(0.0))
    with pytest.raises(BadInput, match="expected three periodic directions, found 2"):
        npt_mc(ideal_gas(), engine=engine).place(slab)


def test_volume_moves_lower_for_every_platform():
    potential = ideal_gas()
    sampler = npt_mc(potential, cycles_per_frame=4, engine="jax")
    context = Context(params=potential.init(jax.random.key(0)))
    place = jax.tree.map(lambda x: x[0], sampler.place(boxes(1, 2, 10.0)))

    def step(seed):
        state = sampler.stepper.init(jax.random.key(seed), place, context)
        return sampler.stepper.step(jax.random.key(seed + 1), state, context)[1].energy

    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(0)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}


def reduced_density(shift: bool, *, per_edge: int, cycles: int, chains: int, seed: int):
    """ρ* of Lennard-Jones cut at 2.5 and its error at T* = 1.2, p* = 1; and the frames.

    One eV is ε and one Å is σ.
    """
    potential = lennard_jones((18,), epsilon_eV=1.0, sigma_A=1.0, cutoff_A=2.5, shift=shift)
    sampler = npt_mc(
        potential,
        cycles=cycles,
        cycles_per_frame=5,
        temperature_K=1.2 / BOLTZMANN,
        pressure_bar=EV_PER_A3_IN_BAR,
        step_A=0.25,
        volume_step=0.1,
        engine="host",
    )
    atoms = 4 * per_edge**3
    edge = (atoms / 0.7) ** (1.0 / 3.0)
    corners = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3), -1).reshape(-1, 1, 3)
    faces = np.asarray([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    lattice = (corners + faces).reshape(1, -1, 3) * edge / per_edge
    start = Structure(
        positions=jnp.tile(jnp.asarray(lattice), (chains, 1, 1)),
        species=jnp.full((chains, atoms), 18),
        cell=jnp.tile(edge * jnp.eye(3)[None], (chains, 1, 1)),
        charge=jnp.zeros(chains, int),
        multiplicity=jnp.zeros(chains, int),
    )
    frames = walked(sampler, potential, start, seed=seed)
    return mean_of_walks(list((atoms / volumes(frames)[sampler.steps // 5 :]).T)), frames


@pytest.mark.slow
def test_a_small_lennard_jones_liquid_has_about_the_density_of_lammps():
    density, _ = reduced_density(True, per_edge=3, cycles=600, chains=2, seed=3)
    assert density.error < 0.01
    assert abs(density.mean - 0.678) < 0.01 + 4 * density.error


@pytest.mark.slow
def test_lennard_jones_has_the_density_of_lammps():
    """256 atoms: ρ* = 0.678(5). Dynamics feels no force at the cutoff, as if u were shifted."""
    density, _ = reduced_density(True, per_edge=4, cycles=6000, chains=2, seed=5)
    assert density.error < 0.002
    assert abs(density.mean - 0.678) < 0.005 + 2 * density.error


@pytest.mark.slow
def test_the_jump_of_a_truncated_potential_pulls():
    """Not shifted, u jumps by u_c = u(r_c) at the cutoff: an attraction that adds to the pressure

        p = ρ kT + virial + (2π/3) ρ² r_c³ g(r_c) u_c,

    so the same outer pressure holds a denser liquid than the shifted potential's.
    """
    density, frames = reduced_density(False, per_edge=3, cycles=3000, chains=2, seed=6)
    assert density.mean - 4 * density.error > 0.69
    kept = jax.tree.map(lambda x: jnp.asarray(x)[120::2], frames.structure)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)
    smooth = lennard_jones((18,), epsilon_eV=1.0, sigma_A=1.0, cutoff_A=2.5)
    width, tables = 0.1, batch_tables(flat, 2.5)
    wider = batch_tables(flat, 2.5 + width)
    stress = jax.jit(jax.vmap(lambda s, n: energy_forces_stress(smooth, {}, s, n)[2]))
    virial = -np.trace(stress(flat, tables), axis1=1, axis2=2) / 3.0
    volume = np.abs(np.linalg.det(np.asarray(flat.cell)))
    # ρ² r_c³ g(r_c) from the pairs in a thin shell about the cutoff: N ρ g 4πr² 2w of them.
    inner = batch_tables(flat, 2.5 - width)
    pairs = np.sum(np.asarray(wider.indices) < 108, axis=(1, 2)) - np.sum(
        np.asarray(inner.indices) < 108, axis=(1, 2)
    )
    shell = 4.0 / 3.0 * np.pi * ((2.5 + width) ** 3 - (2.5 - width) ** 3)
    jump = 4.0 * (2.5**-12 - 2.5**-6)
    pull = 2.0 * np.pi / 3.0 * 2.5**3 * jump * pairs / shell / volume
    inside = 108 / volume * 1.2 + virial + pull
    found = mean_of_walks(list(inside.reshape(kept.species.shape[:2]).T))
    assert pull.mean() < -0.2
    assert found.error < 0.03  # eight times smaller than the pull
    assert abs(found.mean - 1.0) < 4 * found.error
