"""An ASE calculator for a trained model: the mean of its committee, and its spread.

from alj.calculator import load

atoms.calc = load("runs/quickstart")
atoms.get_potential_energy()
atoms.calc.results["forces_uncertainty"]
"""

from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from alj.campaign import models
from alj.campaign.answering import Answering
from alj.campaign.models import Model
from alj.campaign.reading import charge_and_multiplicity, structure_of
from alj.types import Labeler, Structure


def load(path: str | Path, *, uncertainty: bool = True) -> "CommitteeCalculator":
    """The calculator of a model: a run folder, or the model folder inside it.

    `uncertainty=False` leaves out the spread over the members, which costs a backward pass for each
    of them. Raises BadInput.
    """
    return CommitteeCalculator(models.load(path), uncertainty=uncertainty)


class CommitteeCalculator(Calculator):
    """Energy, free_energy, energies (eV), forces (eV/Å); stress (eV/Å^3, Voigt) if periodic.

    For committees also `energy_uncertainty` and `forces_uncertainty` (atoms, 3): the standard
    deviation over the members, ddof 1. Of a model with charges also `charges` (e) and the
    `dipole` of these (e Å, of ions with respect to the origin). Charge and multiplicity come from
    `atoms.info`.
    `calculate` raises BadInput for species that the model does not know, for numbers that are not
    finite and for atoms on top of each other.
    """

    implemented_properties = [  # noqa: RUF012 - ASE declares it on the class
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "charges",
        "dipole",
        "energy_uncertainty",
        "forces_uncertainty",
    ]

    def __init__(self, model: Model, *, uncertainty: bool = True):
        super().__init__()
        self.model = model
        self._answering = Answering(model, spread=uncertainty)
        lacks = set() if self._answering.spread else {"energy_uncertainty", "forces_uncertainty"}
        lacks |= {"charges", "dipole"} if model.potential.charges is None else set()
        known = type(self).implemented_properties
        self.implemented_properties = [name for name in known if name not in lacks]
        self._checked: Structure | None = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Fill `results`; everything is computed together."""
        super().calculate(atoms, properties, system_changes)
        given: Any = self.atoms
        structure = self._structure(given, system_changes)
        reply = self._answering(structure)
        self.results: dict[str, Any] = {
            "energy": reply.energy,
            "free_energy": reply.energy,
            "energies": reply.atomic_energies,
            "forces": reply.forces,
        }
        if structure.cell.any():
            self.results["stress"] = full_3x3_to_voigt_6_stress(
                reply.stress * _share(structure, given.cell.array)
            )
        if reply.charges is not None:
            self.results["charges"] = reply.charges
            self.results["dipole"] = reply.charges @ given.positions
        if self._answering.spread:
            self.results["energy_uncertainty"] = reply.energy_spread
            self.results["forces_uncertainty"] = reply.forces_spread

    def _structure(self, atoms: ase.Atoms, changes) -> Structure:
        """The structure, checked in full unless only positions have changed since the last one.

        Positions that are not finite, or on top of each other, are noticed by `Answering`.
        """
        known, self._checked = self._checked, None
        if known is not None and set(changes) <= {"positions"}:
            charge, multiplicity = charge_and_multiplicity(atoms.info)
            positions: Any = np.array(atoms.positions, np.float64)
            structure = known._replace(
                positions=positions, charge=charge, multiplicity=multiplicity
            )
        else:
            structure = structure_of(atoms, known=self.model.species)
        self._checked = structure
        return structure


def _share(structure: Structure, whole_cell: np.ndarray) -> float:
    """From our volume (of a slab: area times 1 Å) to that of the cell as ASE counts it."""
    whole = abs(float(np.linalg.det(whole_cell)))
    rows = np.asarray(structure.cell)[np.asarray(structure.cell).any(axis=1)]
    if len(rows) == 3 or whole == 0:
        return 1.0
    return float(np.prod(np.linalg.svd(rows, compute_uv=False))) / whole


class ReferenceCalculator(Calculator):
    """A labeler as an ASE calculator: energy (eV), forces (eV/Å), stress where it gives one.

    `calculate` raises LabelingFailed where the labeler does, and BadInput for structures that are
    none.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, labeler: Labeler):
        super().__init__()
        self.labeler = labeler

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Fill `results` by one label."""
        super().calculate(atoms, properties, system_changes)
        given: Any = self.atoms
        structure = structure_of(given)
        labels = self.labeler.label(structure)
        energy = float(labels.energy)
        self.results: dict[str, Any] = {"energy": energy, "free_energy": energy}
        if np.isfinite(labels.forces).all():
            self.results["forces"] = np.asarray(labels.forces, np.float64)
        if structure.cell.any() and np.isfinite(labels.stress).all():
            share = _share(structure, given.cell.array)
            self.results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(labels.stress) * share)
