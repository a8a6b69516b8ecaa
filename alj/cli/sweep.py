"""`alj sweep`: many settings of one configuration, and a table of what came of them."""

from pathlib import Path

import click

from alj.cli.environment import prepare


def sweep(config: str, out: str | None, quiet: bool, *, dry: bool, again: bool) -> int:
    """Try, or go on trying; 0, or 3 where a trial failed."""
    from alj.cli.runs import run_folder

    folder = run_folder(config, out)
    prepare()
    from alj.campaign.store import FolderStore, claim
    from alj.campaign.sweep import make_sweep, run_sweep, summary

    found = make_sweep(config)
    count = len(found.grid) or found.config["search"]["trials"]
    if not quiet or dry:
        seeds = len(found.config["seeds"])
        click.echo(
            f"{config}: {count} settings with {seeds} seed{'s' * (seeds > 1)} each", err=True
        )
    if dry:
        return 0

    def told(row) -> None:
        if not quiet:
            what = row.reason or f"{found.config['objective']} {row.value:.5g}"
            click.echo(
                f"trial {row.number}, seed {row.seed}: {_said(row.parameters)}: {what}", err=True
            )

    with FolderStore(folder):
        claim(folder, found.config, extendable=("seeds", "grid", "search", "executor"))
        rows = run_sweep(found, folder, told, again=again)
    for line in lines(summary(rows, found.config["direction"]), found.config["objective"]):
        click.echo(line)
    click.echo(f"next: see {Path(folder) / 'trials.csv'}")
    return 3 if any(row.reason for row in rows) else 0


def lines(settings: list, objective: str) -> list[str]:
    """The settings, best first, as aligned columns."""
    names = list(dict.fromkeys(name for one in settings for name in one[0]))
    rows: list[tuple[str, ...]] = [(*names, objective, "± (seeds)", "failed")]
    for parameters, mean, spread, failed in settings:
        cells = [str(parameters.get(name, "–")) for name in names]
        rows.append((*cells, *("–" if v != v else f"{v:.5g}" for v in (mean, spread)), str(failed)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]


def _said(parameters: dict) -> str:
    return ", ".join(f"{key}={value}" for key, value in parameters.items())
