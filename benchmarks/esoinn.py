"""ESOINN: time for a pattern that is learned, asked for, or made from a molecule; one core.

    taskset -c 0 python benchmarks/esoinn.py [--atoms 24] [--groups 400] [--patterns 200000]
                                             [--queries 200000] [--molecules 20000] [--data FILE]

Patterns are groups of unit width around middles drawn ten times as wide; half of them are shown
first, so that the network has about the number of nodes that is printed. Both `learn` start from
that network; NumPy gets a hundredth of the patterns, and both must agree on them to the last bit.
"plain search" is what NumPy needs to find two winners in float64, by broadcasting; `find` and
`nearest_classes` run in one thread. Molecules are `--atoms` random atoms. With `--data`, an npz
file with padded `positions` (Å) and `species`, patterns are the spectra of these molecules. The
last line adds up what 6 million molecules would take on two cores: learning is sequential, spectra
and queries share both.

Times are processor times: they don't change where the machine has more to do.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    ]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time

import jax
import numpy as np

from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.selection.esoinn import begin, classes, learn, trimmed
from alj.selection.esoinn_queries import find, nearest_classes
from alj.selection.esoinn_rules import Rules

MILLIONS, CORES = 6e6, 2
RULES = Rules(period=2000)


def main():
    options = parse()
    generator = np.random.default_rng(0)
    positions, species = molecules(generator, options)
    _, spectrum = timed(lambda: coulomb_spectra(positions, species, length=options.atoms))
    print(f"spectra of {options.atoms} atoms      {spectrum:8.2f} µs each")
    if options.data:
        data = np.load(options.data)
        length = int(np.max(np.sum(data["species"] > 0, axis=1)))
        patterns = coulomb_spectra(data["positions"], data["species"], length=length)
        patterns = patterns[generator.permutation(len(patterns))]
    else:
        middles = 10 * generator.normal(size=(options.groups, options.atoms))
        patterns = middles[generator.integers(options.groups, size=options.patterns)]
        patterns += generator.normal(size=patterns.shape)
    measure(patterns, spectrum, options)


def measure(patterns: np.ndarray, spectrum: float, options):
    """One line for each thing that is asked of a network."""
    half = len(patterns) // 2
    network = learn(begin(jax.random.key(0), patterns), patterns[:half], RULES)
    few = patterns[half : half + max(half // 100, 1)]
    grown, learned = timed(lambda: learn(network, patterns[half:], RULES), len(patterns) - half)
    by_rules, slowly = timed(lambda: learn(network, few, RULES, compiled=False), len(few))
    pairs = zip(trimmed(by_rules), trimmed(learn(network, few, RULES)), strict=True)
    agree = all(a.tobytes() == b.tobytes() for a, b in pairs)
    nodes, features = int(grown.count), patterns.shape[1]
    groups = int(np.max(classes(grown))) + 1
    print(f"{int(network.count)} to {nodes} nodes of {features} numbers, {groups} classes")
    print(f"learn, kernel             {learned:8.2f} µs each, {1e6 / learned:.0f} a second")
    print(f"learn, NumPy              {slowly:8.2f} µs each, {'equal' if agree else 'NOT EQUAL'}")
    asked = patterns[np.random.default_rng(1).integers(len(patterns), size=options.queries)]
    found, query = timed(lambda: find(grown, asked, threads=1), len(asked))
    print(f"find                      {query:8.2f} µs each, {1e6 / query:.0f} a second")
    _, search = timed(lambda: plainly(grown, asked[:1000]), 1000)
    print(f"plain search              {search:8.2f} µs each")
    _, nearest = timed(lambda: nearest_classes(grown, asked, 3, threads=1), len(asked))
    print(f"nearest_classes, 3        {nearest:8.2f} µs each, {1e6 / nearest:.0f} a second")
    print(f"inside, boundary, far     {np.bincount(found.regions, minlength=3) / len(asked)}")
    minutes = MILLIONS * (learned + (spectrum + query) / CORES) * 1e-6 / 60
    print(f"6 million molecules       {minutes:8.2f} min on {CORES} cores")


def timed(work, count: int | None = None):
    """The result of a second call, and its processor time in µs for each of `count`."""
    result = work()
    start = time.process_time()
    result = work()
    return result, (time.process_time() - start) * 1e6 / (count or len(result))


def plainly(network, patterns: np.ndarray) -> np.ndarray:
    """Both winners of every pattern as NumPy finds them."""
    weights = network.weights[: network.count]
    squares = [np.sum((x - weights) ** 2, axis=1) for x in patterns / network.scale]
    return np.array([np.argpartition(row, 1)[:2] for row in squares])


def molecules(generator: np.random.Generator, options) -> tuple[np.ndarray, np.ndarray]:
    """Random atoms in a ball, as far as a spectrum cares."""
    shape = options.molecules, options.atoms
    return 3 * generator.normal(size=(*shape, 3)), generator.choice([1, 6, 7, 8], size=shape)


def parse():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--atoms", type=int, default=24)
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--patterns", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--molecules", type=int, default=20_000)
    parser.add_argument("--data")
    return parser.parse_args()


if __name__ == "__main__":
    main()
