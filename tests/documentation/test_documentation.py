"""Every example of the documentation runs, every page is in the navigation, links lead on."""

import re

import pytest
from documentation.pages import DOCS, examples, play

GENERATED = ("settings.md", "api")
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in GENERATED)
NAMES = [str(page.relative_to(DOCS)) for page in PAGES]
RUNNING = [page for page in PAGES if examples(page)]


def test_every_page_is_in_the_navigation():
    trees = re.findall(r"```{toctree}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    named = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    written = [name for name in named if name not in ("settings", "api/index")]
    assert sorted(f"{name}.md" for name in ("index", *written)) == NAMES


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        generated = path.is_relative_to(DOCS) and path.relative_to(DOCS).parts[0] in GENERATED
        assert "://" in target or generated or path.exists(), target


@pytest.mark.docs
@pytest.mark.parametrize("page", RUNNING, ids=[str(p.relative_to(DOCS)) for p in RUNNING])
def test_examples_run(page, tmp_path):
    play(page, tmp_path)
