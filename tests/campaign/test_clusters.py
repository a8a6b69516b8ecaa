"""Labels through Parsl: on this machine, and through schedulers that really run the job scripts."""

import contextlib
import os

import psutil
import pytest
from campaign.chaos import Killer, check, labeling, of_parsl, parsl_worker
from campaign.engines import Counted, Spring, point
from campaign.schedulers import install

from alj import registry
from alj.campaign.executors import EXECUTORS, Journals, clusters, parsl
from alj.types import BadInput

pytestmark = [pytest.mark.engine, pytest.mark.slow]

BY_NAME = {
    "slurm": {"queue": "short", "account": "physics", "scheduler_options": ["#SBATCH --mem=1G"]},
    "pbs": {"queue": "short"},
    "lsf": {"account": "physics"},
}


@pytest.fixture
def schedulers(tmp_path, monkeypatch):
    from parsl.providers import SlurmProvider

    monkeypatch.setattr(SlurmProvider, "status_polling_interval", 1)  # a minute, else
    bin_ = install(tmp_path / "schedulers")
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "schedulers"


def executor_of(**settings):
    spec = {"name": "parsl", "jobs": 1, "workers_per_node": 2, **settings}
    return registry.build(EXECUTORS, spec, where="executor")


def test_a_thousand_labels_while_workers_are_killed(tmp_path):
    executor = executor_of(labels_per_task=16, timeout_seconds=1.5)
    killer = Killer(labeling, parsl_worker)
    check(tmp_path, executor, killer)
    assert set(killer.killed) == {"labeling", "parsl_worker"}


def test_a_pool_that_outlives_its_workers_is_replaced(tmp_path, monkeypatch):
    """Its manager goes on answering although no task gets through to anybody."""
    monkeypatch.setattr(clusters, "STALL_SECONDS", 30.0)
    monkeypatch.setenv("CHAOS", str(tmp_path))
    executor = executor_of(labels_per_task=4, timeout_seconds=2.0)
    hashes, notes, found = [str(x) for x in range(60)], [], {}
    points = [point(float(x)) for x in range(60)]
    with contextlib.closing(executor):
        journals = Journals(tmp_path / "j", hashes)
        for part in executor.run(Counted(tmp_path), points, journals, notes.append):
            if not found:
                for process in psutil.process_iter():
                    with contextlib.suppress(psutil.Error):
                        if process.environ().get("CHAOS") == str(tmp_path) and of_parsl(process):
                            process.kill()
            found |= dict(part)
    assert [float(found[i].result.energy) for i in range(60)] == [float(x * x) for x in range(60)]
    assert sum("new ones take their place" in note for note in notes) == 1


@pytest.mark.parametrize("scheduler", BY_NAME)
def test_the_same_in_batch_jobs(tmp_path, schedulers, scheduler):
    more = {"address": "127.0.0.1", "labels_per_task": 16, "timeout_seconds": 1.5}
    executor = executor_of(scheduler=scheduler, **more, **BY_NAME[scheduler])
    check(tmp_path, executor, Killer(labeling))
    calls = (schedulers / "calls.txt").read_text()
    assert {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}[scheduler] in calls
    (text,) = {
        path.read_text()
        for path in (tmp_path / "labels" / "parsl").rglob("submit_scripts/*")
        if path.read_bytes().startswith(b"#!/bin/bash")
    }
    assert "export OMP_NUM_THREADS=1" in text
    if scheduler == "slurm":
        assert "#SBATCH --partition=short" in text
        assert "#SBATCH --account=physics" in text
        assert "#SBATCH --mem=1G" in text


def test_a_job_that_never_comes_up_is_told_with_its_log(tmp_path, schedulers):
    notes = []
    init = ["echo 'module: command not found: orca' >&2", "exit 1"]
    executor = executor_of(
        scheduler="slurm", address="127.0.0.1", worker_init=init, patience_minutes=0.05
    )
    spring = Spring(tmp_path)
    try:
        with pytest.raises(BadInput, match="module: command not found: orca"):
            list(executor.run(spring, [point(1.0)], Journals(tmp_path / "j", ["a"]), notes.append))
    finally:
        executor.close()
    assert any("no worker has appeared" in note and "orca" in note for note in notes)


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path, schedulers):
    (schedulers / "bin" / "sbatch").unlink()
    executor = executor_of(scheduler="slurm")
    try:
        with pytest.raises(BadInput, match="sbatch is not on PATH"):
            list(executor.run(Spring(tmp_path), [point(1.0)], Journals(tmp_path / "j", ["a"])))
    finally:
        executor.close()


@pytest.mark.parametrize("scheduler", ["local", "slurm", "pbs", "torque", "lsf"])
def test_every_provider_can_be_made_and_launches_on_its_own_node(scheduler):
    provider = executor_of(scheduler=scheduler)._provider()
    assert type(provider.launcher).__name__ == "SingleNodeLauncher"
    assert "OMP_NUM_THREADS=1" in provider.worker_init


def test_settings_are_checked():
    for bad in (
        {"jobs": 0},
        {"scheduler": "cron"},
        {"workers": 2},
        {"walltime": "a day"},
        {"queue": "short"},
        {"scheduler": "pbs", "nodes_per_job": 2},
        {"memory_GB": 0.0},
    ):
        with pytest.raises(BadInput):
            executor_of(**bad)
    assert parsl().settings.scheduler == "local"
