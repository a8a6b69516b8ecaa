"""`alj compare`: campaigns beside each other, as tables, figures and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click


class CompareOptions(NamedTuple):
    """The options of the command."""

    out: str
    quantity: str | None
    target: float | None
    by: tuple[str, ...]
    quiet: bool


def compare(runs: Sequence[str], options: CompareOptions) -> int:
    """Compare, write, and print the tables."""
    from alj.campaign import compare as comparing
    from alj.monitor.comparison import write_page

    read = [comparing.read_run(run) for run in dict.fromkeys(str(Path(run)) for run in runs)]
    found = comparing.compare(read, quantity=options.quantity, target=options.target, by=options.by)
    comparing.write(found, options.out)
    page = write_page(found, [Path(run) for run in runs], Path(options.out))
    if not options.quiet:
        for line in lines(found):
            click.echo(line)
    click.echo(page)
    return 0


def lines(found) -> list[str]:
    """Labels to the target, and cost, as text."""
    from alj.campaign import compare as comparing

    quantity = comparing.QUANTITIES[found.quantity]
    needed = [["strategy", "seeds", "labels", "band", "saved", ""]]
    for row in comparing.needed_rows(found):
        known = row["labels"] == row["labels"]
        band = f"{row['low']:.0f}–{row['high']:.0f}" if known and row["seeds"] > 1 else "–"
        saved = f"{100 * row['saved']:+.0f} %" if known and row["saved"] == row["saved"] else "–"
        labels = f"{row['labels']:.0f}" if known else "–"
        needed.append([row["strategy"], str(row["seeds"]), labels, band, saved, row["verdict"]])
    cost = [["run", "labels", "failed", "seconds"]]
    for row in comparing.cost_rows(found):
        cost.append([row["run"], str(row["labels"]), str(row["failed"]), f"{row['seconds']:.0f}"])
    return [f"labels to {quantity} {found.target:.4g}", *_aligned(needed), "", *_aligned(cost)]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
