"""Choosing from a million candidates of 128 features, float32 on disk, beside plain NumPy.

    taskset -c 0,1 python benchmarks/selection.py [--pool 1000000] [--features 128] [--known 1000]
                                                  [--picks 50] [--skip-plain]

Two pools are chosen from: "network" has a spectrum that decays as those of last layers do, and more
labels than features; "first rounds" the same with fewer labels than features, where every pick
takes a direction from all others. "score" is everything up to the first pick (reading, whitening,
scores; distances from the whole training set), "pick" the mean of those that follow (for distances
behind a training set of one, whose first pass does not drown them); wall and processor time, which
differ where the machine has more to do. "plain" is the rule of d_optimal written in NumPy over a
float64 copy, downdated for all candidates before every pick; both must pick the same. "memory" is
by how much the largest memory of the process exceeds that before; pages of the file that the system
keeps are not counted. Every method runs in a process of its own.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
import scipy.linalg

from alj.selection import d_optimal, kmeans_pp, lcmd, max_dist
from alj.types import Evidence

PRIOR = 1e-6


def main():
    options = parse()
    print(
        f"{options.pool} x {options.features} float32 on disk, {options.known} labels, "
        f"{options.picks} picks, {os.environ['OPENBLAS_NUM_THREADS']} BLAS threads"
    )
    print(f"{'pool':13s}{'method':22s}{'score':>17s}{'pick':>19s}{'memory':>10s}")
    print(f"{'':13s}{'':22s}{'wall / cpu, s':>17s}{'wall / cpu, ms':>19s}{'MiB':>10s}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npy"
        known = write(path, options)
        for name, labels in (("network", known), ("first rounds", known[: options.features - 28])):
            compare(name, path, labels, options)


def compare(name: str, path: Path, known: np.ndarray, options):
    """One line a method, and whether the plain rule picks the same."""
    picks = {}
    methods = METHODS if name == "network" else {k: METHODS[k] for k in ("d_optimal", "plain")}
    for method in methods:
        if method == "plain" and options.skip_plain:
            continue
        score, pick, memory, picks[method] = in_own_process(method, path, known, options.picks)
        print(
            f"{name:13s}{method:22s}{score[0]:8.2f} / {score[1]:6.2f}"
            f"{1e3 * pick[0]:10.1f} / {1e3 * pick[1]:6.1f}{memory:10.0f}",
            flush=True,
        )
    if "plain" in picks:
        same = int(np.sum(np.cumprod(picks["plain"] == picks["d_optimal"])))
        print(f"{name:13s}d_optimal and plain agree in the first {same} of {options.picks} picks")


def in_own_process(method: str, path: Path, known: np.ndarray, count: int):
    receive, send = multiprocessing.get_context("spawn").Pipe(False)
    arguments = (send, method, path, known, count)
    process = multiprocessing.get_context("spawn").Process(target=measure, args=arguments)
    process.start()
    result = receive.recv()
    process.join()
    return result


def measure(send, method: str, path: Path, known: np.ndarray, count: int):
    """Time of the first pick alone, and by how much `count` of them take longer, at best."""
    pool = np.load(path, mmap_mode="r")
    choose = METHODS[method]
    choose(pool[:64], known, 2)  # compiles what is compiled
    np.max(pool[:: 1024 // pool.itemsize])  # the file is in the page cache
    with Peak() as peak:
        if method == "plain":
            score, full, picks = least(1, choose, pool, known, count)
            first, many = score, count
        elif method == "d_optimal":
            many = 10 * count  # so many that they can be told from the noise of the score
            score, full, picks = least(3, choose, pool, known, many)
            first = score
        else:
            score, many = timed(lambda: choose(pool, known, 1))[0], count
            first, full, picks = least(2, choose, pool, known[:1], many)
    each = tuple((b - a) / max(many - 1, 1) for a, b in zip(first, full, strict=True))
    send.send((score, each, peak.mebibytes, np.asarray(picks[:count])))


def least(repeats, choose, pool, known, count):
    """The least time, wall and processor, of one pick and of `count`, with the picks."""
    runs = [
        (timed(lambda: choose(pool, known, 1))[0], timed(lambda: choose(pool, known, count)))
        for _ in range(repeats)
    ]
    first = tuple(min(run[0][clock] for run in runs) for clock in (0, 1))
    full = tuple(min(run[1][0][clock] for run in runs) for clock in (0, 1))
    return first, full, runs[0][1][1]


def timed(function):
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return (time.perf_counter() - wall, time.process_time() - processor), result


class Peak:
    """Largest anonymous memory of this process while it runs, over that at the beginning."""

    def __enter__(self):
        self._start = self._largest = _anonymous()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._follow)
        self._watch.start()
        return self

    def _follow(self):
        while not self._done.wait(0.01):
            self._largest = max(self._largest, _anonymous())

    def __exit__(self, *_):
        self._done.set()
        self._watch.join()

    @property
    def mebibytes(self) -> float:
        return (self._largest - self._start) / 1024


def _anonymous() -> int:
    """KiB that are not pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


def selected(builder, **settings):
    def choose(pool, known, count):
        of_pool = Evidence(features=pool, known_features=known, samplers=np.zeros(len(pool), int))
        return builder(**settings).choose(jax.random.key(0), of_pool, count)

    return choose


def plain(pool, known, count):
    """Greedy D-optimal design as in a textbook: a float64 copy, downdated for every pick."""
    rows, known = np.asarray(pool, np.float64), np.asarray(known, np.float64)
    size = rows.shape[1]
    scale = (np.sum(rows**2) + np.sum(known**2)) / size
    lower = scipy.linalg.cholesky(known.T @ known + PRIOR * scale * np.eye(size), lower=True)
    whitened = np.ascontiguousarray(scipy.linalg.solve_triangular(lower, rows.T, lower=True).T)
    q, chosen = np.sum(whitened**2, axis=1), []
    for _ in range(count):
        best = int(np.argmax(q))
        chosen.append(best)
        row = whitened[best].copy()
        whitened -= np.outer(whitened @ row, row) * ((1 - 1 / np.sqrt(1 + row @ row)) / (row @ row))
        q = np.sum(whitened**2, axis=1)
        q[chosen] = -np.inf
    return chosen


METHODS = {
    "d_optimal": selected(d_optimal, prior=PRIOR),
    "plain": plain,
    "max_dist": selected(max_dist),
    "lcmd": selected(lcmd),
    "kmeans_pp": selected(kmeans_pp),
    "lcmd, posterior": selected(lcmd, space="posterior"),
}


def write(path: Path, options) -> np.ndarray:
    """The pool on disk, chunk by chunk, and the features of the training set."""
    generator = np.random.default_rng(0)
    size = options.features
    mixing = generator.normal(size=(size, size)) / np.sqrt(size)
    mixing = np.exp(-5.0 * np.arange(size) / size)[:, None] * mixing

    def rows(count):
        lengths = generator.gamma(4.0, 0.25, size=(count, 1))
        return (0.3 + lengths * (generator.standard_normal((count, size)) @ mixing)).astype("f4")

    pool = np.lib.format.open_memmap(path, "w+", np.float32, (options.pool, size))
    for start in range(0, options.pool, 50_000):
        pool[start : start + 50_000] = rows(min(50_000, options.pool - start))
    pool.flush()
    return rows(options.known)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--known", type=int, default=1000)
    parser.add_argument("--picks", type=int, default=50)
    parser.add_argument("--skip-plain", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
