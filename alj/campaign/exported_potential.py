"""A potential without the program that trained it: needs JAX, and flatbuffers for its export.

An archive written by `alj export` holds this file. It can be imported from there:

    import sys
    sys.path.insert(0, "water.zip")
    import exported_potential
    potential = exported_potential.load("water.zip")
    found = potential(positions, species, cell)
    found["energy"], found["forces"], found["stress"]

Positions and cell (rows are lattice vectors, a zero row is not periodic) in Å, species are atomic
numbers; energies in eV, forces in eV/Å, stress in eV/Å^3 (tension positive). Of a committee the
answer is the mean, `energy_spread` and `forces_spread` are standard deviations over its members.

The archive: `model.json` says what it is, `parameters.npz` are the parameters, `programs/` are
StableHLO programs as `jax.export` serializes them, which later versions of JAX read (at least those
of the next six months; others where they keep the promise that StableHLO makes, of five years).
Nothing in it is executed but by XLA.
"""

import importlib
import io
import json
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from scipy.spatial import KDTree


def load(path: str | Path) -> "ExportedPotential":
    """The potential in an archive. Raises ValueError where the file is no such archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("model.json"))
            stored = np.load(io.BytesIO(archive.read("parameters.npz")), allow_pickle=False)
            names = [program["file"] for program in about["programs"]]
            programs = [bytearray(archive.read(name)) for name in names]
    except (zipfile.BadZipFile, KeyError, FileNotFoundError) as error:
        raise ValueError(f"{path} is no exported potential: {error}") from None
    parameters = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    return ExportedPotential(about, parameters, programs)


class ExportedPotential:
    """See `load`. `about` says what it is: species, cutoff in Å, members, where it came from."""

    def __init__(self, about: dict[str, Any], parameters: list, programs: list[bytearray]):
        self.about = about
        self.cutoff: float = about["cutoff_A"]
        with _double_precision():
            self._parameters = [jax.numpy.asarray(each) for each in parameters]
        self._programs = list(zip(about["programs"], programs, strict=True))
        self._ready: dict[int, Callable] = {}

    def __call__(
        self, positions, species, cell=None, *, charge: int = 0, multiplicity: int = 0
    ) -> dict[str, Any]:
        """Everything that it says of one structure, in float64 on the host. Raises ValueError."""
        positions = np.asarray(positions, np.float64).reshape(-1, 3)
        species = np.asarray(species, np.int32)
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, np.float64).reshape(3, 3)
        self._check(positions, species, cell)
        indices, shifts = neighbors(positions, cell, self.cutoff)
        place, rows, columns = self._fitting(len(positions), indices.shape[1])
        padded = _padded(positions, species, indices, shifts, rows, columns)
        x, z, table, images = padded
        with _double_precision():
            answer = self.program(place)(
                self._parameters, x, z, cell, np.int32(charge), np.int32(multiplicity),
                table, images,
            )  # fmt: skip
        names = ("energy", "forces", "stress", "atomic_energies", "energy_spread", "forces_spread")
        found = {
            name: np.asarray(value, np.float64) for name, value in zip(names, answer, strict=False)
        }
        for name in ("forces", "atomic_energies", "forces_spread"):
            if name in found:
                found[name] = found[name][: len(positions)]
        return {name: float(v) if v.ndim == 0 else v for name, v in found.items()}

    def program(self, place: int = 0) -> Callable:
        """A program of the archive, to be called or built into others, with `jax_enable_x64` on.

        `program(parameters, positions, species, cell, charge, multiplicity, indices, shifts)`, with
        the table that `neighbors` makes, padded, gives the values of `__call__` in that order.
        """
        if place not in self._ready:
            self._ready[place] = jax.jit(export.deserialize(self._programs[place][1]).call)
        return self._ready[place]

    def _fitting(self, atoms: int, wide: int) -> tuple[int, int, int]:
        """Which program to use, and how many rows and columns it wants."""
        for place, (shape, _) in enumerate(self._programs):
            rows = -(-atoms // shape["multiple"]) * shape["multiple"]
            most = shape["columns"]
            if shape["fewest"] <= rows <= shape["most"] and (most is None or wide <= most):
                columns = most or max(8, -(-wide // 8) * 8)
                return place, rows, columns
        largest = max(shape["most"] for shape, _ in self._programs)
        raise ValueError(
            f"no program in the archive holds {atoms} atoms with {wide} neighbors each: the "
            f"largest holds {largest} atoms; export the model again with a larger --atoms"
        )

    def _check(self, positions, species, cell) -> None:
        if len(positions) != len(species):
            raise ValueError(f"{len(positions)} positions but {len(species)} species")
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise ValueError("positions or cell are not finite")
        known = self.about["species"]
        unknown = sorted(set(species.tolist()) - set(known)) if known else []
        if unknown:
            raise ValueError(f"the potential knows the atomic numbers {known}, found {unknown}")


def neighbors(positions, cell, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Every image of every atom nearer than the cutoff: indices (atoms, columns) and shifts.

    Rows are padded with the number of atoms; `shifts` count the lattice vectors to be added.
    """
    atoms, periodic = len(positions), cell.any(axis=1)
    inverse = np.linalg.pinv(cell)
    wraps = np.floor(positions @ inverse) * periodic
    wrapped = positions - wraps @ cell
    reach = np.zeros(3, int)
    reach[periodic] = np.ceil(cutoff * np.linalg.norm(inverse[:, periodic], axis=0)).astype(int)
    offsets = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    images = (wrapped[None] + (offsets @ cell)[:, None]).reshape(-1, 3)
    found = KDTree(images).query_ball_point(wrapped, cutoff, return_sorted=True)
    middle = int(np.flatnonzero(~offsets.any(axis=1))[0]) * atoms
    rows = [np.array([n for n in row if n != middle + i], int) for i, row in enumerate(found)]
    columns = max((len(row) for row in rows), default=0)
    indices = np.full((atoms, columns), atoms, np.int32)
    shifts = np.zeros((atoms, columns, 3), np.int32)
    for i, row in enumerate(rows):
        others = row % atoms
        indices[i, : len(row)] = others
        shifts[i, : len(row)] = offsets[row // atoms] - wraps[others] + wraps[i]
    return indices, shifts


def _padded(positions, species, indices, shifts, rows: int, columns: int):
    """Positions, species and table of `rows` atoms and `columns` neighbors."""
    atoms, wide = indices.shape
    x, z = np.zeros((rows, 3)), np.zeros(rows, np.int32)
    x[:atoms], z[:atoms] = positions, species
    table = np.full((rows, columns), rows, np.int32)
    table[:atoms, :wide] = np.where(indices == atoms, rows, indices)
    images = np.zeros((rows, columns, 3), np.int32)
    images[:atoms, :wide] = shifts
    return x, z, table, images


def _double_precision():
    scoped = getattr(jax, "enable_x64", None)
    if scoped is None:  # jax < 0.8 keeps it under jax.experimental
        scoped = importlib.import_module("jax.experimental").enable_x64
    return scoped(True)
