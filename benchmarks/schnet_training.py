"""SchNet beside SchNetPack: epochs of training, energies and forces of the same boxes, one core.

    taskset -c 0 python benchmarks/schnet_training.py --data pool.extxyz [--peer PYTHON]

`--data` holds labeled boxes of molten salt (`experiments/salt_pool.py` makes them); 64 of them at
random are learned, in batches of 4, with Adam and the same weights of energies and forces. `--peer`
is the Python of an environment with SchNetPack 2.1. Three sizes of networks, 6 Å, float32. Epochs
of both take turns; times are processor times of an epoch without the first, which compiles.

SchNetPack has its batches ready in memory, neighbor lists included, and nothing but its model, loss
and optimizer is timed; its usual data loader would come on top. Ours is `alj.training.fit`, which
judges all structures after each epoch: that is energies and forces of all boxes once more, and is
therefore counted on both sides.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    ]
)

import argparse
import json
import subprocess
import sys
import time

import numpy as np
from epochs import timed

SIZES = {
    "small": {
        "features": 32, "filters": 32, "gaussians": 32, "interactions": 3, "hidden": [48, 48],
    },
    "medium": {
        "features": 48, "filters": 64, "gaussians": 48, "interactions": 4, "hidden": [128, 64, 32],
    },
    "large": {
        "features": 64, "filters": 128, "gaussians": 64, "interactions": 4,
        "hidden": [128, 128, 64, 32],
    },
}  # fmt: skip
CUTOFF, BATCH, BOXES, RATE, ENERGY_WEIGHT, FORCE_WEIGHT = 6.0, 4, 64, 5e-4, 0.1, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--peer", help="Python of an environment with SchNetPack")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", choices=SIZES, nargs="*", default=list(SIZES))
    parser.add_argument("--theirs", choices=SIZES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.theirs:
        theirs(given.data, SIZES[given.theirs])
        return
    print("size     epoch and judging (s): ours, SchNetPack, ratio   E+F per ion (µs): the same")
    for size in given.size:
        peer = None
        if given.peer:
            command = [given.peer, __file__, "--data", given.data, "--theirs", size]
            peer = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        other: list[dict] = []
        epochs, evaluation = ours(given.data, SIZES[size], given.epochs, lambda: turn(peer, other))
        mine = float(np.median(epochs[1:]))
        cells = [f"{size:8s} {mine:8.3f}"]
        if peer:
            peer.stdin.close()
            peer.wait()
            his = float(np.median([each["epoch"] + each["judging"] for each in other[1:]]))
            call = float(np.median([each["call"] for each in other[1:]]))
            cells += [f"{his:8.3f} {his / mine:6.2f}x"]
            cells += [f"{evaluation:28.1f} {call:8.1f} {call / evaluation:6.2f}x"]
        else:
            cells += [f"SchNetPack not measured {evaluation:26.1f}"]
        print(" ".join(cells), flush=True)


def turn(peer, answers: list[dict]) -> None:
    """Let the peer train an epoch and evaluate once."""
    if peer is None:
        return
    peer.stdin.write("\n")
    peer.stdin.flush()
    line = peer.stdout.readline()
    if not line:
        raise SystemExit("SchNetPack ended; see its message above")
    answers.append(json.loads(line))


def ours(path: str, size: dict, epochs: int, after_epoch) -> tuple[list[float], float]:
    """Processor seconds of each epoch, and of energies and forces in µs per ion."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from alj.campaign import datasets
    from alj.potentials import combine, schnet
    from alj.training import fit, gradient
    from alj.training.descriptions import over_structures

    data, _ = datasets.read(path)
    order = np.random.default_rng(0).permutation(datasets.count(data))
    data = datasets.select(data, order[:BOXES])
    settings = {**size, "hidden": tuple(size["hidden"])}
    potential = schnet((11, 17), cutoff_A=CUTOFF, **settings)
    trainer = gradient(
        potential, members=1, epochs=epochs, batch_size=BATCH, learning_rate=RATE, split="all",
        energy_weight=ENERGY_WEIGHT, force_weight=FORCE_WEIGHT, precision="float32",
    )  # fmt: skip
    batches = datasets.batches(data, potential.cutoff, count_bucket=False)
    seconds, on_block = timed(after_epoch)
    made = fit(
        jax.random.key(0), trainer, potential, None, batches, BOXES, on_block=on_block, block=1
    )
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[0], jnp.float32), made.params)
    structures, neighbors = batches[0].structures, batches[0].neighbors
    structures = structures._replace(
        positions=structures.positions.astype(jnp.float32),
        cell=structures.cell.astype(jnp.float32),
    )
    program = jax.jit(
        lambda params, *pairs: over_structures(
            lambda pair: combine.energy_and_forces(potential, params, *pair), pairs
        )
    )
    jax.block_until_ready(program(one, structures, neighbors))
    calls = []
    for _ in range(5):
        clock = time.process_time()
        jax.block_until_ready(program(one, structures, neighbors))
        calls.append(time.process_time() - clock)
    return seconds, 1e6 * float(np.median(calls)) / structures.species.size


def theirs(path: str, size: dict) -> None:
    """An epoch and an evaluation of all boxes for each line of input; answers in JSON."""
    import torch
    import torch.utils.data.dataloader as loader
    from ase.io import read
    from ase.neighborlist import neighbor_list

    if not hasattr(loader, "T_co"):  # torch 2.13 lost it; SchNetPack 2.1.1 wants it for a hint
        loader.T_co = None
    import schnetpack as spk
    from schnetpack.nn import CosineCutoff, GaussianRBF, shifted_softplus

    torch.set_num_threads(1)
    frames = read(path, ":")
    order = np.random.default_rng(0).permutation(len(frames))
    frames = [frames[i] for i in order[:BOXES]]
    energies = [frame.info["REF_energy"] for frame in frames]
    mean = float(np.mean(energies))
    batches = []
    for begin in range(0, BOXES, BATCH):
        parts, shift = {key: [] for key in ("Z", "R", "i", "j", "S", "m", "F")}, 0
        chosen = range(begin, begin + BATCH)
        for place, k in enumerate(chosen):
            atoms = frames[k]
            i, j, images = neighbor_list("ijS", atoms, CUTOFF)
            parts["Z"].append(atoms.numbers)
            parts["R"].append(atoms.positions)
            parts["F"].append(atoms.arrays["REF_forces"])
            parts["i"].append(i + shift)
            parts["j"].append(j + shift)
            parts["S"].append(images @ atoms.cell.array)
            parts["m"].append(np.full(len(atoms), place))
            shift += len(atoms)
        joined = {key: np.concatenate(part) for key, part in parts.items()}
        inputs = {
            "_atomic_numbers": torch.as_tensor(joined["Z"], dtype=torch.long),
            "_positions": torch.as_tensor(joined["R"], dtype=torch.float32),
            "_idx_i": torch.as_tensor(joined["i"]),
            "_idx_j": torch.as_tensor(joined["j"]),
            "_offsets": torch.as_tensor(joined["S"], dtype=torch.float32),
            "_idx_m": torch.as_tensor(joined["m"]),
            "_n_atoms": torch.tensor([len(frames[k]) for k in chosen]),
            "_cell": torch.as_tensor(
                np.array([frames[k].cell.array for k in chosen]), dtype=torch.float32
            ),
        }
        labels = (
            torch.tensor([energies[k] - mean for k in chosen], dtype=torch.float32),
            torch.as_tensor(joined["F"], dtype=torch.float32),
        )
        batches.append((inputs, labels))
    radial = GaussianRBF(size["gaussians"], CUTOFF)
    model = spk.model.NeuralNetworkPotential(
        spk.representation.SchNet(
            size["features"], size["interactions"], radial, CosineCutoff(CUTOFF),
            n_filters=size["filters"],
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(
                size["features"], n_hidden=size["hidden"], n_layers=len(size["hidden"]) + 1,
                activation=shifted_softplus, output_key="energy",
            ),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    ions = sum(len(frame) for frame in frames)
    for _ in sys.stdin:
        clock = time.process_time()
        for inputs, (energy, forces) in batches:
            optimizer.zero_grad()
            found = model(dict(inputs))
            loss = ENERGY_WEIGHT * torch.mean((found["energy"] - energy) ** 2)
            loss = loss + FORCE_WEIGHT * torch.mean((found["forces"] - forces) ** 2)
            loss.backward()
            optimizer.step()
        epoch = time.process_time() - clock
        clock = time.process_time()
        for inputs, _labels in batches:
            model(dict(inputs))
        judging = time.process_time() - clock
        answer = {"epoch": epoch, "judging": judging, "call": 1e6 * judging / ions}
        print(json.dumps({**answer, "loss": float(loss.detach())}), flush=True)


if __name__ == "__main__":
    main()
