"""Time of Levenberg-Marquardt steps: ten networks on 300 water structures of 108 beads.

Prints one line per case: dtype, cores, seconds to compile (time to the end of the first block,
less the same of a second fit), seconds per step. Run alone, on an idle machine:
`python benchmarks/training.py [members] [structures]`. `python benchmarks/training.py controls`
prints instead the loss after 100 steps on energies and forces by either control of the damping.
"""

import os
import sys
import time

# Before NumPy and SciPy load: BLAS threads that fight with XLA's cost more than they bring.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from alj.geometry.neighbors import batch_tables
from alj.potentials.atomistic import behler_parrinello
from alj.potentials.combine import energy_and_forces
from alj.potentials.ml_bop import ml_bop
from alj.training import fit, levenberg_marquardt
from alj.types import Batch, Labels, Structure
from alj.units import number_density

jax.config.update("jax_enable_x64", True)

BEADS = 108
STEPS = 20


def liquids(count: int, seed: int = 0) -> Batch:
    """Shaken, partly filled lattices from 0.65 to 1.1 g/cc, labeled by ML-BOP."""
    generator = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    edges = (BEADS / number_density(1.0, 18.015)) ** (1 / 3) * generator.uniform(0.97, 1.15, count)
    positions = [
        edge * (generator.permutation(sites)[:BEADS] / 5) + generator.normal(0, 0.25, (BEADS, 3))
        for edge in edges
    ]
    structures = Structure(
        jnp.asarray(np.stack(positions)),
        jnp.full((count, BEADS), 8),
        jnp.asarray(edges[:, None, None] * np.eye(3)),
        jnp.zeros(count, int),
        jnp.zeros(count, int),
    )
    neighbors = batch_tables(structures, 3.56)
    reference = ml_bop((8,))
    params = reference.init(jax.random.key(0))

    @jax.jit
    def label(structures, neighbors):
        return jax.lax.map(
            lambda pair: energy_and_forces(reference, params, *pair), (structures, neighbors)
        )

    energies, forces = label(structures, neighbors)
    missing = jnp.full((count, BEADS), jnp.nan)
    labels = Labels(
        energies, forces, jnp.full((count, 3, 3), jnp.nan), missing[:, :3], missing, missing
    )
    return Batch(structures, neighbors, labels, jnp.ones(count), jnp.arange(count))


def measure(title: str, trainer, potential, batch: Batch) -> None:
    """Two fits: the first one compiles."""
    seconds, steps = [], []
    for _ in range(2):
        marks = [time.perf_counter()]
        fit(
            jax.random.key(1),
            trainer,
            potential,
            None,
            (batch,),
            batch.index.shape[0],
            on_block=lambda done, state, progress, marks=marks: marks.append(time.perf_counter()),
            block=STEPS // 4,
        )
        seconds.append(marks[1] - marks[0])
        steps.append(min(np.diff(marks[1:])) / (STEPS // 4))
    print(
        f"{title}: {trainer.members} members, {batch.index.shape[0]} structures, "
        f"{trainer.precision}, {os.cpu_count()} cores, {jax.default_backend()}: "
        f"compile {seconds[0] - seconds[1]:.1f} s, step {min(steps):.3f} s"
    )


def main(members: int = 10, structures: int = 300) -> None:
    """Energies on all structures, and energies with forces on a tenth of them."""
    potential = behler_parrinello((8,))
    energies = levenberg_marquardt(potential, steps=STEPS, members=members)
    measure("energies", energies, potential, liquids(structures))
    forces = levenberg_marquardt(potential, steps=STEPS, members=members, force_weight=1.0)
    measure("energies and forces", forces, potential, liquids(max(structures // 10, 1)))


def controls(members: int = 3, structures: int = 30, steps: int = 100) -> None:
    """How far each control of the damping gets with forces, in the same number of steps."""
    potential, batch = behler_parrinello((8,)), liquids(structures)
    for control in ("nielsen", "delayed"):
        trainer = levenberg_marquardt(
            potential,
            steps=steps,
            members=members,
            force_weight=1.0,
            split="all",
            damping_control=control,
        )
        fitted = fit(jax.random.key(1), trainer, potential, None, (batch,), structures)
        losses = ", ".join(f"{loss:.4f}" for loss in fitted.loss)
        print(f"{control}: loss of {members} members after {steps} steps: {losses}")


if __name__ == "__main__":
    if sys.argv[1:] == ["controls"]:
        controls()
    else:
        main(*map(int, sys.argv[1:]))
