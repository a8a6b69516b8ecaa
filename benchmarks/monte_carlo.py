"""Single-bead Monte Carlo moves of 108 water beads, by the host engine and the JAX engine.

    python benchmarks/monte_carlo.py [--chains 64] [--repeats 5]

float64, the 50-10-10-1 network (one member) and ML-BOP, Metropolis at 300 K from a liquid. Prints
microseconds per attempted move (median of the repeats, with minimum and maximum) and, apart, the
time of the first call, which compiles. One chain uses one core; many chains use all. The JAX engine
is measured with one chain and few moves: it is the portable twin, not the fast one on CPUs.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import numpy as np

from alj.campaign import datasets
from alj.potentials import behler_parrinello, ml_bop
from alj.sampling import metropolis_mc
from alj.stepping import batched, run
from alj.types import Context

DATA = Path(__file__).parent.parent / "tests" / "data" / "mlbop_crosscheck_10.extxyz"


def potentials():
    """The two potentials with params; the network is prepared on the reference frames."""
    frames, _ = datasets.read(DATA)
    liquid = datasets.select(frames, [0, 1, 2, 3, 4, 5])
    network, reference = behler_parrinello((8,)), ml_bop((8,))
    params = network.prepare(network.init(jax.random.key(0)), datasets.batches(liquid, 3.5))
    start = datasets.structure(frames, 0)
    return start, {
        "network": (network, params),
        "ml_bop": (reference, reference.init(jax.random.key(0))),
    }


def measure(potential, params, start, chains: int, cycles: int, engine: str, repeats: int):
    """Microseconds per attempted move of every repeat, and seconds of the first call."""
    sampler = metropolis_mc(potential, cycles=cycles, cycles_per_frame=10, engine=engine)
    stepper = batched(sampler.stepper)
    stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * chains), start)
    context = Context(params=params)
    begin = stepper.init if stepper.host else jax.jit(stepper.init)
    began = time.perf_counter()
    state = begin(jax.random.key(1), sampler.place(stacked), context)
    state, _ = run(stepper, jax.random.key(2), state, context, steps=sampler.steps)
    first = time.perf_counter() - began
    moves, taken = chains * sampler.steps * 10 * len(start.species), []
    for repeat in range(repeats):
        began = time.perf_counter()
        state, _ = run(stepper, jax.random.key(3 + repeat), state, context, steps=sampler.steps)
        taken.append((time.perf_counter() - began) / moves * 1e6)
    return np.asarray(taken), first


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chains", type=int, default=64)
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    jax.config.update("jax_enable_x64", True)
    start, known = potentials()
    print(f"{os.cpu_count()} processors, float64, jax {jax.__version__}; load {os.getloadavg()[0]}")
    for name, (potential, params) in known.items():
        cases = [("host", 1, 200), ("host", given.chains, 20), ("jax", 1, 10)]
        for engine, chains, cycles in cases:
            taken, first = measure(potential, params, start, chains, cycles, engine, given.repeats)
            print(
                f"{name:8s} {engine:4s} {chains:3d} chains: {np.median(taken):7.2f} µs/move "
                f"({taken.min():.2f} to {taken.max():.2f}); first call {first:.1f} s"
            )


if __name__ == "__main__":
    main()
