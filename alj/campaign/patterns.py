"""Coulomb spectra of files of any length, in slabs that are remembered, so that a run goes on.

Files of ANI are read molecule by molecule, everything else structure by structure. What is no
molecule of physics is set aside: atoms nearer than a fraction of their covalent distance.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
from ase.data import covalent_radii

from alj.arrays import bucket
from alj.campaign import ani
from alj.campaign.archives import ani_files
from alj.campaign.reading import stream_atoms
from alj.campaign.store import FolderStore
from alj.potentials.coulomb_spectra import CHUNK, coulomb_spectra
from alj.types import BadInput, Structure

SLAB = 65536
"""Structures between two points from which a run can go on."""


class Patterns(NamedTuple):
    """Spectra (n, length), NaN where `aside`; how many atoms each has; all in the order of the
    file. `spectra` is mapped into memory."""

    spectra: np.ndarray
    atoms: np.ndarray
    aside: np.ndarray


class _Molecules(NamedTuple):
    """Some structures with the same atoms in the same order."""

    positions: np.ndarray
    species: np.ndarray


def patterns_of(
    path: str | Path,
    store: FolderStore,
    *,
    closest_fraction: float = 0.5,
    on_structures: Callable[[int], Any] | None = None,
) -> Patterns:
    """The spectra of all structures of a file, or what is still missing of them.

    Raises BadInput for a file that cannot be read, and for structures that are periodic.
    """
    done = 0
    while store.knows(f"spectra/{done:05d}"):
        done += 1
    total = store.recall("spectra/total")
    if total is None:
        for slab in _slabs(_molecules(Path(path), done * SLAB)):
            made = _of_slab(slab, closest_fraction)
            store.replace(f"spectra/{done:05d}", made)
            if on_structures is not None:
                on_structures(done * SLAB + len(made["atoms"]))
            done += 1
        total = store.remember("spectra/total", lambda: np.asarray(done))
    return _joined(store, int(total))


def spectra_of(structures: list[Structure]) -> np.ndarray:
    """Spectra (n, length) of molecules in memory, without any screen. Raises BadInput."""
    for index, one in enumerate(structures):
        if np.any(one.cell):
            raise BadInput(
                f"structure {index} (counting from 0) is periodic; Coulomb spectra are of "
                "molecules: expected structures without a cell"
            )
    slab = [_Molecules(np.asarray(s.positions)[None], np.asarray(s.species)) for s in structures]
    return _of_slab(slab, 0.0)["spectra"]


def atoms_at(path: str | Path, places: np.ndarray) -> Iterator[tuple[int, ase.Atoms]]:
    """Structures of a file with their places, which must rise, in one walk through the file."""
    wanted = np.asarray(places, int)
    if files := ani_files(Path(path)):
        yield from _of_ani(files, wanted)
        return
    left = iter(wanted.tolist())
    place = next(left, None)
    for index, atoms in enumerate(stream_atoms(path)):
        if place is None:
            return
        if index == place:
            yield index, atoms
            place = next(left, None)


def _of_ani(files: list[Path], wanted: np.ndarray) -> Iterator[tuple[int, ase.Atoms]]:
    index = 0
    for file in files:
        for block in ani.blocks(file):
            inside = wanted[(wanted >= index) & (wanted < index + len(block.positions))]
            for place in inside.tolist():
                yield place, ani.one(block, place - index)
            index += len(block.positions)


def _molecules(path: Path, start: int) -> Iterator[_Molecules]:
    """All structures from number `start` on."""
    if files := ani_files(path):
        for file in files:
            size = ani.count(file)
            if size > start:
                for block in ani.blocks(file, start):
                    yield _Molecules(block.positions, block.species)
            start = max(start - size, 0)
        return
    for index, atoms in enumerate(islice(stream_atoms(path), start, None), start):
        if atoms.pbc.any():
            raise BadInput(
                f"{path}: structure {index} (counting from 0) is periodic; Coulomb spectra are of "
                "molecules: expected structures without a cell"
            )
        yield _Molecules(atoms.positions[None], atoms.numbers)


def _slabs(molecules: Iterator[_Molecules]) -> Iterator[list[_Molecules]]:
    """SLAB structures at a time, fewer at the end of the file."""
    slab, count = [], 0
    for one in molecules:
        positions = one.positions
        while len(positions):
            slab.append(one._replace(positions=positions[: SLAB - count]))
            positions = positions[SLAB - count :]
            count += len(slab[-1].positions)
            if count == SLAB:
                yield slab
                slab, count = [], 0
    if slab:
        yield slab


def _of_slab(slab: list[_Molecules], closest_fraction: float) -> dict[str, np.ndarray]:
    """Spectra of a slab in its order, computed together where the padded sizes are equal."""
    atoms = np.concatenate([np.full(len(one.positions), len(one.species)) for one in slab])
    starts = np.cumsum([0, *(len(one.positions) for one in slab)])
    spectra = np.full((len(atoms), int(np.max(atoms))), np.nan)
    aside = np.zeros(len(atoms), bool)
    padded = {count: _padded_size(count) for count in np.unique(atoms).tolist()}
    for size in sorted(set(padded.values())):
        members = [k for k, one in enumerate(slab) if padded[len(one.species)] == size]
        rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in members])
        positions, species = np.zeros((len(rows), size, 3)), np.zeros((len(rows), size), np.int32)
        done = 0
        for one in (slab[k] for k in members):
            part, count = slice(done, done + len(one.positions)), len(one.species)
            positions[part, :count], species[part, :count] = one.positions, one.species
            done = part.stop
        fine = _apart(positions, species, closest_fraction)
        aside[rows] = ~fine
        kept = min(size, spectra.shape[1])
        found = _spectra(positions[fine], species[fine])
        spectra[rows[fine], :kept] = found[:, :kept]
        spectra[rows[fine], kept:] = 0.0
    return {"spectra": spectra, "atoms": atoms.astype(np.int32), "aside": aside}


def _padded_size(atoms: int) -> int:
    """Even sizes up to 32, then buckets: the eigenvalues of padding cost as much as others."""
    return atoms + atoms % 2 if atoms <= 32 else bucket(atoms)


def _spectra(positions: np.ndarray, species: np.ndarray) -> np.ndarray:
    """Spectra of equally padded molecules; few are filled up, so that few programs are compiled."""
    count, size = len(species), species.shape[1]
    if 0 < count < CHUNK:
        more = min(bucket(count), CHUNK) - count
        positions = np.concatenate([positions, np.repeat(positions[:1], more, axis=0)])
        species = np.concatenate([species, np.repeat(species[:1], more, axis=0)])
    return coulomb_spectra(positions, species, length=size)[:count]


def _apart(positions: np.ndarray, species: np.ndarray, fraction: float) -> np.ndarray:
    """Which molecules are finite and have no two atoms nearer than that part of the sum of their
    covalent radii, nor in one place."""
    first, second = np.triu_indices(species.shape[1], 1)
    radii = np.where(species > 0, covalent_radii[species], 0.0)
    fine = np.asarray(np.isfinite(positions).all(axis=(1, 2)))
    for start in range(0, len(species), CHUNK):
        rows = slice(start, start + CHUNK)
        apart = np.linalg.norm(positions[rows][:, first] - positions[rows][:, second], axis=-1)
        least = fraction * (radii[rows][:, first] + radii[rows][:, second])
        real = (species[rows][:, first] > 0) & (species[rows][:, second] > 0)
        fine[rows] &= ~np.any(real & (apart < np.maximum(least, _NOWHERE)), axis=1)
    return fine


_NOWHERE = 1e-3
"""Å; atoms nearer than this are one place, whatever the fraction says."""


def _joined(store: FolderStore, slabs: int) -> Patterns:
    """All slabs as one, the spectra in a file that is mapped into memory."""
    path, parts = store.folder / "spectra.npy", [f"spectra/{i:05d}" for i in range(slabs)]
    few = [store.recall(part) for part in parts] if slabs == 1 else None
    atoms, aside, width = [], [], 1
    for k, part in enumerate(parts):
        slab = few[k] if few else store.recall(part)
        atoms.append(slab["atoms"])
        aside.append(slab["aside"])
        width = max(width, slab["spectra"].shape[1])
    if few:
        return Patterns(few[0]["spectra"], atoms[0], aside[0])
    total = sum(map(len, atoms))
    if not path.is_file():
        temporary = path.with_name(".writing-spectra.npy")
        whole = np.lib.format.open_memmap(temporary, "w+", np.float64, (total, width))
        done = 0
        for part in parts:
            slab = store.recall(part)
            rows, own = slice(done, done + len(slab["atoms"])), slab["spectra"].shape[1]
            whole[rows, :own], whole[rows, own:] = slab["spectra"], 0.0
            done = rows.stop
        whole.flush()
        temporary.replace(path)
    spectra = np.load(path, mmap_mode="r")
    return Patterns(spectra, np.concatenate(atoms), np.concatenate(aside))
