"""The data made on the spot: graphs are counted right, labels are the engine's, runs resume."""

from collections import Counter
from itertools import combinations, permutations, product

import numpy as np
import pytest
import stand_in_data as made
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from small_molecules import VALENCES, enumerated

from alj.campaign import datasets
from alj.types import Structure
from alj.units import HARTREE


def everything(mol) -> bool:
    return True


def by_formula(levels) -> Counter:
    return Counter(CalcMolFormula(Chem.MolFromSmiles(name)) for level in levels for name in level)


def counted_by_matrices(atoms: int) -> int:
    """Connected graphs of `atoms` heavy atoms with bonds of order 1 to 3, by brute force."""
    found = set()
    pairs = list(combinations(range(atoms), 2))
    for kinds in product(VALENCES, repeat=atoms):
        for orders in product(range(4), repeat=len(pairs)):
            bonds = np.zeros((atoms, atoms), int)
            for (i, j), order in zip(pairs, orders, strict=True):
                bonds[i, j] = bonds[j, i] = order
            if (bonds.sum(axis=1) > [VALENCES[kind] for kind in kinds]).any():
                continue
            reached = np.linalg.matrix_power(np.eye(atoms, dtype=int) + bonds, atoms)
            if (reached > 0).all():
                orders_of = (
                    (tuple(kinds[i] for i in p), bonds[np.ix_(p, p)].tobytes())
                    for p in map(list, permutations(range(atoms)))
                )
                found.add(min(orders_of))
    return len(found)


def test_all_graphs_are_found_and_each_once():
    levels = enumerated(3, keep=everything)
    assert [len(level) for level in levels] == [counted_by_matrices(n) for n in (1, 2, 3)]
    assert all(len(set(level)) == len(level) for level in levels)


def test_isomers_are_as_many_as_the_books_say():
    hydrocarbons = by_formula(enumerated(6, (6,), everything))
    alkanes = ("CH4", "C2H6", "C3H8", "C4H10", "C5H12", "C6H14")
    assert [hydrocarbons[name] for name in alkanes] == [1, 1, 1, 2, 3, 5]
    assert hydrocarbons["C4H8"] == 5
    assert hydrocarbons["C6H6"] == 217  # benzene and its valence isomers
    alcohols = by_formula(enumerated(5, (6, 8), everything))
    assert [alcohols[name] for name in ("CH4O", "C2H6O", "C3H8O", "C4H10O")] == [1, 2, 3, 7]


def test_what_is_kept_is_chemistry():
    levels = enumerated(4)
    names = {name for level in levels for name in level}
    assert [len(level) for level in levels] == [4, 14, 58, 358]
    assert {"C", "CO", "C#N", "C1CC1", "C=CC=C", "FC(F)F", "CC(C)=O"} <= names
    strange = {Chem.CanonSmiles(name) for name in ("OO", "OF", "NNN", "C1#CC1", "C1=C=C1")}
    assert not strange & names


def water(count: int) -> Structure:
    one = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    return Structure(
        positions=np.concatenate([one + np.array([0.0, 0.0, 3.0 * i]) for i in range(count)]),
        species=np.array([8, 1, 1] * count, np.int32),
        cell=np.zeros((3, 3)),
        charge=np.int32(0),
        multiplicity=np.int32(0),
    )


def test_the_nitrogen_atom_is_near_but_not_too_near():
    generator, host = np.random.default_rng(0), water(3)
    places = []
    for _ in range(200):
        found = made.with_nitrogen(generator, host, nearest=2.0, reach=4.0)
        assert found.species.tolist() == [8, 1, 1] * 3 + [7]
        assert found.multiplicity == 4
        apart = np.linalg.norm(found.positions[:-1] - found.positions[-1], axis=1)
        oxygens = apart[host.species == 8]
        assert 2.0 <= oxygens.min() <= 4.0
        assert apart[host.species == 1].min() >= 1.6
        places.append(oxygens.min())
    assert np.ptp(places) > 1.5


def test_classes_are_those_of_the_published_set_and_shares_are_whole():
    assert [made.size_class(n) for n in (3, 10, 21, 22, 37, 46, 61)] == [
        "C1", "C1", "C2", "C2", "C3", "C4", "C5",
    ]  # fmt: skip
    assert made.size_class(99, made.PUBLISHED_CLASSES) == "C4"
    assert sum(size.share for size in made.SIZES) == pytest.approx(1.0)


@pytest.mark.engine
def test_molecules_are_relaxed_labeled_in_eV_and_go_on(tmp_path):
    from tblite import interface

    out = tmp_path / "molecules.extxyz"
    with made.FolderStore(tmp_path / "molecules.extxyz.work") as store:
        store.remember("settings", lambda: {"kind": "molecules", "count": 12, "seed": 3})
        store.remember("graphs", lambda: enumerated(2))
        first = made.molecules(store, 12, 3)
    assert made.main(["molecules", "--out", str(out), "--count", "12", "--seed", "3"]) == 0
    data, _ = datasets.read(out)
    np.testing.assert_array_equal(data.energy, first.energy)
    assert len({info["smiles"] for info in data.info}) == 12
    assert np.abs(data.forces).max() < 0.03
    for i in range(datasets.count(data)):
        one = datasets.structure(data, i)
        calculator = interface.Calculator("GFN2-xTB", one.species, one.positions / 0.529177210903)
        calculator.set("verbosity", 0)
        expected = float(calculator.singlepoint().get("energy")) * HARTREE
        assert datasets.labels(data, i).energy == pytest.approx(expected, abs=1e-5)


@pytest.mark.engine
def test_nitrogen_on_water_is_a_quartet_that_is_weakly_bound(tmp_path):
    labeler = made.labeler_of("surface")
    alone = made.labeled([water(1)], labeler)
    atom = water(1)._replace(positions=np.zeros((1, 3)), species=np.array([7], np.int32))
    free = made.labeled([atom._replace(multiplicity=np.int32(4))], labeler)
    data = made._shard((0, 0), alone, 12, seed=1)
    assert datasets.count(data) == 12
    with_atom = (datasets.sizes(data) == 4).tolist()
    assert data.multiplicity.tolist() == [4 * here for here in with_atom]
    bound = data.energy[with_atom] - alone.energy[0] - free.energy[0]
    assert sum(with_atom) == 11
    assert bound.min() > -0.3
    assert bound.max() < 5.0
    again = made._shard((0, 0), alone, 12, seed=1)
    np.testing.assert_array_equal(again.energy, data.energy)
