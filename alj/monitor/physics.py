"""The panels of the physics page: curves with the reference beside them, from what is stored.

Three sources: `results/properties.npz` (a campaign's `properties`), the work of steered walks in
its `round` events, and `results/physics.json`, which anybody may write beside them:

    {"panels": [{"title": "Barrier", "x": "training", "y": "barrier (eV)", "curves":
      [{"name": "network", "of": "network", "round": null, "x": [0, 1], "y": [3.9, 3.8],
        "error": [0.1, 0.1]}]}]}

`of` is "reference", "network" or "experiment"; a reference is drawn dashed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from alj.monitor.folders import Damaged
from alj.monitor.published import MEASURED
from alj.monitor.summary import Summary

_KINDS = (
    ("rdf", "Radial distribution", "distance (Å)", "g(r)"),
    ("adf", "Angles between neighbors", "angle (degrees)", "probability density (1/degree)"),
)


def panels(folder: Path, summary: Summary, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """All panels that there are data for."""
    measured = MEASURED.get(summary.labeler, {})
    found = [
        *_of_work(summary.rounds),
        *_of_properties(arrays, measured),
        *_of_others(folder),
        *_of_walks(summary.rounds),
    ]
    return {"panels": found}


def _of_properties(arrays: dict[str, np.ndarray], measured: dict[str, Any]) -> list[dict]:
    if not {"of", "entry", "title"} <= set(arrays):
        return []
    found = []
    rows = list(zip(arrays["of"], arrays["entry"], arrays["title"], strict=False))
    for entry in sorted({int(entry) for entry in arrays["entry"]}):
        title = next(str(title) for _, index, title in rows if index == entry)
        for kind, words, x_title, y_title in _KINDS:
            curves = []
            for of, index, _ in rows:
                name = f"{of}:{entry}:{kind}"
                if index == entry and name in arrays and f"{name}_centers" in arrays:
                    error = arrays.get(f"{name}_error")
                    curves.append(
                        _curve(str(of), arrays[f"{name}_centers"], arrays[name],
                               None if error is None else 2 * error)
                    )  # fmt: skip
            if curves:
                marks = []
                if kind == "rdf" and "peak" in measured:
                    marks = [dict(zip(("x", "y", "name"), measured["peak"], strict=False))]
                found.append(
                    {
                        "title": f"{words}, {title}", "x": x_title, "y": y_title, "curves": curves,
                        "marks": marks, "caption": "Reference and network by the same code; bands "
                        "are two standard errors.",
                    }
                )  # fmt: skip
    return found + _densities(arrays, measured)


def _densities(arrays: dict[str, np.ndarray], measured: dict[str, Any]) -> list[dict]:
    if not {"temperature_K", "density", "density_error"} <= set(arrays):
        return []
    curves = []
    for of in dict.fromkeys(str(name) for name in arrays["of"]):
        mine = (arrays["of"] == of) & (arrays["density_error"] > 0)
        mine &= np.isfinite(arrays["temperature_K"])
        order = np.argsort(arrays["temperature_K"][mine])
        if mine.any():
            x, y, error = (
                arrays[name][mine][order] for name in ("temperature_K", "density", "density_error")
            )
            curves.append({**_curve(of, x, y, 2 * error), "markers": True})
    if not curves:
        return []
    if "density" in measured:
        law, label = measured["density"]
        low = min(min(curve["x"]) for curve in curves)
        high = max(max(curve["x"]) for curve in curves)
        grid = np.linspace(min(low, 260.0), max(high, 320.0), 61)
        curves.append({**_curve("experiment", grid, law(grid), None), "name": label})
    return [
        {
            "title": "Density", "x": "temperature (K)", "y": "density (g/cm³)", "curves": curves,
            "marks": [], "caption": "Where it was free to vary, with two standard errors.",
        }
    ]  # fmt: skip


def _of_work(rounds: list[dict]) -> list[dict]:
    """Work of the pulls of every round, and the largest of each."""
    curves, tops = [], []
    for event in rounds:
        pulls = event.get("work") if isinstance(event.get("work"), list) else []
        for place, pull in enumerate(pulls or []):
            x, y = np.asarray(pull["variable"], float), np.asarray(pull["work_eV"], float)
            one = _curve("network", x, y, None)
            curves.append(
                {**one, "round": event.get("round"), "name": f"round {event.get('round')}, {place}"}
            )
            tops.append((event.get("round"), float(np.nanmax(y))))
    if not curves:
        return []
    at, height = np.array(tops, float).T
    barrier = {**_curve("network", at, height, None), "markers": True, "points": True}
    return [
        {
            "title": "Work of the pulls", "x": "pulled variable (Å or rad)", "y": "work (eV)",
            "curves": curves, "marks": [], "caption": "Every walk of a round that was steered with "
            "the network of that round; a walk ends where a gate froze it.",
        },
        {
            "title": "Largest work of a pull", "x": "round", "y": "work (eV)", "curves": [barrier],
            "marks": [], "caption": "The height that a pull had to climb, round by round.",
        },
    ]  # fmt: skip


def _of_walks(rounds: list[dict]) -> list[dict]:
    """Nested ladders and chosen energies."""
    found = []
    ladders = [
        {**_curve("network", np.arange(len(ladder)), np.asarray(ladder, float), None),
         "round": event.get("round"), "name": f"round {event.get('round')}"}
        for event in rounds for ladder in (event.get("ladder") or [])[:1]
    ]  # fmt: skip
    if ladders:
        found.append(
            {
                "title": "Energy ladder of the nested walks", "x": "stage (each halves the volume)",
                "y": "ceiling (eV/atom)", "curves": ladders, "marks": [], "caption":
                "Late rounds fall on each other once the network no longer changes.",
            }
        )  # fmt: skip
    points = [
        (event.get("round"), energy)
        for event in rounds
        for energy in (event.get("chosen_energy_eV_per_atom") or [])[:60]
        if energy is not None
    ]
    if points:
        x, y = np.array(points, float).T
        one = {**_curve("network", x, y, None), "markers": True, "points": True, "name": "chosen"}
        found.append(
            {
                "title": "Energies of the chosen structures", "x": "round", "y": "energy (eV/atom)",
                "curves": [one], "marks": [], "caption": "As the network saw them when it chose.",
            }
        )  # fmt: skip
    return found


def _of_others(folder: Path) -> list[dict]:
    """What others have stored for this page. Raises Damaged where it is no list of panels."""
    path = folder / "results" / "physics.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        return [
            {
                "title": str(panel["title"]), "x": str(panel["x"]), "y": str(panel["y"]),
                "caption": str(panel.get("caption", "")), "marks": [],
                "curves": [
                    {
                        **_curve(str(curve.get("of", "network")), np.asarray(curve["x"], float),
                                 np.asarray(curve["y"], float), curve.get("error")),
                        "name": str(curve.get("name", "")), "round": curve.get("round"),
                        "markers": bool(curve.get("markers")),
                    }
                    for curve in panel["curves"]
                ],
            }
            for panel in content["panels"]
        ]  # fmt: skip
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Damaged("results/physics.json is no list of panels") from None


def _curve(of: str, x: np.ndarray, y: np.ndarray, error: Any) -> dict[str, Any]:
    return {"name": of, "of": of, "round": None, "x": x, "y": y, "error": error, "markers": False}
