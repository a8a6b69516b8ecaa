"""Fisher scores: QS1 of 125 000 molecules as large as QM9's; QS2 beside QS1.

    taskset -c 0,1 python benchmarks/fisher_scores.py [--molecules 125000] [--part qs1|qs2]

Networks are Gaussian moments with 360 invariants and layers of 256 and 128, float32, as initialized
(no cost depends on the weights); information and solves are float64. "qs1" counts from unpadded
structures in memory to scores: batches, neighbor tables, features, whitening. Its molecules are
shaken copies of 16 with nine heavy atoms of C, N, O, F, cutoff 3 Å; compiling is left out.
"qs2" is the time of the scores of one batch of ethanols, or of silicon, relative to that of QS1,
exact and sketched with eight directions, cutoff 4 Å, and how the sketch ranks (Spearman); "memory"
is that of the compiled program beyond its arguments. All times are those of processors.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk, molecule
from scipy.stats import spearmanr

from alj.arrays import double_precision
from alj.campaign import datasets, scores
from alj.campaign.molecules import molecule as built
from alj.campaign.reading import structure_of
from alj.cli.environment import prepare
from alj.potentials import gaussian_moments

SMILES = (
    "CCCCCCCCC", "CC(C)CCOCC=O", "OCc1ccccc1O", "CC1CCC(O)CC1C", "N#CCCCOCC=O", "CC(N)C(=O)NCCC",
    "FC(F)c1ccccc1", "C1CC2CCC1C2CO", "CC#CCOC(C)C=O", "O=C1CCCCC1CO", "CCOC(=O)CCC#N",
    "c1cnc2cccn2c1", "CN1CCOC(C)C1C", "OC1CC2OC2C1CCC", "CC(=O)OCC(C)CO", "NC1=NC(=O)CCC1CC",
)  # fmt: skip


def main():
    options = parse()
    prepare()
    jax.config.update("jax_enable_x64", False)
    if options.part in (None, "qs1"):
        qs1(options.molecules)
    if options.part in (None, "qs2"):
        qs2("ethanol", molecule("CH3CH2OH"), copies=64)
        qs2("silicon, 64 atoms", bulk("Si", cubic=True) * 2, copies=32)


def qs1(count: int):
    """The whole way of `count` molecules, in one process."""
    generator = np.random.default_rng(0)
    shapes = [one.structure for s in SMILES for one in built(generator, 1, smiles=s)]
    few = labeled(shaken(generator, shapes, 512))
    potential = gaussian_moments((1, 6, 7, 8, 9), cutoff_A=3.0)
    params = initialized(potential, few)
    about = scores.information(potential, params, few)
    pool = shaken(generator, shapes, count)
    warm = datasets.select(pool, range(scores.CHUNK * len(shapes)))
    scores.scored(about, potential, params, warm, ("qs1",))
    wall, processor = time.perf_counter(), time.process_time()
    found = scores.scored(about, potential, params, pool, ("qs1",))["qs1"]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    atoms = datasets.sizes(pool).mean()
    print(f"QS1 of {count} molecules of {atoms:.1f} atoms: {wall:.1f} s wall, {processor:.1f} s of "
          f"processors ({1e6 * processor / count / atoms:.1f} us per atom); all finite: "
          f"{bool(np.all(np.isfinite(found)))}", flush=True)  # fmt: skip


def qs2(name: str, atoms, copies: int):
    """One batch of copies: times and memory relative to QS1, and the rank correlation."""
    generator = np.random.default_rng(1)
    data = labeled(shaken(generator, [structure_of(atoms)], copies))
    potential = gaussian_moments(tuple(sorted(set(atoms.numbers.tolist()))), cutoff_A=4.0)
    params = initialized(potential, data)
    with double_precision():
        about = scores.information(potential, params, data, forces=True)
        batch = next(iter(scores.stream(data, potential, params)))
        compiled = {
            score: scores.batch_scores.lower(potential, (score,), 8, params, about[:4], batch)
            for score in ("qs1", "qs2", "qs2_sketched")
        }
        compiled = {score: lowered.compile() for score, lowered in compiled.items()}
        found, cost = {}, dict.fromkeys(compiled, np.inf)
        for _ in range(5):
            for score, program in compiled.items():
                began = time.process_time()
                found[score] = jax.block_until_ready(program(params, about[:4], batch))[score]
                cost[score] = min(cost[score], time.process_time() - began)
        memory = {s: p.memory_analysis().temp_size_in_bytes / 2**20 for s, p in compiled.items()}
    rank = spearmanr(found["qs2"], found["qs2_sketched"]).statistic
    print(
        f"{name}: QS1 {1e3 * cost['qs1'] / copies:.2f} ms; "
        f"QS2 exact {cost['qs2'] / cost['qs1']:.1f} x, "
        f"sketched {cost['qs2_sketched'] / cost['qs1']:.1f} x; "
        f"exact / sketched {cost['qs2'] / cost['qs2_sketched']:.1f}; "
        f"memory {memory['qs1']:.1f}, {memory['qs2']:.1f}, {memory['qs2_sketched']:.1f} MiB; "
        f"Spearman {rank:.3f}",
        flush=True,
    )


def initialized(potential, data):
    """A committee of one, normalized on `data`, in float32."""
    batches = datasets.batches(data, potential.cutoff, dtype=jnp.float32)
    params = potential.prepare(potential.init(jax.random.key(0)), batches)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32)[None], params)


def shaken(generator, shapes, count: int):
    """`count` copies of the shapes in turn, every atom moved by about 0.05 Å."""
    unmoved = datasets.append(datasets.empty(), shapes)
    data = datasets.select(unmoved, np.arange(count) % len(shapes))
    moves = generator.normal(0.0, 0.05, data.positions.shape)
    return data._replace(positions=data.positions + moves)


def labeled(data):
    """With labels of zero, which the information does not look at."""
    return data._replace(energy=np.zeros_like(data.energy), forces=np.zeros_like(data.forces))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=125_000)
    parser.add_argument("--part", choices=("qs1", "qs2"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
