"""Data sets through every format and back; H5MD of other programs; what Chemiscope is told."""

import gzip
import json

import ase.db
import h5py
import numpy as np
import pytest
from ase import units
from campaign.tiny import CONFIG, labeled, trained

from alj.campaign import datasets, models
from alj.campaign.conversion import chemiscope, write_as
from alj.campaign.reading import read_atoms
from alj.types import BadInput


def mixed() -> datasets.Dataset:
    """Two sizes, one without a cell, one charged, one with a stress."""
    data = labeled()
    stress = data.stress.copy()
    stress[0] = np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T
    charge, multiplicity = data.charge.copy(), data.multiplicity.copy()
    charge[2], multiplicity[2] = -1, 2
    data = data._replace(stress=stress, charge=charge, multiplicity=multiplicity)
    part = datasets.structure(data, 0)._replace(cell=np.zeros((3, 3)))
    small = part._replace(positions=part.positions[:3], species=np.array([8, 8, 8], np.int32))
    return datasets.append(data, [small], info=[{"config_type": "free"}])


@pytest.mark.parametrize("name", ["data.extxyz", "data.db", "data.h5"])
def test_there_and_back(name, tmp_path):
    data = mixed()
    note = write_as(tmp_path / name, data)
    back, _ = datasets.read(tmp_path / name, labels="optional")
    assert datasets.count(back) == datasets.count(data)
    for field in ("positions", "species", "cell", "offsets", "energy", "forces"):
        expected = getattr(data, field)
        assert getattr(back, field) == pytest.approx(expected, abs=1e-12, nan_ok=True), field
    if name == "data.h5":
        assert note == "stress are left out"
        return
    assert note == ""
    assert back.stress == pytest.approx(data.stress, nan_ok=True)
    assert np.array_equal(back.charge, data.charge)
    assert np.array_equal(back.multiplicity, data.multiplicity)
    assert [info["config_type"] for info in back.info] == ["even", "odd"] * 2 + ["even", "free"]


def test_ase_finds_what_it_expects_in_its_database(tmp_path):
    data = mixed()
    write_as(tmp_path / "data.db", data)
    row = ase.db.connect(tmp_path / "data.db").get(config_type="odd", id=2)
    assert row.energy == pytest.approx(data.energy[1])
    assert row.forces == pytest.approx(data.forces[8:16])


def test_h5md_of_another_program(tmp_path):
    rng = np.random.default_rng(0)
    x, forces, energies = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3, 3)), [-1.0, -2.0]
    path = tmp_path / "other.h5md"
    with h5py.File(path, "w") as file:
        file.create_group("h5md").attrs["version"] = [1, 1]
        atoms = file.create_group("particles/all")
        atoms["species"] = np.array([8, 1, 1])
        box = atoms.create_group("box")
        box.attrs["dimension"], box.attrs["boundary"] = 3, np.array(["periodic"] * 3, "S")
        box["edges"] = np.array([1.0, 2.0, 3.0])
        box["edges"].attrs["unit"] = "nm"
        for name, values, unit in (
            ("position", x, "nm"), ("force", forces, "kcal mol-1 Angstrom-1"),
        ):  # fmt: skip
            atoms[f"{name}/value"] = values
            atoms[f"{name}/value"].attrs["unit"] = unit
            atoms[f"{name}/step"] = np.array([10, 20])
        file["observables/all/potential_energy/value"] = np.array(energies)
        file["observables/all/potential_energy/value"].attrs["unit"] = "kcal mol-1"
    frames = read_atoms(path)
    kcal = units.kcal / units.mol
    assert [atoms.info["step"] for atoms in frames] == [10, 20]
    for atoms, place, force, energy in zip(frames, x, forces, energies, strict=True):
        assert atoms.positions == pytest.approx(10 * place)
        assert atoms.cell.lengths() == pytest.approx([10, 20, 30])
        assert atoms.info["REF_energy"] == pytest.approx(energy * kcal)
        assert atoms.arrays["REF_forces"] == pytest.approx(force * kcal)
    with h5py.File(path, "a") as file:
        file["particles/all/position/value"].attrs["unit"] = "parsec"
    with pytest.raises(BadInput, match="unit 'parsec' of /particles/all/position"):
        read_atoms(path)
    with h5py.File(path, "a") as file:
        file["particles/all/position/value"].attrs["unit"] = "nm"
        del file["particles/all/species"]
    with pytest.raises(BadInput, match="no atomic numbers"):
        read_atoms(path)


def test_chemiscope_is_told_what_all_structures_have(tmp_path):
    data = labeled()
    potential, params = trained()
    model = models.model_of(potential, params, {"potential": CONFIG})
    write_as(tmp_path / "data.json.gz", data, model)
    found = json.loads(gzip.decompress((tmp_path / "data.json.gz").read_bytes()))
    sizes = {len(one["values"]) for one in found["properties"].values()}
    assert sizes == {5}
    assert found["properties"]["energy per atom"]["values"] == pytest.approx(list(data.energy / 8))
    assert found["properties"]["config_type"]["values"][1] == "odd"
    for one in found["structures"]:
        assert one["size"] == len(one["names"]) == len(one["x"]) == len(one["y"]) == len(one["z"])
        assert len(one["cell"]) == 9
    assert found["settings"]["map"]["x"] == {"property": "component 1"}
    first, second = (found["properties"][f"component {i}"]["values"] for i in (1, 2))
    assert np.dot(first, second) == pytest.approx(0, abs=1e-9)
    assert np.var(first) > np.var(second) > 0
    assert "component 1" not in chemiscope(data)["properties"]
    assert "energy per atom" not in chemiscope(mixed())["properties"]


def test_the_command(alj, tmp_path):
    datasets.write(tmp_path / "data.extxyz", labeled())
    code, out, _ = alj("convert", "data.extxyz", "data.db")
    assert code == 0
    assert "energy from REF_energy" in out
    code, _, err = alj("convert", "data.extxyz", "data.db")
    assert (code, "exists already" in err) == (2, True)
    code, _, err = alj("convert", "data.extxyz", "data.pdf")
    assert (code, "expected a name that ends in one of .extxyz" in err) == (2, True)
    code, _, err = alj("convert", "data.extxyz", "x.h5", "--model", "lennard_jones")
    assert (code, "only a file for Chemiscope" in err) == (2, True)
