"""Data made on the spot, where the published sets of optimal experimental design are not at hand.

Three kinds, labeled with GFN2-xTB (total energies in eV, forces in eV/Å):

* `ethanol`: molecular dynamics at 1000 K, as the published frames were made before PBE relabeled
  them (Zaverkin, Kästner, J. Chem. Theory Comput. 16, 5410, 2020, doi 10.1021/acs.jctc.0c00347);
* `molecules`: small molecules of C, N, O, F and H, all graphs that valences allow and chemistry
  does not forbid, relaxed: a small QM9 (Ramakrishnan, Dral, Rupp, von Lilienfeld, Sci. Data 1,
  140022, 2014, doi 10.1038/sdata.2014.22);
* `surface`: a nitrogen atom (⁴S) on and in clusters of water of mixed sizes: a small N-ASW
  (Molpeceres, Zaverkin, Kästner, MNRAS 499, 1373, 2020, doi 10.1093/mnras/staa2891).

Without spin polarization GFN2-xTB moves charge onto a nitrogen atom, or does not converge, as soon
as it is 3 Å away from water; so all labels of `surface` are spin-polarized ones.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from ase.units import fs
from small_molecules import enumerated
from tqdm import tqdm

from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.molecules import molecule
from alj.campaign.packing import box
from alj.campaign.references import KEY, convention_of
from alj.campaign.store import FolderStore
from alj.labeling import build_labeler
from alj.labeling.atoms import atoms_of
from alj.types import BadInput, Labeler, LabelingFailed, Structure
from alj.units import BOLTZMANN

DEFAULT_COUNTS = {"ethanol": 2000, "molecules": 1500, "surface": 800}
NITROGEN = 7
PUBLISHED_CLASSES = (9, 22, 37, 99)
"""Most atoms of C1 to C4 in N-ASW; larger ones are C5."""
SMALL_CLASSES = (10, 22, 37, 46)
"""The same here, where nothing is larger than 61 atoms."""
SHARD = 50
"""So many structures are kept at once; what is under way is lost where a run is stopped."""
FLIGHT_FRAMES = 5


class Clusters(NamedTuple):
    """One size of cluster: molecules of water, its share of all structures, walks, and their steps.

    `host_steps` are those of the water alone, `flight_steps` those with the nitrogen atom.
    """

    waters: int
    share: float
    walks: int
    host_steps: int
    flight_steps: int


SIZES = (
    Clusters(1, 0.06, 4, 200, 100),
    Clusters(2, 0.08, 4, 200, 100),
    Clusters(3, 0.06, 4, 200, 100),
    Clusters(7, 0.45, 8, 200, 60),
    Clusters(12, 0.17, 4, 150, 40),
    Clusters(15, 0.10, 3, 120, 30),
    Clusters(20, 0.08, 2, 100, 20),
)
"""0.06 … of one water are dimers N…H2O; 22, 37, 46 and 61 atoms with the nitrogen atom."""


def ethanol(store: FolderStore, count: int, seed: int) -> Dataset:
    """Frames of Langevin dynamics at 1000 K, 15 fs apart, the first 0.3 ps left out."""
    walks, skipped = 8, 20
    generator = np.random.default_rng(seed)
    start = molecule(generator, None, smiles="CCO")[0].structure
    sampler = {
        "name": "nvt_langevin", "temperature_K": 1000.0, "friction_time_fs": 100.0,
        "timestep_fs": 0.5, "record_every": 30, "steps": 30 * (skipped + -(-count // walks)),
    }  # fmt: skip
    frames = walked(store, start, sampler, walks, seed)
    late = [i for i, info in enumerate(frames.info) if info["step"] > skipped][:count]
    return named(datasets.select(frames, late), "ethanol", labeler_of("ethanol"))


def molecules(store: FolderStore, count: int, seed: int, most_heavy: int = 5) -> Dataset:
    """Relaxed molecules: all of the smallest sizes, then as many of the next as `count` leaves."""
    generator = np.random.default_rng(seed)
    graphs = store.remember("graphs", lambda: enumerated(most_heavy))
    order = [name for level in graphs for name in generator.permutation(level).tolist()]
    labeler = labeler_of("molecules")
    whole, failed = datasets.empty(), 0
    with tqdm(total=count, desc="molecules", file=sys.stderr, mininterval=10.0) as bar:
        for index in range(-(-len(order) // SHARD)):
            if datasets.count(whole) >= count:
                break
            names = order[index * SHARD : (index + 1) * SHARD]
            shard = store.remember(f"shards/{index:04d}", lambda n=names: _relaxed(n, labeler))
            failed += len(names) - datasets.count(shard)
            whole = joined([whole, shard])
            bar.update(min(datasets.count(shard), count - bar.n))
    say(f"molecules: {failed} of {failed + datasets.count(whole)} fell apart or did not relax")
    return named(datasets.select(whole, range(min(count, datasets.count(whole)))), None, labeler)


def surface(store: FolderStore, count: int, seed: int) -> Dataset:
    """Nitrogen on water: a tenth clusters alone, the rest half placed at random, half in flight."""
    parts = []
    with tqdm(total=count, desc="surface", file=sys.stderr, mininterval=10.0) as bar:
        for index, clusters in enumerate(SIZES):
            hosts = [
                store.remember(
                    f"hosts/{clusters.waters}-{walk}", lambda k=(index, walk): _host(k, seed)
                )
                for walk in range(clusters.walks)
            ]
            wanted, done = round(count * clusters.share), 0
            while done < wanted:
                size = min(SHARD, wanted - done)
                shard = store.remember(
                    f"shards/{clusters.waters}-{done:04d}",
                    lambda k=(index, done), n=size: _shard(k, joined(hosts), n, seed),
                )
                parts.append(shard)
                done += size
                bar.update(size)
    whole = joined(parts)
    classes = [{"config_type": size_class(n)} for n in datasets.sizes(whole).tolist()]
    return named(whole._replace(info=tuple(classes)), None, labeler_of("surface"))


KINDS: dict[str, Callable[[FolderStore, int, int], Dataset]] = {
    "ethanol": ethanol, "molecules": molecules, "surface": surface,
}  # fmt: skip


def size_class(atoms: int, bounds: tuple[int, ...] = SMALL_CLASSES) -> str:
    """C1 … C5 by the number of atoms, as the published set is divided.

    >>> [size_class(n, PUBLISHED_CLASSES) for n in (3, 22, 37, 90, 378)]
    ['C1', 'C2', 'C3', 'C4', 'C5']
    """
    return f"C{1 + int(np.searchsorted(bounds, atoms))}"


def with_nitrogen(
    generator: np.random.Generator, host: Structure, *, nearest: float = 2.0, reach: float = 4.5
) -> Structure:
    """`host` with a nitrogen atom (multiplicity 4) at random, `nearest` to `reach` Å from an O.

    No oxygen is nearer than `nearest`, no hydrogen nearer than 0.8 times that.
    """
    positions, species = np.asarray(host.positions), np.asarray(host.species)
    closest = np.where(species == 1, 0.8, 1.0) * nearest
    oxygens = positions[species == 8]
    while True:
        way = generator.normal(size=3)
        way *= generator.uniform(nearest, reach) / np.linalg.norm(way)
        place = oxygens[generator.integers(len(oxygens))] + way
        if (np.linalg.norm(positions - place, axis=1) >= closest).all():
            return host._replace(
                positions=np.vstack([positions, place]),
                species=np.append(species, NITROGEN).astype(np.int32),
                multiplicity=np.asarray(4, np.int32),
            )


def labeler_of(kind: str) -> Labeler:
    """The reference of a kind of data."""
    return build_labeler({"name": "tblite", "spin_polarization": kind == "surface"})


def labeled(structures: list[Structure], labeler: Labeler) -> Dataset:
    """Those of the structures that can be labeled, with their labels."""
    kept, labels = [], []
    for structure in structures:
        try:
            labels.append(labeler.label(structure))
            kept.append(structure)
        except LabelingFailed as failure:
            say(f"left out: {failure}")
    return datasets.append(datasets.empty(), kept, labels)


def walked(store: FolderStore, start: Structure, sampler: dict, walks: int, seed: int) -> Dataset:
    """All frames of a dynamics by the engine, in the order of steps; resumable."""
    from alj.campaign.sampling import Request, sample

    file, folder = store.folder / "start.extxyz", store.folder / "walks"
    datasets.write(file, datasets.append(datasets.empty(), [start]))
    bar = tqdm(desc="frames", file=sys.stderr, mininterval=10.0)

    def on_progress(progress) -> None:
        bar.total = progress.total
        bar.update(progress.done - bar.n)

    request = Request("tblite", str(file), sampler, str(folder), seed, walks, "extxyz")
    found = sample(request, on_progress)
    bar.close()
    for walk, reason in found.frozen.items():
        say(f"walk {walk} froze: {reason}")
    frames, _ = datasets.read(found.trajectory)
    order = sorted(range(datasets.count(frames)), key=lambda i: (frames.info[i]["step"], i))
    return datasets.select(frames, order)


def short_walk(
    start: Structure,
    labeler: Labeler,
    temperatures_K: tuple[float, float],
    steps: int,
    every: int,
    generator: np.random.Generator,
) -> Dataset:
    """Frames of a short Langevin dynamics in steps of 1 fs, from one temperature to another.

    ASE's, because the clusters have thirteen sizes: compiling a dynamics of our own for each takes
    longer than walking.
    """  # fmt: skip
    atoms = atoms_of(start)
    atoms.calc = calculator = _Labeling(labeler, start)
    ramp = np.linspace(*temperatures_K, steps)
    masses = atoms.get_masses()[:, None]
    spread = np.sqrt(masses * BOLTZMANN * ramp[0])
    atoms.set_momenta(spread * generator.normal(size=atoms.positions.shape))
    engine = Langevin(
        atoms, timestep=fs, temperature_K=ramp[0], friction=0.02 / fs, fixcm=False, rng=generator
    )
    kept, labels = [], []
    for step, temperature in enumerate(ramp, 1):
        engine.set_temperature(temperature_K=float(temperature))
        engine.run(1)
        if step % every == 0:
            kept.append(start._replace(positions=np.array(atoms.positions)))
            labels.append(calculator.found)
    return datasets.append(datasets.empty(), kept, labels)


def relaxed(structure: Structure, labeler: Labeler, tolerance: float, steps: int) -> Structure:
    """The structure after BFGS, until no force is larger than `tolerance` (eV/Å)."""
    atoms = atoms_of(structure)
    atoms.calc = _Labeling(labeler, structure)
    BFGS(atoms, logfile=None).run(fmax=tolerance, steps=steps)
    return structure._replace(positions=np.array(atoms.positions))


def joined(parts: list[Dataset]) -> Dataset:
    """Data sets one behind the other."""
    whole = datasets.empty()
    for part in parts:
        labels = [datasets.labels(part, i) for i in range(datasets.count(part))]
        whole = datasets.append(whole, datasets.structures(part), labels, list(part.info))
    return whole


def named(data: Dataset, config_type: str | None, labeler: Labeler) -> Dataset:
    """`data` that says whose its labels are and what it is; only energies and forces are kept."""
    about: dict[str, Any] = {KEY: convention_of(labeler)}
    if config_type:
        about["config_type"] = config_type
    kept = ("smiles", "config_type")
    info = tuple({**{k: v for k, v in one.items() if k in kept}, **about} for one in data.info)
    missing = np.nan
    return data._replace(
        info=info,
        dipole=np.full_like(data.dipole, missing),
        charges=np.full_like(data.charges, missing),
    )


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


class _Labeling(Calculator):
    """A labeler as a calculator of ASE, for its optimizers."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, labeler: Labeler, like: Structure):
        super().__init__()
        self.labeler, self.like = labeler, like

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.found = self.labeler.label(self.like._replace(positions=self.atoms.positions.copy()))
        self.results = {"energy": float(self.found.energy), "forces": np.array(self.found.forces)}


def _relaxed(names: list[str], labeler: Labeler) -> Dataset:
    """The molecules of these SMILES that relax and stay what they are."""
    kept, labels, info = [], [], []
    for name in names:
        try:
            start = molecule(np.random.default_rng(0), None, smiles=name)[0].structure
            found = relaxed(start, labeler, 0.02, 200)
            label = labeler.label(found)
        except (BadInput, LabelingFailed):
            continue
        if np.abs(label.forces).max() < 0.03 and _bonds(found) == _bonds(start):
            kept.append(found)
            labels.append(label)
            heavy = int((np.asarray(found.species) > 1).sum())
            info.append({"smiles": name, "config_type": f"{heavy} heavy atoms"})
    return datasets.append(datasets.empty(), kept, labels, info)


def _bonds(structure: Structure) -> set[tuple[int, int]]:
    """Pairs nearer than 1.25 times the sum of their covalent radii."""
    positions, radii = np.asarray(structure.positions), covalent_radii[structure.species]
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    i, j = np.nonzero(np.triu(apart < 1.25 * (radii[:, None] + radii[None]), 1))
    return set(zip(i.tolist(), j.tolist(), strict=True))


def _host(which: tuple[int, int], seed: int) -> Dataset:
    """Frames of a cluster of water alone, from 350 K down to 50 K.

    It is packed at random and roughly relaxed: the contacts of a packing are far too hot.
    """
    generator, clusters = np.random.default_rng([seed, 0, *which]), SIZES[which[0]]
    built = box(
        generator, None, molecule="water", copies=clusters.waters, shape="droplet",
        density_g_per_cc=0.9 if clusters.waters > 3 else 0.3, minimum_distance_A=1.8,
    )  # fmt: skip
    plain = labeler_of("ethanol")
    rough = relaxed(built[0].structure, plain, 0.5, 60)
    return short_walk(rough, plain, (350.0, 50.0), clusters.host_steps, 10, generator)


def _shard(which: tuple[int, int], hosts: Dataset, count: int, seed: int) -> Dataset:
    """`count` structures on clusters of one size."""
    generator, clusters = np.random.default_rng([seed, 1, *which]), SIZES[which[0]]
    labeler, water = labeler_of("surface"), datasets.structures(hosts)

    def host() -> Structure:
        return water[generator.integers(len(water))]

    def placed() -> Structure:
        return with_nitrogen(generator, host(), reach=6.0 if clusters.waters == 1 else 4.5)

    parts = [labeled([host() for _ in range(max(count // 10, 1))], labeler)]
    every = max(clusters.flight_steps // FLIGHT_FRAMES, 1)
    while sum(map(datasets.count, parts)) < count // 2:
        try:
            flight = placed(), labeler, (300.0, 100.0), FLIGHT_FRAMES * every, every, generator
            parts.append(short_walk(*flight))
        except LabelingFailed as failure:
            say(f"left out: {failure}")
    while (left := count - sum(map(datasets.count, parts))) > 0:
        parts.append(labeled([placed() for _ in range(left)], labeler))
    return datasets.select(joined(parts), range(count))


def main(arguments: list[str] | None = None) -> int:
    """Make a file; 2 for bad input. What is under way lies in OUT.work, and goes on from there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--out", type=Path, required=True, help="extxyz to write")
    parser.add_argument("--count", type=int, help=f"structures, by default {DEFAULT_COUNTS}")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    count = asked.count or DEFAULT_COUNTS[asked.kind]
    if asked.out.exists():
        say(f"{asked.out} is there already; remove it to make it again")
        return 0
    from alj.cli.environment import prepare

    prepare()
    began, work = time.monotonic(), asked.out.with_name(asked.out.name + ".work")
    try:
        with FolderStore(work) as store:
            mine = {"kind": asked.kind, "count": count, "seed": asked.seed}
            if store.remember("settings", lambda: mine) != mine:
                raise BadInput(f"{work} was begun with other settings; remove it, or use them")
            data = KINDS[asked.kind](store, count, asked.seed)
            datasets.write(asked.out, data)
    except BadInput as error:
        say(str(error))
        return 2
    shutil.rmtree(work)
    seconds = time.monotonic() - began
    made = datasets.count(data)
    say(f"{asked.out}: {made} structures, {seconds:.0f} s, {1000 * seconds / made:.0f} ms each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
