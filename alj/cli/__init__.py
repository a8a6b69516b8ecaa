"""The command line. `alj --help` answers at once: JAX and all the rest are imported by a command.

Exit codes: 0 done, 1 a bug, 2 bad input or a folder in use, 3 some labels or self-tests failed or
walks froze, 4 paused (budget or disk), 130 interrupted.
"""

import os
import re
import sys
from collections.abc import Sequence

import click

from alj.cli.use import COMMANDS

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
    """The entry point. Modules in the working directory can be named in a configuration."""
    sys.path.append(os.getcwd())
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
@_OUT
@_SET
@_QUIET
def replay(config: str, out: str | None, overrides: tuple[str, ...], quiet: bool) -> int:
    """Replay active learning of CONFIG on a labeled pool: learning curves of several selectors."""
    from alj.cli.replay import replay

    return replay(config, out, overrides, quiet)


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
@click.argument("folder", type=click.Path())
@click.option("--host", default="127.0.0.1", help="Address to serve on; any other demands a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="0: any that is free.")
@click.option("--token", help="What visitors must know [default: made up, where one is needed].")
@click.option("--name", "names", multiple=True, help="Further host name to answer to; repeatable.")
def monitor(folder: str, **options) -> int:
    """Show the run in FOLDER, or all runs below it, in a browser; live, and without writing.

    \b
    alj monitor runs                                   # then open the address that it prints
    ssh -L 8765:127.0.0.1:8765 cluster alj monitor runs   # the same, from a cluster
    """
    from alj.cli.monitor import MonitorOptions, monitor

    return monitor(folder, MonitorOptions(**options))


@group.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--out", default="comparison", type=click.Path(), help="Folder of what is written.")
@click.option("--quantity", help="Error to compare [default: the first that all runs have].")
@click.option("--target", type=float, help="Error to reach [default: what all of them reach].")
@click.option("--by", multiple=True, metavar="KEY", help="Settings that tell strategies apart.")
@_QUIET
def compare(runs: tuple[str, ...], **options) -> int:
    """Compare RUNS: errors against labels with bands over seeds, labels to a target, cost.

    Runs whose configurations differ in the seed only are one strategy. Writes PNG, CSV and HTML.

    \b
    alj compare runs/random-* runs/d_optimal-* --out comparison
    """
    from alj.cli.compare import CompareOptions, compare

    return compare(runs, CompareOptions(**options))


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
@click.option("--labeler", help="Name of the labeler, see `alj show labeler`.")
@click.option("--executor", help="Where to compute [default: local, or inline for potentials].")
@click.option("--config", type=click.Path(), help="Take labeler and executor from this file.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Setting of the labeler, or executor.KEY=VALUE.",
)
@click.option("--again", multiple=True, metavar="KIND", help="Try failures of this kind again.")
@click.option("--isolated-atoms", is_flag=True, help="Also label each element as a free atom.")
@click.option("--mixed", is_flag=True, help="Allow labels of several references in OUT.")
@click.option("--out", required=True, type=click.Path(), help="Labeled structures, extxyz.")
@_QUIET
def label(data: str, out: str, **options) -> int:
    """Label the structures in DATA. Their order is kept, and an interrupted run resumes.

    A structure that cannot be labeled carries label_failure=KIND and no labels (exit code 3); the
    reasons stay in OUT.work. Give the same command again to resume, with `--again KIND` to retry.
    """
    from alj.cli.labels import LabelOptions, label

    return label(data, out, LabelOptions(**options))


@group.command()
@click.argument("name")
@click.argument("subject", nargs=-1)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Builder setting.")
@click.option("--count", type=click.IntRange(min=1), help="Structures to build.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option("--config-type", help="Recorded with each structure [default: the builder's name].")
@click.option("--out", required=True, type=click.Path(), help="Structures, extxyz.")
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
@_QUIET
def build(name: str, subject: tuple[str, ...], **options) -> int:
    """Build starting structures: NAME is a builder, SUBJECT what it builds.

    \b
    alj build molecule CCO --out ethanol.extxyz
    alj build crystal NaCl --set supercell=[3,3,3] --set rattle_A=0.05 --count 5 --out salt.extxyz
    alj build slab Cu --set miller=[1,1,1] --out slab.extxyz
    alj build box water --set copies=64 --out water.extxyz
    alj build atoms H C O --out atoms.extxyz

    `alj show build` lists the builders, `alj show build NAME` the settings of one.
    """
    from alj.cli.build import BuildOptions, build

    return build(name, subject, BuildOptions(**options))


@group.command()
@click.argument("pool", type=click.Path())
@click.option("--share", type=click.FloatRange(0, 1), help="Largest share kept [default: 0.1].")
@click.option("--count", type=click.IntRange(min=1), help="Structures kept at most.")
@click.option("--distance", type=click.FloatRange(min=0), help="Stop where all dropped lie nearer.")
@click.option(
    "--closest-fraction",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Set aside what has atoms nearer than this part of their covalent distance.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of the classes: period=2000; or of CONFIG.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option("--out", required=True, type=click.Path(), help="Kept structures, or a run folder.")
@_QUIET
def reduce(pool: str, out: str, **options) -> int:
    """Keep the part of POOL that stands for all of it, by ESOINN on Coulomb spectra.

    Molecules, labeled or not; distances are in units of the spread of their spectra. What was
    computed stays in OUT.work: the same command goes on where it was stopped. POOL may be a
    CONFIG.yaml: networks that learn what is kept ask for what they do not know, in the folder OUT.

    \b
    alj reduce POOL.extxyz --share 0.05 --out KEPT.extxyz
    alj reduce configs/reduce.yaml --out runs/reduce
    """
    from alj.cli.reduce import ReduceOptions, reduce

    return reduce(pool, out, ReduceOptions(**options))


@group.command()
@click.argument("run", type=click.Path())
@click.option("--kind", "kinds", multiple=True, help="Only failures of this kind; repeatable.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="labeler.KEY=VALUE",
    help="Try with another setting of labeler or executor.",
)
@_QUIET
def relabel(run: str, kinds: tuple[str, ...], overrides: tuple[str, ...], quiet: bool) -> int:
    """Try the failed labels of the run in folder RUN again, all but bad_input.

    What comes out joins the data of the next round; the failures stay in the ledger.
    """
    from alj.cli.labels import relabel

    return relabel(run, kinds, overrides, quiet)


@group.command()
@click.argument("name", required=False)
@click.option("--self-test", "test", is_flag=True, help="Check forces, units, repeatability.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def engines(name: str | None, test: bool, settings: tuple[str, ...], as_json: bool) -> int:
    """Say which reference engines are installed, and how to get the others.

    With --self-test each that is installed labels small structures: forces against differences of
    the energy, the order of atoms, repeatability, units (exit code 3 where one is wrong).
    """
    from alj.cli.engines import engines

    return engines(name, settings, test=test, as_json=as_json)


for _command in COMMANDS:
    group.add_command(_command)


def _failed(message: str, config: str | None, code: int = 2) -> int:
    text = " ".join(message.split())
    place = _line_in(config, text)
    click.echo(f"alj: error: {place}{text}", err=True)
    return code


def _interrupted() -> int:
    click.echo("alj: interrupted; nothing is lost: run the same command again to resume", err=True)
    return 130


def _config_of(arguments: Sequence[str]) -> str | None:
    """The configuration file among the arguments of `run`, `train`, `replay` and `check`."""
    if not arguments or arguments[0] not in ("run", "train", "replay", "reduce", "check"):
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
