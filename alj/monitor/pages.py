"""The report of a run: figures as PNG, and one self-contained `report.html` that asks for nothing.

Works for a run at any moment: what is not there yet is left out, and the page says how far it is.
The page is that of `alj monitor`, with the data of its views inside.
"""

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign import map_file
from alj.campaign.store import write_file
from alj.monitor import assets, numbers, views
from alj.monitor.drawings import drawings_of, read_results, redraw
from alj.monitor.folders import Damaged, claim_of, config_of
from alj.monitor.judged import error_rows
from alj.monitor.summary import summarize
from alj.types import BadInput

__all__ = ["error_rows", "write_report"]

ATOMS = 60_000
"""Atoms of the structures that a report holds; the monitor shows all of them."""

POINTS = 30_000
"""Points of the map that a report holds."""


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
    summary, config = summarize(folder), config_of(claim_of(folder))
    drawings = drawings_of(summary.rounds, read_results(folder), config, summary.labeler)
    redraw(folder, drawings, seconds=seconds)
    name = folder.resolve().name
    page = assets.report(f"{name} – alj report", _data(folder, name))
    write_file(folder / "report.html", page.encode())
    return folder / "report.html"


def _data(folder: Path, name: str) -> dict[str, Any]:
    """All pages, and as many structures as the report may hold."""
    pages = {each: _shown(view, folder) for each, view in views.PAGES.items()}
    count = pages["map"].get("count", 0)
    if count > POINTS:
        pages["map"] = {"error": f"{count} structures are too many for a file; see alj monitor"}
    return numbers.plain(
        {
            "about": {
                "folder": str(folder),
                "version": _version(),
                "written": time.strftime("%Y-%m-%d %H:%M"),
            },
            "runs": views.runs({name: folder}),
            "pages": pages,
            "structures": _structures(folder, count if count <= POINTS else 0),
        }
    )


def _shown(view, folder: Path) -> dict[str, Any]:
    """What a view says; a damaged file costs its page and no other."""
    try:
        return numbers.plain(view(folder))
    except Damaged as error:
        return {"error": f"{error}"}


def _structures(folder: Path, count: int) -> dict[str, Any]:
    """Structures of the map by index, evenly spaced where there is not room for all."""
    found: dict[str, Any] = {}
    if not count:
        return found
    atoms = len(map_file.read_geometry(folder, 0).species)
    for index in numbers.thinned(count, max(1, ATOMS // max(atoms, 1))):
        one = views.structure(folder, int(index))
        found[str(int(index))] = one
        atoms = int(np.prod(one["species"]["shape"]))
    return found


def _version() -> str:
    try:
        return version("alj")
    except PackageNotFoundError:
        return "(not installed)"
