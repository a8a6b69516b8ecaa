"""The stored map of a data set: projections onto the plane, columns to color by, and geometries.

One uncompressed `map.npz` in the run folder. It is written under one rename, read in parts (a
single structure costs a few kilobytes, not the file) and needs NumPy only, so that a viewer of ten
gigabytes starts no JAX. Its arrays, for n structures:

* `about`: a JSON text; `projections` maps names to `{title, x, y}`, `columns` names to
  `{title, unit, log}`, `categories` names of columns to the words that their numbers stand for;
* `projection:NAME` (n, 2), NaN where a structure is no landmark of that projection;
* `column:NAME` (n,), NaN or -1 where unknown;
* `hash` (n,), the structure's row in the ledger, empty for labels that were given;
* `species`, `positions` (Å), `cell` (n, 3, 3), `offsets` (n + 1): structure i is the rows
  offsets[i]:offsets[i+1];
* optional, of a clustering of the same features: `nodes:NAME` (k, 2) in a projection,
  `node_class` (k,), `edges` (m, 2), and a column `class` of the structures.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAME = "map.npz"
FORMAT = 1


class DataMap(NamedTuple):
    """A map without its geometries. Keys are the names in `about`; see the file's description."""

    about: dict[str, Any]
    projections: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    nodes: dict[str, np.ndarray]
    node_class: np.ndarray | None
    edges: np.ndarray | None

    @property
    def count(self) -> int:
        """The number of structures."""
        return len(next(iter(self.projections.values()), ()))


class Geometry(NamedTuple):
    """One structure of a map: atomic numbers, positions in Å, lattice vectors in rows."""

    species: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    hash: str


def encode(
    about: Mapping[str, Any],
    projections: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    geometries: Mapping[str, np.ndarray],
    hashes: list[str],
    *,
    nodes: Mapping[str, np.ndarray] | None = None,
    node_class: np.ndarray | None = None,
    edges: np.ndarray | None = None,
) -> bytes:
    """The bytes of a map; `geometries` has `species`, `positions`, `cell` and `offsets`."""
    arrays: dict[str, np.ndarray] = {
        "about": np.array(json.dumps({**about, "format": FORMAT})),
        "hash": np.array(hashes or [""], dtype="S64")[: len(hashes)],
        "species": np.asarray(geometries["species"], np.uint8),
        "positions": np.asarray(geometries["positions"], np.float32),
        "cell": np.asarray(geometries["cell"], np.float32),
        "offsets": np.asarray(geometries["offsets"], np.int64),
    }
    arrays |= {f"projection:{k}": np.asarray(v, np.float32) for k, v in projections.items()}
    arrays |= {f"column:{k}": _small(v) for k, v in columns.items()}
    arrays |= {f"nodes:{k}": np.asarray(v, np.float32) for k, v in (nodes or {}).items()}
    if node_class is not None:
        arrays["node_class"] = np.asarray(node_class, np.int32)
    if edges is not None:
        arrays["edges"] = np.asarray(edges, np.int32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def read(folder: str | Path) -> DataMap | None:
    """The map of a run without its geometries, None where there is none.

    Raises ValueError where the file is none that `encode` wrote.
    """
    with _opened(folder) as arrays:
        if arrays is None:
            return None
        about = json.loads(str(arrays["about"]))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError("the map was written by another version of alj")
        named: dict[str, dict[str, np.ndarray]] = {"projection": {}, "column": {}, "nodes": {}}
        for member in arrays.files:
            kind, _, name = member.partition(":")
            if name and kind in named:
                named[kind][name] = arrays[member]
        lengths = {len(v) for kind in ("projection", "column") for v in named[kind].values()}
        if len(lengths) > 1:
            raise ValueError("the arrays of the map have different lengths")
        optional = {n: arrays[n] if n in arrays.files else None for n in ("node_class", "edges")}
        return DataMap(about, named["projection"], named["column"], named["nodes"], **optional)


def read_geometry(folder: str | Path, index: int) -> Geometry:
    """One structure. Raises IndexError where there is none, ValueError where it is damaged."""
    with _zip(folder) as archive:
        if archive is None:
            raise IndexError(index)
        shape = _header(archive, "offsets")[0]
        if not 0 <= index < shape[0] - 1:
            raise IndexError(index)
        first, last = _rows(archive, "offsets", index, index + 2)
        return Geometry(
            species=_rows(archive, "species", int(first), int(last)),
            positions=_rows(archive, "positions", int(first), int(last)),
            cell=_rows(archive, "cell", index, index + 1)[0],
            hash=_rows(archive, "hash", index, index + 1)[0].decode(),
        )


def _small(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.int32 if values.dtype.kind in "iub" else np.float32)


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[Any]:
    """The arrays of the map, None where there is no file."""
    try:
        arrays = np.load(Path(folder) / NAME, allow_pickle=False)
    except FileNotFoundError:
        yield None
        return
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"the map is damaged ({error})") from None
    with arrays:
        try:
            yield arrays
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"the map is damaged ({error})") from None


@contextlib.contextmanager
def _zip(folder: str | Path) -> Iterator[zipfile.ZipFile | None]:
    try:
        archive = zipfile.ZipFile(Path(folder) / NAME)
    except FileNotFoundError:
        yield None
        return
    except zipfile.BadZipFile as error:
        raise ValueError(f"the map is damaged ({error})") from None
    with archive:
        try:
            yield archive
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"the map is damaged ({error})") from None


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{member}.npy") as file:
        return _read_header(file)


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError("the map is damaged (unknown version of an array)")
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("the map is damaged (unexpected layout of an array)")
    return shape, dtype


def _rows(archive: zipfile.ZipFile, member: str, first: int, last: int) -> np.ndarray:
    """Some rows of an array; members are not compressed, so nothing before them is read."""
    with archive.open(f"{member}.npy") as file:
        shape, dtype = _read_header(file)
        if not 0 <= first <= last <= shape[0]:
            raise ValueError("the map is damaged (rows beyond the end of an array)")
        size = int(np.prod(shape[1:], dtype=int)) * dtype.itemsize
        file.seek(first * size, io.SEEK_CUR)
        data = file.read((last - first) * size)
    if len(data) != (last - first) * size:
        raise ValueError("the map is damaged (an array is cut off)")
    return np.frombuffer(data, dtype).reshape(last - first, *shape[1:])
