"""How wrong a model is on a set, and whether its committee knows: from `results/*.npz`."""

from typing import Any

import numpy as np
from scipy.special import gammainc

from alj.analysis import errors
from alj.analysis.errors import pearson, spearman
from alj.monitor.numbers import thinned

LEVELS = np.linspace(0.02, 0.98, 49)
GROUPS = 12
POINTS = 1500


def error_rows(arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Errors of all structures and of each config_type: meV/atom and meV/Å, None where unknown."""
    if "energy" not in arrays or "energy_reference" not in arrays:
        return []
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


def calibration(arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """Spread of the force beside its error, atom by atom; None without a committee.

    `observed` is the share of errors within the interval that holds the share `levels` of a normal
    error whose standard deviation is the spread: with ‖std‖² of three components the normalized
    squared error 3‖ΔF‖²/‖std‖² is chi-squared with three degrees of freedom. `groups` are root mean
    squares of spread and error in groups of equally many atoms.
    """
    spread, wrong = _array(arrays, "force_spread").ravel(), _array(arrays, "force_error").ravel()
    if not len(spread) or len(spread) != len(wrong):
        return None
    fine = np.isfinite(spread) & np.isfinite(wrong) & (spread > 0) & (wrong > 0)
    spread, wrong = spread[fine], wrong[fine]
    if len(spread) < 2:
        return None
    probability = gammainc(1.5, 1.5 * (wrong / spread) ** 2)
    order = np.argsort(spread, kind="stable")
    groups = np.array_split(order, GROUPS) if len(order) >= 5 * GROUPS else []
    rows = thinned(len(spread), POINTS)
    return {
        "count": len(spread),
        "levels": LEVELS,
        "observed": [float(np.mean(probability <= level)) for level in LEVELS],
        "spread": spread[rows],
        "error": wrong[rows],
        "groups": [[errors.rmse(spread[g]), errors.rmse(wrong[g])] for g in groups],
        "pearson": pearson(spread, wrong),
        "spearman": spearman(spread, wrong),
    }


def _error_row(name, energy, forces):
    energy, forces = energy[np.isfinite(energy)], forces[np.isfinite(forces)]
    measures = {"mae": errors.mae, "rmse": errors.rmse}
    row: dict[str, Any] = {"name": name, "structures": len(energy)}
    for key, measure in {**measures, "bias": errors.bias, "scatter": errors.scatter}.items():
        row[f"energy_{key}"] = measure(energy) if len(energy) else None
    for key, measure in {**measures, "max": errors.largest}.items():
        row[f"force_{key}"] = measure(forces) if len(forces) else None
    return row


def _array(arrays, name):
    return np.asarray(arrays.get(name, np.zeros(0)), dtype=float)
