"""Every page of docs/ runs as a reader would paste it, block after block, and can be copied from."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.pages import broken_links, private_names

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```\n", re.DOTALL)
LONGEST = 840  # seconds
over_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


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
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-W", "error::UserWarning", "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LONGEST + 60,
    )
    assert done.returncode == 0, done.stderr


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


@over_pages
def test_links_exist(page):
    assert not broken_links(page)
