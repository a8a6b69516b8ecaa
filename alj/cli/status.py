"""`alj status`: how far a run is, from its files alone and without JAX."""

import json
from pathlib import Path

import click

from alj.monitor.summary import Summary, duration, summarize


def status(run: str, failures: bool, as_json: bool) -> int:
    """Print the state of a run, or of a folder's lack of one (exit code 2)."""
    folder = Path(run)
    if not folder.is_dir():
        raise click.ClickException(f"{folder}: no such run folder; `alj run` makes them in runs/")
    if not (folder / "events.jsonl").exists() and not (folder / "run.yaml").exists():
        raise click.ClickException(f"{folder}: expected a run folder (with run.yaml), found none")
    summary = summarize(folder)
    if as_json:
        kept = {k: v for k, v in summary._asdict().items() if k != "rounds"}
        click.echo(json.dumps(kept, indent=1))
        return 0
    for name, value in lines(summary, folder):
        click.echo(f"{name + ':':12}{value}")
    if failures:
        for row in _failures(folder):
            click.echo(f"{row['hash'][:12]}  {row['kind']}: {row['message']}")
    return 0


def lines(summary: Summary, folder: Path) -> list[tuple[str, str]]:
    """Name and value of each line."""
    from alj.cli.progress import errors_of

    reason = f" ({summary.reason})" if summary.reason else ""
    found = [("run", str(folder)), ("state", summary.state + reason)]
    planned = f" of at most {summary.planned}" if summary.planned else ""
    stage = f", stage {summary.stage}" if summary.stage else ""
    if summary.rounds or summary.stage:
        done = f"; {len(summary.rounds)} done{planned}"
        found.append(("round", f"{summary.round}{stage}{done}"))
    counts = f"{summary.labels} computed, {summary.kept} kept, {summary.failed} failed"
    found.append(("labels", counts))
    if summary.failures:
        kinds = ", ".join(f"{number} {kind}" for kind, number in summary.failures.items())
        found.append(("failures", f"{kinds} (--failures lists them)"))
    found.append(("errors", errors_of(summary)))
    left = f", about {duration(summary.remaining)} left" if summary.remaining else ""
    found.append(("time", f"{duration(summary.seconds)}{left}"))
    found.append(("next", _next(summary, folder)))
    return found


def _next(summary: Summary, folder: Path) -> str:
    resume = "run the same `alj run` command again: it goes on from here"
    if summary.state == "finished":
        return f"alj report {folder}; alj evaluate {folder} DATA.extxyz"
    if summary.state == "running":
        return "wait; `alj report` shows what there is so far"
    if summary.state == "paused":
        return f"remove the cause (or raise the budget in `stop`), then {resume}"
    return resume


def _failures(folder: Path) -> list[dict]:
    from alj.campaign.ledger import Ledger

    with Ledger(folder, read_only=True) as ledger:
        return ledger.failures()
