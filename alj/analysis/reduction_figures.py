"""Figures of a set that was reduced: where in the space of spectra it was thinned out, and how much
was kept of each class. Built as in `figures`: without pyplot, everything drawn is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure

from alj.analysis.axes import COLORS, GRAY, legend, tidy

MOST_CLASSES = 30
"""So many classes, the largest ones, have a bar of their own."""


def reduction_map(
    points: Float[np.ndarray, "n 2"],
    kept: Bool[np.ndarray, " n"],
    shares: Float[np.ndarray, " 2"],
    structures_of: Int[np.ndarray, " classes"],
    kept_of: Int[np.ndarray, " classes"],
) -> Figure:
    """A map of the set, what was dropped below what was kept, and counts for each class.

    `points` are coordinates along two axes that explain `shares` of the variance.
    """
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for which, color, size, name in ((~kept, GRAY, 2, "dropped"), (kept, COLORS[1], 4, "kept")):
        left.scatter(*points[which].T, s=size, c=color, lw=0, label=name, rasterized=True)
    tidy(
        left, *(f"principal axis {k + 1} ({100 * shares[k]:.0f} % of the variance)" for k in (0, 1))
    )
    legend(figure, left)
    order = np.argsort(-structures_of, kind="stable")[:MOST_CLASSES]
    order = order[structures_of[order] > 0]
    at = np.arange(len(order))
    right.bar(at, structures_of[order], color="#cccccc", width=0.8, label="structures")
    right.bar(at, kept_of[order], color=COLORS[1], width=0.8, label="kept")
    right.set_yscale("log")
    right.set_ylim(bottom=0.5)
    several = len(structures_of[structures_of > 0])
    few = f", the largest {len(order)} of {several}" if several > len(order) else ""
    tidy(right, f"class by size{few}", "structures")
    return figure


def covering_figure(rows: Sequence[Mapping[str, Any]], structures: int) -> Figure:
    """Round by round, over the share of `structures` that is kept: what networks know of the rest,
    and how wrong they are there."""
    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    kept = [100 * row["kept"] / structures for row in rows]
    levels = {"known": 2, "questionable": 4, "unknown": 1, "broken": 7}
    values = [[100 * row[name] for row in rows] for name in levels]
    colors = [COLORS[color] for color in levels.values()]
    left.stackplot(kept, values, labels=list(levels), colors=colors, lw=0, alpha=0.75)
    tidy(left, "kept (% of the set)", "predicted structures (%)")
    left.set_ylim(0, 100)
    legend(figure, left)
    wrong = [row["force_rmse_eV_per_A"] for row in rows]
    limits = [row["delta_eV_per_A"] for row in rows]
    right.plot(kept, wrong, "o-", color=COLORS[0], label="force RMSE of what is predicted")
    right.plot(kept, limits, "s--", color=GRAY, label="δ")
    right.legend(frameon=False, fontsize=8)
    tidy(right, "kept (% of the set)", "eV/Å")
    right.set_ylim(bottom=0)
    return figure
