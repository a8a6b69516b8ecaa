"""GFN1- and GFN2-xTB by tblite: the default engine, in memory, milliseconds a molecule.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019),
doi 10.1021/acs.jctc.8b01176; https://github.com/tblite/tblite.

Warm starts leak history into forces (1e-4 eV/Å): every calculation begins cold, with a calculator
of its own.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from ase.units import Bohr, Hartree

from alj.labeling.engine import Limits, labels_of
from alj.labeling.install import needed, version_of
from alj.types import LabelingFailed, Labels, Structure


def tblite(
    *,
    method: Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"] = "GFN2-xTB",
    electronic_temperature_K: float = 300.0,
    accuracy: float = 1.0,
    max_iterations: int = 250,
    spin_polarization: bool = False,
) -> "Tblite":
    """GFN1- and GFN2-xTB, of molecules and crystals: small, robust, the default engine.

    Args:
        method: The Hamiltonian.
        electronic_temperature_K: Of the Fermi smearing; 5000 makes broken bonds smooth.
        accuracy: Factor on all numerical thresholds; smaller is tighter.
        max_iterations: Of the self-consistent charges.
        spin_polarization: Give unpaired electrons the energy of their spins. Without it states of
            different multiplicity have almost the same energy: O2 comes out as a singlet.
    """
    return Tblite(method, electronic_temperature_K, accuracy, max_iterations, spin_polarization)


@dataclass(frozen=True)
class Tblite:
    """See `tblite`."""

    method: str
    electronic_temperature_K: float
    accuracy: float
    max_iterations: int
    spin_polarization: bool = False

    name: ClassVar[str] = "tblite"
    elements: ClassVar[tuple[int, ...]] = tuple(range(1, 87))
    periodic: ClassVar[bool] = True
    electrons: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(max_energy_eV_per_atom=0.0, max_net_force_eV_per_A=1e-3)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers."""
        return asdict(self)

    @property
    def convention(self) -> str:
        """What its energies are: forces are slopes of the free energy of the smeared electrons."""
        spin = "sp" if self.spin_polarization else ""
        return f"{spin}{self.method} total energy with electronic entropy"

    def version(self) -> str:
        """Program and version."""
        return version_of("tblite")

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point. Raises LabelingFailed: `not_converged`, `bad_input`, `crash`."""
        interface = needed("tblite", "tblite.interface")
        cell = np.asarray(structure.cell, np.float64)
        periodic = cell.any(axis=1)
        if periodic.any() and not periodic.all():  # it would repeat them in all directions
            raise LabelingFailed(
                "bad_input",
                f"tblite takes molecules and crystals; this is periodic in {periodic.sum()} "
                "directions: give it a cell with vacuum, periodic in all three",
            )
        lattice = {"lattice": cell / Bohr, "periodic": periodic} if periodic.any() else {}
        try:
            calculator = interface.Calculator(
                self.method,
                np.asarray(structure.species),
                np.asarray(structure.positions, np.float64) / Bohr,
                charge=float(structure.charge),
                uhf=multiplicity - 1,
                **lattice,
            )
            calculator.set("accuracy", self.accuracy)
            calculator.set("temperature", self.electronic_temperature_K * _HARTREE_PER_K)
            calculator.set("max-iter", self.max_iterations)
            calculator.set("verbosity", 0)
            if self.spin_polarization:
                calculator.add("spin-polarization", 1.0)
            results = calculator.singlepoint()
        except RuntimeError as error:
            raise LabelingFailed(_kind(str(error)), _one_line(error), str(error)) from None
        stress = None
        if periodic.all():
            virial = np.asarray(results.get("virial")) * Hartree
            stress = virial / abs(np.linalg.det(cell))
        return labels_of(
            len(structure.species),
            float(results.get("energy")) * Hartree,
            -np.asarray(results.get("gradient")) * Hartree / Bohr,
            stress=stress,
            dipole=None if periodic.any() else np.asarray(results.get("dipole")) * Bohr,
            charges=np.asarray(results.get("charges")),
        )


_HARTREE_PER_K = 3.166808578545117e-06


def _kind(message: str) -> str:
    return "not_converged" if "conver" in message.lower() else "crash"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
