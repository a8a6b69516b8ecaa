"""Trajectory files that a kill cannot spoil: extxyz, H5MD, and a table of observables.

Frames come in segments, one for each walk of a block. A file says how far it is (`position`); the
checkpoint of the walk remembers that, and `rewind` cuts off whatever was written behind it. Texts
are appended and truncated. An HDF5 file that is cut off while it is written is lost, so blocks wait
beside it and join it in a copy that takes its place, whenever they have grown to its size.

extxyz: positions in Å, not wrapped, `momenta` in ASE's unit, (amu eV)^½, so that `get_velocities`
works, `masses` where they are not the elements', `energy` in eV and `forces` in eV/Å. H5MD 1.1: P.
de Buyl, P. H. Colberg, F. Höfling, Comput. Phys. Commun. 185, 1546 (2014),
doi:10.1016/j.cpc.2014.01.018.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.units import fs as ASE_FEMTOSECOND
from jaxtyping import Float, Int

from alj.campaign import trees
from alj.campaign.store import disk_full_is_clear, write_file
from alj.campaign.trees import storable
from alj.types import BadInput

UNITS = {
    "eV": "eV",
    "eV_per_A": "eV Angstrom-1",
    "A": "Angstrom",
    "A3": "Angstrom+3",
    "K": "K",
    "bar": "bar",
    "fs": "fs",
}
"""Units of observables in H5MD, by the end of their names."""


@storable
class Segment(NamedTuple):
    """Consecutive frames of one walk. Units: Å, Å/fs, eV/Å, amu, fs (NaN where there is no time).

    `step` counts frames from 1; `velocities` and `forces` are None where there are none;
    `observables` are series with their units in their names.
    """

    walk: int
    step: Int[np.ndarray, " frames"]
    time_fs: Float[np.ndarray, " frames"]
    positions: Float[np.ndarray, "frames atoms 3"]
    cell: Float[np.ndarray, "frames 3 3"]
    species: Int[np.ndarray, " atoms"]
    masses: Float[np.ndarray, " atoms"]
    velocities: Float[np.ndarray, "frames atoms 3"] | None
    forces: Float[np.ndarray, "frames atoms 3"] | None
    observables: dict[str, Any]


class Text:
    """A text file of frames; `write(segments)` gives the text of a block."""

    def __init__(self, path: Path, write, head: str = ""):
        self.path, self._write, self._head = path, write, head

    def append(self, segments: Sequence[Segment]) -> None:
        """Append one block and force it to disk."""
        text = self._write(segments)
        with disk_full_is_clear(self.path), self.path.open("ab") as file:
            if file.tell() == 0:
                file.write(self._head.encode())
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def position(self) -> int:
        """Its size in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def rewind(self, position: int) -> None:
        """Cut it. Raises BadInput where it is shorter than it was."""
        if self.position() < position:
            raise BadInput(
                f"{self.path} is shorter than when it was written: expected {position} bytes, "
                f"found {self.position()}; restore it, or choose another folder"
            )
        if self.path.exists():
            os.truncate(self.path, position)

    def settle(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """It always is complete."""


def extxyz(path: Path) -> Text:
    """The trajectory as extxyz: step by step, and walk by walk within a step."""
    return Text(path, _frames_text)


def table(path: Path, columns: Sequence[str]) -> Text:
    """The observables as comma-separated values, a line for each frame; empty where not known."""

    def rows(segments: Sequence[Segment]) -> str:
        lines = []
        for segment, i in _in_order(segments):
            values = [segment.observables.get(name) for name in columns]
            head = f"{segment.walk},{segment.step[i]},{_number(segment.time_fs[i])}"
            cells = [_number(None if series is None else series[i]) for series in values]
            lines.append(",".join([head, *cells]) + "\n")
        return "".join(lines)

    return Text(path, rows, head=",".join(["walk", "step", "time_fs", *columns]) + "\n")


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table written by `table`; NaN where a value is not known."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    rows = [[float(cell) if cell else np.nan for cell in line.split(",")] for line in lines[1:]]
    columns = np.array(rows, float).reshape(-1, len(names)).T
    return dict(zip(names, columns, strict=True))


class H5md:
    """The trajectory as H5MD: `particles/walk_0000`, `observables/walk_0000`, and so on."""

    def __init__(self, path: Path, creator: str):
        self.path, self.creator = path, creator
        self.waiting = path.parent / "blocks"
        self._blocks = self._joined()

    def append(self, segments: Sequence[Segment]) -> None:
        """Put a block beside the file; join them where blocks outweigh it."""
        data = trees.encode(list(segments))
        write_file(self._block(self._blocks), data)
        self._blocks += 1

    def position(self) -> int:
        """The number of blocks."""
        return self._blocks

    def rewind(self, position: int) -> None:
        """Forget later blocks. Raises BadInput where the file holds more than the checkpoint."""
        joined = self._joined()
        if joined > position:
            raise BadInput(
                f"{self.path} holds more than the checkpoint beside it; restore both from one copy"
            )
        for file in self.waiting.glob("*.tree"):
            if not joined <= int(file.stem) < position:
                file.unlink()
        for index in range(joined, position):
            if not self._block(index).exists():
                raise BadInput(f"{self._block(index)} is missing; restore it from a copy")
        self._blocks = position

    def settle(self) -> None:
        """After a checkpoint: join the blocks where they have grown to the size of the file."""
        size = self.path.stat().st_size if self.path.exists() else 0
        waiting = sum(file.stat().st_size for file in self.waiting.glob("*.tree"))
        if waiting > max(size, 1 << 26):
            self.finish()

    def finish(self) -> None:
        """Join the blocks that wait with the file, in a copy of it that takes its place."""
        joined = self._joined()
        if joined == self._blocks:
            return
        copy = self.path.with_name(f".writing-{self.path.name}")
        with disk_full_is_clear(self.path):
            if self.path.exists():
                shutil.copyfile(self.path, copy)
            else:
                copy.unlink(missing_ok=True)
            with h5py.File(copy, "a") as file:
                self._head(file)
                for index in range(joined, self._blocks):
                    where = self._block(index)
                    for segment in trees.decode(where.read_bytes(), str(where)):
                        _append_segment(file, segment)
                file["h5md"].attrs["alj_blocks"] = self._blocks
            with copy.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(copy, self.path)
        shutil.rmtree(self.waiting)

    def _block(self, index: int) -> Path:
        return self.waiting / f"{index:06d}.tree"

    def _joined(self) -> int:
        if not self.path.exists():
            return 0
        try:
            with h5py.File(self.path, "r") as file:
                return int(np.asarray(file["h5md"].attrs["alj_blocks"]))
        except (OSError, KeyError):
            raise BadInput(f"{self.path} is damaged or not a trajectory of alj") from None

    def _head(self, file: h5py.File) -> None:
        if "h5md" in file:
            return
        head = file.create_group("h5md")
        head.attrs["version"] = np.array([1, 1], np.int32)
        head.create_group("author").attrs["name"] = os.environ.get("USER", "unknown")
        creator = head.create_group("creator")
        creator.attrs["name"], creator.attrs["version"] = "alj", self.creator
        head.create_group("modules/units").attrs["version"] = np.array([1, 0], np.int32)


Writer = Text | H5md
"""A file that grows by blocks of segments."""


def _append_segment(file: h5py.File, segment: Segment) -> None:
    name = f"walk_{segment.walk:04d}"
    group = file.require_group(f"particles/{name}")
    if "box" not in group:
        periodic = segment.cell[0].any(axis=1)
        box = group.create_group("box")
        box.attrs["dimension"] = 3
        box.attrs["boundary"] = np.array(["periodic" if p else "none" for p in periodic], "S")
        group["species"] = segment.species
        group["mass"] = segment.masses
        group["mass"].attrs["unit"] = "amu"
    clock = segment.step, segment.time_fs
    _extend(group, "position", segment.positions, "Angstrom", clock)
    if segment.cell[0].any():
        _extend(group, "box/edges", segment.cell, "Angstrom", clock)
    if segment.velocities is not None:
        _extend(group, "velocity", segment.velocities, "Angstrom fs-1", clock)
    if segment.forces is not None:
        _extend(group, "force", segment.forces, "eV Angstrom-1", clock)
    observables = file.require_group(f"observables/{name}")
    for key, values in segment.observables.items():
        fits = [end for end in UNITS if key.endswith(f"_{end}")]
        unit = UNITS[max(fits, key=len)] if fits else ""
        _extend(observables, key, np.asarray(values), unit, clock)


def _extend(group: h5py.Group, name: str, values: np.ndarray, unit: str, clock) -> None:
    """Append to an element of H5MD: `value` with `step` and `time`."""
    element: Any = group.require_group(name)
    for part, data, mark in (
        ("value", values, unit),
        ("step", clock[0], ""),
        ("time", clock[1], "fs"),
    ):
        if part not in element:
            whole = (None, *data.shape[1:])
            element.create_dataset(part, data=data, maxshape=whole, chunks=True)
            if mark:
                element[part].attrs["unit"] = mark
        else:
            dataset = element[part]
            dataset.resize(len(dataset) + len(data), axis=0)
            dataset[-len(data) :] = data


def _in_order(segments: Sequence[Segment]):
    """(segment, frame) step by step, walk by walk."""
    order = [(int(s.step[i]), s.walk, s, i) for s in segments for i in range(len(s.step))]
    return [(s, i) for _, _, s, i in sorted(order, key=lambda one: one[:2])]


def _frames_text(segments: Sequence[Segment]) -> str:
    return "".join(_frame_text(segment, i) for segment, i in _in_order(segments))


def _frame_text(segment: Segment, i: int) -> str:
    """One frame; `repr` gives the shortest digits that read back to the same number."""
    columns, properties = [segment.positions[i]], "species:S:1:pos:R:3"
    if segment.velocities is not None:
        columns.append(segment.masses[:, None] * segment.velocities[i] / ASE_FEMTOSECOND)
        properties += ":momenta:R:3"
    if not np.array_equal(segment.masses, atomic_masses[segment.species]):
        columns.append(segment.masses[:, None])
        properties += ":masses:R:1"
    if segment.forces is not None and np.isfinite(segment.forces[i]).all():
        columns.append(segment.forces[i])
        properties += ":forces:R:3"
    cell = segment.cell[i]
    head = f'Lattice="{" ".join(map(_number, cell.reshape(-1)))}" ' if cell.any() else ""
    periodic = " ".join("FT"[int(row.any())] for row in cell)
    head += f'Properties={properties} pbc="{periodic}" walk={segment.walk} step={segment.step[i]}'
    given: Mapping[str, Any] = {"time_fs": segment.time_fs, **segment.observables}
    for name, values in given.items():
        if np.isfinite(values[i]):
            head += f" {'energy' if name == 'energy_eV' else name}={_number(values[i])}"
    rows = np.concatenate([np.asarray(c, float) for c in columns], axis=1).tolist()
    symbols = (chemical_symbols[number] for number in segment.species)
    lines = [
        f"{symbol} {' '.join(map(repr, row))}" for symbol, row in zip(symbols, rows, strict=True)
    ]
    return "\n".join([str(len(lines)), head, *lines, ""])


def _number(value) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return repr(float(value)) if not isinstance(value, (int, np.integer)) else str(int(value))
