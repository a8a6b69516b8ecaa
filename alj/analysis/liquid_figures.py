"""Figures of liquids: distributions and densities of a potential beside its reference.

Curves are mappings from a name to `Curve`; the reference is drawn as a broad gray line, whatever
else over it, with bands of two standard errors.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, tidy

REFERENCE = "reference"


class Curve(NamedTuple):
    """Points of a curve with their standard errors."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]


def radial(curves: Mapping[str, Curve], *, peak: tuple[float, float, str] | None = None) -> Figure:
    """Radial distribution functions; `peak` is a measured first maximum: Å, height, source."""
    figure, axes = _distributions(curves)
    axes.axhline(1.0, ls="--", lw=1, color="k")
    if peak is not None:
        axes.plot(peak[0], peak[1], "*", ms=11, color=COLORS[4], mec="k", mew=0.5, label=peak[2])
    tidy(axes, "r (Å)", "g(r)")
    legend(figure, axes)
    return figure


def angular(curves: Mapping[str, Curve]) -> Figure:
    """Distributions of the angles between neighbors."""
    figure, axes = _distributions(curves)
    axes.set_xlim(0, 180)
    axes.set_xticks(range(0, 181, 30))
    tidy(axes, "angle (degrees)", "probability density (1/degree)")
    legend(figure, axes)
    return figure


def density(points: Mapping[str, Curve], *, measured: tuple[Curve, str] | None = None) -> Figure:
    """Density against temperature with two standard errors; `measured` is an experiment's curve."""
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(points.items()):
        color = GRAY if name == REFERENCE else COLORS[index % len(COLORS)]
        axes.errorbar(
            curve.x, curve.y, 2.0 * curve.error, fmt=MARKERS[index % len(MARKERS)], ms=5,
            color=color, capsize=3, lw=1.2, ls="-" if len(curve.x) > 1 else "", label=name,
        )  # fmt: skip
    if measured is not None:
        axes.plot(measured[0].x, measured[0].y, "k--", lw=1, label=measured[1])
    tidy(axes, "temperature (K)", "density (g/cm³)")
    legend(figure, axes)
    return figure


def water_density(temperature_K: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Measured density of water at 1 atm in g/cm³, 0 to 100 °C (supercooled to -10 °C, roughly).

    G. S. Kell, J. Chem. Eng. Data 20, 97 (1975), doi 10.1021/je60064a005.

    >>> t = np.linspace(273.15, 283.15, 1001)
    >>> float(round(t[np.argmax(water_density(t))], 1))  # the density maximum, K
    277.1
    """
    t = np.asarray(temperature_K, float) - 273.15
    above = np.polyval(_KELL, t)
    return above / (1.0 + 16.879850e-3 * t) / 1000.0


WATER_PEAK = (2.80, 2.57, "experiment, 295 K\nSkinner et al. 2013")
"""First maximum of the oxygen-oxygen g(r) of water: L. B. Skinner et al., J. Chem. Phys. 138,
074506 (2013), doi 10.1063/1.4790861."""

_KELL = (-280.54253e-12, 105.56302e-9, -46.170461e-6, -7.9870401e-3, 16.945176, 999.83952)


def _distributions(curves: Mapping[str, Curve]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        broad = name == REFERENCE
        color = "#bbbbbb" if broad else COLORS[index % len(COLORS)]
        axes.plot(curve.x, curve.y, color=color, lw=4 if broad else 1.4, label=name)
        if np.any(curve.error > 0) and not broad:
            low, high = curve.y - 2 * curve.error, curve.y + 2 * curve.error
            axes.fill_between(curve.x, low, high, color=color, alpha=0.25, lw=0)
    return figure, axes
