"""The results of `deredundancy.py` as a page, a file of numbers, and figures."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from variants import machine

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, logarithmic, plain_ticks, tidy
from alj.campaign import datasets
from alj.campaign.replay_results import plain_numbers
from alj.campaign.store import FolderStore

PAPER = [
    (20_000, 800_000, 0.13, 0.3987, 0.5075, 0.0798, 0.82),
    (100_000, 2_000_000, 0.21, 0.5883, 0.2881, 0.0774, 0.55),
    (200_000, 2_000_000, 0.24, 0.7182, 0.2410, 0.0320, 0.33),
    (300_000, 2_000_000, 0.25, 0.8993, 0.0979, 0.0024, 0.25),
    (400_000, 4_000_000, 0.27, 0.8463, 0.1262, 0.0196, 0.24),
    (500_000, 5_500_000, 0.25, 0.7343, 0.2127, 0.0357, 0.28),
    (600_000, 5_400_000, 0.26, 0.9186, 0.0728, 0.0055, 0.20),
]
"""Table 2: kept, predicted, δ (eV/Å), shares χ < δ, δ < χ < 2δ, 2δ < χ < 3δ, force RMSE (eV/Å)."""

PAPER_SET = 6_000_000
PAPER_RMSE = 0.20
"""eV/Å, reached with a tenth of the set."""
SAME = 1.05
"""Errors within this factor of that of the whole set count as the same."""

NAMES = {"loop": "unknown to networks (Table 2)", "spectra": "spectra alone", "random": "random",
         "d_optimal": "D-optimal design", "everything": "everything"}  # fmt: skip


def collect(plan: Mapping[str, Any], found, out: Path, target: Path) -> None:
    """Write the page, the numbers and the figures of everything that has finished."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    total = _size_of(found, out)
    rows = _rounds(plan, out)
    text = [
        f"# {target.name}",
        "",
        f"`python experiments/deredundancy.py configs/{target.name}.yaml` on {machine()}; every "
        "number comes from a run that finished, `numbers.json` has them all.",
        "",
        f"A set of {total} conformations of organic molecules at PM6; parts of it are kept, the "
        f"same network trained on each with {plan['updates']} updates.",
        "",
        *_errors(plan, found, total),
        "",
        *_targets(plan, found, total),
        "",
        *_table(rows, total),
    ]
    (target / "README.md").write_text("\n".join(text) + "\n")
    numbers = {"machine": machine(), "structures": total, "errors": found, "rounds": rows}
    dumped = json.dumps(plain_numbers(numbers), indent=1, sort_keys=True)
    (target / "numbers.json").write_text(dumped + "\n")
    if found:
        error_figure(found, total).savefig(target / "error_against_share.png", dpi=110)
    seed = plan["seeds"][0]
    for source, name in ((out / "loop" / f"run-{seed}" / "rounds.png", "rounds.png"),
                         (out / "spectra" / f"kept-{seed}.png", "spectra.png")):  # fmt: skip
        if source.is_file():
            shutil.copy(source, target / name)
    print(f"see {target / 'README.md'}")


def share_reaching(shares, errors, target: float) -> float:
    """The share at which the error is `target`, by straight lines between logarithms; NaN if never.

    >>> share_reaching([0.1, 0.2, 0.4], [0.4, 0.2, 0.1], 0.2)
    0.2
    """
    logs, wrong = np.log(np.asarray(shares, float)), np.log(np.asarray(errors, float))
    below = np.flatnonzero(wrong <= np.log(target) + 1e-12)
    if not len(below):
        return float("nan")
    k = int(below[0])
    if k == 0:
        return float(shares[0])
    part = (wrong[k - 1] - np.log(target)) / max(wrong[k - 1] - wrong[k], 1e-300)
    return float(np.round(np.exp(logs[k - 1] + part * (logs[k] - logs[k - 1])), 12))


def curve(found, name: str, quantity: str) -> dict[int, np.ndarray]:
    """The errors of a strategy by the number kept, one for each seed."""
    seeds = found.get(name, {}).values()
    sizes = sorted(set.intersection(*(set(one) for one in seeds))) if seeds else []
    return {
        size: np.array([one[size][quantity] for one in seeds])
        for size in sizes
        if all(quantity in one[size] for one in seeds)
    }


def error_figure(found, total: int) -> Figure:
    """Force errors on structures that nothing has seen, and on what was left out, by the share."""
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, where, title in zip(
        panels, ("test", "rest"), ("unseen test set", "what was left out"), strict=True
    ):
        for k, name in enumerate(("random", "spectra", "d_optimal", "loop")):
            found_curve = curve(found, name, f"{where}_force_rmse_eV_per_A")
            if found_curve:
                at = [100 * size / total for size in found_curve]
                mean = [float(np.mean(values)) for values in found_curve.values()]
                axes.plot(at, mean, marker=MARKERS[k], color=COLORS[k], label=NAMES[name])
        whole = curve(found, "everything", "test_force_rmse_eV_per_A")
        for values in whole.values():
            axes.axhline(
                float(np.mean(values)), color=GRAY, ls="--", lw=1, label=NAMES["everything"]
            )
        axes.set_xscale("log")
        logarithmic(axes)
        plain_ticks(axes.xaxis)
        tidy(axes, "kept (% of the set)", "force RMSE (eV/Å)")
        axes.set_title(title, fontsize=10)
    legend(figure, panels[0])
    return figure


def _errors(plan, found, total: int) -> list[str]:
    """The table of errors."""
    sizes = sorted({size for seeds in found.values() for one in seeds.values() for size in one})
    head = " | ".join(f"{100 * size / total:.3g} % ({size})" for size in sizes)
    lines = ["Force RMSE (eV/Å) on unseen structures / on what was left out, by share kept:", "",
             f"| strategy | {head} |", "|---" * (len(sizes) + 1) + "|"]  # fmt: skip
    for name in NAMES:
        if name not in plan["strategies"]:
            continue
        both = [curve(found, name, f"{where}_force_rmse_eV_per_A") for where in ("test", "rest")]
        cells = []
        for size in sizes:
            parts = [f"{np.mean(one[size]):.3f}" for one in both if size in one]
            cells.append(" / ".join(parts))
        run = " | ".join(cells) if any(cells) else " | ".join(["*not run*"] * len(sizes))
        lines.append(f"| {NAMES[name]} | {run} |")
    return lines


def _targets(plan, found, total: int) -> list[str]:
    """What each strategy must keep for the same error, beside the targets."""
    whole = curve(found, "everything", "test_force_rmse_eV_per_A")
    lines = ["Share that must be kept (test errors, interpolated; target 10 %, aim 5 %):",
             "", f"| strategy | {PAPER_RMSE:.2f} eV/Å, as in the paper | within "
             f"{100 * (SAME - 1):.0f} % of everything |", "|---|---|---|"]  # fmt: skip
    for name in ("random", "spectra", "d_optimal", "loop"):
        own = curve(found, name, "test_force_rmse_eV_per_A")
        if not own:
            continue
        shares = [size / total for size in own]
        errors = [float(np.mean(values)) for values in own.values()]
        cells = []
        for target in (PAPER_RMSE, *(SAME * float(np.mean(v)) for v in whole.values())):
            share = share_reaching(shares, errors, target)
            if np.isnan(share):
                cells.append(f"more than {100 * shares[-1]:.3g} %, **missed**")
                continue
            at_most = "at most " if share <= shares[0] else ""
            verdict = "reached" if share <= 0.1 else "**missed**"
            cells.append(f"{at_most}{100 * share:.2g} %, {verdict}")
        lines.append(f"| {NAMES[name]} | {' | '.join([*cells, '*not run*'][:2])} |")
    return [*lines, "| paper (ANI-1 subset) | 10 % | – |"]


def _table(rows: list[dict], total: int) -> list[str]:
    """Table 2, the paper's and ours."""
    head = ["", "kept", "of the set", "predicted", "δ (eV/Å)", "χ < δ", "δ < χ < 2δ",
            "2δ < χ < 3δ", "force RMSE (eV/Å)"]  # fmt: skip
    lines = ["Table 2:", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for k, (kept, seen, delta, *shares, error) in enumerate(PAPER):
        parts = " | ".join(f"{share:.2%}" for share in shares)
        lines.append(f"| paper {k + 1} | {kept} | {kept / PAPER_SET:.2%} | {seen} | {delta:.2f} | "
                     f"{parts} | {error:.2f} |")  # fmt: skip
    names = ("known", "questionable", "between_2_and_3_delta")
    for row in rows:
        parts = " | ".join(f"{row[name]:.2%}" for name in names)
        lines.append(f"| here {row['round'] + 1} | {row['kept']} | {row['kept'] / total:.2%} | "
                     f"{row['predicted']} | {row['delta_eV_per_A']:.2f} | {parts} | "
                     f"{row['force_rmse_eV_per_A']:.3f} |")  # fmt: skip
    return lines if rows else ["Table 2: *not run*."]


def _rounds(plan, out: Path) -> list[dict]:
    """The rows of the loop, of the first seed."""
    folder = out / "loop" / f"run-{plan['seeds'][0]}"
    rows: list[dict] = []
    if folder.is_dir():
        with FolderStore(folder) as store:
            while store.knows(f"round-{len(rows):03d}"):
                rows.append(store.recall(f"round-{len(rows):03d}")["row"])
    return rows


def _size_of(found, out: Path) -> int:
    """The number of structures in the pool."""
    for one in found.get("everything", {}).values():
        return max(one)
    path = out / "pool.extxyz"
    return datasets.count(datasets.read(path)[0]) if path.is_file() else 1
