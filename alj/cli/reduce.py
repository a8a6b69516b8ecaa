"""`alj reduce`: a set without what it can do without."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alj.cli.environment import prepare
from alj.types import BadInput

LINE_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""

DEFAULT_SHARE = 0.1


class ReduceOptions(NamedTuple):
    """The options of `alj reduce`, as they were given."""

    share: float | None
    count: int | None
    distance: float | None
    closest_fraction: float
    settings: Sequence[str]
    seed: int
    quiet: bool


def reduce(pool: str, out: str, options: ReduceOptions) -> int:
    """Reduce a set by its spectra, or a labeled one by the networks of a configuration."""
    if Path(pool).suffix in (".yaml", ".yml"):
        return _by_networks(pool, out, options)
    from alj.campaign import config as configuration

    sections: dict[str, Any] = {"esoinn": {}}
    for setting in options.settings:
        sections = configuration.override_one(sections, f"esoinn.{setting}", ("esoinn",))
    prepare()
    from alj.campaign.reducing import Request, reduce

    share = options.share
    if options.count is None and options.distance is None and share is None:
        share = DEFAULT_SHARE
    request = Request(
        pool, out, options.count, share, options.distance or 0.0, sections["esoinn"],
        options.closest_fraction, options.seed,
    )  # fmt: skip
    with StageBar(quiet=options.quiet) as bar:
        found = reduce(request, bar.stage, bar.say)
    if not options.quiet:
        about, stem = found.report, Path(out).with_suffix("")
        aside = f", {about['set_aside']} set aside" if about["set_aside"] else ""
        click.echo(
            f"{out}: {about['kept']} of {about['structures']} structures kept "
            f"({100 * about['kept_share']:.2g} %{aside}); {about['classes']} classes, "
            f"{about['nodes']} nodes; the farthest dropped lies {about['farthest_dropped']:.3g} "
            "scales from what was kept of its node"
        )
        click.echo(f"see {stem}.png, {stem}.classes.csv, {stem}.json")
    return 0


def _by_networks(config: str, out: str, options: ReduceOptions) -> int:
    """The loop of a configuration."""
    given = (options.share, options.count, options.distance)
    if any(one is not None for one in given):
        raise BadInput(
            f"--share, --count and --distance are for sets; {config} is a configuration, whose "
            "section `reduce` says when to stop"
        )
    from alj.campaign import config as configuration
    from alj.campaign.covering import KEYS

    loaded = configuration.read(config)
    for override in options.settings:
        loaded = configuration.override_one(loaded, override, KEYS)
    prepare()
    from alj.campaign.covering import cover, lines, make_plan

    plan = make_plan(loaded)
    with StageBar(quiet=options.quiet) as bar:
        for note in plan.notes:
            bar.say(note)
        found = cover(plan, out, bar.stage, bar.say)
    if not options.quiet:
        for line in lines(found.rows):
            click.echo(line)
        click.echo(f"{found.reason}; kept structures: {found.kept}")
    return 0


class StageBar:
    """How far the stages are: a bar, or a line now and then; on standard error."""

    def __init__(self, *, quiet: bool = False):
        self.console, self.quiet = Console(stderr=True, highlight=False), quiet
        self.bar: Progress | None = None
        self.told, self.now = time.monotonic(), ""

    def __enter__(self) -> "StageBar":
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.stop()

    def stage(self, name: str, done: int, total: int | None) -> None:
        """So much of a stage is done."""
        if self.bar is not None:
            if name != self.now:
                self.task = self.bar.add_task(name, total=total)
            self.bar.update(self.task, completed=done, total=total)
        elif not self.quiet and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            self.say(f"{name}: {done}" + (f" of {total}" if total else ""))
        self.now = name

    def say(self, text: str) -> None:
        """One line above the bar."""
        if not self.quiet:
            self.console.print(text)
