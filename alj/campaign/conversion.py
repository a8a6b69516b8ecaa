"""Data sets from one format to another: extxyz, ASE database, H5MD, and Chemiscope to look at them.

Whatever can be read (`reading`) can be converted; labels travel under the names that each format
has for them. Chemiscope (https://chemiscope.org): G. Fraux, R. K. Cersonsky, M. Ceriotti, J. Open
Source Softw. 5, 2117 (2020), doi:10.21105/joss.02117.
"""

import gzip
import json
import shutil
import tempfile
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses, chemical_symbols
from ase.db import connect

from alj.campaign import datasets, h5md
from alj.campaign.datasets import Dataset
from alj.campaign.models import Model
from alj.campaign.store import write_file
from alj.campaign.trajectories import H5md, Segment
from alj.labeling.atoms import atoms_of
from alj.types import BadInput

FORMATS = {
    "extxyz": (".extxyz", ".xyz"),
    "ase": (".db",),
    "h5md": h5md.SUFFIXES,
    "chemiscope": (".json", ".json.gz"),
}
"""What can be written, by the end of the name."""


def format_of(path: Path) -> str:
    """Raises BadInput where the end of the name says nothing."""
    for name, ends in FORMATS.items():
        if path.name.lower().endswith(ends):
            return name
    ends = ", ".join(end for each in FORMATS.values() for end in each)
    raise BadInput(f"{path}: expected a name that ends in one of {ends}")


def write_as(path: Path, dataset: Dataset, model: Model | None = None) -> str:
    """Write a data set in the format that its name says; what was left out, in words.

    `model` adds its errors and a map of its features to Chemiscope's file. Raises BadInput.
    """
    kind = format_of(path)
    if kind == "extxyz":
        datasets.write(path, dataset)
        return ""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        note = {"ase": _database, "h5md": _trajectory}.get(kind, _nothing)(made, dataset)
        if kind == "chemiscope":
            data = json.dumps(chemiscope(dataset, model, name=path.name), allow_nan=False).encode()
            made.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        write_file(path, made.read_bytes())
    return note


def chemiscope(dataset: Dataset, model: Model | None = None, *, name: str = "") -> dict[str, Any]:
    """A data set as Chemiscope's JSON: structures, and properties that all of them have."""
    sizes = datasets.sizes(dataset)
    kinds = [str(info.get("config_type", "default")) for info in dataset.info]
    columns: dict[str, tuple[Any, str]] = {
        "index": (np.arange(len(sizes)), ""),
        "atoms": (sizes, ""),
        "energy per atom": (dataset.energy / sizes, "eV"),
        "largest force": (_largest(dataset.forces, dataset.offsets), "eV/Å"),
        **_of_info(dataset),
        **(_of_model(dataset, model) if model is not None else {}),
    }
    properties: dict[str, Any] = {
        key: {"target": "structure", "values": np.asarray(values).tolist(),
              **({"units": unit} if unit else {})}
        for key, (values, unit) in columns.items()
        if len(values) and np.isfinite(values).all()
    }  # fmt: skip
    properties["config_type"] = {"target": "structure", "values": kinds}
    axes = [
        key for key in ("component 1", "component 2", "energy per atom", "largest force", "index")
        if key in properties
    ]  # fmt: skip
    color = {"color": {"property": "energy per atom"}} if "energy per atom" in properties else {}
    shown = dict(zip(("x", "y"), ({"property": key} for key in axes), strict=False))
    return {
        "meta": {"name": name, "description": f"{len(sizes)} structures, written by alj"},
        "properties": properties,
        "structures": [_structure(dataset, i) for i in range(len(sizes))],
        "settings": {"map": {**shown, **color}},
    }


def _structure(dataset: Dataset, index: int) -> dict[str, Any]:
    one = datasets.structure(dataset, index)
    x, y, z = np.asarray(one.positions).T.tolist()
    symbols = [chemical_symbols[number] for number in np.asarray(one.species)]
    cell = np.asarray(one.cell)
    whole = {"cell": cell.reshape(-1).tolist()} if cell.any(axis=1).all() else {}
    return {"size": len(symbols), "names": symbols, "x": x, "y": y, "z": z, **whole}


def _of_info(dataset: Dataset) -> dict[str, tuple[Any, str]]:
    """Numbers that a file gives for every structure."""
    found = {}
    for key in dataset.info[0] if dataset.info else ():
        values = [info.get(key) for info in dataset.info]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            found[key] = (np.array(values, float), "")
    return found


def _of_model(dataset: Dataset, model: Model) -> dict[str, tuple[Any, str]]:
    """Errors, spreads, and the two principal components of the last-layer features."""
    from alj.campaign.evaluate import predict
    from alj.campaign.evidence import gather

    sizes, found = datasets.sizes(dataset), predict(model, dataset)
    columns: dict[str, tuple[Any, str]] = {
        "energy error": (1000.0 * (found.energy - dataset.energy) / sizes, "meV/atom"),
        "largest force error": (_largest(found.forces - dataset.forces, dataset.offsets), "eV/Å"),
    }
    if model.members > 1:
        columns["energy spread"] = (1000.0 * found.energy_spread / sizes, "meV/atom")
        columns["largest force spread"] = (_largest(found.forces_spread, dataset.offsets), "eV/Å")
    readout = model.params.get("readout") if isinstance(model.params, dict) else None
    if readout and len(sizes) > 2:
        found_features = gather(model.potential, model.params, dataset, dataset, ("features",))
        features = np.asarray(found_features.features)
        centered = features - features.mean(axis=0)
        left, values, _ = np.linalg.svd(centered, full_matrices=False)
        for i in range(min(2, len(values))):
            columns[f"component {i + 1}"] = (left[:, i] * values[i], "")
    return columns


def _largest(vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The longest vector of each structure."""
    return np.maximum.reduceat(np.linalg.norm(vectors, axis=1), offsets[:-1])


def _nothing(path: Path, dataset: Dataset) -> str:
    return ""


def _database(path: Path, dataset: Dataset) -> str:
    """ASE's database (SQLite); what it cannot keep as a column is in `data`."""
    opened: Any = connect(path, type="db")
    with opened as database:
        for i in range(datasets.count(dataset)):
            labels, info = datasets.labels(dataset, i), dict(dataset.info[i])
            one = datasets.structure(dataset, i)
            atoms = atoms_of(one)
            given: dict[str, Any] = {
                name: np.asarray(value)
                for name, value in labels._asdict().items()
                if np.size(value) and np.isfinite(value).all()
            }
            given.pop("atomic_energies", None)
            if "energy" in given:
                given["energy"] = float(given["energy"])
            atoms.calc = SinglePointCalculator(atoms, **given) if given else None
            columns = {"total_charge": int(one.charge), "multiplicity": int(one.multiplicity)}
            columns |= {key: v for key, v in info.items() if _is_column(key, v)}
            database.write(
                atoms, data={"info": info}, **{k: v for k, v in columns.items() if v != 0}
            )
    lost = np.isfinite(dataset.atomic_energies).any()
    return "atomic energies are left out" if lost else ""


def _is_column(key: str, value: Any) -> bool:
    """ASE refuses names that are no identifiers or its own, and texts that read as numbers."""
    from ase.db.core import check

    try:
        check({key: value})
    except (ValueError, TypeError):
        return False
    return isinstance(value, (int, float, str))


def _trajectory(path: Path, dataset: Dataset) -> str:
    """H5MD: structures of the same atoms, one after the other, are a walk."""
    keys = [
        (datasets.structure(dataset, i).species.tobytes(), bool(dataset.cell[i].any()))
        for i in range(datasets.count(dataset))
    ]
    segments = []
    for walk, (_, members) in enumerate(groupby(range(len(keys)), key=keys.__getitem__)):
        segments.append(_segment(dataset, walk, list(members)))
    writer = H5md(path, version("alj"))
    writer.append(segments)
    writer.finish()
    shutil.rmtree(writer.waiting, ignore_errors=True)
    left = [name for name in ("stress", "dipole") if np.isfinite(getattr(dataset, name)).any()]
    return f"{' and '.join(left)} are left out" if left else ""


def _segment(dataset: Dataset, walk: int, members: list[int]) -> Segment:
    part = datasets.select(dataset, members)
    frames, species = len(members), datasets.structure(part, 0).species
    forces = part.forces.reshape(frames, -1, 3)
    times = [info.get("time_fs", np.nan) for info in part.info]
    return Segment(
        walk=walk,
        step=np.arange(1, frames + 1),
        time_fs=np.array(times, float),
        positions=part.positions.reshape(frames, -1, 3),
        cell=part.cell,
        species=np.asarray(species),
        masses=atomic_masses[np.asarray(species)],
        velocities=None,
        forces=forces if np.isfinite(forces).any() else None,
        observables={"energy_eV": part.energy} if np.isfinite(part.energy).any() else {},
    )
