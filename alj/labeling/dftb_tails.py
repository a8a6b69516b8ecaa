"""The part of a DFTB force that Sparrow gets wrong where its tables of integrals end.

Within the last bohr before its cutoff, a two-center integral of H⁰ or of the overlap S is

    V(x) = c₃ x³ + c₄ x⁴ + c₅ x⁵,     x = cutoff - R,

and Sparrow 5.2 takes its slope along the bond for +V'(x) where it is -V'(x); its energy is right.
That is at 5 to 7 Å, so small molecules never meet it, but hexane does: 5e-4 eV/Å as a rule, 0.01
with a stretched bond or an unpaired electron. With P the density matrix, W the energy-weighted
one, C and ε the orbitals and their energies, F = S C ε Cᵀ S the Hamiltonian of each spin, and
δ_μ = F_μμ - H⁰_μμ the shift of an orbital by all charges and spins, the slope of a pair (a, b) is

    2 Σ_{μ∈a, ν∈b} [P_μν H⁰'_μν + (P_μν (δ_μ + δ_ν)/2 - W_μν) S'_μν],

summed over spins: M. Elstner et al., Phys. Rev. B 58, 7260 (1998), doi 10.1103/PhysRevB.58.7260;
spins: C. Köhler, G. Seifert, T. Frauenheim, Chem. Phys. 309, 23 (2005),
doi 10.1016/j.chemphys.2004.03.034. Twice of this is missing. The coefficients are had from three
pairs of atoms along z, and turned into each bond's direction.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase.units import Bohr, Hartree
from jaxtyping import Float, Int


class Orbitals(NamedTuple):
    """Converged orbitals in atomic units; one entry for each spin, or one for closed shells.

    `occupations` are electrons in each orbital: up to 2 where there is one entry.
    """

    overlap: np.ndarray
    coefficients: tuple[np.ndarray, ...]
    energies: tuple[np.ndarray, ...]
    occupations: tuple[np.ndarray, ...]


class Tail(NamedTuple):
    """Integrals between orbitals of two elements along z near their cutoff, in atomic units.

    `hamiltonian` and `overlap` hold c₃, c₄, c₅ in their first axis; the levels are the diagonal of
    H⁰ for either element.
    """

    cutoff: float
    hamiltonian: np.ndarray
    overlap: np.ndarray
    first_levels: np.ndarray
    second_levels: np.ndarray


LENGTH = 1.0
"""bohr, of every tail."""


def missing_forces(
    positions_A: Float[np.ndarray, "atoms 3"],
    species: Int[np.ndarray, " atoms"],
    orbitals: Orbitals,
    tail_of: Callable[[int, int], Tail],
) -> Float[np.ndarray, "atoms 3"]:
    """What must be added to Sparrow's DFTB forces, in eV/Å.

    `tail_of(Z_a, Z_b)` is the tail between two elements, the one first that comes first among the
    atoms.
    """
    positions = positions_A / Bohr
    first, second = np.triu_indices(len(species), 1)
    bond = positions[second] - positions[first]
    distance = np.sqrt(np.einsum("pk,pk->p", bond, bond))
    far = distance > _NEVER_NEARER
    first, second, bond, distance = first[far], second[far], bond[far], distance[far]
    pairs = 1000 * species[first] + species[second]
    groups, forces = [], np.zeros((len(species), 3))
    for pair in np.unique(pairs):
        tail = tail_of(*divmod(int(pair), 1000))
        x = tail.cutoff - distance
        found = np.flatnonzero((pairs == pair) & (x > 0.0) & (x < LENGTH))
        if len(found):
            groups.append((tail, found))
    if not groups:
        return forces
    levels, offsets = _levels(species, tail_of)
    densities = _densities(orbitals, levels)
    for tail, found in groups:
        a, b, u = first[found], second[found], bond[found] / distance[found, None]
        rows = offsets[a][:, None] + np.arange(len(tail.first_levels))
        columns = offsets[b][:, None] + np.arange(len(tail.second_levels))
        x = tail.cutoff - distance[found]
        steps = -np.stack([3 * x**2, 4 * x**3, 5 * x**4], axis=1)
        P, X = _turned(densities[:, rows[:, :, None], columns[:, None, :]], u)
        slope = np.einsum("pc,cmn,pmn->p", steps, tail.hamiltonian, P)
        slope += np.einsum("pc,cmn,pmn->p", steps, tail.overlap, X)
        push = -4 * slope[:, None] * u
        np.add.at(forces, b, push)
        np.subtract.at(forces, a, push)
    return forces * (Hartree / Bohr)


_NEVER_NEARER = 4.0
"""bohr; no table ends before."""


def _levels(species, tail_of) -> tuple[np.ndarray, np.ndarray]:
    """The diagonal of H⁰, and at which orbital each atom begins."""
    each = {z: tail_of(z, z).first_levels for z in np.unique(species).tolist()}
    counts = [len(each[z]) for z in species.tolist()]
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.concatenate([each[z] for z in species.tolist()]), offsets


def _densities(orbitals: Orbitals, levels: np.ndarray) -> np.ndarray:
    """P, and P (δ_μ + δ_ν)/2 - W, summed over spins."""
    P = np.zeros_like(orbitals.overlap)
    X = np.zeros_like(P)
    for C, energies, occupations in zip(*orbitals[1:], strict=True):
        SC = orbitals.overlap @ C
        shift = (SC * SC) @ energies - levels
        filled = occupations > 0
        occupied, weights = C[:, filled], occupations[filled]
        P_spin = (occupied * weights) @ occupied.T
        P += P_spin
        X += P_spin * ((shift[:, None] + shift[None, :]) / 2)
        X -= (occupied * (weights * energies[filled])) @ occupied.T
    return np.stack([P, X])


def _turned(blocks: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Blocks between two atoms, (2, pairs, n_a, n_b), as seen with z along the bond."""
    turn = _turns(u)
    a, b = _orbital_turns(turn, blocks.shape[2]), _orbital_turns(turn, blocks.shape[3])
    return a.transpose(0, 2, 1) @ blocks @ b


def _turns(u: np.ndarray) -> np.ndarray:
    """Orthogonal matrices whose last column is u: reflections, which do for bonds."""
    side = np.where(u[:, 2] < 0, -1.0, 1.0)
    v = u + side[:, None] * [0.0, 0.0, 1.0]
    v *= np.sqrt(2.0) / np.linalg.norm(v, axis=1, keepdims=True)
    return side[:, None, None] * (v[:, :, None] * v[:, None, :] - np.eye(3))


def _orbital_turns(turn: np.ndarray, count: int) -> np.ndarray:
    """(pairs, count, count): an orbital along the turned axes in terms of those along x, y, z."""
    matrices = np.zeros((len(turn), count, count))
    matrices[:, 0, 0] = 1.0
    if count > 1:
        matrices[:, 1:4, 1:4] = turn
    if count > 4:
        turned = turn[:, None] @ _D_ORBITALS @ turn[:, None].transpose(0, 1, 3, 2)
        matrices[:, 4:, 4:] = np.einsum("mij,pnij->pmn", _D_ORBITALS, turned)
    return matrices


def _quadrics() -> np.ndarray:
    """The d orbitals in Sparrow's order as symmetric traceless tensors of norm 1."""
    xx, yy, zz = (np.diag(row) for row in np.eye(3))

    def mixed(i: int, j: int) -> np.ndarray:
        tensor = np.zeros((3, 3))
        tensor[i, j] = tensor[j, i] = np.sqrt(0.5)
        return tensor

    planar, axial = (xx - yy) / np.sqrt(2.0), (2 * zz - xx - yy) / np.sqrt(6.0)
    return np.stack([mixed(0, 1), mixed(1, 2), mixed(0, 2), planar, axial])


_D_ORBITALS = _quadrics()


def tail_from(integrals: Callable[[float], tuple[np.ndarray, np.ndarray]], size: int) -> Tail:
    """The tail of a pair of elements, `size` orbitals on the first of them.

    `integrals(R)` gives S and H⁰ of the two atoms along z at a distance in bohr.
    """

    def vanishes(R: float) -> bool:
        return not integrals(R)[0][:size, size:].any()

    near, far = _NEVER_NEARER, 30.0
    while far - near > 1e-9:
        middle = (near + far) / 2
        near, far = (near, middle) if vanishes(middle) else (middle, far)
    x = LENGTH * np.array([0.3, 0.6, 0.9])
    S, H = zip(*(integrals(near - step) for step in x), strict=True)
    powers = np.stack([x**3, x**4, x**5], axis=1)
    inverse, levels = np.linalg.inv(powers), np.diag(H[0])
    return Tail(
        cutoff=near,
        hamiltonian=np.tensordot(inverse, np.stack(H)[:, :size, size:], axes=1),
        overlap=np.tensordot(inverse, np.stack(S)[:, :size, size:], axes=1),
        first_levels=levels[:size],
        second_levels=levels[size:],
    )
