"""One extxyz frame as text, with every digit that it takes to read back the same numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str

from alj.campaign.reading import FIELDS
from alj.types import Labels, Structure


def frame_text(structure: Structure, labels: Labels, info: Mapping[str, Any]) -> str:
    """An unpadded structure, its labels under REF_ keys (those that are NaN left out), and `info`.

    Raises ValueError where a label is given for some atoms or components only.
    """
    given = {}
    for field in FIELDS:
        value = np.asarray(getattr(labels, field))
        missing = np.isnan(value)
        if missing.any() and not missing.all():
            raise ValueError(f"{field} is given in part; extxyz cannot say so")
        if missing.size and not missing.any():
            given[field] = value
    columns, properties = [np.asarray(structure.positions)], "species:S:1:pos:R:3"
    for field in ("forces", "charges", "atomic_energies"):
        if field in given:
            columns.append(given[field].reshape(len(structure.species), -1))
            properties += f":REF_{field}:R:{columns[-1].shape[1]}"
    cell = np.asarray(structure.cell)
    head = f'Lattice="{_numbers(cell)}" ' if cell.any() else ""
    head += f'Properties={properties} pbc="{" ".join("FT"[int(row.any())] for row in cell)}"'
    for name in ("charge", "multiplicity"):
        value = int(getattr(structure, name))
        head += f" {name}={value}" if value else ""
    head += f" REF_energy={float(given['energy'])!r}" if "energy" in given else ""
    for field in ("stress", "dipole"):
        head += f' REF_{field}="{_numbers(given[field])}"' if field in given else ""
    head += f" {key_val_dict_to_str(info)}" if info else ""
    body = zip(np.asarray(structure.species), np.concatenate(columns, axis=1).tolist(), strict=True)
    lines = [f"{chemical_symbols[z]} {' '.join(map(repr, row))}" for z, row in body]
    return "\n".join([str(len(lines)), head.replace("\n", " "), *lines, ""])


def _numbers(array: np.ndarray) -> str:
    return " ".join(map(repr, array.reshape(-1).tolist()))
