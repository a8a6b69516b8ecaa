"""ASE calculators for walks: a harmonic molecule whose engine gives up beyond a length."""

import numpy as np
from ase.calculators.calculator import Calculator, SCFError, all_changes


class Springs(Calculator):
    """Springs between all pairs, ½ k (r - r₀)²; not converged where a pair is beyond `longest`."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, *, stiffness: float = 5.0, rest: float = 2.0, longest: float = 99.0):
        super().__init__()
        self.stiffness, self.rest, self.longest = stiffness, rest, longest

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions = self.atoms.positions
        vectors = positions[None] - positions[:, None]
        lengths = np.linalg.norm(vectors, axis=-1) + np.eye(len(positions))
        if lengths.max() > self.longest:
            raise SCFError("the density swings")
        stretch = (lengths - self.rest) * (1 - np.eye(len(positions)))
        energy = 0.25 * self.stiffness * np.sum(stretch**2)
        forces = self.stiffness * np.sum((stretch / lengths)[..., None] * vectors, axis=1)
        self.results = {"energy": energy, "forces": forces}
