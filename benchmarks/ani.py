"""ANI beside TorchANI on the same hexanes, on one core, in float32; compile time apart.

    taskset -c 0 python benchmarks/ani.py [--structures 256] [--repeats 9] [--skip-training]
    python benchmarks/ani.py --reference tests/data/torchani.json

Energies and forces of 256 hexanes by one network, by seven with every member's forces, and by seven
with the force of the mean; then a training step of 64 of them with forces, for one network and for
seven, from descriptions computed once, as the trainers do, and anew. Runs of both codes alternate;
each number is the median of processor time, in µs per atom (ms for steps); seven of TorchANI's
training steps are seven times its one. Where TorchANI is not installed its column says "not
measured". The second form writes the numbers that the tests compare with, and needs TorchANI 2.9.
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
os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alj.arrays import stack_trees, take_tree
from alj.geometry.neighbors import batch_tables
from alj.potentials import combine
from alj.potentials.ani import ani
from alj.training.batching import trained_part
from alj.training.descriptions import describe, over_structures, predict_together
from alj.types import Batch, Labels, Structure

sys.path.append(str(Path(__file__).parent.parent / "experiments"))
from steered_pulls import alkane

MEMBERS, TRAINED, FORCE_WEIGHT = 7, 64, 0.1
POTENTIAL = ani((1, 6))


def hexanes(count: int, seed: int = 0) -> Structure:
    species, positions = alkane(6)
    noise = np.random.default_rng(seed).normal(0.0, 0.08, (count, *positions.shape))
    return Structure(
        jnp.asarray(positions + noise, jnp.float32),
        jnp.tile(jnp.asarray(species, jnp.int32)[None], (count, 1)),
        jnp.zeros((count, 3, 3), jnp.float32),
        jnp.zeros(count, jnp.int32),
        jnp.zeros(count, jnp.int32),
    )


def compiled(function, *arguments):
    """The compiled program, called without arguments, and the seconds that compiling took."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments)), time.perf_counter() - began


def one_network(params, structures, neighbors):
    return over_structures(
        lambda pair: combine.energy_and_forces(POTENTIAL, params, *pair), (structures, neighbors)
    )


def every_member(params, structures, neighbors):
    return over_structures(
        lambda pair: combine.member_energies_and_forces(POTENTIAL, params, *pair),
        (structures, neighbors),
    )


def mean_force(params, structures, neighbors):
    """Every member's energy and the force of their mean."""

    def one(pair):
        structure, table = pair

        def total(positions):
            description = POTENTIAL.describe(structure._replace(positions=positions), table)
            energies = jnp.sum(jax.vmap(POTENTIAL.evaluate, (0, None))(params, description), axis=1)
            return jnp.mean(energies), energies

        slope, energies = jax.grad(total, has_aux=True)(structure.positions)
        return energies, -slope

    return over_structures(one, (structures, neighbors))


def training_step(params, state, batch, described, places):
    """One step of Adam on energies and forces of the structures at some places of a batch."""
    trained, rebuild = trained_part(params)
    labels = take_tree(batch.labels, places)

    def loss(trained):
        found = predict_together(POTENTIAL, QUANTITIES, rebuild(trained), batch, described, places)
        error = jnp.mean((found.energy - labels.energy) ** 2)
        return error + FORCE_WEIGHT * jnp.mean((found.forces - labels.forces) ** 2)

    value, slope = jax.value_and_grad(loss)(trained)
    changes, state = OPTIMIZER.update(slope, state)
    return rebuild(optax.apply_updates(trained, changes)), state, value


def training_steps(params, states, batch, described, places):
    """The same for every member, each with structures of its own, one member after the other."""
    return jax.lax.map(
        lambda one: training_step(one[0], one[1], batch, described, one[2]),
        (params, states, places),
    )


OPTIMIZER, QUANTITIES = optax.adam(1e-3), ("energy", "forces")


def started(seed: int):
    params = jax.tree.map(lambda x: x.astype(jnp.float32), POTENTIAL.init(jax.random.key(seed)))
    return params, OPTIMIZER.init(trained_part(params)[0])


class TorchANI:
    """The same model, data and steps in TorchANI."""

    def __init__(self, structures: Structure):
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.models = [torch_model() for _ in range(MEMBERS)]
        self.species = torch.tensor(np.asarray(structures.species), dtype=torch.long)
        self.positions = torch.tensor(np.asarray(structures.positions))
        self.optimizers = [torch.optim.Adam(model.parameters(), 1e-3) for model in self.models]

    def forces(self, members: int) -> None:
        """Energies and forces by members one after the other; TorchANI has nothing faster."""
        for model in self.models[:members]:
            positions = self.positions.clone().requires_grad_(True)
            energies = model((self.species, positions)).energies
            self.torch.autograd.grad(energies.sum(), positions)

    def step(self) -> None:
        model, optimizer = self.models[0], self.optimizers[0]
        positions = self.positions[:TRAINED].clone().requires_grad_(True)
        energies = model((self.species[:TRAINED], positions)).energies
        slope = self.torch.autograd.grad(energies.sum(), positions, create_graph=True)[0]
        loss = (energies**2).mean() + FORCE_WEIGHT * (slope**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def torch_model(hidden: dict | None = None, activation: str = "gelu"):
    """The constants of ANI-2x for H and C; networks of other widths where given."""
    from torchani.arch import simple_ani
    from torchani.nn import ANINetworks, AtomicNetwork

    model = simple_ani(
        ("H", "C"), lot="wb97x-631gd", radial_start=0.8, angular_start=0.8, radial_cutoff=5.1,
        cutoff_fn="cosine", repulsion=False, bias=True, self_energies="zero",
        periodic_table_index=True,
    )  # fmt: skip
    if hidden:
        model.potentials["nnp"].neural_networks = ANINetworks(
            {
                symbol: AtomicNetwork((128, *widths, 1), activation=activation, bias=True)
                for symbol, widths in hidden.items()
            }
        )
    return model


def alternating(calls: dict, repeats: int) -> dict:
    """Median processor seconds of each call, the calls taking turns."""
    taken = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def line(title: str, seconds: dict, unit: float, name: str, compilation: float) -> None:
    ours, theirs = seconds["ours"] / unit, seconds.get("theirs")
    other = "TorchANI not measured" if theirs is None else (
        f"TorchANI {theirs / unit:8.2f} {name}, {theirs / seconds['ours']:5.2f} times"
    )  # fmt: skip
    print(f"{title:36s} {ours:8.2f} {name}  {other}  (compiled in {compilation:.1f} s)", flush=True)


def measure(count: int, repeats: int, training: bool) -> None:
    structures = hexanes(count)
    neighbors = batch_tables(structures, POTENTIAL.cutoff)
    single, memory = started(0)
    seven, memories = stack_trees([started(seed) for seed in range(MEMBERS)])
    known = importlib.util.find_spec("torchani") is not None
    other = TorchANI(structures) if known else None
    atom = structures.species.size * 1e-6
    for title, program, params, members in (
        ("one network, forces", one_network, single, 1),
        ("seven networks, member forces", every_member, seven, MEMBERS),
        ("seven networks, mean force", mean_force, seven, MEMBERS),
    ):
        ours, compilation = compiled(program, params, structures, neighbors)
        calls = {"ours": ours}
        if other is not None:
            calls["theirs"] = lambda members=members: other.forces(members)
        line(title, alternating(calls, repeats), atom, "µs/atom", compilation)
    if not training:
        return
    batch = training_batch(structures, neighbors)
    calls = {"theirs": other.step} if other else {}
    places = jnp.asarray(
        [np.random.default_rng(seed).permutation(count)[:TRAINED] for seed in range(MEMBERS)]
    )
    for way in ("once", "anew"):
        described = describe(POTENTIAL, batch, QUANTITIES, way)
        ours, compilation = compiled(training_step, single, memory, batch, described, places[0])
        alone = alternating({"ours": ours} | calls, repeats)
        line(f"training step, described {way}", alone, 1e-3, "ms", compilation)
        ours, compilation = compiled(training_steps, seven, memories, batch, described, places)
        found = alternating({"ours": ours}, repeats)
        if other:
            found["theirs"] = MEMBERS * alone["theirs"]
        line("the same, seven members", found, 1e-3, "ms", compilation)


def training_batch(structures: Structure, neighbors) -> Batch:
    """The structures with labels of 0."""
    zero = jnp.zeros_like(structures.positions)
    none = zero[:, 0, 0]
    labels = Labels(none, zero, structures.cell, zero[:, 0], zero[:, :, 0], zero[:, :, 0])
    return Batch(structures, neighbors, labels, none + 1.0, jnp.arange(len(none)))


def five_structures() -> dict:
    """Hexane, the same distorted, ethane pulled apart, linear acetylene, two H atoms too close."""
    hexane, ethane = alkane(6), alkane(2)
    distorted = hexane[1] + np.random.default_rng(7).normal(0.0, 0.15, hexane[1].shape)
    right = ethane[1][:, 0] > ethane[1][:2, 0].mean()
    stretched = ethane[1] + right[:, None] * np.array([[0.8, 0.0, 0.0]])
    acetylene = np.array([[0.0, 0, 0], [1.203, 0, 0], [-1.063, 0, 0], [2.266, 0, 0]])
    close = np.array([[0.0, 0, 0], [0.74, 0.2, 0], [1.1, 1.5, -0.4]])
    return {
        "hexane": hexane,
        "distorted hexane": (hexane[0], distorted),
        "stretched ethane": (ethane[0], stretched),
        "acetylene": (np.array([6, 6, 1, 1]), acetylene),
        "close hydrogens": (np.array([1, 1, 6]), close),
    }


def write_reference(path: str) -> None:
    """Functions, and energies and forces of small random networks, in float64."""
    import torch
    import torchani

    hidden, found = {"H": (8, 6, 5), "C": (10, 6, 4)}, {}
    torch.manual_seed(0)
    models = {name: torch_model(hidden, name).double() for name in ("gelu", "celu")}
    with torch.no_grad():
        weights = [p.copy_(torch.round(3.0 * p, decimals=4)) for p in models["gelu"].parameters()]
        for mine, given in zip(models["celu"].parameters(), weights, strict=True):
            mine.copy_(given)
    for title, (species, positions) in five_structures().items():
        positions = np.round(positions, 6)
        kinds, points = torch.tensor(species)[None], torch.tensor(positions)[None]
        entry = {"species": species.tolist(), "positions": positions.tolist()}
        functions = models["gelu"].aev_computer(models["gelu"].species_converter(kinds), points)
        entry["functions"] = np.round(functions[0].detach().numpy(), 8).tolist()
        for name, model in models.items():
            moved = points.clone().requires_grad_(True)
            energy = model((kinds, moved)).energies.sum()
            forces = -torch.autograd.grad(energy, moved)[0][0]
            entry[name] = {
                "energy": round(energy.item(), 9),
                "forces": np.round(forces.numpy(), 8).tolist(),
            }
        found[title] = entry
    networks = models["gelu"].potentials["nnp"].neural_networks.atomics
    parameters = {
        symbol: {
            name: p.detach().numpy().tolist() for name, p in networks[symbol].named_parameters()
        }
        for symbol in hidden
    }
    header = (
        f"TorchANI {torchani.__version__}, torch {torch.__version__}, float64; written by "
        "`python benchmarks/ani.py --reference tests/data/torchani.json`. Å; random networks."
    )
    text = json.dumps({"header": header, "networks": parameters, "structures": found})
    Path(path).write_text(text.replace('}, "', '},\n"').replace("], [", "],\n[") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--reference", metavar="FILE", help="write reference numbers and stop")
    given = parser.parse_args()
    if given.reference:
        write_reference(given.reference)
    else:
        measure(given.structures, given.repeats, not given.skip_training)


if __name__ == "__main__":
    main()
