"""The commands that use, judge and carry away a potential; each imports what it needs."""

import click

_SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting.")
_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress, errors only.")


@click.command()
@click.argument("model", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The archive, such as water.zip.")
@click.option("--platform", "platforms", multiple=True, help="cpu, cuda, tpu [default: all].")
@click.option("--atoms", multiple=True, type=click.IntRange(min=1), help="Fixed sizes; repeatable.")
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
def export(model: str, out: str, **options) -> int:
    """Export MODEL as StableHLO, with a loader that needs JAX but not this package.

    MODEL is a run folder, a model folder or the name of a classical potential. The sizes of
    structures stay open, unless the potential needs to know them: then there are programs for the
    sizes of --atoms.

    \b
    alj export runs/quickstart --out water.zip
    PYTHONPATH=water.zip python -c "import exported_potential as e; e.load('water.zip')"
    """
    from alj.cli.outside import ExportOptions, export

    return export(model, out, ExportOptions(**options))


@click.command()
@click.argument("model", type=click.Path())
@click.argument("start", type=click.Path())
@click.option("--unix", metavar="NAME", help="The UNIX socket /tmp/ipi_NAME.")
@click.option("--host", default="localhost", show_default=True, help="Of a TCP socket.")
@click.option("--port", default=31415, show_default=True, type=click.IntRange(1, 65535))
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a server.")
@_QUIET
def serve(model: str, start: str, **options) -> int:
    """Compute forces for i-PI, or another server of its protocol, with MODEL.

    The first structure of START says which atoms the server moves, in its order.

    \b
    alj serve runs/water START.extxyz --unix water
    alj serve runs/water START.extxyz --host head-node --port 31415
    """
    from alj.cli.outside import ServeOptions, serve

    return serve(model, start, ServeOptions(**options))


@click.command()
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--model", type=click.Path(), help="Add its errors and a map of its features.")
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
@_QUIET
def convert(source: str, out: str, **options) -> int:
    """Convert structures and labels from SOURCE to OUT, by the end of its name.

    SOURCE is anything that can be read: extxyz, ASE's database (.db), H5MD (.h5), QM9's archive,
    padded arrays (.npz), whatever ASE reads. OUT is .extxyz, .db, .h5, or .json and .json.gz for
    https://chemiscope.org.

    \b
    alj convert md/trajectory.h5 trajectory.extxyz
    alj convert data.extxyz data.db
    alj convert data.extxyz data.json.gz --model runs/water
    """
    from alj.cli.outside import ConvertOptions, convert

    return convert(source, out, ConvertOptions(**options))


@click.command()
@click.argument("model", type=click.Path())
@click.argument("start", type=click.Path())
@click.option("--sampler", required=True, help="Name of the sampler, see `alj show sampler`.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Setting of the sampler, or potential.KEY=VALUE, labeler.KEY=VALUE of MODEL.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option("--copies", type=click.IntRange(min=1), default=1, help="Walks from each start.")
@click.option(
    "--format",
    type=click.Choice(["automatic", "extxyz", "h5md"]),
    default="automatic",
    help="Of the trajectory [default: h5md where it is long].",
)
@click.option("--out", required=True, type=click.Path(), help="Folder of the trajectory.")
@_QUIET
def sample(model: str, start: str, out: str, **options) -> int:
    """Walk from the structures in START with MODEL and write a trajectory.

    MODEL is a run folder, the name of a classical potential or of an engine, or a YAML file with
    one of these. The same command goes on where it stopped, or further with more steps. A walk that
    freezes is reported with its reason (exit code 3).

    \b
    alj sample runs/quickstart START.extxyz --sampler nvt_langevin --set steps=50000 --out md
    alj sample tblite START.extxyz --sampler fire --set labeler.method=GFN1-xTB --out relaxed
    alj sample lennard_jones START.extxyz --sampler npt_mc --set temperature_K=90 --out npt
    """
    from alj.cli.sample import SampleOptions, sample

    return sample(model, start, out, SampleOptions(**options))


@click.command()
@click.argument("model", type=click.Path())
@click.argument("pool", type=click.Path())
@click.option("--selector", required=True, help="Name of the selector, see `alj show selector`.")
@click.option("--count", required=True, type=click.IntRange(min=1), help="Structures to choose.")
@click.option("--train", type=click.Path(), help="What MODEL was trained on, labeled.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Selector setting.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option("--scores", type=click.Path(), help="Write the scores of the whole pool, CSV.")
@click.option("--out", required=True, type=click.Path(), help="Chosen structures, extxyz.")
@_QUIET
def select(model: str, pool: str, out: str, **options) -> int:
    """Choose structures of POOL that are worth a label for MODEL.

    Each carries its place in POOL as pool_index, counted from 0, in the order of choice. What was
    computed stays in OUT.work: the same command goes on where it was stopped.

    \b
    alj select runs/water POOL.extxyz --selector d_optimal --count 50 --train DATA.extxyz \\
      --out CHOSEN.extxyz --scores SCORES.csv
    """
    from alj.cli.select import SelectOptions, select

    return select(model, pool, out, SelectOptions(**options))


@click.command()
@click.argument("model", type=click.Path())
@click.argument("structures", nargs=-1, type=click.Path())
@click.option("--labeler", help="Reference engine beside it, see `alj show labeler`.")
@click.option("--config", type=click.Path(), help="Take the reference's labeler from this file.")
@click.option("--data", type=click.Path(), help="Labeled structures: errors for each config_type.")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; repeatable.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="CHECK.KEY=VALUE",
    help="Setting of a check, or labeler.KEY=VALUE.",
)
@click.option("--out", required=True, type=click.Path(), help="Folder of the results.")
@_QUIET
def validate(model: str, structures: tuple[str, ...], **options) -> int:
    """Judge MODEL by crystals and molecules, beside a reference.

    Of each of STRUCTURES that repeats in all directions: equation_of_state, elastic_constants,
    phonons, vacancy; of others bond_scans, vibrations, stability in molecular dynamics. OUT gets
    numbers (validation.json), figures and one page (validation.html). Exit code 3 where a check of
    MODEL failed.

    \b
    alj validate runs/ethanol ethanol.extxyz --labeler tblite --data test.extxyz --out judged
    alj validate runs/silicon si.extxyz --config configs/si.yaml --only phonons --out judged
    """
    from alj.cli.validate import ValidateOptions, validate

    return validate(model, structures, ValidateOptions(**options))


@click.command()
@click.argument("config", type=click.Path())
@click.option("--out", type=click.Path(), help="Folder [default: runs/<config stem>].")
@click.option("--dry-run", "dry", is_flag=True, help="Check all trials, run none.")
@click.option("--again", is_flag=True, help="Try what has failed once more.")
@_QUIET
def sweep(config: str, out: str | None, quiet: bool, dry: bool, again: bool) -> int:
    """Run the campaign or training of CONFIG with many settings: a grid, or a search by Optuna.

    Running again goes on where it stopped. Every trial has a folder and a row in trials.csv, with
    the reason where it failed (exit code 3).
    """
    from alj.cli.sweep import sweep

    return sweep(config, out, quiet, dry=dry, again=again)


COMMANDS = (export, serve, convert, sample, select, validate, sweep)
