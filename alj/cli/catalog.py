"""`alj show` and `alj schema`: what can be configured, told by the signatures of the builders."""

import json
from collections.abc import Callable
from textwrap import wrap

import click

from alj.cli import KINDS
from alj.registry import REQUIRED, find, json_schema, plain, schema_of, suggest, summary
from alj.registry import schema as settings_of
from alj.types import BadInput

PLAIN = ("data", "augmentation", "stop", "anchor", "properties")
"""Sections that are settings of their own, without a choice of a name."""

SECTIONS = ("executor", "build", "change", *PLAIN)
"""Further sections of a configuration that have settings."""


def show(kind: str | None, name: str | None) -> int:
    """Print the kinds, the names of a kind, or the settings of one builder."""
    if kind is None:
        for each in (*KINDS, *SECTIONS):
            names = ", ".join(builder.__name__ for builder in builders_of(each))
            click.echo(f"{each:10} {f'(settings: alj show {each})' if each in PLAIN else names}")
        click.echo("\n`alj show KIND NAME` prints the settings of one.")
        return 0
    builders = builders_of(kind)
    if name is None and kind not in PLAIN:
        width = max((len(builder.__name__) for builder in builders), default=0)
        for builder in builders:
            click.echo(f"{builder.__name__:{width}}  {summary(builder)}")
        return 0
    builder = builders[0] if name is None else find(builders, name, kind)
    click.echo(f"{builder.__name__}: {summary(builder)}\n")
    _print_settings(builder)
    also = _also(kind, builder)
    if also is not None:
        click.echo("\nIn a configuration it also takes:\n")
        _print_settings(also)
    if kind in ("anchor", "properties"):
        click.echo("\nand `name` with the settings of a sampler: alj show sampler")
    return 0


def schema(kind: str) -> int:
    """Print the JSON schema of a kind: one alternative for each name."""
    builders = builders_of(kind)
    if kind in PLAIN:
        described = json_schema(builders[0])
        described["properties"].pop("name")
        described["required"].remove("name")
    else:
        described = schema_of(builders, lambda builder: _common(kind, builder))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    click.echo(json.dumps({**head, **described, "title": kind}, indent=1))
    return 0


def builders_of(kind: str) -> tuple[Callable, ...]:
    """The builders of a kind or section. Raises BadInput for an unknown one."""
    if kind == "potential":
        from alj.potentials import POTENTIALS as builders
    elif kind == "sampler":
        from alj.sampling import SAMPLERS as builders
    elif kind == "trainer":
        from alj.training import TRAINERS as builders
    elif kind == "selector":
        from alj.selection import SELECTORS as builders
    elif kind == "labeler":
        from alj.labeling import LABELERS as builders
    elif kind == "executor":
        from alj.campaign.executors import EXECUTORS as builders
    elif kind == "build":
        from alj.campaign.build import BUILDERS as builders
    elif kind == "change":
        from alj.campaign.changes import CHANGES as builders
    elif kind in PLAIN:
        from alj.campaign import anchoring, properties, sections

        builders = {
            "data": (sections.data_settings,),
            "augmentation": (sections.augmentation_settings,),
            "stop": (sections.stop_settings,),
            "anchor": (anchoring.anchor_settings,),
            "properties": (properties.property_settings,),
        }[kind]
    else:
        raise BadInput(f"unknown kind '{kind}'{suggest(kind, (*KINDS, *SECTIONS))}")
    return builders


def _also(kind: str, builder: Callable) -> Callable | None:
    """What a builder takes besides its own settings, as the signature of a function."""
    if kind == "sampler":
        from alj.campaign.sections import walk_settings

        return walk_settings
    if kind == "potential":
        from alj.potentials import prior_settings

        return prior_settings
    if kind == "build":
        from alj.campaign.build import change_settings

        return change_settings
    if kind == "labeler":
        from alj.labeling import ENGINES
        from alj.labeling.engine import check_settings

        return check_settings if builder in ENGINES else None
    return None


def _common(kind: str, builder: Callable) -> dict:
    """The same as properties of a JSON schema; a list may be given as its only item."""
    also = _also(kind, builder)
    if also is None:
        return {}
    common = json_schema(also)["properties"]
    common.pop("name", None)
    if "prior" in common:
        listed = common["prior"]
        one = listed.pop("items")
        listed.pop("type")
        common["prior"] = {**listed, "anyOf": [one, {"type": "array", "items": one}]}
    return common


def _print_settings(builder: Callable) -> None:
    for setting in settings_of(builder):
        if setting.default is REQUIRED:
            default = "required"
        else:
            default = json.dumps(plain(setting.default), ensure_ascii=False)
        range_ = "" if setting.low is None else f", {setting.low:g} to {setting.high:g}"
        click.echo(f"  {setting.name} = {default}   ({setting.type}{range_})")
        for line in wrap(setting.help, 92):
            click.echo(f"      {line}")
