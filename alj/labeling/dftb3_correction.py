"""The part of the DFTB3 force that Sparrow leaves out, from Mulliken charges alone.

The third-order energy of atoms with net charges q (cations positive, so minus the excess of
electrons) is, in atomic units,

    E³ = -⅓ Σ_ab q_a² q_b Γ_ab,     Γ_ab = U^d_a ∂γ_ab/∂U_a,     γ_ab = 1/R - S(τ_a, τ_b, R) h(R),

with τ = 16/5 U, S the short-range overlap of two exponential charge clouds, and for pairs with
hydrogen h = exp(-((U_a + U_b)/2)^ζ R²), otherwise 1. Its slope along a bond at fixed charges is
-⅓ q_a q_b (q_a Γ'_ab + q_b Γ'_ba). Sparrow 5.2 has the wrong sign before the second term of the
two, a being the atom that is named first: its forces change with the order of the atoms, by up to
0.27 eV/Å. What is missing is twice that term, -⅔ q_a q_b² Γ'_ba for each pair a < b.

As function of R all of it is exp(-τ_a R) P(R) + exp(-τ_b R) Q(R) with Laurent polynomials P and Q:
their coefficients are made once for each pair of elements, and a label costs three exponentials
and two polynomials for each pair of atoms.

M. Gaus, Q. Cui, M. Elstner, J. Chem. Theory Comput. 7, 931 (2011), doi 10.1021/ct100684s. The
constants are those of 3ob-3-1 (CC BY-SA 4.0; © M. Elstner), which asks to be cited: M. Gaus,
A. Goez, M. Elstner, J. Chem. Theory Comput. 9, 338 (2013), doi 10.1021/ct300849w (C, H, N, O);
M. Gaus, X. Lu, M. Elstner, Q. Cui, ibid. 10, 1518 (2014), doi 10.1021/ct401002w (P, S); X. Lu,
M. Gaus, M. Elstner, Q. Cui, J. Phys. Chem. B 119, 1062 (2015), doi 10.1021/jp506557r (Mg, Zn);
M. Kubillus, T. Kubař, M. Gaus, J. Řezáč, M. Elstner, J. Chem. Theory Comput. 11, 332 (2015),
doi 10.1021/ct5009137 (Na, F, K, Ca, Cl, Br, I).
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from ase.units import Bohr, Hartree
from jaxtyping import Float, Int

from alj.types import Structure

HUBBARD = {
    1: (0.4195, -0.1857),
    6: (0.3647, -0.1492),
    7: (0.4309, -0.1535),
    8: (0.4954, -0.1575),
    9: (0.5584, -0.1623),
    11: (0.1651, -0.0454),
    12: (0.2246, -0.02),
    15: (0.2894, -0.14),
    16: (0.3288, -0.11),
    17: (0.3668, -0.0697),
    19: (0.135642, -0.0339),
    20: (0.176449, -0.0340),
    30: (0.26628, -0.03),
    35: (0.327662, -0.0573),
    53: (0.284213, -0.0433),
}
"""U and U^d of 3ob-3-1 in hartree by atomic number; forces good to 1e-6 eV/Å need all digits."""

ZETA = 4.0
"""The exponent of h in 3ob."""


def missing_forces(
    positions_A: Float[np.ndarray, "atoms 3"],
    species: Int[np.ndarray, " atoms"],
    charges: Float[np.ndarray, " atoms"],
) -> Float[np.ndarray, "atoms 3"]:
    """What must be added to Sparrow's DFTB3 forces, in eV/Å; charges are Mulliken's, in e.

    The elements must be in `HUBBARD`.
    """
    elements, kind = np.unique(species, return_inverse=True)
    first, second = np.triu_indices(len(species), 1)
    bond = (positions_A[second] - positions_A[first]) / Bohr
    distance = np.sqrt(np.einsum("pk,pk->p", bond, bond))
    slope = _slopes(tuple(elements.tolist()), kind[first], kind[second], distance)
    push = (2.0 / 3.0) * charges[first] * charges[second] ** 2 * slope / distance
    pushes = np.zeros((len(species), len(species), 3))
    pushes[first, second] = push[:, None] * bond
    return (pushes.sum(axis=0) - pushes.sum(axis=1)) * (Hartree / Bohr)


def crooked_formamide() -> Structure:
    """Where Sparrow 5.2 is wrong by 0.2 eV/Å, in one order of the atoms or in the other."""
    positions = [
        [-1.32, 0.05, 0.03],
        [0.02, 0.41, -0.06],
        [0.93, -0.42, 0.08],
        [0.21, 1.51, 0.12],
        [-1.61, -0.93, -0.11],
        [-2.02, 0.79, 0.19],
    ]
    fields: dict[str, Any] = {
        "positions": np.array(positions),
        "species": np.array([7, 6, 8, 1, 1, 1], np.int32),
        "cell": np.zeros((3, 3)),
        "charge": np.int32(0),
        "multiplicity": np.int32(0),
    }
    return Structure(**fields)


class _Table(NamedTuple):
    """For each ordered pair of elements (a, b): Γ'_ba = exp(-pR²) (exp(-τ_a R) P + exp(-τ_b R) Q).

    The coefficients of P and Q are those of R^-2 and up.
    """

    tau_a: np.ndarray
    tau_b: np.ndarray
    p: np.ndarray
    P: np.ndarray
    Q: np.ndarray


def _slopes(elements: tuple[int, ...], kind_a, kind_b, R):
    """Γ'_ba at distances R in bohr, hartree/bohr/e^3."""
    table = _table(elements)
    pair = kind_a * len(elements) + kind_b
    P, Q = table.P[:, pair], table.Q[:, pair]
    p_of_R, q_of_R = P[-1], Q[-1]
    for power in range(len(P) - 2, -1, -1):
        p_of_R, q_of_R = p_of_R * R + P[power], q_of_R * R + Q[power]
    clouds = np.exp(-table.tau_a[pair] * R) * p_of_R + np.exp(-table.tau_b[pair] * R) * q_of_R
    return np.exp(-table.p[pair] * R * R) * clouds / (R * R)


@cache
def _table(elements: tuple[int, ...]) -> _Table:
    pairs = [_entry(a, b) for a in elements for b in elements]
    return _Table(*(np.stack(column, axis=-1) for column in zip(*pairs, strict=True)))


def _entry(a: int, b: int) -> tuple:
    """tau_a, tau_b, p and the coefficients of P and Q for b's Γ in a pair (a, b).

    With ' = ∂/∂R, c = -∂ln h/∂U_b / R² and h = exp(-pR²):
    Γ'_ba / U^d_b = -h [3.2 (∂S'/∂τ_b - 2pR ∂S/∂τ_b) - cR² S' - 2c (R - pR³) S].
    """
    (U_a, _), (U_b, derivative) = HUBBARD[a], HUBBARD[b]
    tau_a, tau_b = 3.2 * U_a, 3.2 * U_b
    mean = (U_a + U_b) / 2 if 1 in (a, b) else 0.0
    p, c = mean**ZETA, ZETA / 2 * mean ** (ZETA - 1)
    clouds = _one_element(tau_a) if a == b else _two_elements(tau_a, tau_b)
    coefficients = []
    for tau, S, S_by_tau in clouds:
        bracket = 3.2 * (_slope(S_by_tau, tau) - 2 * p * _raised(S_by_tau, 1))
        bracket -= c * _raised(_slope(S, tau), 2) + 2 * c * (_raised(S, 1) - p * _raised(S, 3))
        coefficients.append(-derivative * bracket)
    return tau_a, tau_b, p, *coefficients


def _two_elements(a: float, b: float):
    """S = exp(-aR) f(a, b) + exp(-bR) f(b, a) and ∂S/∂b, as (exponent, S, ∂S/∂b) of each cloud.

    f(a, b) = b⁴a / 2D² - (b⁶ - 3b⁴a²) / D³R with D = a² - b².
    """
    D = a * a - b * b
    near = _polynomial({0: b**4 * a / (2 * D**2), -1: -(b**6 - 3 * b**4 * a**2) / D**3})
    near_by_b = _polynomial(
        {
            0: 2 * a * b**3 / D**2 + 2 * a * b**5 / D**3,
            -1: -(6 * b**5 - 12 * a**2 * b**3) / D**3 - 6 * b * (b**6 - 3 * b**4 * a**2) / D**4,
        }
    )
    far = _polynomial({0: a**4 * b / (2 * D**2), -1: (a**6 - 3 * a**4 * b**2) / D**3})
    far_by_b = _polynomial(
        {
            0: a**4 / (2 * D**2) + 2 * a**4 * b**2 / D**3,
            -1: -6 * a**4 * b / D**3 + 6 * b * (a**6 - 3 * a**4 * b**2) / D**4,
        }
    )
    return (a, near, near_by_b), (b, far, far_by_b - _raised(far, 1))


def _one_element(tau: float):
    """S = exp(-τR) (1/R + 11τ/16 + 3τ²R/16 + τ³R²/48), and nothing for the other cloud.

    Sparrow's energy differentiates S with respect to both exponents, which are one here.
    """
    S = {-1: 1.0, 0: 11 * tau / 16, 1: 3 * tau**2 / 16, 2: tau**3 / 48}
    by_tau = {0: -5 / 16, 1: -5 * tau / 16, 2: -(tau**2) / 8, 3: -(tau**3) / 48}
    nothing = _polynomial({})
    return (tau, _polynomial(S), _polynomial(by_tau)), (tau, nothing, nothing)


_POWERS = np.arange(-2, 6)
"""Of R in a Laurent polynomial."""


def _polynomial(coefficients: dict[int, float]) -> np.ndarray:
    return np.array([coefficients.get(int(power), 0.0) for power in _POWERS])


def _raised(polynomial: np.ndarray, power: int) -> np.ndarray:
    """R^power times a polynomial."""
    return np.concatenate([np.zeros(power), polynomial[:-power]])


def _slope(polynomial: np.ndarray, tau: float) -> np.ndarray:
    """The polynomial of the derivative of exp(-τR) times a polynomial."""
    return np.append((_POWERS * polynomial)[1:], 0.0) - tau * polynomial
