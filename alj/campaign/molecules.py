"""Molecules from SMILES, from names, or from a file.

Geometries from SMILES come from distance geometry with torsion knowledge, ETKDG version 3 (Wang,
Witek, Landrum, Riniker, J. Chem. Inf. Model. 60, 2044, 2020, doi:10.1021/acs.jcim.0c00025), relaxed
with a classical force field; those of small molecules by name are ASE's copy of the G2 set (MP2
geometries; Curtiss, Raghavachari, Redfern, Pople, J. Chem. Phys. 106, 1063, 1997,
doi:10.1063/1.473182).
"""

from typing import Any, Literal, NamedTuple

import ase
import numpy as np
from ase.collections import g2

from alj.annotations import suggest
from alj.campaign.built import Built, exactly_one, from_file, names_a_file, of_atoms
from alj.campaign.isolated import GROUND_STATES
from alj.campaign.names import NAMES
from alj.labeling import install
from alj.types import BadInput

FORCE_FIELDS = {"mmff94": "MMFF94", "uff": "UFF"}

AMBIGUOUS = ("CN", "CO", "CS", "ClF", "ClNO", "ClO", "NCCN", "NO", "OCS", "SO")
"""Names of the G2 set that are SMILES too, mostly of something else."""


class Conformer(NamedTuple):
    """One geometry: positions in Å, and its force-field energy in the force field's own unit."""

    positions: np.ndarray
    energy: float


def molecule(
    generator: np.random.Generator,
    count: int | None,
    *,
    molecule: str | None = None,
    smiles: str | None = None,
    conformers: int = 1,
    minimum_rmsd_A: float = 0.3,
    force_field: Literal["automatic", "mmff94", "uff", "none"] = "automatic",
    multiplicity: int | None = None,
) -> list[Built]:
    """A molecule in vacuum, or several of its conformers, lowest force-field energy first.

    Args:
        molecule: A name such as water, hexane, "acetic acid" or CH3CONH2 (of the G2 set), a file
            that ASE reads, or a SMILES.
        smiles: Instead, a SMILES such as CCO; with its charge, and unpaired electrons in parallel.
        conformers: So many different conformers, where the geometry comes from SMILES.
        minimum_rmsd_A: Conformers that are closer count as one; over all atoms but hydrogens on
            carbon, symmetric ones exchanged, mirror images counted as different.
        force_field: What relaxes the geometry from SMILES; automatic takes MMFF94 where it has
            parameters and UFF elsewhere, none leaves it as it was embedded.
        multiplicity: 2S+1 instead of what SMILES, name or file say.

    Raises:
        BadInput: a name is unknown, a SMILES does not parse or is of several molecules, it has
            fewer conformers than asked for, the multiplicity does not go with the electrons.
    """
    given = exactly_one({"molecule": molecule, "smiles": smiles})
    kind, text = ("smiles", smiles or "") if given == "smiles" else source_of(molecule or "")
    if kind == "smiles":
        built = _from_smiles(generator, text, conformers, minimum_rmsd_A, force_field)
    elif conformers != 1:
        raise BadInput(f"conformers: expected 1 for a geometry that is given, found {conformers}")
    else:
        built = from_file(text, periodic=False) if kind == "file" else [_from_g2(text)]
    return [_with_spin(one, multiplicity) for one in built]


def source_of(text: str) -> tuple[str, str]:
    """What a text means: ("g2", name), ("smiles", SMILES) or ("file", path).

    Raises BadInput for what is a name and a SMILES at once.

    >>> source_of("water"), source_of("hexane"), source_of("OCC")
    (('g2', 'H2O'), ('smiles', 'CCCCCC'), ('smiles', 'OCC'))
    """
    known = NAMES.get(text.lower())
    if known is not None:
        return known
    if names_a_file(text):
        return "file", text
    if text in AMBIGUOUS:
        name = next(name for name, source in NAMES.items() if source == ("g2", text))
        raise BadInput(
            f"{text!r} is a formula (of {name}) and a SMILES too; say smiles: {text}, or {name!r}"
        )
    return ("g2", text) if text in g2.names and len(g2[text]) > 1 else ("smiles", text)


def _from_g2(name: str) -> Built:
    found = g2[name]
    unpaired = round(float(found.get_initial_magnetic_moments().sum()))
    atoms = ase.Atoms(found.numbers, found.positions)
    atoms.info["multiplicity"] = unpaired + 1 if unpaired else 0
    return of_atoms(atoms, geometry="G2")


def _from_smiles(generator, smiles: str, conformers: int, minimum_rmsd: float, field: str):
    if conformers < 1:
        raise BadInput(f"conformers: expected 1 or more, found {conformers}")
    graph = _parsed(smiles)
    found, field = _embedded(generator, graph, smiles, conformers, field)
    kept = _different(graph, found, minimum_rmsd, conformers)
    if len(kept) < conformers:
        raise BadInput(
            f"conformers: found {len(kept)} of {smiles!r} that differ by {minimum_rmsd:g} Å, "
            f"expected {conformers}; ask for {len(kept)}, or lower minimum_rmsd_A"
        )
    numbers = [atom.GetAtomicNum() for atom in graph.GetAtoms()]
    charge = sum(atom.GetFormalCharge() for atom in graph.GetAtoms())
    built = []
    for index, conformer in enumerate(kept):
        atoms = ase.Atoms(numbers, conformer.positions - conformer.positions.mean(axis=0))
        atoms.info = {"charge": charge, "multiplicity": _multiplicity(graph, charge)}
        about: dict[str, Any] = {"geometry": f"ETKDGv3 {FORCE_FIELDS.get(field, '')}".strip()}
        built.append(of_atoms(atoms, **about, **({"conformer": index} if conformers > 1 else {})))
    return built


def _parsed(smiles: str):
    """The molecular graph of a SMILES, hydrogens included. Raises BadInput."""
    chem = install.needed("rdkit", "rdkit.Chem")
    with install.needed("rdkit", "rdkit.rdBase").BlockLogs():
        graph = chem.MolFromSmiles(smiles)
    if graph is None or graph.GetNumAtoms() == 0:
        near = suggest(smiles, NAMES).partition("?")
        hint = f"{near[0]}?" if near[1] else ""
        raise BadInput(f"{smiles!r} is no known name and no SMILES that parses{hint}")
    if "." in smiles:
        raise BadInput(f"{smiles!r}: expected one molecule, found several; mix them with `box`")
    graph = chem.AddHs(graph)
    if any(atom.GetAtomicNum() == 0 for atom in graph.GetAtoms()):
        raise BadInput(f"{smiles!r}: expected chemical elements only, found the wildcard *")
    return graph


def _embedded(generator, graph, smiles: str, conformers: int, field: str):
    """Conformers by energy, and the force field that relaxed them. Raises BadInput."""
    forms = install.needed("rdkit", "rdkit.Chem.AllChem")
    settings = forms.ETKDGv3()
    settings.randomSeed = int(generator.integers(2**31 - 1))
    tries = 10 + 10 * conformers
    with install.needed("rdkit", "rdkit.rdBase").BlockLogs():
        found = list(forms.EmbedMultipleConfs(graph, tries, settings))
        if not found:
            settings.useRandomCoords = True
            found = list(forms.EmbedMultipleConfs(graph, tries, settings))
        if not found:
            raise BadInput(f"{smiles!r}: no geometry satisfies its bonds; give a file instead")
        field = _force_field(forms, graph, smiles, field)
        relax = {
            "mmff94": forms.MMFFOptimizeMoleculeConfs,
            "uff": forms.UFFOptimizeMoleculeConfs,
        }.get(field)
        energies = [0.0] * len(found)
        if relax is not None:
            energies = [energy for _, energy in relax(graph, numThreads=1, maxIters=2000)]
    order = sorted(range(len(found)), key=lambda i: (energies[i], i))
    return [
        Conformer(graph.GetConformer(found[i]).GetPositions(), energies[i]) for i in order
    ], field


def _force_field(forms, graph, smiles: str, field: str) -> str:
    """The force field to use, which must know all atoms. Raises BadInput."""
    if graph.GetNumAtoms() == 1:
        return "none"
    knows = {
        "mmff94": forms.MMFFHasAllMoleculeParams(graph),
        "uff": forms.UFFHasAllMoleculeParams(graph),
        "none": True,
    }
    chosen = next((f for f in FORCE_FIELDS if knows[f]), field) if field == "automatic" else field
    if not knows.get(chosen, False):
        names = FORCE_FIELDS.get(chosen, " and ".join(FORCE_FIELDS.values()))
        raise BadInput(
            f"force_field: no parameters in {names} for all atoms of {smiles!r}; expected none, "
            "or a file with a geometry instead"
        )
    return chosen


def _different(graph, found: list[Conformer], minimum_rmsd: float, wanted: int) -> list[Conformer]:
    """The first `wanted` conformers that are not the same as one before them."""
    chem = install.needed("rdkit", "rdkit.Chem")
    align = install.needed("rdkit", "rdkit.Chem.rdMolAlign")
    bare = chem.RWMol(graph)
    hydrogens = [
        atom.GetIdx()
        for atom in graph.GetAtoms()
        if atom.GetAtomicNum() == 1 and any(n.GetAtomicNum() == 6 for n in atom.GetNeighbors())
    ]
    for index in reversed(hydrogens):  # free rotors, whose exchange alone would take for ever
        bare.RemoveAtom(index)
    left = np.setdiff1d(np.arange(graph.GetNumAtoms()), hydrogens)
    kept: list[Conformer] = []
    for conformer in found:
        one = _placed(chem, bare, conformer.positions[left])
        others = (_placed(chem, bare, other.positions[left]) for other in kept)
        if all(align.GetBestRMS(one, other) >= minimum_rmsd for other in others):
            kept.append(conformer)
        if len(kept) == wanted:
            break
    return kept


def _placed(chem, graph, positions: np.ndarray):
    """A copy of a graph with its only conformer at `positions`."""
    copy = chem.Mol(graph)
    copy.RemoveAllConformers()
    conformer = chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions, np.float64))
    copy.AddConformer(conformer)
    return copy


def _multiplicity(graph, charge: int) -> int:
    """2S+1 with all unpaired electrons in parallel; 0 where there are none."""
    chem = install.needed("rdkit", "rdkit.Chem")
    numbers = [atom.GetAtomicNum() for atom in graph.GetAtoms()]
    if len(numbers) == 1 and charge == 0 and numbers[0] in GROUND_STATES:
        return GROUND_STATES[numbers[0]]
    if chem.MolToSmiles(chem.RemoveHs(graph)) == "O=O":
        return 3  # the Lewis formula of oxygen does not show its two unpaired electrons
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in graph.GetAtoms())
    return unpaired + 1 if unpaired else 0


def _with_spin(built: Built, multiplicity: int | None) -> Built:
    """The structure with the multiplicity asked for, which must go with its electrons."""
    structure = built.structure
    electrons = int(np.sum(structure.species)) - int(structure.charge)
    spin = int(structure.multiplicity) if multiplicity is None else multiplicity
    if spin < 0 or (multiplicity == 0) or (max(spin, 1) - 1 - electrons) % 2:
        expected = "an even number" if electrons % 2 else "an odd number of 1 or more"
        found = "none" if multiplicity is None and not spin else spin
        raise BadInput(
            f"multiplicity: expected {expected} for {electrons} electrons, found {found}"
        )
    if max(spin, 1) - 1 > electrons:
        raise BadInput(f"multiplicity: expected {electrons + 1} at most, found {spin}")
    value: Any = np.array(spin, np.int32)
    return built._replace(structure=structure._replace(multiplicity=value))
