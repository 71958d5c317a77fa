"""The README's example runs, its commands are those of .ci/run, and it is short."""

import re
from pathlib import Path

import numpy as np

from tests.pages import broken_links

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line) for line in example.splitlines()) <= 10
    names = {}
    exec(example, names)
    assert names["regret"].shape == (3, 10)
    average = names["regret"].mean(axis=1) / np.array([10.0, 100.0, 1000.0])
    assert average[2] < average[1] < average[0]


def test_it_is_short_and_its_links_exist():
    assert len(README.splitlines()) <= 120
    assert not broken_links(ROOT / "README.md")


def test_ci_runs_the_readme_command_to_the_letter():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert any(command in (ROOT / ".ci" / "run").read_text() for command in commands)


def test_every_module_is_listed():
    for path in (ROOT / "damjax").glob("[a-z]*.py"):
        assert f"`{path.stem}`" in README, path.stem
