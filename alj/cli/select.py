"""`alj select`: structures of a pool that are worth a label, for a model that is there already."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alj.cli.environment import prepare

LINE_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


class SelectOptions(NamedTuple):
    """The options of `alj select`, as they were given."""

    selector: str
    count: int
    train: str | None
    settings: Sequence[str]
    seed: int
    scores: str | None
    quiet: bool


def select(model: str, pool: str, out: str, options: SelectOptions) -> int:
    """Choose, write, and say what was chosen; 0, or 3 where fewer than asked for qualified."""
    from alj.campaign import config as configuration

    sections: dict[str, Any] = {"selector": {"name": options.selector}}
    for setting in options.settings:
        sections = configuration.override_one(sections, f"selector.{setting}")
    prepare()
    from alj.campaign.choosing import Request, select

    request = Request(
        model, pool, sections["selector"], options.count, out, options.train, options.scores,
        options.seed,
    )  # fmt: skip
    with PoolBar(quiet=options.quiet) as bar:
        found = select(request, bar.structures, bar.say)
    if not options.quiet:
        told = "".join(f", {name} {value:.4g}" for name, value in found.report.items())
        click.echo(
            f"{out}: {len(found.places)} of {found.pool} structures chosen by "
            f"{options.selector}{told}"
        )
        click.echo(f"next: alj label {out} --labeler NAME --out LABELED.extxyz")
    if len(found.places) < options.count:
        click.echo(
            f"alj: asked for {options.count} structures, {len(found.places)} qualified", err=True
        )
        return 3
    return 0


class PoolBar:
    """How much of the pool has been looked at: a bar, or a line now and then; on standard error."""

    def __init__(self, *, quiet: bool = False):
        self.console, self.quiet = Console(stderr=True, highlight=False), quiet
        self.bar: Progress | None = None
        self.told = time.monotonic()

    def __enter__(self) -> "PoolBar":
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("structures", total=None)
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.stop()

    def structures(self, done: int, total: int) -> None:
        """So many structures of the pool have been looked at."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)
        elif not self.quiet and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            self.say(f"{done} of {total} structures")

    def say(self, text: str) -> None:
        """One line above the bar."""
        if not self.quiet:
            self.console.print(text)
