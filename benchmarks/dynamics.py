"""Molecular dynamics of water beads from 10³ to 10⁵: time of an atom and a step, and its growth.

    taskset -c 0 python benchmarks/dynamics.py [--beads 1000 10000 100000] [--steps 50]
        [--potentials ml_bop behler_parrinello]

Langevin dynamics at 300 K and 1 g/cc in float32, time steps of 2 fs, one thread of XLA; tables with
a skin of 1 Å made anew as often as the motion asks. The network has the settings of
`configs/quickstart.yaml`; it is untrained and stands on ML-BOP as its prior, scaled so that it adds
little: the liquid is that of ML-BOP, the work that of both. Processor time in µs per bead and step,
the median of the blocks, after a first one that warms up; compile time apart; `rebuild` is the time
of one table, `every` the steps that it lasts, `share` its part of the whole; `memory` the largest
resident set so far.
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
import resource
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from alj.potentials import behler_parrinello, ml_bop
from alj.potentials.combine import energy_and_forces
from alj.potentials.priors import with_prior
from alj.sampling.carried_tables import refreshed, unmade
from alj.sampling.molecular_dynamics import nvt_langevin
from alj.types import Context, Structure
from alj.units import number_density

SKIN, RECORD, MASS = 1.0, 10, 18.015


def potential_of(name: str):
    """The potential and its params."""
    base = ml_bop((8,))
    if name == "ml_bop":
        return base, base.init(jax.random.key(0))
    network = with_prior(behler_parrinello((8,), cutoff_A=3.5, hidden=(10, 10)), base)
    params = network.init(jax.random.key(0))
    constants = {**params["constants"], "scale": 0.001 * params["constants"]["scale"]}
    params = {**params, "constants": constants}
    return network, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)


def sites(beads: int) -> Structure:
    """Partly filled lattice sites, shaken."""
    rng, edge = np.random.default_rng(0), (beads / number_density(1.0, MASS)) ** (1 / 3)
    along = int(np.ceil((1.15 * beads) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(along)] * 3), -1).reshape(-1, 3)
    points = rng.choice(grid, beads, replace=False) * edge / along
    return Structure(
        jnp.asarray(points + rng.uniform(-0.2, 0.2, points.shape), jnp.float32),
        jnp.full(beads, 8, jnp.int32),
        jnp.asarray(np.eye(3) * edge, jnp.float32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def relaxed(structure: Structure, descents: int = 30) -> Structure:
    """A little steepest descent with ML-BOP."""
    potential = ml_bop((8,))
    params = potential.init(jax.random.key(0))
    radius = potential.cutoff + SKIN
    table = _first(unmade(_batch(structure), radius, elastic=True, cutoff=potential.cutoff))

    @jax.jit
    def descend(structure, table):
        def step(carry, _):
            structure, table = carry
            table = refreshed(table, structure, potential.cutoff, SKIN)
            forces = energy_and_forces(potential, params, structure, table.neighbors)[1]
            moved = structure.positions + jnp.clip(0.1 * forces, -0.1, 0.1)
            return (structure._replace(positions=moved), table), None

        return jax.lax.scan(step, (structure, table), None, length=descents)[0]

    structure, table = descend(structure, table)
    assert not bool(table.neighbors.overflow)
    return structure


def _batch(structure):
    return jax.tree.map(lambda leaf: leaf[None], structure)


def _first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def seconds(call, repeats: int):
    """Median processor time of a call, and what it returned last."""
    times, found = [], None
    for _ in range(repeats):
        began = time.process_time()
        found = jax.block_until_ready(call())
        times.append(time.process_time() - began)
    return statistics.median(times), found


def blocks(sampler, walk, context, steps: int):
    """Walk and frame after the blocks, their times, tables made anew, seconds of compiling."""
    began = time.perf_counter()
    program = jax.jit(sampler.stepper.step).lower(jax.random.key(0), walk, context).compile()
    compilation = time.perf_counter() - began
    times, made, frame = [], 0, None
    for block in range(1 + max(3, steps // RECORD)):
        seen, began = np.asarray(walk.table.positions), time.process_time()
        walk, frame = jax.block_until_ready(program(jax.random.key(block), walk, context))
        times.append(time.process_time() - began)
        made += int(block > 0 and not np.array_equal(walk.table.positions, seen))
        if bool(walk.table.neighbors.overflow):
            break
    return walk, frame, times, made, compilation


def measure(name: str, structure: Structure, steps: int) -> float:
    """Prints a line, returns µs per bead and step."""
    potential, params = potential_of(name)
    beads, context = structure.species.shape[0], Context(params=params)
    settings = {"timestep_fs": 2.0, "steps": 10**6, "record_every": RECORD, "skin_A": SKIN}
    sampler = nvt_langevin(potential, masses_amu={8: MASS}, **settings)
    start = _first(sampler.place(_batch(structure)))
    walk = jax.jit(sampler.stepper.init)(jax.random.key(1), start, context)
    while True:
        after, frame, times, made, compilation = blocks(sampler, walk, context, steps)
        if not bool(after.table.neighbors.overflow):
            break
        walk = sampler.stepper.grow(walk)  # as the driver does: again, with larger tables
    walk = after
    assert not bool(frame.stopped)
    per_step = sum(times[1:]) / ((len(times) - 1) * RECORD)
    remake = jax.jit(partial(refreshed, cutoff=potential.cutoff, skin=SKIN))
    never = walk.table._replace(positions=jnp.full_like(walk.table.positions, jnp.nan))
    kept, _ = seconds(lambda: remake(walk.table, walk.structure), 3)
    fresh, _ = seconds(lambda: remake(never, walk.structure), 3)
    every = (len(times) - 1) * RECORD / max(made, 1)
    scale = 1e6 / beads
    print(
        f"{name:18s} {beads:7d} beads  {per_step * scale:7.2f} µs/bead/step  "
        f"{1e6 / (per_step * scale):9.0f} beads·steps/s  {float(frame.temperature_K):4.0f} K  "
        f"{walk.table.neighbors.indices.shape[-1]} neighbors  "
        f"rebuild {(fresh - kept) * scale:5.2f} µs/bead every {every:.0f} steps, "
        f"share {(fresh - kept) / every / per_step:5.1%}  "
        f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB  "
        f"(compiled in {compilation:.0f} s)",
        flush=True,
    )
    return per_step * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beads", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--potentials", nargs="+", default=["ml_bop", "behler_parrinello"])
    given = parser.parse_args()
    liquids = [relaxed(sites(beads)) for beads in given.beads]
    for name in given.potentials:
        times = [measure(name, liquid, given.steps) for liquid in liquids]
        print(f"{name}: worst/best {max(times) / min(times):.2f}")


if __name__ == "__main__":
    main()
