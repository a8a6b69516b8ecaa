"""Runs the examples of a page: commands, Python, and the configurations that they read.

A block ```yaml title="NAME" is written to a file of that name, ```sh runs in bash, which ends at
the first command that fails, ```python runs in an interpreter of its own: one after the other, as
they stand on the page, in one folder. What cannot run in a test has a line before it that says so:
<!-- not run: why -->.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"(?P<skipped><!-- not run: [^\n]+ -->\n)?"
    r"^```(?P<kind>\w*)(?P<about>[^\n]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r'title="([^"]+)"')


class Example(NamedTuple):
    """A block of a page: what it is, the file that it is written to, and where it begins."""

    kind: str
    title: str | None
    text: str
    line: int


def examples(page: Path) -> list[Example]:
    """What runs, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match["about"])
        runs = match["kind"] in ("sh", "python") or (match["kind"] == "yaml" and title)
        if runs and not match["skipped"]:
            line = text.count("\n", 0, match.start("kind")) + 1
            found.append(Example(match["kind"], title and title[1], match["text"], line))
    return found


def play(page: Path, folder: Path) -> None:
    """Run a page in a folder. Raises AssertionError with the output of the block that failed."""
    for name in ("configs", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }
    for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    for example in examples(page):
        if example.title:
            path = folder / example.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(example.text)
        if example.kind == "yaml":
            continue
        shell = ["bash", "-eo", "pipefail", "-c", example.text]
        command = shell if example.kind == "sh" else [sys.executable, "-c", example.text]
        if example.title:
            continue  # a module that a later block imports
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
        )
        where = f"{page.relative_to(ROOT)}:{example.line}"
        assert done.returncode == 0, f"{where}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
