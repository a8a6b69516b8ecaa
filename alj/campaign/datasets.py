"""Labeled structures as ragged flat arrays on the host, read strictly and served as padded batches.

A growing set must not recompile the trainer, and 3 atoms beside 378 must waste nothing: structures
are grouped by padded size, and counts, atoms and neighbor tables come in buckets.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

from alj.arrays import bucket
from alj.campaign import archives
from alj.campaign.reading import (
    FIELDS,
    choose_labels,
    empty_labels,
    ignored_keys,
    read_frame,
    stream_atoms,
)
from alj.campaign.store import write_file
from alj.campaign.trees import storable
from alj.campaign.writing import frame_text
from alj.geometry.neighbors import TableSize, batch_tables, table_size
from alj.types import BadInput, Batch, Labels, Structure

NEAR_A = 100.0
"""Positions within this distance of the origin are left as they are."""

EXACT_SIZES = 4
"""So many different sizes at most get batches of exactly their size; more share buckets."""


@storable
class Dataset(NamedTuple):
    """Structures one after another: those of structure i are rows offsets[i]:offsets[i+1].

    Units as in `Structure` and `Labels`; NaN: not given. `info` says where each came from.
    """

    positions: Float[np.ndarray, "total 3"]
    species: Int[np.ndarray, " total"]
    cell: Float[np.ndarray, "n 3 3"]
    charge: Int[np.ndarray, " n"]
    multiplicity: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, " n+1"]
    energy: Float[np.ndarray, " n"]
    forces: Float[np.ndarray, "total 3"]
    stress: Float[np.ndarray, "n 3 3"]
    dipole: Float[np.ndarray, "n 3"]
    charges: Float[np.ndarray, " total"]
    atomic_energies: Float[np.ndarray, " total"]
    info: tuple[dict[str, Any], ...]


_PER_ATOM = ("positions", "species", "forces", "charges", "atomic_energies")
_PER_STRUCTURE = ("cell", "charge", "multiplicity", "energy", "stress", "dipole")


def empty() -> Dataset:
    """A data set without structures."""
    return Dataset(
        positions=np.zeros((0, 3)),
        species=np.zeros(0, np.int32),
        cell=np.zeros((0, 3, 3)),
        charge=np.zeros(0, np.int32),
        multiplicity=np.zeros(0, np.int32),
        offsets=np.zeros(1, np.int64),
        energy=np.zeros(0),
        forces=np.zeros((0, 3)),
        stress=np.zeros((0, 3, 3)),
        dipole=np.zeros((0, 3)),
        charges=np.zeros(0),
        atomic_energies=np.zeros(0),
        info=(),
    )


def count(dataset: Dataset) -> int:
    """The number of structures."""
    return len(dataset.offsets) - 1


def sizes(dataset: Dataset) -> np.ndarray:
    """The number of atoms of each structure."""
    return np.diff(dataset.offsets)


def append(
    dataset: Dataset,
    structures: list[Structure],
    labels: list[Labels] | None = None,
    info: list[dict] | None = None,
) -> Dataset:
    """`dataset` with more structures behind, unpadded; without `labels` all of them are NaN."""
    if not structures:
        return dataset
    columns = {name: [getattr(dataset, name)] for name in (*_PER_ATOM, *_PER_STRUCTURE)}
    lengths = []
    for i, structure in enumerate(structures):
        real = np.asarray(structure.species) > 0
        label = empty_labels(len(real)) if labels is None else labels[i]
        given = {**structure._asdict(), **label._asdict()}
        for name in _PER_ATOM:
            columns[name].append(np.asarray(given[name])[real])
        for name in _PER_STRUCTURE:
            columns[name].append(np.asarray(given[name])[None])
        lengths.append(int(real.sum()))
    merged = {
        name: np.concatenate([part.astype(parts[0].dtype) for part in parts])
        for name, parts in columns.items()
    }
    offsets = np.concatenate([dataset.offsets, dataset.offsets[-1] + np.cumsum(lengths)])
    more = tuple(info) if info is not None else ({},) * len(structures)
    return Dataset(offsets=offsets, info=dataset.info + more, **merged)


def digest(*sets: Dataset) -> str:
    """What tells these structures, their energies and their forces from all others."""
    found = hashlib.sha256()
    for dataset in sets:
        for name in ("positions", "species", "cell", "offsets", "energy", "forces"):
            found.update(np.ascontiguousarray(getattr(dataset, name)).tobytes())
    return found.hexdigest()[:16]


def select(dataset: Dataset, indices) -> Dataset:
    """The structures at `indices`, in that order."""
    indices = np.asarray(indices, np.int64).reshape(-1)
    starts, lengths = dataset.offsets[indices], sizes(dataset)[indices]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    picked = {name: getattr(dataset, name)[rows] for name in _PER_ATOM}
    picked |= {name: getattr(dataset, name)[indices] for name in _PER_STRUCTURE}
    return Dataset(offsets=offsets, info=tuple(dataset.info[i] for i in indices), **picked)


def structure(dataset: Dataset, index: SupportsIndex) -> Structure:
    """Structure `index`, unpadded, on the host."""
    return Structure(**_row(dataset, index, Structure._fields))


def labels(dataset: Dataset, index: SupportsIndex) -> Labels:
    """The labels of structure `index`."""
    return Labels(**_row(dataset, index, Labels._fields))


def structures(dataset: Dataset) -> list[Structure]:
    """All structures, unpadded, on the host."""
    return [structure(dataset, i) for i in range(count(dataset))]


def batches(
    dataset: Dataset,
    cutoff: float,
    *,
    weights: np.ndarray | None = None,
    dtype: Any = None,
    count_bucket: bool = True,
    table: dict[int, TableSize] | None = None,
    at_most: int | None = None,
    at_least: int = 1,
    atoms: int | None = None,
) -> tuple[Batch, ...]:
    """The data set as padded batches with neighbor tables reaching to `cutoff` (Å).

    `index` is a structure's place in the data set, -1 (and weight 0) pads. With `count_bucket` the
    number of structures is rounded up to a bucket, so that a growing set rarely changes shape.
    `table` remembers the size of the neighbor table for each number of atoms and only ever grows:
    hand in the same dict again to keep shapes. `at_most` cuts groups into batches of so many
    structures, `at_least` pads small ones to so many. With `atoms` all are padded to that number.
    `dtype` (default: JAX's float) is that of everything but the energies, which stay as precise as
    JAX allows.
    """
    return tuple(
        stream(
            dataset,
            cutoff,
            weights=weights,
            dtype=dtype,
            count_bucket=count_bucket,
            table=table,
            at_most=at_most,
            at_least=at_least,
            atoms=atoms,
        )
    )


def stream(
    dataset: Dataset,
    cutoff: float,
    *,
    weights: np.ndarray | None = None,
    dtype: Any = None,
    count_bucket: bool = True,
    table: dict[int, TableSize] | None = None,
    at_most: int | None = None,
    at_least: int = 1,
    atoms: int | None = None,
) -> Iterator[Batch]:
    """`batches` one after another, for sets that do not fit the device at once."""
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    weights = np.ones(count(dataset)) if weights is None else np.asarray(weights)
    table = {} if table is None else table
    padded = padded_sizes(sizes(dataset)) if atoms is None else np.full(count(dataset), atoms)
    for longest in np.unique(padded).tolist():
        members = np.flatnonzero(padded == longest)
        step = min(at_most or len(members), len(members))
        room = bucket(step, smallest=at_least)
        rows = min(room, at_most or room) if count_bucket else step
        chunks = [members[start : start + step] for start in range(0, len(members), step)]
        for chunk in chunks:
            needed = table_size(_structures(dataset, chunk, (rows, longest), dtype), cutoff)
            table[longest] = larger(needed, table.get(longest, needed))
        for chunk in chunks:
            batch = _batch(dataset, chunk, (rows, longest), cutoff, dtype, table[longest])
            weight = np.zeros(rows)
            weight[: len(chunk)] = weights[chunk]
            yield batch._replace(weights=jnp.asarray(weight, dtype))


def roomy(dataset: Dataset, neighbors: int = 16) -> dict[int, TableSize]:
    """Tables for `batches` with room for so many neighbors, so that a growing set keeps shapes."""
    known = np.unique(padded_sizes(sizes(dataset))).tolist()
    return {atoms: TableSize(neighbors, (0, 0, 0)) for atoms in known}


def larger(one: TableSize, other: TableSize) -> TableSize:
    """The smallest table size that holds what either holds."""
    first, second, third = (max(pair) for pair in zip(one.images, other.images, strict=True))
    return TableSize(max(one.capacity, other.capacity), (first, second, third))


def padded_sizes(atoms: np.ndarray) -> np.ndarray:
    """What each structure's number of atoms is padded to."""
    if len(np.unique(atoms)) <= EXACT_SIZES:
        return np.asarray(atoms)
    return np.array([bucket(int(n)) for n in atoms])


def near_origin(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Equivalent positions (Å) that survive single precision.

    They are wrapped, and centered along directions that do not repeat; positions within `NEAR_A` of
    the origin are left as they are.
    """
    if np.abs(positions).max(initial=0.0) <= NEAR_A:
        return positions
    periodic = cell.any(axis=1)
    if periodic.any():
        steps = np.floor(positions @ np.linalg.pinv(cell))
        positions = positions - np.where(periodic, steps, 0.0) @ cell
    if not periodic.all():
        normal = np.eye(3) - np.linalg.pinv(cell) @ cell
        positions = positions - (positions.mean(axis=0) @ normal)[None]
    return positions


def read(
    path: str | Path, *, labels: str = "required", species: tuple[int, ...] | None = None
) -> tuple[Dataset, str]:
    """Read a file of any format that ASE or `archives` reads; also say in one line what was taken.

    A `REF_…` key is taken where present and others are ignored; without one, two common names with
    different values are an error; `virial` = −V·stress. `labels` is "required" (some energy or
    force must be there), "optional" or "ignored". `species` are the atomic numbers that a model
    knows.

    Raises BadInput, naming the file and the structure, counted from 0.
    """
    if labels not in ("required", "optional", "ignored"):
        raise ValueError(f"labels must be required, optional or ignored, found {labels!r}")

    def place(i: int) -> str:
        return f"{path}: structure {i} (counting from 0)"

    frames = []
    for i, atoms in enumerate(stream_atoms(path)):
        try:
            frame = read_frame(atoms, known=tuple(species or ()), with_labels=labels != "ignored")
        except BadInput as error:
            raise BadInput(f"{place(i)}: {error}") from None
        frames.append(frame)
    taken, sources = choose_labels(frames, place)
    if labels == "required" and not (sources["energy"] or sources["forces"]):
        raise BadInput(
            f"{path}: no energies and no forces found; expected REF_energy or energy, "
            "REF_forces or forces"
        )
    dataset = append(empty(), [f.structure for f in frames], taken, [f.info for f in frames])
    told = _report(dataset, sources, ignored_keys(frames, sources))
    return dataset, told + archives.note(Path(path))


def write(path: str | Path, dataset: Dataset) -> None:
    """Write extxyz with REF_ keys and every digit, atomically; labels that are NaN are left out.

    Raises ValueError where a label is given for some atoms or components only.
    """
    frames = []
    for i in range(count(dataset)):
        try:
            frames.append(frame_text(structure(dataset, i), labels(dataset, i), dataset.info[i]))
        except ValueError as error:
            raise ValueError(f"structure {i}: {error}") from None
    write_file(Path(path), "".join(frames).encode())


def _row(dataset: Dataset, index: SupportsIndex, names: tuple[str, ...]) -> dict[str, Any]:
    index = range(count(dataset))[index]
    atoms = slice(dataset.offsets[index], dataset.offsets[index + 1])
    where = {name: atoms if name in _PER_ATOM else index for name in names}
    return {name: np.asarray(getattr(dataset, name)[where[name]]) for name in names}


def _structures(dataset: Dataset, members, shape: tuple[int, int], dtype) -> Structure:
    """The padded structures of one batch of `shape` (structures, atoms), on the device."""
    stacked = _stacked(dataset, members, Structure._fields, shape, 0)
    far = np.abs(stacked["positions"]).max(axis=(1, 2), initial=0.0) > NEAR_A
    for place in np.flatnonzero(far).tolist():
        atoms = stacked["species"][place] > 0
        moved = near_origin(stacked["positions"][place, atoms], stacked["cell"][place])
        stacked["positions"][place, atoms] = moved
    return Structure(**_on_device(stacked, dtype))


def _batch(dataset, members, shape: tuple[int, int], cutoff, dtype, size: TableSize) -> Batch:
    """One batch; its weights are 1 where there is a structure."""
    structures = _structures(dataset, members, shape, dtype)
    index = np.full(shape[0], -1)
    index[: len(members)] = members
    labels = _stacked(dataset, members, Labels._fields, shape, np.nan)
    return Batch(
        structures=structures,
        neighbors=batch_tables(structures, cutoff, size=size),
        labels=Labels(**_on_device(labels, dtype)),
        weights=jnp.asarray(index >= 0, dtype),
        index=jnp.asarray(index, jnp.int32),
    )


def _stacked(dataset: Dataset, members, names: tuple[str, ...], shape, missing) -> dict[str, Any]:
    """Each field of many structures as one padded array."""
    members = np.asarray(members)
    atoms = np.arange(shape[1])[None]
    real = atoms < sizes(dataset)[members][:, None]
    rows = (dataset.offsets[members][:, None] + atoms)[real]
    stacked = {}
    for name in names:
        values = getattr(dataset, name)
        if name in _PER_ATOM:
            array = np.full((*shape, *values.shape[1:]), missing, values.dtype)
            array[: len(members)][real] = values[rows]
        else:
            array = np.full((shape[0], *values.shape[1:]), missing, values.dtype)
            array[: len(members)] = values[members]
        stacked[name] = array
    return stacked


def _on_device(stacked: dict[str, np.ndarray], dtype) -> dict[str, Any]:
    """Floats as `dtype`, energies as precise as JAX allows, all else as int32."""
    wanted = {
        name: (jnp.result_type(float) if name == "energy" else dtype)
        if array.dtype.kind == "f"
        else jnp.int32
        for name, array in stacked.items()
    }
    return {name: jnp.asarray(array, wanted[name]) for name, array in stacked.items()}


def _report(dataset: Dataset, sources: dict[str, dict[str, int]], ignored: list[str]) -> str:
    taken = []
    for field in FIELDS:
        for key, times in sources[field].items():
            some = f" ({times} of {count(dataset)})" if times < count(dataset) else ""
            taken.append(f"{field.replace('_', ' ')} from {key}{some}")
    atoms = sizes(dataset)
    span = f"{atoms.min()}" if atoms.min() == atoms.max() else f"{atoms.min()}–{atoms.max()}"
    symbols = " ".join(chemical_symbols[z] for z in np.unique(dataset.species))
    passed = f"; ignored {', '.join(ignored)}" if ignored else ""
    noun = "structure" if count(dataset) == 1 else "structures"
    return (
        f"{', '.join(taken) or 'no labels'}; {count(dataset)} {noun}, {span} atoms, "
        f"species {symbols}{passed}"
    )
