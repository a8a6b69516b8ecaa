"""Molten sodium chloride over temperatures and pressures: the pool that data are chosen from.

Every state point of a grid is a walk of its own at constant temperature and pressure, and all walks
are advanced by one compiled program, each with its own bath. They begin as a hot disordered lattice
that cools to its temperature while the pressure acts. Whatever was walked is kept block by block,
so that running again goes on. Labels, atomic energies and both of their kinds come from the same
potential in one pass over the frames.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.store import FolderStore
from alj.geometry.neighbors import batch_tables
from alj.potentials.combine import everything
from alj.potentials.tosi_fumi import nacl_tosi_fumi
from alj.sampling.molecular_dynamics import npt_nose_hoover
from alj.sampling.walks import Bath
from alj.stepping import batched, run
from alj.types import Context, Labels, Structure

SODIUM, CHLORINE = 11, 17


def pool(store: FolderStore, settings: Mapping, path: Path, say=print) -> Dataset:
    """Labeled frames of all state points, in `path`; `info` says which walk, state and time."""
    if not path.exists():
        began = time.monotonic()
        walked = frames(store, settings, say)
        datasets.write(path, labeled(walked, say))
        store.replace("pool-seconds", time.monotonic() - began)
    return datasets.read(path)[0]


def state_points(settings: Mapping) -> list[tuple[float, float]]:
    """Temperature (K) and pressure (bar) of every walk: the pressures evenly on a root scale."""
    low, high, many = settings["temperature_K"]
    lowest, highest, more = settings["pressure_bar"]
    temperatures = np.linspace(low, high, many)
    pressures = np.linspace(np.sqrt(lowest), np.sqrt(highest), more) ** 2
    return [(float(t), float(p)) for t in temperatures for p in pressures]


def frames(store: FolderStore, settings: Mapping, say) -> Dataset:
    """Frames of all walks after they have settled, without labels."""
    points = state_points(settings)
    potential = nacl_tosi_fumi((SODIUM, CHLORINE), accuracy=settings["accuracy"])
    every = settings["record_every"]
    common = {"timestep_fs": settings["timestep_fs"], "record_every": every,
              "coupling_time_fs": 100.0, "pressure_time_fs": 1000.0,
              "volume_factor": 5.0}  # fmt: skip
    starts = jax.tree.map(
        lambda *leaves: np.stack(leaves),
        *[melt(settings["ions"], seed) for seed in range(len(points))],
    )
    temperatures, pressures = np.array(points).T
    hot = np.full(len(points), settings["melting_K"])
    stages = {
        "settling": (settings["settle"], np.stack([hot, temperatures], 1)),
        "production": (settings["steps"], np.stack([temperatures] * 2, 1)),
    }
    context, found, structures = Context(params=potential.init(jax.random.key(0))), [], starts
    for number, (stage, (steps, temperature)) in enumerate(stages.items()):
        sampler = npt_nose_hoover(potential, steps=steps, **common)
        stepper = batched(sampler.stepper)
        key = jax.random.fold_in(jax.random.key(settings["seed"]), number)
        begin, go = jax.random.split(key)
        bath = Bath(jnp.asarray(temperature), jnp.asarray(np.stack([pressures] * 2, 1)))
        placed = sampler.place(jax.tree.map(jnp.asarray, structures))._replace(bath=bath)
        state = None
        block = settings["block"] // every
        for index in range(-(-steps // every) // block):

            def advance(state=state, index=index, stepper=stepper, placed=placed, begin=begin,
                        go=go):  # fmt: skip
                if state is None:
                    state = jax.jit(stepper.init)(begin, placed, context)
                else:
                    state = jax.tree.unflatten(
                        jax.tree.structure(jax.eval_shape(stepper.init, begin, placed, context)),
                        state,
                    )
                state, infos = run(stepper, go, state, context, steps=block, start=index * block)
                return {
                    "leaves": jax.tree.leaves(jax.device_get(state)),
                    "positions": np.asarray(infos.structure.positions),
                    "cell": np.asarray(infos.structure.cell),
                    "temperature_K": np.asarray(infos.temperature_K),
                    "pressure_bar": np.asarray(infos.pressure_bar),
                    "stopped": np.asarray(infos.stopped),
                }

            kept = store.remember(f"{stage}-{index:03d}", advance)
            state = kept.pop("leaves")
            say(f"   {stage} {(index + 1) * block * every}/{steps} steps", flush=True)
            if stage == "production":
                found.append(kept)
        structures = starts._replace(positions=kept["positions"][-1], cell=kept["cell"][-1])
    return _collected(settings, points, starts, found)


def melt(ions: int, seed: int) -> Structure:
    """A jittered lattice of so many ions, their species at random: it melts at once."""
    generator = np.random.default_rng(seed)
    shape = _shape(ions)
    sites = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    # Alternating species, as far as odd edges allow: no two anions begin on top of each other.
    order = np.argsort(sites.sum(axis=1) % 2, kind="stable")
    species = np.empty(ions, np.int32)
    species[order] = np.repeat([SODIUM, CHLORINE], [ions // 2, ions - ions // 2])
    spacing = 3.3
    positions = spacing * sites + generator.normal(scale=0.1, size=sites.shape)
    return Structure(
        positions, species, spacing * np.diag(np.array(shape, float)),
        np.asarray(0, np.int32), np.asarray(0, np.int32),
    )  # fmt: skip


def _shape(ions: int) -> tuple[int, int, int]:
    """The most cubic box of so many lattice sites."""
    boxes = [
        (a, b, ions // (a * b))
        for a in range(1, ions + 1)
        for b in range(a, ions + 1)
        if ions % (a * b) == 0 and ions // (a * b) >= b
    ]
    return min(boxes, key=lambda box: box[2] - box[0])


def _collected(settings, points, starts, found) -> Dataset:
    data, every = datasets.empty(), settings["record_every"]
    stride = max(settings["keep_every"] // every, 1)
    for walk, (temperature, pressure) in enumerate(points):
        structures, info, step = [], [], 0
        for block in found:
            for place in range(len(block["positions"])):
                step += 1
                if step % stride or block["stopped"][place, walk]:
                    continue
                structures.append(
                    Structure(
                        block["positions"][place, walk], starts.species[walk],
                        block["cell"][place, walk], starts.charge[walk],
                        starts.multiplicity[walk],
                    )
                )  # fmt: skip
                info.append({
                    "walk": walk, "temperature_K": temperature, "pressure_bar": pressure,
                    "time_ps": round(step * every * settings["timestep_fs"] / 1000, 6),
                })  # fmt: skip
        data = datasets.append(data, structures, info=info)
    return data


def labeled(data: Dataset, say=print) -> Dataset:
    """The same with energy, forces, stress and atomic energies; `e_bmh` without Coulomb's share."""
    species = (SODIUM, CHLORINE)
    whole, short = nacl_tosi_fumi(species), nacl_tosi_fumi(species, coulomb=False)

    @jax.jit
    def label(structures, neighbors):
        def one(pair):
            return *everything(whole, {}, *pair), short.atomic_energies({}, *pair)

        return jax.lax.map(one, (structures, neighbors))

    labels: list = [None] * datasets.count(data)
    info = [dict(about) for about in data.info]
    for batch in datasets.stream(data, whole.cutoff, at_most=32, at_least=32,
                                 table=datasets.roomy(data)):  # fmt: skip
        found = [np.asarray(x) for x in label(batch.structures, batch.neighbors)]
        for place, index in enumerate(np.asarray(batch.index)):
            if index < 0:
                continue
            atoms = int(datasets.sizes(data)[index])
            energy, forces, stress, atomic, bare = (x[place] for x in found)
            labels[index] = Labels(
                energy, forces[:atoms], stress, np.full(3, np.nan), np.full(atoms, np.nan),
                atomic[:atoms],
            )  # fmt: skip
            info[index]["e_bmh"] = np.round(bare[:atoms], 9).tolist()
    return datasets.append(datasets.empty(), datasets.structures(data), labels, info)


def salt_box(ions: int, edge_A: float, seed: int) -> Structure:
    """A disordered cube for dynamics at constant volume."""
    start = melt(ions, seed)
    factor = edge_A / np.diag(start.cell)
    return start._replace(positions=start.positions * factor, cell=np.diag(np.full(3, edge_A)))


def tables_for(structure: Structure, cutoff: float):
    """The neighbor table of one structure."""
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], structure)
    return jax.tree.map(lambda leaf: leaf[0], batch_tables(batch, cutoff))
