"""Molecular dynamics of 1000 molten ions on one core: steps per second with each potential.

    taskset -c 0 python benchmarks/salt_dynamics.py [--steps 20] [--only NAME ...]

One thread, Nosé-Hoover at 1400 K and 2 fs in a cube of 33.5405 Å; networks as they are initialized
(their speed does not depend on what they have learned) in float32, the Gaussian process and the
reference with Ewald sums in float64. Compiled beforehand.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    ]
)

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from ewald import salt

from alj.geometry.neighbors import batch_tables
from alj.potentials import build_potential
from alj.sampling.molecular_dynamics import nvt_nose_hoover
from alj.stepping import run
from alj.types import Batch, Context, Labels

SINGLE, DOUBLE = "float32", "float64"
POTENTIALS = {
    "reference": ({"name": "nacl_tosi_fumi", "accuracy": 1e-4}, DOUBLE),
    "schnet small": (
        {"name": "schnet", "cutoff_A": 6.0, "features": 32, "filters": 32, "gaussians": 32,
         "hidden": (48, 48)}, SINGLE,
    ),
    "schnet large": (
        {"name": "schnet", "cutoff_A": 6.0, "features": 64, "filters": 128, "gaussians": 64,
         "interactions": 4, "hidden": (128, 128, 64, 32)}, SINGLE,
    ),
    "gaussian moments": ({"name": "gaussian_moments", "cutoff_A": 6.0}, SINGLE),
    "behler parrinello": ({"name": "behler_parrinello", "cutoff_A": 6.0}, SINGLE),
    "gaussian process, 300 points": ({"name": "gaussian_process", "inducing_points": 300}, DOUBLE),
    "gaussian process, 800 points": ({"name": "gaussian_process", "inducing_points": 800}, DOUBLE),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=list(POTENTIALS))
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print("potential                        precision   ms a step   steps/s")
    for name in given.only:
        spec, precision = POTENTIALS[name]
        milliseconds = timed(spec, precision, given.steps)
        rate = 1000.0 / milliseconds
        print(f"{name:32s} {precision:9s} {milliseconds:11.1f} {rate:9.2f}", flush=True)


def timed(spec: dict, precision: str, steps: int) -> float:
    """Milliseconds a step, after a block that compiles."""
    structure = salt(10)
    batch = jax.tree.map(lambda leaf: leaf[None], structure)
    potential = build_potential(spec, (11, 17))
    params = prepared(potential, batch)

    def single(tree):
        return jax.tree.map(
            lambda x: x.astype(precision) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    sampler = nvt_nose_hoover(
        potential, temperature_K=1400.0, timestep_fs=2.0, steps=10 * steps, record_every=steps
    )
    start = jax.tree.map(lambda leaf: leaf[0], sampler.place(single(batch)))
    context, key = Context(params=single(params)), jax.random.key(0)
    state = jax.jit(sampler.stepper.init)(key, start, context)
    state, _ = run(sampler.stepper, key, state, context, steps=1)
    began = time.perf_counter()
    run(sampler.stepper, key, state, context, steps=1, start=1)
    return 1000.0 * (time.perf_counter() - began) / steps


def prepared(potential, structures):
    """Parameters with constants (inducing points among them) from the structure itself."""
    params = potential.init(jax.random.key(0))
    missing = np.full((1, structures.species.shape[1]), np.nan)
    labels = Labels(
        jnp.array([-3700.0]), jnp.asarray(missing[..., None].repeat(3, -1)),
        jnp.full((1, 3, 3), jnp.nan), jnp.full((1, 3), jnp.nan), jnp.asarray(missing),
        jnp.asarray(missing),
    )  # fmt: skip
    tables = batch_tables(structures, potential.cutoff)
    batch = Batch(structures, tables, labels, jnp.ones(1), jnp.arange(1))
    return potential.prepare(params, (batch,))


if __name__ == "__main__":
    main()
