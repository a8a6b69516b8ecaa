"""One run of a sweep as work for an executor: a labeler whose labels are objectives.

Executors carry labels out, with their bounds on time and memory, on clusters too. A trial is a
structure of one atom whose charge is its place in the list; its label is the objective as an
energy. What it left is read from its folder.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alj.analysis import errors
from alj.campaign.config import dump
from alj.campaign.reading import empty_labels
from alj.campaign.store import write_file
from alj.types import LabelingFailed, Labels, Structure

OBJECTIVES = {
    "energy_mae_meV_per_atom": ("energy", errors.mae, 1000.0),
    "energy_rmse_meV_per_atom": ("energy", errors.rmse, 1000.0),
    "force_mae_eV_per_A": ("forces", errors.mae, 1.0),
    "force_rmse_eV_per_A": ("forces", errors.rmse, 1.0),
    "labels": (None, None, 1.0),
}
"""For each objective the array of `results/*.npz`, the measure, and its unit."""

FAILURE = "failure.json"
"""Where a trial says why it has no result."""

_START = "import sys; from alj.cli import main; sys.argv[0] = 'alj'; main()"
_KINDS = {2: "bad_input", 4: "infrastructure"}


class Trial(NamedTuple):
    """A configuration to be run in a folder."""

    number: int
    seed: int
    parameters: dict[str, Any]
    folder: str
    config: dict[str, Any]


class TrialRunner(NamedTuple):
    """A labeler of trials; see the head of this file."""

    trials: tuple[Trial, ...] | list[Trial]
    command: str
    objective: str
    judged_on: str

    @property
    def name(self) -> str:
        """Of the labeler."""
        return "trials"

    @property
    def settings(self) -> dict:
        """What a label depends on besides the structure."""
        return {"objective": self.objective, "judged_on": self.judged_on}

    def known(self, trial: Trial, *, again: bool = False) -> dict[str, Any] | None:
        """The result of a trial that is finished, or why it failed; not where `again` is to be.

        What the infrastructure failed to do is always tried again.
        """
        found = _read(self._file(trial))
        if found is None and not again:
            found = _read(Path(trial.folder) / FAILURE)
            if found is not None and found.get("kind") == "infrastructure":
                return None
        return found

    def _file(self, trial: Trial) -> Path:
        return Path(trial.folder) / f"objective-{self.objective}-{self.judged_on}.json"

    def label(self, structure: Structure) -> Labels:
        """Run, or resume, one trial. Raises LabelingFailed with the end of its log."""
        trial, began = self.trials[int(structure.charge)], time.monotonic()
        folder = Path(trial.folder)
        write_file(folder / "config.yaml", dump(trial.config).encode())
        self._run(folder)
        value = self._value(folder / "run")
        result = {
            "value": value,
            "labels": _labels(folder / "run"),
            "seconds": time.monotonic() - began,
        }
        write_file(self._file(trial), (json.dumps(result) + "\n").encode())
        return empty_labels(1)._replace(energy=np.asarray(value), forces=np.zeros((1, 3)))

    def _run(self, folder: Path) -> None:
        command = [sys.executable, "-c", _START, self.command, str(folder / "config.yaml"), "--out",
                   str(folder / "run"), "--quiet"]  # fmt: skip
        with (folder / "log.txt").open("ab") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if code:
            tail = (folder / "log.txt").read_bytes()[-4000:].decode(errors="replace")
            last = next((line for line in reversed(tail.splitlines()) if line.strip()), "")
            kind = _KINDS.get(code, "crash")
            raise LabelingFailed(kind, f"exit code {code}: {last.strip()}", tail)

    def _value(self, run: Path) -> float:
        if self.objective == "labels":
            return float(_labels(run))
        key, measure, unit = OBJECTIVES[self.objective]
        path = run / "results" / f"{self.judged_on}.npz"
        if not path.exists():
            raise LabelingFailed(
                "parse", f"it left no {path.name}: has its configuration a set to be judged on?"
            )
        stored = np.load(path, allow_pickle=False)
        wrong = np.asarray(stored[key]) - np.asarray(stored[f"{key}_reference"])
        wrong = wrong[np.isfinite(np.asarray(stored[f"{key}_reference"]))]
        value = unit * float(measure(wrong)) if len(wrong) else float("nan")
        if not np.isfinite(value):
            raise LabelingFailed("unphysical", f"{self.objective} is {value}")
        return value


def failed(trial: Trial, failure: LabelingFailed | None, seconds: float) -> dict[str, Any]:
    """Write down why a trial has no result."""
    result = {
        "reason": str(failure or "it left no result"),
        "kind": getattr(failure, "kind", "crash"),
        "seconds": seconds,
        "log": getattr(failure, "log_tail", ""),
    }
    write_file(Path(trial.folder) / FAILURE, (json.dumps(result) + "\n").encode())
    return result


def placeholder(place: int) -> Structure:
    """The structure that stands for the trial at this place."""
    fields: dict[str, Any] = {
        "positions": np.zeros((1, 3)),
        "species": np.ones(1, np.int32),
        "cell": np.zeros((3, 3)),
        "charge": np.int32(place),
        "multiplicity": np.int32(0),
    }
    return Structure(**fields)


def _labels(run: Path) -> int:
    """Labels paid for, as the last round's event says."""
    last = 0
    try:
        for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event.get("event") == "round":
                last = int(event.get("labels", last))
    except (OSError, ValueError):
        pass
    return last


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
