"""SchNet beside ANI on the same hexanes, on one core, in float32; compile time apart.

    taskset -c 0 python benchmarks/schnet.py [--structures 64] [--repeats 9]
    python benchmarks/schnet.py --reference tests/data/schnetpack.json

Energies and forces by one network of each, in µs per atom of processor time: the median, runs of
both taking turns. The second form writes the numbers that the tests compare with, and needs
SchNetPack 2.1.
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
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ani import alternating, compiled, hexanes
from steered_pulls import alkane

from alj.geometry.neighbors import batch_tables
from alj.potentials import ani, combine, schnet
from alj.training.descriptions import over_structures

CUTOFF, FEATURES, GAUSSIANS, INTERACTIONS = 5.0, 12, 8, 3
"""The network of the reference; small, so that its weights fit a file."""


def energies_and_forces(potential, params, structures, neighbors):
    return over_structures(
        lambda pair: combine.energy_and_forces(potential, params, *pair), (structures, neighbors)
    )


def measure(count: int, repeats: int) -> None:
    structures = hexanes(count)
    calls = {}
    for name, builder in (("schnet", schnet), ("ani", ani)):
        potential = builder((1, 6))
        params = potential.init(jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        neighbors = batch_tables(structures, potential.cutoff)
        program = partial(energies_and_forces, potential)
        calls[name], compilation = compiled(program, params, structures, neighbors)
        print(f"{name}: {neighbors.indices.shape[-1]} neighbors, compiled in {compilation:.1f} s")
    for name, seconds in alternating(calls, repeats).items():
        print(f"{name:8s} {seconds / structures.species.size * 1e6:8.1f} µs/atom")


def three_structures() -> dict:
    """Ethane distorted, two methanols apart, a triclinic crystal less than the cutoff wide."""
    rng = np.random.default_rng(3)
    ethane = alkane(2)
    methanol = np.array(
        [[0.0, 0, 0], [1.42, 0, 0], [1.72, 0.9, 0], [-0.36, 1.0, 0.2], [-0.36, -0.6, 0.8],
         [-0.36, -0.5, -0.9]]
    )  # fmt: skip
    cell = np.array([[4.2, 0, 0], [0.5, 4.6, 0], [-0.3, 0.4, 3.9]])
    crystal = np.array([[0.1, 0.1, 0.2], [0.5, 0.45, 0.6], [0.15, 0.6, 0.1]]) @ cell
    return {
        "ethane": (ethane[0], ethane[1] + rng.normal(0, 0.1, ethane[1].shape), np.zeros((3, 3))),
        "methanols": (
            np.tile([6, 8, 1, 1, 1, 1], 2),
            np.concatenate([methanol, methanol + np.array([2.9, 2.2, 1.1])]),
            np.zeros((3, 3)),
        ),
        "crystal": (np.array([8, 6, 1]), crystal, cell),
    }


def schnetpack_model():
    """SchNet and its output network in float64, with random weights of four decimals."""
    import torch
    import torch.utils.data.dataloader as loader

    if not hasattr(loader, "T_co"):  # torch 2.13 lost it; SchNetPack 2.1.1 wants it for a hint
        loader.T_co = None
    import schnetpack
    from schnetpack.nn import CosineCutoff, GaussianRBF, shifted_softplus

    torch.manual_seed(0)
    radial = GaussianRBF(GAUSSIANS, CUTOFF)
    body = schnetpack.representation.SchNet(FEATURES, INTERACTIONS, radial, CosineCutoff(CUTOFF))
    head = schnetpack.atomistic.Atomwise(
        FEATURES, activation=shifted_softplus, aggregation_mode=None, per_atom_output_key="atomic"
    )
    body, head = body.double(), head.double()
    # float32 buffers made double would differ in the eighth digit.
    radial.offsets = torch.linspace(0.0, CUTOFF, GAUSSIANS, dtype=torch.float64)
    radial.widths = torch.full_like(radial.offsets, CUTOFF / (GAUSSIANS - 1))
    with torch.no_grad():
        for part in (*body.parameters(), *head.parameters()):
            part.copy_(torch.round(part + 0.1 * torch.randn_like(part), decimals=4))
    return schnetpack, body, head


def write_reference(path: str) -> None:
    """Weights, and atomic energies and forces by SchNetPack, in float64."""
    import torch
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    package, body, head = schnetpack_model()
    found = {}
    for title, (species, positions, cell) in three_structures().items():
        positions = np.round(positions, 6)
        atoms = Atoms(species, positions, cell=cell, pbc=bool(cell.any()))
        first, second, images = neighbor_list("ijS", atoms, CUTOFF)
        first, second = torch.as_tensor(first), torch.as_tensor(second)
        points = torch.tensor(positions, requires_grad=True)
        vectors = points[second] - points[first] + torch.tensor(images @ cell)
        given = {"_atomic_numbers": torch.tensor(species), "_Rij": vectors}
        given |= {"_idx_i": first, "_idx_j": second}
        atomic = head(body(given))["atomic"][:, 0]
        (slope,) = torch.autograd.grad(atomic.sum(), points)
        found[title] = {
            "species": species.tolist(),
            "positions": positions.tolist(),
            "cell": cell.tolist(),
            "atomic": np.round(atomic.detach().numpy(), 12).tolist(),
            "forces": np.round(-slope.numpy(), 12).tolist(),
        }
    weights = {
        name: part.detach().numpy().tolist()
        for name, part in (*body.named_parameters(), *head.named_parameters())
    }
    weights["embedding.weight"] = {z: weights["embedding.weight"][z] for z in (1, 6, 8)}
    header = (
        f"SchNetPack {package.__version__}, torch {torch.__version__}, float64; written by "
        "`python benchmarks/schnet.py --reference tests/data/schnetpack.json`. Å; random weights."
    )
    settings = {"cutoff_A": CUTOFF, "features": FEATURES, "gaussians": GAUSSIANS}
    settings |= {"interactions": INTERACTIONS}
    text = json.dumps(
        {"header": header, "settings": settings, "weights": weights, "structures": found}
    )
    Path(path).write_text(text.replace('], "', '],\n"').replace("], [", "],\n[") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--reference", metavar="FILE", help="write reference numbers and stop")
    given = parser.parse_args()
    if given.reference:
        write_reference(given.reference)
    else:
        measure(given.structures, given.repeats)


if __name__ == "__main__":
    main()
