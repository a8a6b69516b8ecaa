"""Figures of walks: their course, displacements, spectra, work of pulls, free energies."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from alj.analysis.axes import COLORS, GRAY, legend, tidy
from alj.analysis.free_energy import Profile
from alj.analysis.transport import Diffusion, Series, Spectrum
from alj.analysis.work import Activation, WorkCurve

_NAMED = 8
"""More walks than this are drawn in one color and not named."""

_PANELS = (
    ("energy_eV", "energy (eV)"),
    ("temperature_K", "temperature (K)"),
    ("conserved_eV", "drift of the conserved\nenergy (meV/atom)"),
    ("pressure_bar", "pressure (bar)"),
)


def course(
    walks: Mapping[int, Mapping[str, Float[np.ndarray, " frames"]]],
    atoms: Mapping[int, int],
    *,
    observed: Sequence[str] = (),
) -> Figure:
    """What the walks of a sampling did, against time (or frames, where there is none).

    `walks` maps each one to its columns; `atoms` are their sizes; `observed` names columns with
    panels of their own besides energy, temperature, drift and pressure. What is not there, or not
    known in any frame, has no panel.
    """
    panels = [(name, label) for name, label in (*_PANELS, *((o, o) for o in observed))]
    shown = [
        (name, label)
        for name, label in panels
        if any(np.isfinite(columns.get(name, np.nan)).any() for columns in walks.values())
    ]
    rows = max(len(shown), 1)
    figure = Figure(figsize=(7.4, 1.0 + 1.7 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    timed = any(np.isfinite(columns["time_fs"]).any() for columns in walks.values())
    for panel, (name, label) in zip(axes, shown, strict=False):
        for index, (walk, columns) in enumerate(walks.items()):
            if name not in columns:
                continue
            where = columns["time_fs"] / 1000.0 if timed else columns["step"]
            values = columns[name]
            if name == "conserved_eV":
                values = 1000.0 * (values - values[0]) / atoms[walk]
            few = len(walks) <= _NAMED
            panel.plot(
                where, values, lw=0.9, alpha=1.0 if few else 0.4,
                color=COLORS[index % len(COLORS)] if few else COLORS[0],
                label=f"walk {walk}" if few and len(walks) > 1 else None,
            )  # fmt: skip
        tidy(panel, "", label)
    axes[-1].set_xlabel("time (ps)" if timed else "frame")
    legend(figure, axes[0])
    return figure


def displacement(
    curves: Mapping[str, Series], fits: Mapping[str, Diffusion] | None = None
) -> Figure:
    """Mean squared displacements against the time lag; the slopes of `fits` are dashed."""
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        color, label = COLORS[index % len(COLORS)], name
        fit = (fits or {}).get(name)
        if fit is not None:
            label = f"{name}\nD = {fit.coefficient:.3g} ± {fit.error:.1g} Å²/ps"
            ends = np.array([fit.from_fs, fit.to_fs])
            height = np.interp(ends[0], curve.time_fs, curve.values)
            line = height + 6.0 * fit.coefficient * (ends - ends[0]) / 1000.0
            axes.plot(ends / 1000.0, line, "--", color="k", lw=1.2, zorder=3)
        axes.plot(curve.time_fs / 1000.0, curve.values, color=color, lw=1.4, label=label)
    tidy(axes, "time lag (ps)", "mean squared displacement (Å²)")
    legend(figure, axes)
    return figure


def spectrum(curves: Mapping[str, Spectrum], *, highest: float = 4500.0) -> Figure:
    """Vibrational densities of states up to a wavenumber in cm⁻¹."""
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        inside = curve.wavenumber <= highest
        axes.plot(
            curve.wavenumber[inside], curve.density[inside], lw=1.2, label=name,
            color=COLORS[index % len(COLORS)],
        )  # fmt: skip
    axes.set_xlim(0, highest)
    tidy(axes, "wavenumber (cm⁻¹)", "density of states (cm)")
    legend(figure, axes)
    return figure


def work(pulls: Mapping[str, WorkCurve], found: Mapping[str, Activation] | None = None) -> Figure:
    """Work of pulls against the variable; dashed without the spring's energy, stars the largest."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(pulls.items()):
        color, label = COLORS[index % len(COLORS)], name
        one = (found or {}).get(name)
        if one is not None:
            label = f"{name}\n{one.energy:.2f} eV" + ("" if one.broken else ", no break")
            axes.plot(one.variable, one.energy, "*", ms=12, color=color, mec="k", mew=0.5, zorder=4)
        axes.plot(curve.variable, curve.work, color=color, lw=1.2, label=label)
        axes.plot(curve.variable, curve.molecular, "--", color=color, lw=0.8, alpha=0.7)
    axes.plot([], [], "--", color=GRAY, lw=0.8, label="without the spring")
    tidy(axes, "steered variable (Å)", "work (eV)")
    legend(figure, axes)
    return figure


def free_energy(profiles: Mapping[str, Profile], variable: str = "variable (Å)") -> Figure:
    """Free energies along a variable, with bands of two standard errors."""
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, profile) in enumerate(profiles.items()):
        color = COLORS[index % len(COLORS)]
        low = profile.free_energy - 2.0 * profile.error
        high = profile.free_energy + 2.0 * profile.error
        axes.plot(profile.centers, profile.free_energy, color=color, lw=1.4, label=name)
        axes.fill_between(profile.centers, low, high, color=color, alpha=0.25, lw=0)
    tidy(axes, variable, "free energy (eV)")
    legend(figure, axes)
    return figure
