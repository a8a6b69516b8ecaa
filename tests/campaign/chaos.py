"""A thousand labels while workers are killed: what must come out, and who does the killing."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from campaign.engines import point

from alj.campaign.executors import Executor
from alj.campaign.labels import content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.campaign.reading import empty_labels
from alj.types import LabelingFailed, Labels, Structure

LABELS, FAILING, HANGING = 1000, 50, 517


class Moody:
    """x² after some milliseconds; every twentieth does not converge, and one never ends."""

    name = "moody"

    def __init__(self, folder: Path, seconds: float = 0.01):
        self.folder, self.settings, self.seconds = folder, {}, seconds

    def label(self, structure: Structure) -> Labels:
        x = int(structure.positions[0, 0])
        time.sleep(3600 if x == HANGING else self.seconds)
        if x % (LABELS // FAILING) == 0:
            raise LabelingFailed("not_converged", "as every twentieth")
        with (self.folder / "finished.txt").open("a") as file:
            file.write(f"{x}\n")
        return empty_labels(1)._replace(
            energy=np.asarray(float(x * x)), forces=np.array([[-2.0 * x, 0.0, 0.0]])
        )


def labeling(process: psutil.Process) -> bool:
    """Whether this is a process that labels."""
    return "alj.campaign.executors.child" in " ".join(process.cmdline())


def of_parsl(process: psutil.Process) -> bool:
    """Whether this was started by the manager of a pool of Parsl's."""
    parent = process.parent()
    return parent is not None and "process_worker_pool" in " ".join(parent.cmdline())


def parsl_worker(process: psutil.Process) -> bool:
    """Whether this is a worker in a pool of Parsl's, which has a process that labels."""
    return of_parsl(process) and any(labeling(child) for child in process.children())


class Killer:
    """Kills a process that is one of `victims`, in turn, every few seconds.

    Among those whose environment has CHAOS=`place`: jobs of a scheduler are no children of ours.
    """

    def __init__(
        self, *victims: Callable[[psutil.Process], bool], seconds: float = 3.0, seed: int = 1
    ):
        self.victims, self.seconds, self.random = victims, seconds, random.Random(seed)
        self.place, self.killed = "", list[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._thread.join()

    def _kill(self) -> None:
        while not self._ended.wait(self.seconds * self.random.uniform(0.5, 1.5)):
            found, victim = [], self.victims[len(self.killed) % len(self.victims)]
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("CHAOS") == self.place and victim(process):
                        found.append(process)
            if found:
                process = self.random.choice(found)
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
                    self.killed.append(victim.__name__)


def check(folder: Path, executor: Executor, killer: Killer) -> None:
    """All good labels arrive, once each; the rest fail as what they are."""
    moody, killer.place = Moody(folder), str(folder)
    structures = [point(float(x)) for x in range(LABELS)]
    with (
        pytest.MonkeyPatch.context() as patch,
        Ledger(folder) as ledger,
        killer,
        contextlib.closing(executor),
    ):
        patch.setenv("CHAOS", str(folder))
        answers = label_all(executor, moody, structures, ledger)
        counts = ledger.counts()
        assert counts["attempts"] == LABELS
        known = ledger.find([content_hash(moody, one) for one in structures])
    assert len(killer.killed) >= 3
    kinds = Counter(a.kind for a in answers if isinstance(a, LabelingFailed))
    assert kinds == {"not_converged": FAILING, "timeout": 1}
    assert counts["failures"] == dict(kinds)
    assert isinstance(answers[HANGING], LabelingFailed)
    for x, answer in enumerate(answers):
        if x % (LABELS // FAILING) and x != HANGING:
            assert not isinstance(answer, LabelingFailed)
            assert float(answer.energy) == x * x
    assert len(known) == LABELS
    finished = Counter((folder / "finished.txt").read_text().split())
    assert len(finished) == LABELS - FAILING - 1
    # a label is computed twice only where its worker was killed between finishing and writing
    assert sum(finished.values()) - len(finished) <= len(killer.killed)
