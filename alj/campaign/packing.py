"""Molecules at random in a box or a droplet, none overlapping another.

Rigid molecules begin at random places in random directions; then overlaps of the hard atoms are
pushed out by L-BFGS in the six coordinates of every molecule, as in Packmol (Martinez, Andrade,
Birgin, Martinez, J. Comput. Chem. 30, 2157, 2009, doi:10.1002/jcc.21224).
"""

from typing import Literal, NamedTuple

import numpy as np
import scipy.optimize
from ase import Atoms
from ase.data import atomic_masses
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from alj.campaign.built import Built, exactly_one, of_atoms
from alj.campaign.molecules import molecule as molecule_of
from alj.types import BadInput
from alj.units import number_density

_ATTEMPTS = 4
_ITERATIONS = 1000
_MARGIN = 1.02
"""Overlaps are pushed out to slightly more than asked for, where the penalty ends flat."""


class Bodies(NamedTuple):
    """Rigid molecules: coordinates about their centers (Å), and whose each atom is."""

    local: np.ndarray
    owner: np.ndarray


class Room(NamedTuple):
    """Where they go: a periodic cube of this edge, or a sphere of this radius, in Å."""

    size: float
    periodic: bool


def box(
    generator: np.random.Generator,
    count: int | None,
    *,
    molecule: str | None = None,
    copies: int | None = None,
    mixture: dict[str, int] | None = None,
    density_g_per_cc: float = 1.0,
    shape: Literal["periodic", "droplet"] = "periodic",
    minimum_distance_A: float = 2.0,
) -> list[Built]:
    """Molecules packed at random at a density, in a periodic cube or in a droplet.

    Args:
        molecule: A name, a SMILES or a file, see `molecule`.
        copies: Number of molecules.
        mixture: Instead, copies of several, such as {water: 60, ethanol: 4}.
        density_g_per_cc: Mass over the volume of the cube, or of the sphere that holds a droplet.
        shape: A cube with periodic boundaries, or a droplet in vacuum.
        minimum_distance_A: No two atoms of different molecules come closer than this.

    Raises:
        BadInput: the box is too small for a molecule, or the packing is too dense.
    """
    exactly_one({"molecule": molecule, "mixture": mixture})
    if (copies is None) != (molecule is None):
        raise BadInput("copies: expected together with `molecule`; in a mixture each has its own")
    wanted = mixture if mixture is not None else {molecule or "": copies or 0}
    if not wanted:
        raise BadInput("mixture: expected molecules and their numbers, found none")
    for name, number in wanted.items():
        if number < 1:
            raise BadInput(f"{name}: expected 1 or more copies, found {number}")
    parts = [
        (molecule_of(generator, None, molecule=name)[0], number) for name, number in wanted.items()
    ]
    bodies = _bodies(parts)
    numbers = np.concatenate([np.tile(one.structure.species, number) for one, number in parts])
    mass = float(atomic_masses[numbers].sum())
    room = _room(1.0 / number_density(density_g_per_cc, mass), shape == "periodic")
    _check_room(parts, room, minimum_distance_A)
    built = []
    for _ in range(count or 1):
        placed = _packed(generator, bodies, room, minimum_distance_A)
        if placed is None:
            raise BadInput(
                f"could not pack {bodies.owner[-1] + 1} molecules {minimum_distance_A:g} Å apart "
                f"at {density_g_per_cc:g} g/cm³; lower density_g_per_cc or minimum_distance_A"
            )
        atoms = Atoms(numbers, placed)
        if room.periodic:
            atoms.set_cell(room.size * np.eye(3))
            atoms.pbc = True
        atoms.info = _electrons(parts)
        built.append(of_atoms(atoms))
    return built


def _electrons(parts: list[tuple[Built, int]]) -> dict[str, int]:
    """Charge and multiplicity of all together, unpaired electrons in parallel."""
    charge = sum(int(one.structure.charge) * number for one, number in parts)
    unpaired = sum(max(int(one.structure.multiplicity) - 1, 0) * number for one, number in parts)
    return {"charge": charge, "multiplicity": unpaired + 1 if unpaired else 0}


def _bodies(parts: list[tuple[Built, int]]) -> Bodies:
    local, owner, molecules = [], [], 0
    for one, number in parts:
        positions = np.asarray(one.structure.positions)
        middle = 0.5 * (positions.min(axis=0) + positions.max(axis=0))
        local.append(np.tile(positions - middle, (number, 1)))
        owner.append(molecules + np.repeat(np.arange(number), len(positions)))
        molecules += number
    return Bodies(np.concatenate(local), np.concatenate(owner))


def _room(volume: float, periodic: bool) -> Room:
    if periodic:
        return Room(volume ** (1.0 / 3.0), True)
    return Room((3.0 * volume / (4.0 * np.pi)) ** (1.0 / 3.0), False)


def _check_room(parts: list[tuple[Built, int]], room: Room, closest: float) -> None:
    """Raises BadInput where a molecule cannot turn freely without meeting itself or the wall."""
    for one, _ in parts:
        positions = np.asarray(one.structure.positions)
        length = max(float(np.linalg.norm(positions - p, axis=1).max()) for p in positions)
        least = length + closest if room.periodic else 0.5 * length
        if room.size < least:
            name = "an edge" if room.periodic else "a radius"
            raise BadInput(
                f"copies: a molecule of {length:.1f} Å needs {name} of {least:.1f} Å, found "
                f"{room.size:.1f} Å; more copies or a lower density_g_per_cc are needed"
            )


def _packed(generator, bodies: Bodies, room: Room, closest: float) -> np.ndarray | None:
    """Positions without overlaps, or None where no attempt found any."""
    molecules = int(bodies.owner[-1]) + 1
    for _ in range(_ATTEMPTS):
        centers = _anywhere(generator, molecules, room)
        turned = Rotation.from_quat(generator.normal(size=(molecules, 4))).as_matrix()
        local = np.einsum("aij,aj->ai", turned[bodies.owner], bodies.local)
        begun = bodies._replace(local=local)
        result = scipy.optimize.minimize(
            _overlap,
            np.concatenate([centers, np.zeros((molecules, 3))]).ravel(),
            args=(begun, room, _MARGIN * closest),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "ftol": 0.0, "gtol": 1e-6},
        )
        positions = _placed(result.x, begun)[0]
        if _apart(positions, begun, room, closest):
            return positions
    return None


def _anywhere(generator, molecules: int, room: Room) -> np.ndarray:
    if room.periodic:
        return generator.uniform(0.0, room.size, (molecules, 3))
    directions = generator.normal(size=(molecules, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * room.size * generator.uniform(size=(molecules, 1)) ** (1.0 / 3.0)


def _placed(flat: np.ndarray, bodies: Bodies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, their parts about the centers, and the rotation vectors, from coordinates."""
    centers, turns = flat.reshape(2, -1, 3)
    matrices = Rotation.from_rotvec(turns).as_matrix()
    about = np.einsum("aij,aj->ai", matrices[bodies.owner], bodies.local)
    return centers[bodies.owner] + about, about, turns


def _overlap(flat: np.ndarray, bodies: Bodies, room: Room, reach: float):
    """Sum over pairs nearer than `reach` of (reach² - distance²)², and its gradient."""
    positions, about, turns = _placed(flat, bodies)
    i, j, apart = _pairs(positions, bodies, room, reach)
    missing = reach**2 - np.sum(apart**2, axis=1)
    energy, gradient = float(np.sum(missing**2)), np.zeros_like(positions)
    pull = -4.0 * missing[:, None] * apart
    np.add.at(gradient, i, pull)
    np.add.at(gradient, j, -pull)
    if not room.periodic:
        outside = np.maximum(np.sum(positions**2, axis=1) - room.size**2, 0.0)
        energy += float(np.sum(outside**2))
        gradient += 4.0 * outside[:, None] * positions
    by_molecule = np.zeros((2, *turns.shape))
    np.add.at(by_molecule[0], bodies.owner, gradient)
    np.add.at(by_molecule[1], bodies.owner, np.cross(about, gradient))
    by_molecule[1] = np.einsum("mij,mi->mj", _left_jacobian(turns), by_molecule[1])
    return energy, by_molecule.ravel()


def _left_jacobian(turns: np.ndarray) -> np.ndarray:
    """J with exp(turn + d) = exp(J d) exp(turn) to first order in d, for each rotation vector.

    J = 1 + (1 - cos a)/a² K + (a - sin a)/a³ K², a the angle, K the cross product with the vector.
    """
    angle = np.linalg.norm(turns, axis=1)[:, None, None]
    small = angle < 1e-4
    a = np.where(small, 1.0, angle)
    first = np.where(small, 0.5, (1.0 - np.cos(a)) / a**2)
    second = np.where(small, 1.0 / 6.0, (a - np.sin(a)) / a**3)
    cross = np.cross(turns[:, None, :], -np.eye(3)[None])
    return np.eye(3) + first * cross + second * (cross @ cross)


def _pairs(positions: np.ndarray, bodies: Bodies, room: Room, reach: float):
    """Atoms of different molecules nearer than `reach`: (i, j, vectors from j to i)."""
    wrapped = positions % room.size if room.periodic else positions
    wrapped = np.where(wrapped >= room.size, 0.0, wrapped) if room.periodic else wrapped
    tree = KDTree(wrapped, boxsize=room.size if room.periodic else None)
    i, j = tree.query_pairs(reach, output_type="ndarray").reshape(-1, 2).T
    strange = bodies.owner[i] != bodies.owner[j]
    i, j = i[strange], j[strange]
    apart = wrapped[i] - wrapped[j]
    if room.periodic:
        apart -= room.size * np.round(apart / room.size)
    return i, j, apart


def _apart(positions: np.ndarray, bodies: Bodies, room: Room, closest: float) -> bool:
    outside = not room.periodic and np.linalg.norm(positions, axis=1).max() > room.size + 1e-2
    return not outside and len(_pairs(positions, bodies, room, closest)[0]) == 0
