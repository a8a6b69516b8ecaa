"""Labelers with tricks, at the top of a module so that other processes find them."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign.reading import empty_labels
from alj.types import BadInput, LabelingFailed, Labels, Structure

HOARD: list[np.ndarray] = []


def point(x: float, *, charge: int = 0) -> Structure:
    """One atom at x."""
    fields: dict[str, Any] = {
        "positions": np.array([[x, 0.0, 0.0]]),
        "species": np.array([8], np.int32),
        "cell": np.zeros((3, 3)),
        "charge": np.int32(charge),
        "multiplicity": np.int32(0),
    }
    return Structure(**fields)


class Spring:
    """x² for an atom at x; writes down what it labels, and has one trick for each negative x."""

    name = "spring"

    def __init__(self, folder: str | Path, accuracy: float = 1e-3):
        self.folder = Path(folder)
        self.settings = {"accuracy": accuracy}

    def label(self, structure: Structure) -> Labels:
        x = float(structure.positions[0, 0])
        with (self.folder / "calls.txt").open("a") as file:
            file.write(f"{x}\n")
        if x == -1:
            raise LabelingFailed("not_converged", "no luck", "the tail of a log")
        if x == -2:
            raise ZeroDivisionError("a bug")
        if x == -3:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == -4 and self.calls().count(x) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == -5:
            raise MemoryError
        if x == -6:
            raise LabelingFailed("infrastructure", "the network is down")
        if x == -7:
            time.sleep(60)
        if x == -8:
            faulthandler.enable()
            faulthandler._sigsegv()  # type: ignore[attr-defined]
        if x == -9:
            hoard = np.ones(100_000_000)
            time.sleep(60 * hoard[0])
        if x == -10:
            os.write(2, b"the last words of the engine\n")
            os._exit(3)
        if x == -11:
            with subprocess.Popen(["sleep", "600"]) as process:
                (self.folder / "pid.txt").write_text(str(process.pid))
        if x == -13:
            os.chdir("/")
        if x == -14:  # a leak, which shows at the third time
            HOARD.append(np.ones(20_000_000))
            time.sleep(0.5)
        if x == -12:
            raise BadInput("the engine is not installed; install it")
        forces = np.array([[-2.0 * x, 0.0, 0.0]])
        return empty_labels(1)._replace(energy=np.asarray(x * x), forces=forces)

    def calls(self) -> list[float]:
        path = self.folder / "calls.txt"
        return [float(line) for line in path.read_text().split()] if path.exists() else []


class Counted(Spring):
    """The same, 50 ms each, writing down what it has finished rather than begun."""

    def label(self, structure: Structure) -> Labels:
        time.sleep(0.05)
        labels = super().label(structure)
        with (self.folder / "finished.txt").open("a") as file:
            file.write(f"{float(structure.positions[0, 0])}\n")
        return labels


class Holder(Spring):
    """Holds Python's lock for a minute, as compiled engines do."""

    def label(self, structure: Structure) -> Labels:
        (self.folder / "pid.txt").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(60)
        raise AssertionError("not reached in time")


class Blocks(Spring):
    """The same, many at once."""

    def label_many(self, structures: list[Structure]) -> list:
        answers: list = []
        for structure in structures:
            try:
                answers.append(self.label(structure))
            except LabelingFailed as failure:
                answers.append(failure)
        return answers
