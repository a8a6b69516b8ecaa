"""Run folders as a viewer meets them: found below a folder, half-written, damaged, or gone.

Nothing here writes, and nothing imports JAX. A run is known by a name that is looked up among those
that were found: no path is ever built from what a visitor sends.
"""

import contextlib
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from alj.monitor.summary import in_use

DEPTH = 3
"""Folders below the given one in which runs are looked for."""

LARGEST = 256 * 1024 * 1024
"""Bytes of a result file that are still read."""

_WATCHED = ("events.jsonl", "ledger.sqlite", "map.npz", "run.yaml", "lock")


class Gone(LookupError):
    """There is no such run, or no longer."""


class Damaged(ValueError):
    """A file of a run cannot be read; the text names the file by its place in the run folder."""


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a campaign or training."""
    return (folder / "run.yaml").is_file() or (folder / "events.jsonl").is_file()


def runs_below(folder: Path) -> dict[str, Path]:
    """Runs by name: the folder itself, or those in it and in its folders, links left out."""
    root = folder.resolve()
    if is_run(root):
        return {root.name: root}
    found: dict[str, Path] = {}

    def search(place: Path, depth: int) -> None:
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
                if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                    continue
                path = Path(entry.path)
                if is_run(path):
                    found[path.relative_to(root).as_posix()] = path
                elif depth > 1:
                    search(path, depth - 1)

    search(root, DEPTH)
    return found


def claim_of(folder: Path) -> dict[str, Any]:
    """What `run.yaml` says; empty where it is not there yet or is damaged."""
    try:
        content = YAML(typ="safe", pure=True).load((folder / "run.yaml").read_text("utf-8"))
    except (OSError, YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def config_of(claim: dict[str, Any]) -> dict[str, Any]:
    """The configuration in a claim."""
    config = claim.get("config")
    return config if isinstance(config, dict) else {}


def arrays_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of `results/NAME.npz`; empty where there are none. Raises Damaged."""
    path = folder / "results" / f"{name}.npz"
    try:
        if path.stat().st_size > LARGEST:
            raise Damaged(f"results/{name}.npz is too large to show")
        with np.load(path, allow_pickle=False) as arrays:
            return {each: arrays[each] for each in arrays.files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"results/{name}.npz cannot be read") from None


def mark_of(folder: Path) -> str:
    """A mark that changes whenever something in the run does that a page shows."""
    if not is_run(folder):
        raise Gone(folder.name)
    seen = [str(in_use(folder))]
    paths = [folder / name for name in _WATCHED]
    with contextlib.suppress(OSError):
        paths += sorted((folder / "results").iterdir())
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            seen.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:20]
