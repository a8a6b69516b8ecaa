"""Molecules of QM9 in the format of their archive, `dsgdb9nsd.xyz.tar.bz2`.

133885 molecules of C, H, O, N and F with up to nine heavy atoms, relaxed with B3LYP/6-31G(2df,p):
R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data 1, 140022 (2014), doi
10.1038/sdata.2014.22. A file is, by the readme of the archive,

    line 1         number of atoms, n
    line 2         `gdb`, number, 15 properties: A B C mu alpha homo lumo gap r2 zpve U0 U H G Cv
    lines 3 … n+2  element, x, y, z (Å), Mulliken charge (e)
    line n+3       harmonic frequencies (1/cm)
    line n+4       SMILES from GDB-17, and of the relaxed geometry
    line n+5       InChI of both

with some numbers written as `1.2345*^-6`. The label is U0, the internal energy at 0 K, which
includes the zero-point energy, as in all benchmarks; it is a total energy, no reference subtracted.
The 3054 molecules of `uncharacterized.txt` changed into others as they relaxed.
"""

import re

import ase
import numpy as np
from ase.data import atomic_numbers

from alj.types import BadInput
from alj.units import HARTREE

PROPERTIES = (
    "A_GHz", "B_GHz", "C_GHz", "mu_D", "alpha_bohr3", "homo_hartree", "lumo_hartree",
    "gap_hartree", "r2_bohr2", "zpve_hartree", "U0_hartree", "U_hartree", "H_hartree",
    "G_hartree", "Cv_cal_per_mol_K",
)  # fmt: skip
"""What stands in line 2, in order, with its unit."""

REFERENCE = "B3LYP/6-31G(2df,p) U0 with zero-point energy (QM9)"

_NAME = re.compile(r"dsgdb9nsd_(\d+)\.xyz$")
_COLUMNS = "element, x, y, z, charge"


def number_of(name: str) -> int | None:
    """The number of the molecule in a file of this name; None where it is no file of QM9.

    >>> number_of("dsgdb9nsd_000058.xyz"), number_of("readme.txt")
    (58, None)
    """
    found = _NAME.search(name)
    return int(found.group(1)) if found else None


def numbers_in(text: str) -> frozenset[int]:
    """The numbers of the molecules that a list such as `uncharacterized.txt` gives."""
    words = (line.split() for line in text.splitlines())
    return frozenset(int(row[0]) for row in words if len(row) > 1 and row[0].isdigit())


def molecule_of(content: bytes, place: str) -> ase.Atoms:
    """The molecule in a file, with `REF_energy` (U0, eV), `REF_charges` (e) and all properties.

    Frequencies and InChI are left behind. Raises BadInput, which begins with `place`.
    """
    try:
        return _parsed(content.decode("utf-8"))
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"{place}: {error}; download the archive again") from None


def _parsed(text: str) -> ase.Atoms:
    lines = text.splitlines()
    count = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
    if count < 1:
        raise BadInput(f"expected the number of atoms in line 1, found {_shown(lines, 0)}")
    if len(lines) < count + 5:
        raise BadInput(
            f"expected {count + 5} lines for the {count} atoms of line 1, found {len(lines)}"
        )
    words = lines[1].split()
    if words[:1] != ["gdb"] or len(words) != 2 + len(PROPERTIES):
        raise BadInput(
            f"expected gdb, a number and {len(PROPERTIES)} properties in line 2, found "
            f"{_shown(lines, 1)}"
        )
    rows = [line.split() for line in lines[2 : count + 2]]
    for i, row in enumerate(rows):
        if len(row) != 5 or row[0] not in atomic_numbers:
            raise BadInput(
                f"expected {_COLUMNS} in each of the {count} lines after line 2, found "
                f"{_shown(lines, i + 2)} in line {i + 3}"
            )
    if len(lines[count + 2].split()) == 5 and lines[count + 2].split()[0] in atomic_numbers:
        raise BadInput(
            f"expected {count} atoms as line 1 says, found another one in line {count + 3}"
        )
    try:
        numbers = np.array([[_number(word) for word in row[1:]] for row in rows])
        properties = [_number(word) for word in words[2:]]
        index = int(words[1])
    except ValueError as error:
        raise BadInput(f"expected numbers in lines 2 to {count + 2}, {error}") from None
    atoms = ase.Atoms([atomic_numbers[row[0]] for row in rows], numbers[:, :3])
    atoms.set_array("REF_charges", numbers[:, 3])
    given = dict(zip(PROPERTIES, properties, strict=True))
    smiles = (*lines[count + 3].split(), "", "")
    atoms.info = {"REF_energy": given["U0_hartree"] * HARTREE, "reference": REFERENCE, "gdb": index}
    atoms.info |= {"smiles": smiles[1] or smiles[0], "smiles_gdb17": smiles[0], **given}
    return atoms


def _number(word: str) -> float:
    """A number; powers of ten may be written in the way of Mathematica.

    >>> _number("1.5*^-6")
    1.5e-06
    """
    return float(word.replace("*^", "e"))


def _shown(lines: list[str], index: int) -> str:
    return repr(lines[index][:60]) if index < len(lines) else "nothing"
