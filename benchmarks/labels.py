"""What an executor costs: overhead of a label of 1 ms in blocks, and speed-up of labels of 30 ms.

    python benchmarks/labels.py [--runs 5] [--workers 2]

Labels that sleep would hide what the driver takes from the workers, so these compute: a loop of
known length in each worker. Each run is paired with the same labels inline in this process; the
median of the runs is given. Starting the processes is measured apart.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign.executors import inline, local
from alj.campaign.labels import label_all
from alj.campaign.ledger import Ledger
from alj.types import Labels, Structure


class Busy:
    """Computes for `seconds` of processor time."""

    name = "busy"

    def __init__(self, seconds: float):
        self.seconds, self.settings = seconds, {"seconds": seconds}

    def label(self, structure: Structure) -> Labels:
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass
        nothing: dict[str, Any] = {
            "energy": np.asarray(1.0),
            "forces": np.zeros((20, 3)),
            "stress": np.full((3, 3), np.nan),
            "dipole": np.full(3, np.nan),
            "charges": np.full(20, np.nan),
            "atomic_energies": np.full(20, np.nan),
        }
        return Labels(**nothing)


def structures(count: int, seed: int) -> list[Structure]:
    """Twenty atoms each, as many as hexane has."""
    rng = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "species": np.full(20, 6, np.int32), "cell": np.zeros((3, 3)), "charge": np.int32(0),
        "multiplicity": np.int32(0),
    }  # fmt: skip
    return [Structure(positions=rng.normal(size=(20, 3)), **fields) for _ in range(count)]


def timed(executor, labeler, chosen) -> float:
    """Seconds for all labels, in the ledger of a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        begun = time.perf_counter()
        label_all(executor, labeler, chosen, ledger)
        return time.perf_counter() - begun


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    quick, slow = Busy(1e-3), Busy(30e-3)
    overheads, speedups = [], []
    with closing(local(workers=options.workers, labels_per_task=64)) as pool:
        begun = time.perf_counter()
        timed(pool, quick, structures(2 * 64 * options.workers, 0))
        begun = time.perf_counter() - begun
        print(f"first block, starting {options.workers} processes: {begun:.2f} s")
        for run in range(options.runs):
            many = structures(2000, run + 1)
            spent = timed(pool, quick, many)
            overheads.append(1e3 * (options.workers * spent / len(many) - quick.seconds))
    with closing(local(workers=options.workers)) as pool:
        timed(pool, slow, structures(4 * options.workers, 0))
        for run in range(options.runs):
            few = structures(200, 100 + run)
            together, alone = timed(pool, slow, few), timed(inline(), slow, few)
            speedups.append(alone / together)
    overhead, speedup = statistics.median(overheads), statistics.median(speedups)
    each = ", ".join(f"{x:.3f}" for x in overheads)
    print(f"1 ms labels, blocks of 64: {overhead:.3f} ms of a worker more ({each}); limit 1 ms")
    each = ", ".join(f"{x:.2f}" for x in speedups)
    print(f"30 ms labels, {options.workers} workers: {speedup:.2f}x inline ({each}); limit 1.8x")


if __name__ == "__main__":
    main()
