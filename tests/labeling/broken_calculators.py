"""ASE calculators that go wrong in every way that they can, by the keyword `how`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from ase.calculators.calculator import (
    BadConfiguration,
    CalculationFailed,
    Calculator,
    InputError,
    SCFError,
    all_changes,
)

VERSION = "here"


class Broken(Calculator):
    """Energy 1 eV, free energy 2 eV, forces 0, stress 0.1 eV/Å³; writes a file where it stands."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, *, how: str = "", charge: int = 0, spin: dict | None = None):
        super().__init__()
        self.how, self.charge, self.spin = how, charge, spin or {}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if Path("label.out").exists():
            raise RuntimeError("another label was here")
        getattr(self, self.how or "good")()

    def good(self):
        """Says where it stands, and what it was told."""
        Path("label.out").write_text("Total energy\n")
        sys.stdout.write("chatter\n")
        energy = 1.0 + 100 * self.charge + 10 * self.spin.get("unpaired", 0)
        self.results = {
            "energy": energy,
            "free_energy": energy + 1,
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": 0.1 * np.array([1, 1, 1, 0, 0, 0]),
        }

    def flagged(self):
        self.good()
        self.converged = False

    def silent(self):
        self.good()
        Path("label.out").write_text("Iteration 9\n *** WARNING SCF run NOT converged ***\n")

    def scf(self):
        raise SCFError("too many cycles")

    def failed(self):
        Path("label.out").write_text("last words")
        raise CalculationFailed("label failed in /x with error code 3")

    def said(self):
        raise CalculationFailed("The SCF did not converge in 100 cycles")

    def memory(self):
        Path("label.out").write_text("slurmstepd: error: Detected 1 oom-kill event")
        raise CalculationFailed("label failed in /x with error code 137")

    def shell(self):
        raise CalculationFailed('"nowhere > x" failed in /x with error code 127')

    def absent(self):
        subprocess.check_call(["nowhere", "-i", "x"])

    def configuration(self):
        raise BadConfiguration("no section [broken]")

    def keywords(self):
        raise InputError("cutoff must be positive")

    def unreadable(self):
        Path("label.out").write_text("half an output")
        raise IndexError("list index out of range")

    def nothing(self):
        Path("label.out").write_text("no forces here")
        self.results = {"energy": 1.0, "forces": None}

    def internal(self):
        raise ZeroDivisionError("division by zero")

    def element(self):
        raise NotImplementedError("No parameters for H")


class Forceless(Calculator):
    """Knows energies only."""

    implemented_properties = ["energy"]  # noqa: RUF012
