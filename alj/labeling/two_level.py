"""Two levels of theory in one label: a good one for a region, a cheap one for everything.

    E = E_low(all) + E_high(region) - E_low(region)

The subtractive scheme of ONIOM; with a force field as the cheap level it is QM/MM with mechanical
embedding: the region does not feel the charges around it but through the cheap level. Where a bond
between an atom Q of the region and an atom M outside is cut, a hydrogen atom L closes it,

    r_L = r_Q + g (r_M - r_Q),   g = (R_Q + R_H) / (R_Q + R_M)

with covalent radii R, so that it moves with Q and M and adds no coordinates. Its force is theirs by
the chain rule: (1 - g) F_L on Q, g F_L on M. S. Dapprich, I. Komáromi, K. S. Byun, K. Morokuma,
M. J. Frisch, J. Mol. Struct. THEOCHEM 461, 1 (1999), doi 10.1016/S0166-1280(98)00475-8.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import ase
import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from alj.labeling.engine import Limits, Reference, labels_of
from alj.types import BadInput, Labeler, LabelingFailed, Labels, Structure

BOND = 1.25
"""Atoms nearer than this many times the sum of their covalent radii are bonded."""


def two_level(
    *,
    high: str | dict,
    low: str | dict,
    region: tuple[int, ...] = (0,),
    radius_A: float | None = None,
    whole_molecules: bool = False,
    links: tuple[tuple[int, int], ...] | None = None,
    region_charge: int = 0,
    region_multiplicity: int = 0,
) -> "TwoLevel":
    """A good engine for a region, a cheap one for the whole (QM/MM-like, subtractive, ONIOM).

    A trained network is a level by its calculator: `{name: ase, calculator: alj.calculator.load,
    keywords: {path: /absolute/path/of/run}, keep_calculator: true}`.

    Args:
        high: Labeler of the region, as a `labeler` section of its own.
        low: Labeler of everything, and of the region, likewise.
        region: Atoms of the region, counted from 0; with the next two what it grows from.
        radius_A: Take in all atoms within this distance of an atom of `region`. The energy then
            jumps where an atom comes or goes: for labels, rather than for dynamics.
        whole_molecules: Take in the molecules of all these atoms.
        links: Pairs of an atom of the region and one outside whose bond is cut; null finds them by
            distances (1.25 times the sum of covalent radii). Say them for dynamics that stretch
            such bonds. Only single bonds should be cut.
        region_charge: Total charge of the region, e.
        region_multiplicity: 2S+1 of the region; 0 takes the default of each level.
    """
    from alj.labeling import build_labeler  # which registers this one

    if not region:
        raise BadInput("region: expected one or more atoms, counted from 0, found none")
    if min(region) < 0 or len(set(region)) < len(region):
        raise BadInput(f"region: expected different numbers from 0 on, found {list(region)}")
    return TwoLevel(
        high=build_labeler(high, "high"),
        low=build_labeler(low, "low"),
        region=tuple(region),
        radius_A=radius_A,
        whole_molecules=whole_molecules,
        links=None if links is None else tuple((int(q), int(m)) for q, m in links),
        region_charge=region_charge,
        region_multiplicity=region_multiplicity,
    )


class Part(NamedTuple):
    """The region closed by its links: `atoms` of the whole come first, then a hydrogen atom for
    each row of `bonds` (places in `atoms`, atoms outside), `factors` g along it.

    `outside` are the positions of the outer atoms, in the image that is bonded.
    """

    structure: Structure
    atoms: np.ndarray
    bonds: np.ndarray
    factors: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True)
class TwoLevel:
    """See `two_level`."""

    high: Labeler
    low: Labeler
    region: tuple[int, ...]
    radius_A: float | None = None
    whole_molecules: bool = False
    links: tuple[tuple[int, int], ...] | None = None
    region_charge: int = 0
    region_multiplicity: int = 0

    name: ClassVar[str] = "two_level"
    limits: ClassVar[Limits] = Limits()

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers."""
        links = None if self.links is None else [list(pair) for pair in self.links]
        return {
            "high": {"name": self.high.name, **self.high.settings},
            "low": {"name": self.low.name, **self.low.settings},
            "region": list(self.region),
            "radius_A": self.radius_A,
            "whole_molecules": self.whole_molecules,
            "links": links,
            "region_charge": self.region_charge,
            "region_multiplicity": self.region_multiplicity,
        }

    @property
    def convention(self) -> str:
        """What its energies are."""
        return f"{_whose(self.high)} for a region in {_whose(self.low)}"

    @property
    def elements(self) -> tuple[int, ...]:
        """Those of the cheap level; the other one is asked when it is its turn."""
        engine = getattr(self.low, "engine", None)
        return engine.elements if engine is not None else ()

    @property
    def periodic(self) -> bool:
        """Whether the cheap level takes cells; the region is always a molecule."""
        engine = getattr(self.low, "engine", None)
        return engine is None or engine.periodic

    @property
    def electrons(self) -> bool:
        """Whether charge and multiplicity of the whole mean anything to the cheap level."""
        engine = getattr(self.low, "engine", None)
        return engine is not None and engine.electrons

    @property
    def may_use_jax(self) -> bool:
        """Whether a label may run programs of JAX."""
        return any(
            not isinstance(level, Reference) or getattr(level.engine, "may_use_jax", False)
            for level in (self.high, self.low)
        )

    def version(self) -> str:
        """Programs and versions of both levels."""
        engines = [getattr(level, "engine", None) for level in (self.high, self.low)]
        return "; ".join(engine.version() if engine is not None else "alj" for engine in engines)

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """Three single points, two where both levels are the same. Raises LabelingFailed, which
        says whose it is, BadInput."""
        part = part_of(self, structure)
        spin: Any = np.asarray(multiplicity or structure.multiplicity, np.int32)
        whole = _label(self.low, structure._replace(multiplicity=spin), "low level, everything")
        if (self.high.name, self.high.settings) == (self.low.name, self.low.settings):
            return whole
        good = _label(self.high, part.structure, f"high level, {_words(part)}")
        cheap = _label(self.low, part.structure, f"low level, {_words(part)}")
        return _corrected(whole, (good, cheap), part, np.asarray(structure.cell, np.float64))


def part_of(settings: TwoLevel, structure: Structure) -> Part:
    """The region of a structure, closed by link atoms, as a molecule without a cell.

    Raises LabelingFailed("bad_input") where it cannot be.
    """
    count = len(structure.species)
    named = [*settings.region, *(atom for pair in settings.links or () for atom in pair)]
    if max(named) >= count:
        raise LabelingFailed(
            "bad_input", f"region or links name atom {max(named)}; this structure has {count} atoms"
        )
    atoms = ase.Atoms(
        np.asarray(structure.species),
        np.asarray(structure.positions, np.float64),
        cell=np.asarray(structure.cell, np.float64),
        pbc=np.asarray(structure.cell).any(axis=1),
    )
    first, second, vectors = neighbor_list("ijD", atoms, BOND * covalent_radii[atoms.numbers])
    inside = np.zeros(count, bool)
    inside[list(settings.region)] = True
    if settings.radius_A is not None:
        centers = atoms.positions[list(settings.region)]
        apart = atoms.positions[:, None] - centers[None]
        lengths = _nearest(apart.reshape(-1, 3), atoms)[1]
        inside |= np.any(lengths.reshape(count, -1) <= settings.radius_A, axis=1)
    if settings.whole_molecules:
        graph = csr_array((np.ones(len(first)), (first, second)), shape=(count, count))
        molecules = connected_components(graph, directed=False)[1]
        inside = np.isin(molecules, molecules[inside])
    bonds = _cut(settings.links, inside, atoms, (first, second, vectors))
    return _closed(atoms, np.flatnonzero(inside), bonds, settings)


def _cut(given, inside: np.ndarray, atoms: ase.Atoms, bonds) -> list[tuple[int, int, np.ndarray]]:
    """The bonds that the region's border cuts: atom inside, atom outside, vector between them."""
    if given is None:
        return [
            (int(q), int(m), vector)
            for q, m, vector in zip(*bonds, strict=True)
            if inside[q] and not inside[m]
        ]
    for q, m in given:
        if not inside[q] or inside[m]:
            raise LabelingFailed(
                "bad_input",
                f"links: expected an atom of the region and one outside, found {[q, m]}",
            )
    vectors = [atoms.positions[m] - atoms.positions[q] for q, m in given]
    if not vectors:
        return []
    nearest = _nearest(np.array(vectors), atoms)[0]
    return [(q, m, vector) for (q, m), vector in zip(given, nearest, strict=True)]


def _closed(atoms: ase.Atoms, members: np.ndarray, bonds, settings: TwoLevel) -> Part:
    """The members in one image, and a hydrogen atom on every cut bond."""
    positions = _together(atoms, members)
    place = {int(atom): k for k, atom in enumerate(members)}
    radii = covalent_radii[atoms.numbers]
    pairs = np.array([(place[q], m) for q, m, _ in bonds], int).reshape(-1, 2)
    vectors = np.array([vector for _, _, vector in bonds]).reshape(-1, 3)
    own = radii[members][pairs[:, 0]]
    factors = (own + covalent_radii[1]) / (own + radii[pairs[:, 1]])
    inner = positions[pairs[:, 0]]
    fields: dict[str, Any] = {
        "positions": np.concatenate([positions, inner + factors[:, None] * vectors]),
        "species": np.concatenate([atoms.numbers[members], np.ones(len(pairs))]).astype(np.int32),
        "cell": np.zeros((3, 3)),
        "charge": np.asarray(settings.region_charge, np.int32),
        "multiplicity": np.asarray(settings.region_multiplicity, np.int32),
    }
    return Part(Structure(**fields), members, pairs, factors, inner + vectors)


def _nearest(vectors: np.ndarray, atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Vectors to the nearest images, and their lengths."""
    periodic: Any = atoms.pbc
    return find_mic(vectors, atoms.cell, periodic)


def _together(atoms: ase.Atoms, members: np.ndarray) -> np.ndarray:
    """Positions of the members as one molecule, in the image of the first of them."""
    positions = atoms.positions[members]
    if not atoms.pbc.any():
        return positions
    moved = positions[0] + _nearest(positions - positions[0], atoms)[0]
    i, j = np.triu_indices(len(members), 1)
    apart = moved[j] - moved[i]
    nearest = _nearest(apart, atoms)[1] if len(i) else np.zeros(0)
    if np.any(np.linalg.norm(apart, axis=1) > nearest + 1e-6):
        raise LabelingFailed(
            "bad_input",
            "the region reaches further than half of the cell, so that its image is not clear; "
            "expected a smaller region or a larger cell",
        )
    return moved


def _label(level: Labeler, structure: Structure, whose: str) -> Labels:
    try:
        return level.label(structure)
    except LabelingFailed as failure:
        raise LabelingFailed(
            failure.kind, f"{whose}: {failure.message}", failure.log_tail
        ) from None


def _words(part: Part) -> str:
    """The region in a phrase."""
    kinds, counts = np.unique(part.structure.species[: len(part.atoms)], return_counts=True)
    formula = "".join(
        f"{chemical_symbols[z]}{n if n > 1 else ''}" for z, n in zip(kinds, counts, strict=True)
    )
    links = len(part.bonds)
    return f"region {formula} with {links} link atom{'s' * (links != 1)}"


def _whose(level: Labeler) -> str:
    return getattr(level, "convention", level.name)


def _corrected(whole: Labels, levels: tuple[Labels, Labels], part: Part, cell) -> Labels:
    """The cheap label of the whole, with the region's correction spread over its atoms.

    Links are linear in the positions of the atoms that they belong to, so the virial of the
    correction is that of its forces on these atoms, in the images that the region has.
    """
    good, cheap = levels
    change = np.asarray(good.forces) - np.asarray(cheap.forces)
    count, g = len(part.atoms), part.factors[:, None]
    inner, outer = change[:count].copy(), g * change[count:]
    np.add.at(inner, part.bonds[:, 0], (1.0 - g) * change[count:])
    forces, stress = np.array(whole.forces), np.array(whole.stress)
    forces[part.atoms] += inner
    np.add.at(forces, part.bonds[:, 1], outer)
    if cell.any(axis=1).all():
        virial = np.asarray(part.structure.positions)[:count].T @ inner + part.outside.T @ outer
        stress -= 0.5 * (virial + virial.T) / abs(np.linalg.det(cell))
    return labels_of(
        len(forces),
        float(whole.energy) + (float(good.energy) - float(cheap.energy)),
        forces,
        stress=stress,
        dipole=np.asarray(whole.dipole) + (np.asarray(good.dipole) - np.asarray(cheap.dipole)),
    )
