"""What the stand-ins of programs share: they check what they are asked before they answer."""

import os
import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[2] / "data" / "engines"

MODE = os.environ.get("ALJ_STANDIN", "converged")
"""`converged`, `unconverged`, `truncated` or `killed`."""


def check(atoms, program: str) -> None:
    """End with an error unless the input is for the structure whose answer we have."""
    import ase.io

    asked = ase.io.read(DATA / program / "structure.extxyz")
    same = len(atoms) == len(asked) and (atoms.numbers == asked.numbers).all()
    if not same or np.abs(atoms.positions - asked.positions).max() > 1e-6:
        sys.exit(f"{program}: the input has other atoms: {atoms}")
    if asked.pbc.all() and np.abs(atoms.cell.array - asked.cell.array).max() > 1e-6:
        sys.exit(f"{program}: the input has another cell: {atoms.cell}")


def answer(program: str, suffix: str) -> str:
    """What the program printed; half of it for `truncated`."""
    if MODE == "killed":
        os.kill(os.getpid(), 9)
    name = "unconverged" if MODE == "unconverged" else "converged"
    text = (DATA / program / f"{name}{suffix}").read_text()
    return text[: len(text) // 2] if MODE == "truncated" else text
