"""Campaigns beside each other: errors against labels, labels to a target, cost.

Runs whose configurations differ in the seed only are one strategy, whose curves have a band. What
tells the strategies apart names them. Learning curves of different seeds are read at common
numbers of labels, along straight lines in log-log, where learning curves are nearly straight; no
curve is continued beyond its ends.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alj.analysis.label_efficiency import Curve, Needed, efficiency, learning_curves, rows_of
from alj.campaign import events
from alj.campaign.store import read_claim, write_file
from alj.types import BadInput

QUANTITIES = {
    "test_mae_meV_per_atom": "test MAE (meV/atom)",
    "validation_rmse_meV_per_atom": "validation RMSE (meV/atom)",
    "candidate_mae_meV_per_atom": "candidates MAE (meV/atom)",
    "candidate_scatter_meV_per_atom": "candidates scatter (meV/atom)",
    "train_rmse_meV_per_atom": "training RMSE (meV/atom)",
}
"""Errors that rounds tell, the most telling first."""

BEFORE = ("candidate_mae_meV_per_atom", "candidate_scatter_meV_per_atom")
"""Errors of the network of the round before: they belong to its labels."""

IGNORED = ("seed", "rounds", "stop", "executor", "self_test", "refit", "anchor", "properties")
"""Settings that make no other strategy."""

POINTS = 12
"""Numbers of labels at which seeds are compared."""


class Run(NamedTuple):
    """One campaign: its name, its configuration, and the last event of each of its rounds."""

    name: str
    config: dict[str, Any]
    rounds: list[dict[str, Any]]


class Comparison(NamedTuple):
    """What was compared: runs by strategy, their curves, and labels to `target` beside `base`."""

    quantity: str
    strategies: dict[str, list[Run]]
    curves: dict[str, Curve]
    target: float
    base: str
    needed: dict[str, Needed]


def read_run(folder: str | Path) -> Run:
    """A campaign from its folder. Raises BadInput where there is none, or nothing to compare."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run folder")
    config = read_claim(folder)["config"]
    rounds = {int(e.get("round") or 0): e for e in events.read(folder) if e["event"] == "round"}
    if not rounds:
        raise BadInput(f"{folder}: expected a run with a finished round, found none yet")
    return Run(folder.resolve().name, config, [rounds[index] for index in sorted(rounds)])


def compare(
    runs: Sequence[Run],
    *,
    quantity: str | None = None,
    target: float | None = None,
    by: Sequence[str] = (),
) -> Comparison:
    """Compare campaigns by an error.

    Without `quantity` the first of `QUANTITIES` that all runs tell; without `target` the error that
    every seed of every strategy has reached. `by` are the settings that tell strategies apart,
    without it all but those in `IGNORED`. The first strategy is the one others are compared with.

    Raises BadInput where runs share no error, or seeds no number of labels.
    """
    strategies = grouped(runs, by)
    quantity = _quantity(runs, quantity)
    curves = {name: _curve(name, members, quantity) for name, members in strategies.items()}
    if target is None:
        # Where a curve ends is not always its lowest point.
        target = float(max(np.nanmax(np.nanmin(curve.errors, axis=1)) for curve in curves.values()))
    if not target > 0:
        raise BadInput(f"--target: expected an error above 0, found {target}")
    base = next(iter(curves))
    return Comparison(quantity, strategies, curves, target, base, efficiency(curves, target, base))


def grouped(runs: Sequence[Run], by: Sequence[str] = ()) -> dict[str, list[Run]]:
    """Runs by strategy, named by the settings in which strategies differ. Raises BadInput."""
    flat = [_flat(run.config) for run in runs]
    for key in by:
        if not any(name == key or name.startswith(f"{key}.") for one in flat for name in one):
            raise BadInput(f"--by: no run has a setting {key!r}")
    if by:
        chosen = [
            {k: v for k, v in one.items() if any(k == b or k.startswith(f"{b}.") for b in by)}
            for one in flat
        ]
    else:
        chosen = [{k: v for k, v in one.items() if k.split(".")[0] not in IGNORED} for one in flat]
    keys = list(dict.fromkeys(key for one in chosen for key in one))
    differing = [k for k in keys if len({repr(one.get(k)) for one in chosen}) > 1]
    found: dict[tuple[str, ...], list[Run]] = {}
    for run, one in zip(runs, chosen, strict=True):
        found.setdefault(tuple(repr(one.get(k)) for k in differing), []).append(run)
    names = _names(list(found), differing, list(found.values()))
    return dict(zip(names, found.values(), strict=True))


def _names(values: list[tuple[str, ...]], keys: list[str], members: list[list[Run]]) -> list[str]:
    """Short names: the settings in which strategies differ; names of runs where these are many."""
    if not keys:
        return [members[0][0].name] if len(members[0]) == 1 else ["all runs"]
    named = [
        k
        for k in keys
        if k.endswith(".name") and len({v[keys.index(k)] for v in values}) == len(values)
    ]
    used = named[:1] or keys
    if len(used) <= 2:
        places = [keys.index(k) for k in used]
        short = [k.removesuffix(".name") if k.endswith(".name") else k for k in used]
        return [
            ", ".join(
                value[p].strip("'") if used == named[:1] else f"{s}: {value[p].strip(chr(39))}"
                for p, s in zip(places, short, strict=True)
            )
            for value in values
        ]
    return [
        f"{each[0].name}{f' and {len(each) - 1} more' if len(each) > 1 else ''}" for each in members
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their path in a configuration."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for place, one in enumerate(value):
                found |= _flat(one, f"{prefix}{key}.{place}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _quantity(runs: Sequence[Run], wanted: str | None) -> str:
    told = {name for name in QUANTITIES if all(len(_points(run, name)[0]) for run in runs)}
    if wanted is not None:
        if wanted not in QUANTITIES:
            raise BadInput(f"--quantity: expected one of {', '.join(QUANTITIES)}, found {wanted}")
        if wanted not in told:
            raise BadInput(f"--quantity: not every run tells {wanted}")
        return wanted
    for name in QUANTITIES:
        if name in told:
            return name
    raise BadInput("these runs tell no error in common; expected runs of one kind")


def _points(run: Run, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and errors of the rounds of a run that tell the error; labels never fall."""
    labels = [event.get("labels") for event in run.rounds]
    if quantity in BEFORE:
        labels = [None, *labels[:-1]]
    pairs = [
        (float(count), float(event[quantity]))
        for count, event in zip(labels, run.rounds, strict=True)
        if count and isinstance(event.get(quantity), int | float) and event[quantity] > 0
    ]
    kept = dict(pairs)  # the last of those with equal labels
    order = sorted(kept)
    return np.array(order), np.array([kept[count] for count in order])


def _curve(name: str, members: Sequence[Run], quantity: str) -> Curve:
    """The curves of all seeds at common numbers of labels."""
    each = [_points(run, quantity) for run in members]
    if len(each) == 1:
        return Curve(each[0][0], each[0][1][None])
    first, last = max(x[0] for x, _ in each), min(x[-1] for x, _ in each)
    if first > last:
        raise BadInput(f"{name}: the seeds share no number of labels; let them run further")
    shared = sorted(set.intersection(*(set(x) for x, _ in each)))
    least = min(len(x) for x, _ in each)
    if len(shared) == least:
        rows = [dict(zip(x, y, strict=True)) for x, y in each]
        return Curve(np.array(shared), np.array([[row[at] for at in shared] for row in rows]))
    at = np.geomspace(first, last, min(POINTS, least)) if last > first else np.array([first])
    logs = [np.exp(np.interp(np.log(at), np.log(x), np.log(y))) for x, y in each]
    return Curve(at, np.stack(logs))


def cost_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """What each run has cost: labels, failures, seconds in all and by stage."""
    every = [(name, run) for name, runs in comparison.strategies.items() for run in runs]
    stages = list(
        dict.fromkeys(s for _, run in every for e in run.rounds for s in (e.get("seconds") or {}))
    )
    rows = []
    for name, run in every:
        spent = {
            stage: sum(float((e.get("seconds") or {}).get(stage) or 0.0) for e in run.rounds)
            for stage in stages
        }
        last = run.rounds[-1]
        rows.append(
            {
                "strategy": name, "run": run.name, "seed": run.config.get("seed"),
                "rounds": len(run.rounds), "labels": last.get("labels"), "kept": last.get("kept"),
                "failed": last.get("failed"), "seconds": sum(spent.values()),
                **{f"{stage}_seconds": seconds for stage, seconds in spent.items()},
            }
        )  # fmt: skip
    return rows


def needed_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """What each strategy needs to reach the target."""
    return [
        {"strategy": name, "seeds": len(comparison.strategies[name]), "target": comparison.target,
         **one._asdict()}
        for name, one in comparison.needed.items()
    ]  # fmt: skip


def write(comparison: Comparison, folder: str | Path) -> None:
    """`learning_curves.png`, `curves.csv`, `labels_to_target.csv` and `cost.csv` in a folder."""
    folder = Path(folder)
    figure = learning_curves({QUANTITIES[comparison.quantity]: comparison.curves})
    figure.set_size_inches(8.0, 3.8)
    axes = figure.axes[0]
    axes.set_xlabel("labels computed")
    axes.axhline(comparison.target, ls="--", lw=1, color="k")
    axes.set_title(f"dashed: target {comparison.target:.4g} meV/atom", fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_file(folder / "learning_curves.png", image.getvalue())
    for name, rows in (
        ("curves", list(rows_of(comparison.curves))),
        ("labels_to_target", needed_rows(comparison)),
        ("cost", cost_rows(comparison)),
    ):
        write_file(folder / f"{name}.csv", csv_text(rows).encode())


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; numbers with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    return text.getvalue()
