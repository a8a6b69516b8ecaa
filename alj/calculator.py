"""An ASE calculator for a trained model: the mean of its committee, and its spread.

from alj.calculator import load

atoms.calc = load("runs/quickstart")
atoms.get_potential_energy()
atoms.calc.results["forces_uncertainty"]
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from alj.arrays import bucket, double_precision, pad_axis
from alj.campaign import models
from alj.campaign.datasets import EXACT_SIZES, larger, near_origin
from alj.campaign.models import Answer, Model
from alj.campaign.reading import structure_of
from alj.geometry.neighbors import TableSize, neighbor_table, table_size
from alj.types import Structure

_SLACK = 1.25
"""Room in the first neighbor table for what comes next."""


def load(path: str | Path, *, uncertainty: bool = True) -> "CommitteeCalculator":
    """The calculator of a model: a run folder, or the model folder inside it.

    `uncertainty=False` leaves out the spread over the members, which costs a backward pass for each
    of them. Raises BadInput.
    """
    return CommitteeCalculator(models.load(path), uncertainty=uncertainty)


class CommitteeCalculator(Calculator):
    """Energy, free_energy, energies (eV), forces (eV/Å); stress (eV/Å^3, Voigt) if periodic.

    For committees also `energy_uncertainty` and `forces_uncertainty` (atoms, 3): the standard
    deviation over the members, ddof 1. Charge and multiplicity come from `atoms.info`.
    `calculate` raises BadInput for species that the model does not know, for numbers that are not
    finite and for atoms on top of each other.
    """

    implemented_properties = [  # noqa: RUF012 - ASE declares it on the class
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "energy_uncertainty",
        "forces_uncertainty",
    ]

    def __init__(self, model: Model, *, uncertainty: bool = True):
        super().__init__()
        self.model = model
        self._spread = uncertainty and model.members > 1
        properties = list(type(self).implemented_properties)
        self.implemented_properties = properties if self._spread else properties[:-2]
        self._sizes: dict[int, int] = {}
        self._tables: dict[int, TableSize] = {}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Fill `results`; everything is computed together."""
        super().calculate(atoms, properties, system_changes)
        given: Any = self.atoms
        structure = structure_of(given, known=self.model.species)
        answer = self._answer(structure)
        count = len(structure.species)
        mean = Answer(*(np.mean(np.asarray(leaf, np.float64), axis=0) for leaf in answer))
        self.results: dict[str, Any] = {
            "energy": float(mean.energy),
            "free_energy": float(mean.energy),
            "energies": mean.atomic_energies[:count],
            "forces": mean.forces[:count],
        }
        if structure.cell.any():
            self.results["stress"] = full_3x3_to_voigt_6_stress(
                mean.stress * _share(structure, given.cell.array)
            )
        if self._spread:
            energy = np.asarray(answer.energy, np.float64)
            forces = np.asarray(answer.forces, np.float64)
            self.results["energy_uncertainty"] = float(np.std(energy, ddof=1))
            self.results["forces_uncertainty"] = np.std(forces, axis=0, ddof=1)[:count]

    def _answer(self, structure: Structure) -> Answer:
        """The members' answers (or that of their mean) on the host, padded."""
        with double_precision():
            padded = self._padded(structure)
            atoms = len(padded.species)
            if atoms not in self._tables:
                self._fit_table(padded)
            answer = self._ask(padded, self._tables[atoms])
            if np.any(answer.overflow):
                self._fit_table(padded)
                answer = self._ask(padded, self._tables[atoms])
        return answer

    def _ask(self, padded: Structure, size: TableSize) -> Answer:
        neighbors = _table(padded, self.model.potential.cutoff, size)
        model = self.model
        if self._spread or model.members == 1:
            answer = models.answer_members(
                model.potential, model.members, model.params, padded, neighbors
            )
        else:
            answer = models.answer_mean(model.mean, model.params, padded, neighbors)
        return jax.device_get(answer)

    def _fit_table(self, padded: Structure) -> None:
        """A table that holds this structure and some more; one that is there only grows."""
        stacked = jax.tree.map(lambda leaf: leaf[None], padded)
        fits = table_size(stacked, self.model.potential.cutoff, slack=_SLACK)
        known = self._tables.get(len(padded.species), fits)
        self._tables[len(padded.species)] = larger(fits, known)

    def _padded(self, structure: Structure) -> Structure:
        """On the device, in the model's precision; many different sizes share buckets."""
        count = len(structure.species)
        if count not in self._sizes:
            self._sizes[count] = count if len(self._sizes) < EXACT_SIZES else bucket(count)
        atoms, dtype = self._sizes[count], self.model.dtype
        positions = near_origin(np.asarray(structure.positions), np.asarray(structure.cell))
        return Structure(
            positions=jnp.asarray(pad_axis(positions, atoms, 0.0), dtype),
            species=jnp.asarray(pad_axis(structure.species, atoms, 0), jnp.int32),
            cell=jnp.asarray(structure.cell, dtype),
            charge=jnp.asarray(structure.charge, jnp.int32),
            multiplicity=jnp.asarray(structure.multiplicity, jnp.int32),
        )


def _share(structure: Structure, whole_cell: np.ndarray) -> float:
    """From our volume (of a slab: area times 1 Å) to that of the cell as ASE counts it."""
    whole = abs(float(np.linalg.det(whole_cell)))
    rows = np.asarray(structure.cell)[np.asarray(structure.cell).any(axis=1)]
    if len(rows) == 3 or whole == 0:
        return 1.0
    return float(np.prod(np.linalg.svd(rows, compute_uv=False))) / whole


_table = jax.jit(neighbor_table, static_argnums=(1, 2))
