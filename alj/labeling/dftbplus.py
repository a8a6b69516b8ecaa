"""DFTB3 by DFTB+, from Slater–Koster files: molecules and crystals, one process for each label.

B. Hourahine et al., J. Chem. Phys. 152, 124101 (2020), doi 10.1063/1.5143190; third order: M. Gaus,
Q. Cui, M. Elstner, J. Chem. Theory Comput. 7, 931 (2011), doi 10.1021/ct100684s; 3ob-3-1: M. Gaus,
A. Goez, M. Elstner, J. Chem. Theory Comput. 9, 338 (2013), doi 10.1021/ct300849w, and M. Gaus,
X. Lu, M. Elstner, Q. Cui, ibid. 10, 1518 (2014), doi 10.1021/ct401002w.

The input is written here and `results.tag` is read: it has all digits, the energy that the forces
are the slopes of, and charges, where ASE's calculator reads the energy at 0 K from a table for
people.
"""

import functools
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr, Hartree

from alj.labeling.engine import Limits, labels_of
from alj.labeling.install import program
from alj.labeling.output import kind_of, newest_text
from alj.registry import plain
from alj.types import BadInput, LabelingFailed, Labels, Structure

HUBBARD_DERIVATIVES = {
    **{"H": -0.1857, "C": -0.1492, "N": -0.1535, "O": -0.1575, "F": -0.1623},
    **{"Na": -0.0454, "Mg": -0.02, "P": -0.14, "S": -0.11, "Cl": -0.0697, "K": -0.0339},
    **{"Ca": -0.0340, "Zn": -0.03, "Br": -0.0573, "I": -0.0433},
}
"""Of 3ob-3-1, in atomic units: the elements that it knows."""

HIGHEST_SHELLS = {
    "H": "s",
    **dict.fromkeys(("C", "N", "O", "F", "Na", "Mg", "K", "Ca"), "p"),
    **dict.fromkeys(("P", "S", "Cl", "Zn", "Br", "I"), "d"),
}
"""Highest angular momentum of the atomic orbitals in 3ob-3-1 (and in mio-1-1)."""


def dftbplus(
    *,
    slater_koster_folder: str = "",
    parameter_set: str = "3ob-3-1",
    third_order: bool = True,
    hubbard_derivatives: dict[str, float] | None = None,
    damping_exponent: float = 4.0,
    highest_shells: dict[str, str] | None = None,
    spin_constants: dict[str, list[float]] | None = None,
    electronic_temperature_K: float = 300.0,
    kpoints: tuple[int, int, int] = (1, 1, 1),
    dispersion: Literal["none", "D3(BJ)"] = "none",
    scc_tolerance: float = 1e-7,
    max_iterations: int = 250,
    command: str = "dftb+",
) -> "DftbPlus":
    """DFTB3 and DFTB2 of molecules and crystals by DFTB+, with files such as 3ob-3-1.

    Args:
        slater_koster_folder: Where `H-O.skf` and so on lie; nothing takes the environment's
            DFTB_PREFIX or SKDIR.
        parameter_set: The name of the files in that folder; part of a label's identity.
        third_order: DFTB3; false for DFTB2, with a parameter set made for it.
        hubbard_derivatives: For each element, atomic units; null for those of 3ob-3-1.
        damping_exponent: ζ, that damps the interaction with hydrogen in third order.
        highest_shells: s, p, d or f for each element; null for those of 3ob-3-1.
        spin_constants: For each element the W matrix in hartree, shell by shell as in the
            manual (`H: [-0.072]`, `O: [-0.035, -0.030, -0.030, -0.028]`); needed for open shells.
        electronic_temperature_K: Of the Fermi filling.
        kpoints: Monkhorst–Pack grid of crystals.
        dispersion: `D3(BJ)` adds that of Brandenburg and Grimme for DFTB3/3ob.
        scc_tolerance: Largest change of a charge, e.
        max_iterations: Of the self-consistent charges.
        command: The program, perhaps with what starts it (`mpirun -n 4 dftb+`).
    """
    shells = dict(HIGHEST_SHELLS if highest_shells is None else highest_shells)
    for symbol, shell in shells.items():
        if shell not in ("s", "p", "d", "f") or symbol not in atomic_numbers:
            raise BadInput(f"highest_shells: expected `O: p` or so, found {symbol}: {shell}")
    derivatives = HUBBARD_DERIVATIVES if hubbard_derivatives is None else hubbard_derivatives
    if min(kpoints) < 1:
        raise BadInput(f"kpoints: expected three numbers of 1 or more, found {list(kpoints)}")
    return DftbPlus(
        slater_koster_folder=slater_koster_folder,
        parameter_set=parameter_set,
        third_order=third_order,
        hubbard_derivatives=dict(derivatives),
        damping_exponent=damping_exponent,
        highest_shells=shells,
        spin_constants=plain(spin_constants or {}),
        electronic_temperature_K=electronic_temperature_K,
        kpoints=kpoints,
        dispersion=dispersion,
        scc_tolerance=scc_tolerance,
        max_iterations=max_iterations,
        command=command,
    )


@dataclass(frozen=True)
class DftbPlus:
    """See `dftbplus`."""

    slater_koster_folder: str
    parameter_set: str
    third_order: bool
    hubbard_derivatives: dict[str, float]
    damping_exponent: float
    highest_shells: dict[str, str]
    spin_constants: dict[str, list[float]]
    electronic_temperature_K: float
    kpoints: tuple[int, int, int]
    dispersion: str
    scc_tolerance: float
    max_iterations: int
    command: str

    name: ClassVar[str] = "dftbplus"
    periodic: ClassVar[bool] = True
    electrons: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(max_energy_eV_per_atom=0.0, max_net_force_eV_per_A=1e-3)

    @property
    def elements(self) -> tuple[int, ...]:
        """Those for which all that the method needs is known."""
        known = set(self.highest_shells)
        if self.third_order:
            known &= set(self.hubbard_derivatives)
        return tuple(sorted(atomic_numbers[symbol] for symbol in known))

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers: how the program is started, and where files lie, does not."""
        hidden = ("command", "slater_koster_folder")
        return plain({key: value for key, value in asdict(self).items() if key not in hidden})

    @property
    def convention(self) -> str:
        """What its energies are."""
        order = "DFTB3" if self.third_order else "DFTB2"
        extra = "" if self.dispersion == "none" else f"-{self.dispersion}"
        return f"{order}{extra}/{self.parameter_set} free energy of the filled levels"

    def version(self) -> str:
        """Program and version. Raises BadInput where it is not installed."""
        return _version(tuple(self._program()))

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point, in a folder of its own. Raises LabelingFailed, BadInput."""
        started = self._program()
        files = self._files(structure)
        text = dftb_in(self, structure, multiplicity, files)
        with tempfile.TemporaryDirectory(prefix="alj-dftbplus-") as name:
            folder = Path(name)
            (folder / "dftb_in.hsd").write_text(text)
            with (folder / "log").open("wb") as log:
                status = subprocess.run(
                    started, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                ).returncode
            spoken = (folder / "log").read_text(errors="replace")
            tail = newest_text(folder)
            if status != 0 or "SCC is NOT converged" in spoken:
                message = _complaint(spoken) or f"DFTB+ ended with exit status {status}"
                raise LabelingFailed(kind_of(spoken), message, tail)
            try:
                tags = read_tags((folder / "results.tag").read_text())
                return _labels(tags, structure)
            except FileNotFoundError:
                raise LabelingFailed("parse", "DFTB+ wrote no results.tag", tail) from None
            except (KeyError, ValueError) as error:
                message = f"results.tag cannot be used: {' '.join(str(error).split())}"
                raise LabelingFailed("parse", message, tail) from None

    def _program(self) -> list[str]:
        words = shlex.split(self.command)
        if not words:
            raise BadInput("command: expected a program such as dftb+, found an empty text")
        if words[0] == "dftb+":
            return [program("dftb+"), *words[1:]]
        return words

    def _files(self, structure: Structure) -> str:
        """The folder of the Slater–Koster files, which has every pair of this structure.

        Raises BadInput without the folder, LabelingFailed where a pair is missing.
        """
        found = self.slater_koster_folder or next(
            (os.environ[name] for name in ("DFTB_PREFIX", "SKDIR") if os.environ.get(name)), ""
        )
        if not found:
            raise BadInput(
                f"slater_koster_folder: not given, nor is DFTB_PREFIX or SKDIR set; get "
                f"{self.parameter_set} from https://dftb.org/parameters and say where it lies"
            )
        folder = Path(found).expanduser().absolute()
        if not folder.is_dir():
            raise BadInput(f"slater_koster_folder: there is no folder {folder}")
        symbols = sorted({chemical_symbols[int(z)] for z in structure.species})
        names = [f"{a}-{b}.skf" for a in symbols for b in symbols]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise LabelingFailed("bad_input", f"{folder} has no {', '.join(missing)}")
        return str(folder)


def dftb_in(engine: DftbPlus, structure: Structure, multiplicity: int, folder: str) -> str:
    """The input file `dftb_in.hsd` of one single point. Raises LabelingFailed.

    In the words of DFTB+ 21.1 (parser version 10), which later versions translate.
    """
    species = np.asarray(structure.species)
    symbols = [chemical_symbols[z] for z in sorted({int(z) for z in species})]
    hamiltonian = [
        "SCC = Yes",
        f"SCCTolerance = {engine.scc_tolerance!r}",
        f"MaxSCCIterations = {engine.max_iterations}",
        f"Charge = {int(structure.charge)}",
        f"Filling = Fermi {{ Temperature [Kelvin] = {engine.electronic_temperature_K!r} }}",
        _block("SlaterKosterFiles", _file_names(folder), "Type2FileNames "),
        _block("MaxAngularMomentum", {s: f'"{engine.highest_shells[s]}"' for s in symbols}),
    ]
    if engine.third_order:
        derivatives = {s: repr(engine.hubbard_derivatives[s]) for s in symbols}
        hamiltonian += [
            "ThirdOrderFull = Yes",
            _block("HubbardDerivs", derivatives),
            f"HCorrection = Damping {{ Exponent = {engine.damping_exponent!r} }}",
        ]
    if multiplicity > 1:
        hamiltonian += _spins(engine, symbols, multiplicity)
    if np.asarray(structure.cell).any():
        hamiltonian.append(_kpoints(engine.kpoints))
    if engine.dispersion == "D3(BJ)":
        # G. Brandenburg, S. Grimme, J. Phys. Chem. Lett. 5, 1785 (2014), doi 10.1021/jz500755u
        damping = _block("Damping", {"a1": "0.746", "a2": "4.191"}, "BeckeJohnson ")
        hamiltonian.append(f"Dispersion = DftD3 {{\n{damping}\n  s6 = 1.0\n  s8 = 3.209\n  }}")
    inner = "\n".join(f"  {line}" for line in hamiltonian)
    return (
        f"{_geometry(structure, symbols)}"
        f"Hamiltonian = DFTB {{\n{inner}\n}}\n"
        "Options { WriteResultsTag = Yes }\n"
        "Analysis { CalculateForces = Yes }\n"
        "ParserOptions { ParserVersion = 10 }\n"
    )


def _block(name: str, values: Mapping[str, str], method: str = "") -> str:
    """`name = method {…}`, one value on a line: a value ends where its line does."""
    inner = "\n".join(f"    {key} = {value}" for key, value in values.items())
    return f"{name} = {method}{{\n{inner}\n  }}"


def _file_names(folder: str) -> dict[str, str]:
    return {"Prefix": f'"{folder}/"', "Separator": '"-"', "Suffix": '".skf"'}


def _geometry(structure: Structure, symbols: list[str]) -> str:
    positions = np.asarray(structure.positions, np.float64)
    rows = [
        f"    {symbols.index(chemical_symbols[int(z)]) + 1} {' '.join(map(repr, row.tolist()))}"
        for z, row in zip(structure.species, positions, strict=True)
    ]
    quoted = '" "'.join(symbols)
    lines = [
        "Geometry = {",
        f'  TypeNames = {{ "{quoted}" }}',
        "  TypesAndCoordinates [Angstrom] = {",
        *rows,
        "  }",
    ]
    cell = np.asarray(structure.cell, np.float64)
    if cell.any():
        if not cell.any(axis=1).all():
            raise LabelingFailed(
                "bad_input", "DFTB+ knows molecules and crystals, nothing periodic in one direction"
            )
        vectors = [f"    {' '.join(map(repr, row.tolist()))}" for row in cell]
        lines += ["  Periodic = Yes", "  LatticeVectors [Angstrom] = {", *vectors, "  }"]
    return "\n".join([*lines, "}", ""])


def _spins(engine: DftbPlus, symbols: list[str], multiplicity: int) -> list[str]:
    missing = [symbol for symbol in symbols if symbol not in engine.spin_constants]
    if missing:
        raise LabelingFailed(
            "bad_input",
            f"multiplicity {multiplicity} needs `spin_constants` of {', '.join(missing)}",
        )
    constants = {s: f"{{ {' '.join(map(repr, engine.spin_constants[s]))} }}" for s in symbols}
    return [
        f"SpinPolarisation = Colinear {{ UnpairedElectrons = {multiplicity - 1} }}",
        _block("SpinConstants", {"ShellResolvedSpin": "Yes", **constants}),
    ]


def _kpoints(grid: tuple[int, int, int]) -> str:
    """The Monkhorst–Pack grid: points of an even one are moved by half a step."""
    rows = [" ".join(str(n if i == j else 0) for j in range(3)) for i, n in enumerate(grid)]
    shifts = " ".join("0.5" if n % 2 == 0 else "0.0" for n in grid)
    inner = "\n".join(f"    {row}" for row in [*rows, shifts])
    return f"KPointsAndWeights = SupercellFolding {{\n{inner}\n  }}"


def read_tags(text: str) -> dict[str, np.ndarray]:
    """Arrays in DFTB+'s tagged format, `name :real:2:3,5` and numbers, column by column.

    Raises ValueError for a file that ends too early.

    >>> read_tags("forces   :real:2:3,1\\n 0.1E+001 0.2E+001 0.3E+001\\n")["forces"].tolist()
    [[1.0, 2.0, 3.0]]
    """
    found = {}
    parts = _TAG.split(text)
    for name, kind, _, shape, body in zip(*(parts[i::5] for i in range(1, 6)), strict=True):
        if kind != "real":
            continue
        sizes = [int(size) for size in shape.split(",") if size]
        values = np.array(body.split(), np.float64)
        if values.size != int(np.prod(sizes)):
            raise ValueError(f"{name}: expected {int(np.prod(sizes))} numbers, found {values.size}")
        found[name] = values.reshape(sizes[::-1])
    return found


_TAG = re.compile(r"^(\w[\w-]*) *:(real|integer|complex|logical):(\d+):([\d,]*) *$", re.M)


def _labels(tags: Mapping[str, np.ndarray], structure: Structure) -> Labels:
    """Raises KeyError, ValueError."""
    names = ("forcerelated_energy", "mermin_energy", "total_energy")
    energy = next((tags[name] for name in names if name in tags), None)
    if energy is None or "forces" not in tags:
        raise KeyError("energy or forces are not in it")
    atoms, periodic = len(structure.species), bool(np.asarray(structure.cell).any())
    if tags["forces"].shape != (atoms, 3):
        raise ValueError(f"forces on {len(tags['forces'])} atoms, expected {atoms}")
    stress = -tags["stress"] * Hartree / Bohr**3 if periodic and "stress" in tags else None
    dipole = None if periodic else tags.get("dipole_moments")
    return labels_of(
        atoms,
        float(energy) * Hartree,
        tags["forces"] * Hartree / Bohr,
        stress=stress,
        dipole=None if dipole is None else dipole.reshape(-1, 3)[0] * Bohr,
        charges=tags.get("gross_atomic_charges"),
    )


def _complaint(spoken: str) -> str:
    """What stands after `ERROR!` in the output."""
    lines = [line.strip("-> ").strip() for line in spoken.partition("ERROR!")[2].splitlines()]
    return " ".join(line for line in lines if line)[:300]


@functools.cache
def _version(started: tuple[str, ...]) -> str:
    """What the banner says; the program itself is the last word that is not an option."""
    alone = [word for word in started if not word.startswith("-")][-1]
    with tempfile.TemporaryDirectory() as folder:
        try:
            said = subprocess.run(
                [alone, "--version"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            raise BadInput(f"command: `{alone}` cannot be started; is DFTB+ installed?") from None
    found = re.search(r"DFTB\+ (?:release |development )?(?:version )?(.*?)\s*\|?\s*$", said, re.M)
    return f"DFTB+ {found.group(1)}".strip() if found else "DFTB+"
