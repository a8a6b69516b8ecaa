"""`alj run`, `train`, `check` and `report`: what happens in run folders."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from alj.cli.environment import prepare
from alj.cli.progress import View
from alj.cli.stalls import StallWatch

DRAWING_SECONDS = 0.8
"""Time for figures after a round; the rest are drawn after the next ones, all at the end."""

MAPPING_SHARE = 0.05
"""Of the time of a run, at most so much goes into its map before the end."""


def run_campaign(config: str, out: str | None, overrides: Sequence[str], quiet: bool) -> int:
    """Run or resume a campaign; 0 done, 4 paused."""
    from alj.campaign import config as configuration

    loaded, folder = configuration.load(config, overrides), run_folder(config, out)
    prepare()
    from alj.campaign.loop import run_campaign

    return _watched(run_campaign, loaded, folder, quiet)


def train(config: str, out: str | None, overrides: Sequence[str], quiet: bool) -> int:
    """Train on given data; 0 done."""
    from alj.campaign import config as configuration

    loaded, folder = configuration.load(config, overrides), run_folder(config, out)
    prepare()
    from alj.campaign.supervised import run_training

    return _watched(run_training, loaded, folder, quiet)


def check(config: str, overrides: Sequence[str]) -> int:
    """Build everything and forecast; 0 where all is well."""
    from alj.campaign import config as configuration

    loaded = configuration.load(config, overrides)
    prepare()
    from alj.campaign.loop import check

    for line in check(loaded):
        click.echo(line)
    click.echo(f"{config}: ready to run")
    return 0


def report(run: str) -> int:
    """Write map and report and say where the report is."""
    if (Path(run) / "model").is_dir() and (Path(run) / "run.yaml").exists():
        prepare()
        from alj.campaign.mapping import write_map

        try:
            write_map(run)
        except (OSError, ValueError) as error:
            click.echo(f"no map of the data: {error}", err=True)
    from alj.monitor.pages import write_report

    click.echo(write_report(run))
    return 0


def run_folder(config: str, out: str | None) -> Path:
    """The run folder of a configuration: `out`, or `runs/<stem>` in the current folder."""
    return Path(out) if out is not None else Path("runs") / Path(config).stem


def _watched(act: Callable, config: dict, folder: Path, quiet: bool) -> int:
    """`act(config, folder, on_event)` with a view of its progress and a report that follows it."""
    with View(quiet=quiet) as view, StallWatch(view.say) as watch:
        began, mapping = time.monotonic(), 0.0

        def on_event(event: dict) -> None:
            nonlocal mapping
            view(event)
            watch.event(event)
            if event["event"] in ("round", "finished", "paused"):
                last, now = event["event"] != "round", time.monotonic()
                if last or mapping <= MAPPING_SHARE * (now - began):
                    _map(folder, last, view)
                    mapping += time.monotonic() - now
                _report(folder, None if last else DRAWING_SECONDS, view)

        outcome = act(config, folder, on_event)
    if not quiet:
        click.echo(f"{outcome.reason}; see {folder / 'report.html'}")
    return outcome.exit_code


def _map(folder: Path, last: bool, view: View) -> None:
    """A map that cannot be drawn must not end a run that can go on."""
    from alj.campaign.mapping import write_map

    try:
        write_map(folder, landmarks=last)
    except OSError:
        raise
    except Exception as error:
        view.say(f"the map of the data could not be drawn ({type(error).__name__}: {error})")


def _report(folder: Path, seconds: float | None, view: View) -> None:
    """A report that cannot be drawn must not end a run that can go on."""
    from alj.monitor.pages import write_report

    try:
        write_report(folder, seconds=seconds)
    except OSError:
        raise
    except Exception as error:
        view.say(f"the report could not be written ({type(error).__name__}: {error})")
