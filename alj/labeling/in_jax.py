"""Labels from potentials of this package: references that cost milliseconds, always in float64.

A label depends on its structure alone, to the last bit: whatever else is labeled with it, in
whatever order, alone or in a block. So atoms and neighbor tables are padded to buckets of the
structure's own, and a block is a loop over one structure, not a batch.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import bucket, double_precision, pad_axis
from alj.geometry.neighbors import TableSize, most_neighbors, neighbor_table
from alj.geometry.overlaps import closest_below, flat_cell
from alj.geometry.periodic import images_needed
from alj.potentials.combine import everything
from alj.potentials.lennard_jones import lennard_jones as lennard_jones_potential
from alj.potentials.ml_bop import ml_bop as ml_bop_potential
from alj.potentials.tosi_fumi import nacl_tosi_fumi as nacl_tosi_fumi_potential
from alj.potentials.tosi_fumi import unsuitable
from alj.types import Labeler, LabelingFailed, Labels, Potential, Structure


def ml_bop_water() -> Labeler:
    """Coarse-grained ML-BOP water, one bead (species O) per molecule, as in LAMMPS.

    H. Chan et al., Nat. Commun. 10, 379 (2019), doi 10.1038/s41467-018-08222-6.
    """
    return InJax("ml_bop_water", ml_bop_potential, {})


def lennard_jones(
    *,
    epsilon_eV: float = 0.0104,
    sigma_A: float = 3.4,
    cutoff_A: float = 8.5,
    shift: bool = True,
) -> Labeler:
    """Lennard-Jones between all atoms alike (defaults: argon, truncated at 2.5 σ).

    Args:
        epsilon_eV: depth of the well.
        sigma_A: distance at which the energy crosses zero.
        cutoff_A: nothing is felt beyond.
        shift: subtract the energy at the cutoff.
    """
    keywords = {
        "epsilon_eV": epsilon_eV,
        "sigma_A": sigma_A,
        "cutoff_A": cutoff_A,
        "shift": shift,
    }
    return InJax("lennard_jones", lennard_jones_potential, keywords)


def nacl_tosi_fumi(
    *,
    cutoff_A: float = 10.0,
    accuracy: float = 1e-9,
    atomic_energies: Literal["whole", "short_range"] = "whole",
) -> Labeler:
    """Sodium chloride as rigid ions (Tosi and Fumi) with full Ewald sums.

    F. G. Fumi, M. P. Tosi, J. Phys. Chem. Solids 25, 31 (1964), doi 10.1016/0022-3697(64)90159-3.

    Args:
        cutoff_A: pair terms end here, without a shift, in Å.
        accuracy: of Coulomb forces, rms in eV/Å; no limit of the sums changes labels by much more.
        atomic_energies: "whole" shares out the energy, Coulomb included; "short_range" gives the
            sum of each ion's pair terms alone. Energies, forces and stress are the same.
    """
    keywords = {"cutoff_A": cutoff_A, "accuracy": accuracy}
    atoms = {"coulomb": False} if atomic_energies == "short_range" else {}
    return InJax("nacl_tosi_fumi", nacl_tosi_fumi_potential, keywords, unsuitable, atoms)


class InJax:
    """A labeler that evaluates a classical `potential`, made by a builder from its keywords.

    `unsuitable` says why a structure has no energy, or None. `atoms` are keywords that differ in
    the potential that atomic energies are taken from. It can be pickled, so that other processes
    may label.
    """

    def __init__(
        self,
        name: str,
        builder: Callable[..., Potential],
        keywords: Mapping[str, Any],
        unsuitable: Callable[[Structure], str | None] | None = None,
        atoms: Mapping[str, Any] | None = None,
    ):
        self.name = name
        self.settings = {**keywords, "precision": "float64"}
        if atoms:
            self.settings["atoms"] = dict(atoms)
        self._recipe = (name, builder, dict(keywords), unsuitable, atoms)
        self._unsuitable = unsuitable
        self.potential = _potential(builder, tuple(sorted(keywords.items())))
        self._of_atoms = _potential(builder, tuple(sorted({**keywords, **(atoms or {})}.items())))

    def __reduce__(self):
        return type(self), self._recipe

    def label(self, structure: Structure) -> Labels:
        """Labels of one unpadded structure: energy, forces, atomic energies, stress if periodic.

        Raises LabelingFailed: `bad_input` where a number is not finite, the cell is singular,
        atoms are nearer than 1e-3 Å or their species unknown; `unphysical` where the answer is not
        finite.
        """
        answer = self.label_many([structure])[0]
        if isinstance(answer, LabelingFailed):
            raise answer
        return answer

    def label_many(self, structures: list[Structure]) -> list[Labels | LabelingFailed]:
        """Labels or failures, in the order of `structures`."""
        answers: list = [None] * len(structures)
        padded: dict[int, Structure] = {}
        for i, structure in enumerate(structures):
            try:
                _screen(structure, self.potential.species)
                reason = self._unsuitable and self._unsuitable(structure)
                if reason:
                    raise LabelingFailed("bad_input", reason)
                padded[i] = _padded(structure)
            except LabelingFailed as failure:
                answers[i] = failure
        with double_precision():
            for members, block, images in _blocks(padded, self.potential.cutoff):
                count, cutoff = jnp.asarray(len(members)), self.potential.cutoff
                most = np.asarray(_count_block(block, count, cutoff, images))[: len(members)]
                capacities = np.array([bucket(int(n), smallest=_SMALLEST_TABLE) for n in most])
                for capacity in np.unique(capacities):
                    places = np.flatnonzero(capacities == capacity)
                    chosen = [members[place] for place in places]
                    if capacity > _LARGEST_TABLE:
                        for i, place in zip(chosen, places, strict=True):
                            answers[i] = _crowded(int(most[place]), self.potential.cutoff)
                        continue
                    size = TableSize(int(capacity), images)
                    part = _stacked([padded[i] for i in chosen], len(block.species))
                    both = (self.potential, self._of_atoms)
                    results = _label_block(both, part, jnp.asarray(len(chosen)), size)
                    rows = zip(*(np.asarray(column) for column in results), strict=True)
                    for i, row in zip(chosen, rows, strict=False):
                        answers[i] = _checked(structures[i], row)
        return answers


@cache
def _potential(builder: Callable[..., Potential], keywords: tuple) -> Potential:
    """One potential for each recipe, so that equal labelers share compiled programs."""
    return builder((), **dict(keywords))


_BLOCK = 64
_BLOCK_ATOMS = 65_536
_SMALLEST_TABLE = 16  # one program for most densities of a liquid rather than one for each
_LARGEST_TABLE = 2048


@partial(jax.jit, static_argnums=(2, 3))
def _count_block(structures: Structure, count, cutoff: float, images):
    """The most neighbors that any atom has, of the first `count` structures."""

    def body(i, counts):
        structure = jax.tree.map(lambda leaf: leaf[i], structures)
        return counts.at[i].set(most_neighbors(structure, cutoff, images))

    return jax.lax.fori_loop(0, count, body, jnp.zeros(len(structures.species), int))


@partial(jax.jit, static_argnums=(0, 3))
def _label_block(both: tuple[Potential, Potential], structures: Structure, count, size: TableSize):
    """Energies, forces, stresses and atomic energies of the first `count` structures.

    Atomic energies are those of the second potential where it is another than the first.

    The number of turns is an argument, so that XLA makes one and the same body for every block.
    """
    potential, of_atoms = both
    params = potential.init(jax.random.key(0))

    def body(i, results):
        structure = jax.tree.map(lambda leaf: leaf[i], structures)
        neighbors = neighbor_table(structure, potential.cutoff, size)
        *whole, atoms = everything(potential, params, structure, neighbors)
        if of_atoms is not potential:
            atoms = of_atoms.atomic_energies(params, structure, neighbors)
        row = (*whole, atoms, neighbors.overflow)
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), results, row)

    block, atoms = structures.species.shape
    start = (
        jnp.zeros(block),
        jnp.zeros((block, atoms, 3)),
        jnp.zeros((block, 3, 3)),
        jnp.zeros((block, atoms)),
        jnp.zeros(block, bool),
    )
    return jax.lax.fori_loop(0, count, body, start)


def _screen(structure: Structure, known: tuple[int, ...]) -> None:
    """Raise LabelingFailed for what no potential should be asked."""
    positions, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    species = np.asarray(structure.species)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise LabelingFailed("bad_input", "a coordinate or the cell is not finite")
    if len(species) == 0 or (species <= 0).any():
        raise LabelingFailed("bad_input", "expected one or more atoms, each of a known element")
    if known and not np.isin(species, known).all():
        strange = sorted(set(species.tolist()) - set(known))
        raise LabelingFailed("bad_input", f"atomic numbers {strange} are unknown; known: {known}")
    if flat_cell(cell):
        raise LabelingFailed("bad_input", "the cell is singular")
    pair = closest_below(positions, species, cell)
    if pair is not None:
        i, j, distance = pair
        raise LabelingFailed("bad_input", f"atoms {i} and {j} are {distance:.1e} Å apart")


def _padded(structure: Structure) -> Structure:
    atoms = _padded_size(len(structure.species))
    fields: dict[str, Any] = {
        "positions": pad_axis(np.asarray(structure.positions, np.float64), atoms, 0.0),
        "species": pad_axis(np.asarray(structure.species, np.int32), atoms, 0),
        "cell": np.asarray(structure.cell, np.float64),
        "charge": np.asarray(structure.charge, np.int32),
        "multiplicity": np.asarray(structure.multiplicity, np.int32),
    }
    return Structure(**fields)


def _padded_size(atoms: int) -> int:
    """Eight sizes an octave: at most an eighth of the work is wasted."""
    step = max(1, (1 << (atoms - 1).bit_length()) // 16)
    return -(-atoms // step) * step


def _blocks(padded: dict[int, Structure], cutoff: float):
    """Which structures share a block, the filled block, and the images that they need."""
    groups: dict[tuple, list[int]] = {}
    for i, structure in padded.items():
        shape = (len(structure.species), images_needed(np.asarray(structure.cell), cutoff))
        groups.setdefault(shape, []).append(i)
    for (atoms, images), members in groups.items():
        length = max(1, min(_BLOCK, _BLOCK_ATOMS // atoms))
        for start in range(0, len(members), length):
            chunk = members[start : start + length]
            yield chunk, _stacked([padded[i] for i in chunk], length), images


def _stacked(structures: list[Structure], length: int) -> Structure:
    """A batch on the device, filled up with nothing."""
    columns = (np.stack(column) for column in zip(*structures, strict=True))
    return Structure(*(jnp.asarray(pad_axis(column, length, 0)) for column in columns))


def _crowded(count: int, cutoff: float) -> LabelingFailed:
    message = f"an atom has {count} neighbors within {cutoff} Å; expected {_LARGEST_TABLE} at most"
    return LabelingFailed("bad_input", f"{message}; is the cell in Å?")


def _checked(structure: Structure, result: tuple) -> Labels | LabelingFailed:
    energy, forces, stress, atomic, overflow = result
    atoms = len(structure.species)
    if overflow:
        return LabelingFailed("infrastructure", "the neighbor table overflowed; report this")
    periodic = bool(np.any(structure.cell))
    finite = np.isfinite(energy) and np.isfinite(forces).all()
    if not finite or (periodic and not np.isfinite(stress).all()):
        return LabelingFailed("unphysical", "the reference energy, force or stress is not finite")
    fields: dict[str, Any] = {
        "energy": np.asarray(energy),
        "forces": forces[:atoms],
        "stress": stress if periodic else np.full((3, 3), np.nan),
        "dipole": np.full(3, np.nan),
        "charges": np.full(atoms, np.nan),
        "atomic_energies": atomic[:atoms],
    }
    return Labels(**fields)
