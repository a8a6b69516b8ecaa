"""Crystals, slabs and changes against spglib, neighbor lists, measured densities and algebra."""

import ase
import ase.build
import ase.io
import numpy as np
import pytest
import spglib
from ase.neighborlist import neighbor_list

from alj.campaign.build import build_structures
from alj.campaign.built import density
from alj.campaign.crystals import COMPOUNDS
from alj.labeling.atoms import atoms_of
from alj.types import BadInput


def build(name, count=None, **settings):
    spec = {"name": name, **settings}
    return [one.structure for one in build_structures(spec, np.random.default_rng(5), count)]


def crystal(material, **settings):
    (one,) = build("crystal", material=material, **settings)
    return one


def neighbors(structure):
    """The smallest distance, and how many neighbors the first atom has there."""
    atoms = atoms_of(structure)
    first, distances = neighbor_list("id", atoms, 4.5)
    nearest = distances.min()
    return nearest, int(np.sum((first == 0) & (distances < nearest + 1e-6)))


# Space group, atoms of the conventional and the primitive cell, nearest distance / a, coordination.
PROTOTYPES = [
    ("Po", {"structure": "sc", "a_A": 3.0}, 221, (1, 1), 1.0, 6),
    ("Cu", {"structure": "fcc", "a_A": 3.0}, 225, (4, 1), 0.5**0.5, 12),
    ("Fe", {"structure": "bcc", "a_A": 3.0}, 229, (2, 1), 0.75**0.5, 8),
    ("Mg", {"structure": "hcp", "a_A": 3.0, "c_A": 4.8}, 194, (2, 2), (1 / 3 + 0.64) ** 0.5, 6),
    ("Si", {"structure": "diamond", "a_A": 5.0}, 227, (8, 2), 3**0.5 / 4, 4),
    ("GaAs", {"structure": "zincblende", "a_A": 5.0}, 216, (8, 2), 3**0.5 / 4, 4),
    ("NaCl", {"structure": "rocksalt", "a_A": 5.0}, 225, (8, 2), 0.5, 6),
    ("CsCl", {"structure": "cesiumchloride", "a_A": 4.0}, 221, (2, 2), 0.75**0.5, 8),
    ("CaF2", {"structure": "fluorite", "a_A": 5.0}, 225, (12, 3), 3**0.5 / 4, 8),
    ("ZnO", {"structure": "wurtzite", "a_A": 3.0, "c_A": 24**0.5}, 186, (4, 4), 0.375**0.5, 4),
    ("SrTiO3", {"structure": "perovskite", "a_A": 4.0}, 221, (5, 5), 0.5, 0),
]


@pytest.mark.parametrize(("material", "settings", "group", "sizes", "nearest", "shell"), PROTOTYPES)
def test_prototypes_have_their_space_group_and_neighbors(
    material, settings, group, sizes, nearest, shell
):
    for cell, size in zip(("conventional", "primitive"), sizes, strict=True):
        one = crystal(material, cell=cell, **settings)
        whole = (one.cell, atoms_of(one).get_scaled_positions(), one.species)
        found = spglib.get_symmetry_dataset(whole, symprec=1e-5)
        assert found.number == group
        assert len(one.species) == size
        distance, count = neighbors(one)
        assert distance == pytest.approx(nearest * settings["a_A"], rel=1e-5)
        if shell:
            assert count == shell


# g/cm^3 at room temperature, measured, from handbooks.
DENSITIES = {
    "LiF": 2.64, "LiCl": 2.07, "NaF": 2.78, "NaCl": 2.17, "NaBr": 3.20, "KCl": 1.988,
    "KBr": 2.74, "MgO": 3.58, "CaO": 3.34, "CsCl": 3.988, "CsBr": 4.43, "CsI": 4.51,
    "ZnS": 4.09, "SiC": 3.21, "BN": 3.487, "AlAs": 3.72, "GaP": 4.138, "GaAs": 5.318,
    "InP": 4.81, "InAs": 5.67, "CdTe": 5.85, "CaF2": 3.18, "BaF2": 4.89, "CeO2": 7.215,
    "ZnO": 5.61, "AlN": 3.26, "GaN": 6.15, "SrTiO3": 5.11,
    "Cu": 8.96, "Fe": 7.874, "Si": 2.329, "Mg": 1.738, "Zn": 7.134, "W": 19.25, "Pb": 11.34,
}  # fmt: skip


@pytest.mark.parametrize("material", [*COMPOUNDS, "Cu", "Fe", "Si", "Mg", "Zn", "W", "Pb"])
def test_known_crystals_have_their_measured_densities(material):
    assert density(crystal(material)) == pytest.approx(DENSITIES[material], rel=0.012)


@pytest.mark.parametrize("name", ["Cu", "Fe", "Mg", "Si", "Zn"])
def test_elements_are_those_of_ase(name):
    ours = crystal(name, cell="primitive")
    theirs = ase.build.bulk(name)
    np.testing.assert_allclose(ours.cell, theirs.cell.array, atol=1e-12)


def test_a_file_gives_the_crystal_that_is_in_it(tmp_path):
    quartz = ase.Atoms(
        "Si3O6",
        scaled_positions=[
            [0.4697, 0, 0], [0, 0.4697, 2 / 3], [0.5303, 0.5303, 1 / 3],
            [0.4135, 0.2669, 0.1191], [0.7331, 0.1466, 0.4524], [0.8534, 0.5865, 0.7858],
            [0.2669, 0.4135, 0.5476], [0.1466, 0.7331, 0.8809], [0.5865, 0.8534, 0.2142],
        ],
        cell=[4.916, 4.916, 5.4054, 90, 90, 120],
        pbc=True,
    )  # fmt: skip
    ase.io.write(tmp_path / "quartz.cif", quartz)
    one = crystal(str(tmp_path / "quartz.cif"), supercell=[2, 1, 1])
    assert len(one.species) == 18
    assert density(one) == pytest.approx(2.65, rel=0.01)
    with pytest.raises(BadInput, match="a_A: is for a formula"):
        crystal(str(tmp_path / "quartz.cif"), a_A=4.0)
    ase.io.write(tmp_path / "water.xyz", ase.build.molecule("H2O"))
    with pytest.raises(BadInput, match="use the builder `molecule`"):
        crystal(str(tmp_path / "water.xyz"))


@pytest.mark.parametrize(
    ("repeats", "times"),
    [
        ([2, 3, 1], 6),
        ([[1, 1, 0], [-1, 1, 0], [0, 0, 1]], 2),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], 2),
    ],
)
def test_supercells_keep_density_neighbors_and_space_group(repeats, times):
    unit, larger = crystal("CaF2"), crystal("CaF2", supercell=repeats)
    matrix = np.diag(repeats) if np.ndim(repeats) == 1 else np.array(repeats)
    assert len(larger.species) == times * len(unit.species)
    np.testing.assert_allclose(larger.cell, matrix @ unit.cell, atol=1e-12)
    assert density(larger) == pytest.approx(density(unit), rel=1e-12)
    assert neighbors(larger) == pytest.approx(neighbors(unit), rel=1e-9)
    whole = (larger.cell, atoms_of(larger).get_scaled_positions(), larger.species)
    assert spglib.get_symmetry_dataset(whole, symprec=1e-5).number == 225


@pytest.mark.parametrize("cell", ["conventional", "primitive"])
def test_a_minimum_length_is_that_of_the_heights(cell):
    one = crystal("Cu", cell=cell, minimum_length_A=10.0)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(one.cell), axis=0)
    assert heights.min() >= 10.0
    unit = crystal("Cu", cell=cell)
    assert heights.max() - 10.0 < 1.0 / np.linalg.norm(np.linalg.inv(unit.cell), axis=0).min()
    exact = crystal("Cu", minimum_length_A=2 * 3.61)
    assert len(exact.species) == 32


def changed(*changes, count=None, **settings):
    spec = {"material": "NaCl", "supercell": [3, 3, 3], "changes": list(changes), **settings}
    return build("crystal", count, **spec)


def test_strains_are_recovered_from_the_cells():
    unit = crystal("NaCl", supercell=[3, 3, 3])
    fractional = unit.positions @ np.linalg.inv(unit.cell)
    voigt = [0.01, -0.02, 0.03, 0.04, -0.05, 0.06]
    (one,) = changed({"name": "strain", "voigt": voigt})
    tensor = np.linalg.solve(unit.cell, one.cell) - np.eye(3)
    np.testing.assert_allclose(tensor, tensor.T, atol=1e-14)
    found = [*np.diag(tensor), 2 * tensor[1, 2], 2 * tensor[0, 2], 2 * tensor[0, 1]]
    np.testing.assert_allclose(found, voigt, atol=1e-14)
    np.testing.assert_allclose(one.positions @ np.linalg.inv(one.cell), fractional, atol=1e-12)

    several = changed({"name": "strain", "isotropic": [-0.04, 0.04], "count": 5})
    lengths = [one.cell[0, 0] / unit.cell[0, 0] for one in several]
    np.testing.assert_allclose(lengths, [0.96, 0.98, 1.0, 1.02, 1.04], atol=1e-12)

    random = changed({"name": "strain", "random": 0.03, "count": 200})
    tensors = np.array([np.linalg.solve(unit.cell, one.cell) - np.eye(3) for one in random])
    parts = tensors[:, *np.triu_indices(3)]
    assert np.abs(parts).max() <= 0.03
    # A uniform distribution of this width has the standard deviation 0.03/sqrt(3).
    np.testing.assert_allclose(parts.std(axis=0), 0.03 / 3**0.5, rtol=0.15)
    np.testing.assert_allclose(parts.mean(axis=0), 0.0, atol=0.005)


def test_two_strains_are_recorded_as_one_deformation():
    strains = [{"voigt": [0.1, 0, 0, 0, 0, 0.2]}, {"random": 0.1}]
    changes = [{"name": "strain", **settings} for settings in strains]
    spec = {"name": "crystal", "material": "NaCl", "changes": changes}
    (built,) = build_structures(spec, np.random.default_rng(1))
    deformation = np.reshape(built.info["deformation"], (3, 3))
    np.testing.assert_allclose(crystal("NaCl").cell @ deformation, built.structure.cell, atol=1e-12)


@pytest.mark.parametrize("by", ["change", "setting"])
def test_displacements_have_the_standard_deviation_asked_for(by):
    if by == "change":
        moved = changed({"name": "rattle", "standard_deviation_A": 0.07, "count": 20})
    else:
        moved = changed(rattle_A=0.07, count=20)
    still = crystal("NaCl", supercell=[3, 3, 3])
    away = np.array([one.positions for one in moved]) - still.positions
    assert away.shape == (20, 216, 3)
    # 12960 numbers: their standard deviation is known to 0.6 %.
    assert away.std() == pytest.approx(0.07, rel=0.03)
    assert np.abs(away.mean(axis=(0, 1))).max() < 0.005
    assert np.corrcoef(away[0].ravel(), away[1].ravel())[0, 1] == pytest.approx(0, abs=0.15)


def test_vacancies_and_substitutions_are_counted():
    (one,) = changed({"name": "vacancies", "element": "Cl", "number": 5})
    assert [int(np.sum(one.species == z)) for z in (11, 17)] == [108, 103]
    (one,) = changed({"name": "vacancies", "fraction": 0.1})
    assert len(one.species) == 216 - 22
    (one,) = changed({"name": "substitute", "element": "Na", "by": "K", "fraction": 0.25})
    assert [int(np.sum(one.species == z)) for z in (11, 17, 19)] == [81, 108, 27]
    whole = crystal("NaCl", supercell=[3, 3, 3])
    np.testing.assert_array_equal(one.positions, whole.positions)
    assert (one.species[whole.species == 17] == 17).all()


def test_a_charge_grows_with_the_cell(tmp_path):
    one = ase.Atoms("K", cell=[4.0] * 3, pbc=True, info={"charge": 1, "multiplicity": 3})
    ase.io.write(tmp_path / "k.extxyz", one)
    larger = crystal(str(tmp_path / "k.extxyz"), supercell=[2, 1, 1])
    assert (int(larger.charge), int(larger.multiplicity)) == (2, 5)


def planes(structure, normal=2):
    heights = np.sort(np.asarray(structure.positions)[:, normal])
    return np.split(heights, np.flatnonzero(np.diff(heights) > 0.05) + 1)


@pytest.mark.parametrize(
    ("material", "miller", "spacing"),
    [
        ("Cu", [1, 0, 0], 3.61 / 2),
        ("Cu", [1, 1, 0], 3.61 / 8**0.5),
        ("Cu", [1, 1, 1], 3.61 / 3**0.5),
        ("Fe", [1, 1, 0], 2.87 / 2**0.5),
        ("Fe", [2, 1, 0], 2.87 / 20**0.5),
        ("NaCl", [1, 0, 0], 5.64 / 2),
        ("NaCl", [1, 1, 1], 5.64 / 12**0.5),
        ("SrTiO3", [0, 0, 1], 3.905 / 2),
    ],
)
def test_slabs_have_their_planes_and_vacuum(material, miller, spacing):
    for layers in (1, 3, 6):
        (one,) = build("slab", material=material, miller=miller, layers=layers, vacuum_A=12.0)
        found = planes(one)
        assert len(found) == layers
        heights = [plane.mean() for plane in found]
        np.testing.assert_allclose(np.diff(heights), spacing, atol=1e-6)
        assert one.cell[2, 2] - np.ptp(one.positions[:, 2]) == pytest.approx(12.0)
        assert heights[0] == pytest.approx(6.0)
        np.testing.assert_allclose(one.cell[2, :2], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("material", "miller"), [("Cu", [2, 1, 1]), ("ZnO", [1, 0, 0]), ("CaF2", [1, 1, 1])]
)
def test_slabs_grow_by_the_volume_of_the_crystal(material, miller):
    thin, thick = (
        build("slab", material=material, miller=miller, layers=layers)[0] for layers in (12, 24)
    )
    area = np.linalg.norm(np.cross(thin.cell[0], thin.cell[1]))
    more = len(thick.species) - len(thin.species)
    bulk = crystal(material)
    volume = abs(np.linalg.det(bulk.cell)) * more / len(bulk.species)
    assert (thick.cell[2, 2] - thin.cell[2, 2]) * area == pytest.approx(volume, rel=1e-9)
    assert neighbors(thick)[0] == pytest.approx(neighbors(bulk)[0], rel=1e-6)


def test_a_slab_begins_with_the_plane_asked_for():
    kinds = []
    for termination in (0, 1):
        (one,) = build(
            "slab", material="SrTiO3", miller=[0, 0, 1], layers=1, termination=termination
        )
        kinds.append(sorted(set(one.species.tolist())))
    assert sorted(kinds) == [[8, 22], [8, 38]]


def test_a_slab_repeats_and_may_end_in_vacuum():
    (one,) = build("slab", material="Cu", miller=[1, 1, 1], repeats=[2, 3], periodic=False)
    (unit,) = build("slab", material="Cu", miller=[1, 1, 1])
    assert len(one.species) == 6 * len(unit.species)
    assert not one.cell[2].any()
    np.testing.assert_allclose(one.cell[0], 2 * unit.cell[0])
    doubled = {"name": "supercell", "repeats": [2, 1, 1]}
    (larger,) = build("slab", material="Cu", periodic=False, changes=[doubled])
    assert not larger.cell[2].any()
    assert neighbors(larger)[0] == pytest.approx(3.61 / 2**0.5)


def test_a_file_whose_atoms_sit_on_the_border_is_cut_between_planes(tmp_path):
    unit = ase.build.bulk("Cu", cubic=True)
    unit.positions[0] -= 1e-5  # as rounding leaves it
    ase.io.write(tmp_path / "cu.extxyz", unit)
    (one,) = build("slab", material=str(tmp_path / "cu.extxyz"), layers=3)
    assert [len(plane) for plane in planes(one)] == [2, 2, 2]


NOT = [
    ({"material": "Xx"}, "expected a chemical symbol"),
    ({"material": "nacl"}, "expected a formula"),
    ({"material": "U"}, "no crystal of U is known"),
    ({"material": "Se"}, "no crystal of Se is known"),
    ({"material": "FeO"}, "no crystal of FeO is known"),
    ({"material": "Fe", "structure": "fcc"}, "a_A: expected the lattice constant of Fe as fcc"),
    ({"material": "Fe", "structure": "fc"}, "did you mean 'fcc'"),
    ({"material": "NaCl", "structure": "fluorite"}, "of the kind AB2"),
    ({"material": "Cu", "c_A": 3.0}, "c_A: hcp and wurtzite have one"),
    ({"material": "Cu", "u": 0.3}, "u: wurtzite has one"),
    ({"material": "Cu", "a_A": 0.0}, "found 0"),
    ({"material": "Cu", "a_A": 0.01}, "singular"),
    ({"material": "nowhere.cif"}, "no such file"),
    ({"material": "Cu", "supercell": [2, 0, 1]}, "1 or more"),
    ({"material": "Cu", "supercell": [2, 1]}, "three numbers or a 3x3 matrix"),
    ({"material": "Cu", "supercell": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}, "positive determinant"),
    ({"material": "Cu", "supercell": [2, 2, 2], "minimum_length_A": 9.0}, "exactly one of"),
]
NOT_SO = [
    ({"name": "strain"}, "exactly one of isotropic, voigt or random"),
    ({"name": "strain", "isotropic": [-1.0, 0.0], "count": 3}, "found 0"),
    ({"name": "strain", "isotropic": [0.1, 0.0]}, "low ≤ high"),
    ({"name": "strain", "voigt": [0, 0, 0, 0, 0, 2.1]}, "strain.voigt: expected lengths"),
    ({"name": "strain", "random": -0.1}, "0 or more"),
    ({"name": "vacancies"}, "exactly one of number or fraction"),
    ({"name": "vacancies", "element": "K", "number": 1}, "expected one of Cu, found K"),
    ({"name": "vacancies", "number": 5}, "expected 1 to 4"),
    ({"name": "vacancies", "number": 4}, "expected atoms to be left"),
    ({"name": "vacancies", "fraction": 0.1}, "of 4 atoms is none"),
    ({"name": "vacancies", "fraction": 1.1}, "expected 0 to 1"),
    ({"name": "substitute", "by": "Zz", "number": 1}, "substitute.by: expected a chemical symbol"),
    ({"name": "supercell", "repeats": [0, 1, 1]}, "1 or more"),
]


@pytest.mark.parametrize(
    ("settings", "words"),
    [*NOT, *(({"material": "Cu", "changes": [change]}, words) for change, words in NOT_SO)],
)
def test_what_cannot_be_built_is_one_line(settings, words):
    with pytest.raises(BadInput, match=words) as caught:
        crystal(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"miller": [0, 0, 0]}, "zeros only"),
        ({"miller": [9, 8, 7], "structure": "sc", "a_A": 0.5}, "cannot be counted"),
        ({"layers": 0}, "found layers 0"),
        ({"repeats": [0, 1]}, r"repeats \[0, 1\]"),
        ({"vacuum_A": 0.0}, "more than 0 where the slab is periodic"),
        (
            {"periodic": False, "changes": [{"name": "supercell", "repeats": [1, 1, 2]}]},
            "directions that are not periodic",
        ),
    ],
)
def test_slabs_that_cannot_be_built_are_one_line(settings, words):
    with pytest.raises(BadInput, match=words) as caught:
        build("slab", material="Cu", **settings)
    assert "\n" not in str(caught.value)
