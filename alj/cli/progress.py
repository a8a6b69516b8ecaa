"""The view of a run while it goes: a live panel on a terminal, plain lines everywhere else.

It reads the same events as the monitor. Time left is an estimate from the pace of the last rounds;
a stopping rule may end the run sooner.
"""

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alj.monitor.summary import Summary, duration, known_number, summary_of

BLOCKS = "▁▂▃▄▅▆▇█"


class View:
    """Shows events; use as a context manager. `view(event)` for each."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        self.console = console or Console(highlight=False)
        self.quiet = quiet
        self.events: list[dict] = []
        self.progress: dict = {}
        self.live: Live | None = None

    def __enter__(self) -> "View":
        if self.console.is_terminal and not self.quiet:
            self.live = Live(get_renderable=self._panel, console=self.console, refresh_per_second=4)
            self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.__exit__(kind, error, trace)
            self.live = None

    def __call__(self, event: dict) -> None:
        """Take in one event."""
        event = {"time": time.time(), **event}
        if event["event"] == "progress":
            self.progress = event
            return
        self.events.append(event)
        self.progress = {}
        if self.live is None and not self.quiet and (line := line_of(event, self._summary())):
            self.console.print(line, markup=False, soft_wrap=True)
            self.console.file.flush()

    def say(self, text: str) -> None:
        """A line of its own, above the panel where there is one."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def _summary(self) -> Summary:
        return summary_of(self.events)

    def _panel(self) -> RenderableType:
        return panel(self._summary(), self.progress, time.time())


def line_of(event: dict, summary: Summary) -> str:
    """An event as one plain line; empty for what is not worth one."""
    name, number = event["event"], event.get("round", 0)
    planned = f" of {summary.planned}" if summary.planned else ""
    if name == "campaign":
        how = f"resumed at round {number}" if event.get("resumed") else "started"
        return f"{event.get('run', 'run')}: {how}, at most {summary.planned} rounds"
    if name == "training":
        return f"{event.get('run', 'run')}: {'resumed' if event.get('resumed') else 'started'}"
    if name == "stage":
        return f"round {number}{planned}: {event.get('stage', '')}"
    if name == "round":
        left = f", about {duration(summary.remaining)} left" if summary.remaining else ""
        counts = f"{summary.labels} labels, {summary.kept} kept, {summary.failed} failed"
        spent = f"{duration(summary.seconds)} so far"
        return f"round {number}{planned} done: {counts}; {errors_of(summary)}; {spent}{left}"
    if name == "note":
        return str(event.get("text", ""))
    if name in ("finished", "paused"):
        return f"{name}: {event.get('reason', '')} ({duration(summary.seconds)})"
    return ""


def errors_of(summary: Summary) -> str:
    """The errors known so far, in meV/atom."""
    names = {
        "test_mae_meV_per_atom": "test MAE",
        "candidate_mae_meV_per_atom": "candidates MAE",
        "candidate_scatter_meV_per_atom": "scatter",
        "validation_rmse_meV_per_atom": "validation RMSE",
    }
    known = [f"{n} {summary.errors[k]:.3g}" for k, n in names.items() if k in summary.errors]
    return f"{', '.join(known)} meV/atom" if known else "no error known yet"


def panel(summary: Summary, progress: dict, now: float) -> RenderableType:
    """The live view of a run."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold")
    head.add_column()
    planned = f" of {max(summary.planned - 1, 0)}" if summary.planned else ""
    head.add_row("round", f"{summary.round}{planned} · {summary.stage or summary.state}")
    if progress:
        head.add_row("", _bar(progress))
    counts = f"{summary.labels} computed, {summary.kept} kept, {summary.failed} failed"
    head.add_row("labels", counts)
    head.add_row("error", errors_of(summary))
    course = _course(summary)
    if course:
        head.add_row("", course)
    elapsed = now - summary.started if summary.started else 0.0
    left = summary.remaining
    if left is not None:
        left = max(0.0, left - (now - summary.last))
    head.add_row("time", f"{duration(elapsed)} elapsed, {_left(left)}")
    parts: list[RenderableType] = [head]
    if summary.rounds:
        parts.append(_last_rounds(summary.rounds[-5:]))
    title = f"alj · {summary.labeler.replace('_', ' ')}" if summary.labeler else "alj"
    return Panel(Group(*parts), title=title, title_align="left", width=78, padding=(0, 1))


def sparkline(values: list[float]) -> str:
    """Heights of bars on a logarithmic scale.

    >>> sparkline([100.0, 10.0, 1.0])
    '█▄▁'
    """
    import math

    logs = [math.log(max(value, 1e-12)) for value in values]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    return "".join(BLOCKS[int((log - low) / span * (len(BLOCKS) - 1))] for log in logs)


def _bar(progress: dict) -> RenderableType:
    done, total = progress.get("done") or 0, progress.get("total")
    note = f"{progress.get('note') or progress.get('stage') or ''} {done}"
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=float(total), completed=float(done), width=30) if total else Text("")
    row.add_row(bar, Text(f"{note}/{total}" if total else note))
    return row


def _course(summary: Summary) -> str:
    for key, name in (("test_mae_meV_per_atom", "test"), ("candidate_mae_meV_per_atom", "candid.")):
        values = [e[key] for e in summary.rounds if known_number(e.get(key))]
        if len(values) > 1:
            return f"{sparkline(values[-40:])} {name} {values[0]:.3g} → {values[-1]:.3g} meV/atom"
    return ""


def _left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"


def _last_rounds(rounds: list[dict]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = {
        "round": "round",
        "labels": "labels",
        "kept": "kept",
        "candidate_mae_meV_per_atom": "candidates",
        "validation_rmse_meV_per_atom": "validation",
        "test_mae_meV_per_atom": "test",
    }
    for name in (*columns.values(), "time"):
        table.add_column(name, justify="right")
    for event in rounds:
        spent = sum(value or 0.0 for value in (event.get("seconds") or {}).values())
        table.add_row(*(_cell(event.get(key)) for key in columns), duration(spent))
    return table


def _cell(value) -> str:
    if not known_number(value):
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
