"""MOPAC: PM6, PM7 and other semiempirical Hamiltonians, one process for each label.

J. J. P. Stewart, J. Mol. Model. 13, 1173 (2007), doi 10.1007/s00894-007-0233-4 (PM6); J. Mol.
Model. 19, 1 (2013), doi 10.1007/s00894-012-1667-x (PM7); program: doi 10.5281/zenodo.6511958.

Numbers are read from the auxiliary file, which has them in full. What MOPAC 22 says is checked
against what it did: it exits with 0 whatever happens, and after an SCF without convergence it goes
on, prints an energy, and calls the field achieved.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.units import Debye

from alj.labeling.engine import Limits, labels_of
from alj.labeling.install import program
from alj.types import LabelingFailed, Labels, Structure
from alj.units import KCAL_PER_MOL

_PM6 = (*range(1, 58), *range(71, 84))
_MNDO = (*range(1, 21), *range(30, 39), *range(49, 57), *range(80, 84))

ELEMENTS = {
    "PM7": _PM6,
    "PM6": _PM6,
    "PM6-D3H4": _PM6,
    "PM6-ORG": (1, 6, 7, 8, 9, 11, 12, 15, 16, 17, 19, 20, 26, 27, 29, 30, 34, 35, 53),
    "RM1": (1, 6, 7, 8, 9, 15, 16, 17, 35, 53),
    "PM3": (*_MNDO, 48),
    "AM1": (*_MNDO, 42),
    "MNDO": _MNDO,
}
"""Atomic numbers that each method has parameters for (without the sparkles for lanthanides)."""

ANALYTIC = ("PM6", "RM1", "PM3", "AM1", "MNDO")
"""Methods whose gradient in MOPAC is the slope of their energy, to 1e-4 eV/Å."""


def mopac(
    *,
    method: Literal["PM7", "PM6", "PM6-D3H4", "PM6-ORG", "RM1", "PM3", "AM1", "MNDO"] = "PM6",
    forces: Literal["automatic", "analytic", "finite_differences"] = "automatic",
    amide_correction: bool = False,
    converger: Literal["standard", "pulay", "camp_king"] = "standard",
    max_iterations: int = 2000,
    accuracy: float = 1.0,
) -> "Mopac":
    """PM6, PM7 and other semiempirical methods of MOPAC, of molecules; one process a label.

    Args:
        method: The Hamiltonian.
        forces: Where the forces come from. MOPAC's gradient of the hydrogen-bond and dispersion
            corrections in PM7, PM6-D3H4 and PM6-ORG is not the slope of its energy (wrong by up to
            0.02 eV/Å in (H2O)9): `automatic` takes central differences of the energy for them,
            6 calculations for each atom, and the gradient for the others.
        amide_correction: Add the molecular-mechanics term for the torsion of peptide bonds, as
            MOPAC itself does. It hangs on which atoms count as bonded, so the energy has steps.
        converger: Help for the self-consistent field.
        max_iterations: Of the self-consistent field.
        accuracy: Factor on the threshold of the self-consistent field; smaller is tighter.
    """
    if forces == "automatic":
        forces = "analytic" if method in ANALYTIC else "finite_differences"
    return Mopac(method, forces, amide_correction, converger, max_iterations, accuracy)


@dataclass(frozen=True)
class Mopac:
    """See `mopac`."""

    method: str
    forces: str
    amide_correction: bool
    converger: str
    max_iterations: int
    accuracy: float

    name: ClassVar[str] = "mopac"
    periodic: ClassVar[bool] = False
    electrons: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(max_energy_eV_per_atom=10.0, max_net_force_eV_per_A=0.01)

    @property
    def elements(self) -> tuple[int, ...]:
        """Those that the method has parameters for."""
        return ELEMENTS[self.method]

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers."""
        return asdict(self)

    @property
    def convention(self) -> str:
        """What its energies are: MOPAC calls what has no corrections in it the total energy."""
        amide = " with amide correction" if self.amide_correction else ""
        return f"{self.method}{amide}, total energy with all corrections (not heat of formation)"

    def version(self) -> str:
        """Program and version. Raises BadInput where it is not installed."""
        return _version(program("mopac"))

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point, in a temporary folder of its own (TMPDIR).

        Raises LabelingFailed `not_converged`, `parse`, `crash`, `unphysical` (numbers too large to
        be printed) or `infrastructure` (no room for temporary files).
        """
        executable = program("mopac")
        keywords = self._keywords(structure, multiplicity)
        positions = np.asarray(structure.positions, np.float64)
        text = _job(keywords + _GRADIENTS, structure.species, positions)
        if self.forces == "finite_differences":
            moved = _displaced(positions)
            text += "".join(_job(keywords, structure.species, one) for one in moved)
        output = _run(executable, text)
        jobs = _energies(output)
        if len(jobs) != text.count(keywords):
            raise _failed("parse", "expected the results of every calculation", output)
        energy = jobs[0] - _number(output, r"ENERGY OF ATOMS\s+=\s+(\S+) KCAL/MOL", output.log)
        if self.forces == "finite_differences":
            slopes = (np.array(jobs[1::2]) - np.array(jobs[2::2])) / (2 * _STEP_A)
        elif len(positions) == 1:
            slopes = np.zeros(3)  # nothing is printed for a single atom
        else:
            slopes = _array(output, "GRADIENTS:KCAL/MOL/ANGSTROM", 3 * len(positions))
        charges = _array(output, "ATOM_CHARGES", len(positions))
        return labels_of(
            len(positions),
            energy * KCAL_PER_MOL,
            -slopes.reshape(-1, 3) * KCAL_PER_MOL,
            dipole=_dipole(output, structure),
            charges=charges,
        )

    def _keywords(self, structure: Structure, multiplicity: int) -> str:
        """All but the gradient. GEO-OK: close atoms are for us to judge; XYZ: coordinates are
        Cartesian also where there are three atoms or less; DISP: the parts of the energy."""
        words = [self.method, "1SCF", "XYZ", "GEO-OK", "DISP", "THREADS=1", "PRECISE"]
        words.append("AUX(PRECISION=9,MOS=0,XP,XS,XW)")
        words.append(f"SCFCRT={_KCAL_PER_MOL_SCF * self.accuracy:.3e}".replace("e", "D"))
        words.append(f"ITRY={self.max_iterations}")
        words.append("MMOK" if self.amide_correction else "NOMM")
        words.append(f"CHARGE={int(structure.charge)}")
        if multiplicity > 1:
            words.append(f"UHF MS={(multiplicity - 1) / 2:.1f}")
        if self.converger != "standard":
            words.append({"pulay": "PULAY", "camp_king": "CAMP"}[self.converger])
        return " ".join(words)


class _Output(NamedTuple):
    """What a run left behind: exit status, auxiliary file, output file; "" for a missing file."""

    status: int
    auxiliary: str
    log: str


_GRADIENTS = " GRADIENTS"
_GIVEN_UP = "UNABLE TO ACHIEVE SELF-CONSISTENCE"
_KCAL_PER_MOL_SCF = 1e-8
"""Forces are right to 4e-5 eV/Å; MOPAC's own 1e-4 leaves 6e-4. Below 1e-8 the last digits of an
energy stand in the way: 125 water molecules take six times as long."""
_STEP_A = 5e-4


def _job(keywords: str, species, positions: np.ndarray) -> str:
    """One calculation of an input file; the 1 after a number makes its derivative known."""
    symbols = [chemical_symbols[int(z)] for z in species]
    rows = [
        f"{symbol} {x:.12f} 1 {y:.12f} 1 {z:.12f} 1"
        for symbol, (x, y, z) in zip(symbols, positions, strict=True)
    ]
    return "\n".join([keywords, "", "", *rows, "", ""])


def _displaced(positions: np.ndarray) -> np.ndarray:
    """Each coordinate one step up, then down."""
    steps = _STEP_A * np.eye(positions.size).reshape(-1, *positions.shape)
    return np.stack([positions + steps, positions - steps], axis=1).reshape(-1, *positions.shape)


def _run(executable: str, text: str) -> _Output:
    """Run MOPAC on an input; its chatter goes nowhere. Raises LabelingFailed."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        with tempfile.TemporaryDirectory(prefix="alj-mopac-") as folder:
            (Path(folder) / "label.mop").write_text(text)
            done = subprocess.run(
                [executable, "label.mop"],
                cwd=folder,
                env={**threads, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            auxiliary, log = (_read(Path(folder) / f"label.{ending}") for ending in ("aux", "out"))
    except OSError as error:
        raise LabelingFailed("infrastructure", f"cannot run mopac: {error}") from None
    return _Output(done.returncode, auxiliary, log)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _energies(output: _Output) -> list[float]:
    """Heats of formation in kcal/mol, as many as calculations. Raises LabelingFailed."""
    if output.status:
        reason = f"by signal {-output.status}" if output.status < 0 else f"with {output.status}"
        raise _failed("crash", f"mopac ended {reason}", output)
    cycles = re.findall(r"NUMBER_SCF_CYCLES=\s*(\d+)", output.auxiliary)
    bare = re.search(r"NUM_ELECTRONS=0*\s", output.auxiliary)  # a sodium ion needs no cycles
    if _GIVEN_UP in output.log or ("0" in cycles and not bare):
        raise _failed("not_converged", "the self-consistent field did not converge", output)
    complaint = _complaint(output.log)
    if complaint:
        raise _failed("crash", f"mopac stopped: {complaint}", output)
    found = re.findall(r"HEAT_OF_FORMATION:KCAL/MOL=\s*(\S+)", output.auxiliary)
    achieved = output.log.count("SCF FIELD WAS ACHIEVED")
    if not found or not (len(found) == len(cycles) == achieved):
        raise _failed("parse", "the output of mopac has no energy, or is cut short", output)
    return [_float(text, output) for text in found]


def _complaint(log: str) -> str:
    """What stands in the box of error messages; "" without one."""
    begin = log.find("messages reported in this calculation")
    if begin < 0:
        return ""
    lines = (line.strip(" *") for line in log[begin:].splitlines()[1:])
    words = [line for line in lines if line and line != "JOB ENDED NORMALLY"]
    return "; ".join(words[:3])[:300]


def _array(output: _Output, name: str, count: int) -> np.ndarray:
    """The first array of that name in the auxiliary file. Raises LabelingFailed."""
    found = re.search(rf"{re.escape(name)}\[[^\]]*\]=([^=]*)\n [A-Z#]", output.auxiliary)
    words = found.group(1).split() if found else []
    if len(words) != count:
        raise _failed("parse", f"expected {count} numbers in {name}", output)
    return np.array([_float(word, output) for word in words])


def _number(output: _Output, pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise _failed("parse", "the parts of the energy are missing in the output", output)
    return _float(found.group(1), output)


def _float(word: str, output: _Output) -> float:
    """A number as Fortran writes it, such as -0.54D+02. Raises LabelingFailed."""
    if "*" in word:
        raise _failed("unphysical", "a number is too large to be printed", output)
    try:
        return float(word.replace("D", "E"))
    except ValueError:
        raise _failed("parse", f"expected a number, found {word[:40]!r}", output) from None


def _dipole(output: _Output, structure: Structure) -> np.ndarray:
    """In e Å about the origin; that of an ion is printed about the center of mass."""
    if len(structure.species) == 1:
        return int(structure.charge) * np.asarray(structure.positions, np.float64)[0]
    printed = _array(output, "DIP_VEC:DEBYE", 3) * Debye
    masses = atomic_masses[np.asarray(structure.species)]
    center = masses @ np.asarray(structure.positions, np.float64) / masses.sum()
    return printed + int(structure.charge) * center


def _failed(kind: str, message: str, output: _Output) -> LabelingFailed:
    """The failure with the end of the output, or with the place where the field was given up."""
    log, place = output.log, output.log.find(_GIVEN_UP)
    if place >= 0:
        log = log[: place + 600]
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    return LabelingFailed(kind, message, "\n".join(lines[-40:])[-3000:])


@cache
def _version(executable: str) -> str:
    """What `mopac --version` says, asked once."""
    try:
        with tempfile.TemporaryDirectory(prefix="alj-mopac-") as folder:
            done = subprocess.run(
                [executable, "--version"],
                cwd=folder,  # an old MOPAC takes this for an input file, and writes an output
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=20,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return "mopac"
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return f"mopac {found.group()}" if found else "mopac"
