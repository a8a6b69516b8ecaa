"""What `steered_md.py` measured, for the physics page of `alj monitor`: `results/physics.json`.

Work of the pulls, activation energies, relaxed barriers, training by training, with the engine's.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign.store import write_file

POINTS = 200
"""Points of a curve that is drawn."""


def write_panels(folder: Path, run: Mapping, engine: Mapping, pulls: Sequence[Any]) -> None:
    """`pulls` are those of every training, with their curves."""
    work = [_curve("engine", "reference", None, one) for one in engine["pulls"].curves]
    for index, each in enumerate(pulls):
        work.append(_curve(f"training {index}", "network", index, each.curves[0]))
    energies = [one["activation_eV"] for one in run["rounds"]]
    barriers = [one["barrier_eV"] for one in run["rounds"]]
    numbers = engine["numbers"]
    panels = [
        _panel("Work of the pulls", "distance of the terminal carbons (Å)",
               "work of the spring (eV)", work, "The first pull of each training; dashed: "
               "the engine, pulled from the same positions and velocities."),
        _by_training("Activation energy of the pulls", energies, numbers["activation_eV"],
                     "Mean and two standard errors over the pulls."),
        _by_training("Relaxed barrier", [[b] for b in barriers], [numbers["barrier_eV"]],
                     "Sought with the networks of the last trainings only."),
    ]  # fmt: skip
    text = json.dumps({"panels": panels}, allow_nan=False)
    write_file(folder / "results" / "physics.json", text.encode())


def _by_training(title: str, values: Sequence[Sequence[float]], engine, caption: str) -> dict:
    known = [(i, np.asarray(v, float)) for i, v in enumerate(values) if np.isfinite(v).all()]
    x = [i for i, _ in known]
    network = {
        "name": "network", "of": "network", "round": None, "x": x, "markers": True,
        "y": [float(v.mean()) for _, v in known],
        "error": [_two_errors(v) for _, v in known],
    }  # fmt: skip
    mean, ends = float(np.mean(engine)), [0, max(len(values) - 1, 1)]
    reference = {
        "name": "engine", "of": "reference", "round": None, "x": ends, "y": [mean, mean],
        "error": [_two_errors(np.asarray(engine, float))] * 2,
    }  # fmt: skip
    return _panel(title, "training", "energy (eV)", [reference, network], caption)


def _two_errors(values: np.ndarray) -> float:
    return float(2 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _curve(name: str, of: str, index: int | None, curve) -> dict:
    rows = np.unique(np.linspace(0, len(curve.variable) - 1, POINTS).astype(int))
    x, y = np.asarray(curve.variable, float)[rows], np.asarray(curve.work, float)[rows]
    return {"name": name, "of": of, "round": index, "x": x.tolist(), "y": y.tolist()}


def _panel(title: str, x: str, y: str, curves: list, caption: str) -> dict:
    return {"title": title, "x": x, "y": y, "curves": curves, "caption": caption}
