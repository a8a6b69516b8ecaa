"""Whatever ends a run, wherever it writes: run again, it ends as if nothing had happened.

The laws: identical data set, bit-identical parameters and files, every `round` event once, and no
label that the ledger holds is ever computed again. A label that was finished but not yet in the
ledger when the process died is; there is at most one such label of an engine that labels one by one
(a task of `labels_per_task` otherwise, times the workers of `local`). The labels that relax a
random start, and those of a reference's own test set, are kept with the start and the test set.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import ruamel.yaml
from campaign import crash_points
from campaign.crash_points import (
    CONFIG,
    Full,
    assert_nothing_labeled_twice,
    assert_same_end,
    dataset_of,
    end_of,
    recorded,
    same_data,
    watched,
)

from alj.campaign import events, loop
from alj.campaign.ledger import Ledger
from alj.campaign.store import DiskFull
from alj.cli import invoke


class Undisturbed:
    """A whole run, and a copy of its folder at every point where it wrote."""

    def __init__(self, folder: Path):
        self.folder, self.copies = folder / "whole", folder / "copies"
        self.points: list[str] = []
        with watched(self._copy):
            crash_points.run(self.folder)
        self.end = end_of(self.folder)
        self.calls = sorted(crash_points.calls(self.folder))

    def _copy(self, point: str) -> None:
        shutil.copytree(self.folder, self.copies / f"{len(self.points):03d}")
        self.points.append(point)

    def killed_at(self, number: int, folder: Path) -> Path:
        """A folder as a kill at point `number` leaves it."""
        return Path(shutil.copytree(self.copies / f"{number:03d}", folder / f"{number:03d}"))

    def telling(self) -> list[int]:
        """One point for every content of the folder that a resumed run can tell apart; of equal
        ones that with most debris: half a file, half a line, an open transaction."""
        chosen: dict[tuple, int] = {}
        for number, point in enumerate(self.points):
            copy = self.copies / f"{number:03d}"
            debris = (".writing", crash_points.CALLS, events.NAME)
            content = tuple(
                (str(path.relative_to(copy)), path.read_bytes())
                for path in sorted(copy.rglob("*"))
                if path.is_file() and not path.name.startswith(debris)
            )
            state = (content, events.rounds_told(copy))
            if state not in chosen or point.endswith(("half", "uncommitted")):
                chosen[state] = number
        return sorted(chosen.values())


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("crashes"))


def assert_resumes(folder: Path, whole: Undisturbed) -> None:
    kept = recorded(folder)
    crash_points.run(folder)
    assert_same_end(end_of(folder), whole.end)
    assert same_data(dataset_of(folder), dataset_of(whole.folder))
    assert_nothing_labeled_twice(folder, kept)


def test_a_kill_at_any_write_changes_nothing(whole, tmp_path):
    points = whole.telling()
    assert len(points) > 30
    for number in points:
        assert_resumes(whole.killed_at(number, tmp_path), whole)


def test_a_kill_before_within_and_after_every_write_changes_nothing(whole, tmp_path):
    for number in range(len(whole.points)):
        assert_resumes(whole.killed_at(number, tmp_path), whole)


def test_a_full_disk_at_every_write_is_clear_and_loses_nothing(whole, tmp_path):
    """One folder: at every run the disk is full a write later than at the last one."""
    folder = tmp_path / "run"
    for point in dict.fromkeys(whole.points):
        if not _is_worth_a_full_disk(point):
            continue
        full = Full(point)
        kept = recorded(folder)
        with (
            watched(full),
            pytest.raises(DiskFull, match=r"no space left.*nothing is lost") as told,
        ):
            crash_points.run(folder)
        assert full.full
        assert "\n" not in str(told.value)
        assert kept <= recorded(folder)
    crash_points.run(folder)
    assert_same_end(end_of(folder), whole.end)
    # the label that the disk had no room for is computed again
    assert len(crash_points.calls(folder)) > len(whole.calls)


def _is_worth_a_full_disk(point: str) -> bool:
    """Every file and transaction, and the first event of each kind."""
    first_of_its_kind = ("event campaign 0", "event stage 0 test set", "event progress 0 train 1")
    told = point.startswith((*first_of_its_kind, "event round", "event stage 1", "event finished"))
    written = point.startswith("file") or told
    return (written and point.endswith(": half")) or point.endswith(": uncommitted")


def test_a_full_disk_ends_the_command_with_exit_code_4(whole, tmp_path, monkeypatch, capsys):
    plan = crash_points.plan_of()
    plan.labeler.folder = None
    monkeypatch.setattr(loop, "make_plan", lambda config: plan)
    with watched(Full("file 000/state.tree: half")):
        code = invoke(["run", _written(CONFIG, tmp_path), "--out", str(tmp_path / "run"), "-q"])
    assert code == 4
    said = capsys.readouterr().err
    assert "no space left while writing" in said
    assert said.count("\n") == 1


def test_running_again_ends_where_it_ended(whole, tmp_path, monkeypatch):
    """A limit on labels counts those of each round, not those of the rounds that followed."""
    plan = crash_points.plan_of()
    plan.labeler.folder = folder = tmp_path / "run"
    limit = len(rows_of_round(whole.folder, 0)) + 1
    plan = plan._replace(stop=plan.stop._replace(labels=limit))
    monkeypatch.setattr(loop, "make_plan", lambda config: plan)
    first = loop.run_campaign(CONFIG, folder)
    assert f"limit {limit}" in first.reason
    end = end_of(folder)
    assert loop.run_campaign(CONFIG, folder) == first
    assert_same_end(end_of(folder), end)


def rows_of_round(folder: Path, round_: int) -> list[dict]:
    with Ledger(folder, read_only=True) as ledger:
        return ledger.structures(round_)


def test_a_second_process_is_refused_and_the_first_unharmed(whole, tmp_path):
    folder, refused = tmp_path / "run", []

    def meanwhile(event: dict) -> None:
        if event["event"] == "stage" and (event["round"], event["stage"]) == (1, "train"):
            arguments = ["alj", "run", _written(CONFIG, tmp_path), "--out", str(folder)]
            refused.append(_python(f"import sys, alj.cli; sys.argv = {arguments}; alj.cli.main()"))

    crash_points.run(folder, meanwhile)
    (second,) = refused
    assert second.returncode == 2
    assert f"{folder} is in use by process {os.getpid()} on" in second.stderr
    assert "\n" not in second.stderr.strip()
    assert_same_end(end_of(folder), whole.end)


def test_killed_for_real_at_every_write(whole, tmp_path):
    """One folder: every process is killed one write later than the last one."""
    folder = tmp_path / "run"
    endings = (": half", ": written", ": renamed", ": before")
    names = dict.fromkeys(p.rsplit(":", 1)[0] for p in whole.points if p.startswith("file"))
    points = [name + endings[i % 4] for i, name in enumerate(names) if "training" not in name]
    points.insert(
        next(i for i, p in enumerate(points) if "001/state" in p), "ledger add: committed"
    )
    for point in points:
        assert _killed(folder, point) == -signal.SIGKILL, point
    assert_resumes(folder, whole)


def test_killed_for_real(whole, tmp_path):
    folder = tmp_path / "run"
    assert _killed(folder, "ledger add: uncommitted") == -signal.SIGKILL
    assert_resumes(folder, whole)


def test_killed_for_real_at_random_moments(whole, tmp_path):
    def start(folder: Path) -> subprocess.Popen:
        process = subprocess.Popen(_command(folder, "never"), env=_environment())
        while process.poll() is None and not (folder / "run.yaml").exists():
            time.sleep(0.002)
        return process

    process, began = start(tmp_path / "timed"), time.monotonic()
    assert process.wait() == 0
    length = time.monotonic() - began
    moments = [random.Random(number).uniform(0.0, length) for number in range(20)]
    killed = 0
    for number, moment in enumerate(moments):
        folder = tmp_path / f"{number}"
        process = start(folder)
        time.sleep(moment)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert_resumes(folder, whole)
    assert killed >= 15


def test_a_small_disk_that_grows(whole, tmp_path):
    folder, size = tmp_path / "disk", 80
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "alj", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    full = 0
    try:
        while True:
            kept = recorded(folder / "run")
            try:
                crash_points.run(folder / "run")
                break
            except DiskFull:
                assert kept <= recorded(folder / "run")
                full, size = full + 1, size + 8
                remount = ["mount", "-o", f"remount,size={size}k", str(folder)]
                subprocess.run(remount, check=True)
        assert full > 3
        assert_same_end(end_of(folder / "run"), whole.end)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _killed(folder: Path, point: str) -> int:
    return subprocess.run(_command(folder, point), env=_environment()).returncode


def _command(folder: Path, point: str) -> list[str]:
    return [sys.executable, "-m", "campaign.crash_points", str(folder), point]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    }


def _python(code: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=_environment(), capture_output=True, text=True)


def _written(config: dict, folder: Path) -> str:
    """A configuration as a file."""
    path = folder / "config.yaml"
    with path.open("w") as file:
        ruamel.yaml.YAML(typ="safe").dump(config, file)
    return str(path)
