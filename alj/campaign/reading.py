"""The strict door: from a file that ASE reads to structures and labels, or one clear line."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.db
import ase.io
import numpy as np
from ase.data import chemical_symbols
from ase.io.formats import UnknownFileTypeError, filetype

from alj.campaign import archives, h5md
from alj.geometry.overlaps import closest_below, flat_cell
from alj.types import BadInput, Labels, Structure

FIELDS = ("energy", "forces", "stress", "dipole", "charges", "atomic_energies")

_COMMON = {
    "energy": "energy totenergy totalenergy dftenergy qmenergy scfenergy potentialenergy epot etot",
    "forces": "forces force dftforces dftforce qmforces qmforce totforces",
    "stress": "stress dftstress qmstress",
    "virial": "virial virials dftvirial dftvirials qmvirial",
    "dipole": "dipole dipolemoment dftdipole qmdipole",
    "charges": "charges partialcharges atomiccharges",
    "atomic_energies": "energies atomicenergies atomenergies localenergies siteenergies",
}
_KIND_OF = {name: kind for kind, names in _COMMON.items() for name in names.split()}
_CHARGE = ("charge", "totalcharge")
_MULTIPLICITY = ("multiplicity", "spinmultiplicity", "spin")


class Frame(NamedTuple):
    """One structure of a file; `found` maps (field, whether a REF_ key) to {key: value}."""

    structure: Structure
    found: dict[tuple[str, bool], dict[str, np.ndarray]]
    info: dict[str, Any]


def read_atoms(path: str | Path) -> list[ase.Atoms]:
    """All configurations in a file of any format that ASE or `archives` reads. Raises BadInput."""
    return list(stream_atoms(path))


def stream_atoms(path: str | Path) -> Iterator[ase.Atoms]:
    """`read_atoms` one after another, for files that would fill the memory."""
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty; expected structures")
    if h5md.holds(path):
        yield from h5md.atoms_in(path)
        return
    if archives.holds(path):
        yield from archives.atoms_in(path)
        return
    count = 0
    try:
        for one in _frames(path):
            yield one
            count += 1
    except UnknownFileTypeError as error:
        raise BadInput(
            f"{path}: {error}; expected extxyz or another format that ASE reads"
        ) from None
    except Exception as error:  # ASE's readers raise whatever their parser stumbles on
        reason = (str(error).strip() or "the file ends too early").splitlines()[0]
        raise BadInput(
            f"{path}: structure {count} (counting from 0) cannot be read: "
            f"{type(error).__name__}: {reason}"
        ) from None
    if not count:
        raise BadInput(f"{path}: holds no structures")
    _refuse_hidden_frames(path)


def _frames(path: Path) -> Iterator[ase.Atoms]:
    if path.suffix != ".db":
        yield from ase.io.iread(str(path), index=":", do_not_split_by_at_sign=True)
        return
    for row in ase.db.connect(path).select():  # `ase.io` forgets the columns of a row
        atoms = row.toatoms()
        atoms.info |= row.key_value_pairs
        yield atoms


def structure_of(atoms: ase.Atoms, *, known: tuple[int, ...] = ()) -> Structure:
    """The checked structure of ASE atoms, float64 on the host. Raises BadInput without a place.

    Directions in which `pbc` is false get a zero row. `known` are the atomic numbers that a model
    knows, () for any. Charge and multiplicity come from `atoms.info`.
    """
    numbers, positions = atoms.numbers, np.array(atoms.positions, np.float64)
    if len(numbers) == 0:
        raise BadInput("has no atoms")
    if (numbers <= 0).any():
        i = int(np.argmax(numbers <= 0))
        raise BadInput(f"atom {i} has species X (atomic number 0); expected a chemical element")
    _check_known(numbers, known)
    _check_finite("coordinates", positions)
    cell = np.array(atoms.cell.array, np.float64)
    _check_finite("cell", cell)
    for axis in np.flatnonzero(atoms.pbc):
        if not cell[axis].any():
            raise BadInput(
                f"is periodic along direction {axis} but lattice vector {axis} is zero; "
                "give the cell or set pbc to F"
            )
    cell[~atoms.pbc] = 0.0
    if flat_cell(cell):
        raise BadInput("has a singular cell; expected independent lattice vectors in Å")
    pair = closest_below(positions, numbers, cell)
    if pair is not None:
        i, j, distance = pair
        raise BadInput(f"atoms {i} and {j} are on top of each other ({distance:.1e} Å apart)")
    charge, multiplicity = charge_and_multiplicity(atoms.info)
    fields: dict[str, Any] = {
        "positions": positions,
        "species": np.asarray(numbers, np.int32),
        "cell": cell,
        "charge": charge,
        "multiplicity": multiplicity,
    }
    return Structure(**fields)


def charge_and_multiplicity(info: dict) -> tuple[Any, Any]:
    """Total charge (e) and 2S+1 as a file or `atoms.info` gives them, else 0. Raises BadInput."""
    return _integer(info, _CHARGE), _integer(info, _MULTIPLICITY)


def read_frame(atoms: ase.Atoms, *, known: tuple[int, ...], with_labels: bool) -> Frame:
    """A structure with everything in it that may be a label. Raises BadInput without a place."""
    structure = structure_of(atoms, known=known)
    found: dict[tuple[str, bool], dict[str, np.ndarray]] = {}
    given = {**atoms.arrays, **atoms.info, **(atoms.calc.results if atoms.calc else {})}
    for key, value in given.items() if with_labels else ():
        kind, is_reference = _label_kind(key)
        if kind is not None and value is not None:
            field = "stress" if kind == "virial" else kind
            if field == "stress" and not structure.cell.any():
                continue  # a molecule has none, whatever a program prints
            array = _shaped(key, kind, value, len(structure.species))
            if kind == "virial":
                array = -array / _volume(np.asarray(structure.cell))
            found.setdefault((field, is_reference), {})[key] = array
    return Frame(structure, found, {**_columns(atoms), **_plain_info(atoms.info)})


def choose_labels(frames: list[Frame], place) -> tuple[list[Labels], dict[str, dict[str, int]]]:
    """The labels of all frames, and for each field which keys they came from, how often.

    Where any frame has a `REF_…` key for a field, only such keys count for it. `place(i)` names
    frame i in messages. Raises BadInput where two keys of equal rank disagree.
    """
    ranks = {field: any((field, True) in frame.found for frame in frames) for field in FIELDS}
    sources: dict[str, dict[str, int]] = {field: {} for field in FIELDS}
    labels = []
    for i, frame in enumerate(frames):
        values = {}
        for field in FIELDS:
            candidates = frame.found.get((field, ranks[field]), {})
            if candidates:
                key, values[field] = _agreed(candidates, field, place(i))
                sources[field][key] = sources[field].get(key, 0) + 1
        labels.append(empty_labels(len(frame.structure.species))._replace(**values))
    return labels, sources


def ignored_keys(frames: list[Frame], sources: dict[str, dict[str, int]]) -> list[str]:
    """Label-like keys that were passed over in favor of `REF_…` ones."""
    seen = {key for frame in frames for group in frame.found.values() for key in group}
    return sorted(seen - {key for keys in sources.values() for key in keys})


def empty_labels(atoms: int) -> Labels:
    """Labels of which nothing is given."""
    shapes = ((), (atoms, 3), (3, 3), (3,), (atoms,), (atoms,))
    fields: list[Any] = [np.full(shape, np.nan) for shape in shapes]
    return Labels(*fields)


def _label_kind(key: str) -> tuple[str | None, bool]:
    """Which label a key may hold, and whether it is a `REF_…` key."""
    normal = key.lower().replace("_", "").replace("-", "")
    if normal.startswith("ref") and normal[3:] in _KIND_OF:
        return _KIND_OF[normal[3:]], True
    return _KIND_OF.get(normal), False


def _shaped(key: str, kind: str, value, atoms: int) -> np.ndarray:
    """`value` as a finite array of the shape of its kind."""
    shape = {
        "energy": (),
        "forces": (atoms, 3),
        "dipole": (3,),
        "charges": (atoms,),
        "atomic_energies": (atoms,),
    }.get(kind, (3, 3))
    try:
        if isinstance(value, (bool, str, dict)):
            raise ValueError
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{key} is {value!r}; expected numbers") from None
    if kind in ("stress", "virial") and array.shape == (6,):
        array = array.reshape(6)[[0, 5, 4, 5, 1, 3, 4, 3, 2]]
    if array.size != np.prod(shape, dtype=int) or (array.ndim and array.shape[-1:] == (0,)):
        raise BadInput(f"{key} has the shape {array.shape}; expected {shape}")
    if kind in ("forces", "charges", "atomic_energies") and array.shape[0] != atoms:
        raise BadInput(f"{key} has the shape {array.shape}; expected {shape}")
    _check_finite(key, array)
    return array.reshape(shape)


def _agreed(candidates: dict[str, np.ndarray], field: str, place: str):
    """The first of several keys, which must all say the same."""
    (key, value), *others = candidates.items()
    for other, second in others:
        relative = 1e-4 if field == "stress" else 1e-8
        scale = float(np.abs(value).max(initial=0.0))
        if not np.allclose(value, second, rtol=0, atol=1e-6 + relative * scale):
            gap = np.abs(value - second).max()
            raise BadInput(
                f"{place}: {key} and {other} both give the {field} and differ by {gap:.3g}; "
                f"expected one; rename the right one to REF_{field}"
            )
    return key, value


def _check_known(numbers: np.ndarray, known: tuple[int, ...]):
    unknown = ~np.isin(numbers, known)
    if known and unknown.any():
        i = int(np.argmax(unknown))
        names = ", ".join(chemical_symbols[z] for z in known)
        raise BadInput(
            f"atom {i} is {chemical_symbols[numbers[i]]}, a species that the model does not know; "
            f"it knows {names}"
        )


def _check_finite(name: str, values: np.ndarray):
    if not np.isfinite(values).all():
        index = np.argwhere(~np.isfinite(values))[0]
        where = f" of atom {index[0]}" if values.ndim and name != "cell" else ""
        raise BadInput(f"{name}{where} is {values[tuple(index)]}; expected finite numbers")


def _integer(info: dict, names: tuple[str, ...]) -> np.ndarray:
    for key, value in info.items():
        if key.lower().replace("_", "") in names:
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = np.nan
            if number != np.round(number):
                raise BadInput(f"{key} is {value}; expected a whole number")
            return np.asarray(int(number), np.int32)
    return np.asarray(0, np.int32)


def _plain_info(info: dict) -> dict[str, Any]:
    """What else a file says about a structure, as plain Python values; labels left out."""
    plain = {}
    for key, value in info.items():
        if _label_kind(key)[0] or key.lower().replace("_", "") in (*_CHARGE, *_MULTIPLICITY):
            continue
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        if isinstance(value, (str, bool, int, float, list)):
            plain[str(key)] = value
    if "config_type" in plain:
        plain["config_type"] = str(plain["config_type"])
    return plain


def _columns(atoms: ase.Atoms) -> dict[str, Any]:
    """Numbers of the atoms that are neither labels nor ASE's own, as lists."""
    return {
        str(name): values.tolist()
        for name, values in atoms.arrays.items()
        if values.ndim == 1
        and values.dtype.kind == "f"
        and name not in _OWN_TO_ASE
        and _label_kind(name)[0] is None
    }


_OWN_TO_ASE = ("numbers", "positions", "momenta", "masses", "tags", "initial_charges",
               "initial_magmoms")  # fmt: skip


def _volume(cell: np.ndarray) -> float:
    """Å^3; of a slab its area times 1 Å, of a wire its length times 1 Å^2."""
    return float(np.prod(np.linalg.svd(cell[cell.any(axis=1)], compute_uv=False)))


def _refuse_hidden_frames(path: Path):
    """ASE stops at a blank line in an extxyz file and says nothing of the frames behind it."""
    if path.is_dir() or filetype(str(path)) not in ("extxyz", "xyz"):
        return
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for line in lines:
                if not line.strip():
                    break
                for _ in range(int(line) + 1):
                    next(lines)
            else:
                return
            behind = any(line.strip() for line in lines)
    except (StopIteration, ValueError, OSError):
        return  # another compression, or VEC lines: what ASE made of it stands
    if behind:
        raise BadInput(f"{path}: a blank line hides the structures behind it; remove the line")
