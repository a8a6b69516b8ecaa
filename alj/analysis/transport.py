"""What moves and how: displacements, diffusion, correlations of velocities, vibrational spectra.

    MSD(t) = <|r(t0 + t) - r(t0)|²>,   6 D = d MSD / dt,
    C(t) = <Σ m v(t0) · v(t0 + t)> / <Σ m v²>,   g(ν) ∝ ∫ C(t) cos(2π c ν t) dt

over all time origins t0 and atoms, by fast Fourier transform. Positions must not be wrapped, and
frames are equally spaced in time. M. P. Allen, D. J. Tildesley, Computer Simulation of Liquids, 2nd
ed., Oxford (2017), ch. 8; V. Calandrini et al., Collection SFN 12, 201 (2011),
doi:10.1051/sfn/201112010 (the transform); I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873 (2004),
doi:10.1021/jp0477147 (finite boxes).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import fft

from alj.analysis.thermodynamics import mean_of_walks
from alj.types import BadInput

SPEED_OF_LIGHT = 2.99792458e-5
"""cm/fs."""


class Series(NamedTuple):
    """A function of a time lag in fs."""

    time_fs: Float[np.ndarray, " lags"]
    values: Float[np.ndarray, " lags"]


class Diffusion(NamedTuple):
    """A diffusion coefficient and its standard error in Å²/ps (1e-4 cm²/s), and how it was found.

    `from_fs` and `to_fs` are the lags between which the slope was taken; `converged` says that the
    blocks of time reached their plateau: without it the error is a lower bound.
    """

    coefficient: float
    error: float
    from_fs: float
    to_fs: float
    converged: bool


class Spectrum(NamedTuple):
    """A density of vibrational states over wavenumbers in cm⁻¹, of area 1."""

    wavenumber: Float[np.ndarray, " bins"]
    density: Float[np.ndarray, " bins"]


def mean_squared_displacement(
    positions: Float[np.ndarray, "frames atoms 3"],
    timestep_fs: float,
    *,
    masses_amu: Float[np.ndarray, " atoms"] | None = None,
) -> Series:
    """MSD in Å² at every lag, averaged over atoms and all time origins.

    `timestep_fs` lies between two frames. With masses the motion of the center of mass is taken
    out, which a walk without a thermostat on it carries along. Lags near the length of the walk
    rest on few origins.

    Raises:
        BadInput: there are fewer than two frames, or positions that are not finite.
    """
    given = _checked("mean_squared_displacement", positions, timestep_fs)
    if masses_amu is not None:
        given = given - (masses_amu @ given / np.sum(masses_amu))[:, None]
    frames, atoms = given.shape[:2]
    given = given - given.mean(axis=0)
    squares = np.sum(given**2, axis=(1, 2)) / atoms
    # Σ |r(t0)|² + |r(t0 + m)|² over the origins of a lag m, by sums that lose two ends at each lag
    ends = np.concatenate([[0.0], np.cumsum(squares + squares[::-1])[:-1]])
    counts = frames - np.arange(frames)
    both = (2.0 * squares.sum() - ends) / counts
    values = both - 2.0 * _correlation(given).sum(axis=(1, 2)) / atoms
    return Series(np.arange(frames) * timestep_fs, np.maximum(values, 0.0))


def diffusion(
    walks: Sequence[Float[np.ndarray, "frames atoms 3"]],
    timestep_fs: float,
    *,
    from_fs: float,
    to_fs: float,
    masses_amu: Float[np.ndarray, " atoms"] | None = None,
) -> Diffusion:
    """D = [MSD(t₂) - MSD(t₁)] / 6 (t₂ - t₁), t₁ = `from_fs`, t₂ = `to_fs`, of one walk or several.

    Begin where the motion is diffusive (the MSD a straight line). Every time origin gives one
    estimate of D, averaged over the atoms; their mean and its error are those of a correlated
    series, by blocking (`thermodynamics.block_error`), over walks by `mean_of_walks`. A box of
    finite length slows diffusion down: see `yeh_hummer`.

    Raises:
        BadInput: no walk, lags out of order, or a walk that is too short for them.
    """
    if not 0 < timestep_fs <= from_fs + timestep_fs <= to_fs:
        raise BadInput(
            f"diffusion: expected lags from_fs < to_fs at least a frame ({timestep_fs} fs) apart, "
            f"found {from_fs} and {to_fs}"
        )
    first, second = round(from_fs / timestep_fs), round(to_fs / timestep_fs)
    estimates = []
    for positions in walks:
        given = _checked("diffusion", positions, timestep_fs)
        if len(given) <= second + 1:
            raise BadInput(
                f"diffusion: expected walks longer than to_fs = {to_fs} fs, found "
                f"{(len(given) - 1) * timestep_fs} fs"
            )
        if masses_amu is not None:
            given = given - (masses_amu @ given / np.sum(masses_amu))[:, None]
        origins = len(given) - second
        far = np.sum((given[second:] - given[:origins]) ** 2, axis=-1).mean(axis=1)
        near = np.sum((given[first : first + origins] - given[:origins]) ** 2, axis=-1).mean(axis=1)
        estimates.append((far - near) / (6.0 * (second - first) * timestep_fs) * 1000.0)
    found = mean_of_walks(estimates)
    return Diffusion(
        found.mean, found.error, first * timestep_fs, second * timestep_fs, found.converged
    )


def yeh_hummer(temperature_K: float, viscosity_mPa_s: float, box_length_A: float) -> float:
    """What a cubic periodic box takes from D, in Å²/ps: add it to the coefficient.

    D(∞) - D(L) = 2.837297 kT / (6π η L).

    >>> round(yeh_hummer(298.0, 0.896, 18.6), 4)  # 216 molecules of water
    0.0372
    """
    for name, value in (
        ("temperature_K", temperature_K),
        ("viscosity_mPa_s", viscosity_mPa_s),
        ("box_length_A", box_length_A),
    ):
        if not (np.isfinite(value) and value > 0):
            raise BadInput(f"yeh_hummer: expected a positive {name}, found {value}")
    square_meters_per_second = (
        2.837297 * 1.380649e-23 * temperature_K
        / (6.0 * np.pi * 1e-3 * viscosity_mPa_s * 1e-10 * box_length_A)
    )  # fmt: skip
    return float(square_meters_per_second * 1e8)


def velocity_autocorrelation(
    velocities: Float[np.ndarray, "frames atoms 3"],
    timestep_fs: float,
    *,
    masses_amu: Float[np.ndarray, " atoms"] | None = None,
) -> Series:
    """C(t) normalized to C(0) = 1, mass-weighted where masses are given.

    Velocities in any unit, `timestep_fs` between two frames.

    Raises:
        BadInput: there are fewer than two frames, or nothing moves.
    """
    given = _checked("velocity_autocorrelation", velocities, timestep_fs)
    weights = np.ones(given.shape[1]) if masses_amu is None else np.asarray(masses_amu, float)
    values = np.einsum("tax,a->t", _correlation(given), weights)
    if not values[0] > 0:
        raise BadInput("velocity_autocorrelation: expected velocities, found atoms at rest")
    return Series(np.arange(len(values)) * timestep_fs, values / values[0])


def vibrational_spectrum(autocorrelation: Series, *, longest_fs: float | None = None) -> Spectrum:
    """The cosine transform of a velocity autocorrelation, with Hann's window up to `longest_fs`.

    A sharp mode becomes a peak with a full width of 33 356 / `longest_fs` cm⁻¹ at half its height;
    null takes half the walk, as lags near its end are noise. Modes faster than 16 678 / spacing of
    the frames in fs cm⁻¹ appear folded back: record often enough. Multiply by 3N (or the degrees of
    freedom) for states per molecule.

    Raises:
        BadInput: fewer than two lags are left.
    """
    spacing = float(autocorrelation.time_fs[1] - autocorrelation.time_fs[0])
    whole = len(autocorrelation.values)
    lags = whole // 2 if longest_fs is None else int(longest_fs / spacing) + 1
    lags = min(lags, whole)
    if lags < 2:
        raise BadInput(
            f"vibrational_spectrum: expected longest_fs beyond {spacing} fs and some frames, found "
            f"{longest_fs} and {whole} lags"
        )
    window = 0.5 * (1.0 + np.cos(np.pi * np.arange(lags) / lags))
    points: Any = fft.next_fast_len(4 * lags)
    even = np.zeros(points)
    even[:lags] = autocorrelation.values[:lags] * window
    even[points - lags + 1 :] = even[1:lags][::-1]
    transform = fft.rfft(even)
    density = np.real(np.asarray(transform))
    wavenumber = np.arange(len(density)) / (points * spacing * SPEED_OF_LIGHT)
    area = np.sum(density) * wavenumber[1]
    return Spectrum(wavenumber, density / area)


def drift_per_ps(time_fs: Float[np.ndarray, " frames"], values: Float[np.ndarray, " frames"]):
    """The slope of the straight line through a series, per ps; NaN for fewer than three frames.

    >>> round(drift_per_ps(np.array([0.0, 500.0, 1000.0]), np.array([1.0, 1.1, 1.2])), 12)
    0.2
    """
    known = np.isfinite(time_fs) & np.isfinite(values)
    if known.sum() < 3:
        return float("nan")
    return float(np.polyfit(time_fs[known] / 1000.0, values[known] - values[known][0], 1)[0])


def _checked(name, values, timestep_fs):
    given = np.asarray(values, float)
    if len(given) < 2:
        raise BadInput(f"{name}: expected two frames or more, found {len(given)}")
    if not (np.isfinite(timestep_fs) and timestep_fs > 0):
        raise BadInput(f"{name}: expected a positive timestep_fs, found {timestep_fs}")
    if not np.isfinite(given).all():
        raise BadInput(f"{name}: expected finite frames; leave those of frozen walks out")
    return given


def _correlation(values):
    """<x(t0) x(t0 + m)> over the origins of every lag m, along the first axis (Wiener–Khinchin)."""
    frames = len(values)
    points: Any = fft.next_fast_len(2 * frames)
    transform = np.asarray(fft.rfft(values, n=points, axis=0))
    products = np.asarray(fft.irfft(np.abs(transform) ** 2, n=points, axis=0))[:frames]
    return products / (frames - np.arange(frames)).reshape(-1, *(1,) * (values.ndim - 1))
