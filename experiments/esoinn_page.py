"""The water clusters of `esoinn_dp.py` as a section of its page, numbers and figures."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from esoinn_figures import indicator_figure, spectra_figure, trajectory_figure

from alj.campaign import datasets, events, rounds, trees
from alj.monitor.summary import duration
from alj.selection import esoinn
from alj.uncertainty.calibration import conformal_scale

COVERAGE = 0.9

SAME = 1e-4
"""A median indicator below this, in eV/Å, is no knowledge: the networks are the same."""


def states(folder: Path) -> list:
    """The states that a campaign's rounds began with, the last one included."""
    found = []
    for path in sorted(folder.glob("rounds/*/state.tree")):
        value = trees.decode(path.read_bytes(), str(path))
        found.append(value if isinstance(value, rounds.RoundState) else value[0])
    return found


def groups(plan: Mapping) -> list[list[int]]:
    """Sizes that walk together, padded to the largest of them: each group is one program."""
    sizes = sorted(plan["water"]["sizes"])
    return [part.tolist() for part in np.array_split(sizes, min(3, len(sizes)))]


def dynamics(plan: Mapping) -> dict:
    """The settings of the dynamics that judge the finished model."""
    own = plan["water"]["trajectories"]
    names = ("timestep_fs", "steps", "record_every")
    return {
        **plan["campaign"]["sampler"][0]["dynamics"],
        **{name: own[name] for name in names if name in own},
    }


def frame_ps(plan: Mapping) -> float:
    """The time between two of their frames."""
    settings = dynamics(plan)
    return settings["timestep_fs"] * settings["record_every"] / 1000


def walk_name(group: list[int]) -> str:
    """Under which name the trajectories of these sizes are remembered."""
    return f"walked-{'-'.join(map(str, group))}"


def judged_names(plan: Mapping) -> list[str]:
    """Under which names their errors are remembered."""
    return [f"judged-{walk_name(group)}" for group in groups(plan)]


def section(plan: Mapping, store, out: Path, target: Path) -> list[str]:
    """The lines of the section; figures and `water.json` are written beside the page."""
    folder = out / "campaign"
    known = states(folder) if folder.exists() else []
    reports = [event for event in events.read(folder) if event["event"] == "round"] if known else []
    if not reports:
        return ["## Water clusters", "", "The campaign has not finished a round yet.", ""]
    numbers = {
        "rounds": [row(report, state) for report, state in zip(reports, known[1:], strict=False)]
    }
    names = [name for name in judged_names(plan) if store.knows(name)]
    judged = {name: store.recall(name) for name in names}
    walked = {name: store.recall(name.removeprefix("judged-")) for name in judged}
    if store.knows("held-out"):
        numbers["held out"] = summary(store.recall("held-out"))
    if judged:
        numbers["trajectories"] = trajectories(walked, judged)
        parts = plan["water"]["trajectories"].get("block_ps")
        numbers["coverage"] = coverage(judged, parts and round(parts / frame_ps(plan)))
    if store.knows("seconds"):
        numbers["seconds"] = store.recall("seconds")
    numbers["composition"] = composition(known[-1].data)
    (target / "water.json").write_text(json.dumps(numbers, indent=1, default=float) + "\n")
    drawn = {"spectra": spectra_figure(known), "indicator": indicator_figure(reports)}
    if judged:
        drawn["trajectories"] = trajectory_figure(
            walked, judged, numbers["coverage"]["scale"], frame_ps(plan)
        )
    for name, figure in drawn.items():
        figure.savefig(target / f"water_{name}.png", dpi=110)
    return [*page(plan, numbers), *[f"![{name}](water_{name}.png)\n" for name in drawn], ""]


def row(report: Mapping, state) -> dict:
    """One round: labels, what the indicator said of the pool, and the networks behind it."""
    judged, found = report.get("selection") or {}, state.memory.get("classes")
    return {
        "round": report["round"],
        "labels": report["labels"],
        "failed": report["failed"],
        "kept": report["kept"],
        "nodes": 0 if found is None else int(found.network.count),
        "classes": 0 if found is None else int(np.max(esoinn.classes(found.network))) + 1,
        "networks": state.memory["taught"].networks,
        "median_indicator": (judged.get("indicator_quantiles_eV_per_A") or [None] * 3)[2],
        "widths": (state.memory.get("widths") or {}).get("hidden"),
        "widths_tried": (state.memory.get("widths") or {}).get("tried"),
        "length": state.memory.get("length", 1),
        "seconds": sum(report["seconds"].values()),
        "held_out": datasets.count(state.memory.get("held_out", datasets.empty())),
        **{key: judged.get(key) for key in ("known", "questionable", "unknown", "set_aside")},
    }


def summary(found: Mapping) -> dict:
    """Root mean square errors: of energies in eV (whole and per atom), of force components."""
    atoms = np.asarray(found["atoms"])
    return {
        "structures": len(atoms),
        "energy_RMSE_eV": float(np.sqrt(np.mean(found["energy_error"] ** 2))),
        "energy_RMSE_meV_per_atom": float(
            1000 * np.sqrt(np.mean((found["energy_error"] / atoms) ** 2))
        ),
        "force_RMSE_eV_per_A": float(np.sqrt(np.sum(found["force_square"]) / (3 * atoms.sum()))),
    }


def trajectories(walked: Mapping, judged: Mapping) -> list[dict]:
    """Of every trajectory: size, errors, indicator, changes of class, whether it stopped."""
    rows = []
    for name, found in judged.items():
        frames = walked[name]
        for walk in range(len(frames["flips"])):
            mine = found["walk"] == walk
            part = {
                key: np.asarray(found[key])[mine]
                for key in ("energy_error", "force_square", "atoms")
            }
            chi, error = found["indicator"][mine], found["largest_error"][mine]
            rows.append(
                {
                    "waters": int(np.sum(frames["species"][walk] > 0)) // 3,
                    "frames": int(mine.sum()),
                    "stopped": bool(frames["stopped"][-1, walk]),
                    "flips": int(frames["flips"][walk]),
                    "temperature_K": float(np.mean(frames["temperature"][:, walk])),
                    "indicator_eV_per_A": float(np.mean(chi)) if len(chi) else np.nan,
                    "largest_error_eV_per_A": float(np.mean(error)) if len(chi) else np.nan,
                    "indicator_above_error": float(np.mean(chi > error)) if len(chi) else np.nan,
                    **(summary(part) if len(chi) else {}),
                }
            )
    return rows


def coverage(judged: Mapping, block: int | None = None) -> dict:
    """Of each trajectory: how many of its frames err by less than s χ, with s of the others.

    s is conformal: of the ratios of largest error and χ of all other trajectories, the one that
    90 % stay below. Trajectories are independent of each other, frames of one are not: the error is
    that of the mean over trajectories. With `block`, pieces of so many frames are counted too, and
    how their shares scatter.
    """
    ratios = []
    for found in judged.values():
        for walk in np.unique(found["walk"]):
            mine = found["walk"] == walk
            chi = np.maximum(np.asarray(found["indicator"])[mine], 1e-6)
            ratios.append(np.asarray(found["largest_error"])[mine] / chi)
    shares, pieces = [], []
    for i, own in enumerate(ratios):
        others = np.concatenate([each for j, each in enumerate(ratios) if j != i])
        scale = conformal_scale(others, np.ones(len(others)), coverage=COVERAGE)
        shares.append(float(np.mean(own <= scale)))
        for begin in range(0, len(own), block or len(own)):
            pieces.append(float(np.mean(own[begin : begin + (block or len(own))] <= scale)))
    every = np.concatenate(ratios)
    return {
        "trajectories": len(shares),
        "mean": float(np.mean(shares)),
        "standard_error": float(np.std(shares, ddof=1) / np.sqrt(len(shares))),
        "blocks": len(pieces),
        "block_scatter": float(np.std(pieces, ddof=1)),
        "scale": float(conformal_scale(every, np.ones(len(every)), coverage=COVERAGE)),
    }


def composition(data) -> dict[str, int]:
    """How many structures of each size the final set has."""
    waters, counts = np.unique(datasets.sizes(data) // 3, return_counts=True)
    return {str(size): int(count) for size, count in zip(waters, counts, strict=True)}


def page(plan: Mapping, numbers: Mapping) -> list[str]:
    """The section's tables."""
    targets, last = plan["water"]["targets"], numbers["rounds"][-1]
    start = len(plan["water"]["sizes"])
    held = numbers.get("held out", {})
    trained = last["kept"]
    rows = [
        (
            "labels in all, held-out ones and the start included",
            last["labels"] + start,
            targets["labels"],
        ),
        ("structures trained on", trained, targets["trained_on"]),
    ]
    if held:
        rows += [
            (
                "energy RMSE, held-out labels (eV)",
                held["energy_RMSE_eV"],
                targets["energy_RMSE_eV"],
            ),
            (
                "force RMSE, held-out labels (eV/Å)",
                held["force_RMSE_eV_per_A"],
                targets["force_RMSE_eV_per_A"],
            ),
        ]
    lines = ["## Water clusters", ""]
    if "seconds" in numbers:
        lines += [f"Wall time: {duration(numbers['seconds'])}.", ""]
    lines += ["| quantity | here | to reach | |", "|---|---|---|---|"]
    for name, value, bound in rows:
        verdict = "reached" if value <= bound else "**missed**"
        lines.append(f"| {name} | {value:.4g} | {bound:.4g} | {verdict} |")
    if "coverage" in numbers:
        found = numbers["coverage"]
        good = "reached" if abs(found["mean"] - COVERAGE) <= 0.03 else "**missed**"
        text = f"{100 * found['mean']:.1f} ± {100 * found['standard_error']:.1f} %"
        lines.append(
            f"| frames within the 90 % interval of χ, {found['trajectories']} independent "
            f"trajectories in {found['blocks']} blocks that scatter by "
            f"{100 * found['block_scatter']:.0f} % | "
            f"{text} | 90 ± 3 % | {good} |"
        )
    lines += ["", "Rounds (shares of the pool by the error indicator):", ""]
    names = (
        "round", "labels", "kept", "held_out", "nodes", "classes", "networks", "widths", "length",
    )  # fmt: skip
    shares = ("known", "questionable", "unknown", "set_aside")
    lines += [f"| {' | '.join((*names, *shares, 'seconds'))} |", "|" + "---|" * 14]
    for each in numbers["rounds"]:
        cells = ["" if each[name] is None else str(each[name]) for name in names]
        cells += ["" if each[n] is None else f"{each[n]:.3g}" for n in shares]
        lines.append(f"| {' | '.join([*cells, str(round(each['seconds']))])} |")
    same = [
        str(each["round"]) for each in numbers["rounds"][1:]
        if each["median_indicator"] is not None and each["median_indicator"] < SAME
    ]  # fmt: skip
    if same:
        lines += [
            "",
            f"In round {', '.join(same)} the median χ of the pool is below {SAME:g} eV/Å: networks "
            "of one origin had stayed the same, so the shares of that round mean nothing (classes "
            "of one origin begin apart in later versions).",
        ]
    lines += [
        "",
        f"Composition of the final set (waters: structures): {numbers['composition']}.",
        "",
        _widths_told(plan, last["widths"], last["widths_tried"]),
        "",
    ]
    return [*lines, *_by_size(numbers)]


def _widths_told(plan: Mapping, after: list[int] | None, tried: list[dict] | None) -> str:
    """What the genetic search of widths has made of those that the campaign began with."""
    before = next(iter(plan["campaign"]["potential"]["body"]["hidden"].values()))
    if after is None or not tried:
        return f"Widths of the hidden layers: {before}, not searched."
    wanted = plan["campaign"]["widths"]["accuracy_eV_per_A"]
    reached = sum(one["reached_after"] >= 0 for one in tried)
    errors = [one["error_eV_per_A"] for one in tried if one["error_eV_per_A"] is not None]
    return (
        f"Widths of the hidden layers: {before} before, {after} after the search. In its last "
        f"round {reached} of {len(tried)} candidates, each a network of its own that began "
        f"anew, reached {wanted:g} eV/Å on what validated them; their errors were "
        f"{min(errors):.2f} to {max(errors):.2f} eV/Å."
    )


def _by_size(numbers: Mapping) -> list[str]:
    """Errors along the trajectories of each size."""
    if "trajectories" not in numbers:
        return []
    lines = [
        "Along trajectories at 300 K with the finished model (means over trajectories):", "",
        "| waters | trajectories | frames | force RMSE (eV/Å) | energy RMSE (meV/atom) | mean χ | "
        "mean largest error | χ above it | flips | stopped |", "|" + "---|" * 10,
    ]  # fmt: skip
    rows = numbers["trajectories"]
    for size in sorted({each["waters"] for each in rows}):
        mine = [each for each in rows if each["waters"] == size]
        whole = [each for each in mine if each["frames"]]

        def mean(name, whole=whole):
            return np.mean([each[name] for each in whole]) if whole else np.nan

        lines.append(
            f"| {size} | {len(mine)} | {sum(each['frames'] for each in mine)} | "
            f"{mean('force_RMSE_eV_per_A'):.3f} | {mean('energy_RMSE_meV_per_atom'):.2f} | "
            f"{mean('indicator_eV_per_A'):.3f} | {mean('largest_error_eV_per_A'):.3f} | "
            f"{100 * mean('indicator_above_error'):.0f} % | {sum(e['flips'] for e in mine)} | "
            f"{sum(each['stopped'] for each in mine)} |"
        )
    return [*lines, ""]
