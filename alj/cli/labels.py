"""`alj label`: structures in, labels out, by any engine and on any machine."""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from alj.cli.environment import prepare
from alj.registry import suggest
from alj.types import FAILURE_KINDS, BadInput

if TYPE_CHECKING:
    from alj.campaign.labels import Progress as LabelProgress

LINE_SECONDS = 10.0
"""Between two lines about labels where there is no terminal."""


class LabelOptions(NamedTuple):
    """The options of `alj label`, as they were given."""

    labeler: str | None
    executor: str | None
    config: str | None
    settings: Sequence[str]
    again: Sequence[str]
    mixed: bool
    isolated_atoms: bool
    quiet: bool


def label(data: str, out: str, options: LabelOptions) -> int:
    """Label a file; 0 where all structures have labels, 3 where some have none."""
    sections = _sections(options)
    for kind in options.again:
        if kind not in FAILURE_KINDS:
            raise BadInput(f"--again: unknown kind '{kind}'{suggest(kind, FAILURE_KINDS)}")
    prepare()
    from alj import registry
    from alj.campaign.executors import EXECUTORS, default_executor
    from alj.campaign.label_file import label_file
    from alj.labeling import build_labeler

    built = build_labeler(sections["labeler"])
    chosen = sections.get("executor") or default_executor(built)
    executor = registry.build(EXECUTORS, chosen, where="executor")
    with contextlib.closing(executor), LabelBar(quiet=options.quiet) as bar:
        found = label_file(
            data, out, built, executor, bar.labels, bar.say,
            again=options.again, mixed=options.mixed, isolated=options.isolated_atoms,
        )  # fmt: skip
    for place, failure in found.failures.items():
        click.echo(f"{data}: structure {place} (counting from 0): {failure}", err=True)
    good = found.count - len(found.failures)
    kinds = Counter(failure.kind for failure in found.failures.values())
    failed = "".join(f", {number} {kind}" for kind, number in sorted(kinds.items()))
    if not options.quiet:
        click.echo(f"{out}: {good} of {found.count} structures labeled by {built.name}{failed}")
        if found.failures:
            click.echo(f"reasons and logs: alj status {out}.work --failures", err=True)
    return 3 if found.failures else 0


def relabel(run: str, kinds: Sequence[str], overrides: Sequence[str], quiet: bool) -> int:
    """Try failed labels again; 0 where all came out, 3 where some failed again."""
    prepare()
    from alj.campaign.relabel import relabel

    with LabelBar(quiet=quiet) as bar:
        found = relabel(run, kinds, overrides, bar.labels, bar.say)
    if not quiet:
        again = "".join(f", {number} {kind}" for kind, number in found.failures.items())
        click.echo(f"{run}: {found.labeled} of {found.tried} failed labels came out now{again}")
        if found.labeled:
            click.echo(
                "they join the data of the next round: alj run, with more `rounds` if need be"
            )
    return 3 if found.failures else 0


def _sections(options: LabelOptions) -> dict[str, Any]:
    """The sections `labeler` and `executor` of a configuration, or made from the options."""
    from alj.campaign import config as configuration

    found: dict[str, Any] = {}
    if options.config is not None:
        loaded = configuration.load(options.config)
        found = {name: loaded[name] for name in ("labeler", "executor") if name in loaded}
    for name, given in (("labeler", options.labeler), ("executor", options.executor)):
        if given is not None:
            found[name] = {"name": given}
    if not found.get("labeler"):
        raise BadInput("expected --labeler NAME, or --config FILE with a section `labeler`")
    for setting in options.settings:
        path = setting if setting.startswith(("labeler.", "executor.")) else f"labeler.{setting}"
        section = path.partition(".")[0]
        found.setdefault(section, {"name": "local"})  # only an executor can be missing here
        if isinstance(found.get(section), str):
            found[section] = {"name": found[section]}
        found = configuration.override_one(found, path)
    if not isinstance(found["labeler"], dict):
        raise BadInput("--set: expected KEY=VALUE with a setting of the labeler")
    return found


class LabelBar:
    """Progress of labels: a bar on a terminal, a line now and then elsewhere; on standard error."""

    def __init__(self, *, quiet: bool = False):
        self.console, self.quiet = Console(stderr=True, highlight=False), quiet
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.told = 0.0

    def __enter__(self) -> "LabelBar":
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("labels"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TextColumn("{task.description}"), console=self.console)
            self.bar.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.bar is not None:
            self.bar.stop()

    def labels(self, progress: "LabelProgress") -> None:
        """Take in how far the labels are."""
        now = time.monotonic()
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task("", total=progress.total)
            self.bar.update(self.task, completed=progress.done, description=progress.note)
        elif progress.done == progress.total or now - self.told > LINE_SECONDS:
            self.told = now
            self.say(f"{progress.done} of {progress.total} labeled, {progress.note}")

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)
