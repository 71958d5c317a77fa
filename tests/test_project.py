"""What the project declares of itself agrees with what it does."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from damjax._contractions import LAST_RIGHT_JAXLIB

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_jaxlib_is_capped_at_the_last_release_that_sums_rightly():
    """In pyproject.toml, and in what is installed, which pip reads."""
    for line in (*PROJECT["dependencies"], *(requires("damjax") or [])):
        wanted = Requirement(line)
        if wanted.name == "jaxlib":
            assert wanted.specifier.contains(LAST_RIGHT_JAXLIB)
            for wrong in ("0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1"):
                assert not wanted.specifier.contains(wrong)


def test_every_dependency_has_a_floor_that_ci_can_pin():
    for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["sweeps"]):
        assert re.match(r"[\w-]+>=[\w.]+", line), line
