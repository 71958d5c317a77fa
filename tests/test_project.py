"""What the project declares of itself agrees with what it does."""

import importlib.metadata
import json
import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

import damjax
from damjax._compiler import LAST_RIGHT_JAXLIB
from tests import children

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


UNINSTALLED = """
import importlib.metadata
find = importlib.metadata.version

def version(package):
    if package == "damjax":
        raise importlib.metadata.PackageNotFoundError(package)
    return find(package)

importlib.metadata.version = version
import sys
import damjax, jax
assert "matplotlib" not in sys.modules
found = damjax.sweep(lambda key, rho: rho, keys=jax.random.split(jax.random.key(0), 2), rho=[1.0], store=sys.argv[1])
color = damjax.plotting.STYLES[0]["color"]
from pathlib import Path
from matplotlib.figure import Figure
from paper_figs import output
output.save("none", Figure(), {"": [{"a": 1}]}, {}, Path(sys.argv[1]) / "figures")
print(damjax.__version__, color, hasattr(damjax, "nothing"))
"""


def test_a_checkout_runs_that_is_not_installed(tmp_path):
    """Its version is in one place; and plotting is there when it is first named, and matplotlib not before."""
    done = children.run([sys.executable, "-W", "ignore", "-c", UNINSTALLED, str(tmp_path / "store")], timeout=300)
    assert done.stdout.split() == [damjax.__version__, "#000000", "False"]
    assert damjax.__version__ == importlib.metadata.version("damjax")


def test_the_version_is_the_same_wherever_it_is_told():
    version = damjax.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "docs" / "citing.md").read_text()
    assert f"## {version} (" in (ROOT / "CHANGELOG.md").read_text()


def test_the_published_figures_were_made_by_the_locked_packages():
    lock = (ROOT / "paper_figs" / "published" / "requirements.txt").read_text()
    for record in (ROOT / "paper_figs" / "published").glob("*/*.json"):
        versions = json.loads(record.read_text())["versions"]
        assert f"Python {versions.pop('python')}," in lock
        del versions["damjax"]
        for package, version in versions.items():
            assert f"\n{package}=={version}\n" in lock, (record, package)
