"""`alj export`: a potential leaves the house."""

from pathlib import Path
from typing import NamedTuple

import click

from alj.cli.environment import prepare
from alj.types import BadInput


class ExportOptions(NamedTuple):
    """The options of `alj export`."""

    platforms: tuple[str, ...]
    atoms: tuple[int, ...]
    force: bool


def export(model: str, out: str, options: ExportOptions) -> int:
    """Write the archive and say what is in it."""
    target = free_file(out, options.force)
    prepare()
    from alj.campaign.export import PLATFORMS, export_model, write_export
    from alj.campaign.subjects import model_of_name

    subject = model_of_name(model)
    platforms = options.platforms or PLATFORMS
    data, shapes = export_model(subject, platforms=platforms, atoms=options.atoms)
    write_export(target, data)
    size = len(data) / 1024
    open_sizes = all(shape.columns is None for shape in shapes)
    which = "any number of atoms" if open_sizes else f"up to {shapes[-1].most} atoms"
    click.echo(f"{target}: {size:.0f} kB, {which}, for {', '.join(platforms)}")
    click.echo(f"next: unzip -p {target} exported_potential.py says how it is used")
    return 0


def free_file(out: str, force: bool) -> Path:
    """A file that may be written. Raises BadInput."""
    target = Path(out)
    if target.is_dir():
        raise BadInput(f"{out}: expected a file to write, found a folder")
    if target.exists() and not force:
        raise BadInput(f"{out} exists already; choose another --out, or give --force to replace it")
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent}: no such folder; create it first")
    return target


class ServeOptions(NamedTuple):
    """The options of `alj serve`."""

    unix: str | None
    host: str
    port: int
    patience: float
    quiet: bool


def serve(model: str, start: str, options: ServeOptions) -> int:
    """Answer a server until it is done."""
    prepare()
    from alj.campaign.reading import read_atoms, structure_of
    from alj.campaign.subjects import model_of_name
    from alj.interfaces.sockets import Address, serve

    subject = model_of_name(model)
    atoms = read_atoms(start)[0]
    structure_of(atoms, known=subject.species)
    address = Address(options.unix, options.host, options.port)
    if not options.quiet:
        click.echo(f"{model} for {atoms.get_chemical_formula()} at {address}", err=True)
    steps = serve(subject, atoms, address, patience_seconds=options.patience)
    if not options.quiet:
        click.echo(f"{steps} steps answered")
    return 0


class ConvertOptions(NamedTuple):
    """The options of `alj convert`."""

    model: str | None
    force: bool
    quiet: bool


def convert(source: str, out: str, options: ConvertOptions) -> int:
    """Read a data set, write it in another format, and say what was taken and left out."""
    target = free_file(out, options.force)
    prepare()
    from alj.campaign import datasets
    from alj.campaign.conversion import format_of, write_as
    from alj.campaign.subjects import model_of_name

    kind = format_of(target)
    if options.model is not None and kind != "chemiscope":
        raise BadInput(f"--model: only a file for Chemiscope has use for it, {out} is {kind}")
    model = None if options.model is None else model_of_name(options.model)
    dataset, taken = datasets.read(
        source, labels="optional", species=None if model is None else model.species
    )
    note = write_as(target, dataset, model)
    if not options.quiet:
        click.echo(f"{source}: {taken}")
        click.echo(f"{target}: {kind}{'; ' + note if note else ''}")
    return 0
