"""Conformations of small organic molecules by normal modes, labeled with PM6: a small ANI-1.

As ANI-1 was made: molecules of H, C, N and O are relaxed, the force constants K_i of their normal
modes q_i computed, and each conformation moved along all modes by

    R_i = ± √(3 c_i N k_B T / K_i),   c_i random, Σ c_i = c, c uniform in 0 … 1,   N atoms,

so that the harmonic energy of a conformation is a random share of 3/2 N k_B T. J. S. Smith, O.
Isayev, A. E. Roitberg, Sci. Data 4, 170193 (2017), doi 10.1038/sdata.2017.193. Labels are PM6 by
Sparrow.
"""

import sys
from pathlib import Path

import numpy as np
from rdkit import Chem
from small_molecules import enumerated
from stand_in_data import joined, labeled, relaxed, say
from tqdm import tqdm

from alj.campaign import ani, datasets
from alj.campaign.archives import ani_files
from alj.campaign.datasets import Dataset
from alj.campaign.molecules import molecule
from alj.campaign.patterns import atoms_at
from alj.campaign.reading import stream_atoms, structure_of
from alj.campaign.references import KEY, convention_of
from alj.campaign.store import FolderStore
from alj.labeling import build_labeler
from alj.types import BadInput, Labeler, LabelingFailed, Structure
from alj.units import BOLTZMANN

ELEMENTS = (6, 7, 8)
STEP_A = 0.01
"""Of the differences of forces that give the force constants."""
SOFTEST = 0.3
"""eV/Å^2; softer modes (rotors) are taken for as stiff as this, or molecules fall apart."""
SHARD = 5
"""Molecules that are kept at once; what is under way is lost where a run is stopped."""


def conformations(
    store: FolderStore,
    molecules: int,
    each: int,
    *,
    temperature_K: float = 600.0,
    heavy_atoms: tuple[int, int] = (1, 5),
    atoms: tuple[int, int] = (1, 100),
    seed: int = 1,
) -> Dataset:
    """`each` conformations of so many molecules of these sizes, the smallest first; resumable."""
    labeler = build_labeler({"name": "sparrow", "method": "PM6"})
    least, most = heavy_atoms
    levels = store.remember("graphs", lambda: enumerated(most, ELEMENTS))[least - 1 :]
    generator = np.random.default_rng(seed)
    order = [name for level in levels for name in generator.permutation(level).tolist()]
    order = [name for name in order if atoms[0] <= _atoms_in(name) <= atoms[1]]
    parts, found, failed = [], 0, 0
    with tqdm(total=molecules * each, desc="conformations", file=sys.stderr, mininterval=10) as bar:
        for index in range(-(-len(order) // SHARD)):
            names = order[index * SHARD : (index + 1) * SHARD][: molecules - found]
            if not names:
                break

            def make(names=names, index=index) -> Dataset:
                own = np.random.default_rng([seed, index])
                return joined([sampled(own, name, each, temperature_K, labeler) for name in names])

            parts.append(store.remember(f"molecules/{index:04d}", make))
            kinds = {info["smiles"] for info in parts[-1].info}
            found, failed = found + len(kinds), failed + len(names) - len(kinds)
            bar.update(datasets.count(parts[-1]))
    whole = joined(parts)
    say(f"{found} molecules, {failed} did not relax; {datasets.count(whole)} conformations")
    return whole


def sampled(
    generator: np.random.Generator, smiles: str, count: int, temperature_K: float, labeler: Labeler
) -> Dataset:
    """Labeled conformations of one molecule; none where it does not relax."""
    try:
        start = molecule(np.random.default_rng(0), None, smiles=smiles)[0].structure
        minimum = relaxed(start, labeler, 0.02, 300)
        stiffness, modes = normal_modes(minimum, labeler)
    except (BadInput, LabelingFailed):
        return datasets.empty()
    structures, labels = [], []
    atoms = len(minimum.species)
    about = {"smiles": smiles, "config_type": f"{int((minimum.species > 1).sum())} heavy atoms"}
    for _ in range(4 * count):
        if len(structures) == count:
            break
        shares = generator.dirichlet(np.ones(len(stiffness))) * generator.uniform()
        lengths = np.sqrt(3.0 * shares * atoms * BOLTZMANN * temperature_K / stiffness)
        signs = generator.choice([-1.0, 1.0], len(stiffness))
        moved = minimum.positions + np.einsum("m,mij->ij", signs * lengths, modes)
        one = minimum._replace(positions=moved)
        try:
            label = labeler.label(one)
        except LabelingFailed:
            continue
        structures.append(one)
        labels.append(label._replace(dipole=np.full(3, np.nan), charges=np.full(atoms, np.nan)))
    info = [{**about, KEY: convention_of(labeler)} for _ in structures]
    return datasets.append(datasets.empty(), structures, labels, info)


def normal_modes(minimum: Structure, labeler: Labeler) -> tuple[np.ndarray, np.ndarray]:
    """Force constants (eV/Å^2) and directions (modes, atoms, 3) without translation and rotation.

    Eigenvectors of the Hessian itself, as ANI's, rather than of the mass-weighted one.
    """
    positions, size = np.asarray(minimum.positions, float), minimum.positions.size
    hessian = np.zeros((size, size))
    for k in range(size):
        sides = []
        for sign in (1.0, -1.0):
            moved = positions.copy().reshape(-1)
            moved[k] += sign * STEP_A
            forces = labeler.label(minimum._replace(positions=moved.reshape(-1, 3))).forces
            sides.append(np.asarray(forces).reshape(-1))
        hessian[k] = -(sides[0] - sides[1]) / (2 * STEP_A)
    rigid = _rigid(positions)
    projector = np.eye(size) - rigid @ rigid.T
    values, vectors = np.linalg.eigh(projector @ (0.5 * (hessian + hessian.T)) @ projector)
    inside = np.linalg.norm(rigid.T @ vectors, axis=0) < 0.5
    modes = vectors[:, inside].T.reshape(-1, *positions.shape)
    return np.maximum(values[inside], SOFTEST), modes


def _rigid(positions: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the translations and infinitesimal rotations."""
    centered = positions - positions.mean(axis=0)
    moves = [np.tile(axis, (len(positions), 1)) for axis in np.eye(3)]
    moves += [np.cross(axis, centered) for axis in np.eye(3)]
    left, values, _ = np.linalg.svd(np.stack([move.reshape(-1) for move in moves], axis=1),
                                    full_matrices=False)  # fmt: skip
    return left[:, values > 1e-6 * values[0]]


def labeled_anew(store: FolderStore, path: Path, count: int, seed: int = 1) -> Dataset:
    """`count` random structures of a file, those of ANI-1 too, labeled with PM6; resumable."""
    labeler = build_labeler({"name": "sparrow", "method": "PM6"})
    files = ani_files(path)
    total = sum(map(ani.count, files)) if files else sum(1 for _ in stream_atoms(path))
    places = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    parts = []
    with tqdm(total=len(places), desc="labels", file=sys.stderr, mininterval=10) as bar:
        for start in range(0, len(places), 5000):
            some = places[start : start + 5000]

            def make(some=some) -> Dataset:
                found = [structure_of(atoms) for _, atoms in atoms_at(path, some)]
                data = labeled(found, labeler)
                info = tuple({KEY: convention_of(labeler)} for _ in range(datasets.count(data)))
                missing = np.full_like(data.dipole, np.nan), np.full_like(data.charges, np.nan)
                return data._replace(info=info, dipole=missing[0], charges=missing[1])

            parts.append(store.remember(f"labels/{start:08d}", make))
            bar.update(len(some))
    return joined(parts)


def _atoms_in(smiles: str) -> int:
    """Hydrogen atoms included."""
    return Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms()
