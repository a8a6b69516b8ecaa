"""Samplings: cut anywhere they end with the same bytes, and what goes wrong is heard of."""

import ase
import ase.build
import ase.io
import h5py
import numpy as np
import pytest
from campaign.tiny import CONFIG, cluster, trained

from alj.campaign import models, sampling
from alj.campaign.sampling import Request, sample
from alj.campaign.trajectories import read_table
from alj.types import BadInput

LANGEVIN = {
    "name": "nvt_langevin",
    "temperature_K": 40.0,
    "timestep_fs": 4.0,
    "steps": 30,
    "record_every": 5,
}
SPRINGS = ("labeler.calculator=campaign.fragile_engines.Springs", "labeler.closest_fraction=0")


def argon(path, sizes=(8,)):
    rng = np.random.default_rng(0)
    frames = []
    for atoms in sizes:
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)[:atoms]
        positions = 3.9 * grid + rng.normal(0, 0.05, (atoms, 3))
        frames.append(ase.Atoms(f"Ar{atoms}", positions, cell=[9.0] * 3, pbc=True))
    ase.io.write(path, frames)
    return str(path)


def triangle(path):
    positions = [[0.0, 0, 0], [2.0, 0, 0], [1.0, 1.7, 0.1]]
    ase.io.write(path, ase.Atoms("O3", positions))
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of two walks, and the request for it."""
    folder = tmp_path_factory.mktemp("whole")
    start = argon(folder / "ar.extxyz")
    request = Request("lennard_jones", start, LANGEVIN, str(folder / "md"), seed=3, copies=2)
    return request, sample(request)


FILES = ("trajectory.extxyz", "observables.csv", "checkpoint.tree")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_frames_are_those_of_the_sampler_with_energies_and_forces(whole):
    _, found = whole
    frames = ase.io.read(found.trajectory, ":")
    assert [(f.info["step"], f.info["walk"]) for f in frames[:4]] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert len(frames) == 12
    assert frames[-1].info["time_fs"] == 120.0
    columns = read_table(found.folder / "observables.csv")
    last = frames[-1]
    assert columns["temperature_K"][-1] == last.info["temperature_K"]
    # ASE counts 3N freedoms, we leave out the three of the drift
    kinetic = last.get_kinetic_energy()
    assert kinetic == pytest.approx(columns["kinetic_eV"][-1], rel=1e-6)
    assert last.get_temperature() == pytest.approx(last.info["temperature_K"] * 7 / 8, rel=1e-3)
    # ASE's own Lennard-Jones, shifted in the same way
    from ase.calculators.lj import LennardJones

    last_energy, forces = last.get_potential_energy(), last.get_forces()
    last.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5)
    assert last.get_potential_energy() == pytest.approx(last_energy, abs=1e-9)
    np.testing.assert_allclose(last.get_forces(), forces, atol=1e-9)
    assert not np.array_equal(frames[0].positions, frames[1].positions)
    assert found.frozen == {}


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("number", "written"), [(1, False), (3, False), (3, True)])
def test_cut_anywhere_it_ends_with_the_same_bytes(whole, tmp_path, monkeypatch, number, written):
    """Killed at a checkpoint, before or behind it; the blocks are in the files already."""
    request, undisturbed = whole
    request = request._replace(out=str(tmp_path / "md"))
    real, seen = sampling.write_file, []

    def fatal(path, data):
        if path.name == "checkpoint.tree":
            seen.append(path)
            if len(seen) == number and not written:
                raise Killed
        real(path, data)
        if len(seen) == number and written:
            raise Killed

    monkeypatch.setattr(sampling, "write_file", fatal)
    with pytest.raises(Killed):
        sample(request)
    monkeypatch.undo()
    # a kill gives no time to tidy up: garbage behind the checkpoint
    with (tmp_path / "md" / "trajectory.extxyz").open("ab") as file:
        file.write(b"half a fra")
    heard = []
    found = sample(request, on_note=heard.append)
    assert found.resumed == (number > 1)
    assert contents(tmp_path / "md") == contents(undisturbed.folder)
    assert any("goes on after" in line for line in heard) == (number > 1)


def test_a_finished_run_goes_on_as_one_that_was_longer_from_the_start(whole, tmp_path):
    request, _ = whole
    longer = request._replace(sampler={**LANGEVIN, "steps": 45})
    straight = sample(longer._replace(out=str(tmp_path / "straight")))
    sample(request._replace(out=str(tmp_path / "cut")))
    extended = sample(longer._replace(out=str(tmp_path / "cut")))
    assert extended.extended == ["sampler.steps: 30 -> 45"]
    first, second = contents(straight.folder), contents(extended.folder)
    assert first["trajectory.extxyz"] == second["trajectory.extxyz"]
    assert first["observables.csv"] == second["observables.csv"]
    again = sample(longer._replace(out=str(tmp_path / "cut")))
    assert again.extended == []
    assert contents(again.folder) == second


def test_another_sampling_is_refused_with_its_differences(whole):
    request, _ = whole
    for changed, words in (
        (
            request._replace(sampler={**LANGEVIN, "temperature_K": 50.0}),
            "temperature_K: 40.0 -> 50",
        ),
        (request._replace(sampler={**LANGEVIN, "steps": 20}), "sampler.steps: 30 -> 20"),
        (request._replace(seed=4), "seed: 3 -> 4"),
        (request._replace(settings=["potential.epsilon_eV=0.02"]), "epsilon_eV: 0.0104 -> 0.02"),
    ):
        with pytest.raises(BadInput, match="belongs to another sampling") as error:
            sample(changed)
        assert words in str(error.value)


def test_h5md_holds_the_same_frames_also_when_cut(whole, tmp_path, monkeypatch):
    request, undisturbed = whole
    request = request._replace(format="h5md", out=str(tmp_path / "md"))
    real, seen = sampling.write_file, []

    def fatal(path, data):
        seen.append(path)
        if len(seen) == 5:  # sample.yaml, three checkpoints, and this one
            raise Killed
        real(path, data)

    monkeypatch.setattr(sampling, "write_file", fatal)
    with pytest.raises(Killed):
        sample(request)
    monkeypatch.undo()
    found = sample(request)
    assert found.resumed
    frames = ase.io.read(undisturbed.trajectory, ":")
    with h5py.File(found.trajectory) as file:
        for walk in (0, 1):
            group = file[f"particles/walk_000{walk}"]
            expected = np.stack([f.positions for f in frames if f.info["walk"] == walk])
            np.testing.assert_array_equal(group["position/value"][:], expected)
            assert group["position/time"][:].tolist() == [20.0, 40.0, 60.0, 80.0, 100.0, 120.0]


@pytest.mark.slow
def test_starts_of_several_sizes_walk_one_size_after_the_other(tmp_path):
    start = argon(tmp_path / "ar.extxyz", sizes=(8, 6, 8))
    spec = {**LANGEVIN, "steps": 10}
    found = sample(Request("lennard_jones", start, spec, str(tmp_path / "md")))
    assert found.atoms == [8, 8, 6]
    frames = ase.io.read(found.trajectory, ":")
    assert [(len(f), f.info["walk"], f.info["step"]) for f in frames] == [
        (8, 0, 1), (8, 1, 1), (8, 0, 2), (8, 1, 2), (6, 2, 1), (6, 2, 2)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_committee_tells_its_spread_in_every_frame(tmp_path):
    params = trained()[1]
    models.save(
        tmp_path / "model", potential_config=CONFIG, species=(8,), params=params,
        precision="float64", provenance={},
    )  # fmt: skip
    one = cluster(0)
    start = tmp_path / "start.extxyz"
    ase.io.write(start, ase.Atoms("O8", one.positions, cell=one.cell, pbc=True))
    spec = {"name": "nve", "steps": 4, "record_every": 2, "masses_amu": {"8": 18.015}}
    found = sample(Request(str(tmp_path / "model"), str(start), spec, str(tmp_path / "md")))
    from alj.calculator import load

    for atoms in ase.io.read(found.trajectory, ":"):
        np.testing.assert_array_equal(atoms.get_masses(), 18.015)
        told, energy, forces = dict(atoms.info), atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = load(tmp_path / "model")
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-10)
        results = atoms.calc.results
        assert told["energy_spread_eV"] == pytest.approx(results["energy_uncertainty"], rel=1e-6)
        largest = np.linalg.norm(results["forces_uncertainty"], axis=1).max()
        assert told["largest_force_spread_eV_per_A"] == pytest.approx(largest, rel=1e-6)


def test_an_engine_drives_dynamics_and_its_energy_is_conserved(tmp_path):
    start = triangle(tmp_path / "start.extxyz")
    spec = {"name": "nve", "steps": 40, "record_every": 4, "timestep_fs": 1.0}
    request = Request("ase", start, spec, str(tmp_path / "md"), copies=2, settings=SPRINGS)
    found = sample(request)
    frames = ase.io.read(found.trajectory, ":")
    from campaign.fragile_engines import Springs

    for atoms in frames:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = Springs()
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-12)
    columns = read_table(found.folder / "observables.csv")
    for walk in (0, 1):
        conserved = columns["conserved_eV"][columns["walk"] == walk]
        assert np.ptp(conserved) < 2e-4


def test_a_label_that_fails_freezes_the_walk_and_the_reason_arrives(tmp_path):
    start = triangle(tmp_path / "start.extxyz")
    spec = {"name": "nve", "steps": 400, "record_every": 4, "temperature_K": 3000.0}
    settings = (*SPRINGS, "labeler.keywords={longest: 2.3}")
    request = Request("ase", start, spec, str(tmp_path / "md"), settings=settings)
    found = sample(request)
    assert list(found.frozen) == [0]
    assert found.frozen[0].startswith("not_converged: ")
    assert "the density swings" in found.frozen[0]
    frames = ase.io.read(found.trajectory, ":")
    assert 1 <= len(frames) < 100
    assert f"frame {len(frames)} is its last good one" in found.frozen[0]
    assert frames[-1].get_all_distances().max() <= 2.3
    assert np.isfinite(frames[-1].get_potential_energy())
    again = sample(request)  # it does not move again, and still says why
    assert again.frozen == found.frozen
    assert len(ase.io.read(found.trajectory, ":")) == len(frames)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((*SPRINGS, "labeler.keywords={longest: 1.0}"), "failed at its start: not_converged"),
        (("labeler.calculator=campaign.nowhere.Springs",), "campaign.nowhere"),
        ((*SPRINGS, "labeler.keyword={}"), "unknown key, did you mean 'keywords'"),
        ((*SPRINGS, "potential.epsilon_eV=1"), "expected labeler.KEY=VALUE"),
    ],
)
def test_engines_that_cannot_begin_are_one_line(tmp_path, settings, words):
    start = triangle(tmp_path / "start.extxyz")
    spec = {"name": "nve", "steps": 4, "record_every": 2}
    with pytest.raises(BadInput, match=words):
        sample(Request("ase", start, spec, str(tmp_path / "md"), settings=settings))


def test_a_cell_that_changes_needs_a_stress(tmp_path):
    start = argon(tmp_path / "ar.extxyz")
    spec = {"name": "npt_nose_hoover", "steps": 2, "record_every": 1}
    request = Request("ase", start, spec, str(tmp_path / "md"), settings=SPRINGS)
    with pytest.raises(BadInput, match="gives no stress"):
        sample(request)
    # no frame was written, so the folder is free for what the user tries next
    found = sample(request._replace(sampler={"name": "perturbation", "frames": 3}))
    assert len(ase.io.read(found.trajectory, ":")) == 3


def test_time_steps_that_are_too_large_freeze_a_walk_with_its_reason(tmp_path):
    start = argon(tmp_path / "ar.extxyz")
    spec = {**LANGEVIN, "timestep_fs": 17.0, "longest_step_A": 0.01}
    found = sample(Request("lennard_jones", start, spec, str(tmp_path / "md")))
    assert "went beyond a gate" in found.frozen[0]
    assert len(ase.io.read(found.trajectory, ":")) == 1


SHORT = {"name": "nvt_langevin", "steps": 4, "record_every": 2}
STEERED = {
    "name": "steered",
    "variable": {"name": "distance", "atoms": [0, 1]},
    "dynamics": SHORT,
}
LADDER = {"name": "replica_exchange", "temperatures_K": [40.0, 60.0], "dynamics": SHORT}
ISOBARIC = {"name": "npt_mc", "cycles": 4, "cycles_per_frame": 2, "temperature_K": 60.0}
NESTED = {"name": "nested_mc", "cycles": 8, "cycles_per_stage": 4}


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "metropolis_mc", "cycles": 4, "cycles_per_frame": 2, "temperature_K": 60.0},
        {"name": "perturbation", "frames": 3},
        STEERED,
        pytest.param(ISOBARIC, marks=pytest.mark.slow),
        pytest.param(NESTED, marks=pytest.mark.slow),
        pytest.param({"name": "fire", "steps": 4, "record_every": 2}, marks=pytest.mark.slow),
        pytest.param(LADDER, marks=pytest.mark.slow),
    ],
    ids=lambda spec: spec["name"],
)
def test_every_kind_of_sampler_leaves_frames(tmp_path, spec):
    start = argon(tmp_path / "ar.extxyz")
    found = sample(Request("lennard_jones", start, spec, str(tmp_path / "md")))
    frames = ase.io.read(found.trajectory, ":")
    assert len(frames) == (3 if spec["name"] == "perturbation" else 2)
    assert all(np.isfinite(f.get_potential_energy()) for f in frames)
    timed = "dynamics" in spec
    assert all(("time_fs" in f.info) == timed for f in frames)
    names = read_table(found.folder / "observables.csv")
    if spec["name"] == "steered":
        assert frames[-1].info["time_fs"] == 4.0
        assert {"value", "anchor", "work_eV", "force"} <= set(names)
    if spec["name"] == "replica_exchange":
        assert {"energies_eV_0", "temperatures_K_1", "walkers_0"} <= set(names)
