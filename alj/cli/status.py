"""`alj status`: how far a run is, from its files alone and without JAX."""

import json
from pathlib import Path

import click

from alj.monitor.summary import Summary, duration, summarize

TAIL_LINES = 8
"""Lines of an engine's log that are shown; --json has all that was kept."""


def status(run: str, failures: bool, as_json: bool) -> int:
    """Print the state of a run, or of a folder's lack of one (exit code 2)."""
    folder = Path(run)
    if not folder.is_dir():
        raise click.ClickException(f"{folder}: no such run folder; `alj run` makes them in runs/")
    if not any((folder / name).exists() for name in ("events.jsonl", "run.yaml", "ledger.sqlite")):
        raise click.ClickException(f"{folder}: expected a run folder (with run.yaml), found none")
    rows = _failures(folder) if failures else []
    if not (folder / "run.yaml").exists() and not (folder / "events.jsonl").exists():
        return _labels_status(folder, rows, as_json)
    summary = summarize(folder)
    if as_json:
        told = {k: v for k, v in summary._asdict().items() if k != "rounds"}
        click.echo(json.dumps({**told, "quarantine": rows} if failures else told, indent=1))
        return 0
    for name, value in lines(summary, folder):
        click.echo(f"{name + ':':12}{value}")
    _list(rows)
    if failures and not rows:
        click.echo("no failed labels")
    elif rows and (folder / "run.yaml").exists():
        click.echo(
            f"\ntry them again: alj relabel {folder} [--kind KIND] [--set labeler.KEY=VALUE]"
        )
    return 0


def _list(rows: list[dict]) -> None:
    """The quarantine, with the last lines of each log."""
    for row in rows:
        click.echo(f"\n{row['hash'][:12]}  {row['formula']}  {row['kind']}: {row['message']}")
        tries = f"{row['attempts']} attempt{'s' if row['attempts'] > 1 else ''}"
        click.echo(f"    {row['engine']} on {row['host']}, {row['seconds']:.3g} s, {tries}")
        for line in row["log_tail"].strip().splitlines()[-TAIL_LINES:]:
            click.echo(f"    | {line}")


def _labels_status(folder: Path, rows: list[dict], as_json: bool) -> int:
    """The state of what `alj label` has left: its work folder."""
    from alj.campaign.ledger import Ledger

    with Ledger(folder, read_only=True) as ledger:
        counts = ledger.counts()
    if as_json:
        click.echo(json.dumps({**counts, "quarantine": rows}, indent=1))
        return 0
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts["failures"].items())
    click.echo(f"labels:     {counts['labeled']} computed, {counts['failed']} failed ({kinds})")
    click.echo("next:       the same `alj label` command again; --again KIND retries failures")
    _list(rows)
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
    """The quarantine: what failed, why, and the tail of its log; structures as formulas."""
    import ase

    from alj.campaign.ledger import Ledger

    with Ledger(folder, read_only=True) as ledger:
        found = ledger.failures()
    return [
        {
            **{name: value for name, value in row.items() if name != "structure"},
            "log_tail": row["log_tail"] or "",
            "formula": str(ase.Atoms(row["structure"].species).get_chemical_formula()),
        }
        for row in found
    ]
