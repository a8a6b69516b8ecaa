"""The figures of a run folder, from its events and results; redrawn only when those change."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from alj.analysis import errors, figures, liquid_figures
from alj.analysis.liquid_figures import Curve
from alj.monitor.published import MEASURED, PUBLISHED

SETS = ("test", "validation", "train")


class Drawing(NamedTuple):
    """One figure: its name, what its caption says, the data that it shows, and how it is drawn."""

    name: str
    caption: str
    data: Any
    draw: Callable[[], Figure]


def redraw(folder: Path, drawings: list[Drawing], *, seconds: float | None = None) -> None:
    """Bring `figures/*.png` up to date, those longest out of date first, within `seconds`."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    kept = target / "drawn.json"
    try:
        drawn = json.loads(kept.read_text())
    except (OSError, ValueError):
        drawn = {}
    marks = {drawing.name: _digest(drawing.data) for drawing in drawings}
    stale = [
        drawing
        for drawing in drawings
        if drawn.get(drawing.name, [0, ""])[1] != marks[drawing.name]
        or not (target / f"{drawing.name}.png").exists()
    ]
    started = time.monotonic()
    for drawing in sorted(stale, key=lambda drawing: drawn.get(drawing.name, [0, ""])[0]):
        if seconds is not None and time.monotonic() - started > seconds:
            break
        drawing.draw().savefig(target / f"{drawing.name}.png", dpi=120)
        drawn[drawing.name] = [time.time(), marks[drawing.name]]
    kept.write_text(json.dumps(drawn))


def drawings_of(
    rounds: list[dict], results: dict[str, dict[str, np.ndarray]], config: dict, labeler: str
) -> list[Drawing]:
    """The figures that there are data for, in the order in which the report shows them."""
    return [
        *_of_rounds(rounds, config, labeler, _finished(results.get("test", {}), config)),
        *_of_results(results),
        *_of_properties(results.get("properties", {}), MEASURED.get(labeler, {})),
    ]


def read_results(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays in `results/*.npz`, by the name of the file; a damaged file is left out."""
    results = {}
    for path in sorted((folder / "results").glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                results[path.stem] = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError):
            continue
    return results


def _finished(test: dict[str, np.ndarray], config: dict) -> float | None:
    """The error of a model that was made after the last round; None where it is the round's own."""
    made = config.get("refit") or config.get("anchor")
    if not made or not len(test.get("energy", ())):
        return None
    return 1000.0 * errors.mae(test["energy"] - test["energy_reference"])


def _of_rounds(
    rounds: list[dict], config: dict, labeler: str, finished: float | None
) -> list[Drawing]:
    stop, data = config.get("stop") or {}, config.get("data") or {}
    target = data.get("keep_error_above_meV_per_atom") or stop.get("scatter_meV_per_atom")
    published = PUBLISHED.get(labeler)
    found = []
    if len(rounds) > 1 and any(_errors(event) for event in rounds):
        found.append(
            Drawing(
                "learning_curve",
                "Energy error against the number of labels that the network was trained on. "
                "Candidates are structures that the network chose itself, judged before it "
                "learned them; where a walk looks for a network's mistakes they are harder than "
                "the test set.",
                [
                    finished,
                    [[event.get("labels"), event.get("kept"), _errors(event)] for event in rounds],
                ],
                lambda: figures.learning_curve(
                    rounds,
                    target_meV_per_atom=target,
                    published=published,
                    finished_meV_per_atom=finished,
                ),
            )
        )
    for name, key, draw, caption in (
        (
            "trust_shares", "selection.accurate", figures.trust_shares,
            "How much of what was explored the committee agreed on, doubted, or made nothing of.",
        ),
        (
            "nested_ladder", "ladder", figures.nested_ladder,
            "Energy ceilings of the nested walks: each stage halves the accessible volume. The "
            "curves of late rounds fall on each other once the network no longer changes.",
        ),
        (
            "chosen_energies", "chosen_energy_eV_per_atom", figures.chosen_energies,
            "Energies of the structures chosen in each round, as the network saw them.",
        ),
        ("acceptance", "acceptance", figures.acceptance, "Accepted Monte Carlo moves."),
        ("seconds", "seconds", figures.seconds, "Where the time went, round by round."),
    ):  # fmt: skip
        told = [_told(event, key) for event in rounds]
        if len(rounds) > 1 and any(told):
            values = [
                [event.get("round"), value] for event, value in zip(rounds, told, strict=True)
            ]
            found.append(Drawing(name, caption, values, lambda draw=draw: draw(rounds)))
    return found


def _told(event: Mapping, key: str) -> Any:
    """What an event says under a key, or under `key.of_that`: the whole of the former."""
    outer, _, inner = key.partition(".")
    value = event.get(outer)
    return value if not inner or inner in (value or {}) else None


def _of_results(results: dict[str, dict[str, np.ndarray]]) -> list[Drawing]:
    found = []
    for name in SETS:
        arrays = results.get(name, {})
        if len(arrays.get("energy", ())):
            kinds = [str(kind) for kind in arrays.get("config_type", ())]
            found.append(
                Drawing(
                    f"energy_parity_{name}",
                    f"Predicted against reference energies of the {name} set, with the errors "
                    "below: 1 meV/atom cannot be seen in the upper panel.",
                    [arrays["energy_reference"], arrays["energy"], kinds],
                    lambda a=arrays, k=kinds: figures.energy_parity(
                        a["energy_reference"], a["energy"], k
                    ),
                )
            )
        if len(arrays.get("forces", ())):
            found.append(
                Drawing(
                    f"force_parity_{name}",
                    f"Predicted against reference force components of the {name} set.",
                    [arrays["forces_reference"], arrays["forces"]],
                    lambda a=arrays: figures.force_parity(
                        a["forces_reference"].ravel(), a["forces"].ravel()
                    ),
                )
            )
        if len(arrays.get("force_spread", ())) and np.any(arrays["force_spread"] > 0):
            found.append(
                Drawing(
                    f"spread_{name}",
                    f"Does the committee know what it does not know? {name.capitalize()} set.",
                    [arrays["force_spread"], arrays["force_error"]],
                    lambda a=arrays: figures.spread_against_error(
                        a["force_spread"], a["force_error"]
                    ),
                )
            )
    history = results.get("training", {})
    if len(history.get("steps", ())):
        found.append(
            Drawing(
                "training",
                "Error during training, one line a member of the committee.",
                [history[name] for name in ("steps", "train", "validation")],
                lambda: figures.training(
                    history["steps"], history["train"], history["validation"],
                    str(history.get("quantity", "loss")),
                ),
            )
        )  # fmt: skip
    return found


def _of_properties(arrays: dict[str, np.ndarray], measured: dict) -> list[Drawing]:
    """Distributions of every entry, and densities where the temperature varies or is measured."""
    if "of" not in arrays:
        return []
    found = []
    rows = list(zip(arrays["of"], arrays["entry"], arrays["title"], strict=True))
    for entry in sorted({int(entry) for entry in arrays["entry"]}):
        title = next(str(title) for _, index, title in rows if index == entry)
        for kind, name, caption in (
            ("rdf", "radial", "Radial distribution"),
            ("adf", "angular", "Angles between neighbors"),
        ):
            curves = {
                str(of): Curve(*(arrays[f"{of}:{entry}:{kind}{part}"] for part in _PARTS))
                for of, index, _ in rows
                if index == entry
            }
            draw = {
                "radial": lambda c=curves: liquid_figures.radial(c, peak=measured.get("peak")),
                "angular": lambda c=curves: liquid_figures.angular(c),
            }[name]
            text = f"{caption} at {title}: reference and network by the same code, bands of two "
            data = [part for curve in curves.values() for part in curve]
            found.append(Drawing(f"{name}_{entry}", text + "standard errors.", data, draw))
    points = _densities(arrays)
    if points:
        experiment = None
        if "density" in measured:
            law, label = measured["density"]
            low, high = (edge(arrays["temperature_K"]) for edge in (np.nanmin, np.nanmax))
            grid = np.linspace(min(low, 260.0), max(high, 320.0), 121)
            experiment = Curve(grid, law(grid), np.zeros_like(grid)), label
        found.append(
            Drawing(
                "density",
                "Density against temperature, with two standard errors.",
                [part for curve in points.values() for part in curve],
                lambda: liquid_figures.density(points, measured=experiment),
            )
        )
    return found


_PARTS = ("_centers", "", "_error")


def _densities(arrays: dict[str, np.ndarray]) -> dict[str, Curve]:
    """Density by subject against temperature, where it was free to vary."""
    points = {}
    for of in dict.fromkeys(str(name) for name in arrays["of"]):
        mine = (arrays["of"] == of) & (arrays["density_error"] > 0)
        mine &= np.isfinite(arrays["temperature_K"])
        order = np.argsort(arrays["temperature_K"][mine])
        if mine.any():
            columns = ("temperature_K", "density", "density_error")
            points[of] = Curve(*(arrays[name][mine][order] for name in columns))
    return points


def _errors(event):
    return {key: value for key, value in event.items() if "_meV_" in key and value is not None}


def _digest(data) -> str:
    """A mark that changes with the data."""
    hashed = hashlib.sha256()

    def feed(value):
        if isinstance(value, np.ndarray):
            hashed.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, list):
            for item in value:
                feed(item)
        else:
            hashed.update(json.dumps(value, sort_keys=True, default=str).encode())

    feed(data)
    return hashed.hexdigest()
