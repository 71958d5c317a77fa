"""Figures are made with the public API alone, and whoever uses a figure uses what is public of it."""

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = sorted(ROOT.glob("paper_figs/**/*.py"))


def imported(path):
    """Every name that a file imports, in full, and every attribute of a module of ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("damjax.", "paper_figs.")):
            yield ast.unparse(node)


def private(path, packages):
    names = (name.split(".") for name in imported(path))
    return [name for first, *name in names if first in packages and any(re.fullmatch("_[^_].*", part) for part in name)]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: str(path.relative_to(ROOT)))
def test_figures_import_only_what_is_public(path):
    assert not private(path, {"damjax", "paper_figs"})


def test_tests_import_only_what_is_public_of_figures():
    files = itertools.chain(ROOT.glob("tests/**/*.py"), ROOT.glob("damjax/**/*.py"))
    assert not [path for path in files if private(path, {"paper_figs"})]
