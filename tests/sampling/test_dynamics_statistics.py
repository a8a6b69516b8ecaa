"""Dynamics against exact statistics: harmonic wells, an ideal gas, the Lennard-Jones liquid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sampling.springs import begin
from sampling.wells import at_rest, stiffnesses, wells

from alj.potentials.lennard_jones import lennard_jones
from alj.sampling.molecular_dynamics import (
    npt_nose_hoover,
    nvt_andersen,
    nvt_berendsen,
    nvt_csvr,
    nvt_langevin,
    nvt_nose_hoover,
)
from alj.stepping import run
from alj.types import Structure
from alj.units import BOLTZMANN, EV_PER_A3_IN_BAR

KEY = jax.random.key(3)
ATOMS, REPLICAS, TEMPERATURE = 4, 1024, 600.0
ENERGY = BOLTZMANN * TEMPERATURE
WELLS = {
    "temperature_K": TEMPERATURE,
    "timestep_fs": 2.0,
    "drift": "keep",
    "skin_A": 5.0,
    "initial_temperature_K": 900.0,
}


def last_energies(sampler, potential, structures):
    """Potential and kinetic energies of all replicas at the end, over kT."""
    stepper, state, context = begin(sampler, potential, structures)
    _, frames = run(stepper, KEY, state, context, steps=sampler.steps)
    assert not frames.stopped.any()
    return frames.energy[-1] / ENERGY, frames.kinetic[-1] / ENERGY


def follows(values, shape) -> bool:
    """A gamma distribution: the whole of it, its mean and its variance."""
    error = np.sqrt(shape / len(values))
    spread = np.var(values) / shape - 1.0
    return bool(
        scipy.stats.kstest(values, scipy.stats.gamma(shape).cdf).pvalue > 1e-3
        and abs(values.mean() - shape) < 4 * error
        and abs(spread) < 4 * np.sqrt((2.0 + 6.0 / shape) / len(values))
    )


@pytest.mark.parametrize(
    ("builder", "settings"),
    [
        (nvt_langevin, {"friction_time_fs": 200.0}),
        (nvt_csvr, {"coupling_time_fs": 50.0}),
        (nvt_andersen, {"collision_time_fs": 200.0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.slow
def test_a_bath_brings_atoms_at_rest_to_the_canonical_distribution(builder, settings):
    potential = wells(ATOMS)
    sampler = builder(potential, steps=3000, record_every=3000, **WELLS, **settings)
    inner, kinetic = last_energies(sampler, potential, at_rest(REPLICAS, ATOMS))
    assert follows(inner, 1.5 * ATOMS)
    assert follows(kinetic, 1.5 * ATOMS)
    assert follows(inner + kinetic, 3.0 * ATOMS)
    assert abs(np.corrcoef(inner, kinetic)[0, 1]) < 4 / np.sqrt(REPLICAS)


def canonical(count: int) -> Structure:
    """Replicas in their wells, drawn from the canonical distribution."""
    start = at_rest(count, ATOMS)
    drawn = np.random.default_rng(1).normal(size=start.positions.shape)
    widths = np.sqrt(ENERGY / stiffnesses(ATOMS))
    return start._replace(positions=start.positions + jnp.asarray(drawn * widths))


@pytest.mark.slow
def test_nose_hoover_keeps_the_canonical_distribution():
    """It is deterministic, and slow to mix in wells: its measure is tested, not its mixing."""
    potential = wells(ATOMS)
    settings = WELLS | {"initial_temperature_K": TEMPERATURE}
    sampler = nvt_nose_hoover(
        potential, steps=3000, record_every=3000, coupling_time_fs=50.0, **settings
    )
    start = canonical(REPLICAS)
    inner, kinetic = last_energies(sampler, potential, start)
    assert follows(inner, 1.5 * ATOMS)
    assert follows(kinetic, 1.5 * ATOMS)
    assert follows(inner + kinetic, 3.0 * ATOMS)
    # and the energy of a replica has been exchanged with the chain
    moved = np.asarray(start.positions) - np.asarray(at_rest(1, ATOMS).positions)
    before = np.sum(stiffnesses(ATOMS) * moved**2, axis=(1, 2))
    assert abs(np.corrcoef(0.5 * before / ENERGY, inner)[0, 1]) < 0.5


def test_langevin_positions_are_exact_at_a_large_step():
    """BAOAB in a well: <x²> = kT/k at any step, <p²/m> = kT (1 - (ω Δt)²/4)."""
    potential = wells(ATOMS, scale=4.0)
    step = 10.0
    settings = WELLS | {"timestep_fs": step, "initial_temperature_K": TEMPERATURE}
    sampler = nvt_langevin(
        potential, steps=300, record_every=300, friction_time_fs=100.0, **settings
    )
    inner, kinetic = last_energies(sampler, potential, at_rest(REPLICAS, ATOMS))
    assert follows(inner, 1.5 * ATOMS)
    angle = np.sqrt(4.0 * stiffnesses(ATOMS) / 15.999) * step / 10.180505710774743
    assert 0.5 < angle.min() < angle.max() < 1.0
    expected = 0.5 * np.sum(1.0 - angle**2 / 4.0)
    error = kinetic.std() / np.sqrt(REPLICAS)
    assert abs(kinetic.mean() - expected) < 4 * error
    assert 1.5 * ATOMS - expected > 10 * error


def test_berendsen_has_the_temperature_and_declares_no_ensemble():
    potential = wells(ATOMS)
    sampler = nvt_berendsen(
        potential, steps=1000, record_every=1000, coupling_time_fs=50.0, **WELLS
    )
    assert sampler.ensemble is None
    inner, kinetic = last_energies(sampler, potential, at_rest(256, ATOMS))
    assert abs((inner + kinetic).mean() / (3.0 * ATOMS) - 1.0) < 0.1
    assert np.var(kinetic) < 0.3 * 1.5 * ATOMS


@pytest.mark.slow
def test_an_ideal_gas_has_its_volumes():
    """V follows V^N exp(-pV/kT): a gamma distribution of shape N+1, not N."""
    count, atoms, pressure = 512, 4, 1000.0
    potential = wells(1)._replace(
        atomic_energies=lambda params, structure, n: 0.0 * jnp.sum(structure.positions, axis=-1)
    )
    unit = ENERGY * EV_PER_A3_IN_BAR / pressure
    edge = ((atoms + 1) * unit) ** (1 / 3)
    places = np.random.default_rng(0).uniform(0, edge, (count, atoms, 3))
    start = Structure(
        jnp.asarray(places),
        jnp.full((count, atoms), 18),
        jnp.tile(edge * jnp.eye(3)[None], (count, 1, 1)),
        jnp.zeros(count, int),
        jnp.zeros(count, int),
    )
    sampler = npt_nose_hoover(
        potential, temperature_K=TEMPERATURE, pressure_bar=pressure, steps=2000,
        record_every=2000, timestep_fs=3.0, coupling_time_fs=50.0, pressure_time_fs=100.0,
        volume_factor=1e9, longest_step_A=50.0,
    )  # fmt: skip
    stepper, state, context = begin(sampler, potential, start)
    _, frames = run(stepper, KEY, state, context, steps=1)
    volumes = frames.volume[-1] / unit
    assert follows(volumes, atoms + 1.0)
    assert not follows(volumes, float(atoms))
    assert follows(frames.kinetic[-1] / ENERGY, 1.5 * (atoms - 1))


def liquid(density: float) -> Structure:
    from sampling.test_molecular_dynamics import argon

    return argon(4, density)


EPSILON, SIGMA = 0.0104, 3.4
BAR = EPSILON / SIGMA**3 * EV_PER_A3_IN_BAR
HOT = 1.2 * EPSILON / BOLTZMANN


def reduced_density(pressure: float, frames: int, cell="isotropic", temperature=HOT, start=0.70):
    """Densities σ³ of 256 atoms at a reduced pressure, a frame every 0.1 reduced times."""
    potential = lennard_jones((18,), shift=False)
    sampler = npt_nose_hoover(
        potential, temperature_K=temperature, pressure_bar=pressure * BAR, steps=20 * frames,
        record_every=20, timestep_fs=10.0, coupling_time_fs=500.0, pressure_time_fs=2000.0,
        cell=cell,
    )  # fmt: skip
    stepper, state, context = begin(sampler, potential, liquid(start))
    after, motion = run(stepper, KEY, state, context, steps=frames, block=500)
    assert not motion.stopped.any()
    return 256 * SIGMA**3 / motion.volume[frames // 10 :, 0], motion, after


def blocks(values, count=10):
    """Mean and its error from block averages."""
    means = values[: len(values) // count * count].reshape(count, -1).mean(axis=1)
    return means.mean(), means.std(ddof=1) / np.sqrt(count)


@pytest.mark.slow
def test_the_lennard_jones_liquid_has_its_density_and_compressibility():
    """T* = 1.2, p* = 1.0, 256 atoms, truncated at 2.5 σ: LAMMPS 0.678(5)."""
    densities, motion, _ = reduced_density(1.0, 2000)
    mean, error = blocks(densities)
    assert error < 0.005
    assert abs(mean - 0.678) < 2 * np.hypot(0.005, error)
    temperature, noise = blocks(motion.temperature_K[200:, 0])
    assert abs(temperature - HOT) < 4 * noise
    pressure, noise = blocks(motion.pressure_bar[200:, 0])
    assert abs(pressure - BAR) < 4 * noise
    # compressibility: fluctuations of the volume against the curve of volume and pressure
    volumes = 256 / densities
    parts = volumes.reshape(9, -1)
    fluctuation = parts.var(axis=1) / parts.mean(axis=1) / 1.2
    low, low_error = blocks(reduced_density(0.85, 1000)[0])
    high, high_error = blocks(reduced_density(1.15, 1000)[0])
    slope = np.log(high / low) / 0.3
    slope_error = np.hypot(low_error / low, high_error / high) / 0.3
    spread = volumes.var() / volumes.mean() / 1.2
    uncertain = np.hypot(slope_error, fluctuation.std(ddof=1) / 3)
    assert uncertain < 0.5 * slope
    assert abs(spread - slope) < 3 * uncertain


@pytest.mark.slow
def test_a_crystal_in_a_full_cell_bears_the_pressure_alone():
    """No shear stress on average, angles near 90°, the density of the isotropic piston."""
    settings = {"temperature": 0.3 * EPSILON / BOLTZMANN, "start": 1.0}
    whole, _, after = reduced_density(1.0, 600, "full", **settings)
    alike, _, _ = reduced_density(1.0, 600, "isotropic", **settings)
    (mean, error), (other, noise) = blocks(whole), blocks(alike)
    assert abs(mean - other) < 4 * np.hypot(error, noise)
    cell = np.asarray(after.structure.cell[0])
    lengths = np.linalg.norm(cell, axis=1)
    assert np.ptp(lengths) / lengths.mean() < 0.05
    cosines = cell @ cell.T / np.outer(lengths, lengths) - np.eye(3)
    assert 0 < np.abs(cosines).max() < 0.05
