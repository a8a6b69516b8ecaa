"""Small molecules that the engines are tested on, in random atom orders and off their minima."""

import ase
import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator

from alj.types import Structure


def molecules() -> dict[str, Structure]:
    """Near their minima, neutral: water, (H2O)9, ethanol, hexane, acetamide."""
    return {
        "water": structure_of(molecule("H2O")),
        "water_cluster": structure_of(water_cluster(9)),
        "ethanol": structure_of(molecule("CH3CH2OH")),
        "hexane": structure_of(alkane(6)),
        "acetamide": structure_of(molecule("CH3CONH2")),
    }


def structure_of(atoms: ase.Atoms, *, charge: int = 0, multiplicity: int = 0) -> Structure:
    """An ASE molecule as a structure."""
    return Structure(
        positions=np.array(atoms.positions),
        species=np.asarray(atoms.numbers, np.int32),
        cell=np.zeros((3, 3)),
        charge=np.int32(charge),
        multiplicity=np.int32(multiplicity),
    )


def shuffled(structure: Structure, seed: int) -> Structure:
    """The same molecule, its atoms in a random order."""
    order = order_of(structure, seed)
    return structure._replace(
        positions=structure.positions[order], species=structure.species[order]
    )


def order_of(structure: Structure, seed: int) -> np.ndarray:
    """`order[i]` is which atom of the original became atom i of `shuffled`."""
    return np.random.default_rng(seed).permutation(len(structure.species))


def distorted(structure: Structure, seed: int, sigma_A: float) -> Structure:
    """Every coordinate moved by a normally distributed random length."""
    noise = np.random.default_rng(seed).normal(scale=sigma_A, size=structure.positions.shape)
    return structure._replace(positions=structure.positions + noise)


def water_cluster(count: int) -> ase.Atoms:
    """Randomly (but always equally) turned molecules on a square lattice of 2.9 Å, three a row."""
    cluster = ase.Atoms()
    rng = np.random.default_rng(9)
    for i in range(count):
        one = molecule("H2O")
        axis = rng.normal(size=3)
        one.rotate(rng.uniform(0.0, 360.0), axis, center="COM")
        one.translate(2.9 * np.array([i % 3, i // 3, 0.0]) - one.get_center_of_mass())
        cluster += one
    return cluster


def alkane(carbons: int) -> ase.Atoms:
    """The all-trans chain, ideal tetrahedra; carbons first, in the order of the chain."""
    half = np.arccos(-1 / 3) / 2
    along, across = np.sin(half), np.cos(half)
    index = np.arange(carbons)
    chain = 1.53 * np.stack([index * along, index % 2 * across, 0 * index], axis=1)
    hydrogens = []
    for i in index:
        outward = 1 if i % 2 else -1
        for side in (1, -1):
            hydrogens.append(chain[i] + 1.1 * np.array([0.0, outward * across, side * along]))
        if i in (0, carbons - 1):
            away = -1 if i == 0 else 1
            hydrogens.append(chain[i] + 1.1 * np.array([away * along, -outward * across, 0.0]))
    symbols = ["C"] * carbons + ["H"] * len(hydrogens)
    return ase.Atoms(symbols, np.concatenate([chain, hydrogens]))


class Labeled(Calculator):
    """A labeler as ASE wants it."""

    implemented_properties = ("energy", "forces")

    def __init__(self, labeler):
        super().__init__()
        self.labeler = labeler

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        labels = self.labeler.label(structure_of(atoms))
        self.results = {"energy": float(labels.energy), "forces": np.array(labels.forces)}


def strain_slopes(energy, one: Structure, step: float):
    """dE/dε / volume (eV/Å^3) for a stretch and a shear: with each strain, central differences."""
    volume = abs(np.linalg.det(one.cell))
    for strain in (np.diag([1.0, 0, 0]), np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])):
        sides = []
        for sign in (1, -1):
            deform = np.eye(3) + sign * step * strain
            strained = one._replace(positions=one.positions @ deform, cell=one.cell @ deform)
            sides.append(float(energy(strained)))
        yield strain, (sides[0] - sides[1]) / (2 * step * volume)
