"""The commands: exit codes, one line for every mistake, nothing heavy imported before its time."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import ase
import ase.io
import numpy as np
import pytest
from click.testing import CliRunner

from alj.cli import KINDS, environment, group, runs


def beads(count=2, distance=3.0, **info):
    positions = [[distance * i, 0.0, 0.0] for i in range(count)]
    atoms = ase.Atoms(f"O{count}", positions, cell=[20.0] * 3, pbc=True)
    atoms.info.update(info)
    return atoms


def run_folder(path, *events):
    path.mkdir()
    lines = [json.dumps({"time": 100.0 + i, **event}) for i, event in enumerate(events)]
    (path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return path


CAMPAIGN = {"event": "campaign", "round": 0, "rounds": 9, "labeler": "ml_bop_water", "atoms": 108}
ROUND = {"event": "round", "round": 0, "labels": 11, "kept": 10, "failed": 1}
ROUND |= {"failures": {"timeout": 1}, "test_mae_meV_per_atom": 12.5, "seconds": {"train": 2.0}}


def modules_after(*arguments):
    code = (
        "import sys; from alj.cli import invoke; code = invoke(sys.argv[1:]);"
        "print('modules', code, [m for m in ('jax', 'numpy', 'ase', 'matplotlib') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    return done.stdout.splitlines()[-1]


def test_help_and_status_import_no_jax(tmp_path):
    assert modules_after("--help") == "modules 0 []"
    folder = run_folder(tmp_path / "run", CAMPAIGN, ROUND)
    assert modules_after("status", folder) == "modules 0 []"


def test_help_names_every_command():
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    for name in group.commands:
        assert name in result.output
        assert CliRunner().invoke(group, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument 'CONFIG'"),
        (["run", "x.yaml", "--otu", "y"], "--otu"),
        (["run", "none.yaml"], "no such file"),
        (["check", "."], "found a folder"),
        (["run", "empty.yaml"], "empty file"),
        (["run", "twice.yaml"], "twice.yaml:2: the key 'seed' is given twice"),
        (["run", "typo.yaml"], "typo.yaml:2: unknown key 'potentail', did you mean 'potential'"),
        (["run", "ok.yaml", "--set", "sed=3"], "did you mean 'seed'"),
        (["run", "ok.yaml", "--set", "seed"], "expected key.path=value"),
        (["train", "ok.yaml", "--set", "data=null"], "data: missing"),
        (["train", "ok.yaml", "--set", "data.tarin=x"], "did you mean 'train'"),
        (["train", "ok.yaml", "--set", "seed=-1"], "seed: expected 0 to"),
        (["train", "deep.yaml"], "deep.yaml:4: potential.cutof_A: unknown key, did you mean"),
        (["train", "ok.yaml"], "none.extxyz"),
        (["show", "potentail"], "did you mean 'potential'"),
        (["show", "sampler", "nestd_mc"], "did you mean 'nested_mc'"),
        (["schema", "thing"], "unknown kind 'thing'"),
        (["status", "nowhere"], "no such run folder"),
        (["status", "."], "expected a run folder"),
        (["report", "nowhere"], "no such run folder"),
        (["evaluate", "nowhere", "x.extxyz"], "nowhere"),
        (["label", "none.extxyz", "--labeler", "ml_bop_water", "--out", "o"], "no such file"),
        (["label", "d.extxyz", "--labeler", "ml_bop_watr", "--out", "o"], "did you mean 'ml_bop_"),
        (["label", "d.extxyz", "--labeler", "ml_bop_water"], "Missing option '--out'"),
        (["label", "d.extxyz", "--labeler", "lennard_jones", "--set", "sigm_A=1", "--out", "o"],
         "did you mean 'sigma_A'"),
        (["label", "d.extxyz", "--labeler", "lennard_jones", "--set", "sigma_A=-1", "--out", "o"],
         "labeler.sigma_A: expected 0 to"),
        (["label", "d.extxyz", "--labeler", "ml_bop_water", "--out", "d.extxyz"], "cannot replace"),
        (["label", "garbage.extxyz", "--labeler", "ml_bop_water", "--out", "o"], "cannot be read"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_misuse_is_one_line_and_exit_code_2(alj, tmp_path, arguments, words):
    files = {
        "empty.yaml": "",
        "twice.yaml": "seed: 1\nseed: 2\n",
        "typo.yaml": "seed: 1\npotentail: ml_bop\n",
        "ok.yaml": "seed: 1\ndata: {train: none.extxyz}\n",
        "deep.yaml": "data: {train: d}\npotential:\n  name: behler_parrinello\n  cutof_A: 3\n",
        "garbage.extxyz": "3\nthis is\nno structure\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ase.io.write(tmp_path / "d.extxyz", beads())
    code, _, error = alj(*arguments)
    assert code == 2
    assert words in error
    assert error.startswith("alj: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_status_tells_state_counts_errors_and_what_next(alj, tmp_path):
    folder = run_folder(tmp_path / "run", CAMPAIGN, ROUND)
    code, text, _ = alj("status", folder)
    assert code == 0
    for words in ("interrupted", "11 computed, 10 kept, 1 failed", "1 timeout", "test MAE 12.5"):
        assert words in text
    assert "run the same" in text
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "running" in alj("status", folder)[1]
    code, text, _ = alj("status", folder, "--json")
    assert json.loads(text)["kept"] == 10


def test_report_writes_the_page_and_says_where(alj, tmp_path):
    folder = run_folder(tmp_path / "run", CAMPAIGN, ROUND)
    code, text, _ = alj("report", folder)
    assert code == 0
    assert text.strip() == str(folder / "report.html")
    assert (folder / "report.html").stat().st_size > 1000


def test_show_and_schema_tell_names_settings_and_help(alj):
    assert "behler_parrinello" in alj("show")[1]
    assert "nested_mc" in alj("show", "sampler")[1]
    text = alj("show", "sampler", "nested_mc")[1]
    assert "cycles_per_stage = " in text
    assert "walks = " in text
    assert "random_start" in alj("show", "data")[1]
    for kind in [*KINDS, "executor", "data", "stop"]:
        described = json.loads(alj("schema", kind)[1])
        assert described["title"] == kind
    described = json.loads(alj("schema", "sampler")[1])
    assert "nested_mc" in described["anyOf"][0]["enum"]
    assert "walks" in described["anyOf"][1]["properties"]


def test_label_keeps_the_order_marks_failures_and_resumes(alj, tmp_path):
    overlapping = beads(distance=1e-6)
    lost = beads()
    lost.positions[0] = np.nan
    frames = [beads(3, name="first"), overlapping, lost, beads(2, energy=5.0, label_failure="old")]
    ase.io.write(tmp_path / "in.extxyz", frames)
    arguments = ("label", "in.extxyz", "--labeler", "ml_bop_water", "--out", "out.extxyz")
    code, text, error = alj(*arguments)
    assert code == 3
    assert "2 of 4 structures labeled by ml_bop_water, 2 bad_input" in text
    assert "structure 1 (counting from 0)" in error
    written = (tmp_path / "out.extxyz").read_bytes()
    labeled = ase.io.read(tmp_path / "out.extxyz", ":")
    assert [len(atoms) for atoms in labeled] == [3, 2, 2, 2]
    assert labeled[0].info["name"] == "first"
    assert [atoms.info.get("label_failure") for atoms in labeled] == [
        None, "bad_input", "bad_input", None,
    ]  # fmt: skip
    assert ["REF_energy" in atoms.info for atoms in labeled] == [True, False, False, True]
    assert "REF_forces" in labeled[0].arrays
    assert "REF_forces" not in labeled[1].arrays
    assert labeled[3].info["REF_energy"] == pytest.approx(-0.0, abs=1.0)
    np.testing.assert_array_equal(labeled[0].positions, frames[0].positions)
    code, _, error = alj(*arguments)
    assert code == 3
    assert "of" not in error.splitlines()[0].split("structure")[0]  # nothing labeled anew
    assert (tmp_path / "out.extxyz").read_bytes() == written


def test_label_does_not_overwrite_a_file_from_elsewhere(alj, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", beads())
    (tmp_path / "out.extxyz").write_text("precious")
    code, _, error = alj("label", "in.extxyz", "--labeler", "ml_bop_water", "--out", "out.extxyz")
    assert code == 2
    assert "exists already" in error
    assert (tmp_path / "out.extxyz").read_text() == "precious"


def test_an_interruption_says_how_to_go_on(alj, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run_campaign", interrupted)
    code, _, error = alj("run", "x.yaml")
    assert code == 130
    assert "run the same command again to resume" in error


def test_a_full_disk_is_a_pause(alj, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left while writing x; nothing is lost")

    monkeypatch.setattr(runs, "run_campaign", full)
    code, _, error = alj("run", "x.yaml")
    assert code == 4
    assert "nothing is lost" in error


def test_a_bug_is_not_disguised(alj, monkeypatch):
    def broken(*arguments):
        raise ValueError("inner trouble")

    monkeypatch.setattr(runs, "run_campaign", broken)
    with pytest.raises(ValueError, match="inner trouble"):
        alj("run", "x.yaml")


def test_what_the_user_set_in_the_environment_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    theirs = (
        "--xla_force_host_platform_device_count=7 --xla_cpu_multi_thread_eigen=true "
        "--xla_cpu_enable_concurrency_optimized_scheduler=true"
    )
    monkeypatch.setenv("XLA_FLAGS", theirs)
    environment.prepare()
    assert os.environ["XLA_FLAGS"] == theirs
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    environment.prepare()
    assert os.environ["XLA_FLAGS"].startswith("--xla_cpu_enable_fast_math=false --xla_force_host")


def test_a_jaxlib_that_sums_wrongly_gets_its_fusion_switched_off(monkeypatch, tmp_path):
    """Who has one in spite of our requirements is kept from wrong sums."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    off = "--xla_cpu_experimental_ynn_fusion_type="
    for found, expected in (("0.10.1", False), ("0.10.2", True), ("0.11.0", True)):
        monkeypatch.setenv("XLA_FLAGS", "")
        monkeypatch.setattr(environment, "version", lambda name, found=found: found)
        environment.prepare()
        assert (off in os.environ["XLA_FLAGS"].split()) is expected


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = environment.compilation_cache()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "alj" / "xla")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert environment.compilation_cache() is None
