"""The figures of `esoinn_page.py`: 5, 6 and 7 of the paper."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from alj.analysis.axes import COLORS, GRAY, legend, tidy
from alj.campaign import classes
from alj.selection import esoinn


def spectra_figure(known: list) -> Figure:
    """Figure 5: training structures and nodes after every round, on the same two axes.

    The axes are the principal components of the final set's spectra; colors are networks.
    """
    last = known[-1]
    found = last.memory["classes"]
    points = esoinn.fitting(found.network, classes.spectra(last.data, found.atoms))
    center = points.mean(axis=0)
    axes = np.linalg.svd(points - center, full_matrices=False)[2][:2]
    columns = min(len(known), 4)
    lines = -(-len(known) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * lines), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True, sharey=True)).ravel()
    for panel, (number, state) in zip(panels, enumerate(known), strict=False):
        network = state.memory["classes"]
        taught = state.memory["taught"]
        count = len(taught.nearest)
        flat = (points[:count] - center) @ axes.T
        colors = [COLORS[c % len(COLORS)] for c in taught.nearest[:, 0]] if len(taught.of) else GRAY
        panel.scatter(*flat.T, s=5, c=colors, linewidths=0)
        if network is not None:
            nodes = network.network.weights[: int(network.network.count)]
            nodes = nodes * float(network.network.scale) / float(found.network.scale)
            panel.scatter(
                *((nodes - center) @ axes.T).T, s=14, facecolors="none", edgecolors="k", lw=0.5
            )
        tidy(panel, "", "")
        panel.set_title(f"before round {number}: {count} structures", fontsize=9)
    for panel in panels[len(known) :]:
        panel.set_visible(False)
    figure.supxlabel("first and second (up) principal component of the spectra, scaled")
    return figure


def indicator_figure(reports: list) -> Figure:
    """Figure 6: the error indicator over the pool of every round, and the shares of its classes.

    Boxes hold half of the pool, whiskers 90 %; lines are δ and 2δ.
    """
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    judged = [(each["round"], each["selection"]) for each in reports if each.get("selection")]
    drawn = [(r, s) for r, s in judged if s["indicator_quantiles_eV_per_A"]]
    boxes = [
        dict(
            zip(
                ("whislo", "q1", "med", "q3", "whishi"),
                s["indicator_quantiles_eV_per_A"],
                strict=True,
            )
        )
        for _, s in drawn
    ]
    left.bxp(
        [{**box, "fliers": []} for box in boxes], positions=[r for r, _ in drawn], showfliers=False
    )
    if drawn:
        limit = drawn[0][1]["limit_eV_per_A"]
        left.axhline(limit, color=GRAY, lw=0.8)
        left.axhline(2 * limit, color=GRAY, lw=0.8, ls="--")
    left.set(yscale="log")
    for color, name in zip(COLORS, ("known", "questionable", "unknown"), strict=False):
        right.plot(
            [r for r, _ in judged], [s[name] for _, s in judged], "o-", color=color, label=name
        )
    tidy(left, "round", "χ of the pool (eV/Å)")
    tidy(right, "round", "share of the pool")
    right.set_xticks([r for r, _ in judged])
    legend(figure, right)
    return figure


def trajectory_figure(walked: Mapping, judged: Mapping, scale: float, frame_ps: float) -> Figure:
    """Figure 7: χ and the true largest error along a trajectory of each size, and the interval
    of `scale` times χ; frames are `frame_ps` apart."""
    shown: dict[int, tuple] = {}
    for name, found in judged.items():
        waters = np.sum(walked[name]["species"] > 0, axis=1) // 3
        for walk in np.unique(found["walk"]):
            mine = found["walk"] == walk
            shown.setdefault(
                int(waters[walk]),
                (found["step"][mine], found["indicator"][mine], found["largest_error"][mine]),
            )
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * lines), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True)).ravel()
    for panel, size in zip(panels, sorted(shown), strict=False):
        step, chi, error = shown[size]
        time = (step + 1) * frame_ps
        panel.fill_between(time, 0.0, scale * chi, color=COLORS[0], alpha=0.2, lw=0, label="90 %")
        panel.plot(time, chi, color=COLORS[0], lw=0.9, label="χ")
        panel.plot(time, error, color=COLORS[1], lw=0.9, label="largest error")
        tidy(panel, "", "")
        panel.set_title(f"(H$_2$O)$_{size}$", fontsize=9)
    legend(figure, panels[0])
    figure.supxlabel("time (ps)")
    figure.supylabel("eV/Å")
    return figure
