"""Files of ANI in HDF5: small ones of exactly their format are read right, bad ones are named."""

import h5py
import numpy as np
import pytest

from alj.campaign import ani, archives, datasets
from alj.types import BadInput
from alj.units import HARTREE

METHANE = np.array([[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63],
                    [0.63, -0.63, -0.63]])  # fmt: skip
WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])


def conformations(one, count, seed):
    noise = np.random.default_rng(seed).normal(0, 0.05, (count, *one.shape))
    return (one + noise).astype(np.float32)


def molecule(group, one, symbols, smiles, count, seed):
    """What the authors' `pyanitools` writes for a molecule."""
    positions = conformations(one, count, seed)
    energies = -40.0 - np.arange(count) / 100.0
    group["coordinates"], group["energies"] = positions, energies
    group["coordinatesHE"], group["energiesHE"] = positions[:1] * 1.5, np.array([-39.0])
    group["species"] = np.array([s.encode() for s in symbols], dtype="S1")
    group["smiles"] = np.array([c.encode() for c in smiles], dtype="S1")
    return positions, energies


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ani_gdb_s01.h5"
    with h5py.File(path, "w") as root:
        top = root.create_group("gdb11_s01")
        molecule(top.create_group("gdb11_s01-0"), METHANE, "CHHHH", "[H]C([H])([H])[H]", 3, 0)
        molecule(top.create_group("gdb11_s01-1"), WATER, "OHH", "[H]O[H]", 2, 1)
    return path


def test_all_of_a_file_comes_in_its_order_with_total_energies_in_eV(file):
    data, taken = datasets.read(file)
    assert datasets.sizes(data).tolist() == [5, 5, 5, 3, 3]
    assert data.species[:5].tolist() == [6, 1, 1, 1, 1]
    np.testing.assert_allclose(data.energy, np.array([-40, -40.01, -40.02, -40, -40.01]) * HARTREE)
    np.testing.assert_array_equal(
        data.positions[-3:], conformations(WATER, 2, 1)[1].astype(np.float64)
    )
    assert np.isnan(data.forces).all()
    assert data.info[3] == {
        "config_type": "gdb11_s01-1", "smiles": "[H]O[H]", "reference": ani.REFERENCES["energies"]
    }  # fmt: skip
    assert "energy from REF_energy" in taken
    assert ani.count(file) == 5


def test_blocks_go_on_from_anywhere(file, monkeypatch):
    monkeypatch.setattr(ani, "BLOCK", 2)
    rows = [p for block in ani.blocks(file) for p in block.positions]
    for start in range(6):
        found = [p for block in ani.blocks(file, start) for p in block.positions]
        assert len(found) == 5 - start
        for one, other in zip(found, rows[start:], strict=True):
            assert np.array_equal(one, other)
    assert max(len(block.positions) for block in ani.blocks(file)) == 2


def test_a_folder_is_all_of_its_files(file):
    second = file.with_name("ani_gdb_s02.h5")
    second.write_bytes(file.read_bytes())
    file.with_name("README").write_text("nothing to read")
    assert archives.holds(file.parent)
    data, _ = datasets.read(file.parent)
    assert datasets.count(data) == 10


def test_ani_1x_has_atomic_numbers_forces_and_gaps(tmp_path):
    path = tmp_path / "ani1x-release.h5"
    positions, forces = conformations(WATER, 2, 3), np.full((2, 3, 3), 0.01, np.float32)
    with h5py.File(path, "w") as root:
        group = root.create_group("H2O1")
        group["atomic_numbers"] = np.array([8, 1, 1], np.uint8)
        group["coordinates"] = positions
        group["wb97x_dz.energy"] = np.array([-76.4, -76.3])
        group["wb97x_dz.forces"] = forces
        group["ccsd(t)_cbs.energy"] = np.array([np.nan, -76.5])
    data, _ = datasets.read(path)
    np.testing.assert_allclose(data.energy, [-76.4 * HARTREE, -76.3 * HARTREE])
    np.testing.assert_allclose(data.forces, 0.01 * HARTREE, rtol=1e-6)


def broken(file, change):
    with h5py.File(file, "a") as root:
        change(root["gdb11_s01/gdb11_s01-1"])


def replaced(name, value):
    def change(group):
        del group[name]
        group[name] = value

    return change


BAD = {
    "expected coordinates of shape": replaced("coordinates", np.zeros((2, 4, 3))),
    "expected energies of shape": replaced("energies", np.zeros(3)),
    "found 'Q'": replaced("species", np.array([b"O", b"H", b"Q"])),
    "row 1 is not finite": replaced("coordinates", np.array([WATER, WATER * np.nan])),
}


@pytest.mark.parametrize("message", BAD)
def test_a_molecule_that_is_wrong_is_named(file, message):
    broken(file, BAD[message])
    with pytest.raises(BadInput, match=message) as caught:
        datasets.read(file)
    assert "ani_gdb_s01.h5: /gdb11_s01/gdb11_s01-1" in str(caught.value)


def test_a_damaged_file_and_another_one_say_so(file, tmp_path):
    cut = tmp_path / "cut.h5"
    cut.write_bytes(file.read_bytes()[:700])
    with pytest.raises(BadInput, match="damaged or cut off"):
        datasets.read(cut)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as root:
        root["numbers"] = np.arange(3)
    assert not archives.holds(other)
    with pytest.raises(BadInput, match="expected groups with coordinates"):
        next(ani.blocks(other))
