"""`alj build`: starting structures from a name, a formula or a file."""

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from alj.cli.environment import prepare
from alj.types import BadInput

_SUFFIXES = (".extxyz", ".xyz")
_PLACE = "data.start."
"""Where a builder's settings stand in a configuration."""


class BuildOptions(NamedTuple):
    """The options of `alj build`."""

    settings: tuple[str, ...]
    count: int | None
    seed: int
    config_type: str | None
    out: str
    force: bool
    quiet: bool


def build(name: str, subjects: Sequence[str], options: BuildOptions) -> int:
    """Build structures, write them as extxyz, and say what was written. Raises BadInput."""
    out = Path(options.out)
    _check_target(out, options.force)
    prepare()
    import numpy as np

    from alj.campaign import datasets
    from alj.campaign.build import build_structures

    spec = _spec(name, subjects, options.settings)
    built = build_structures(spec, np.random.default_rng(options.seed), options.count)
    about: dict = {"seed": options.seed}
    if options.config_type is not None:
        about["config_type"] = options.config_type
    structures = [one.structure for one in built]
    info = [{**one.info, **about} for one in built]
    datasets.write(out, datasets.append(datasets.empty(), structures, info=info))
    if not options.quiet:
        for line in described(structures):
            click.echo(f"{out}: {line}")
    return 0


def described(structures: Sequence) -> list[str]:
    """One line for each formula: count, atoms, charge, smallest distance in Å, density in g/cm³."""
    from ase.formula import Formula

    from alj.campaign.built import density, nearest
    from alj.labeling.atoms import atoms_of

    groups: dict[tuple[str, int, int], list] = {}
    for one in structures:
        formula = f"{Formula(atoms_of(one).get_chemical_formula()):metal}"
        key = (formula, int(one.charge), int(one.multiplicity))
        groups.setdefault(key, []).append(one)
    lines = []
    for (formula, charge, multiplicity), group in groups.items():
        atoms = len(group[0].species)
        words = [
            f"{len(group)} structure{'s' * (len(group) > 1)} of {atoms} atom{'s' * (atoms > 1)}",
            formula,
            *([f"charge {charge:+d}"] if charge else []),
            *([f"multiplicity {multiplicity}"] if multiplicity else []),
        ]
        closest = nearest(group)
        words += [f"smallest distance {closest:.3f} Å"] if closest is not None else []
        densities = [value for value in map(density, group) if value is not None]
        words += [f"{_span(densities)} g/cm³"] if densities else []
        lines.append(", ".join(words))
    return lines


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _spec(name: str, subjects: Sequence[str], settings: Sequence[str]) -> dict:
    """The builder's settings: words without a key are its first one."""
    from alj.campaign.build import BUILDERS
    from alj.campaign.config import override_one
    from alj.registry import find, schema

    spec: dict = {"name": name}
    first = schema(find(BUILDERS, name, "build"))[0]
    if typing.get_origin(first.annotation) is list:
        spec |= {first.name: list(subjects)} if subjects else {}
    elif len(subjects) > 1:
        raise BadInput(
            f"build: expected one {first.name}, found {len(subjects)}: {' '.join(subjects)}; "
            "put quotes around a name of several words"
        )
    elif subjects:
        spec[first.name] = subjects[0]
    config: dict = {"data": {"start": spec}}
    for setting in settings:
        try:
            config = override_one(config, f"{_PLACE}{setting}")
        except BadInput as error:
            raise BadInput(str(error).replace(_PLACE, "")) from None
    return config["data"]["start"]


def _check_target(out: Path, force: bool) -> None:
    if out.suffix not in _SUFFIXES:
        raise BadInput(f"--out {out}: expected a name that ends in {' or '.join(_SUFFIXES)}")
    if out.is_dir():
        raise BadInput(f"{out}: expected a file to write, found a folder")
    if out.exists() and not force:
        raise BadInput(f"{out} exists already; choose another --out, or give --force to replace it")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
