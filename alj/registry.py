"""From configuration to code: a builder's signature is its schema, its docstring the help.

A registry is a tuple of functions. `build` finds the one that a configuration names, checks every
value against the annotation and the unit in the name, and calls it. Whatever is wrong is a
`BadInput` that names the key (`sampler[1].temperature_K`), says what was expected and what was
found, and suggests the nearest valid spelling.

>>> def langevin(*, temperature_K: float = 300.0, steps: int = 100):
...     '''Langevin dynamics.
...
...     Args:
...         temperature_K: of the bath.
...     '''
...     return temperature_K, steps
>>> build((langevin,), {"name": "langevin", "temperature_K": 500})
(500.0, 100)
>>> [setting.help for setting in schema(langevin)]
['of the bath.', '']
>>> build((langevin,), {"name": "langevin", "temperture_K": 500}, where="sampler")
Traceback (most recent call last):
alj.types.BadInput: sampler.temperture_K: unknown key, did you mean 'temperature_K'? \
langevin takes: temperature_K, steps
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alj.annotations import (
    Nested,
    convert,
    join,
    json_type,
    named,
    nested_in,
    plain,
    show,
    suggest,
    type_name,
)
from alj.types import BadInput

__all__ = [
    "Nested",
    "build",
    "call",
    "divided",
    "filled",
    "find",
    "imported",
    "json_schema",
    "plain",
    "resolve",
    "schema",
    "schema_of",
    "suggest",
]

SANE = types.MappingProxyType(
    {
        "_K": (0.0, 1e5),
        "_fs": (1e-3, 1e3),
        "_ps": (0.0, 1e7),
        "_A": (0.0, 1e4),
        "_per_A": (-1e5, 1e5),
        "_eV": (-1e6, 1e6),
        "_meV": (-1e9, 1e9),
        "_eV_per_A": (0.0, 1e5),
        "_eV_per_A2": (0.0, 1e5),
        "_eV_per_atom": (-1e5, 1e5),
        "_eV_per_bead": (-1e5, 1e5),
        "_meV_per_atom": (0.0, 1e6),
        "_meV_per_bead": (0.0, 1e6),
        "_bar": (-1e7, 1e7),
        "_GPa": (-1e4, 1e4),
        "_g_per_cc": (1e-3, 50.0),
        "_amu": (1e-3, 1e3),
        "_degrees": (-360.0, 360.0),
        "_seconds": (0.0, 1e9),
        "_hours": (0.0, 1e5),
        "fraction": (0.0, 1.0),
        "seed": (0, 2**63 - 1),
        "members": (1, 10_000),
        "count": (1, 10**7),
        "rounds": (0, 10**6),
        "steps": (0, 10**12),
        "cycles": (1, 10**9),
        "patience": (1, 10**9),
    }
)
"""The range in which a value makes sense, by the ending of its name; builders may be tighter."""


class Setting(NamedTuple):
    """One keyword of a builder: `default` is `REQUIRED` where there is none; limits may be None."""

    name: str
    annotation: Any
    default: Any
    help: str
    low: float | int | None
    high: float | int | None

    @property
    def type(self) -> str:
        """The annotation as a reader would say it."""
        return type_name(self.annotation)


REQUIRED = inspect.Parameter.empty


def schema(builder: Callable) -> list[Setting]:
    """The keyword-only arguments of a builder, with help from its docstring."""
    helps = _argument_helps(builder)
    hints = typing.get_type_hints(inspect.unwrap(builder), include_extras=True)
    settings = []
    for name, parameter in inspect.signature(builder).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            low, high = sane_range(name)
            annotation = hints.get(name, Any)
            settings.append(
                Setting(name, annotation, parameter.default, helps.get(name, ""), low, high)
            )
    return settings


def build(builders: Sequence[Callable], spec: Any, *collaborators: Any, where: str = "") -> Any:
    """The object that `spec` describes: a bare name, or a mapping with `name` and keywords.

    `where` is the path of `spec` in the configuration, for messages. Raises BadInput.
    """
    name, settings = named(spec, where)
    return call(find(builders, name, where), settings, *collaborators, where=where)


def call(builder: Callable, settings: Any, *collaborators: Any, where: str = "") -> Any:
    """`builder(*collaborators, **settings)` with every setting checked. Raises BadInput."""
    checked = _checked(builder, settings, where)
    given = {key: checked[key] for key in checked if key in (settings or {})}
    for setting in schema(builder):
        nested = nested_in(setting.annotation)
        if nested and given.get(setting.name) is not None:
            inner, path = given[setting.name], join(where, setting.name)
            given[setting.name] = build(nested.builders(), inner, *collaborators, where=path)
    try:
        return builder(*collaborators, **given)
    except BadInput as error:
        prefix = f"{where}: " if where and not str(error).startswith(where) else ""
        raise BadInput(f"{prefix}{error}") from None


def resolve(builders: Sequence[Callable], spec: Any, where: str = "") -> dict:
    """`spec` with every default filled in, as plain YAML types. Raises BadInput."""
    name, settings = named(spec, where)
    builder = find(builders, name, where)
    return {"name": name, **filled(builder, settings, where)}


def divided(
    builders: Sequence[Callable], spec: Any, common: Callable, where: str = ""
) -> tuple[dict, dict]:
    """A section whose builder's settings stand beside those of `common`: (common, own).

    `own` has the name. Raises BadInput for a key that is of neither, with the nearest of both.
    """
    name, settings = named(spec, where)
    builder = find(builders, name, where)
    shared = [setting.name for setting in schema(common)]
    known = [*(setting.name for setting in schema(builder)), *shared]
    for key in settings:
        if key not in known:
            hint = suggest(str(key), known, f"{name} takes")
            raise BadInput(f"{join(where, str(key))}: unknown key{hint}")
    given = {k: v for k, v in settings.items() if k in shared}
    return given, {"name": name, **{k: v for k, v in settings.items() if k not in shared}}


def filled(builder: Callable, settings: Any, where: str = "") -> dict:
    """The settings of one builder, checked, with every default filled in, as plain YAML types."""
    checked = _checked(builder, settings, where)
    for setting in schema(builder):
        nested = nested_in(setting.annotation)
        if nested and checked[setting.name] is not None:
            path = join(where, setting.name)
            checked[setting.name] = resolve(nested.builders(), checked[setting.name], path)
    return {key: plain(value) for key, value in checked.items()}


def find(builders: Sequence[Callable], name: str, where: str = "") -> Callable:
    """The builder of that name, or "module:function" of one outside of this package.

    Raises BadInput with the nearest names, or why there is no such function.
    """
    if ":" in name:
        return imported(name, join(where, "name"))
    for builder in builders:
        if builder.__name__ == name:
            return builder
    names = [builder.__name__ for builder in builders]
    path = join(where, "name")
    raise BadInput(f"{path}: unknown name '{name}'{suggest(name, names)}")


def imported(path: str, where: str) -> Callable:
    """The function that "module:name" names. Raises BadInput where there is none.

    >>> imported("math:hypot", "function")(3, 4)
    5.0
    >>> imported("math:hypo", "function")
    Traceback (most recent call last):
    alj.types.BadInput: function: the module math has no hypo
    """
    module, _, name = path.partition(":")
    if not (module and name):
        raise BadInput(f"{where}: expected module:name, found {path!r}")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise BadInput(f"{where}: {path} cannot be imported ({error})") from None
    except AttributeError:
        raise BadInput(f"{where}: the module {module} has no {name}") from None
    if not callable(found):
        raise BadInput(f"{where}: expected {path} to be a function, found {show(str(found))}")
    return found


def summary(builder: Callable) -> str:
    """The first line of a builder's docstring."""
    return (inspect.getdoc(builder) or "").partition("\n")[0]


def sane_range(name: str) -> tuple[float | int | None, float | int | None]:
    """The limits that the ending of a name implies, of the longest ending that fits.

    >>> sane_range("density_g_per_cc"), sane_range("kernel")
    ((0.001, 50.0), (None, None))
    """
    fits = [e for e in SANE if (name.endswith(e) if e[0] == "_" else name.split("_")[-1] == e)]
    return SANE[max(fits, key=len)] if fits else (None, None)


def json_schema(builder: Callable) -> dict:
    """The JSON schema (draft 2020-12) of one builder's configuration."""
    properties: dict[str, Any] = {"name": {"const": builder.__name__}}
    required = ["name"]
    for setting in schema(builder):
        low, high = setting.low, setting.high
        limits = {} if low is None else {"minimum": low, "maximum": high}
        entry = json_type(setting.annotation, limits, json_schema)
        if setting.help:
            entry["description"] = setting.help
        if setting.default is REQUIRED:
            required.append(setting.name)
        else:
            entry["default"] = plain(setting.default)
        properties[setting.name] = entry
    return {
        "title": builder.__name__,
        "description": summary(builder),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def schema_of(
    builders: Sequence[Callable], common: Callable[[Callable], dict] | None = None
) -> dict:
    """The JSON schema of a registry: a bare name, or the mapping of one of its builders.

    `common(builder)` are properties that its mapping may have besides its own.
    """
    alternatives = []
    for builder in builders:
        described = json_schema(builder)
        described["properties"] |= common(builder) if common else {}
        alternatives.append(described)
    names = [builder.__name__ for builder in builders]
    return {"anyOf": [{"enum": names}, *alternatives]}


def _checked(builder, settings, where):
    if settings is None:
        settings = {}
    if not isinstance(settings, Mapping):
        raise BadInput(f"{where or builder.__name__}: expected a mapping, found {show(settings)}")
    known = {setting.name: setting for setting in schema(builder)}
    for key in settings:
        if key not in known:
            hint = suggest(key, known, f"{builder.__name__.removesuffix('_settings')} takes")
            raise BadInput(f"{join(where, str(key))}: unknown key{hint}")
    values = {}
    for name, setting in known.items():
        path = join(where, name)
        if name in settings:
            values[name] = convert(settings[name], setting.annotation, path)
            _check_range(values[name], setting, path)
        elif setting.default is REQUIRED:
            raise BadInput(f"{path}: missing; expected a {setting.type}. {setting.help}".rstrip())
        else:
            values[name] = setting.default
    return values


def _check_range(value, setting, where):
    if isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            _check_range(item, setting, f"{where}[{index}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = setting.low, setting.high
        if low is not None and not low <= value <= high:
            raise BadInput(
                f"{where}: expected {low:g} to {high:g}, found {value!r}; check the unit"
            )


def _argument_helps(builder):
    """The entries of the Google-style `Args:` section, whitespace joined."""
    lines = (inspect.getdoc(builder) or "").splitlines()
    starts = [index for index, line in enumerate(lines) if line.strip() == "Args:"]
    helps: dict[str, str] = {}
    name, indent = None, None
    for line in lines[starts[0] + 1 :] if starts else []:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            break
        indent = depth if indent is None else indent
        head, colon, rest = line.strip().partition(":")
        if depth == indent and colon and head.split()[0].isidentifier():
            name = head.split()[0]
            helps[name] = rest.strip()
        elif name:
            helps[name] += " " + line.strip()
    return helps
