"""The page of a comparison: the monitor's page of several runs with bands, as one file."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from alj.analysis.label_efficiency import rows_of
from alj.campaign.compare import QUANTITIES, Comparison, cost_rows, needed_rows
from alj.campaign.store import write_file
from alj.monitor import assets, numbers, views


def write_page(found: Comparison, runs: list[Path], out: Path) -> Path:
    """Write `comparison.html` and return its path."""
    data = {
        "about": {"written": time.strftime("%Y-%m-%d %H:%M")},
        "runs": {
            **views.runs({path.resolve().name: path for path in runs}),
            "comparison": comparison(found),
        },
        "pages": {},
        "structures": {},
    }
    page = assets.report("comparison – alj", numbers.plain(data))
    write_file(out / "comparison.html", page.encode())
    return out / "comparison.html"


def comparison(found: Comparison) -> dict[str, Any]:
    """Curves with bands, labels to the target, cost: as the page draws them."""
    curves: dict[str, dict[str, Any]] = {}
    for row in rows_of(found.curves):
        one = curves.setdefault(
            str(row["strategy"]), {"labels": [], "mean": [], "low": [], "high": []}
        )
        for name in one:
            one[name].append(row[name])
    return {
        "quantity": QUANTITIES[found.quantity],
        "target": found.target,
        "curves": [
            {"name": name, "seeds": len(found.strategies[name]), **one}
            for name, one in curves.items()
        ],
        "needed": needed_rows(found),
        "cost": [
            {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()}
            for row in cost_rows(found)
        ],
    }
