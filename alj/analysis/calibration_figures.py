"""Figures of calibration: how often errors stay within what was said, and how large they were.

Built as in `figures`: without pyplot, units on the axes, the ideal as a dashed line. Everything
drawn is given; `uncertainty.calibration` computes it.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from alj.analysis.axes import COLORS, MARKERS, legend, plain_ticks, tidy
from alj.analysis.errors import pearson, rmse, spearman

DENSE = 3000
"""More points than this are drawn as a density."""

BINS = 12
"""Groups of equally many points, of which the root mean squares are compared."""


def calibration_curve(
    levels: Float[np.ndarray, " levels"],
    observed: Mapping[str, Float[np.ndarray, " levels"]],
    *,
    labels: int | None = None,
) -> Figure:
    """The share of errors within the interval of each level, one line for each entry of `observed`.

    Below the diagonal an uncertainty is too small. With the number of independent `labels`, the
    gray band holds 95 % of what chance makes of a perfect one, level by level.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    at = 100 * np.asarray(levels, float)
    if labels:
        wide = 1.96 * np.sqrt(at * (100 - at) / labels)
        axes.fill_between(
            at,
            at - wide,
            at + wide,
            color="#dddddd",
            lw=0,
            label=f"95 % of chance, {labels} labels",
        )
    for index, (name, shares) in enumerate(observed.items()):
        axes.plot(at, 100 * shares, lw=1.5, color=COLORS[index % len(COLORS)], label=name)
    axes.plot([0, 100], [0, 100], "k--", lw=1, label="calibrated")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    tidy(axes, "expected share of errors (%)", "observed share of errors (%)")
    legend(figure, axes)
    return figure


def error_against_uncertainty(
    uncertainty: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    *,
    quantity: str = "force",
    unit: str = "eV/Å",
    bound: tuple[float, str] | None = None,
) -> Figure:
    """|error| against the uncertainty, both logarithmic; what is zero is not drawn.

    The smallest half percent of the errors lie below the panel: small errors mean nothing.
    Where the uncertainty is a standard deviation, the root mean squares of groups of equally many
    points lie on the dashed line. `bound` is a factor on the uncertainty with its name, such as a
    conformal scale: a line that few errors exceed.
    """
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.subplots()
    size = np.abs(error)
    shown = (uncertainty > 0) & (size > 0) & np.isfinite(uncertainty) & np.isfinite(size)
    uncertainty, size = uncertainty[shown], size[shown]
    axes.set_xscale("log")
    axes.set_yscale("log")
    if len(size):
        _points(figure, axes, uncertainty, size)
        _groups(axes, uncertainty, size)
        ends = np.array([np.min(uncertainty), np.max(uncertainty)])
        axes.plot(ends, ends, "k--", lw=1, label="|error| = uncertainty")
        if bound is not None:
            axes.plot(ends, bound[0] * ends, "-", color=COLORS[1], lw=1.2, label=bound[1])
        axes.set_ylim(bottom=0.7 * min(np.quantile(size, 0.005), np.min(ends)))
        for axis in (axes.xaxis, axes.yaxis):
            plain_ticks(axis)
            low, high = axis.get_view_interval()
            if high > 300 * low:
                axis.set_major_locator(LogLocator())
    tidy(axes, f"uncertainty of the {quantity} ({unit})", f"|error| of the {quantity} ({unit})")
    legend(figure, axes)
    return figure


def _points(figure: Figure, axes: Axes, uncertainty, size):
    """Single points, or how many of them where they are many; their correlation in the legend."""
    label = (
        f"{len(size)} labels\nPearson {pearson(uncertainty, size):.2f}, "
        f"Spearman {spearman(uncertainty, size):.2f}"
    )
    if len(size) <= DENSE:
        axes.scatter(uncertainty, size, s=7, lw=0, alpha=0.5, color=COLORS[0], label=label)
        return
    cells = axes.hexbin(
        uncertainty, size, gridsize=50, bins="log", xscale="log", yscale="log", mincnt=1, lw=0.1
    )
    figure.colorbar(cells, ax=axes, label="labels per cell", pad=0.02)
    axes.plot([], [], " ", label=label)


def _groups(axes: Axes, uncertainty, size):
    """Root mean squares of points that stand next to each other in uncertainty."""
    if len(size) < 5 * BINS:
        return
    groups = np.array_split(np.argsort(uncertainty, kind="stable"), BINS)
    axes.plot(
        [rmse(uncertainty[group]) for group in groups], [rmse(size[group]) for group in groups],
        MARKERS[1], ms=6, color=COLORS[1], mec="white", mew=0.8, zorder=4,
        label=f"root mean squares\nof {BINS} groups",
    )  # fmt: skip
