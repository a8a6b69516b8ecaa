"""Trajectory files: read back by ASE and by the letter of H5MD, and cut where a checkpoint says."""

import ase.io
import ase.units
import h5py
import numpy as np
import pytest

from alj.campaign.trajectories import H5md, Segment, extxyz, read_table, table
from alj.types import BadInput


def segment(walk=0, first=1, frames=3, *, bead=False, molecule=False, forces=True) -> Segment:
    rng = np.random.default_rng([walk, first])
    cell = np.zeros((3, 3)) if molecule else np.diag([9.0, 10.0, 11.0])
    masses = np.full(4, 18.015) if bead else np.array([15.999, 1.008, 1.008, 39.948])
    step = np.arange(first, first + frames)
    return Segment(
        walk=walk,
        step=step,
        time_fs=2.5 * step,
        positions=rng.normal(size=(frames, 4, 3)),
        cell=np.tile(cell, (frames, 1, 1)),
        species=np.array([8, 1, 1, 18]),
        masses=masses,
        velocities=0.01 * rng.normal(size=(frames, 4, 3)),
        forces=rng.normal(size=(frames, 4, 3)) if forces else None,
        observables={
            "energy_eV": rng.normal(size=frames),
            "temperature_K": 300.0 + rng.normal(size=frames),
            "ceiling_eV": np.full(frames, np.nan),
        },
    )


def test_ase_reads_all_of_it_back_to_the_last_bit(tmp_path):
    writer = extxyz(tmp_path / "t.extxyz")
    one, other = segment(0), segment(1)
    writer.append([one, other])
    frames = ase.io.read(tmp_path / "t.extxyz", ":")
    assert [(f.info["step"], f.info["walk"]) for f in frames] == [
        (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)
    ]  # fmt: skip
    last = frames[4]
    np.testing.assert_array_equal(last.positions, one.positions[2])
    np.testing.assert_array_equal(last.cell.array, one.cell[2])
    np.testing.assert_array_equal(last.get_forces(), one.forces[2])
    assert last.get_potential_energy() == one.observables["energy_eV"][2]
    assert last.info["temperature_K"] == one.observables["temperature_K"][2]
    assert last.info["time_fs"] == 7.5
    assert "ceiling_eV" not in last.info
    # ASE's own masses: Å/fs come back
    np.testing.assert_allclose(last.get_velocities() * ase.units.fs, one.velocities[2], rtol=1e-12)
    assert last.pbc.all()


def test_beads_bring_their_masses_and_molecules_no_cell(tmp_path):
    writer = extxyz(tmp_path / "t.extxyz")
    bead = segment(bead=True, molecule=True, forces=False)
    writer.append([bead])
    atoms = ase.io.read(tmp_path / "t.extxyz", 0)
    np.testing.assert_array_equal(atoms.get_masses(), bead.masses)
    np.testing.assert_allclose(
        atoms.get_velocities() * ase.units.fs, bead.velocities[0], rtol=1e-12
    )
    assert not atoms.pbc.any()
    assert not atoms.cell.array.any()
    assert "forces" not in atoms.arrays


def test_texts_are_cut_where_they_were(tmp_path):
    columns = ["energy_eV", "temperature_K"]
    writers = [extxyz(tmp_path / "t.extxyz"), table(tmp_path / "t.csv", columns)]
    for writer in writers:
        writer.append([segment()])
        at, whole = writer.position(), writer.path.read_bytes()
        writer.append([segment(first=4)])
        assert writer.position() > at
        writer.rewind(at)
        assert writer.path.read_bytes() == whole
        with pytest.raises(BadInput, match="shorter than when it was written"):
            writer.rewind(10 * at)


def test_the_table_is_read_back(tmp_path):
    writer = table(tmp_path / "t.csv", ["energy_eV", "spread_eV"])
    writer.append([segment()])
    found = read_table(tmp_path / "t.csv")
    np.testing.assert_array_equal(found["energy_eV"], segment().observables["energy_eV"])
    np.testing.assert_array_equal(found["time_fs"], [2.5, 5.0, 7.5])
    assert np.isnan(found["spread_eV"]).all()


def test_h5md_has_what_the_format_asks_for(tmp_path):
    writer = H5md(tmp_path / "t.h5", "0.1")
    writer.append([segment(0), segment(1)])
    writer.append([segment(0, first=4)])
    writer.finish()
    assert not writer.waiting.exists()
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert file["h5md/creator"].attrs["name"] == "alj"
        assert "name" in file["h5md/author"].attrs
        group = file["particles/walk_0000"]
        box = group["box"]
        assert box.attrs["dimension"] == 3
        assert [b.decode() for b in box.attrs["boundary"]] == ["periodic"] * 3
        assert box["edges/value"].shape == (6, 3, 3)
        for name, unit in (("position", "Angstrom"), ("velocity", "Angstrom fs-1")):
            assert group[f"{name}/value"].shape == (6, 4, 3)
            assert group[f"{name}/value"].attrs["unit"] == unit
            assert group[f"{name}/step"][:].tolist() == [1, 2, 3, 4, 5, 6]
            assert group[f"{name}/time"].attrs["unit"] == "fs"
        np.testing.assert_array_equal(group["position/value"][3:], segment(0, first=4).positions)
        assert group["species"][:].tolist() == [8, 1, 1, 18]
        temperature = file["observables/walk_0000/temperature_K"]
        assert temperature["value"].attrs["unit"] == "K"
        assert file["observables/walk_0000/energy_eV/value"].attrs["unit"] == "eV"
        assert file["particles/walk_0001/position/value"].shape == (3, 4, 3)


def test_blocks_wait_beside_the_file_and_are_cut_off(tmp_path):
    writer = H5md(tmp_path / "t.h5", "0.1")
    writer.append([segment()])
    writer.finish()
    writer.append([segment(first=4)])
    at = writer.position()
    writer.append([segment(first=7)])
    # a kill: another process finds one block joined, two waiting, and a checkpoint of two
    again = H5md(tmp_path / "t.h5", "0.1")
    again.rewind(at)
    again.append([segment(first=7, frames=1)])
    again.finish()
    with h5py.File(tmp_path / "t.h5") as file:
        steps = file["particles/walk_0000/position/step"][:]
        assert steps.tolist() == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(BadInput, match="holds more than the checkpoint"):
        again.rewind(1)


def test_a_kill_between_joining_and_tidying_up_does_no_harm(tmp_path, monkeypatch):
    writer = H5md(tmp_path / "t.h5", "0.1")
    writer.append([segment()])
    monkeypatch.setattr("alj.campaign.trajectories.shutil.rmtree", lambda path: None)
    writer.finish()
    monkeypatch.undo()
    again = H5md(tmp_path / "t.h5", "0.1")
    again.rewind(1)
    again.append([segment(first=4)])
    again.finish()
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["particles/walk_0000/position/step"][:].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "t.h5").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="damaged or not a trajectory"):
        H5md(tmp_path / "t.h5", "0.1")
