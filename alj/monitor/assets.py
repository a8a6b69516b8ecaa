"""The page's files: served one by one, or put together into one file that asks for nothing.

The scripts are ES modules without a build step. For the report they become one script: each is a
function that returns what it exports, in an order in which each comes after what it imports.
plotly.js is that of the `plotly` package.
"""

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = (
    "dom.js", "source.js", "charts.js", "molecule.js", "scatter.js", "overview.js", "map.js",
    "uncertainty.js", "training.js", "physics.js", "failures.js", "runs.js", "main.js",
)  # fmt: skip
"""In the order in which the report holds them."""

STYLES = ("plotly.css", "style.css")
PLOTLY = "plotly.min.js"

_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file of the page and what it is."""

    data: bytes
    kind: str


def served(name: str) -> Asset | None:
    """A file by name; None for any name that is not of the list."""
    if name == PLOTLY:
        return Asset(plotly(), _KINDS[".js"])
    if name in SCRIPTS or name in STYLES or name == "icon.svg":
        return Asset(_static(name), _KINDS[Path(name).suffix])
    return None


def page() -> str:
    """The page as the server sends it."""
    styles = "".join(_link(name) for name in STYLES)
    scripts = f'<script src="/static/{PLOTLY}" id="plotly" async></script>\n'
    scripts += '<script type="module" src="/static/main.js"></script>'
    icon = '<link rel="icon" href="/static/icon.svg">'
    return _shell(title="alj monitor", head=f"{icon}\n{_without_maps()}{styles}", body=scripts)


def report(title: str, data: dict[str, Any]) -> str:
    """The page as one file that holds `data`, which must be plain JSON."""
    module = "\n".join(_as_function(name) for name in SCRIPTS)
    parts = [_for_script(plotly().decode()), _for_script(module)]
    style = "\n".join(_static(name).decode() for name in STYLES)
    allowed = " ".join(f"'sha256-{_digest(part)}'" for part in parts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'sha256-{_digest(style)}'; "
        "style-src-attr 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{_without_maps()}'
    # plotly looks for its style sheet by this name, and then makes none of its own
    head += f'<style id="plotly.js-style-global" class="no-inline-styles">{style}</style>'
    # "<" cannot end a script in JSON once it is escaped
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    body = f'<script type="application/json" id="data">{text}</script>\n'
    body += f"<script>{parts[0]}</script>\n"
    body += f'<script type="module">{parts[1]}</script>'
    return _shell(title=title, head=head, body=body)


@cache
def plotly() -> bytes:
    """plotly.js as the `plotly` package brings it."""
    spec = find_spec("plotly")
    if spec is None or not spec.origin:
        raise ModuleNotFoundError("the figures need plotly; run: pip install 'alj[monitor]'")
    return (Path(spec.origin).parent / "package_data" / PLOTLY).read_bytes()


def _shell(*, title: str, head: str, body: str) -> str:
    text = _static("page.html").decode()
    for name, value in {"title": _escaped(title), "head": head, "body": body}.items():
        before, _, after = text.partition(f"<!-- {name} -->")
        text = before + value + after
    return text


def _without_maps() -> str:
    """An element by whose name plotly.js believes that the style sheet of its maps is there.

    It would be refused, and there are no maps of countries here.
    """
    found = re.search(rb'getElementById\("([0-9a-f]{64})"\)', plotly())
    return f'<meta id="{found[1].decode()}" name="no-maps">\n' if found else ""


def _link(name: str) -> str:
    own = ' id="plotly.js-style-global" class="no-inline-styles"' if name == "plotly.css" else ""
    return f'<link rel="stylesheet" href="/static/{name}"{own}>\n'


def _as_function(name: str) -> str:
    """A module as a function that returns its exports, under a name made of the file's."""
    text = _static(name).decode()
    exports = re.findall(r"^export (?:async )?(?:function|const|let) (\w+)", text, re.MULTILINE)
    text = re.sub(
        r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', r"const \1 = of_\2;", text, flags=re.MULTILINE
    )
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    kind = "async " if "\nawait " in text else ""
    stem = Path(name).stem
    return f"const of_{stem} = ({kind}() => {{\n{text}\nreturn {{ {', '.join(exports)} }};\n}})();"


def _for_script(text: str) -> str:
    """A script as an element of a page may hold it."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@cache
def _static(name: str) -> bytes:
    return (files("alj.monitor") / "static" / name).read_bytes()
