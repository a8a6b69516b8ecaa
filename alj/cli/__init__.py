"""The command line. `alj --help` answers at once: JAX and all the rest are imported by a command.

Exit codes: 0 done, 1 a bug, 2 bad input or a folder in use, 3 some labels failed (`alj label`),
4 paused (budget or disk), 130 interrupted.
"""

import re
import sys
from collections.abc import Sequence

import click

KINDS = ("potential", "sampler", "trainer", "selector", "labeler")
_CONFIG = click.argument("config", type=click.Path())
_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override one value of the configuration, such as sampler.0.temperature_K=500.",
)
_OUT = click.option(
    "--out", type=click.Path(), default=None, help="Run folder [default: runs/<config stem>]."
)
_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress, errors only.")


def main() -> None:
    """The entry point."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever the user got wrong is one line."""
    try:
        code = group.main(list(arguments), prog_name="alj", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return _interrupted()
    except click.ClickException as error:
        return _failed(error.format_message(), _config_of(arguments))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _failed(_of_the_system(error), None, 4 if _is_full(error) else 2)
    except ValueError as error:
        if type(error).__name__ != "BadInput":
            raise
        return _failed(str(error), _config_of(arguments))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alj", prog_name="alj")
def group() -> None:
    """Active learning of interatomic potentials."""


@group.command()
@_CONFIG
@_OUT
@_SET
@_QUIET
def run(config: str, out: str | None, overrides: tuple[str, ...], quiet: bool) -> int:
    """Run the campaign of CONFIG, or resume it: running again goes on where it stopped."""
    from alj.cli.runs import run_campaign

    return run_campaign(config, out, overrides, quiet)


@group.command()
@_CONFIG
@_OUT
@_SET
@_QUIET
def train(config: str, out: str | None, overrides: tuple[str, ...], quiet: bool) -> int:
    """Train on the labeled structures named in CONFIG, without a campaign."""
    from alj.cli.runs import train

    return train(config, out, overrides, quiet)


@group.command()
@_CONFIG
@_SET
def check(config: str, overrides: tuple[str, ...]) -> int:
    """Build all of CONFIG, label one structure, and forecast memory and cost."""
    from alj.cli.runs import check

    return check(config, overrides)


@group.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
def show(kind: str | None, name: str | None) -> int:
    """List what can be configured: all kinds, the names of a KIND, the settings of a NAME."""
    from alj.cli.catalog import show

    return show(kind, name)


@group.command()
@click.argument("kind")
def schema(kind: str) -> int:
    """Print the JSON schema of a KIND's configuration."""
    from alj.cli.catalog import schema

    return schema(kind)


@group.command()
@click.argument("run", type=click.Path())
@click.option("--failures", is_flag=True, help="List the labels that failed, with reasons.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(run: str, failures: bool, as_json: bool) -> int:
    """Say how far the run in folder RUN is."""
    from alj.cli.status import status

    return status(run, failures, as_json)


@group.command()
@click.argument("run", type=click.Path())
def report(run: str) -> int:
    """Write the figures and report.html of the run in folder RUN, finished or not."""
    from alj.cli.runs import report

    return report(run)


@group.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--json", "json_file", type=click.Path(), help="Write the errors to this file.")
def evaluate(model: str, data: str, json_file: str | None) -> int:
    """Errors of MODEL (a run folder or its model folder) on the labeled structures in DATA."""
    from alj.cli.files import evaluate

    return evaluate(model, data, json_file)


@group.command()
@click.argument("data", type=click.Path())
@click.option("--labeler", required=True, help="Name of the labeler, see `alj show labeler`.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Labeler setting.")
@click.option("--out", required=True, type=click.Path(), help="Labeled structures, extxyz.")
@_QUIET
def label(data: str, labeler: str, settings: tuple[str, ...], out: str, quiet: bool) -> int:
    """Label the structures in DATA. Their order is kept, and an interrupted run resumes.

    A structure that cannot be labeled carries label_failure=KIND and no labels (exit code 3).
    """
    from alj.cli.files import label

    return label(data, labeler, settings, out, quiet)


def _failed(message: str, config: str | None, code: int = 2) -> int:
    text = " ".join(message.split())
    place = _line_in(config, text)
    click.echo(f"alj: error: {place}{text}", err=True)
    return code


def _interrupted() -> int:
    click.echo("alj: interrupted; nothing is lost: run the same command again to resume", err=True)
    return 130


def _config_of(arguments: Sequence[str]) -> str | None:
    """The configuration file among the arguments of `run`, `train` and `check`."""
    if not arguments or arguments[0] not in ("run", "train", "check"):
        return None
    return next((a for a in arguments[1:] if a.endswith((".yaml", ".yml"))), None)


def _line_in(config: str | None, message: str) -> str:
    """`file:line: ` where the message begins with the path of a key that stands in the file."""
    found = re.match(r"([a-z]+(?:\[\d+\]|\.\w+)*): ", message)
    if config is None or found is None:
        return ""
    from alj.campaign.config import KEYS, locate

    where = found.group(1)
    if re.split(r"[.\[]", where)[0] not in KEYS:
        return ""
    line = locate(config, where)
    return f"{config}:{line}: " if line else ""


def _of_the_system(error: OSError) -> str:
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return error.strerror or str(error)


def _is_full(error: OSError) -> bool:
    import errno

    return error.errno in (errno.ENOSPC, errno.EDQUOT)
