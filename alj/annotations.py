"""Values from a configuration file, held against the annotations of the function that takes them.

Annotations understood: `int`, `float`, `bool`, `str`, `None`, `Literal`, unions, tuples, lists,
mappings, and `Nested`. Everything else is passed through.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from alj.types import BadInput


class Nested(NamedTuple):
    """Marks a keyword that is itself built: `Annotated[Potential, Nested(lambda: BASELINES)]`.

    The registry is fetched late, so that rooms need not import each other at load time. The inner
    builder gets the same collaborators as the outer one.
    """

    builders: Callable[[], tuple]


def convert(value: Any, annotation: Any, where: str) -> Any:
    """`value` as the annotation wants it (ints become floats, lists tuples). Raises BadInput."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if nested_in(annotation):
        if value is None and takes_none(annotation):
            return None
        named(value, where)
        return value
    if origin is Annotated:
        return convert(value, inner[0], where)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inner):
            return value
        known = [str(choice) for choice in inner]
        raise BadInput(f"{where}: found {show(value)}{suggest(str(value), known)}")
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, annotation, where)
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return _convert_list(value, annotation, where)
    if annotation in (dict, Mapping) or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, annotation, where)
        kind = inner[1] if inner else Any
        return {key: convert(item, kind, join(where, str(key))) for key, item in value.items()}
    return _convert_scalar(value, annotation, where)


def type_name(annotation: Any) -> str:
    """An annotation in plain words.

    >>> type_name(tuple[float, ...] | None), type_name(Literal["fresh", "warm"])
    ('list of numbers or null', "'fresh' or 'warm'")
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if nested_in(annotation):
        return "name or mapping with `name`" + (" or null" if takes_none(annotation) else "")
    if origin is Annotated:
        return type_name(inner[0])
    if origin is Literal:
        return " or ".join(repr(choice) for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(choice) for choice in inner)
    if origin in (tuple, list, Sequence):
        members = [choice for choice in inner if choice is not Ellipsis]
        if origin is tuple and Ellipsis not in inner:
            return f"list of {len(members)}: " + ", ".join(type_name(member) for member in members)
        return f"list of {_plural(type_name(members[0]))}"
    if origin is not None:
        annotation = origin
    words = {float: "number", int: "whole number", bool: "true or false", str: "text"}
    words |= {dict: "mapping", Mapping: "mapping", type(None): "null", tuple: "list", list: "list"}
    return words.get(annotation, "any value")


def json_type(annotation: Any, limits: dict, described: Callable[[Callable], dict]) -> dict:
    """The JSON schema of an annotation; `limits` on numbers, `described` for nested builders."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    simple = {float: {"type": "number"} | limits, int: {"type": "integer"} | limits}
    simple |= {bool: {"type": "boolean"}, str: {"type": "string"}, type(None): {"type": "null"}}
    if nested := nested_in(annotation):
        choices = [described(builder) for builder in nested.builders()]
        names = {"enum": [builder.__name__ for builder in nested.builders()]}
        return {"anyOf": [names, *choices, *([{"type": "null"}] if takes_none(annotation) else [])]}
    if origin is Annotated:
        return json_type(inner[0], limits, described)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [json_type(choice, limits, described) for choice in inner]}
    if origin in (tuple, list, Sequence) or annotation in (tuple, list):
        parts = [choice for choice in inner if choice is not Ellipsis]
        if origin is tuple and Ellipsis not in inner:
            items = [json_type(part, limits, described) for part in parts]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
        return {"type": "array"} | (
            {"items": json_type(parts[0], limits, described)} if parts else {}
        )
    if origin in (dict, Mapping) or annotation in (dict, Mapping):
        values = {"additionalProperties": json_type(inner[1], limits, described)} if inner else {}
        return {"type": "object"} | values
    return dict(simple.get(annotation, {}))


def named(spec: Any, where: str) -> tuple[str, dict]:
    """The name and the keywords of a bare name or of a mapping with `name`. Raises BadInput."""
    here = where or "configuration"
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping):
        raise BadInput(f"{here}: expected a name or a mapping with `name`, found {show(spec)}")
    if not isinstance(spec.get("name"), str):
        found = f"name {show(spec['name'])}" if "name" in spec else f"keys {list(spec)}"
        raise BadInput(f"{here}: expected a mapping with `name` (a text), found {found}")
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}


def suggest(name: str, names: Iterable[str], label: str = "expected one of") -> str:
    """ ", did you mean 'x'? <label>: a, b" — the end of a message about an unknown name.

    >>> suggest("nest_mc", ["metropolis_mc", "nested_mc"])
    ", did you mean 'nested_mc'? expected one of: metropolis_mc, nested_mc"
    """
    names = list(names)
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.55)
    hint = f", did you mean '{lower[close[0]]}'?" if close else ";"
    return f"{hint} {label}: {', '.join(names) or 'nothing'}"


def _convert_scalar(value, annotation, where):
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is str and isinstance(value, str):
        return str(value)
    if annotation is type(None) and value is None:
        return None
    if annotation in (int, float) and isinstance(value, str) and _is_number(value):
        advice = f"write it without quotes, as {float(value)!r}"
        raise BadInput(f"{where}: expected a {type_name(annotation)}, found text; {advice}")
    if annotation is int and isinstance(value, float) and value.is_integer():
        raise BadInput(f"{where}: expected a whole number, found {value!r}; write {int(value)}")
    if annotation is int and isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BadInput(f"{where}: expected a finite number, found {value!r}")
        return float(value)
    if annotation in (bool, str, type(None), int, float):
        raise _wrong(value, annotation, where)
    return value


def _convert_union(value, annotation, where):
    errors = {}
    choices = typing.get_args(annotation)
    # An int stays an int where both int and float are allowed.
    for choice in sorted(choices, key=lambda kind: kind is float):
        try:
            return convert(value, choice, where)
        except BadInput as error:
            errors[choice] = error
    meant = [choice for choice in choices if choice is not type(None)]
    raise errors[meant[0]] if len(meant) == 1 else _wrong(value, annotation, where)


def _convert_list(value, annotation, where):
    kind = typing.get_origin(annotation) or annotation
    inner = typing.get_args(annotation)
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise _wrong(value, annotation, where)
    if not inner:
        items = list(value)
    elif kind is tuple and Ellipsis not in inner:
        if len(value) != len(inner):
            raise _wrong(value, annotation, where)
        items = [
            convert(item, part, f"{where}[{index}]")
            for index, (item, part) in enumerate(zip(value, inner, strict=True))
        ]
    else:
        items = [convert(item, inner[0], f"{where}[{i}]") for i, item in enumerate(value)]
    return items if kind is list else tuple(items)


def _wrong(value, annotation, where):
    return BadInput(f"{where}: expected {type_name(annotation)}, found {show(value)}")


def show(value: Any) -> str:
    """A value as a message shows it: short, in the words of YAML."""
    words = {True: "true", False: "false"}
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return words[value]
    text = repr(plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def plain(value: Any) -> Any:
    """A value in plain YAML types: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def join(where: str, name: str) -> str:
    """The path of a key inside `where`."""
    return f"{where}.{name}" if where else name


def nested_in(annotation: Any) -> Nested | None:
    """The `Nested` mark of an annotation, also inside a union."""
    parts = getattr(annotation, "__metadata__", ())
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [nested_in(choice) for choice in typing.get_args(annotation)]
    return next((part for part in parts if isinstance(part, Nested)), None)


def takes_none(annotation: Any) -> bool:
    """Whether null is allowed."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return takes_none(inner[0])
    return type(None) in inner


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _plural(words: str) -> str:
    return {"text": "texts"}.get(words, words + "s" if words.endswith("number") else f"({words})")
