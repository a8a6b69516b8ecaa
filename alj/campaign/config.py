"""Reading, overriding, writing and comparing configuration files (YAML 1.2).

YAML 1.2 means that `1e-3` is a number and `NO` a text. Whatever cannot be read is one line with the
file and the line number. Only the top-level keys are checked here: what stands below them belongs
to the builders, whose signatures are their schema.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from alj.annotations import join, plain, show, suggest
from alj.types import BadInput

KEYS = (
    "seed",
    "rounds",
    "data",
    "potential",
    "widths",
    "trainer",
    "sampler",
    "selector",
    "classes",
    "augmentation",
    "labeler",
    "executor",
    "stop",
    "precision",
    "explore_with",
    "choose_from",
    "grow_by",
    "self_test",
    "refit",
    "anchor",
    "properties",
)
"""The top-level keys of a configuration, in the order in which they are written."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> dict:
    """The configuration in a file with `key.path=value` overrides applied. Raises BadInput."""
    config = read(path)
    for key in config:
        if key not in KEYS:
            line = locate(path, str(key))
            place = f"{path}:{line}" if line else str(path)
            raise BadInput(f"{place}: unknown key '{key}'{suggest(str(key), KEYS)}")
    for override in overrides:
        config = override_one(config, override)
    return config


def read(path: str | Path) -> dict:
    """The mapping in a YAML file, its keys unchecked. Raises BadInput."""
    text = _text(Path(path))
    config = _parse(text, str(path))
    if config is None:
        raise BadInput(f"{path}: expected a configuration, found an empty file")
    if not isinstance(config, Mapping):
        kind = "a list" if isinstance(config, list) else show(config)
        raise BadInput(f"{path}: expected a mapping of keys such as 'potential:', found {kind}")
    return dict(config)


def override_one(config: dict, override: str, keys: Sequence[str] = KEYS) -> dict:
    """A copy of `config` with one `key.path=value` applied; the value is read as YAML.

    A bare name on the way becomes a mapping with that `name`; list entries are counted from 0.

    >>> override_one({"sampler": ["nested_mc"]}, "sampler.0.cycles=5")
    {'sampler': [{'name': 'nested_mc', 'cycles': 5}]}
    """
    path, equals, text = override.partition("=")
    here = f"--set {override}"
    steps = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
    if not equals or not all(steps):
        raise BadInput(f"{here}: expected key.path=value, such as sampler.temperature_K=500")
    if steps[0] not in keys:
        raise BadInput(f"{here}: unknown key '{steps[0]}'{suggest(steps[0], keys)}")
    return _replaced(config, steps, _parse(text, here), here)


def dump(config: Mapping) -> str:
    """A configuration as YAML text; the same configuration always gives the same text."""
    known = [key for key in KEYS if key in config]
    ordered = {key: config[key] for key in [*known, *(k for k in config if k not in KEYS)]}
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda data: True
    stream = io.StringIO()
    yaml.dump(plain(ordered), stream)
    return stream.getvalue()


def difference(old: Any, new: Any, where: str = "") -> list[str]:
    """One line for each value that differs, with its path.

    >>> difference({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1]})
    ['a.b: 1 -> 2', 'c: [1, 2] -> [1]']
    """
    old, new = plain(old), plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            path = join(where, key)
            if key not in new:
                lines.append(f"{path}: {show(old[key])} -> absent")
            elif key not in old:
                lines.append(f"{path}: absent -> {show(new[key])}")
            else:
                lines += difference(old[key], new[key], path)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in difference(a, b, f"{where}[{i}]")]
    same = old == new and type(old) is type(new)
    return [] if same else [f"{where or 'value'}: {show(old)} -> {show(new)}"]


def locate(path: str | Path, where: str) -> int | None:
    """The line (from 1) on which the key `where`, such as `sampler[1].steps`, stands in a file.

    None where it is not there; of a path that is there in part, nothing is said either.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, OSError, UnicodeError):
        return None
    line = None
    for step in re.sub(r"\[(\d+)\]", r".\1", where).split("."):
        children = getattr(node, "value", None)
        if not isinstance(children, list):
            return None
        if step.isdigit():
            if int(step) >= len(children) or isinstance(children[int(step)], tuple):
                return None
            node = children[int(step)]
            line = node.start_mark.line + 1
        else:
            pairs = [pair for pair in children if isinstance(pair, tuple)]
            found = [pair for pair in pairs if pair[0].value == step]
            if not found:
                return None
            line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = _siblings(path)
        near = suggest(path.name, siblings, "the folder has") if siblings else ""
        raise BadInput(f"{path}: no such file{near}") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: expected a configuration file, found a folder") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: expected a YAML text in UTF-8, found a binary file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _siblings(path):
    folder = path.parent
    return sorted(p.name for p in folder.glob("*.y*ml"))[:8] if folder.is_dir() else []


def _parse(text: str, source: str) -> Any:
    try:
        return _only_plain(YAML(typ="safe", pure=True).load(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and not source.startswith("--set") else ""
        raise BadInput(f"{source}{line}: {_reason(error)}") from None
    except (YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{source}: not a YAML file: {reason}") from None
    except RecursionError:
        raise BadInput(f"{source}: not a YAML file: nested too deeply") from None


def _reason(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context or "not YAML").split())
    if "duplicate key" in problem:
        name = re.search(r'found duplicate key "?([^"]*?)"? with', problem)
        return f"the key '{name.group(1) if name else '?'}' is given twice; keep one of them"
    if r"'\t'" in problem:
        return "a tab; YAML wants spaces"
    if "another document" in problem:
        return "expected one document, found a second one after '---'"
    return f"not valid YAML: {problem}"


def _only_plain(value):
    """Keys as texts; anything that is not YAML's JSON part (dates, sets) back as text."""
    if isinstance(value, Mapping):
        return {str(key): _only_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_only_plain(item) for item in value]
    return value if isinstance(value, (str, bool, int, float, type(None))) else str(value)


def _replaced(node, steps, value, here) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(node, list):
        if not step.isdigit() or int(step) >= len(node):
            last = len(node) - 1
            raise BadInput(f"{here}: expected an index from 0 to {last}, found '{step}'")
        changed = _replaced(node[int(step)], rest, value, here)
        return [changed if i == int(step) else item for i, item in enumerate(node)]
    if isinstance(node, str):
        node = {"name": node}
    if node is not None and not isinstance(node, Mapping):
        raise BadInput(f"{here}: '{step}' stands below the plain value {show(node)}")
    if step.isdigit():
        raise BadInput(f"{here}: no list there; leave the index {step} away")
    node = dict(node or {})
    return {**node, step: _replaced(node.get(step), rest, value, here)}
