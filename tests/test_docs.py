"""Every page of docs/ runs as a reader would paste it, block after block, and can be copied from.

That links and anchors lead somewhere is tried where the site is built, strictly.
"""

import os
import pkgutil
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import damjax
from paper_figs.__main__ import FIGURES, main
from tests import children
from tests.pages import private_names

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```\n", re.DOTALL)
LONGEST = 840  # seconds
over_pages = pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")], ids=lambda page: page.stem
)


class Block(NamedTuple):
    """A piece of code of a page: its first line, and itself."""

    line: int
    code: str


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in BLOCK.finditer(text)]


def run(page, pieces, folder):
    """All of them in one interpreter of the user's kind: single precision, no type checks, warnings as errors."""
    # Empty lines before each, so that a traceback names the line of the page.
    sources = ["\n" * (block.line - 1) + block.code for block in pieces]
    # One that hangs says where.
    watch = f"import faulthandler; faulthandler.dump_traceback_later({LONGEST}, exit=True)"
    program = "\n".join([watch, *(f"exec(compile({source!r}, {str(page)!r}, 'exec'))" for source in sources)])
    command = [sys.executable, "-W", "error::RuntimeWarning", "-W", "error::UserWarning", "-c", program]
    children.run(command, timeout=LONGEST + 60, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=folder)


@pytest.mark.long
@over_pages
def test_blocks_run_one_after_the_other(page, tmp_path):
    run(page, blocks(page), tmp_path)


@over_pages
def test_blocks_can_be_copied(page):
    """They are short, say what they claim, and import nothing private."""
    pieces = blocks(page)
    assert pieces
    # None is overlooked for how its fence is written.
    assert len(pieces) == page.read_text(encoding="utf-8").count("```python")
    for block in pieces:
        assert len(block.code.splitlines()) < 30, block.line
        assert not private_names(block.code), block.line


def shell_lines(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", [*PAGES, ROOT / ".github" / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_commands_are_those_that_are_run(page):
    """By .ci/run and what it calls, to the letter, or by the tests of the command line."""
    run = "\n".join((ROOT / ".ci" / name).read_text() for name in ("run", "release"))
    for line in shell_lines(page):
        if line.startswith("python -m paper_figs"):
            words = line.split()[3:]
            assert main([*words, "--list"]) == 0
            assert {word for word in words if word.isidentifier()} <= FIGURES.keys()
        elif line != "pip install damjax":  # .ci/release installs the wheel itself
            parts = [part.replace("NO_MKDOCS_2_WARNING=1 ", "") for part in line.split(" && ")]
            assert all(part in run.replace(" --quiet", "") for part in parts), line


def test_every_module_has_its_page():
    """With the navigation's line, and every figure its picture."""
    documented = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    navigation = (ROOT / "docs" / "site" / "mkdocs.yml").read_text()
    for module in pkgutil.iter_modules(damjax.__path__):
        if not module.name.startswith("_"):
            assert re.search(rf"^::: damjax\.{module.name}\b", documented, re.MULTILINE), module.name
            assert f"damjax.{module.name}: api/{module.name}.md" in navigation
    for page in [*PAGES, *(ROOT / "notebooks").glob("*.ipynb")]:
        if page.parent.name != "site":
            assert str(page.relative_to(ROOT)).removeprefix("docs/").replace(".ipynb", ".md") in navigation, page
    assert {path.stem for path in (ROOT / "docs" / "gallery").glob("*.png")} == FIGURES.keys()
