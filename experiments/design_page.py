"""The results of `optimal_design.py` as a page, a file of numbers, and figures."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from variants import machine

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, tidy
from alj.analysis.errors import pearson, spearman
from alj.campaign import datasets
from alj.campaign.replay import QUANTITIES
from alj.campaign.replay_results import curves_of, lines
from alj.campaign.replay_results import plain_numbers as _plain

PAPER = {
    "ethanol": {"qs1": 0.53, "qs2": 0.60, "ceiling": 0.86, "qs1_qs2": 0.75},
    "molecules": {"qs1": 0.44, "committee": 0.61, "short_long": 0.86, "initializations": 0.76},
    "surface": {"qs1": 0.88, "qs2": 0.79, "qs1_qs2": 0.94},
}
"""Correlations printed in the paper; of QM9 with energies, of √eq. 14."""

TARGETS = {"force_max": 2.0, "energy_max": 2.0, "force_rmse": 1.15, "energy_rmse": 1.15}
"""How many times the error of random selection is to be that of a strategy, at equal labels."""


def collect(found: Mapping[str, dict], target: Path, config: Path) -> None:
    """Write the page, the numbers and the figures of everything that has finished."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    text, numbers = _head(found, config), {"machine": machine()}
    for name, about in found.items():
        text += ["", f"## {name}", "", *_data(about)]
        if about["reports"]:
            text += ["", *_curves(about)]
            for kind in ("force", "energy"):
                figure = about["folder"] / f"learning_{kind}.png"
                if figure.is_file():
                    shutil.copy(figure, target / f"{name}_{figure.name}")
            numbers[name] = {"replay": _numbers(about)}
            if np.ptp(datasets.sizes(about["plan"].pool)):
                _sizes(about).savefig(target / f"{name}_sizes.png", dpi=110)
        else:
            text += ["", "Replay: *not run*."]
        if about["study"] is not None:
            rows = _study(about["study"])
            text += ["", *_study_table(name, about["study"], rows)]
            numbers.setdefault(name, {})["study"] = rows
            _scatter(about["study"]).savefig(target / f"{name}_correlation.png", dpi=110)
        else:
            text += ["", "Study of one training set: *not run*."]
    (target / "README.md").write_text("\n".join(text) + "\n")
    text = json.dumps(_plain(numbers), indent=1, sort_keys=True)
    (target / "numbers.json").write_text(text + "\n")
    print(f"see {target / 'README.md'}")


def _head(found, config: Path) -> list[str]:
    seconds = sum(
        sum(report["seconds"].values())
        for about in found.values()
        for seeds in about["reports"].values()
        for path in seeds.values()
        for report in path
    ) + sum(about["study"]["seconds"] for about in found.values() if about["study"])
    return [
        f"# {config.stem}",
        "",
        f"`python experiments/optimal_design.py configs/{config.name}` on {machine()}: replays and "
        f"studies took {seconds / 60:.0f} minutes of wall time, summed over paths of which two run "
        "at a time, whatever else the cores did; making the data is not in it. Every figure comes "
        "from a run that finished; `numbers.json` has them all.",
    ]


def _data(about) -> list[str]:
    plan = about["plan"]
    sizes = datasets.sizes(plan.pool)
    whose = {str(info.get("reference", "")) for info in plan.pool.info} - {""}
    made = f"made on the spot ({about['about'].get('title', '')})"
    source = f"the file `{about['file']}`" if about["file"] else made
    labeled = f", labeled with {', '.join(sorted(whose))}" if whose else ""
    return [
        f"Data: {source}{labeled}; "
        f"{datasets.count(plan.pool)} structures of {sizes.min()}–{sizes.max()} atoms to choose "
        f"from, {datasets.count(plan.test)} others to test on. Network: {plan.config['potential']}"
    ]


def _numbers(about) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for quantity in QUANTITIES:
        for name, curve in curves_of(about["reports"], quantity).items():
            found.setdefault(quantity, {})[name] = {
                "labels": curve.labels.tolist(), "errors": curve.errors.tolist()
            }  # fmt: skip
    return found


def _curves(about) -> list[str]:
    """Errors at the last size beside those of random selection, and labels to a target."""
    plan, reports = about["plan"], about["reports"]
    reference = plan.settings.reference
    seeds = len(plan.seeds)
    last = 0
    rows = []
    for quantity in QUANTITIES:
        curves = curves_of(reports, quantity)
        if reference not in curves:
            continue
        base = curves[reference].errors[:, -1]
        last = int(curves[reference].labels[-1])
        cells = []
        for name in plan.selectors:
            if name not in curves:
                cells.append("*not run*")
                continue
            here = curves[name].errors[:, -1]
            ratio = np.exp(np.mean(np.log(base)) - np.mean(np.log(here)))
            spread = f" ± {np.std(here, ddof=1):.2g}" if len(here) > 1 else ""
            beside = "" if name == reference else f" (÷ {ratio:.2f}{_met(quantity, ratio)})"
            cells.append(f"{np.mean(here):.3g}{spread}{beside}")
        rows.append(f"| {QUANTITIES[quantity]} | {' | '.join(cells)} |")
    names = " | ".join(plan.selectors)
    return [
        f"Errors on the test set after {last} labels, mean and standard deviation of {seeds} "
        f"seed{'s' * (seeds > 1)} (÷: how many times smaller than with {reference} selection; "
        "the largest errors are to be 2, root mean squares 1.15 times smaller):",
        "",
        f"| error | {names} |",
        f"|---|{'---|' * len(plan.selectors)}",
        *rows,
        "",
        f"Labels that each strategy needs to reach the error at which {reference} selection ends:",
        "",
        "```",
        *[line.rstrip() for line in lines(plan, reports)],
        "```",
    ]


def _met(quantity: str, ratio: float) -> str:
    if quantity not in TARGETS:
        return ""
    return ", reached" if ratio >= TARGETS[quantity] else ", **missed**"


def _study(study: Mapping) -> dict[str, float]:
    """All correlations of a study by name."""
    against = "force_error" if "short_qs2" in study else "energy_error"
    rows: dict[str, float] = {}
    for length in ("short", "long"):
        wrong = study[f"{length}_{against}"]
        for score in ("qs1", "qs2", "qs2_sketched"):
            if f"{length}_{score}" not in study:
                continue
            values = study[f"{length}_{score}"]
            rows[f"{length} {score} pearson"] = pearson(values, wrong)
            rows[f"{length} √{score} pearson"] = pearson(np.sqrt(values), wrong)
            rows[f"{length} {score} spearman"] = spearman(values, wrong)
    for kind in ("force", "energy"):
        spread = study.get(f"committee_{kind}_spread")
        if spread is not None:
            wrong = study[f"committee_{kind}_error"]
            rows[f"committee {kind} pearson"] = pearson(spread, wrong)
            rows[f"committee {kind} spearman"] = spearman(spread, wrong)
    rows["qs1 short and long"] = pearson(study["short_qs1"], study["long_qs1"])
    rows["qs1 of two initializations"] = pearson(study["short_qs1"], study["other_qs1"])
    if "long_qs2" in study:
        rows["qs1 and qs2"] = pearson(study["long_qs1"], study["long_qs2"])
        rows["qs2 sketched and exact, spearman"] = spearman(
            study["long_qs2"], study["long_qs2_sketched"]
        )
    if study.get("ceiling") is not None:
        rows["ceiling of qs2"] = float(study["ceiling"][0])
    rows["coverage reached, 0.9 asked"] = float(study["calibration"]["reached"])
    return {name: float(value) for name, value in rows.items()}


def _study_table(name: str, study: Mapping, rows: Mapping[str, float]) -> list[str]:
    paper = PAPER.get(name, {})
    said = {
        # Of QM9 the paper correlates the root.
        "long √qs1 pearson" if name == "molecules" else "long qs1 pearson": "qs1",
        "long qs2 pearson": "qs2", "committee energy pearson": "committee",
        "qs1 short and long": "short_long", "qs1 of two initializations": "initializations",
        "qs1 and qs2": "qs1_qs2", "ceiling of qs2": "ceiling",
    }  # fmt: skip
    against = "mean absolute force error" if "short_qs2" in study else "absolute energy error"
    return [
        f"One training set of {study['labels']} labels, {len(study['atoms'])} structures of the "
        f"pool; scores against the {against} of each:",
        "",
        "| correlation | here | paper (its own data) |",
        "|---|---|---|",
        *(
            f"| {key} | {value:.2f} | {paper.get(said.get(key, ''), '')} |"
            for key, value in rows.items()
        ),
    ]


def _scatter(study: Mapping) -> Figure:
    """Scores against errors, and against each other."""
    forces = "long_qs2" in study
    wrong = study["long_force_error" if forces else "long_energy_error"]
    label = "mean |ΔF| (eV/Å)" if forces else "|ΔE| (eV)"
    panels = [(np.sqrt(study["long_qs1"]), wrong, "√QS1 (eV)", label)]
    if forces:
        panels.append((np.sqrt(study["long_qs2"]), wrong, "√QS2 (eV/Å)", label))
    panels.append(
        (np.sqrt(study["long_qs1"]), np.sqrt(study["short_qs1"]), "√QS1, long training (eV)",
         "√QS1, short training (eV)")
    )  # fmt: skip
    figure = Figure(figsize=(3.3 * len(panels), 3.2), layout="constrained")
    for axes, (x, y, across, up) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        axes.plot(x, y, ".", ms=2.5, alpha=0.4, color=COLORS[0])
        axes.set_title(f"Pearson {pearson(x, y):.2f}", fontsize=8)
        tidy(axes, across, up)
    return figure


def _sizes(about) -> Figure:
    """How large the chosen structures are, round by round (Fig. 7 of the paper)."""
    plan = about["plan"]
    atoms = datasets.sizes(plan.pool)
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, seeds) in enumerate(about["reports"].items()):
        labels = [
            report["labels"] for report in next(iter(seeds.values())) if len(report["chosen"])
        ]
        means = np.array(
            [
                [np.mean(atoms[report["chosen"]]) for report in path if len(report["chosen"])]
                for path in seeds.values()
            ]
        )
        axes.plot(
            labels, means.mean(axis=0), marker=MARKERS[place % len(MARKERS)], ms=4,
            color=COLORS[place % len(COLORS)], label=name,
        )  # fmt: skip
    axes.axhline(np.mean(atoms), ls="--", lw=1, color=GRAY, label="pool")
    tidy(axes, "labels to train on", "mean number of atoms chosen")
    legend(figure, axes)
    return figure
