"""Distributions of liquids, against ASE and exact lattices."""

import ase.geometry.rdf
import ase.neighborlist
import numpy as np
import pytest
from ase import Atoms

from alj.analysis.structure import (
    angle_distribution,
    coordination,
    highest,
    radial_distribution,
)
from alj.types import BadInput, Structure


def frames(positions, cells, species=None):
    count, atoms = positions.shape[:2]
    species = np.full((count, atoms), 8, np.int32) if species is None else species
    nothing = np.zeros(count, np.int32)
    return Structure(positions, species, cells, nothing, nothing)


@pytest.fixture(scope="module")
def liquid():
    generator = np.random.default_rng(4)
    cells = np.stack([np.diag([9.0, 9.5, 10.0]), [[9, 0, 0], [1.0, 9, 0], [-0.5, 1.5, 9.5]]])
    return frames(generator.uniform(0, 9, (2, 30, 3)), cells.astype(float))


def test_radial_distribution_is_that_of_ase(liquid):
    found = radial_distribution(liquid, range_A=4.2, width_A=0.1)
    for frame in range(2):
        atoms = Atoms("O30", liquid.positions[frame], cell=liquid.cell[frame], pbc=True)
        expected, centers = ase.geometry.rdf.get_rdf(atoms, 4.2, 42)
        np.testing.assert_allclose(found.centers, centers, atol=1e-12)
        np.testing.assert_allclose(found.values[frame], expected, atol=1e-9)


def test_beyond_half_the_box_images_count():
    # Simple cubic, one atom in the cell: 6 neighbors at a, 12 at √2 a, 8 at √3 a, 6 at 2 a.
    lattice = frames(np.zeros((1, 1, 3)), 3.0 * np.eye(3)[None])
    found = radial_distribution(lattice, range_A=6.3, width_A=0.1)
    numbers = found.values[0] * 4 / 3 * np.pi * np.diff(np.arange(64) ** 3 * 1e-3) / 27.0
    occupied = np.flatnonzero(numbers)
    np.testing.assert_allclose(numbers[occupied], [6, 12, 8, 6], rtol=1e-9)
    np.testing.assert_allclose(coordination(lattice, radius_A=4.5), 18.0)


def test_angles(liquid):
    lattice = frames(np.zeros((1, 1, 3)), 3.0 * np.eye(3)[None])
    found = angle_distribution(lattice, radius_A=3.5, width_degrees=4.0)
    # Of the 15 pairs of 6 neighbors, 12 are at 90° and 3 at 180°.
    share = found.values[0] * 4.0
    assert share[np.argmin(np.abs(found.centers - 90.0))] == pytest.approx(12 / 15)
    assert share[-1] == pytest.approx(3 / 15)

    found = angle_distribution(liquid, radius_A=3.6, width_degrees=10.0)
    for frame in range(2):
        atoms = Atoms("O30", liquid.positions[frame], cell=liquid.cell[frame], pbc=True)
        i, vectors = ase.neighborlist.neighbor_list("iD", atoms, 3.6)
        angles = []
        for center in range(30):
            mine = vectors[i == center]
            mine = mine / np.linalg.norm(mine, axis=1)[:, None]
            upper = np.triu_indices(len(mine), 1)
            angles.extend(np.degrees(np.arccos(np.clip(mine @ mine.T, -1, 1)))[upper])
        expected, _ = np.histogram(angles, np.linspace(0, 180, 19), density=True)
        np.testing.assert_allclose(found.values[frame], expected, rtol=1e-9)


def test_padding_does_not_count(liquid):
    positions = np.concatenate([liquid.positions, np.zeros((2, 3, 3))], axis=1)
    species = np.concatenate([liquid.species, np.zeros((2, 3), np.int32)], axis=1)
    padded = frames(positions, liquid.cell, species)
    one, other = radial_distribution(liquid), radial_distribution(padded)
    np.testing.assert_allclose(one.values, other.values)


def test_an_extremum_is_refined_by_a_parabola():
    x = np.linspace(0, 2, 21)
    peak = highest(x, 3.0 - (x - 0.93) ** 2, 0.2, 1.8)
    np.testing.assert_allclose(peak, [0.93, 3.0])
    np.testing.assert_allclose(highest(x, (x - 0.93) ** 2, 0.2, 1.8, lowest=True)[0], 0.93)
    assert np.isnan(highest(x, x, 2.1, 2.2)).all()


def test_without_a_density_there_is_no_radial_distribution(liquid):
    flat = liquid._replace(cell=np.zeros((2, 3, 3)))
    with pytest.raises(BadInput, match="three periodic directions"):
        radial_distribution(flat)


def test_partial_distributions_add_up_and_know_their_pair():
    """Rock salt: unlike neighbors at d, like ones at √2 d; the shares make the whole."""
    edge, spacing = 4, 2.85
    sites = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    kinds = np.where(sites.sum(axis=1) % 2, 11, 17)
    frames = Structure(
        spacing * sites[None] + 0.01, kinds[None], spacing * edge * np.eye(3)[None],
        np.zeros(1, int), np.zeros(1, int),
    )  # fmt: skip
    found = {
        pair: radial_distribution(frames, range_A=4.5, width_A=0.1, pair=pair)
        for pair in ((11, 11), (11, 17), (17, 11), (17, 17))
    }
    whole = radial_distribution(frames, range_A=4.5, width_A=0.1)
    mean = np.mean([one.values for one in found.values()], axis=0)
    np.testing.assert_allclose(mean, whole.values, atol=1e-12)
    unlike, like = found[11, 17].values[0], found[11, 11].values[0]
    assert whole.centers[np.flatnonzero(unlike)].tolist() == pytest.approx([2.85])
    assert whole.centers[np.flatnonzero(like)].tolist() == pytest.approx([4.05])
    shell = (
        4 / 3 * np.pi * (whole.centers[28] + 0.05) ** 3
        - 4 / 3 * np.pi * (whole.centers[28] - 0.05) ** 3
    )
    around = unlike[np.flatnonzero(unlike)[0]] * shell * 32 / (spacing * edge) ** 3
    assert around == pytest.approx(6.0, rel=0.1)
