"""A model that answers for one structure after another: one compiled call and one transfer a step.

Whoever moves atoms elsewhere (ASE, i-PI, LAMMPS) asks for a step at a time, and the time around the
program counts: a small molecule's forces take a fifth of a millisecond. So neighbors are found in
the same program, which keeps them until an atom has moved by half the skin (L. Verlet, Phys. Rev.
159, 98 (1967), doi:10.1103/PhysRev.159.98); what has not changed stays on the device; and all that
is asked for comes back in one array.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.arrays import bucket, double_precision, pad_axis, safe_norm
from alj.campaign.datasets import EXACT_SIZES, larger, near_origin
from alj.campaign.models import Answer, Model, answer_mean, answer_members
from alj.geometry.environment import environment
from alj.geometry.neighbors import TableSize, nearer, neighbor_table, table_size
from alj.geometry.overlaps import closest_below
from alj.types import BadInput, Neighbors, Structure

SKIN_A = 0.6
"""How much farther than the cutoff a table reaches, in Å."""

_SLACK = 1.25
"""Room in the first neighbor table for what comes next."""

_ON_TOP = 1e-3
"""Atoms nearer than this, in Å, are a mistake."""


class Reply(NamedTuple):
    """What a model says of one structure, on the host in float64: eV, eV/Å, eV/Å^3.

    Spreads are standard deviations over the members, ddof 1; None where nobody asked. Charges in e,
    None of a potential without charges.
    """

    energy: float
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "3 3"]
    atomic_energies: Float[np.ndarray, " atoms"]
    energy_spread: float | None
    forces_spread: Float[np.ndarray, "atoms 3"] | None
    charges: Float[np.ndarray, " atoms"] | None = None


class _Sizes(NamedTuple):
    """The table within cutoff and skin, and the columns that lie within the cutoff."""

    table: TableSize
    near: int


class _Kept(NamedTuple):
    """The table of the last time that atoms had moved too far, and where they were then."""

    neighbors: Neighbors
    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]


class Answering:
    """A model with what it remembers of the last structure.

    `spread` asks for that over the members, which costs a backward pass for each of them.
    """

    def __init__(self, model: Model, *, spread: bool = True):
        self.model = model
        self.spread = spread and model.members > 1
        self._padded: dict[int, int] = {}
        self._sizes: dict[int, _Sizes] = {}
        self._fixed: tuple[np.ndarray, ...] = ()
        self._on_device: Any = None
        self._kept: _Kept | None = None

    def __call__(self, structure: Structure) -> Reply:
        """The mean of the members. Raises BadInput for what is not finite or lies on top."""
        count = len(structure.species)
        _check_finite(np.asarray(structure.positions))
        with double_precision():
            positions = self._place(structure)
            packed = self._ask(positions)
            if packed[1]:  # a table was too small: what else it says is worthless
                self._fit(positions)
                packed = self._ask(positions)
        if packed[0] < _ON_TOP:
            _check_distances(structure)
        return self._unpacked(packed[2:], count, len(positions))

    def _place(self, structure: Structure) -> np.ndarray:
        """Padded positions; whatever else the program needs is on the device after this."""
        positions = np.asarray(structure.positions, np.float64)
        cell = np.asarray(structure.cell, np.float64)
        positions = near_origin(positions, cell)
        fixed = (structure.species, cell, structure.charge, structure.multiplicity)
        same = len(self._fixed) == len(fixed) and all(map(np.array_equal, fixed, self._fixed))
        atoms = self._room(len(positions))
        padded = positions if len(positions) == atoms else pad_axis(positions, atoms, 0.0)
        if not same:
            if not self._fixed or not np.array_equal(self._fixed[0], structure.species):
                self._kept = None
            self._fixed = tuple(np.array(part) for part in fixed)
            self._on_device = (
                jnp.asarray(pad_axis(structure.species, atoms, 0), jnp.int32),
                jnp.asarray(cell),
                jnp.asarray(structure.charge, jnp.int32),
                jnp.asarray(structure.multiplicity, jnp.int32),
            )
        return padded

    def _ask(self, positions: np.ndarray) -> np.ndarray:
        atoms = len(positions)
        if atoms not in self._sizes:
            self._fit(positions)
        sizes, kept = self._sizes[atoms], self._kept
        if kept is None:
            kept = _nothing(atoms, sizes.table.capacity)
        self._kept = None  # it is given away
        model = self.model
        ways = (model.potential if self.spread or model.members == 1 else model.mean, model.members)
        packed, self._kept = _step(
            ways, self.spread, sizes, model.params, self._on_device, positions, kept
        )
        return np.asarray(packed)

    def _fit(self, positions: np.ndarray) -> None:
        """Sizes that hold this structure and some more; those that are there only grow."""
        species, cell, charge, multiplicity = self._on_device
        cutoff = self.model.potential.cutoff
        batch = Structure(
            jnp.asarray(positions)[None], species[None], cell[None], charge[None],
            multiplicity[None],
        )  # fmt: skip
        table = table_size(batch, cutoff + SKIN_A, slack=_SLACK)
        near = table_size(batch, cutoff, slack=_SLACK).capacity
        known = self._sizes.get(len(positions))
        if known is not None:
            table = larger(table, known.table)._replace(grid=table.grid)
            near = max(near, known.near)
        self._sizes[len(positions)] = _Sizes(table, near)
        self._kept = None

    def _room(self, count: int) -> int:
        """What many different sizes are padded to, so that they share programs."""
        if count not in self._padded:
            self._padded[count] = count if len(self._padded) < EXACT_SIZES else bucket(count)
        return self._padded[count]

    def _unpacked(self, packed: np.ndarray, count: int, atoms: int) -> Reply:
        charged = self.model.potential.charges is not None
        spreads = (1, 3 * atoms) if self.spread else ()
        widths = (1, 9, atoms, 3 * atoms, *spreads, *((atoms,) if charged else ()))
        parts = np.split(packed, np.cumsum(widths)[:-1])
        return Reply(
            energy=float(parts[0][0]),
            stress=parts[1].reshape(3, 3),
            atomic_energies=parts[2][:count],
            forces=parts[3].reshape(-1, 3)[:count],
            energy_spread=float(parts[4][0]) if self.spread else None,
            forces_spread=parts[5].reshape(-1, 3)[:count] if self.spread else None,
            charges=parts[-1][:count] if charged else None,
        )


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=6)
def _step(ways, spread: bool, sizes: _Sizes, params, fixed, positions, kept: _Kept):
    """Smallest distance, overflow, and the answer, one array in float64; and the table."""
    potential, members = ways
    species, cell, charge, multiplicity = fixed
    structure = Structure(positions, species, cell, charge, multiplicity)
    reach = potential.cutoff + SKIN_A
    moved = jnp.max(jnp.sum((positions - kept.positions) ** 2, axis=-1))
    stays = (moved < (0.5 * SKIN_A) ** 2) & jnp.all(cell == kept.cell)
    table = jax.lax.cond(
        stays,
        lambda: kept.neighbors,
        lambda: neighbor_table(structure, reach, sizes.table),
    )
    near = nearer(table, structure, potential.cutoff, sizes.near)
    env = environment(structure, near, potential.cutoff)
    nearest = jnp.min(safe_norm(env.vectors), initial=jnp.inf)
    answer = _answered(potential, members, spread, params, structure, near)
    answer = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), answer)
    means = (answer.energy, answer.stress, answer.atomic_energies, answer.forces)
    parts = [nearest, near.overflow, *(jnp.mean(leaf, axis=0) for leaf in means)]
    if spread:
        parts += [jnp.std(leaf, axis=0, ddof=1) for leaf in (answer.energy, answer.forces)]
    if answer.charges is not None:
        parts.append(jnp.mean(answer.charges, axis=0))
    packed = jnp.concatenate([part.astype(jnp.float64).reshape(-1) for part in parts])
    return packed, _Kept(table, jnp.where(stays, kept.positions, positions), cell)


def _answered(potential, members, spread, params, structure, near) -> Answer:
    """The members' answers, or that of their mean, in the precision of the parameters."""
    leaves = jax.tree.leaves(params)
    dtype = jnp.result_type(*leaves) if leaves else jnp.dtype("float64")
    cast = structure._replace(
        positions=structure.positions.astype(dtype), cell=structure.cell.astype(dtype)
    )
    if spread or members == 1:
        return answer_members(potential, members, params, cast, near)
    return answer_mean(potential, params, cast, near)


def _nothing(atoms: int, capacity: int) -> _Kept:
    """What makes the next call look for neighbors."""
    table = Neighbors(
        jnp.full((atoms, capacity), atoms, jnp.int32),
        jnp.zeros((atoms, capacity, 3), jnp.int32),
        jnp.asarray(False),
    )
    return _Kept(table, jnp.full((atoms, 3), jnp.inf), jnp.zeros((3, 3)))


def _check_finite(positions: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        i, axis = np.argwhere(~np.isfinite(positions))[0]
        raise BadInput(f"coordinates of atom {i} is {positions[i, axis]}; expected finite numbers")


def _check_distances(structure: Structure) -> None:
    positions, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    pair = closest_below(positions, np.asarray(structure.species), cell)
    if pair is not None:
        i, j, distance = pair
        raise BadInput(f"atoms {i} and {j} are on top of each other ({distance:.1e} Å apart)")
