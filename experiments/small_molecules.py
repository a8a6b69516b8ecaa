"""All small molecules that valences allow, by adding one atom at a time to graphs."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from rdkit import Chem, rdBase

VALENCES = {6: 4, 7: 3, 8: 2, 9: 1}
"""Bonds of carbon, nitrogen, oxygen and fluorine; hydrogen takes what is left."""


def enumerated(
    most_heavy: int, elements=tuple(VALENCES), keep: Callable[[Any], bool] | None = None
) -> list[list[str]]:
    """Canonical SMILES of all molecules with 1 … `most_heavy` heavy atoms, a list for each number.

    A graph of n atoms is one of n − 1 atoms and a new atom that is bonded to it: every connected
    graph has an atom whose removal leaves it connected. `keep(mol)` says what is chemistry
    (default: `sensible`); it must hold for a part of whatever it holds for.
    """
    keep = keep or sensible
    alone = [Chem.MolFromSmiles(f"[{Chem.Atom(z).GetSymbol()}H{VALENCES[z]}]") for z in elements]
    levels = [sorted(Chem.MolToSmiles(one) for one in alone)]
    for _ in range(most_heavy - 1):
        found = {name for host in levels[-1] for name in _grown(host, elements, keep)}
        levels.append(sorted(found))
    return levels


def sensible(mol) -> bool:
    """Whether a graph is worth relaxing: no strings of heteroatoms, no linear atoms in rings."""
    hetero = {a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() != 6}
    beside = dict.fromkeys(hetero, 0)
    for bond in mol.GetBonds():
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        if ends[0].GetIdx() in hetero and ends[1].GetIdx() in hetero:
            kinds = sorted(end.GetAtomicNum() for end in ends)
            if kinds not in ([7, 7], [7, 8]):
                return False
            for end in ends:
                beside[end.GetIdx()] += 1
    rings = mol.GetRingInfo().NumRings()
    linear = any(
        atom.IsInRing() and sum(b.GetBondTypeAsDouble() for b in atom.GetBonds() if _stiff(b)) >= 3
        for atom in mol.GetAtoms()
    )
    crowded = rings > 1 and any(
        b.IsInRing() and b.GetBondTypeAsDouble() > 1 for b in mol.GetBonds()
    )
    return max(beside.values(), default=0) <= 1 and rings <= 2 and not linear and not crowded


def _grown(host: str, elements, keep) -> Iterator[str]:
    """SMILES of a molecule with one more atom, in all ways in which it can be bonded."""
    mol = Chem.MolFromSmiles(host)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    free = [atom.GetTotalNumHs() for atom in mol.GetAtoms()]
    orders = [None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE]
    for element in elements:
        most = VALENCES[element]
        for bonds in product(*(range(min(3, most, number) + 1) for number in free)):
            if not 1 <= sum(bonds) <= most:
                continue
            grown = Chem.RWMol(mol)
            for atom in grown.GetAtoms():
                atom.SetNoImplicit(False)
                atom.SetNumExplicitHs(0)
            new = grown.AddAtom(Chem.Atom(element))
            for place, order in enumerate(bonds):
                if order:
                    grown.AddBond(place, new, orders[order])
            with rdBase.BlockLogs():
                Chem.SanitizeMol(grown)
            if keep(grown):
                yield Chem.MolToSmiles(grown)


def _stiff(bond) -> bool:
    """A double or triple bond that is not aromatic."""
    return bond.GetBondTypeAsDouble() >= 2
