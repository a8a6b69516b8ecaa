"""Gaussian-moment networks beside those of apax: same frames, same settings, one core, float32.

    taskset -c 0 python benchmarks/gaussian_moments.py [--data FILE] [--peer PYTHON] [--epochs 60]

`--data` is an extended XYZ file of one molecule with energies and forces, such as rMD17 ethanol;
without it shaken ethanols labeled by ASE's EMT stand in. `--peer` is the Python of an environment
with apax 0.14; without it the columns of apax stay empty. 950 frames train, 50 choose the best
epoch, 1000 are held out. Both have 5 channels, two hidden layers of 256 and a cutoff of 5 Å, and
train with Adam in batches of 32, at the same rates, which fall linearly, from weights of unit
variance (`use_ntk`; apax's own defaults end at higher errors). Epochs and calls of both alternate;
times are processor times. An epoch includes what each code judges after it: of apax 50 frames and
a checkpoint where they got better, of ours all 1000.

What has no peer: the energy features of molecules of 18 atoms and five elements, 256-128, 3 Å.
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
import gzip
import io
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from epochs import timed

from alj.arrays import double_precision
from alj.calculator import CommitteeCalculator
from alj.campaign.models import Model
from alj.geometry.neighbors import batch_tables, neighbor_table, table_size
from alj.potentials import combine, gaussian_moments
from alj.training import fit, gradient
from alj.training.descriptions import over_structures
from alj.types import Batch, Labels, Structure

TRAINED, CHOOSING, HELD_OUT, TOGETHER = 950, 50, 1000, 32
RATES = {"radial": 0.02, "network": 0.03, "readout": 0.03, "scale": 0.001, "shift": 0.05}
OURS = {
    "adam": {"learning_rate": 0.03, "learning_rates": RATES},
    "muon": {"learning_rate": 0.01, "learning_rates": {**RATES, "network": 0.01, "readout": 0.01}},
}


class Peer:
    """apax in a process of its own, which does what it is told and says what it took."""

    def __init__(self, python: str | None, folder: Path, epochs: int):
        self.process = None
        if python:
            script = Path(__file__).with_name("gaussian_moments_apax.py")
            command = [python, str(script), str(folder), str(epochs)]
            log = (folder / "peer.log").open("w")
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
            self.log = folder / "peer.log"

    def tell(self, line: str) -> None:
        if self.process:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict:
        if not self.process:
            return {}
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"apax ended:\n{self.log.read_text()[-2000:]}")
        return json.loads(line)


def frames_of(path: str | None) -> list[Atoms]:
    """Frames of a file, all of one length, in random order; or shaken ethanols labeled by EMT."""
    rng, count = np.random.default_rng(0), TRAINED + CHOOSING + HELD_OUT
    if path:
        # Only those that are used: ASE would read for minutes.
        with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
            lines = file.readlines()
        length = int(lines[0]) + 2
        chosen = rng.permutation(len(lines) // length)[:count]
        text = "".join("".join(lines[length * i : length * (i + 1)]) for i in chosen)
        return read(io.StringIO(text), ":", format="extxyz")
    frames = []
    for _ in range(count):
        atoms = molecule("CH3CH2OH")
        atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def structures_of(frames: list[Atoms], dtype=None) -> Structure:
    none = jnp.zeros(len(frames), jnp.int32)
    return Structure(
        jnp.asarray(np.array([atoms.positions for atoms in frames]), dtype),
        jnp.asarray(np.array([atoms.numbers for atoms in frames]), jnp.int32),
        jnp.asarray(np.array([atoms.cell.array for atoms in frames]), dtype),
        none,
        none,
    )


def labels_of(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([atoms.get_potential_energy() for atoms in frames]),
        np.array([atoms.get_forces() for atoms in frames]),
    )


def batch_of(frames: list[Atoms], cutoff: float) -> Batch:
    """Everything in float64: total energies have too many digits for float32."""
    with double_precision():
        structures, count = structures_of(frames), len(frames)
        missing = jnp.full(structures.species.shape, jnp.nan)
        stress = jnp.full((count, 3, 3), jnp.nan)
        energy, forces = map(jnp.asarray, labels_of(frames))
        labels = Labels(energy, forces, stress, missing[:, :3], missing, missing)
        table = batch_tables(structures, cutoff)
        return Batch(structures, table, labels, jnp.ones(count), jnp.arange(count))


def train(potential, frames: list[Atoms], optimizer: str, epochs: int, after_epoch):
    """Params (one member), processor seconds of each epoch; the first includes compiling."""
    known = frames[: TRAINED + CHOOSING]
    trainer = gradient(
        potential,
        optimizer=optimizer,
        schedule="linear",
        force_weight=30.0,
        members=1,
        batch_size=TOGETHER,
        epochs=epochs,
        **OURS[optimizer],
    )
    chosen = np.arange(len(known))[None] < TRAINED
    trainer = trainer._replace(split=lambda key, count, members, before: chosen)
    batch = batch_of(known, potential.cutoff)
    key = jax.random.key(1)
    seconds, on_block = timed(after_epoch)
    found = fit(key, trainer, potential, None, (batch,), len(known), on_block=on_block, block=1)
    return found.params, seconds


def errors(potential, params, frames: list[Atoms]) -> dict:
    """Mean absolute errors: energy in eV per atom, force components in eV/Å."""
    structures = structures_of(frames, jnp.float32)
    neighbors = batch_tables(structures, potential.cutoff)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    with double_precision():
        energy, forces = jax.jit(
            lambda pairs: over_structures(
                lambda pair: combine.energy_and_forces(potential, one, *pair), pairs
            )
        )((structures, neighbors))
    expected = labels_of(frames)
    return {
        "energy": np.abs(np.asarray(energy) - expected[0]).mean() / len(frames[0]),
        "forces": np.abs(np.asarray(forces) - expected[1]).mean(),
    }


def calls(potential, params, frames: list[Atoms]) -> tuple[dict, float]:
    """Energy and forces of frames in the three ways that the peer has, and seconds to compile."""
    structures = structures_of(frames, jnp.float32)
    size = table_size(structures, potential.cutoff, slack=1.25)
    one = jax.tree.map(lambda leaf: leaf[0], params)

    def evaluate(structure):
        neighbors = neighbor_table(structure, potential.cutoff, size)
        return combine.energy_and_forces(potential, one, structure, neighbors), neighbors.overflow

    alone = [jax.tree.map(lambda leaf, i=i: leaf[i], structures) for i in range(len(frames))]
    began = time.perf_counter()
    single = jax.jit(evaluate).lower(alone[0]).compile()
    compilation = time.perf_counter() - began
    model = Model(potential, combine.committee(potential), params, {"members": 1})
    moved = frames[0].copy()
    moved.calc = CommitteeCalculator(model)

    def ase():
        for each in frames:
            moved.positions = each.positions
            moved.get_forces()

    made = {
        "ase": ase,
        "jitted": lambda: [jax.block_until_ready(single(each)) for each in alone],
    }
    if not frames[0].pbc.any():
        together = jax.jit(lambda all: over_structures(lambda x: evaluate(x[0]), (all,)))
        made["batch"] = lambda: jax.block_until_ready(together(structures))
    return made, compilation


def least(call, repeats: int) -> float:
    """Processor seconds of the fastest of some calls, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds[1:])


def line(title: str, ours: float, theirs: float | None, unit: str) -> None:
    other = "apax not measured" if theirs is None else (
        f"apax {theirs:9.3f} {unit}, ours / apax {ours / theirs:5.3f}"
    )  # fmt: skip
    print(f"{title:44s} {ours:9.3f} {unit}  {other}", flush=True)


def training_lines(peer: Peer, potential, frames, epochs: int):
    """Both train, epoch by epoch in turns; then ours with the other optimizer. Adam's params."""
    theirs = []

    def turn():
        peer.tell("")
        theirs.append(peer.answer().get("seconds"))

    params, seconds = train(potential, frames, "adam", epochs, turn)
    other = peer.answer()
    held = frames[-HELD_OUT:]
    mine = errors(potential, params, held)
    median = [None if each[0] is None else np.median(each[1:]) for each in (seconds, theirs)]
    line("training, median epoch", *median, "s")
    least_of = [None if each[0] is None else min(each[1:]) for each in (seconds, theirs)]
    line("training, fastest epoch", *least_of, "s")
    line("first epoch, with descriptions, compiling", seconds[0], theirs[0], "s")
    for name, unit in (("energy", "meV/atom"), ("forces", "meV/Å")):
        expected = 1e3 * other[name] if other else None
        line(f"MAE on held-out frames, {name}", 1e3 * mine[name], expected, unit)
    return params


def muon_lines(potential, frames, epochs: int) -> None:
    params, seconds = train(potential, frames, "muon", epochs, lambda: None)
    found = errors(potential, params, frames[-HELD_OUT:])
    print(
        f"ours with muon: {np.median(seconds[1:]):.3f} s an epoch, MAE "
        f"{1e3 * found['energy']:.2f} meV/atom, {1e3 * found['forces']:.1f} meV/Å"
    )


def evaluation_lines(peer: Peer, title: str, file: str, made: tuple, frames, repeats: int):
    ways = {"ase": "ASE calculator", "jitted": "jitted, neighbors too", "batch": "32 at once"}
    functions, compilation = made
    scale = 1e6 / (len(frames) * len(frames[0]))
    for way, call in functions.items():
        mine, theirs = [], []
        for turn in range(repeats + 1):
            began = time.process_time()
            call()
            mine.append(time.process_time() - began)
            peer.tell(f"{file} {way}")
            theirs.append(peer.answer().get("seconds"))
            if turn == 0:
                mine, theirs = [], []
        other = None if theirs[0] is None else scale * min(theirs)
        line(f"{title}, energy and forces, {ways[way]}", scale * min(mine), other, "µs/atom")
    print(f"{'':44s} (compiled in {compilation:.1f} s)")


def molecules(count: int) -> Structure:
    """18 atoms as close as in QM9: two ethanols 3 Å apart, shaken, with an N and an F put in."""
    one = molecule("CH3CH2OH")
    numbers = np.concatenate([one.numbers] * 2)
    numbers[1], numbers[3] = 7, 9
    positions = np.concatenate([one.positions, one.positions + np.array([0.0, 3.0, 0.0])])
    noise = np.random.default_rng(0).normal(0.0, 0.05, (count, *positions.shape))
    return structures_of([Atoms(numbers, positions + each) for each in noise], jnp.float32)


def feature_line(repeats: int) -> None:
    potential = gaussian_moments((1, 6, 7, 8, 9), cutoff_A=3.0, hidden=(256, 128))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), potential.init(jax.random.key(0)))
    structures = molecules(256)
    neighbors = batch_tables(structures, potential.cutoff)
    program = jax.jit(
        lambda params, pairs: over_structures(
            lambda pair: combine.last_layer_features(potential, params, *pair), pairs
        )
    )
    seconds = least(
        lambda: jax.block_until_ready(program(params, (structures, neighbors))), repeats
    )
    line("energy features, 18 atoms, 5 elements", seconds / structures.species.size * 1e6, None,
         "µs/atom")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="extended XYZ file, may be gzipped")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with apax 0.14")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--muon", action="store_true", help="train ours with muon too")
    given = parser.parse_args()
    feature_line(given.repeats)
    frames = frames_of(given.data)
    print(f"frames: {Path(given.data).name if given.data else 'generated, labels by EMT'}")
    silicon = [bulk("Si", a=5.43, cubic=True) * (2, 2, 2) for _ in range(8)]
    for seed, atoms in enumerate(silicon):
        atoms.rattle(0.05, seed=seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "train.extxyz", frames[:TRAINED])
        write(folder / "choosing.extxyz", frames[TRAINED : TRAINED + CHOOSING])
        write(folder / "held_out.extxyz", frames[-HELD_OUT:])
        write(folder / "molecule.extxyz", frames[-TOGETHER:])
        write(folder / "silicon.extxyz", silicon)
        peer = Peer(given.peer, folder, given.epochs)
        species = tuple(sorted({int(z) for z in frames[0].numbers}))
        potential = gaussian_moments(species, cutoff_A=5.0, hidden=(256, 256))
        params = training_lines(peer, potential, frames, given.epochs)
        made = calls(potential, params, frames[-TOGETHER:])
        evaluation_lines(peer, "molecule", "molecule", made, frames[-TOGETHER:], given.repeats)
        other = gaussian_moments((14,), cutoff_A=5.0, hidden=(256, 256))
        fresh = jax.tree.map(lambda x: x[None].astype(jnp.float32), other.init(jax.random.key(0)))
        made = calls(other, fresh, silicon)
        evaluation_lines(peer, "64 Si, periodic", "silicon", made, silicon, given.repeats)
        if given.muon:
            muon_lines(potential, frames, given.epochs)


if __name__ == "__main__":
    main()
