"""The report of a run: figures as PNG, and one self-contained `report.html` that asks for nothing.

Works for a run at any moment: what is not there yet is left out, and the page says how far it is.
Everything that comes from the run is escaped; the page carries its images and allows no request.
"""

import base64
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from alj.analysis import errors
from alj.campaign import config as configuration
from alj.campaign.ledger import Ledger
from alj.campaign.store import write_file
from alj.monitor.drawings import SETS, drawings_of, read_results, redraw
from alj.monitor.summary import Summary, duration, summarize
from alj.types import BadInput


def write_report(folder: str | Path, *, seconds: float | None = None) -> Path:
    """Bring the figures and `report.html` of a run up to date and return the page's path.

    `seconds` bounds the time spent on drawing: what does not fit keeps its older figure, and comes
    first at the next call. Raises BadInput where the folder is no run folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run folder; `alj run CONFIG` makes one in runs/")
    if not (folder / "events.jsonl").exists() and not (folder / "run.yaml").exists():
        raise BadInput(f"{folder}: expected a run folder (with run.yaml), found none there")
    claim = _claim(folder)
    config = claim.get("config") or {}
    summary = summarize(folder)
    results = read_results(folder)
    drawings = drawings_of(summary.rounds, results, config, summary.labeler)
    redraw(folder, drawings, seconds=seconds)
    page = render(folder, summary, results, claim, {d.name: d.caption for d in drawings})
    write_file(folder / "report.html", page.encode())
    return folder / "report.html"


def render(
    folder: Path,
    summary: Summary,
    results: dict[str, dict[str, np.ndarray]],
    claim: dict,
    captions: dict[str, str],
) -> str:
    """The page as text; `captions` are those of the figures to show, by name."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        (files("alj.monitor") / "static" / "report.html").read_text(encoding="utf-8")
    )
    config = claim.get("config") or {}
    tables = [
        _error_table(name, results[name]) for name in SETS if "energy" in results.get(name, {})
    ]
    return template.render(
        title=folder.resolve().name,
        state=summary.state,
        lead=_lead(summary, config),
        note=_note(summary, folder),
        facts=_facts(summary, results, claim),
        error_tables=tables,
        snippets=_snippets(folder) if (folder / "model").is_dir() else [],
        images=[_image(folder, name, captions[name]) for name in captions if _drawn(folder, name)],
        rounds=_round_table(summary.rounds),
        failures=summary.failures,
        reasons=_reasons(folder) if summary.failures else {},
        run=str(folder),
        config=configuration.dump(claim) if claim else "",
        version=_version(),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def error_rows(arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Errors of all structures and of each config_type: meV/atom and meV/Å, None where unknown."""
    kinds = np.asarray(arrays.get("config_type", np.zeros(0)), dtype=str)
    energy = 1000 * (np.asarray(arrays["energy"]) - arrays["energy_reference"])
    forces = 1000 * (_array(arrays, "forces") - _array(arrays, "forces_reference")).ravel()
    per_structure = 3 * np.asarray(arrays.get("atoms", np.zeros(0)), dtype=int)
    aligned = len(per_structure) == len(energy) and per_structure.sum() == len(forces)
    owners = np.repeat(kinds, per_structure) if aligned and len(kinds) == len(energy) else None
    names = sorted(set(kinds)) if len(kinds) == len(energy) and len(set(kinds)) > 1 else []
    rows = [_error_row("all", energy, forces)]
    for name in names:
        of_kind = forces[owners == name] if owners is not None else np.zeros(0)
        rows.append(_error_row(name or "unnamed", energy[kinds == name], of_kind))
    return rows


def _error_row(name, energy, forces):
    energy, forces = energy[np.isfinite(energy)], forces[np.isfinite(forces)]
    measures = {"mae": errors.mae, "rmse": errors.rmse}
    row: dict[str, Any] = {"name": name, "structures": len(energy)}
    for key, measure in {**measures, "bias": errors.bias, "scatter": errors.scatter}.items():
        row[f"energy_{key}"] = measure(energy) if len(energy) else None
    for key, measure in {**measures, "max": errors.largest}.items():
        row[f"force_{key}"] = measure(forces) if len(forces) else None
    return row


def _error_table(name, arrays):
    rows = error_rows(arrays)
    keys = {
        "energy_mae": "energy MAE (meV/atom)",
        "energy_rmse": "RMSE",
        "energy_bias": "bias",
        "energy_scatter": "scatter",
        "force_mae": "force MAE (meV/Å)",
        "force_rmse": "RMSE",
        "force_max": "largest",
    }
    shown = {key: head for key, head in keys.items() if any(row[key] is not None for row in rows)}
    return {
        "name": name,
        "heads": ["config type", "structures", *shown.values()],
        "rows": [[r["name"], r["structures"], *(_number(r[key]) for key in shown)] for r in rows],
    }


def _lead(summary: Summary, config: dict) -> str:
    potential = (config.get("potential") or {}).get("name", "a potential")
    teacher = summary.labeler or (config.get("labeler") or {}).get("name")
    learned = f"{str(potential).replace('_', ' ')} learned"
    learned += f" from {str(teacher).replace('_', ' ')}" if teacher else " from data"
    return learned + (f", systems of {summary.atoms} atoms" if summary.atoms else "")


def _note(summary: Summary, folder: Path) -> str:
    resume = "running the same command again resumes it; labels are never paid for twice"
    if summary.state == "running":
        return f"This run is not finished: it is in round {summary.round}, stage {summary.stage}."
    if summary.state == "interrupted":
        return f"This run was interrupted in round {summary.round} ({summary.stage}); {resume}."
    if summary.state == "paused":
        return f"This run is paused: {summary.reason}; {resume}."
    return "Nothing has run here yet." if summary.state == "new" else ""


def _facts(summary: Summary, results, claim) -> list[tuple[str, str]]:
    machine, versions = claim.get("machine") or {}, claim.get("versions") or {}
    config = claim.get("config") or {}
    facts = []
    if summary.labels or summary.failed:
        facts.append(
            ("Labels", f"{summary.labels} computed, {summary.kept} kept, {summary.failed} failed")
        )
    if "energy" in results.get("test", {}):
        row = error_rows(results["test"])[0]
        text = f"energy MAE {_number(row['energy_mae'])} meV/atom"
        if row["force_mae"] is not None:
            text += f", force MAE {_number(row['force_mae'])} meV/Å"
        facts.append(("Error on the test set", f"{text} ({row['structures']} structures)"))
    names = {"candidate_mae_meV_per_atom": "MAE", "candidate_bias_meV_per_atom": "bias"}
    names |= {"candidate_scatter_meV_per_atom": "scatter"}
    own = [f"{n} {_number(summary.errors[k])}" for k, n in names.items() if k in summary.errors]
    if own:
        facts.append(("Error on its own candidates", f"{', '.join(own)} meV/atom (last round)"))
    if summary.reason:
        facts.append(("Why it stopped", summary.reason))
    if summary.rounds:
        facts.append(("Rounds", f"{len(summary.rounds)} of at most {summary.planned or '?'}"))
    facts.append(("Time", duration(summary.seconds)))
    if "seed" in config:
        facts.append(("Seed", f"{config['seed']}, precision {config.get('precision', '?')}"))
    if machine:
        cores = f"{machine.get('processors', '?')} processors"
        facts.append(("Machine", f"{machine.get('host')}, {cores}, {machine.get('system')}"))
        facts.append(("Command", str(machine.get("command", ""))))
    if versions:
        facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return facts


def _snippets(folder: Path) -> list[tuple[str, str]]:
    model = str(folder)
    return [
        (
            "Errors on labeled structures of your own, from the command line:",
            f"alj evaluate {model} DATA.extxyz --json errors.json",
        ),
        (
            "Energies, forces, stresses and uncertainties in ASE:",
            "import ase.io\nfrom alj.calculator import load\n\n"
            'atoms = ase.io.read("structure.extxyz")\n'
            f'atoms.calc = load("{model}")\n'
            "print(atoms.get_potential_energy())            # eV\n"
            "print(atoms.get_forces())                      # eV/Å\n"
            'print(atoms.calc.results["forces_uncertainty"])  # eV/Å, std over the committee',
        ),
        (
            "Inside JAX, to differentiate, vmap or compile it into something else:",
            "from alj.campaign.models import load\n"
            "from alj.potentials.combine import committee, energy_and_forces\n\n"
            f'model = load("{model}")\n'
            "mean = committee(model.potential)\n"
            "energy, forces = energy_and_forces(mean, model.params, structure, neighbors)",
        ),
    ]


def _round_table(rounds: list[dict]) -> dict[str, list]:
    columns = {
        "labels": "labels",
        "kept": "kept",
        "failed": "failed",
        "candidate_mae_meV_per_atom": "candidates MAE",
        "candidate_bias_meV_per_atom": "bias",
        "candidate_scatter_meV_per_atom": "scatter",
        "train_rmse_meV_per_atom": "training RMSE",
        "validation_rmse_meV_per_atom": "validation RMSE",
        "test_mae_meV_per_atom": "test MAE",
    }
    shown = [key for key in columns if any(event.get(key) is not None for event in rounds)]
    rows = [
        [
            event.get("round", "?"),
            *(_number(event.get(key)) for key in shown),
            duration(sum(v or 0.0 for v in (event.get("seconds") or {}).values())),
        ]
        for event in rounds
    ]
    return {"heads": ["round", *(columns[key] for key in shown), "time"], "rows": rows}


def _reasons(folder: Path) -> dict[str, str]:
    """One message of each kind of failure: the first."""
    if not (folder / "ledger.sqlite").exists():
        return {}
    try:
        with Ledger(folder, read_only=True) as ledger:
            rows = ledger.failures()
    except BadInput:
        return {}
    return {row["kind"]: row["message"] for row in reversed(rows)}


def _image(folder: Path, name: str, caption: str) -> dict[str, str]:
    data = (folder / "figures" / f"{name}.png").read_bytes()
    return {"name": name, "caption": caption, "data": base64.b64encode(data).decode()}


def _drawn(folder: Path, name: str) -> bool:
    return (folder / "figures" / f"{name}.png").exists()


def _claim(folder: Path) -> dict:
    try:
        return configuration.read(folder / "run.yaml")
    except BadInput:
        return {}


def _array(arrays, name):
    return np.asarray(arrays.get(name, np.zeros(0)), dtype=float)


def _number(value) -> str:
    """Three significant digits, whole numbers as they are, a dash for what is unknown."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _version() -> str:
    try:
        return version("alj")
    except PackageNotFoundError:
        return "(not installed)"
