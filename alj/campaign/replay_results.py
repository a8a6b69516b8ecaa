"""What a replay leaves: learning curves with bands, labels to a target, correlations, figures."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alj.analysis.label_efficiency import Curve, Needed, efficiency, learning_curves, rows_of
from alj.campaign.replay import QUANTITIES, Plan
from alj.campaign.store import write_file

TARGETS = ("force_mae", "force_rmse", "force_max", "energy_mae", "energy_rmse", "energy_max")


def curves_of(reports: Mapping[str, Mapping[int, list[dict]]], quantity: str) -> dict[str, Curve]:
    """The learning curve of every selector, over its seeds."""
    found = {}
    for name, seeds in reports.items():
        if not seeds:
            continue
        points = [
            {report["labels"]: report["errors"][quantity] for report in path if "errors" in report}
            for path in seeds.values()
        ]
        labels = sorted(set.intersection(*(set(each) for each in points)))
        errors = np.array([[each[size] for size in labels] for each in points])
        # NaN: nothing is labeled; infinite: a network that diverged, which is told.
        if errors.size and not np.isnan(errors).any():
            found[name] = Curve(np.array(labels, float), errors)
    return found


def target_of(curve: Curve) -> float:
    """The error that every seed of a strategy has reached at its end: the worst of them."""
    return float(np.max(curve.errors[:, -1]))


def table(plan: Plan, reports) -> list[tuple[str, float, dict[str, Needed]]]:
    """For every quantity the target (where the reference ends) and what each selector needs."""
    found = []
    for quantity in TARGETS:
        curves = curves_of(reports, quantity)
        reference = plan.settings.reference
        if reference in curves and len(curves[reference].labels) > 1:
            target = target_of(curves[reference])
            found.append((quantity, target, efficiency(curves, target, reference)))
    return found


def lines(plan: Plan, reports) -> list[str]:
    """The table as text."""
    rows = [["quantity", "target", *plan.selectors]]
    for quantity, target, needed in table(plan, reports):
        cells = [_cell(needed[name]) if name in needed else "–" for name in plan.selectors]
        rows.append([QUANTITIES[quantity], f"{target:.4g}", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def _cell(needed: Needed) -> str:
    if np.isnan(needed.labels):
        return "not reached"
    label = f"{needed.labels:.0f}"
    if needed.verdict == "reference":
        return label
    if needed.verdict == "not distinguishable":
        return f"{label} (not distinguishable)"
    seed = ", one seed" if needed.verdict == "one seed" else ""
    return f"{label} ({100 * needed.saved:+.0f} % saved{seed})"


def write(plan: Plan, folder: Path, reports: Mapping[str, Mapping[int, list[dict]]]) -> None:
    """`curves.csv`, `labels_to_target.csv`, `correlations.csv`, `replay.json` and two figures."""
    panels, rows = {}, []
    for quantity, words in QUANTITIES.items():
        curves = curves_of(reports, quantity)
        if curves:
            panels[words] = curves
            rows += [{"quantity": quantity, **row} for row in rows_of(curves)]
    _csv(folder / "curves.csv", rows)
    needed = [
        {"quantity": quantity, "target": target, "strategy": name, **one._asdict()}
        for quantity, target, every in table(plan, reports)
        for name, one in every.items()
    ]
    _csv(folder / "labels_to_target.csv", needed)
    _csv(folder / "correlations.csv", list(_correlations(reports)))
    write_file(
        folder / "replay.json", (json.dumps(plain_numbers(reports), indent=1) + "\n").encode()
    )
    for name in ("force", "energy"):
        some = {words: panels[words] for q, words in QUANTITIES.items()
                if q.startswith(name) and words in panels}  # fmt: skip
        if some:
            learning_curves(some).savefig(folder / f"learning_{name}.png", dpi=150)


def _correlations(reports):
    for name, seeds in reports.items():
        for seed, path in seeds.items():
            for report in path:
                for score, values in report.get("correlation", {}).items():
                    yield {"strategy": name, "seed": seed, "labels": report["labels"],
                           "score": score, **values}  # fmt: skip


def _csv(path: Path, rows: list[dict]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    write_file(path, text.getvalue().encode())


def plain_numbers(value: Any) -> Any:
    """Arrays as lists, whatever is not a finite number as null; what was chosen is left out."""
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(each) for key, each in value.items() if key != "chosen"}
    if isinstance(value, list | tuple):
        return [plain_numbers(each) for each in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain_numbers(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None  # JSON has no such numbers
    return value
