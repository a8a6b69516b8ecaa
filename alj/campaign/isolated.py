"""Isolated atoms in their ground states: what atomization energies are measured from.

Multiplicities 2S+1 are those of the ground levels in W. C. Martin, A. Musgrove, S. Kotochigova,
J. E. Sansonetti, NIST Standard Reference Database 111 (2013), doi:10.18434/T42P4C. They obey Hund's
first rule but for cerium, whose 4f and 5d electrons pair to a singlet (1G4).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from alj.campaign.built import Built, atomic_number
from alj.types import BadInput, Structure

_ROWS = (
    "H 2 He 1",
    "Li 2 Be 1 B 2 C 3 N 4 O 3 F 2 Ne 1",
    "Na 2 Mg 1 Al 2 Si 3 P 4 S 3 Cl 2 Ar 1",
    "K 2 Ca 1 Sc 2 Ti 3 V 4 Cr 7 Mn 6 Fe 5 Co 4 Ni 3 Cu 2 Zn 1 Ga 2 Ge 3 As 4 Se 3 Br 2 Kr 1",
    "Rb 2 Sr 1 Y 2 Zr 3 Nb 6 Mo 7 Tc 6 Ru 5 Rh 4 Pd 1 Ag 2 Cd 1 In 2 Sn 3 Sb 4 Te 3 I 2 Xe 1",
    "Cs 2 Ba 1 La 2 Ce 1 Pr 4 Nd 5 Pm 6 Sm 7 Eu 8 Gd 9 Tb 6 Dy 5 Ho 4 Er 3 Tm 2 Yb 1 Lu 2",
    "Hf 3 Ta 4 W 5 Re 6 Os 5 Ir 4 Pt 3 Au 2 Hg 1 Tl 2 Pb 3 Bi 4 Po 3 At 2 Rn 1",
)
_WORDS = " ".join(_ROWS).split()

GROUND_STATES: dict[int, int] = {
    atomic_number(symbol, "element"): int(multiplicity)
    for symbol, multiplicity in zip(_WORDS[::2], _WORDS[1::2], strict=True)
}
"""Multiplicity 2S+1 of the neutral atom in its ground state, by atomic number (1 to 86)."""


def isolated_atoms(species: Sequence[int]) -> list[Built]:
    """One neutral atom of each atomic number in vacuum, with its ground-state multiplicity.

    `info` has `config_type` "isolated_atom", by which energies of free atoms are told from others.
    Raises BadInput beyond radon.

    >>> [int(atom.structure.multiplicity) for atom in isolated_atoms([1, 6, 8, 24])]
    [2, 3, 3, 7]
    """
    return [_isolated(int(number)) for number in species]


def atoms(generator: np.random.Generator, count: int | None, *, elements: list[str]) -> list[Built]:
    """Isolated atoms with the multiplicities of their ground states.

    Args:
        elements: Chemical symbols, such as [H, C, O].

    Raises:
        BadInput: a symbol is unknown, beyond radon or given twice, or there is none.
    """
    if count is not None:
        raise BadInput(f"count: atoms come one for each element, found count {count}; leave it out")
    twice = [symbol for symbol in elements if elements.count(symbol) > 1]
    if not elements or twice:
        found = f"{twice[0]} twice" if twice else "none"
        raise BadInput(f"elements: expected different chemical symbols, found {found}")
    return isolated_atoms([atomic_number(symbol, "elements") for symbol in elements])


def _isolated(number: int) -> Built:
    if number not in GROUND_STATES:
        name = chemical_symbols[number] if 0 < number < len(chemical_symbols) else number
        raise BadInput(
            f"{name}: the ground states of elements from H to Rn are known here; write the atom "
            "and its multiplicity in a file"
        )
    fields: dict[str, Any] = {
        "positions": np.zeros((1, 3)),
        "species": np.array([number], np.int32),
        "cell": np.zeros((3, 3)),
        "charge": np.zeros((), np.int32),
        "multiplicity": np.array(GROUND_STATES[number], np.int32),
    }
    return Built(Structure(**fields), {"config_type": "isolated_atom"})
