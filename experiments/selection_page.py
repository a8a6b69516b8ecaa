"""The results of `data_selection.py` as a page, a file of numbers, and the figures of the paper."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import data_selection
import numpy as np
from matplotlib.figure import Figure
from salt_dynamics import PAIRS
from variants import machine

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, tidy
from alj.campaign import datasets

KINDS = {"max": "Largest", "rmse": "RMSE", "mae": "MAE"}
ONSETS = {"Na-Na": 2.725, "Na-Cl": 2.025, "Cl-Cl": 2.925}
"""Å below which g of the reference stays under 0.01 (1000 ions, 1400 K, 33.5405 Å)."""


def collect(plan: Mapping, out: Path, target: Path, config: Path) -> None:
    """Write the page, the numbers and the figures of everything that has finished."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    errors, about = _errors(plan, out)
    moved = _moved(plan, out)
    numbers = {"errors": errors, "trainings": about, "machine": machine(),
               "dynamics": {name: _walk(one, moved) for name, one in moved.items()}}  # fmt: skip
    text = json.dumps(numbers, indent=1, sort_keys=True, default=float)
    (target / "numbers.json").write_text(text + "\n")
    (target / "README.md").write_text(_page(plan, out, numbers, config))
    for model in errors:
        _bars(plan, errors[model]).savefig(target / f"errors_{_file(model)}.png", dpi=110)
    if (out / "pool.extxyz").exists():
        _distributions(plan, out).savefig(target / "distributions.png", dpi=110)
    for model in plan["dynamics"]["models"]:
        if any(name.startswith(f"{model} / ") for name in moved):
            _curves(plan, model, moved).savefig(target / f"rdf_{_file(model)}.png", dpi=110)
    print(f"see {target / 'README.md'}")


def band(values: list[float]) -> tuple[float, float]:
    """Mean and the half width of its interval of 95 % (Student's t); infinite of one alone."""
    import scipy.stats

    if len(values) < 2:
        return float(np.mean(values)), float("inf")
    width = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(width)


def compared(one: list[float], other: list[float]) -> str:
    """Whether two sets of seeds differ: the intervals of their means overlap, or do not."""
    (a, da), (b, db) = band(one), band(other)
    if abs(a - b) <= da + db or not np.isfinite(da + db):
        return "not distinguishable"
    return "lower" if a < b else "higher"


def _errors(plan, out) -> tuple[dict, dict]:
    """By model, method, kind of error: one number for each seed; and how the trainings went."""
    errors: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for model, method, seed in data_selection.fits(plan):
        found = data_selection.result(out, "fit", model, method, seed)
        if found is None:
            continue
        if "failed" in found:
            about.setdefault(model, {}).setdefault("failed", []).append([method, seed])
            continue
        own = errors.setdefault(model, {}).setdefault(method, {kind: [] for kind in KINDS})
        for kind in KINDS:
            own[kind].append(found["errors"]["all"][kind])
        some = about.setdefault(model, {"seconds": [], "configurations": found["count"]})
        some.setdefault("seconds", []).append(found["seconds"])
    return errors, about


def _moved(plan, out) -> dict[str, Any]:
    names = {"reference": ("reference", "reference")}
    names |= {
        f"{model} / {method}": (model, method) for model, method in data_selection.moves(plan)
    }
    found = {n: data_selection.result(out, "move", *task) for n, task in names.items()}
    return {name: one for name, one in found.items() if one is not None}


def _walk(one: Mapping, moved: Mapping) -> dict[str, Any]:
    """How far a walk went; g below the reference's onset, and its mean distance from it."""
    if "failed" in one:
        return {"failed": one["failed"]}
    report: dict[str, Any] = {
        "ps": one["frames"] / one["asked"], "steps_per_second": one["steps"] / one["seconds"],
        "temperature_K": float(np.mean(one["temperature_K"])),
    }  # fmt: skip
    true = moved.get("reference", {}).get("curves", {})
    for pair in PAIRS if one["curves"] else ():
        r, g = one["curves"]["r"], one["curves"][pair].mean(axis=0)
        report[pair] = {
            "peak": float(g[r < 6].max()), "at_A": float(r[np.argmax(np.where(r < 6, g, 0))]),
            "below_onset": float(g[r < ONSETS[pair]].max()),
        }  # fmt: skip
        if true:
            apart = np.abs(g - true[pair].mean(axis=0))
            report[pair]["apart"] = float(apart[r < 8].mean())
    report["ps"] = float(report["ps"])
    return report


def _page(plan, out, numbers, config) -> str:
    text = [
        f"# Data selection of molten sodium chloride: `{config.name}`",
        "",
        f"`python experiments/data_selection.py configs/{config.name}`, {numbers['machine']}.",
        "",
        f"Seeds {', '.join(map(str, plan['seeds']))}; ± is half of the 95 % interval of the mean "
        "over seeds, and methods whose intervals overlap are called not distinguishable. Errors of "
        f"force components on {plan['test_count']} held-out structures, equally many drawn by each "
        "method.",
    ]
    for model, methods in numbers["errors"].items():
        about = numbers["trainings"][model]
        text += [
            "", f"## {model}", "",
            f"{about['configurations']} configurations; a training took "
            f"{np.median(about['seconds']):.0f} s (median).", "",
            "| method | seeds | " + " | ".join(f"{kind} (eV/Å)" for kind in KINDS.values()) +
            " | RMSE beside random |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        for method, found in methods.items():
            cells = [_cell(found[kind]) for kind in KINDS]
            beside = "" if method == "random" or "random" not in methods else compared(
                found["rmse"], methods["random"]["rmse"])  # fmt: skip
            text.append(f"| {method} | {len(found['rmse'])} | {' | '.join(cells)} | {beside} |")
        text += ["", f"![errors](errors_{_file(model)}.png)", "", *_ordering(methods)]
    text += [
        "",
        "## Distributions",
        "",
        "![distributions](distributions.png)",
        "",
        "## Dynamics",
        "",
    ]
    text += _dynamics(plan, numbers["dynamics"])
    missing = [
        " ".join(map(str, task)) for task in
        [("fit", *one) for one in data_selection.fits(plan)]
        + [("move", *one) for one in data_selection.moves(plan)]
        if data_selection.result(out, *task) is None
    ]  # fmt: skip
    text += ["", f"*Not run*: {', '.join(missing)}." if missing else "Everything was run."]
    return "\n".join(text) + "\n"


def _cell(values: list[float]) -> str:
    mean, width = band(values)
    return f"{mean:.4f}" + (f" ± {width:.4f}" if np.isfinite(width) else "")


def _ordering(methods) -> list[str]:
    """The paper's ordering, atomic < force < random < global, step by step."""
    expected = ["atomic energies", "forces", "random", "global energy"]
    there = [name for name in expected if name in methods]
    lines = []
    for kind in ("max", "rmse"):
        words = [
            f"{first} {compared(methods[first][kind], methods[second][kind])} than {second}"
            for first, second in pairwise(there)
        ]
        said = "; ".join(word.replace("not distinguishable than", "not distinguishable from")
                         for word in words)  # fmt: skip
        lines.append(f"{KINDS[kind]}: {said}.")
    return ["The paper finds atomic < force < random < global. " + " ".join(lines)]


def _dynamics(plan, walks) -> list[str]:
    settings = plan["dynamics"]
    text = [
        f"{settings['ions']} ions, {settings['temperature_K']:.0f} K, {settings['edge_A']} Å, "
        f"{settings['steps'] * settings['timestep_fs'] / 1000:g} ps from where the reference had "
        "settled. Below its onset g of the reference is under 0.01: more is a peak that is none.",
        "",
        "| potential | walked | steps/s | pair | peak at Å | below the onset | mean distance |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in walks.items():
        if "failed" in one:
            text.append(f"| {name} | {one['failed']} | | | | | |")
            continue
        for pair in PAIRS:
            if pair in one:
                g = one[pair]
                text.append(
                    f"| {name} | {one['ps']:.0%} | {one['steps_per_second']:.1f} | {pair} | "
                    f"{g['peak']:.3f} at {g['at_A']:.3f} | {g['below_onset']:.4f} | "
                    f"{g.get('apart', float('nan')):.4f} |"
                )
            else:
                text.append(f"| {name} | {one['ps']:.0%} | | {pair} | frozen early | | |")
    figures = [
        f"![rdf](rdf_{_file(model)}.png)"
        for model in settings["models"]
        if any(name.startswith(f"{model} / ") for name in walks)
    ]
    return [*text, "", *figures]


def _bars(plan, methods) -> Figure:
    """Fig. 2: three panels of errors, a point for each seed and the band of the mean."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (kind, title) in zip(figure.subplots(1, 3), KINDS.items(), strict=True):
        for place, found in enumerate(methods.values()):
            mean, width = band(found[kind])
            width = width if np.isfinite(width) else 0.0
            axes.errorbar(place, mean, width, fmt=MARKERS[0], color=COLORS[place % len(COLORS)])
            axes.plot([place] * len(found[kind]), found[kind], ".", color=GRAY, zorder=0)
        axes.set_xticks(range(len(methods)), list(methods), rotation=30, ha="right", fontsize=8)
        axes.set_ylim(bottom=0)
        tidy(axes, "", f"{title} of forces (eV/Å)")
    return figure


def _distributions(plan, out) -> Figure:
    """Fig. 1: energies, atomic energies and forces of what each method chooses."""
    data, _ = datasets.read(out / "pool.extxyz")
    candidates, _ = data_selection.divided(plan, data)
    count = max(about["count"] for about in plan["models"].values() if about)
    seed = plan["seeds"][0]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    values = {
        "energy (eV per ion)": lambda d: d.energy / datasets.sizes(d),
        "atomic energy (eV)": lambda d: d.atomic_energies,
        "force (eV/Å)": lambda d: np.linalg.norm(d.forces, axis=1),
    }
    for place, method in enumerate(plan["methods"]):
        picks = data_selection.chosen(plan, candidates, method, seed, count)
        some = datasets.select(candidates, picks)
        for axes, (name, of) in zip(panels, values.items(), strict=True):
            edges = np.linspace(*np.quantile(of(candidates), [0, 1]), 41)
            height, _ = np.histogram(of(some), edges, density=True)
            axes.stairs(height, edges, color=COLORS[place % len(COLORS)], label=method)
            axes.set_yscale("log")
            tidy(axes, name, "density")
    legend(figure, panels[0])
    return figure


def _curves(plan, model, moved) -> Figure:
    """Fig. 3: partial distributions beside the reference's, with the error of the mean."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, pair in zip(figure.subplots(1, 3), PAIRS, strict=True):
        for place, name in enumerate(n for n in moved if n == "reference" or n.startswith(model)):
            curves = moved[name].get("curves")
            if not curves:
                continue
            r, g = curves["r"], curves[pair]
            blocks = np.stack([b.mean(axis=0) for b in np.array_split(g, min(5, len(g)))])
            error = np.std(blocks, axis=0, ddof=1) / len(blocks) ** 0.5 if len(blocks) > 1 else 0
            color = GRAY if name == "reference" else COLORS[(place - 1) % len(COLORS)]
            axes.plot(r, g.mean(axis=0), color=color, label=name.split(" / ")[-1])
            axes.fill_between(r, g.mean(axis=0) - error, g.mean(axis=0) + error, color=color,
                              alpha=0.3, lw=0)  # fmt: skip
        tidy(axes, f"r (Å), {pair}", "g")
    legend(figure, figure.axes[0])
    return figure


def _file(name: str) -> str:
    return name.replace(" ", "_")
