"""Laws of motion: order, reversal, what is held, what is removed, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import begin, clusters, springs
from sampling.wells import at_rest, wells

from alj import registry, units
from alj.potentials.lennard_jones import lennard_jones
from alj.sampling import SAMPLERS, thermostats
from alj.sampling.dynamics import Biased
from alj.sampling.masses import masses_of
from alj.sampling.molecular_dynamics import (
    DYNAMICS,
    fire,
    npt_nose_hoover,
    nve,
    nvt_csvr,
    nvt_langevin,
    nvt_nose_hoover,
)
from alj.stepping import run
from alj.types import BadInput, Bias, Context, Structure

KEY = jax.random.key(11)


def walked(sampler, potential, structures, *, steps=None, change=lambda state: state, key=KEY):
    stepper, state, context = begin(sampler, potential, structures)
    return run(stepper, key, change(state), context, steps=steps or sampler.steps)


def argon(atoms_along: int = 2, density: float = 0.8) -> Structure:
    """A face-centered cubic crystal; density in units of σ⁻³."""
    edge, n = (4 / density) ** (1 / 3) * 3.4, atoms_along
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    shifts = np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 1, 3)
    positions = (corners[None] + shifts).reshape(-1, 3) * edge
    return Structure(
        jnp.asarray(positions)[None],
        jnp.full((1, len(positions)), 18),
        n * edge * jnp.eye(3)[None],
        jnp.zeros(1, int),
        jnp.zeros(1, int),
    )


def molecule(positions, species) -> Structure:
    count = len(species)
    return Structure(
        jnp.asarray(positions, float).reshape(1, count, 3),
        jnp.asarray(species)[None],
        jnp.zeros((1, 3, 3)),
        jnp.zeros(1, int),
        jnp.zeros(1, int),
    )


def test_energy_errors_are_of_second_order_and_time_runs_backwards():
    potential, errors = springs(), []
    for timestep in (2.0, 8.0):
        every = int(8 / timestep)
        sampler = nve(potential, timestep_fs=timestep, steps=200 * every, record_every=every)
        stepper, state, context = begin(sampler, potential, clusters(4))
        after, frames = run(stepper, KEY, state, context, steps=200)
        errors.append(np.std(frames.conserved, axis=0).mean())
    slope = np.log(errors[1] / errors[0]) / np.log(4.0)
    assert abs(slope - 2.0) < 0.05
    back, _ = run(stepper, KEY, after._replace(momenta=-after.momenta), context, steps=200)
    np.testing.assert_allclose(back.structure.positions, state.structure.positions, atol=1e-9)


@pytest.mark.parametrize("cell", ["isotropic", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_constant_pressure_keeps_its_energy_to_second_order(cell):
    potential, errors = lennard_jones((18,), shift=True, cutoff_A=6.0), []
    for timestep in (5.0, 10.0):
        sampler = npt_nose_hoover(
            potential, timestep_fs=timestep, steps=int(1000 / timestep), record_every=1,
            temperature_K=20.0, pressure_bar=100.0, cell=cell, pressure_time_fs=300.0,
        )  # fmt: skip
        after, frames = walked(sampler, potential, argon(2, 1.05))
        errors.append(np.std(frames.conserved))
    assert 3.0 < errors[1] / errors[0] < 5.0
    matrix = np.asarray(after.structure.cell[0] / after.structure.cell[0, 0, 0])
    assert np.allclose(matrix, np.eye(3)) == (cell == "isotropic")
    assert np.std(frames.volume) > 0


def test_nose_hoover_chain_is_that_of_jax_md(monkeypatch):
    from jax_md import simulate

    monkeypatch.setattr(thermostats, "SUZUKI_YOSHIDA", (1.0,))
    freedoms, kT, time, dt = 9, 0.03, 5.0, 0.2
    theirs = simulate.nose_hoover_chain(dt, 3, 1, 1, time)
    momenta = jnp.asarray([0.3, -0.5, 0.8])
    kinetic = 0.5 * jnp.sum(momenta**2)
    state = theirs.initialize(freedoms, kinetic, kT)
    ours = thermostats.Chain(jnp.zeros(3), jnp.zeros(3))
    for _ in range(5):
        scaled, state = theirs.half_step(momenta, state, kT)
        ours, factor = thermostats.chain_half_step(
            ours, 0.5 * jnp.sum(momenta**2), jnp.asarray(9.0), jnp.asarray(kT), time, dt
        )
        np.testing.assert_allclose(factor * momenta, scaled, rtol=1e-6)
        momenta = scaled
    np.testing.assert_allclose(ours.momenta, state.momentum, rtol=1e-5)


@pytest.mark.slow
def test_frozen_atoms_stay_and_the_rest_has_the_temperature():
    potential = springs()
    sampler = nvt_langevin(
        potential, frozen=(0, 2), steps=4000, record_every=40, friction_time_fs=50.0
    )
    start = clusters(32)
    _, frames = walked(sampler, potential, start)
    frozen = np.broadcast_to(
        start.positions[:, [0, 2]], frames.structure.positions[:, :, [0, 2]].shape
    )
    np.testing.assert_array_equal(frames.structure.positions[:, :, [0, 2]], frozen)
    assert np.all(frames.velocities[:, :, [0, 2]] == 0)
    means = frames.temperature_K[20:].mean(axis=0)
    assert abs(means.mean() - 300.0) < 4 * means.std(ddof=1) / np.sqrt(len(means))


@pytest.mark.slow
@pytest.mark.parametrize("drift", ["translation", "rotation"])
def test_motion_of_the_whole_is_removed(drift):
    potential = springs()
    sampler = nvt_langevin(
        potential, drift=drift, steps=200, record_every=20, friction_time_fs=20.0
    )
    free = clusters(3)._replace(cell=jnp.zeros((3, 3, 3)))
    after, _ = walked(sampler, potential, free)
    np.testing.assert_allclose(jnp.sum(after.momenta, axis=1), 0.0, atol=1e-12)
    arms = after.structure.positions - jnp.mean(after.structure.positions, axis=1, keepdims=True)
    angular = np.abs(jnp.sum(jnp.cross(arms, after.momenta), axis=1)).max()
    assert (angular < 1e-10) == (drift == "rotation")
    assert float(after.bodies.freedoms[0]) == {"translation": 9, "rotation": 6}[drift]


@pytest.mark.slow
def test_a_wall_holds_a_gas():
    potential = lennard_jones((18,), epsilon_eV=0.0)
    sampler = nvt_langevin(
        potential, wall_radius_A=8.0, wall_stiffness_eV_per_A2=2.0, steps=8000, record_every=100,
        timestep_fs=5.0, temperature_K=600.0, skin_A=20.0,
    )  # fmt: skip
    corners = np.stack(np.meshgrid(*[[-2.0, 2.0]] * 3), -1).reshape(-1, 3)
    _, frames = walked(sampler, potential, molecule(corners, [18] * 8))
    radii = np.linalg.norm(frames.structure.positions, axis=-1)
    # kT = 0.052 eV reaches 0.16 Å into the wall; 1.2 Å would be 28 kT
    assert radii.max() < 9.2
    assert np.mean(radii[40:] > 4.0) > 0.7
    assert np.max(frames.external_energy) > 0


@pytest.mark.slow
def test_replicas_have_temperatures_of_their_own_and_schedules():
    potential, count = wells(4), 64
    sampler = nvt_langevin(
        potential, temperature_K=300.0, steps=3000, record_every=50, timestep_fs=2.0,
        friction_time_fs=50.0, skin_A=5.0, drift="keep",
    )  # fmt: skip
    hot = np.where(np.arange(count) % 2, 900.0, 300.0)
    ends = jnp.asarray(np.stack([hot, np.full(count, 300.0)], axis=1))

    def change(state):
        return state._replace(bath=state.bath._replace(temperature_K=ends))

    _, frames = walked(sampler, potential, at_rest(count, 4), change=change)
    ramped = frames.temperature_K[:, 1::2].mean(axis=1)
    wanted = 900.0 - 600.0 * np.arange(1, 61) / 60
    assert np.all(np.abs(ramped[10:] - wanted[10:]) < 6 * wanted[10:] * np.sqrt(2 / 12 / 32))
    assert abs(frames.temperature_K[10:, ::2].mean() - 300.0) < 15.0


@pytest.mark.slow
def test_padding_changes_nothing_and_a_batch_is_its_members():
    potential, structures = springs(), clusters(3)
    sampler = nvt_nose_hoover(potential, steps=200, record_every=100, skin_A=0.1)
    _, together = walked(sampler, potential, structures)
    padded = structures._replace(
        positions=jnp.pad(structures.positions, ((0, 0), (0, 2), (0, 0))),
        species=jnp.pad(structures.species, ((0, 0), (0, 2))),
    )
    stepper, state, context = begin(sampler, potential, structures)
    stepper, wide, context = begin(sampler, potential, padded)
    wide = wide._replace(
        momenta=jnp.pad(state.momenta, ((0, 0), (0, 2), (0, 0))), extra=state.extra
    )
    _, frames = run(stepper, KEY, wide, context, steps=2)
    np.testing.assert_allclose(
        frames.structure.positions[:, :, :4], together.structure.positions, atol=1e-9
    )
    single = sampler.stepper
    for member in range(3):
        one = jax.tree.map(lambda leaf: leaf[member], state)
        _, alone = run(single, KEY, one, context, steps=2)
        np.testing.assert_allclose(
            alone.structure.positions, together.structure.positions[:, member], atol=1e-10
        )


@pytest.mark.slow
def test_tables_are_carried_and_a_small_one_grows():
    potential = lennard_jones((18,), cutoff_A=6.0)
    sampler = nve(potential, steps=400, record_every=100, timestep_fs=5.0, temperature_K=200.0)
    wide = nve(
        potential, steps=400, record_every=100, timestep_fs=5.0, temperature_K=200.0, skin_A=0.001
    )
    stepper, state, context = begin(sampler, potential, argon())
    after, carried = run(stepper, KEY, state, context, steps=2)
    assert not np.array_equal(after.table.positions, state.table.positions)
    _, always = walked(wide, potential, argon(), steps=2)
    np.testing.assert_allclose(carried.energy, always.energy, atol=1e-9)
    few = state.table.neighbors
    few = few._replace(indices=few.indices[..., :8], shifts=few.shifts[..., :8, :])
    table = state.table._replace(neighbors=few, positions=state.table.positions * jnp.nan)
    grown, replayed = run(stepper, KEY, state._replace(table=table), context, steps=2)
    assert grown.table.neighbors.indices.shape[-1] > 8
    np.testing.assert_allclose(carried.energy, replayed.energy, atol=1e-9)


def test_fire_finds_the_minimum():
    potential = lennard_jones((18,), cutoff_A=20.0, shift=False)
    sampler = fire(potential, steps=2000, record_every=100, force_tolerance_eV_per_A=1e-6)
    start = 3.4 * np.array([[0, 0, 0], [1.3, 0, 0], [0.5, 1.1, 0], [0.4, 0.3, 1.2]])
    _, frames = walked(sampler, potential, molecule(start, [18] * 4))
    # a tetrahedron: six pairs at the minimum
    np.testing.assert_allclose(frames.energy[-1], -6 * 0.0104, atol=1e-10)
    assert frames.largest_force[-1, 0] < 1e-6
    assert not frames.stopped.any()


@pytest.mark.parametrize("builder", [nve, nvt_csvr, fire])
def test_atoms_too_close_stop_the_walk_without_a_nan(builder):
    potential = lennard_jones((18,))
    sampler = builder(potential, steps=20, record_every=5, longest_step_A=0.05)
    near = molecule([[0, 0, 0], [0.3, 0, 0], [4, 0, 0]], [18, 18, 18])
    _, frames = walked(sampler, potential, near)
    assert frames.stopped[-1, 0]
    for leaf in (frames.structure.positions, frames.energy, frames.velocities):
        assert np.isfinite(leaf).all()


def test_a_step_that_is_too_large_stops_the_walk():
    potential = wells(2, scale=400.0)
    sampler = nve(potential, steps=400, record_every=20, timestep_fs=8.0, drift="keep")
    _, frames = walked(sampler, potential, at_rest(1, 2))
    assert frames.stopped[-1, 0]
    assert np.isfinite(frames.structure.positions).all()
    late = frames.structure.positions[frames.stopped[:, 0]]
    assert np.all(late == late[:1])


@pytest.mark.slow
def test_a_collapsing_cell_stops_the_walk():
    potential = lennard_jones((18,), cutoff_A=6.0)
    sampler = npt_nose_hoover(
        potential, steps=4000, record_every=50, pressure_bar=2e5, temperature_K=100.0,
        pressure_time_fs=50.0, volume_factor=1.5,
    )  # fmt: skip
    _, frames = walked(sampler, potential, argon())
    assert frames.stopped[-1, 0]
    assert frames.volume[-1, 0] * 1.5 >= frames.volume[0, 0] * 0.9
    assert np.isfinite(frames.energy).all()


def test_a_floor_stops_with_the_hole_as_its_last_frame():
    potential = springs()
    sampler = nve(potential, steps=200, record_every=2, temperature_K=0.0)
    stepper, state, context = begin(sampler, potential, clusters(1))
    floor = float(state.energy[0]) / 8
    context = context._replace(targets={"floor_eV_per_atom": jnp.asarray(floor)})
    _, frames = run(stepper, KEY, state, context, steps=100)
    assert frames.stopped[-1, 0]
    assert not frames.stopped[0, 0]
    assert frames.energy[-1, 0] < 4 * floor


def test_a_bias_pulls_and_its_state_moves():
    potential = springs()
    bias = Bias(
        init=lambda context, structure: jnp.asarray(0.0, structure.positions.dtype),
        energy=lambda context, time, structure, neighbors: -1e-3 * structure.positions[0, 0] * time,
        update=lambda context, time, structure, neighbors: time + 1.0,
    )
    sampler = nve(Biased(potential, bias, lambda c, time, s, n: time), steps=10, record_every=5)
    _, frames = walked(sampler, potential, clusters(2))
    np.testing.assert_array_equal(frames.observed[:, 0], [5.0, 10.0])
    momentum = 15.999 * np.sum(frames.velocities, axis=2)
    assert np.all(momentum[-1, :, 0] > 0)
    np.testing.assert_allclose(momentum[-1, :, 1:], 0.0, atol=1e-12)


def test_given_velocities_are_taken():
    potential = springs()
    sampler = nve(potential, steps=1, record_every=1, timestep_fs=0.001)
    starts = sampler.place(clusters(1))
    given = jnp.asarray(np.random.default_rng(3).normal(size=(1, 4, 3))) * 1e-3
    state = jax.vmap(sampler.stepper.init, (0, 0, None))(
        jax.random.split(KEY, 1),
        starts._replace(velocities=given),
        Context(params=potential.init(KEY)),
    )
    energy = 0.5 * 15.999 * np.sum(given**2) * 103.6426965
    assert np.isclose(thermostats.kinetic_energy(state.momenta[0], _first(state.bodies)), energy)


def _first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


OVERLAP = molecule([[0, 0, 0], [0, 0, 0]], [18, 18])
WATER = molecule([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [8, 1, 1])
BAD = {
    "timestep": (nve, {"timestep_fs": 5.0}, WATER, "at most 2.8 fs"),
    "negative": (nve, {"timestep_fs": -1.0}, WATER, "timestep_fs"),
    "cold": (nvt_langevin, {"temperature_K": 0.0}, WATER, "temperature_K"),
    "overlap": (nve, {}, OVERLAP, "do not overlap"),
    "frozen": (nve, {"frozen": (3,)}, WATER, "found 3"),
    "all frozen": (nve, {"frozen": (0, 1, 2)}, WATER, "nothing is left"),
    "drift": (nve, {"frozen": (0,), "drift": "translation"}, WATER, "drift"),
    "no cell": (npt_nose_hoover, {}, WATER, "three periodic directions"),
    "mass": (nve, {"masses_amu": {"H": 2.0}}, WATER, "atomic numbers"),
    "wall": (nve, {"wall_radius_A": 5.0, "timestep_fs": 5.0}, argon(), "without a cell"),
    "schedule": (nvt_csvr, {"temperature_K": (300.0, -1.0)}, WATER, "temperature_K"),
    "nan": (nve, {}, WATER._replace(positions=WATER.positions * jnp.nan), "not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_was_expected(case):
    builder, settings, structures, message = BAD[case]
    with pytest.raises(BadInput, match=message):
        builder(springs(), **settings).place(structures)


def test_settings_read_as_one_list_with_help():
    for builder in DYNAMICS:
        assert builder in SAMPLERS
        settings = registry.schema(builder)
        assert all(setting.help for setting in settings)
        assert {"timestep_fs", "steps", "frozen", "masses_amu"} <= {s.name for s in settings}
    spec = {"name": "nvt_langevin", "temperature_K": [500, 300], "masses_amu": {8: 18.015}}
    assert registry.resolve(SAMPLERS, spec)["temperature_K"] == [500.0, 300.0]
    assert registry.build(SAMPLERS, spec, springs()).ensemble == "NVT"
    with pytest.raises(BadInput, match="did you mean 'timestep_fs'"):
        registry.build(SAMPLERS, {"name": "nve", "timstep_fs": 1.0}, springs())
    with pytest.raises(TypeError, match="unexpected"):
        nve(springs(), timstep_fs=1.0)


def test_masses_are_the_standard_ones():
    from ase.data import atomic_masses

    np.testing.assert_allclose(masses_of(np.arange(1, 104)), atomic_masses[1:104])
    sampler = nve(springs(), masses_amu={8: 18.015})
    assert float(sampler.place(clusters(1)).bodies.masses[0, 0]) == 18.015


def test_linear_molecules_turn_about_two_axes():
    bodies = thermostats.Bodies(
        jnp.asarray([1.0, 16.0]), jnp.asarray([True, True]), jnp.asarray(1.0)
    )
    momenta = thermostats.maxwell(jax.random.key(12), bodies, 0.03)
    positions = jnp.asarray([[0.0, 0.0, 0.0], [0.5, 0.6, 0.7]])
    left = thermostats.without_drift(momenta, positions, bodies, "rotation")
    axis = (positions[1] - positions[0]) / np.sqrt(1.1)
    np.testing.assert_allclose(left[0] + left[1], 0.0, atol=1e-12)
    np.testing.assert_allclose(left[0] - axis * jnp.dot(left[0], axis), 0.0, atol=1e-10)
    relative = momenta[0] / 1.0 - momenta[1] / 16.0
    np.testing.assert_allclose(
        jnp.dot(left[0], axis), jnp.dot(relative, axis) * 16.0 / 17.0, rtol=1e-9
    )


def test_the_unit_of_time():
    amu, electronvolt = 1.66053906660e-27, 1.602176634e-19
    femtoseconds = np.sqrt(amu * 1e-20 / electronvolt) * 1e15
    np.testing.assert_allclose(1.0 / units.FEMTOSECOND, femtoseconds, rtol=1e-9)
