"""Any calculator of the Atomic Simulation Environment (ASE) as a reference, by its import path.

A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017), doi 10.1088/1361-648X/aa680e.

Every label has a calculator of its own in a folder of its own, which is the working folder of the
process meanwhile: some calculators write where they stand, and two that stood in one place would
read each other's output. What programs do without failing (an unconverged SCF that prints an
energy all the same) is looked for in what they wrote.
"""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase.calculators.calculator import (
    BadConfiguration,
    CalculatorSetupError,
    PropertyNotImplementedError,
    SCFError,
    all_changes,
)
from ase.calculators.genericfileio import BaseProfile
from ase.data import atomic_numbers

from alj.labeling.atoms import atoms_of, labels_from
from alj.labeling.engine import Limits
from alj.labeling.output import kind_of, newest_text, unconverged
from alj.registry import plain
from alj.types import BadInput, LabelingFailed, Labels, Structure


def ase(
    *,
    calculator: str,
    keywords: dict | None = None,
    profile: dict | None = None,
    method: str = "",
    elements: tuple[str, ...] = (),
    periodic: bool = True,
    energy_key: Literal["automatic", "free_energy", "energy"] = "automatic",
    charge_keyword: str = "",
    multiplicity_keyword: str = "",
    unpaired_electrons_keyword: str = "",
    keep_calculator: bool = False,
) -> "Ase":
    """Any ASE calculator: VASP, Quantum ESPRESSO, ORCA, machine-learned potentials and others.

    Paths in keywords must be absolute: each label is computed in a temporary folder (TMPDIR).

    Args:
        calculator: Import path of its class, such as `ase.calculators.vasp.Vasp`.
        keywords: What the class is called with; in the units of the calculator.
        profile: Keywords of the calculator's profile, where it has one (`command`, `pseudo_dir`).
        method: Functional, basis, cutoff in words; becomes the convention of the energies.
        elements: Chemical symbols that it knows; none for any.
        periodic: Whether it takes cells.
        energy_key: Which energy the labels have: `automatic` takes `free_energy`, the one that
            ASE's forces are the slopes of, where the calculator gives it, else `energy`.
        charge_keyword: The keyword that takes the total charge; dots go into mappings
            (`input_data.tot_charge`). Without it charged structures are refused.
        multiplicity_keyword: The keyword that takes 2S+1. Without this or the next one, structures
            that name a multiplicity above 1 are refused, and electrons are not counted.
        unpaired_electrons_keyword: The keyword that takes the number of unpaired electrons, 2S.
        keep_calculator: Build it once in a process rather than for every label: for potentials
            that take long to load and remember nothing of an earlier structure (MACE, or networks
            of this package by `alj.calculator.load`).
    """
    if calculator.count(".") < 1 or not all(part.isidentifier() for part in calculator.split(".")):
        raise BadInput(f"calculator: expected a path like package.module.Class, found {calculator}")
    if multiplicity_keyword and unpaired_electrons_keyword:
        raise BadInput("give multiplicity_keyword or unpaired_electrons_keyword, not both")
    return Ase(
        calculator=calculator,
        keywords=plain(keywords or {}),
        profile=plain(profile or {}),
        method=method,
        elements=numbers_of(elements),
        periodic=periodic,
        energy_key=energy_key,
        charge_keyword=charge_keyword,
        multiplicity_keyword=multiplicity_keyword,
        unpaired_electrons_keyword=unpaired_electrons_keyword,
        keep_calculator=keep_calculator,
    )


@dataclass(frozen=True)
class Ase:
    """See `ase`."""

    calculator: str
    keywords: dict[str, Any]
    profile: dict[str, Any]
    method: str
    elements: tuple[int, ...]
    periodic: bool
    energy_key: str
    charge_keyword: str
    multiplicity_keyword: str
    unpaired_electrons_keyword: str
    keep_calculator: bool = False

    name: ClassVar[str] = "ase"
    limits: ClassVar[Limits] = Limits()

    @property
    def electrons(self) -> bool:
        """Whether multiplicities reach the calculator."""
        return bool(self.multiplicity_keyword or self.unpaired_electrons_keyword)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers."""
        return {k: v for k, v in plain(asdict(self)).items() if k != "keep_calculator"}

    @property
    def may_use_jax(self) -> bool:
        """Whether a label may run programs of JAX, as learned potentials do."""
        return self.keep_calculator

    @property
    def convention(self) -> str:
        """What its energies are."""
        what = self.method or json.dumps(self.keywords, sort_keys=True)
        energies = {"automatic": "free_energy, the forces' own, where given, else energy"}
        return f"{self.calculator} {what}; {energies.get(self.energy_key, self.energy_key)}"

    def version(self) -> str:
        """Name and version of the package that has the calculator."""
        self._class()
        package = self.calculator.split(".")[0]
        try:
            return f"{package} {version(package.replace('_', '-'))}"
        except PackageNotFoundError:
            found = getattr(importlib.import_module(package), "__version__", "")
            return f"{package} {found}".strip()

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point, in a folder of its own. Raises LabelingFailed, BadInput."""
        keywords = self._keywords(structure, multiplicity)
        built = self._class()
        if self.profile:
            keywords["profile"] = _profile_of(built)(**self.profile)
        with _alone() as (folder, spoken):
            try:
                results = self._results(built, keywords, structure, multiplicity)
            except Exception as error:
                raise _understood(error, folder, spoken.getvalue(), self.calculator) from None
            missed = unconverged(folder)
            if missed:
                raise LabelingFailed("not_converged", missed, newest_text(folder))
            return self._labels(results, structure, folder)

    def _results(self, built, keywords, structure, multiplicity) -> dict[str, Any]:
        """What a new calculator says, or the one that is kept."""
        if self.keep_calculator:
            calculator = _kept(self.calculator, built, keywords)
            return _results(calculator, structure, multiplicity)
        calculator = built(**keywords)
        try:
            return _results(calculator, structure, multiplicity)
        finally:
            close = getattr(calculator, "close", None)
            if callable(close):
                close()

    def _labels(self, results: Mapping[str, Any], structure: Structure, folder: Path) -> Labels:
        given = {key: value for key, value in results.items() if value is not None}
        try:
            energy = given[self._energy_name(given)]
            return labels_from({**given, "energy": energy}, structure)
        except KeyError as error:
            message = f"{self.calculator} gave no {error.args[0]}, only: {', '.join(given)}"
        except (TypeError, ValueError) as error:
            message = f"{self.calculator} gave something else than numbers: {error}"
        raise LabelingFailed("parse", message, newest_text(folder))

    def _energy_name(self, given: Mapping[str, Any]) -> str:
        if self.energy_key != "automatic":
            return self.energy_key
        return "free_energy" if "free_energy" in given else "energy"

    def _keywords(self, structure: Structure, multiplicity: int) -> dict[str, Any]:
        """The keywords for this structure. Raises LabelingFailed for what they cannot say."""
        charge, wanted = int(structure.charge), multiplicity or int(structure.multiplicity)
        changes: dict[str, int] = {}
        if self.charge_keyword:
            changes[self.charge_keyword] = charge
        elif charge:
            raise LabelingFailed(
                "bad_input", f"charge {charge:+d}, but no `charge_keyword` says how to pass it on"
            )
        if self.multiplicity_keyword:
            changes[self.multiplicity_keyword] = wanted or 1
        elif self.unpaired_electrons_keyword:
            changes[self.unpaired_electrons_keyword] = (wanted or 1) - 1
        elif wanted > 1:
            raise LabelingFailed(
                "bad_input",
                f"multiplicity {wanted}, but neither `multiplicity_keyword` nor "
                "`unpaired_electrons_keyword` says how to pass it on",
            )
        keywords = dict(self.keywords)
        for path, value in changes.items():
            keywords = _replaced(keywords, path.split("."), value)
        return keywords

    def _class(self) -> Any:
        """The calculator's class. Raises BadInput where it cannot be imported."""
        module, _, name = self.calculator.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            package = module.split(".")[0]
            raise BadInput(
                f"calculator: {self.calculator} cannot be imported ({error}); "
                f"is the package {package} installed?"
            ) from None
        except AttributeError:
            raise BadInput(f"calculator: the module {module} has no class {name}") from None


def numbers_of(symbols: tuple[str, ...]) -> tuple[int, ...]:
    """Atomic numbers of chemical symbols. Raises BadInput."""
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise BadInput(f"elements: {symbol!r} is not a chemical symbol such as H or Si")
    return tuple(sorted(atomic_numbers[symbol] for symbol in symbols))


def _replaced(keywords: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of nested keywords with one value changed."""
    if len(path) == 1:
        return {**keywords, path[0]: value}
    inner = keywords.get(path[0]) or {}
    return {**keywords, path[0]: _replaced(inner, path[1:], value)}


def _profile_of(calculator: type) -> Any:
    """The profile class that stands in the calculator's module. Raises BadInput."""
    module = importlib.import_module(calculator.__module__)
    for candidate in vars(module).values():
        found = isinstance(candidate, type) and issubclass(candidate, BaseProfile)
        if found and candidate is not BaseProfile:
            return candidate
    raise BadInput(f"profile: {calculator.__name__} has none; put `command` among the keywords")


def _kept(path: str, built: Any, keywords: Mapping[str, Any]) -> Any:
    """The calculator of this process with these keywords."""
    key = (path, repr(sorted(keywords.items(), key=lambda pair: pair[0])))
    if key not in _CALCULATORS:
        _CALCULATORS[key] = built(**keywords)
    return _CALCULATORS[key]


_CALCULATORS: dict[tuple[str, str], Any] = {}
"""Those that are kept; each remembers nothing of an earlier structure, by promise of the user."""


def _results(calculator, structure, multiplicity) -> dict[str, Any]:
    """What a calculator says of one structure; all that is wanted, in one calculation."""
    atoms, name = atoms_of(structure, multiplicity), type(calculator).__name__
    known = calculator.implemented_properties
    wanted = ["energy", "forces"]
    if "stress" in known and atoms.pbc.all():
        wanted.append("stress")
    if "forces" not in known:
        raise BadInput(f"{name} gives no forces; a reference must")
    calculator.calculate(atoms, wanted, list(all_changes))
    if getattr(calculator, "converged", None) is False:
        raise SCFError(f"{name} says that it has not converged")
    return dict(calculator.results)


@contextlib.contextmanager
def _alone() -> Iterator[tuple[Path, io.StringIO]]:
    """A new folder to stand in, with what is printed there; one label at a time in a process."""
    with _STANDING, tempfile.TemporaryDirectory(prefix="alj-ase-") as name:
        before, spoken = os.getcwd(), io.StringIO()
        os.chdir(name)
        try:
            with contextlib.redirect_stdout(spoken), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield Path(name), spoken
        finally:
            os.chdir(before)


_STANDING = threading.Lock()
"""A process has one working folder."""


def _understood(error: Exception, folder: Path, spoken: str, name: str) -> Exception:
    """What an exception of a calculator means: BadInput, or LabelingFailed of the right kind."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    tail = newest_text(folder) or (spoken + traceback.format_exc())[-2000:]
    if isinstance(error, (BadInput, LabelingFailed, MemoryError)):
        return error
    if _is_missing_program(error, text):
        return BadInput(f"{name}: its program is not on PATH, or not where `command` says: {text}")
    if isinstance(error, (BadConfiguration, CalculatorSetupError)):
        return BadInput(f"{name}: {text}; see its keywords (and `profile`) in ASE's manual")
    if isinstance(error, TypeError) and not any(folder.iterdir()):
        return BadInput(f"{name} does not take these keywords: {text}")
    missed = unconverged(folder)
    if missed or isinstance(error, SCFError) or _UNCONVERGED.search(text):
        return LabelingFailed("not_converged", missed or text, tail)
    status = _status(error, text)
    if status:
        return LabelingFailed(kind_of(tail), f"{name} ended with {status}: {text}", tail)
    if isinstance(error, NotImplementedError) and not isinstance(
        error, PropertyNotImplementedError
    ):
        return LabelingFailed("bad_input", f"{name}: {text}", tail)
    kind = "parse" if any(folder.iterdir()) else "crash"
    what = "its output cannot be read" if kind == "parse" else "it failed"
    return LabelingFailed(kind, f"{name}: {what}: {type(error).__name__}: {text}", tail)


def _is_missing_program(error: Exception, text: str) -> bool:
    if _status(error, text) in (126, 127):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    started = bool(frames) and Path(frames[-1].filename).name == "subprocess.py"
    return started and isinstance(error, (FileNotFoundError, PermissionError))


def _status(error: Exception, text: str) -> int:
    """With what the calculator's program ended; 0 where the error does not tell."""
    if isinstance(error, subprocess.CalledProcessError):
        return error.returncode
    found = _CODE.search(text)
    return int(found.group(1)) if found else 0


_CODE = re.compile(r"(?:error code|returned an error:|exit status) (-?\d+)")
"""How ASE's calculators tell with what a program ended."""

_UNCONVERGED = re.compile(
    r"not (?:fully )?converge|n't converge|fail\w* to converge|no convergence"
    r"|convergence (?:failure|failed|not)",
    re.IGNORECASE,
)
