"""`alj sample`: what it leaves and says, and one line for every mistake."""

import ase
import ase.io
import h5py
import numpy as np
import pytest
from ruamel.yaml import YAML

DYNAMICS = (
    "--sampler", "nvt_langevin", "--set", "timestep_fs=4", "--set", "temperature_K=40",
    "--set", "record_every=5",
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    positions = 3.9 * grid + rng.normal(0, 0.05, (8, 3))
    ase.io.write(tmp_path / "ar.extxyz", ase.Atoms("Ar8", positions, cell=[9.0] * 3, pbc=True))
    return "ar.extxyz"


def test_a_walk_is_written_summed_up_and_made_longer(alj, start, tmp_path):
    command = ("sample", "lennard_jones", start, *DYNAMICS, "--out", "md")
    code, text, error = alj(*command, "--set", "steps=40")
    assert code == 0, error
    assert "lennard_jones, nvt_langevin: 1 walk of 8 atoms, 8 frames each" in error
    for words in (
        "md/trajectory.extxyz: 8 frames of 1 walk",
        "mean temperature",
        "drift of the conserved energy",
        "next: see md/sampling.png",
    ):
        assert words in text
    names = {"sample.yaml", "trajectory.extxyz", "observables.csv", "sampling.png"}
    assert names <= {path.name for path in (tmp_path / "md").iterdir()}
    about = YAML(typ="safe").load(tmp_path / "md" / "sample.yaml")
    assert about["sampler"]["friction_time_fs"] == 100.0
    assert about["model"]["potential"]["epsilon_eV"] == 0.0104
    assert about["given"] == {"model": "lennard_jones", "start": "ar.extxyz"}
    assert about["seed"] == 0
    assert "jax" in about["versions"]
    code, _, error = alj(*command, "--set", "steps=50")
    assert code == 0
    assert "md: goes on after 8 of 10 frames" in error
    assert len(ase.io.read(tmp_path / "md" / "trajectory.extxyz", ":")) == 10
    code, text, error = alj(*command, "--set", "steps=50", "--set", "temperature_K=60")
    assert code == 2
    assert "sampler.temperature_K: 40.0 -> 60.0" in error
    assert error.count("\n") == 1


def test_an_engine_that_fails_is_told_with_an_exit_code(alj, tmp_path):
    ase.io.write(
        tmp_path / "o3.extxyz", ase.Atoms("O3", [[0.0, 0, 0], [2.0, 0, 0], [1.0, 1.7, 0.1]])
    )
    (tmp_path / "engine.yaml").write_text(
        "labeler:\n  name: ase\n  calculator: campaign.fragile_engines.Springs\n"
        "  closest_fraction: 0\n  keywords: {longest: 2.2}\n"
    )
    code, text, error = alj(
        "sample", "engine.yaml", "o3.extxyz", "--sampler", "nve", "--set", "steps=200",
        "--set", "temperature_K=3000", "--set", "record_every=2", "--out", "md",
    )  # fmt: skip
    assert code == 3
    assert "walk 0 froze: not_converged: " in error
    assert "is its last good one" in error
    assert "next: look at the last frame" in text


def test_settings_reach_the_dynamics_inside_and_the_model(alj, start, tmp_path):
    code, _, error = alj(
        "sample", "lennard_jones", start, "--sampler", "steered", "--out", "md", "--copies", 2,
        "--set", "variable={name: distance, atoms: [0, 1]}", "--set", "dynamics.steps=4",
        "--set", "dynamics.record_every=2", "--set", "dynamics.temperature_K=50",
        "--set", "potential.epsilon_eV=0.02", "--format", "h5md",
    )  # fmt: skip
    assert code == 0, error
    about = YAML(typ="safe").load(tmp_path / "md" / "sample.yaml")
    assert about["sampler"]["dynamics"]["name"] == "nvt_berendsen"
    assert about["sampler"]["dynamics"]["temperature_K"] == 50.0
    assert about["model"]["potential"]["epsilon_eV"] == 0.02
    with h5py.File(tmp_path / "md" / "trajectory.h5") as file:
        work = file["observables/walk_0001/work_eV"]
        assert work["time"][:].tolist() == [2.0, 4.0]
        assert work["value"].attrs["unit"] == "eV"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere/run", "ar.extxyz"], "nowhere/run: no such model"),
        (["lenard_jones", "ar.extxyz"], "did you mean 'lennard_jones'"),
        (["behler_parrinello", "ar.extxyz"], "has to be trained"),
        (["lennard_jones", "no.extxyz"], "no.extxyz: no such file"),
        (["ase", "ar.extxyz"], "labeler.calculator: missing"),
        (["ar.extxyz", "ar.extxyz"], "found a file"),
        (["lennard_jones", "ar.extxyz", "--set", "timestep=1"], "did you mean 'timestep_fs'"),
        (
            ["lennard_jones", "ar.extxyz", "--set", "timestep_fs=50"],
            "timestep_fs: expected at most",
        ),
        (["lennard_jones", "ar.extxyz", "--set", "potential.sigma=3"], "did you mean 'sigma_A'"),
        (["lennard_jones", "ar.extxyz", "--sampler", "nvt_langvin"], "did you mean 'nvt_langevin'"),
        (["lennard_jones", "ar.extxyz", "--copies", "0"], "--copies"),
        (["lennard_jones", "on_top.extxyz"], "on top of each other"),
        (["ml_bop", "ar.extxyz"], "found [18]"),
    ],
)
def test_what_cannot_be_sampled_is_one_line(alj, start, tmp_path, arguments, words):
    ase.io.write(tmp_path / "on_top.extxyz", ase.Atoms("Ar2", np.zeros((2, 3))))
    sampler = [] if "--sampler" in arguments else ["--sampler", "nvt_langevin"]
    code, _, error = alj("sample", *arguments, *sampler, "--out", "md")
    assert code == 2
    assert error.startswith("alj: error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "md" / "trajectory.extxyz").exists()
