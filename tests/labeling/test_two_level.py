"""Two levels in one label: slopes of the energy, links by the chain rule, cells, and refusals."""

import pickle
from dataclasses import replace

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.qmmm import SimpleQMMM
from labeling.molecules import alkane, distorted, strain_slopes, structure_of, water_cluster

from alj.labeling import build_labeler, resolve_labeler
from alj.labeling.two_level import part_of
from alj.types import BadInput, LabelingFailed

GFN1 = {"name": "tblite", "method": "GFN1-xTB"}
EMT = {"name": "ase", "calculator": "ase.calculators.emt.EMT"}
SOFT = {
    "name": "ase",
    "calculator": "ase.calculators.lj.LennardJones",
    "keywords": {"epsilon": 0.05, "sigma": 0.9, "rc": 9.0, "smooth": True},
}
"""Levels that cost nothing: neither knows chemistry, both have exact slopes."""


def built(high=EMT, low=SOFT, **settings):
    return build_labeler({"name": "two_level", "high": high, "low": low, **settings})


def slope(labeler, one, atom, axis, step=1e-4):
    sides = []
    for sign in (1, -1):
        moved = one.positions.copy()
        moved[atom, axis] += sign * step
        sides.append(float(labeler.label(one._replace(positions=moved)).energy))
    return (sides[0] - sides[1]) / (2 * step)


def hexane():
    return distorted(structure_of(alkane(6)), seed=1, sigma_A=0.05)


def chain_part(count: int) -> list[int]:
    """The first carbon atoms of hexane with their hydrogen atoms."""
    one = hexane()
    carbons = np.flatnonzero(one.species == 6)[:count]
    apart = np.linalg.norm(one.positions[:, None] - one.positions[carbons][None], axis=-1)
    hydrogens = np.flatnonzero((one.species == 1) & (apart.min(axis=1) < 1.35))
    return sorted([*carbons.tolist(), *hydrogens.tolist()])


def failure(labeler, one) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        labeler.label(one)
    return caught.value


def test_one_bond_is_cut_and_closed_by_hydrogen_between_its_atoms():
    labeler, one = built(region=chain_part(2)), hexane()
    part = part_of(labeler.engine, one)
    assert len(part.atoms) == 2 + 5
    (outer,) = part.bonds[:, 1]
    assert one.species[outer] == 6
    link, inner = part.structure.positions[-1], part.structure.positions[part.bonds[0, 0]]
    assert part.structure.species[-1] == 1
    # 0.76 and 0.31 Å are the covalent radii of carbon and hydrogen in ASE's table
    fraction = (0.76 + 0.31) / (2 * 0.76)
    np.testing.assert_allclose(link - inner, fraction * (one.positions[outer] - inner), atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_forces_are_slopes_where_bonds_are_cut(count):
    labeler, one = built(region=chain_part(count), max_force_eV_per_A=1e4), hexane()
    labels = labeler.label(one)
    np.testing.assert_allclose(labels.forces.sum(axis=0), 0.0, atol=1e-9)
    part = part_of(labeler.engine, one)
    border = [int(part.atoms[part.bonds[0, 0]]), int(part.bonds[0, 1])]
    for atom in (*border, 0, len(one.species) - 1):
        for axis in range(3):
            found = -slope(labeler, one, atom, axis)
            assert found == pytest.approx(labels.forces[atom, axis], abs=2e-6)


@pytest.mark.engine
def test_without_cut_bonds_it_is_the_simple_scheme_of_ase():
    """`ase.calculators.qmmm.SimpleQMMM`, written by others from the same formula."""
    from tblite.ase import TBLite

    cluster = water_cluster(3)
    one = distorted(structure_of(cluster), seed=2, sigma_A=0.03)
    labels = built("tblite", GFN1, region=[3, 4, 5]).label(one)
    atoms = ase.Atoms(one.species, one.positions)
    qm, *mm = (
        TBLite(method=method, verbosity=0, cache_api=False)
        for method in ("GFN2-xTB", "GFN1-xTB", "GFN1-xTB")
    )
    atoms.calc = SimpleQMMM([3, 4, 5], qm, *mm)
    assert float(labels.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-7)


def test_equal_levels_are_the_cheap_level_on_the_whole_exactly():
    one, region = hexane(), chain_part(2)
    plain = build_labeler(SOFT).label(one)
    same = built(SOFT, SOFT, region=region).label(one)
    assert float(same.energy) == float(plain.energy)
    assert np.array_equal(same.forces, plain.forces)
    # by the three calculations too, where the settings only look different
    other = {**SOFT, "method": "the same in other words"}
    computed = built(other, SOFT, region=region).label(one)
    assert float(computed.energy) == float(plain.energy)
    assert np.array_equal(computed.forces, plain.forces)


def test_a_region_that_is_everything_is_the_good_level():
    one = hexane()
    whole = built(region=list(range(len(one.species))), max_force_eV_per_A=1e4).label(one)
    good = build_labeler({**EMT, "max_force_eV_per_A": 1e4}).label(one)
    assert float(whole.energy) == pytest.approx(float(good.energy), abs=1e-10)
    np.testing.assert_allclose(whole.forces, good.forces, atol=1e-10)


def test_regions_by_distance_and_by_molecule():
    one = structure_of(water_cluster(9))
    near = built(region=[12], radius_A=3.0).engine
    apart = np.linalg.norm(one.positions - one.positions[12], axis=1)
    assert part_of(near, one).atoms.tolist() == np.flatnonzero(apart <= 3.0).tolist()
    atoms = part_of(replace(near, whole_molecules=True), one).atoms
    assert len(atoms) % 3 == 0
    assert set(np.flatnonzero(apart <= 3.0)) <= set(atoms.tolist())
    assert not len(part_of(replace(near, whole_molecules=True), one).bonds)
    assert part_of(built(region=[4], whole_molecules=True).engine, one).atoms.tolist() == [3, 4, 5]


def test_said_links_stay_where_bonds_are_long():
    one, region = hexane(), chain_part(2)
    found = part_of(built(region=region).engine, one)
    pair = (int(found.atoms[found.bonds[0, 0]]), int(found.bonds[0, 1]))
    outer = one.positions[pair[1]] - one.positions[pair[0]]
    far = one.positions.copy()
    far[[i for i in range(len(far)) if i not in region]] += outer  # twice as long
    stretched = one._replace(positions=far)
    assert not len(part_of(built(region=region).engine, stretched).bonds)
    assert len(part_of(built(region=region, links=[pair]).engine, stretched).bonds) == 1


def crystal():
    """Water in a slanted cell, one molecule across the border."""
    cell = np.array([[9.0, 0, 0], [1.0, 8.5, 0], [-0.7, 0.6, 8.8]])
    one = distorted(structure_of(water_cluster(4)), seed=3, sigma_A=0.05)
    return one._replace(cell=cell, positions=one.positions - one.positions[3])


def test_the_stress_is_a_slope_and_images_do_not_matter():
    one, step = crystal(), 1e-5
    settings = {"region": [3, 4, 5], "max_force_eV_per_A": 1e4}
    lj = {**SOFT, "keywords": {**SOFT["keywords"], "rc": 4.0}}
    labeler = built(low=lj, **settings)
    labels = labeler.label(one)
    for strain, slope in strain_slopes(lambda s: labeler.label(s).energy, one, step):
        assert slope == pytest.approx(float(np.sum(strain * labels.stress)), abs=1e-6)
    images = np.random.default_rng(0).integers(-1, 2, (len(one.species), 3))
    wrapped = labeler.label(one._replace(positions=one.positions + images @ one.cell))
    assert float(wrapped.energy) == pytest.approx(float(labels.energy), abs=1e-8)
    np.testing.assert_allclose(wrapped.forces, labels.forces, atol=1e-8)
    np.testing.assert_allclose(wrapped.stress, labels.stress, atol=1e-8)


def test_a_region_beyond_half_of_the_cell_is_refused():
    one = structure_of(molecule("CH3CH2OH"))._replace(cell=4.0 * np.eye(3))
    labeler = built(low={**SOFT, "keywords": {}}, region=list(range(9)), closest_fraction=0.0)
    assert "half of the cell" in failure(labeler, one).message


def test_refusals_say_whose_they_are():
    one = structure_of(molecule("H2O"))
    assert "name atom 7; this structure has 3" in failure(built(region=[0, 7]), one).message
    with pytest.raises(BadInput, match="expected one or more atoms"):
        built(region=[])
    with pytest.raises(BadInput, match="different numbers"):
        built(region=[1, 1])
    with pytest.raises(BadInput, match="metod: unknown key, did you mean 'method'"):
        built({"name": "tblite", "metod": "GFN1-xTB"}, region=[0])
    wrong = built(region=[0], links=[(1, 2)])
    assert "one outside" in failure(wrong, one).message


@pytest.mark.engine
def test_an_engine_that_refuses_is_named_with_its_level():
    one = structure_of(molecule("H2O"))
    odd = failure(built("tblite", SOFT, region=[0], region_charge=1), one)
    assert odd.message.startswith("high level, region")


def test_it_travels_and_says_all_that_its_labels_depend_on():
    section = {"name": "two_level", "high": "tblite", "low": SOFT, "region": [0, 1, 2]}
    resolved = resolve_labeler(section)
    assert resolved["high"]["electronic_temperature_K"] == 300.0
    assert resolved["low"]["keywords"] == SOFT["keywords"]
    labeler, again = build_labeler(section), build_labeler(resolved)
    assert again.settings == labeler.settings
    assert pickle.loads(pickle.dumps(labeler)).settings == labeler.settings
    assert labeler.settings["low"]["keywords"] == SOFT["keywords"]
    assert "GFN2-xTB" in labeler.convention
    other = built("tblite", {**SOFT, "keywords": {}}, region=[0, 1, 2])
    assert other.settings != labeler.settings


@pytest.mark.engine
def test_a_level_of_fallbacks_keeps_them():
    high = {"name": "tblite", "max_iterations": 2, "fallbacks": [{"max_iterations": 250}]}
    one = structure_of(water_cluster(2))
    labels = built(high, SOFT, region=[0, 1, 2]).label(one)
    plain = built("tblite", SOFT, region=[0, 1, 2]).label(one)
    assert float(labels.energy) == pytest.approx(float(plain.energy), abs=1e-6)
