"""Motion against what is exact: Brownian motion, free flight, a harmonic oscillator."""

import numpy as np
import pytest

from alj.analysis.transport import (
    SPEED_OF_LIGHT,
    diffusion,
    mean_squared_displacement,
    velocity_autocorrelation,
    vibrational_spectrum,
    yeh_hummer,
)
from alj.types import BadInput


def brownian(seed, frames=4000, atoms=8, coefficient=0.2, spacing_fs=10.0):
    """Steps of variance 2 D Δt along each axis; D in Å²/ps."""
    width = np.sqrt(2.0 * coefficient * spacing_fs / 1000.0)
    steps = np.random.default_rng(seed).normal(0.0, width, size=(frames, atoms, 3))
    return np.cumsum(steps, axis=0)


def test_all_time_origins_are_counted():
    positions = np.random.default_rng(0).normal(size=(17, 3, 3)) * 5.0 + 100.0
    found = mean_squared_displacement(positions, 2.0)
    for lag in range(17):
        gaps = positions[lag:] - positions[: 17 - lag]
        assert found.values[lag] == pytest.approx(np.mean(np.sum(gaps**2, axis=-1)), abs=1e-9)
    assert found.time_fs[3] == 6.0


def test_free_flight_is_quadratic_and_stands_still_around_its_center():
    velocity = np.array([1.0, -2.0, 0.5])
    positions = np.arange(50.0)[:, None, None] * velocity + np.zeros((50, 4, 3))
    found = mean_squared_displacement(positions, 1.0)
    np.testing.assert_allclose(found.values, 5.25 * found.time_fs**2, atol=1e-8)
    still = mean_squared_displacement(positions, 1.0, masses_amu=np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(still.values, 0.0, atol=1e-18)


def test_brownian_motion_has_its_coefficient_within_honest_errors():
    each = [diffusion([brownian(seed)], 10.0, from_fs=100.0, to_fs=300.0) for seed in range(40)]
    values = np.array([one.coefficient for one in each])
    errors = np.array([one.error for one in each])
    assert values.mean() == pytest.approx(0.2, abs=4 * values.std(ddof=1) / np.sqrt(40))
    deviations = (values - 0.2) / errors
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(1.0, abs=0.45)
    assert np.mean([one.converged for one in each]) > 0.8
    together = diffusion([brownian(seed) for seed in range(40)], 10.0, from_fs=100.0, to_fs=300.0)
    assert together.error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.3)


def test_the_slope_is_that_of_the_curve():
    walk = brownian(3)
    curve = mean_squared_displacement(walk, 10.0)
    found = diffusion([walk], 10.0, from_fs=100.0, to_fs=300.0)
    slope = (curve.values[30] - curve.values[10]) / 0.2 / 6.0
    # the same but for the last origins, which have no longer lag
    assert found.coefficient == pytest.approx(slope, rel=0.02)


def test_the_correction_for_the_box():
    """Yeh and Hummer's own numbers scale as T / (η L)."""
    assert yeh_hummer(600.0, 0.5, 10.0) == pytest.approx(4 * yeh_hummer(300.0, 0.5, 20.0))
    # by hand: kT = 4.1143e-21 J, 6π η = 0.0188496 Pa s, ξ / L = 1e9 / m; 1 m²/s is 1e8 Å²/ps
    by_hand = 4.1143e-21 / 0.0188496 * 1e9 * 1e8
    assert yeh_hummer(298.0, 1.0, 28.37297) == pytest.approx(by_hand, rel=1e-4)


def test_an_oscillator_correlates_as_a_cosine_and_peaks_where_it_swings():
    period = 17.3
    time = np.arange(20000) * 0.5
    phases = np.random.default_rng(1).uniform(0.0, 2 * np.pi, size=(1, 6, 3))
    velocities = np.cos(2 * np.pi * time[:, None, None] / period + phases)
    found = velocity_autocorrelation(velocities, 0.5)
    np.testing.assert_allclose(
        found.values[:4000], np.cos(2 * np.pi * time[:4000] / period), atol=3e-3
    )
    spectrum = vibrational_spectrum(found, longest_fs=1500.0)
    peak = spectrum.wavenumber[np.argmax(spectrum.density)]
    exact = 1.0 / (period * SPEED_OF_LIGHT)
    assert peak == pytest.approx(exact, abs=2 * spectrum.wavenumber[1])
    assert np.sum(spectrum.density) * spectrum.wavenumber[1] == pytest.approx(1.0)
    half = spectrum.wavenumber[spectrum.density > 0.5 * spectrum.density.max()]
    grid = spectrum.wavenumber[1]
    assert np.ptp(half) == pytest.approx(33356.0 / 1500.0, abs=2 * grid)


def test_masses_weigh_the_atoms():
    """A heavy atom at one frequency and a light one at another: areas as m v²."""
    time = np.arange(8000.0)
    velocities = np.zeros((8000, 2, 3))
    velocities[:, 0, 0] = np.cos(2 * np.pi * time / 40.0)
    velocities[:, 1, 0] = np.cos(2 * np.pi * time / 15.0)
    found = velocity_autocorrelation(velocities, 1.0, masses_amu=np.array([3.0, 1.0]))
    spectrum = vibrational_spectrum(found, longest_fs=2000.0)
    slow = spectrum.wavenumber < 0.5 * (1 / 40.0 + 1 / 15.0) / SPEED_OF_LIGHT
    assert np.sum(spectrum.density[slow]) * spectrum.wavenumber[1] == pytest.approx(0.75, abs=0.01)


@pytest.mark.slow
def test_dynamics_in_harmonic_wells_peaks_at_the_frequency_of_the_well():
    """Our own velocity Verlet in one stiffness: ω = √(k/m), less Verlet's own shift."""
    import jax
    from sampling.wells import at_rest, stiffnesses, wells

    from alj.sampling.molecular_dynamics import nve
    from alj.stepping import batched, run
    from alj.types import Context
    from alj.units import FEMTOSECOND

    potential = wells(1, scale=10.0)
    sampler = nve(potential, steps=6000, record_every=1, timestep_fs=1.0, drift="keep")
    context = Context(params=potential.init(jax.random.key(0)))
    stepper = batched(sampler.stepper)
    state = stepper.init(jax.random.key(1), sampler.place(at_rest(1, 1)), context)
    _, frames = run(stepper, jax.random.key(2), state, context, steps=sampler.steps)
    velocities = np.asarray(frames.velocities)[:, 0]
    for axis, stiffness in enumerate(10.0 * stiffnesses(1)[0]):
        found = velocity_autocorrelation(velocities * np.eye(3)[axis], 1.0)
        spectrum = vibrational_spectrum(found, longest_fs=2500.0)
        omega = np.sqrt(stiffness / 15.999) * FEMTOSECOND
        verlet = 2.0 * np.arcsin(0.5 * omega)
        exact = verlet / (2 * np.pi * SPEED_OF_LIGHT)
        peak = spectrum.wavenumber[np.argmax(spectrum.density)]
        assert peak == pytest.approx(exact, abs=1.5 * spectrum.wavenumber[1])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: mean_squared_displacement(np.zeros((1, 2, 3)), 1.0), "two frames"),
        (lambda: mean_squared_displacement(np.full((9, 2, 3), np.nan), 1.0), "frozen walks"),
        (
            lambda: diffusion([np.zeros((9, 1, 3))], 1.0, from_fs=5.0, to_fs=5.0),
            "from_fs < to_fs",
        ),
        (lambda: diffusion([np.zeros((9, 1, 3))], 1.0, from_fs=1.0, to_fs=20.0), "longer than"),
        (lambda: velocity_autocorrelation(np.zeros((9, 1, 3)), 1.0), "at rest"),
        (lambda: yeh_hummer(300.0, 0.0, 10.0), "viscosity_mPa_s"),
    ],
)
def test_bad_input_is_one_line(act, words):
    with pytest.raises(BadInput, match=words):
        act()
