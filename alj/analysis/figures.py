"""The figures of a report, as matplotlib `Figure` objects; whoever asks saves them.

Built without pyplot, so no state is shared. Colors are Okabe and Ito's, which color-blind readers
tell apart; axes carry units, legends stand outside the data, reference lines are dashed. A *round*
is a mapping with the fields of a campaign's "round" event; what is missing or null is not drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, logarithmic, plain_ticks, tidy
from alj.analysis.errors import bias, mae, rmse, scatter

DENSE = 3000
"""More points than this are drawn as a density."""


def learning_curve(
    rounds: Sequence[Mapping],
    *,
    target_meV_per_atom: float | None = None,
    published: Mapping | None = None,
    finished_meV_per_atom: float | None = None,
) -> Figure:
    """Energy errors against the number of labels the network was trained on.

    One panel counts the labels computed; where fewer were kept, a second one counts those. A
    candidate's error is the network's on structures it chose itself, before it learned them, and
    so belongs to the labels of the round before. `published` has "label", "computed" and/or
    "kept", and "error" (meV/atom). `finished_meV_per_atom` is the error on the test set of the
    model that was trained anew and anchored after the last round.
    """
    computed, kept = _column(rounds, "labels"), _column(rounds, "kept")
    published = published or {}
    panels = [("computed", computed, "labels computed")]
    if np.any(kept != computed) and np.any(np.isfinite(kept)):
        panels.append(("kept", kept, "labels kept for training"))
    figure = Figure(figsize=(4.6 * len(panels) + 2.2, 4.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    before = lambda counts: np.concatenate([[np.nan], counts[:-1]])  # noqa: E731
    for panel, (kind, counts, title) in zip(axes, panels, strict=True):
        series = [
            ("test_mae_meV_per_atom", counts, "MAE, independent test set", "-", 0),
            ("candidate_mae_meV_per_atom", before(counts), "MAE, candidates", "-", 1),
            ("candidate_scatter_meV_per_atom", before(counts), "scatter, candidates", ":", 1),
            ("validation_rmse_meV_per_atom", counts, "RMSE, validation", "-", 2),
            ("train_rmse_meV_per_atom", counts, "RMSE, training", "-", 3),
        ]
        for key, where, label, style, color in series:
            _line(panel, where, _column(rounds, key), label, style, color)
        if kind in published and "error" in published:
            panel.plot(
                published[kind], published["error"], "--", color=GRAY, marker="x", ms=5,
                label=published.get("label", "published"),
            )  # fmt: skip
        if finished_meV_per_atom is not None:
            panel.plot(
                counts[-1:], [finished_meV_per_atom], "*", ms=13, color=COLORS[4], mec="k",
                mew=0.6, label="MAE, the finished model", zorder=4,
            )  # fmt: skip
        if target_meV_per_atom is not None:
            panel.axhline(target_meV_per_atom, ls="--", lw=1, color="k", label="target")
        tidy(panel, title, "")
        logarithmic(panel)
        if np.nanmax([*counts, 1]) > 10:
            panel.set_xscale("log")
            plain_ticks(panel.xaxis)
    axes[0].set_ylabel("energy error (meV/atom)")
    legend(figure, axes[0])
    return figure


def energy_parity(
    reference: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    kinds: Sequence[str] = (),
) -> Figure:
    """Predicted against reference energies (eV/atom), residuals (meV/atom) below.

    `kinds` (one for each structure) are told apart by color, each with its own errors.
    """
    names = np.asarray(kinds if len(kinds) else [""] * len(reference), dtype=str)
    figure, top, bottom = _parity_axes()
    groups = sorted(set(names))
    for index, name in enumerate(groups):
        chosen = names == name
        x, residual = reference[chosen], 1000 * (predicted - reference)[chosen]
        style: dict[str, Any] = {
            "color": COLORS[index % len(COLORS)],
            "marker": MARKERS[index // len(COLORS) % len(MARKERS)],
            "s": 14 if len(x) < 500 else 6,
            "alpha": 0.7,
            "lw": 0,
            "rasterized": len(x) > 2000,
        }
        label = _statistics(name, residual, "meV/atom") if len(groups) > 1 else None
        top.scatter(x, predicted[chosen], label=label, **style)
        bottom.scatter(x, residual, **style)
    overall = _statistics("all", 1000 * (predicted - reference), "meV/atom")
    _identity(top, bottom, reference, predicted, overall)
    _focus(bottom, 1000 * (predicted - reference))
    tidy(top, "", "predicted energy (eV/atom)")
    tidy(bottom, "reference energy (eV/atom)", "error (meV/atom)")
    legend(figure, top)
    return figure


def force_parity(reference: Float[np.ndarray, " m"], predicted: Float[np.ndarray, " m"]) -> Figure:
    """Predicted against reference force components (eV/Å), residuals below; many as a density."""
    figure, top, bottom = _parity_axes()
    residual = predicted - reference
    if len(reference) > DENSE:
        for axes, y in ((top, predicted), (bottom, residual)):
            cells = axes.hexbin(
                reference, y, gridsize=70, bins="log", mincnt=1, cmap="viridis", lw=0.1
            )
            figure.colorbar(cells, ax=axes, label="components per cell", pad=0.02)
    else:
        style: dict[str, Any] = {"color": COLORS[0], "s": 6, "alpha": 0.5, "lw": 0}
        top.scatter(reference, predicted, **style)
        bottom.scatter(reference, residual, **style)
    _identity(top, bottom, reference, predicted, _statistics("all", residual, "eV/Å", signed=False))
    _focus(bottom, residual)
    tidy(top, "", "predicted force (eV/Å)")
    tidy(bottom, "reference force component (eV/Å)", "error (eV/Å)")
    legend(figure, top)
    return figure


def spread_against_error(spread: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> Figure:
    """Error of the force on an atom against the committee's spread there (eV/Å), both log."""
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    shown = (spread > 0) & (error > 0)
    spread, error = spread[shown], error[shown]
    cells = axes.hexbin(
        spread, error, gridsize=50, bins="log", xscale="log", yscale="log", mincnt=1, lw=0.1
    )
    figure.colorbar(cells, ax=axes, label="atoms per cell", pad=0.02)
    ends = [min(spread.min(), error.min()), max(spread.max(), error.max())]
    axes.plot(ends, ends, "k--", lw=1, label="error = spread")
    tidy(axes, "committee spread of the force, ‖std‖ (eV/Å)", "force error, ‖ΔF‖ (eV/Å)")
    legend(figure, axes)
    return figure


def nested_ladder(rounds: Sequence[Mapping]) -> Figure:
    """The falling ceilings of every nested walk, stage by stage, colored by round."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    last = max([int(event.get("round", 0)) for event in rounds] + [1])
    shade = ScalarMappable(Normalize(0, last), colormaps["viridis_r"])
    highest = []
    for event in rounds:
        for walk in event.get("ladder") or []:
            ceiling = _numbers(walk)
            color = shade.to_rgba(np.asarray(event.get("round", 0)))
            axes.plot(np.arange(1, len(ceiling) + 1), ceiling, color=color, lw=0.9)
            highest += [np.nanmax(ceiling)] if np.any(np.isfinite(ceiling)) else []
    if highest and max(highest) > 1.0:
        axes.set_yscale("symlog", linthresh=0.5)
    tidy(axes, "stage of the nested walk", "energy ceiling (eV/atom)")
    figure.colorbar(shade, ax=axes, label="round", ticks=MaxNLocator(6, integer=True), pad=0.02)
    return figure


def acceptance(rounds: Sequence[Mapping]) -> Figure:
    """The share of accepted moves of each sampler, round by round."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    names = sorted({name for event in rounds for name in event.get("acceptance") or {}})
    for index, name in enumerate(names):
        values = [(event.get("acceptance") or {}).get(name) for event in rounds]
        _line(axes, _column(rounds, "round"), _numbers(values), name.replace("_", " "), "-", index)
    axes.axhline(0.5, ls="--", lw=1, color="k", label="aim of the step adaption")
    axes.set_ylim(0, 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "round", "accepted moves (fraction)")
    legend(figure, axes)
    return figure


def seconds(rounds: Sequence[Mapping]) -> Figure:
    """Wall time of each stage, stacked, round by round."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    names = dict.fromkeys(name for event in rounds for name in event.get("seconds") or {})
    where, floor = _column(rounds, "round"), np.zeros(len(rounds))
    for index, name in enumerate(names):
        height = _numbers([(event.get("seconds") or {}).get(name, 0.0) for event in rounds])
        height = np.where(np.isfinite(height), height, 0.0)
        color = COLORS[index % len(COLORS)]
        axes.bar(where, height, bottom=floor, width=0.8, color=color, label=name)
        floor = floor + height
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "round", "wall time (s)")
    legend(figure, axes)
    return figure


def trust_shares(rounds: Sequence[Mapping]) -> Figure:
    """Shares of accurate, candidate and failed structures in the pool, stacked, round by round.

    What the selector reports stands in the round's "selection".
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    known = [event for event in rounds if "accurate" in (event.get("selection") or {})]
    where, floor = _column(known, "round"), np.zeros(len(known))
    for name, color in (("accurate", COLORS[2]), ("candidate", COLORS[4]), ("failed", COLORS[1])):
        height = _column([event["selection"] for event in known], name)
        if len(known):
            axes.bar(where, height, bottom=floor, width=0.8, color=color, label=name)
        floor = floor + height
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "round", "share of the pool")
    legend(figure, axes)
    return figure


def chosen_energies(rounds: Sequence[Mapping]) -> Figure:
    """Energies of the structures chosen in each round; rare high ones are triangles at the top."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    pairs = [
        (e.get("round", 0), _numbers(e.get("chosen_energy_eV_per_atom") or [])) for e in rounds
    ]
    every = np.concatenate([values for _, values in pairs] or [np.zeros(0)])
    every = every[np.isfinite(every)]
    if every.size:
        low, high = np.min(every), np.percentile(every, 97)
        margin = 0.06 * max(high - low, 1e-3)
        top = max(high, low + 1e-3) + margin if np.max(every) > high + 4 * margin else np.inf
        for index, values in pairs:
            values = values[np.isfinite(values)]
            below = values[values <= top]
            axes.plot([index] * len(below), below, "o", ms=3.5, color=COLORS[0], alpha=0.6, mew=0)
            if len(below) < len(values):
                axes.plot([index], [top], "^", ms=6, color=COLORS[1])
            if len(values):
                middle = min(np.median(values), top)
                axes.plot([index - 0.35, index + 0.35], [middle] * 2, color="k", lw=1.5)
        if np.isfinite(top):
            axes.plot([], [], "^", color=COLORS[1], label=f"above, up to {np.max(every):.2f}")
        axes.plot([], [], "o", ms=3.5, color=COLORS[0], label="chosen structure")
        axes.plot([], [], color="k", lw=1.5, label="median")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "round", "energy when chosen (eV/atom)")
    legend(figure, axes)
    return figure


def training(
    steps: Float[np.ndarray, " n"],
    train: Float[np.ndarray, "n members"],
    validation: Float[np.ndarray, "n members"],
    quantity: str = "loss",
) -> Figure:
    """The loss on training and validation data, one thin line a member, against the step."""
    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for values, name, color in ((train, "training", 0), (validation, "validation", 1)):
        shown = np.where(values > 0, values, np.nan)
        for member in range(values.shape[1]):
            if np.any(np.isfinite(shown[:, member])):
                axes.plot(
                    steps, shown[:, member], color=COLORS[color], lw=1, alpha=0.7,
                    label=name if member == 0 else None,
                )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    tidy(axes, "training step", quantity)
    logarithmic(axes)
    legend(figure, axes)
    return figure


def _parity_axes():
    figure = Figure(figsize=(7.6, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    return figure, top, bottom


def _identity(top: Axes, bottom: Axes, reference, predicted, label):
    """The dashed line of perfect agreement, over the range of the data."""
    if len(reference):
        low = min(reference.min(), predicted.min())
        high = max(reference.max(), predicted.max())
        top.plot([low, high], [low, high], "k--", lw=1, label=label, zorder=3)
    bottom.axhline(0, ls="--", lw=1, color="k", zorder=3)


def _statistics(name, errors, unit, *, signed=True):
    """A legend entry; the mean force error is zero by symmetry and not worth a line."""
    first = f"{name or 'all'} ({len(errors)})\nMAE {mae(errors):.3g}, RMSE {rmse(errors):.3g}"
    second = f"\nbias {bias(errors):+.3g}, scatter {scatter(errors):.3g}" if signed else ""
    return f"{first}{second} {unit}"


def _focus(axes: Axes, residual):
    """Leave single outliers out of a residual panel that they would flatten, and say so."""
    size = np.abs(residual[np.isfinite(residual)])
    if size.size > 20 and size.max() > 10 * np.percentile(size, 98):
        edge = 3 * np.percentile(size, 98)
        axes.set_ylim(-edge, edge)
        note = f"{int(np.sum(size > edge))} beyond, up to {size.max():.3g}"
        axes.set_title(note, fontsize=8, color=GRAY, loc="right", pad=2)


def _line(axes: Axes, x, y, label, style, color):
    shown = np.isfinite(x) & np.isfinite(y)
    if np.any(shown):
        fill: dict[str, Any] = {"markerfacecolor": "white"} if style == ":" else {}
        marker = MARKERS[color % len(MARKERS)]
        axes.plot(
            x[shown], y[shown], style, marker=marker, ms=4, lw=1.4, label=label,
            color=COLORS[color % len(COLORS)], **fill,
        )  # fmt: skip


def _column(rounds, key) -> np.ndarray:
    return _numbers([event.get(key) for event in rounds])


def _numbers(values) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
