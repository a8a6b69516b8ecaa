"""The house plan, enforced: every rule holds for every file, and every rule can fail."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import architecture_rules as rules

ROOT = Path(__file__).parent.parent
FILES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "alj").rglob("*.py"))
}
TREES = {path: ast.parse(text) for path, text in FILES.items()}


@pytest.mark.parametrize("rule", rules.OF_TREES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule):
    assert [line for path, tree in TREES.items() for line in rule(path, tree)] == []


def test_no_file_is_longer_than_one_idea():
    assert [line for path, text in FILES.items() for line in rules.length(path, text)] == []


@pytest.mark.parametrize("module", ["jax_md.simulate", "jax_md.partition"])
def test_one_adapter_for_what_has_traps(module):
    assert len(rules.files_that_import(module, TREES)) <= 1


def test_every_file_says_what_it_is():
    for path, tree in TREES.items():
        if FILES[path].strip():
            assert ast.get_docstring(tree), f"{path} has no docstring"


BAD = [
    (rules.floors, "alj/geometry/x.py", "from alj.potentials import combine"),
    (rules.floors, "alj/training/x.py", "import alj.sampling.nested"),
    (rules.floors, "alj/campaign/x.py", "from alj.monitor.pages import write_report"),
    (rules.floors, "alj/types.py", "from alj.geometry import periodic"),
    (rules.floors, "alj/training/x.py", "from . import losses"),
    (rules.floors, "alj/training/x.py", "from alj.unknown import x"),
    (rules.floors, "alj/cellar/x.py", "import numpy"),
    (rules.floors, "alj/monitor/x.py", "def f():\n    from alj.cli import main"),
    (rules.purity, "alj/sampling/x.py", "import ase.io"),
    (rules.purity, "alj/arrays.py", "from pathlib import Path"),
    (rules.purity, "alj/analysis/x.py", "def f():\n    import logging"),
    (rules.purity, "alj/selection/x.py", "with open('x') as file: pass"),
    (rules.no_print, "alj/cli/x.py", "print('hello')"),
    (rules.no_global_config, "alj/campaign/x.py", "jax.config.update('jax_enable_x64', True)"),
    (rules.no_global_config, "alj/training/x.py", "config.update('jax_enable_x64', True)"),
    (rules.no_global_random, "alj/sampling/x.py", "import random"),
    (rules.no_global_random, "alj/sampling/x.py", "np.random.seed(0)"),
    (rules.no_global_random, "alj/sampling/x.py", "x = numpy.random.normal(size=3)"),
    (rules.no_global_random, "alj/sampling/x.py", "from numpy.random import rand"),
    (rules.no_future_annotations, "alj/units.py", "from __future__ import annotations"),
    (rules.no_pickle, "alj/campaign/x.py", "import pickle"),
    (rules.no_pickle, "alj/campaign/x.py", "from pickle import loads"),
    (rules.no_pickle, "alj/campaign/x.py", "np.load(path, allow_pickle=True)"),
    (rules.engines_inside_functions, "alj/labeling/x.py", "import tblite.ase"),
]
GOOD = [
    (rules.floors, "alj/campaign/x.py", "from alj.training import fit\nimport alj.types"),
    (rules.floors, "alj/registry.py", "from alj.types import BadInput"),
    (rules.purity, "alj/campaign/x.py", "from pathlib import Path\nopen('x')"),
    (rules.no_global_config, "alj/cli/x.py", "jax.config.update('jax_enable_x64', True)"),
    (rules.no_global_config, "alj/campaign/x.py", "settings.update(x)\nmy.config.update({})"),
    (rules.no_global_random, "alj/sampling/x.py", "np.random.default_rng(0)\njax.random.key(0)"),
    (rules.no_pickle, "alj/campaign/x.py", "np.load(path, allow_pickle=False)"),
    (rules.no_pickle, "alj/campaign/x.py", "from pickle import PicklingError"),
    (rules.engines_inside_functions, "alj/labeling/x.py", "def f():\n    import tblite.ase"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_the_rule_finds_what_breaks_it(rule, path, text):
    assert rule(path, ast.parse(text))


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_the_rule_lets_good_code_pass(rule, path, text):
    assert rule(path, ast.parse(text)) == []


def test_the_other_rules_find_what_breaks_them():
    assert rules.length("alj/x.py", "\n" * 401)
    assert not rules.length("alj/x.py", "\n" * 400)
    trees = {
        "a": ast.parse("from jax_md import simulate"),
        "b": ast.parse("import jax_md.simulate"),
    }
    assert rules.files_that_import("jax_md.simulate", trees) == ["a", "b"]
