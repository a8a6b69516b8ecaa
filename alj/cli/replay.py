"""`alj replay`: learning curves of selectors on a pool that is labeled already."""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alj.cli.environment import cores, prepare

LINE_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""


def replay(config: str, out: str | None, overrides: Sequence[str], quiet: bool) -> int:
    """Follow every path, or go on; 0 done."""
    from alj.campaign import config as configuration
    from alj.campaign.replay import KEYS, make_plan
    from alj.cli.runs import run_folder

    loaded = configuration.read(config)
    for override in overrides:
        loaded = configuration.override_one(loaded, override, KEYS)
    folder = run_folder(config, out)
    prepare()
    plan = make_plan(loaded)
    if not quiet:
        for note in plan.notes:
            click.echo(note, err=True)
    return follow_all(loaded, plan, folder, quiet)


def follow_all(loaded: Mapping[str, Any], plan, folder: Path, quiet: bool) -> int:
    """All paths, as many at once as there are cores; then tables and figures."""
    from alj.campaign.replay import resolve, rounds_of
    from alj.campaign.replay_results import lines, write
    from alj.campaign.store import FolderStore, claim

    with FolderStore(folder):
        claim(folder, plan.config, extendable=("seeds", "selectors"), resolve=resolve)
        paths = [(name, seed) for seed in plan.seeds for name in plan.selectors]
        total = len(paths) * len(rounds_of(plan.settings))
        # Each path in a process of its own: what the one before has compiled is of no use to it.
        settings = {"mp_context": multiprocessing.get_context("spawn"), "max_tasks_per_child": 1}
        with (
            ProcessPoolExecutor(min(workers(), len(paths)), **settings) as pool,
            RoundBar(folder / "paths", total, quiet=quiet) as bar,
        ):
            running = {
                path: pool.submit(_followed, dict(loaded), *path, str(folder)) for path in paths
            }
            while wait(running.values(), timeout=1.0).not_done:
                bar.look()
        reports = reports_of(plan, folder)
        if reports:
            write(plan, folder, reports)
        # A path that fails does not keep the others from ending, nor from being shown.
        for done in running.values():
            done.result()
    if not quiet:
        for line in lines(plan, reports):
            click.echo(line)
        click.echo(f"see the figures and tables in {folder}")
    return 0


def _followed(loaded: dict, name: str, seed: int, folder: str) -> list[dict]:
    """One path in a process of its own."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    prepare()
    from alj.campaign.replay import follow, make_plan
    from alj.campaign.store import FolderStore

    plan = make_plan(loaded)
    with FolderStore(Path(folder) / "paths" / f"{name}-{seed}") as store:
        return follow(plan, name, seed, store)


def workers() -> int:
    """Paths at once: one for each core; one where a GPU does the work, which they would share."""
    on_cpu = os.environ.get("JAX_PLATFORMS", "") == "cpu" or not Path("/dev/nvidiactl").exists()
    return cores() if on_cpu else 1


def reports_of(plan, folder: Path) -> dict[str, dict[int, list[dict]]]:
    """What is remembered of a replay; selectors without a finished path are left out."""
    from alj.campaign.replay import rounds_of
    from alj.campaign.store import FolderStore

    names = [f"round-{index:03d}" for index in range(len(rounds_of(plan.settings)))]
    found: dict[str, dict[int, list[dict]]] = {}
    for name in plan.selectors:
        for seed in plan.seeds:
            path = folder / "paths" / f"{name}-{seed}"
            if not path.is_dir():
                continue
            with FolderStore(path) as store:
                if all(store.knows(each) for each in names):
                    found.setdefault(name, {})[seed] = [store.recall(each) for each in names]
    return found


class RoundBar:
    """How many rounds of all paths are done, read from their folders; on standard error."""

    def __init__(self, folder: Path, total: int, *, quiet: bool):
        self.folder, self.total, self.quiet = folder, total, quiet
        self.console, self.bar = Console(stderr=True, highlight=False), None
        self.told, self.began = time.monotonic(), time.monotonic()

    def __enter__(self) -> "RoundBar":
        if sys.stderr.isatty() and not self.quiet:
            columns = (TextColumn("rounds of all paths"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total)
        return self

    def __exit__(self, *_) -> None:
        self.look(last=True)
        if self.bar is not None:
            self.bar.stop()

    def look(self, *, last: bool = False) -> None:
        """Count the rounds that are remembered."""
        done = sum(1 for _ in self.folder.glob("*/round-*.tree"))
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
        elif not self.quiet and (last or time.monotonic() - self.told > LINE_SECONDS):
            self.told = time.monotonic()
            self.console.print(f"{done} of {self.total} rounds, {self.told - self.began:.0f} s")
