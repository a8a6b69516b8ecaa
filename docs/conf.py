"""The site: Sphinx with furo, pages in Markdown; settings and API are made of the code.

sphinx-build -W docs site
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "alj"
html_title = "alj"
html_theme = "furo"
html_theme_options = {"sidebar_hide_name": False}
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
# Docstrings are written for `help`: what reStructuredText would make of a star there is no matter.
suppress_warnings = ["docutils", "ref.python", "myst.xref_missing"]

ROOMS = {
    "alj": "The vocabulary",
    "alj.geometry": "Geometry",
    "alj.potentials": "Potentials",
    "alj.training": "Training",
    "alj.sampling": "Sampling",
    "alj.uncertainty": "Uncertainty",
    "alj.selection": "Selection",
    "alj.labeling": "Labeling",
    "alj.analysis": "Analysis",
    "alj.campaign": "Campaigns",
    "alj.interfaces": "Interfaces",
}


def settings_page() -> str:
    """Every builder that a configuration can name, with its settings."""
    from alj.cli import KINDS
    from alj.cli.catalog import PLAIN, SECTIONS, builders_of
    from alj.registry import REQUIRED, plain, schema, summary

    lines = ["# Settings", "", "`alj show KIND NAME` prints the same;"]
    lines += ["`alj schema KIND` prints a JSON schema for editors.", ""]
    for kind in (*KINDS, *SECTIONS):
        lines += [f"## {kind}", ""]
        for builder in builders_of(kind):
            if kind not in PLAIN:
                lines += [f"### {builder.__name__}", ""]
            lines += [summary(builder), "", "| setting | default | |", "|---|---|---|"]
            for setting in schema(builder):
                default = setting.default
                shown = "required" if default is REQUIRED else f"`{plain(default)}`"
                help_ = " ".join(setting.help.split()).replace("|", "\\|")
                lines.append(f"| `{setting.name}` | {shown} | {help_} |")
            lines.append("")
    return "\n".join(lines)


def api_pages() -> dict[str, str]:
    """A page for every room, with its modules in alphabetical order, and one that lists them."""
    pages = {}
    for package, title in ROOMS.items():
        lines = [f"# {title}", ""]
        for path in sorted(ROOT.joinpath(*package.split(".")).glob("*.py")):
            if path.stem != "__init__" and _public(path):
                name = f"{package}.{path.stem}"
                lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        pages[package] = "\n".join(lines)
    index = ["# API", "", "Floors and rooms; a room knows only those below it.", ""]
    index += ["```{toctree}", *pages, "```"]
    return {"index": "\n".join(index), **pages}


def _public(path: Path) -> bool:
    """Whether a module has any public function or class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)


def write_pages(app) -> None:
    """Generated pages, next to the others, rewritten only where they change."""
    folder = Path(app.srcdir)
    (folder / "api").mkdir(exist_ok=True)
    found = {"settings": settings_page(), **{f"api/{k}": v for k, v in api_pages().items()}}
    for name, text in found.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def show_titles(app, name: str, source: list[str]) -> None:
    """A block with a title is shown with the name of its file."""
    source[0] = re.sub(
        r'^```(\w+) title="([^"]+)"$', r"```{code-block} \1\n:caption: \2", source[0], flags=re.M
    )


def tell_what_is_not_run(app, name: str, source: list[str]) -> None:
    """A block that the tests leave out says so, and why, where readers see it."""
    source[0] = re.sub(
        r"^<!-- not run: (.+?) -->$", r"*Not run here: \1.*\n", source[0], flags=re.M
    )


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", show_titles)
    app.connect("source-read", tell_what_is_not_run)
