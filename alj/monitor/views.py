"""What each page shows of a run, as plain data: the server and the report draw from the same.

Every view reads files and computes little; none writes, none imports JAX. Names of units are part
of the data where they differ between runs. Raises `Gone` and `Damaged`.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np

from alj.analysis import errors
from alj.campaign import map_file
from alj.monitor import judged, ledger_file, numbers, physics
from alj.monitor.folders import Damaged, Gone, arrays_of, claim_of, config_of, is_run
from alj.monitor.published import PUBLISHED
from alj.monitor.summary import ERRORS, Summary, in_use, read_events, summary_of

SETS = ("test", "validation", "train")
FAILURES = 200
"""Failed labels shown, the newest."""

POINTS = 1500
"""Points of a parity plot; of more, evenly spaced ones."""

ROUND_KEYS = (
    "round", "labels", "kept", "failed", *ERRORS, "seconds", "acceptance", "selection", "time",
)  # fmt: skip


def overview(folder: Path) -> dict[str, Any]:
    """How far the run is, what it has cost, how good it is, when it stops."""
    events, summary = _state(folder)
    claim = claim_of(folder)
    config = config_of(claim)
    progress = next((e for e in reversed(events) if e["event"] in ("progress", "stage")), {})
    busy = progress if progress.get("event") == "progress" and summary.stage else {}
    labeling = busy if busy.get("stage") == "label" else {}
    queued = max(0, int(labeling.get("total") or 0) - int(labeling.get("done") or 0))
    data, stop = config.get("data") or {}, config.get("stop") or {}
    target = data.get("keep_error_above_meV_per_atom") or stop.get("scatter_meV_per_atom")
    return {
        **{n: v for n, v in summary._asdict().items() if n != "rounds"},
        "now": time.time(),
        "queued": queued,
        "progress": {n: busy.get(n) for n in ("stage", "done", "total", "note")} if busy else None,
        "rounds": [{n: e.get(n) for n in ROUND_KEYS} for e in summary.rounds],
        "stop": {n: v for n, v in stop.items() if v is not None},
        "target_meV_per_atom": target,
        "published": PUBLISHED.get(summary.labeler),
        "potential": (config.get("potential") or {}).get("name"),
        "sets": {n: judged.error_rows(a) for n in SETS if (a := _results(folder, n))},
        "notes": [str(e.get("text", "")) for e in events if e["event"] == "note"][-12:],
        "machine": claim.get("machine") or {},
        "versions": claim.get("versions") or {},
        "seed": config.get("seed"),
        "precision": config.get("precision"),
        "has_model": (folder / "model").is_dir(),
    }


def data_map(folder: Path) -> dict[str, Any]:
    """Where the structures lie in the plane, and what they can be colored by."""
    _check(folder)
    try:
        known = map_file.read(folder)
    except (ValueError, OSError):
        raise Damaged("map.npz cannot be read") from None
    if known is None:
        return {"count": 0}
    found: dict[str, Any] = {"count": known.count, "about": known.about}
    found["projections"] = {n: numbers.packed(v) for n, v in known.projections.items()}
    found["columns"] = {n: numbers.packed(v) for n, v in known.columns.items()}
    found["nodes"] = {n: numbers.packed(v) for n, v in known.nodes.items()}
    for name in ("node_class", "edges"):
        values = getattr(known, name)
        found[name] = None if values is None else numbers.packed(values)
    return found


def structure(folder: Path, index: int) -> dict[str, Any]:
    """One structure of the map with its life in the ledger. Raises Gone where there is none."""
    _check(folder)
    try:
        one = map_file.read_geometry(folder, index)
    except IndexError:
        raise Gone(f"structure {index}") from None
    except (ValueError, OSError):
        raise Damaged("map.npz cannot be read") from None
    life: dict[str, Any] = {"hash": one.hash, "proposed": [], "attempts": []}
    if one.hash:
        life = _asked(folder, lambda base: ledger_file.life_of(base, one.hash)) or life
    shape = {"species": one.species, "positions": one.positions, "cell": one.cell}
    return {"index": index, **{n: numbers.packed(v) for n, v in shape.items()}, "life": life}


def uncertainty(folder: Path) -> dict[str, Any]:
    """How uncertain the committee was in each round, and whether it is right to be."""
    _, summary = _state(folder)
    rounds = [
        {"round": e.get("round"), "selection": e.get("selection"), "seen": e.get("uncertainty")}
        for e in summary.rounds
    ]
    before = _asked(folder, ledger_file.errors_before_learning) or {}
    every = np.concatenate([np.zeros(0), *(1000 * np.abs(v) for v in before.values())])
    edges = numbers.logarithmic_edges(every)
    learned = None
    if edges is not None:
        counts = {str(r): numbers.histogram(1000 * np.abs(v), edges) for r, v in before.items()}
        learned = {"edges": edges, "counts": counts}
    calibration = {n: c for n in SETS if (c := judged.calibration(_results(folder, n)))}
    return {"rounds": rounds, "before_learning": learned, "calibration": calibration}


def training(folder: Path) -> dict[str, Any]:
    """Curves of every member, live, and predicted against reference values."""
    events, _ = _state(folder)
    curves: dict[tuple, dict[str, Any]] = {}
    for event in events:
        told = event.get("curves")
        if event["event"] != "progress" or not isinstance(told, dict):
            continue
        key = (event.get("round"), event.get("stage"))
        one = curves.setdefault(key, {"quantity": told.get("quantity"), "blocks": {}})
        rows = (told.get(name) or [] for name in ("steps", "train", "validation"))
        for step, *values in zip(*rows, strict=False):
            one["blocks"][int(step)] = values
    trainings = [
        {
            "round": key[0],
            "stage": key[1],
            "quantity": one["quantity"],
            "steps": (steps := sorted(one["blocks"])),
            "train": [one["blocks"][step][0] for step in steps],
            "validation": [one["blocks"][step][1] for step in steps],
        }
        for key, one in curves.items()
    ]
    history = _results(folder, "training")
    if len(history.get("steps", ())):
        rows = numbers.thinned(len(history["steps"]), 400)
        trainings = [
            {
                "round": None, "stage": "train",
                "quantity": str(history.get("quantity", "loss")),
                **{n: history[n][rows] for n in ("steps", "train", "validation")},
            }
        ]  # fmt: skip
    parities = {n: p for n in SETS if (p := _parity(_results(folder, n)))}
    return {"trainings": trainings, "parity": parities}


def failures(folder: Path) -> dict[str, Any]:
    """Labels that failed: why, the end of the log, and the structure."""
    _check(folder)
    found = _asked(folder, lambda base: ledger_file.failures(base, FAILURES))
    rows, counts = found if found is not None else ([], {})
    for row in rows:
        if "structure" in row:
            row["structure"] = {n: numbers.packed(v) for n, v in row["structure"].items()}
    return {"failures": rows, "kinds": counts, "total": sum(counts.values())}


def properties(folder: Path) -> dict[str, Any]:
    """Physics: what the network's matter does, beside the reference and the experiment."""
    _, summary = _state(folder)
    return physics.panels(folder, summary, _results(folder, "properties"))


def configuration(folder: Path) -> dict[str, Any]:
    """The text of `run.yaml`."""
    _check(folder)
    try:
        return {"text": (folder / "run.yaml").read_text("utf-8", "replace")[:200_000]}
    except OSError:
        return {"text": ""}


def runs(found: dict[str, Path]) -> dict[str, Any]:
    """Several runs beside each other: state, labels, errors, cost."""
    rows = []
    for name, folder in found.items():
        try:
            _, summary = _state(folder)
        except (Gone, Damaged):
            continue
        config = config_of(claim_of(folder))
        engine = _asked(folder, ledger_file.seconds_of_labels, quiet=True) or {}
        stages: dict[str, float] = {}
        for event in summary.rounds:
            for stage, spent in (event.get("seconds") or {}).items():
                stages[stage] = stages.get(stage, 0.0) + float(spent or 0.0)
        rows.append(
            {
                "name": name,
                **{
                    key: getattr(summary, key)
                    for key in ("state", "round", "planned", "stage", "labels", "kept", "failed",
                                "errors", "labeler", "seconds", "last")
                },
                "potential": (config.get("potential") or {}).get("name"),
                "selector": (config.get("selector") or {}).get("name"),
                "seed": config.get("seed"),
                "stages": stages,
                "engine_seconds": engine,
                "curve": [
                    {n: e.get(n) for n in ("labels", "kept", *ERRORS)} for e in summary.rounds
                ],
            }
        )  # fmt: skip
    return {"runs": rows}


PAGES = {
    "overview": overview,
    "map": data_map,
    "uncertainty": uncertainty,
    "training": training,
    "physics": properties,
    "failures": failures,
    "configuration": configuration,
}
"""Pages of one run by name."""


def _check(folder: Path) -> None:
    if not is_run(folder):
        raise Gone(folder.name)


def _state(folder: Path) -> tuple[list[dict], Summary]:
    _check(folder)
    try:
        events = read_events(folder)
        summary = summary_of(events)
    except OSError:
        raise Gone(folder.name) from None
    except (TypeError, ValueError, KeyError, AttributeError):
        raise Damaged("events.jsonl holds events that nobody wrote") from None
    if summary.state == "running" and not in_use(folder):
        summary = summary._replace(state="interrupted", remaining=None)
    return events, summary


def _results(folder: Path, name: str) -> dict[str, np.ndarray]:
    return arrays_of(folder, name)


def _asked(folder: Path, question, *, quiet: bool = False) -> Any:
    """What the ledger answers; None where there is no ledger."""
    try:
        with ledger_file.opened(folder) as base:
            return None if base is None else question(base)
    except (sqlite3.Error, Damaged):
        if quiet:
            return None
        raise Damaged("ledger.sqlite cannot be read") from None


def _parity(arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    if not len(arrays.get("energy", ())):
        return None
    found: dict[str, Any] = {}
    kinds = np.asarray(arrays.get("config_type", np.zeros(0)), dtype=str)
    for name, unit in (("energy", "eV/atom"), ("forces", "eV/Å")):
        predicted = np.asarray(arrays.get(name, np.zeros(0)), float).ravel()
        reference = np.asarray(arrays.get(f"{name}_reference", np.zeros(0)), float).ravel()
        if not len(predicted) or len(predicted) != len(reference):
            continue
        rows = numbers.thinned(len(predicted), POINTS)
        wrong = 1000 * (predicted - reference)
        wrong = wrong[np.isfinite(wrong)]
        found[name] = {
            "unit": unit,
            "count": len(predicted),
            "reference": reference[rows],
            "predicted": predicted[rows],
            "kinds": kinds[rows] if name == "energy" and len(kinds) == len(predicted) else [],
            "mae": errors.mae(wrong) if len(wrong) else None,
            "rmse": errors.rmse(wrong) if len(wrong) else None,
        }
    return found
