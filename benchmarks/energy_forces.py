"""Energy and forces of 1024 beads on one core, in µs per bead; compile time apart.

    taskset -c 0 python benchmarks/energy_forces.py [--repeats 50]

One thread of XLA on one core; relaxed and jittered beads at the density of water (1 g/cc); a
Behler-Parrinello network (50-10-10-1, 3.5 Å) and ML-BOP, both in float32 and float64, and the host
kernel that Monte Carlo calls, for one environment. The first number is the fastest run, the second
the median.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    ]
)

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numba
import numpy as np

from alj.geometry.environment import environment
from alj.geometry.neighbors import TableSize, batch_tables, neighbor_table
from alj.potentials import behler_parrinello, ml_bop
from alj.potentials.combine import energy_and_forces
from alj.types import Structure
from alj.units import number_density

BEADS = 1024


def water(dtype) -> Structure:
    """1024 beads at 1 g/cc: random lattice sites, relaxed with ML-BOP, and jittered."""
    rng = np.random.default_rng(0)
    edge = (BEADS / number_density(1.0, 18.015)) ** (1 / 3)
    sites = np.stack(np.meshgrid(*[np.arange(11)] * 3), -1).reshape(-1, 3) * edge / 11
    positions = sites[rng.choice(len(sites), BEADS, replace=False)]
    positions = positions + rng.uniform(-0.3, 0.3, (BEADS, 3))
    structure = Structure(
        jnp.asarray(positions),
        jnp.full(BEADS, 8),
        jnp.asarray(np.eye(3) * edge),
        jnp.array(0),
        jnp.array(0),
    )
    potential = ml_bop((8,))
    params = potential.init(jax.random.key(0))
    size = TableSize(24, (0, 0, 0))

    @jax.jit
    def step(structure):
        neighbors = neighbor_table(structure, potential.cutoff, size)
        forces = energy_and_forces(potential, params, structure, neighbors)[1]
        return structure._replace(positions=structure.positions + jnp.clip(0.1 * forces, -0.1, 0.1))

    for _ in range(100):
        structure = step(structure)
    jitter = jnp.asarray(rng.normal(0.0, 0.1, (BEADS, 3)))
    structure = structure._replace(positions=structure.positions + jitter)
    return structure._replace(
        positions=structure.positions.astype(dtype), cell=structure.cell.astype(dtype)
    )


def table_of(structure, cutoff):
    batch = jax.tree.map(lambda leaf: leaf[None], structure)
    return jax.tree.map(lambda leaf: leaf[0], batch_tables(batch, cutoff))


def seconds(call, repeats):
    """Fastest and median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def energy_forces(name, potential, dtype, repeats):
    structure = water(dtype)
    neighbors = table_of(structure, potential.cutoff)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), potential.init(jax.random.key(0)))
    program = jax.jit(lambda p, s, n: energy_and_forces(potential, p, s, n))
    start = time.perf_counter()
    compiled = program.lower(params, structure, neighbors).compile()
    compilation = time.perf_counter() - start
    fastest, median = seconds(
        lambda: jax.block_until_ready(compiled(params, structure, neighbors)), repeats
    )
    print(
        f"{name:20s} {np.dtype(dtype).name}  {neighbors.indices.shape[1]:3d} neighbors  "
        f"{fastest / BEADS * 1e6:6.2f} {median / BEADS * 1e6:6.2f} µs/bead  "
        f"(compiled in {compilation:.1f} s)"
    )


@numba.njit
def sweep(energy, vectors, species, counts, arrays, scratch):
    total = 0.0
    for i in range(len(vectors)):
        total += energy(vectors[i], species[i], counts[i], 8, arrays, scratch)
    return total


def host_kernel(name, potential, repeats):
    structure = water(jnp.float64)
    env = environment(structure, table_of(structure, potential.cutoff), potential.cutoff)
    kernel = potential.kernel()
    vectors, species = np.asarray(env.vectors), np.asarray(env.neighbor_species)
    counts = (species > 0).sum(axis=1)
    arrays = kernel.arrays(potential.init(jax.random.key(0)))
    scratch = np.zeros(kernel.scratch(vectors.shape[1]))
    start = time.perf_counter()
    sweep(kernel.energy, vectors, species, counts, arrays, scratch)
    compilation = time.perf_counter() - start
    fastest, median = seconds(
        lambda: sweep(kernel.energy, vectors, species, counts, arrays, scratch), repeats
    )
    print(
        f"{name:20s} host kernel  {counts.mean():.1f} neighbors  "
        f"{fastest / BEADS * 1e6:6.2f} {median / BEADS * 1e6:6.2f} µs/environment  "
        f"(compiled in {compilation:.1f} s)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    jax.config.update("jax_enable_x64", True)
    for name, builder in (("behler_parrinello", behler_parrinello), ("ml_bop", ml_bop)):
        potential = builder((8,))
        for dtype in (np.float32, np.float64):
            energy_forces(name, potential, dtype, repeats)
        host_kernel(name, potential, 10 * repeats)


if __name__ == "__main__":
    main()
