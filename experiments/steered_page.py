"""The results of `steered_md.py` as a page, a file of numbers, and figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from steered_panels import write_panels
from variants import machine

from alj.analysis.axes import COLORS, GRAY, MARKERS, legend, tidy
from alj.analysis.work import (
    Activation,
    WorkCurve,
    activation_energy,
    first_break,
    paired_difference,
)
from alj.analysis.work import bonds as bonds_of
from alj.campaign import events
from alj.monitor.summary import duration, summarize
from alj.units import KCAL_PER_MOL

STIFFNESS = 10.0
"""Of the spring, eV/Å²."""


class Pulls(NamedTuple):
    """Pulls of one model: a curve, a break (or None) and an activation for each walk."""

    curves: list[WorkCurve]
    broken: list
    activations: list[Activation]


def collect(plan: Mapping, store, out: Path, found: Mapping, target: Path, config: Path) -> None:
    """Write the page, the numbers and the figures of everything that has finished."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    if not store.knows("barrier"):
        print("the engine's pulls have not finished: nothing to collect")
        return
    engine = reference(plan, store)
    runs = {name: obtained(plan, store, out / name, name, engine) for name in found}
    for name, run in runs.items():
        if run is not None:
            names = [f"{name}/pull-{index:03d}" for index in range(len(run["rounds"]))]
            pulls = [pulls_of(store.recall(each), engine["species"]) for each in names]
            write_panels(out / name, run, engine, pulls)
    other = studied(plan, store, found)
    numbers = {"engine": engine["numbers"], "runs": runs, "studies": other, "machine": machine()}
    text = json.dumps(numbers, indent=1, sort_keys=True, default=float)
    (target / "numbers.json").write_text(text + "\n")
    (target / "README.md").write_text(page(plan, numbers, store, config))
    for name, figure in figures(plan, store, engine, runs, other).items():
        figure.savefig(target / f"{name}.png", dpi=110)
    print(f"see {target / 'README.md'}")


def pulls_of(frames: Mapping[str, np.ndarray], species: np.ndarray) -> Pulls:
    """What happened in every walk; frames behind one that froze are left out."""
    curves, broken, activations = [], [], []
    carbons = species == 6
    for walk in range(frames["value"].shape[1]):
        alive = ~frames["stopped"][:, walk]
        count = len(alive) if alive.all() else max(int(np.argmin(alive)), 1)
        value, anchor = (frames[name][:count, walk] for name in ("value", "anchor"))
        elastic = 0.5 * STIFFNESS * (anchor - value) ** 2
        curve = WorkCurve(value, anchor, frames["work"][:count, walk], elastic)
        places = frames["positions"][:count, walk][:, carbons]
        pairs = bonds_of(places[0], species[carbons])
        found = first_break(places, pairs)
        curves.append(curve)
        broken.append(found)
        activations.append(activation_energy(curve, found))
    return Pulls(curves, broken, activations)


def reference(plan: Mapping, store) -> dict:
    """The engine's pulls and its relaxed barrier."""
    species = store.recall(f"chain{plan['reference']['carbons']}")["species"]
    seeds = range(plan["reference"]["pulls"])
    each = [pulls_of(store.recall(f"pull-{seed}"), species) for seed in seeds]
    pulls = Pulls(*([getattr(one, name)[0] for one in each] for name in Pulls._fields))
    barrier = store.recall("barrier")
    numbers = {
        "activation_eV": [one.energy for one in pulls.activations],
        "molecular_eV": [one.molecular for one in pulls.activations],
        "break_A": [_broken_at(pulls, walk) for walk in range(len(pulls.curves))],
        **summit(barrier, plan["reference"]["carbons"]),
    }
    return {"pulls": pulls, "barrier": barrier, "species": species, "numbers": numbers}


def summit(barrier: Mapping[str, np.ndarray], carbons: int) -> dict[str, float]:
    """The highest relaxed energy (eV) before the molecule gives way, and where (Å)."""
    places = barrier["positions"][:, :carbons]
    found = first_break(places, [(i, i + 1) for i in range(carbons - 1)])
    energy = barrier["energy"][: None if found is None else max(found.frame, 1)]
    top = int(np.argmax(energy))
    return {"barrier_eV": float(energy[top]), "barrier_A": float(barrier["value"][top])}


def obtained(plan: Mapping, store, folder: Path, name: str, engine: Mapping) -> dict | None:
    """The rounds of one run beside the engine; None where it has not finished."""
    told = events.read(folder)
    if not told or told[-1]["event"] != "finished":
        return None
    summary, carbons = summarize(folder), plan["reference"]["carbons"]
    rounds, index = [], 0
    while store.knows(f"{name}/pull-{index:03d}"):
        pulls = pulls_of(store.recall(f"{name}/pull-{index:03d}"), engine["species"])
        energies = [one.energy for one in pulls.activations]
        apart = paired_difference(energies, engine["numbers"]["activation_eV"])
        report = summary.rounds[index - 1] if index else None
        rounds.append(
            {
                "labels": plan["reference"]["initial_frames"] + (report["labels"] if report else 0),
                "failed": report["failed"] if report else 0,
                "activation_eV": energies,
                "broken": [one is not None for one in pulls.broken],
                "break_A": [_broken_at(pulls, walk) for walk in range(len(pulls.curves))],
                "difference_kcal_per_mol": apart.mean / KCAL_PER_MOL,
                "error_kcal_per_mol": apart.error / KCAL_PER_MOL,
                **_barrier(store, f"{name}/barrier-{index:03d}", carbons),
                "selection": report.get("selection") if report else None,
            }
        )
        index += 1
    return {"rounds": rounds, "seconds": round(summary.seconds), "ended": summary.reason}


def _barrier(store, name: str, carbons: int) -> dict[str, float]:
    """The barrier where it was sought, else NaN."""
    if not store.knows(name):
        return {"barrier_eV": float("nan"), "barrier_A": float("nan")}
    return summit(store.recall(name), carbons)


def studied(plan: Mapping, store, found: Mapping) -> dict:
    """Activation energies of other chains and other speeds, engine and every member."""
    name, rows = plan["studies"]["of"], {}
    entries = {
        **{f"C{n}": (f"chain{n}", n) for n in plan["studies"]["chains"]},
        **{
            f"{speed:g} Å/ps": (f"speed{1000 * speed:.0f}", plan["reference"]["carbons"])
            for speed in plan["studies"]["speeds_A_per_ps"]
        },
    }
    for title, (entry, carbons) in entries.items():
        if not (store.knows(f"{name}/{entry}") and store.knows(f"pull-{entry}")):
            continue
        species = store.recall(f"chain{carbons}")["species"]
        engine = pulls_of(store.recall(f"pull-{entry}"), species)
        members = pulls_of(store.recall(f"{name}/{entry}"), species)
        energies = [one.energy for one in members.activations]
        rows[title] = {
            "engine_eV": engine.activations[0].energy,
            "engine_break_A": _broken_at(engine, 0),
            "members_eV": energies,
            "members_break_A": [_broken_at(members, i) for i in range(len(energies))],
        }
    return rows


def _broken_at(pulls: Pulls, walk: int) -> float:
    """The pulled distance (Å) in the first frame with a broken bond; NaN where all hold."""
    found = pulls.broken[walk]
    return float("nan") if found is None else float(pulls.curves[walk].variable[found.frame])


def page(plan: Mapping, numbers: Mapping, store, config: Path) -> str:
    """The results as a page."""
    engine, runs = numbers["engine"], numbers["runs"]
    work = np.array(engine["activation_eV"])
    jobs = [float(store.recall(name)) for name in names_of(store) if name.endswith("-seconds")]
    lines = [
        f"# {config.stem}",
        "",
        f"`python experiments/steered_md.py {config}` on {numbers['machine']}: {len(jobs)} pulls "
        f"and scans were timed, {duration(sum(jobs))} of one core; campaigns apart. Every figure "
        "below comes from runs that finished; `numbers.json` has them all.",
        "",
        "## The engine",
        "",
        f"{len(work)} pulls of hexane at 1 Å/ps: work at the break {work.mean():.3f} eV "
        f"({work.min():.3f} to {work.max():.3f}; the spring's elastic energy included), "
        f"{np.mean(engine['molecular_eV']):.3f} eV without it; break at "
        f"{np.nanmean(engine['break_A']):.2f} Å. Relaxed barrier {engine['barrier_eV']:.3f} eV at "
        f"{engine['barrier_A']:.2f} Å.",
        "",
        "## Targets",
        "",
        *_targets(runs, engine),
        "",
        "## Round by round",
        "",
        *_rounds(runs),
        "",
        "## Other chains and other speeds",
        "",
        *_studies(plan, numbers["studies"]),
    ]
    return "\n".join(lines) + "\n"


def names_of(store) -> list[str]:
    """The names of all that is remembered."""
    folder = store.folder / "rounds"
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(".tree") for path in folder.rglob("*.tree")
    )


def _targets(runs: Mapping, engine: Mapping) -> list[str]:
    names = list(runs)
    lines = [
        "| quantity | paper | must reach | aim | " + " | ".join(names) + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]

    def cells(function) -> str:
        return " | ".join("*not run*" if runs[n] is None else function(runs[n]) for n in names)

    def mark(value: float, limit: float, aim: float) -> str:
        return "aim reached" if value <= aim else "reached" if value <= limit else "**missed**"

    def work(run) -> str:
        last = [(r["difference_kcal_per_mol"], r["error_kcal_per_mol"]) for r in run["rounds"][-3:]]
        worst = max(abs(mean) for mean, _ in last)
        text = ", ".join(f"{mean:+.2f}({error:.2f})" for mean, error in last)
        return f"{text} {mark(worst, 1.0, 0.5 if _five(run) else -1.0)}"

    def static(run) -> str:
        apart = (run["rounds"][-1]["barrier_eV"] - engine["barrier_eV"]) / KCAL_PER_MOL
        return f"{apart:+.2f} {mark(abs(apart), 1.0, 0.3)}"

    def labels(run) -> str:
        return f"{run['rounds'][-1]['labels']}"

    def first(run) -> str:
        start = run["rounds"][0]
        return f"{np.nanmean(start['break_A']):.2f} Å, {np.mean(start['activation_eV']):.2f} eV"

    lines += [
        "| activation energy, pulls from the same start: mean difference in the last 3 rounds, "
        "kcal/mol | 0.16 (one pull) | ≤ 1 | ≤ 0.5 in 5 rounds in a row, ≤ 1000 labels | "
        + cells(work) + " |",
        "| labels, initial ones included | 3350 | ≤ 3350 | ≤ 1000 | " + cells(labels) + " |",
        "| relaxed barrier, difference, kcal/mol | – | ≤ 1 | ≤ 0.3 | " + cells(static) + " |",
        "| start, equilibrium data only: break, activation energy | 7.5 Å, 1.0 eV | shown | | "
        + cells(first) + " |",
        "| reference SMD frames alone as training set | 0.9 eV error | shown | | *not run* |",
    ]  # fmt: skip
    return lines


def _five(run) -> bool:
    """Whether five rounds in a row were within 0.5 kcal/mol, with at most 1000 labels."""
    good = [abs(r["difference_kcal_per_mol"]) <= 0.5 and r["labels"] <= 1000 for r in run["rounds"]]
    return any(all(good[i : i + 5]) for i in range(len(good) - 4))


def _rounds(runs: Mapping) -> list[str]:
    lines = [
        "| run | training | labels | failed | pulls that broke | break (Å) | activation (eV) | "
        "minus engine, pairwise (kcal/mol) | relaxed barrier (eV) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        if run is None:
            lines.append(f"| {name} | *not run* | | | | | | | |")
            continue
        for index, one in enumerate(run["rounds"]):
            broken = one["broken"]
            lines.append(
                f"| {name} | {index} | {one['labels']} | {one['failed']} | "
                f"{sum(broken)} of {len(broken)} | {np.nanmean(one['break_A']):.2f} | "
                f"{np.mean(one['activation_eV']):.3f} | {one['difference_kcal_per_mol']:+.2f} ± "
                f"{one['error_kcal_per_mol']:.2f} | "
                + (
                    "|"
                    if np.isnan(one["barrier_eV"])
                    else f"{one['barrier_eV']:.3f} at {one['barrier_A']:.2f} Å |"
                )
            )
    return lines


def _studies(plan: Mapping, rows: Mapping) -> list[str]:
    if not rows:
        return ["*not run*"]
    lines = [
        f"Each member of the last committee of `{plan['studies']['of']}`, one pull each from the "
        "engine's start. Trained on hexane alone.",
        "",
        "| pull | engine (eV) | break (Å) | members: mean ± spread (eV) | break (Å) | "
        "difference (kcal/mol) |",
        "|---|---|---|---|---|---|",
    ]
    for title, row in rows.items():
        energies = np.array(row["members_eV"])
        apart = (energies.mean() - row["engine_eV"]) / KCAL_PER_MOL
        lines.append(
            f"| {title} | {row['engine_eV']:.3f} | {row['engine_break_A']:.2f} | "
            f"{energies.mean():.3f} ± {energies.std(ddof=1):.3f} | "
            f"{np.nanmean(row['members_break_A']):.2f} | {apart:+.1f} |"
        )
    return lines


def figures(plan: Mapping, store, engine: Mapping, runs: Mapping, other: Mapping) -> dict:
    """All figures, by name."""
    finished = {name: run for name, run in runs.items() if run is not None}
    drawn: dict[str, Figure] = {}
    if finished:
        drawn["activation"] = _activation(finished, engine)
        for name in finished:
            drawn[f"work_{name}"] = _work(store, name, len(finished[name]["rounds"]), engine)
    if other:
        drawn["transfer"] = _transfer(plan, store, other)
    return drawn


def _activation(runs: Mapping, engine: Mapping) -> Figure:
    """Activation energy minus the engine's, round by round, and the relaxed barrier's."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, run) in enumerate(runs.items()):
        labels = [one["labels"] for one in run["rounds"]]
        style = {"color": COLORS[index], "marker": MARKERS[index], "ms": 4, "lw": 1.2}
        apart = [one["difference_kcal_per_mol"] for one in run["rounds"]]
        error = [2 * one["error_kcal_per_mol"] for one in run["rounds"]]
        left.errorbar(labels, apart, error, label=name, capsize=3, **style)
        barrier = [
            (one["barrier_eV"] - engine["numbers"]["barrier_eV"]) / KCAL_PER_MOL
            for one in run["rounds"]
        ]
        right.plot(labels, barrier, **style)
    for axes, text in ((left, "activation energy"), (right, "relaxed barrier")):
        axes.axhspan(-1, 1, color="#e6e6e6", zorder=0)
        axes.axhline(0, color=GRAY, lw=1)
        low, high = axes.get_ylim()
        if max(-low, high) > 10:
            axes.set_yscale("symlog", linthresh=2)
        tidy(axes, "labels", f"{text} - engine's (kcal/mol)")
    legend(figure, left)
    return figure


def _work(store, name: str, rounds: int, engine: Mapping) -> Figure:
    """Work of the spring against the distance, of the first, middle and last rounds."""
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axes = figure.subplots()
    for walk, curve in enumerate(engine["pulls"].curves):
        label = "engine" if walk == 0 else None
        axes.plot(curve.variable, curve.work, color="#bbbbbb", lw=3, label=label)
    for place, index in enumerate(sorted({0, 1, rounds // 2, rounds - 1})):
        pulls = pulls_of(store.recall(f"{name}/pull-{index:03d}"), engine["species"])
        curve = pulls.curves[0]
        axes.plot(
            curve.variable, curve.work, color=COLORS[place], lw=1.2, label=f"training {index}"
        )
    tidy(axes, "distance of the terminal carbons (Å)", "work of the spring (eV)")
    legend(figure, axes)
    return figure


def _transfer(plan: Mapping, store, other: Mapping) -> Figure:
    """Activation energies of other chains and speeds: engine and the committee's band."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    chains = [n for n in plan["studies"]["chains"] if f"C{n}" in other]
    speeds = [v for v in plan["studies"]["speeds_A_per_ps"] if f"{v:g} Å/ps" in other]
    for axes, x, titles, label in (
        (left, chains, [f"C{n}" for n in chains], "carbon atoms"),
        (right, speeds, [f"{v:g} Å/ps" for v in speeds], "speed (Å/ps)"),
    ):
        rows = [other[title] for title in titles]
        engine = [row["engine_eV"] for row in rows]
        means = [np.mean(row["members_eV"]) for row in rows]
        spreads = [2 * np.std(row["members_eV"], ddof=1) for row in rows]
        axes.plot(x, engine, "s", color=GRAY, ms=7, label="engine")
        axes.errorbar(
            x, means, spreads, fmt="o", color=COLORS[0], ms=4, capsize=3,
            label="members, ± 2 standard deviations",
        )  # fmt: skip
        tidy(axes, label, "activation energy (eV)")
    legend(figure, left)
    return figure
