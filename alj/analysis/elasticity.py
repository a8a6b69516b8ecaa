"""Elastic constants from stresses of small strains, and what follows from them.

    C_ij = ∂σ_i/∂ε_j  (Voigt: xx yy zz yz xz xy, shears as engineering strains γ = 2ε)

Voigt's averages of bulk and shear modulus: W. Voigt, Lehrbuch der Kristallphysik (1928). A crystal
is mechanically stable where C is positive definite: M. Born, K. Huang, Dynamical Theory of Crystal
Lattices (1954).
"""

import numpy as np
from jaxtyping import Float

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Which component of a matrix each Voigt index is."""


def strain_matrix(index: int, size: float) -> Float[np.ndarray, "3 3"]:
    """The symmetric strain ε of one Voigt component; a shear `size` is γ = 2ε."""
    i, j = PAIRS[index]
    strain = np.zeros((3, 3))
    strain[i, j] += size / 2
    strain[j, i] += size / 2
    return strain


def elastic_matrix(
    plus: Float[np.ndarray, "6 6"], minus: Float[np.ndarray, "6 6"], size: float
) -> Float[np.ndarray, "6 6"]:
    """C, symmetrized, from Voigt stresses (rows: strain component) at strains +size and -size."""
    slopes = (np.asarray(plus) - np.asarray(minus)).T / (2 * size)
    return (slopes + slopes.T) / 2


def moduli(constants: Float[np.ndarray, "6 6"]) -> dict[str, float]:
    """Voigt's bulk and shear modulus, and the smallest eigenvalue of C, in its unit."""
    c = np.asarray(constants)
    normal, mixed, shear = np.trace(c[:3, :3]), c[0, 1] + c[1, 2] + c[0, 2], np.trace(c[3:, 3:])
    return {
        "bulk": float((normal + 2 * mixed) / 9),
        "shear": float((normal - mixed + 3 * shear) / 15),
        "smallest_eigenvalue": float(np.linalg.eigvalsh(c).min()),
    }
