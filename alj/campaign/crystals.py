"""Crystals and their surfaces: prototypes with lattice constants, or a file."""

from typing import Literal

import ase
import ase.build
import numpy as np
from ase.data import chemical_symbols, reference_states

from alj.campaign.built import (
    Built,
    composition,
    from_file,
    names_a_file,
    of_atoms,
    to_atoms,
)
from alj.campaign.changes import supercell as supercell_of
from alj.types import BadInput

Prototype = Literal[
    "sc", "fcc", "bcc", "hcp", "diamond", "zincblende", "rocksalt", "cesiumchloride",
    "fluorite", "wurtzite", "perovskite",
]  # fmt: skip

PATTERNS = {
    **dict.fromkeys(("sc", "fcc", "bcc", "hcp", "diamond"), (1,)),
    **dict.fromkeys(("zincblende", "rocksalt", "cesiumchloride", "wurtzite"), (1, 1)),
    "fluorite": (1, 2),
    "perovskite": (1, 1, 3),
}
"""How many of each element stand in the formula of a prototype."""

COMPOUNDS: dict[str, tuple[str, float, float | None]] = {
    "LiF": ("rocksalt", 4.027, None),
    "LiCl": ("rocksalt", 5.130, None),
    "NaF": ("rocksalt", 4.634, None),
    "NaCl": ("rocksalt", 5.640, None),
    "NaBr": ("rocksalt", 5.974, None),
    "KCl": ("rocksalt", 6.293, None),
    "KBr": ("rocksalt", 6.600, None),
    "MgO": ("rocksalt", 4.212, None),
    "CaO": ("rocksalt", 4.811, None),
    "CsCl": ("cesiumchloride", 4.123, None),
    "CsBr": ("cesiumchloride", 4.296, None),
    "CsI": ("cesiumchloride", 4.567, None),
    "ZnS": ("zincblende", 5.409, None),
    "SiC": ("zincblende", 4.360, None),
    "BN": ("zincblende", 3.615, None),
    "AlAs": ("zincblende", 5.661, None),
    "GaP": ("zincblende", 5.451, None),
    "GaAs": ("zincblende", 5.653, None),
    "InP": ("zincblende", 5.869, None),
    "InAs": ("zincblende", 6.058, None),
    "CdTe": ("zincblende", 6.482, None),
    "CaF2": ("fluorite", 5.463, None),
    "BaF2": ("fluorite", 6.200, None),
    "CeO2": ("fluorite", 5.411, None),
    "ZnO": ("wurtzite", 3.250, 5.207),
    "AlN": ("wurtzite", 3.112, 4.982),
    "GaN": ("wurtzite", 3.189, 5.185),
    "SrTiO3": ("perovskite", 3.905, None),
}
"""Prototype, a and c in Å, measured at room temperature."""

_PLANE_A = 0.05
"""Atoms whose heights differ by less are in one plane."""


def crystal(
    generator: np.random.Generator,
    count: int | None,
    *,
    material: str,
    structure: Prototype | None = None,
    a_A: float | None = None,
    c_A: float | None = None,
    u: float | None = None,
    cell: Literal["conventional", "primitive"] = "conventional",
    supercell: list[int] | list[list[int]] | None = None,
    minimum_length_A: float | None = None,
) -> list[Built]:
    """A perfect crystal: a prototype with lattice constants, or the cells in a file.

    Args:
        material: A formula such as Cu or NaCl, or a file that ASE reads, such as a CIF.
        structure: Prototype; null takes what is known: of elements ASE's table, of compounds that
            of common salts and semiconductors.
        a_A: Lattice constant; null takes the measured one where the crystal is known.
        c_A: The second one of hcp and wurtzite; null keeps the measured ratio to `a_A` where the
            crystal is known, and takes that of packed spheres elsewhere.
        u: Internal coordinate of wurtzite; null takes that of equal bond lengths.
        cell: The conventional cell, or the primitive one.
        supercell: Repeats along the three lattice vectors, or an integer matrix whose rows are the
            new lattice vectors in terms of the old.
        minimum_length_A: Instead, as many repeats as make all heights of the cell this long.

    Raises:
        BadInput: the formula does not fit the prototype, a constant is unknown or wrong, the file
            is not periodic, a repeat is smaller than 1.
    """
    built = _unit_cells(material, structure, a_A, c_A, u, cell)
    if supercell is None and minimum_length_A is None:
        return built
    return [
        one
        for cell in built
        for one in supercell_of(
            cell, generator, repeats=supercell, minimum_length_A=minimum_length_A
        )
    ]


def slab(
    generator: np.random.Generator,
    count: int | None,
    *,
    material: str,
    miller: tuple[int, int, int] = (1, 0, 0),
    layers: int = 4,
    vacuum_A: float = 15.0,
    termination: int = 0,
    repeats: tuple[int, int] = (1, 1),
    periodic: bool = True,
    structure: Prototype | None = None,
    a_A: float | None = None,
    c_A: float | None = None,
    u: float | None = None,
) -> list[Built]:
    """A slab of a crystal between two surfaces, its normal along z.

    Args:
        material: A formula, or a file with a conventional cell, as in `crystal`.
        miller: Miller indices h, k, l of the surface, of the conventional cell.
        layers: Planes of atoms; planes of different elements count each.
        vacuum_A: Empty space between the slab and its image, from atom to atom.
        termination: Planes to leave out at the bottom, so that another one is the lowest.
        repeats: Repeats along the two lattice vectors of the surface.
        periodic: Whether the cell repeats along the normal too, as plane-wave programs want it.
        structure: Prototype, as in `crystal`.
        a_A: Lattice constant, as in `crystal`.
        c_A: Second lattice constant, as in `crystal`.
        u: Internal coordinate, as in `crystal`.

    Raises:
        BadInput: as `crystal`; the Miller indices are all zero, or planes cannot be told apart.
    """
    if not any(miller):
        raise BadInput("miller: expected Miller indices such as [1, 1, 1], found zeros only")
    if layers < 1 or termination < 0 or min(repeats) < 1:
        raise BadInput(
            "expected layers and repeats of 1 or more and a termination of 0 or more, found "
            f"layers {layers}, repeats {list(repeats)}, termination {termination}"
        )
    if periodic and vacuum_A == 0:
        raise BadInput("vacuum_A: expected more than 0 where the slab is periodic, found 0")
    built = []
    for one in _unit_cells(material, structure, a_A, c_A, u, "conventional"):
        atoms = _planes(to_atoms(one), miller, termination, layers)
        atoms = atoms.repeat((*repeats, 1))
        thickness = float(np.ptp(atoms.positions[:, 2]))
        atoms.positions[:, 2] += 0.5 * vacuum_A - atoms.positions[:, 2].min()
        atoms.cell[2] = [0.0, 0.0, thickness + vacuum_A]
        atoms.pbc = (True, True, periodic)
        built.append(of_atoms(atoms))
    return built


def _planes(unit: ase.Atoms, miller, termination: int, layers: int) -> ase.Atoms:
    """So many planes of atoms of a crystal, the first ones left out."""
    thickness, wanted = 1, termination + layers
    while True:
        thick = ase.build.surface(unit, miller, thickness, periodic=True)
        heights = _from_below(thick.positions[:, 2], float(thick.cell[2, 2]))
        thick.positions[:, 2] = heights
        order = np.argsort(heights, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(heights[order]) > _PLANE_A), len(order) - 1)
        if len(ends) < 2 and len(ends) < thickness:
            raise BadInput(
                f"miller: the planes of {list(miller)} are nearer to each other than {_PLANE_A} Å "
                "and cannot be counted; choose lower indices"
            )
        if len(ends) >= wanted:
            first = 0 if termination == 0 else int(ends[termination - 1]) + 1
            return thick[order[first : int(ends[wanted - 1]) + 1]]
        thickness = max(thickness + 1, -(-wanted * thickness // len(ends)))


def _from_below(heights: np.ndarray, period: float) -> np.ndarray:
    """Periodic heights, shifted such that no plane is cut by the border of the cell."""
    order = np.argsort(heights, kind="stable")
    ends = np.flatnonzero(np.diff(heights[order]) > _PLANE_A)
    if len(ends) == 0 or heights[order[0]] + period - heights[order[-1]] > _PLANE_A:
        return heights
    shifted = heights.copy()
    shifted[order[ends[-1] + 1 :]] -= period
    return shifted


def _unit_cells(material: str, structure, a, c, u, cell: str) -> list[Built]:
    if names_a_file(material):
        given = {"structure": structure, "a_A": a, "c_A": c, "u": u}
        given["cell"] = None if cell == "conventional" else cell
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise BadInput(f"{extra[0]}: is for a formula; the cell in {material} is what it is")
        return from_file(material, periodic=True)
    unit = composition(material, "material")
    symbols = [chemical_symbols[number] for number in unit]
    formula = _written(symbols, tuple(unit.values()))
    known, known_a, known_c = _known(formula)
    prototype = structure or known
    if prototype is None:
        raise BadInput(
            f"structure: expected a prototype and a_A, for no crystal of {formula} is known here; "
            "or give a file"
        )
    _check_constants(formula, prototype, tuple(unit.values()), a, c, u)
    if a is None and known != prototype:
        also = f"; it is known as {known}" if known else ""
        raise BadInput(f"a_A: expected the lattice constant of {formula} as {prototype}{also}")
    if c is None and prototype in ("hcp", "wurtzite"):
        ratio = (known_c or 0.0) / known_a if known == prototype else np.sqrt(8.0 / 3.0)
        c = ratio * (a or known_a)
    atoms = _prototype(symbols, prototype, a or known_a, c, u, cell)
    return [of_atoms(atoms, structure=prototype)]


def _known(formula: str) -> tuple[str | None, float, float | None]:
    """Prototype, a and c of a crystal whose lattice constants are known, else (None, 0, None)."""
    if formula in COMPOUNDS:
        return COMPOUNDS[formula]
    if formula not in chemical_symbols:
        return None, 0.0, None
    reference = reference_states[chemical_symbols.index(formula)] or {}
    name = str(reference.get("symmetry"))
    # ASE has the lattice but not the atoms in it where the basis is None, as for selenium.
    if PATTERNS.get(name) != (1,) or reference.get("basis", ()) is None:
        return None, 0.0, None
    a = float(reference["a"])
    return name, a, a * float(reference["c/a"]) if name == "hcp" else None


def _check_constants(formula: str, prototype: str, pattern: tuple[int, ...], a, c, u) -> None:
    if pattern != PATTERNS[prototype]:
        letters = [
            f"{x}{n if n > 1 else ''}" for x, n in zip("ABX", PATTERNS[prototype], strict=False)
        ]
        raise BadInput(
            f"material: expected a formula of the kind {''.join(letters)} for {prototype}, "
            f"found {formula}"
        )
    if c is not None and prototype not in ("hcp", "wurtzite"):
        raise BadInput(f"c_A: hcp and wurtzite have one, {prototype} has none")
    if u is not None and prototype != "wurtzite":
        raise BadInput(f"u: wurtzite has one, {prototype} has none")
    for name, value in {"a_A": a, "c_A": c}.items():
        if value == 0.0:
            raise BadInput(f"{name}: expected a lattice constant in Å, found 0")


def _prototype(symbols: list[str], prototype: str, a: float, c, u, cell: str) -> ase.Atoms:
    if prototype == "perovskite":
        faces = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
        places = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], *faces]
        names = [*symbols[:2], *[symbols[2]] * 3]
        return ase.Atoms(names, scaled_positions=places, cell=a * np.eye(3), pbc=True)
    name = _written(symbols, PATTERNS[prototype])
    hexagonal = prototype in ("hcp", "wurtzite")
    return ase.build.bulk(
        name,
        prototype,
        a=a,
        c=c,
        u=u,
        cubic=cell == "conventional" and not hexagonal,
    )


def _written(symbols: list[str], numbers: tuple[int, ...]) -> str:
    """A formula such as CaF2."""
    return "".join(s + (str(n) if n > 1 else "") for s, n in zip(symbols, numbers, strict=True))
