"""Boxes and droplets: rigid molecules, none overlapping, at the density asked for."""

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.collections import g2
from ase.data import atomic_masses
from scipy.optimize import check_grad

from alj.campaign.build import build_structures
from alj.campaign.packing import Bodies, Room, _overlap
from alj.labeling.atoms import atoms_of
from alj.types import BadInput


def box(count=None, seed=3, **settings):
    spec = {"name": "box", **settings}
    return [one.structure for one in build_structures(spec, np.random.default_rng(seed), count)]


def between(structure, size):
    """Distances between atoms of different molecules of `size` atoms each."""
    distances = atoms_of(structure).get_all_distances(mic=bool(structure.cell.any()))
    owner = np.arange(len(distances)) // size
    return distances[owner[:, None] != owner[None]]


def assert_rigid(structure, size, shape):
    """Every molecule has the distances of `shape`."""
    for start in range(0, len(structure.species), size):
        positions = structure.positions[start : start + size]
        for first, second in zip(*np.triu_indices(size, 1), strict=True):
            expected = np.linalg.norm(shape[first] - shape[second])
            found = np.linalg.norm(positions[first] - positions[second])
            assert found == pytest.approx(expected, abs=1e-9)


def test_water_in_a_box_is_water_at_its_density():
    (one,) = box(molecule="water", copies=64)
    water = g2["H2O"]
    assert one.species.tolist() == [8, 1, 1] * 64
    mass = atomic_masses[one.species].sum()
    assert mass * 1.66053906660 / np.linalg.det(one.cell) == pytest.approx(1.0, rel=1e-8)
    assert between(one, 3).min() >= 2.0
    assert_rigid(one, 3, water.positions)


def test_molecules_lie_anywhere_in_any_direction():
    (one,) = box(molecule="water", copies=300, density_g_per_cc=0.3)
    edge = one.cell[0, 0]
    oxygen = one.positions[::3] % edge
    # 300 uniform numbers have a mean of 0.5 ± 0.017 and a variance of 1/12 ± 0.0043.
    np.testing.assert_allclose(oxygen.mean(axis=0) / edge, 0.5, atol=0.07)
    np.testing.assert_allclose(oxygen.var(axis=0) / edge**2, 1 / 12, atol=0.017)
    dipole = one.positions[1::3] + one.positions[2::3] - 2 * one.positions[::3]
    dipole /= np.linalg.norm(dipole, axis=1, keepdims=True)
    np.testing.assert_allclose(dipole.T @ dipole / 300, np.eye(3) / 3, atol=0.07)


def test_packings_differ_by_number_and_seed_and_repeat():
    first, second = box(count=2, molecule="water", copies=20)
    again, _ = box(count=2, molecule="water", copies=20)
    (other,) = box(seed=4, molecule="water", copies=20)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert np.abs(first.positions - second.positions).max() > 0.5
    assert np.abs(first.positions - other.positions).max() > 0.5


def test_a_droplet_fits_its_sphere():
    (one,) = box(molecule="water", copies=40, shape="droplet", density_g_per_cc=0.9)
    assert not one.cell.any()
    volume = atomic_masses[one.species].sum() * 1.66053906660 / 0.9
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    distances = np.linalg.norm(one.positions, axis=1)
    assert distances.max() <= radius + 0.01
    assert distances.max() > 0.8 * radius
    assert between(one, 3).min() >= 2.0


def test_mixtures_keep_their_numbers_and_add_up_electrons():
    (one,) = box(mixture={"water": 10, "oxygen": 2, "carbon dioxide": 3}, density_g_per_cc=0.5)
    assert [int(np.sum(one.species == z)) for z in (1, 8, 6)] == [20, 10 + 4 + 6, 3]
    assert int(one.multiplicity) == 5  # two triplets in parallel
    (water,) = box(molecule="water", copies=8)
    assert (int(water.charge), int(water.multiplicity)) == (0, 0)


def test_a_file_gives_the_molecule(tmp_path):
    benzene = ase.build.molecule("C6H6")
    benzene.info["charge"] = 1
    benzene.info["multiplicity"] = 2
    ase.io.write(tmp_path / "cation.extxyz", benzene)
    (one,) = box(molecule=str(tmp_path / "cation.extxyz"), copies=12, density_g_per_cc=0.87)
    assert (int(one.charge), int(one.multiplicity)) == (12, 13)
    assert between(one, 12).min() >= 2.0
    assert_rigid(one, 12, benzene.positions)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_penalty_has_the_gradient_of_its_value(periodic):
    generator = np.random.default_rng(0)
    bodies = Bodies(generator.normal(size=(24, 3)), np.repeat(np.arange(8), 3))
    room = Room(4.0, periodic)
    coordinates = np.concatenate([generator.uniform(0, 4, 24), generator.normal(size=24)])
    coordinates[-3:] = 0.0  # where the formula for rotations takes its limit

    def value(flat):
        return _overlap(flat, bodies, room, 1.5)[0]

    def gradient(flat):
        return _overlap(flat, bodies, room, 1.5)[1]

    scale = np.linalg.norm(gradient(coordinates))
    assert scale > 1.0
    assert check_grad(value, gradient, coordinates, epsilon=1e-7) < 1e-5 * scale


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of molecule or mixture"),
        ({"molecule": "water"}, "copies: expected together"),
        ({"molecule": "water", "copies": 0}, "water: expected 1 or more copies, found 0"),
        ({"mixture": {"water": -2}}, "found -2"),
        ({"mixture": {}}, "mixture: expected"),
        ({"molecule": "water", "copies": 2, "mixture": {"water": 2}}, "exactly one of"),
        ({"molecule": "benzene", "copies": 2}, "needs an edge of"),
        (
            {"molecule": "benzene", "copies": 1, "shape": "droplet", "density_g_per_cc": 9.0},
            "needs a radius of",
        ),
        ({"molecule": "water", "copies": 20, "density_g_per_cc": 5.0}, "could not pack 20"),
        ({"molecule": "nowhere.xyz", "copies": 3}, "no such file"),
    ],
)
def test_what_cannot_be_packed_is_one_line(settings, words):
    with pytest.raises(BadInput, match=words) as caught:
        box(**settings)
    assert "\n" not in str(caught.value)
