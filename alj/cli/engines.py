"""`alj engines`: which reference engines are installed, what they know, whether they are right."""

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from alj.types import BadInput

if TYPE_CHECKING:
    from alj.labeling.engine import Reference
    from alj.labeling.self_test import Check


class Found(NamedTuple):
    """What is known of one engine; `labeler` is None where settings are missing."""

    name: str
    needs: list[str]
    version: str
    missing: str
    knows: str
    labeler: "Reference | None"


def engines(name: str | None, settings: Sequence[str], *, test: bool, as_json: bool) -> int:
    """Print the engines; 0, or 3 where a self-test failed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from alj.labeling import ENGINES
    from alj.registry import find

    if settings and name is None:
        raise BadInput("--set: expected the name of an engine before it: alj engines NAME --set …")
    chosen = ENGINES if name is None else (find(ENGINES, name, "engine"),)
    width = max(len(builder.__name__) for builder in chosen)
    told, good = [], True
    for builder in chosen:
        found = look(builder, _config(builder.__name__, settings))
        if not as_json:
            click.echo(f"{found.name:{width}}  {_line(found)}")
        checks = None
        if test and found.version and found.labeler is not None:
            checks = _tested(found.labeler)
            good = good and all(check.passed for check in checks)
            for line in [] if as_json else _lines(checks):
                click.echo(f"{'':{width}}  {line}")
        told.append(_plain(found, checks))
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
    return 0 if good else 3


def look(builder: Callable, config: dict[str, Any]) -> Found:
    """What is known of an engine without computing anything. Raises BadInput for wrong settings."""
    from alj.labeling import build_labeler
    from alj.registry import REQUIRED, schema

    required = [setting.name for setting in schema(builder) if setting.default is REQUIRED]
    needs = [setting for setting in required if setting not in config]
    if needs:
        return Found(config["name"], needs, "", "", "", None)
    labeler: Any = build_labeler(config)
    try:
        version, missing = labeler.engine.version(), ""
    except BadInput as error:
        version, missing = "", str(error)
    return Found(config["name"], [], version, missing, _knowledge(labeler.engine), labeler)


def _config(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The `labeler` section of an engine with the settings of the command line."""
    config: dict = {"labeler": {"name": name}}
    if settings:
        from alj.campaign.config import override_one

        for setting in settings:
            config = override_one(config, f"labeler.{setting.removeprefix('labeler.')}")
    return config["labeler"]


def _tested(labeler: "Reference") -> "list[Check]":
    from alj.labeling.self_test import self_test

    return self_test(labeler)


def _knowledge(engine: Any) -> str:
    """Elements and cells in a phrase."""
    from ase.data import chemical_symbols

    systems = "molecules and crystals" if engine.periodic else "molecules"
    runs = _runs(sorted(engine.elements))
    names = [
        chemical_symbols[a] if a == b else f"{chemical_symbols[a]}–{chemical_symbols[b]}"
        for a, b in runs
    ]
    return f"{systems} of {', '.join(names) or 'any elements'}"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last), three or more of them."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    pairs = ([(a, b)] if b - a != 1 else [(a, a), (b, b)] for a, b in runs)
    return [pair for group in pairs for pair in group]


def _line(found: Found) -> str:
    if found.needs:
        return f"needs settings: {', '.join(found.needs)} (alj show labeler {found.name})"
    if found.missing:
        return f"not installed: {found.missing}"
    return f"installed: {found.version}; {found.knows}"


def _lines(checks: "Sequence[Check]") -> list[str]:
    """The result of a self-test; every check that failed with its reason."""
    failed = [check for check in checks if not check.passed]
    head = "passed" if not failed else "FAILED"
    lines = [f"self-test {head}: {len(checks) - len(failed)} of {len(checks)} checks"]
    for check in checks:
        mark = "ok" if check.passed else "FAILED"
        number = check.reason or f"{check.number:.1e}, limit {check.limit:g}"
        lines.append(f"  {mark:6} {check.check}: {number}")
    return lines


def _plain(found: Found, checks: "Sequence[Check] | None") -> dict[str, Any]:
    """The same for programs; a number that is not one is null."""
    engine = found.labeler.engine if found.labeler is not None else None
    return {
        "name": found.name,
        "needs": found.needs,
        "installed": bool(found.version),
        "version": found.version,
        "missing": found.missing,
        "elements": [int(z) for z in engine.elements] if engine else [],
        "periodic": engine.periodic if engine else None,
        "self_test": None
        if checks is None
        else [
            {**check._asdict(), "number": check.number if check.number == check.number else None}
            for check in checks
        ],
    }
