"""Energy and forces of molten salt on one core: Ewald sums of 1000 ions, a mesh for 110 592.

    taskset -c 0 python benchmarks/ewald.py [--repeats 10] [--accuracy 1e-9] [--only ewald]

One thread of XLA, float64, Tosi-Fumi ions at the density of the melt (0.0265 ions/Å^3) on jittered
lattice sites, tables made beforehand. Times are the fastest and the median; errors of forces are
against the same ions summed to 1e-12 eV/Å (without a mesh; of 1728 ions for the mesh).
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
import numpy as np

from alj.geometry.neighbors import batch_tables
from alj.potentials.combine import energy_and_forces
from alj.potentials.electrostatics import suitable_mesh
from alj.potentials.tosi_fumi import nacl_tosi_fumi
from alj.types import Structure

SPACING = 3.35405
"""Å between ions on the lattice: 1000 ions in a box of 33.5405 Å."""


def salt(edge: int) -> Structure:
    """edge³ ions."""
    sites = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    return Structure(
        jnp.asarray(SPACING * sites + rng.uniform(-0.4, 0.4, sites.shape)),
        jnp.asarray(np.where(sites.sum(axis=1) % 2, 11, 17)),
        jnp.eye(3) * SPACING * edge,
        jnp.array(0),
        jnp.array(0),
    )


def table_of(structure: Structure, cutoff: float):
    batch = jax.tree.map(lambda leaf: leaf[None], structure)
    return jax.tree.map(lambda leaf: leaf[0], batch_tables(batch, cutoff))


def program(structure, neighbors, **settings):
    """Energy and forces, compiled."""
    potential = nacl_tosi_fumi((11, 17), **settings)
    params = potential.init(jax.random.key(0))
    function = jax.jit(lambda s, n: energy_and_forces(potential, params, s, n))
    return function.lower(structure, neighbors).compile()


def timed(name, structure, repeats, **settings):
    neighbors = table_of(structure, 10.0)
    compiled = program(structure, neighbors, **settings)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(structure, neighbors))
        times.append(time.perf_counter() - start)
    print(
        f"{name:8s} {len(structure.species):7d} ions  {neighbors.indices.shape[1]} neighbors  "
        f"{1e3 * min(times):8.1f} {1e3 * statistics.median(times):8.1f} ms",
        flush=True,
    )


def error(structure, **settings):
    """Largest and rms error of a component of the forces."""
    neighbors = table_of(structure, 10.0)
    exact = program(structure, neighbors, accuracy=1e-12)(structure, neighbors)[1]
    gaps = program(structure, neighbors, **settings)(structure, neighbors)[1] - exact
    print(
        f"  forces of {len(structure.species)} ions: largest error {jnp.abs(gaps).max():.1e}, "
        f"rms {jnp.sqrt(jnp.mean(gaps**2)):.1e} eV/Å",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--accuracy", type=float, default=1e-9)
    parser.add_argument("--only", choices=("ewald", "mesh"))
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.only != "mesh":
        timed("Ewald", salt(10), options.repeats, accuracy=options.accuracy)
        error(salt(10), accuracy=options.accuracy)
    if options.only != "ewald":
        accuracy = 3e-5  # rms; the largest error is three to four times that
        few, many = salt(12), salt(48)
        settings = [
            {"accuracy": accuracy, "mesh": suitable_mesh(np.asarray(s.cell), 10.0, accuracy)}
            for s in (few, many)
        ]
        print(f"  mesh {settings[1]['mesh']}")
        timed("mesh", many, max(1, options.repeats // 3), **settings[1])
        error(few, **settings[0])


if __name__ == "__main__":
    main()
