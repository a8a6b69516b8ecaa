"""The apax side of `gaussian_moments.py`, which runs it with the Python of an apax 0.14.

    python gaussian_moments_apax.py FOLDER EPOCHS

Trains on the frames of a folder, one epoch for each line of input, says its errors on the held-out
ones, then times what each line asks for: a file of frames and a way to evaluate them. Answers are
lines of JSON. `jitted` is the calculator's own compiled step, which updates its neighbor list;
`batch` the same model mapped over the frames, all pairs being neighbors.
"""

import importlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from apax.md import ASECalculator
from ase.io import read

folder, epochs = sys.argv[1], int(sys.argv[2])
# What apax prints must not mix with the answers.
answers = sys.stdout
sys.stdout = sys.stderr


def say(**found):
    print(json.dumps(found), file=answers, flush=True)


class Turns:
    """A callback of the training that waits for its turn before each epoch."""

    began = None

    def on_epoch_begin(self, epoch):
        if self.began is not None:
            say(seconds=time.process_time() - self.began)
        sys.stdin.readline()
        self.began = time.process_time()

    def on_train_end(self):
        say(seconds=time.process_time() - self.began)

    def __getattr__(self, name):
        return lambda *given, **named: None


training = importlib.import_module("apax.train.run")
turns = Turns()
training.initialize_callbacks = lambda *given: turns
settings = {
    "n_epochs": epochs,
    "data": {
        "directory": folder,
        "experiment": "model",
        "train_data_path": folder + "/train.extxyz",
        "val_data_path": folder + "/choosing.extxyz",
        "batch_size": 32,
        "valid_batch_size": 50,
    },
    "model": {
        "name": "gmnn",
        "basis": {"name": "bessel", "n_basis": 16, "r_max": 5.0},
        "n_radial": 5,
        "nn": [256, 256],
        "use_ntk": True,
        "w_init": "normal",
    },
    "optimizer": {"emb_lr": 0.02, "nn_lr": 0.03, "scale_lr": 0.001, "shift_lr": 0.05},
    "loss": [{"name": "energy", "weight": 1.0}, {"name": "forces", "weight": 4.0}],
    "metrics": [{"name": "energy", "reductions": ["mae"]}],
    "progress_bar": {"disable_epoch_pbar": True, "disable_batch_pbar": True},
}
training.run(settings)
held = read(folder + "/held_out.extxyz", ":")
found = ASECalculator(folder + "/model").batch_eval(held, 100, silent=True)
pairs = list(zip(found, held, strict=True))
energy = [a.get_potential_energy() - b.get_potential_energy() for a, b in pairs]
forces = [a.get_forces() - b.get_forces() for a, b in pairs]
say(energy=np.abs(energy).mean() / len(held[0]), forces=np.abs(forces).mean())


def calls(frames):
    """Energy and forces of frames: by the calculator, by its jitted step, and together."""
    calculator = ASECalculator(folder + "/model")
    moved = frames[0].copy()
    moved.calc = calculator
    moved.get_forces()
    box = jnp.asarray(frames[0].cell.array, dtype=jnp.float64)
    positions = [jnp.asarray(a.positions, dtype=jnp.float64) for a in frames]
    numbers = jnp.asarray(frames[0].numbers)

    def step():
        for each in positions:
            calculator.neighbors = jax.block_until_ready(
                calculator.step(each, calculator.neighbors, box)
            )[1]

    def ase():
        for each in frames:
            moved.positions = each.positions
            moved.get_forces()

    made = {"ase": ase, "jitted": step}
    if not frames[0].pbc.any():
        pairs = calculator.neighbors.idx
        model = jax.jit(
            jax.vmap(
                lambda x: calculator.model(x, numbers, pairs, box, jnp.full((pairs.shape[1], 3), 0))
            )
        )
        stacked = jnp.stack(positions)
        made["batch"] = lambda: jax.block_until_ready(model(stacked))
    return made


known = {}
for line in sys.stdin:
    file, way = line.split()
    if file not in known:
        known[file] = calls(read(folder + "/" + file + ".extxyz", ":"))
    if way not in known[file]:
        say(seconds=None)
        continue
    began = time.process_time()
    known[file][way]()
    say(seconds=time.process_time() - began)
