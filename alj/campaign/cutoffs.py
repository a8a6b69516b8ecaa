"""A cutoff that sees no neighbor teaches nothing: refused before anything is computed."""

import ase
import numpy as np
from ase.neighborlist import neighbor_list

from alj.types import BadInput, Structure

_LOOKED_AT = 8


def check_cutoff(structures: list[Structure], cutoff: float) -> None:
    """Raise BadInput where none of the first few structures has a pair within `cutoff` (Å)."""
    for structure in structures[:_LOOKED_AT]:
        cell = np.asarray(structure.cell)
        atoms = ase.Atoms(
            np.asarray(structure.species),
            np.asarray(structure.positions),
            cell=cell,
            pbc=np.any(cell != 0, axis=1),
        )
        if len(neighbor_list("i", atoms, cutoff)):
            return
    raise BadInput(
        f"potential: no atom has a neighbor within the cutoff of {cutoff} Å; expected a larger "
        "cutoff_A (are the positions in Å?)"
    )
