"""Learning curves of several strategies, and how many labels each needs to reach an error.

A curve is read along straight lines in log-log, where learning curves are nearly straight; the
first crossing counts. Over seeds a strategy has a band, mean ± standard deviation (ddof 1) of the
logarithms. Two strategies whose bands overlap are not told apart: the table says so.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from alj.analysis.axes import COLORS, MARKERS, legend, logarithmic, plain_ticks, tidy


class Curve(NamedTuple):
    """Errors of one strategy: of every seed at every number of labels, NaN where not measured."""

    labels: Float[np.ndarray, " points"]
    errors: Float[np.ndarray, "seeds points"]


class Needed(NamedTuple):
    """Labels that one strategy needs to reach an error, and what that means beside another one.

    `labels` is the geometric mean over seeds, with `low` and `high` its band (equal to it for one
    seed); NaN where not every seed reached the error. `saved` is 1 - labels/reference labels;
    `verdict` is "fewer", "more", "not distinguishable", "one seed", or "not reached".
    """

    labels: float
    low: float
    high: float
    saved: float
    verdict: str


def labels_to_reach(
    labels: Float[np.ndarray, " points"], errors: Float[np.ndarray, " points"], target: float
) -> float:
    """Where a curve first falls to `target`; NaN where it never does.

    >>> float(labels_to_reach(np.array([100.0, 400.0]), np.array([8.0, 2.0]), 4.0))
    200.0
    """
    known = np.isfinite(errors)
    labels, errors = np.asarray(labels)[known], np.asarray(errors)[known]
    below = np.flatnonzero(errors <= target)
    if not len(below):
        return float("nan")
    first = below[0]
    if first == 0 or errors[first] == errors[first - 1]:
        return float(labels[first])
    share = np.log(errors[first - 1] / target) / np.log(errors[first - 1] / errors[first])
    return float(labels[first - 1] * (labels[first] / labels[first - 1]) ** share)


def efficiency(curves: Mapping[str, Curve], target: float, reference: str) -> dict[str, Needed]:
    """What each strategy needs to reach `target`, beside what `reference` needs."""
    found = {name: _needed(curve, target) for name, curve in curves.items()}
    base, low, high, seeds = found[reference]
    table = {}
    for name, (labels, lowest, highest, count) in found.items():
        if np.isnan(labels) or np.isnan(base):
            verdict = "not reached"
        elif name == reference:
            verdict = "reference"
        elif min(count, seeds) < 2:
            verdict = "one seed"
        elif lowest <= high and low <= highest:
            verdict = "not distinguishable"
        else:
            verdict = "fewer" if labels < base else "more"
        table[name] = Needed(labels, lowest, highest, 1.0 - labels / base, verdict)
    return table


def _needed(curve: Curve, target: float) -> tuple[float, float, float, int]:
    each = np.array([labels_to_reach(curve.labels, errors, target) for errors in curve.errors])
    if not len(each) or np.isnan(each).any():
        return (float("nan"),) * 3 + (len(each),)  # pyright: ignore[reportReturnType]
    mean, spread = _band(each[:, None])
    return (
        float(np.exp(mean[0])),
        float(np.exp(mean[0] - spread[0])),
        float(np.exp(mean[0] + spread[0])),
        len(each),
    )


def _band(values: Float[np.ndarray, "seeds points"]):
    """Mean and standard deviation of logarithms over seeds; 0 for a single one."""
    with np.errstate(invalid="ignore"):  # of curves that diverged
        logs = np.log(values)
        spread = np.std(logs, axis=0, ddof=1) if len(logs) > 1 else np.zeros(logs.shape[1])
        return np.mean(logs, axis=0), spread


def learning_curves(panels: Mapping[str, Mapping[str, Curve]], *, title: str = "") -> Figure:
    """A panel for each quantity (named with its unit), a line with its band for each strategy."""
    figure = Figure(figsize=(3.7 * len(panels) + 1.8, 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for panel, (quantity, curves) in zip(axes, panels.items(), strict=True):
        for place, (name, curve) in enumerate(curves.items()):
            color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
            mean, spread = _band(curve.errors)
            panel.plot(curve.labels, np.exp(mean), marker=marker, ms=4, color=color, label=name)
            if len(curve.errors) > 1:
                panel.fill_between(
                    curve.labels, np.exp(mean - spread), np.exp(mean + spread), color=color,
                    alpha=0.18, lw=0,
                )  # fmt: skip
        tidy(panel, "labels to train on", quantity)
        logarithmic(panel)
        panel.set_xscale("log")
        plain_ticks(panel.xaxis)
    if title:
        figure.suptitle(title, fontsize=9)
    legend(figure, axes[0])
    return figure


def rows_of(curves: Mapping[str, Curve]) -> Sequence[dict[str, float | str]]:
    """The means and bands of all curves, one row a point."""
    rows: list[dict[str, float | str]] = []
    for name, curve in curves.items():
        mean, spread = _band(curve.errors)
        for place, labels in enumerate(curve.labels):
            rows.append(
                {
                    "strategy": name,
                    "labels": float(labels),
                    "seeds": float(len(curve.errors)),
                    "mean": float(np.exp(mean[place])),
                    "low": float(np.exp(mean[place] - spread[place])),
                    "high": float(np.exp(mean[place] + spread[place])),
                }
            )
    return rows
