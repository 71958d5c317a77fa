"""What the library asks of the compiler: right sums, in the forms in which it writes them, and writes in place."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import pytest
from packaging.version import Version

from damjax._compiler import LAST_RIGHT_JAXLIB, sums_go_wrong
from tests import children
from tests.canary import SIZES, SUMS, TOLERANCE, errors, mappings, sizes_of, wrong

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("untyped")]
CAPPED = Version(version("jaxlib")) <= Version(LAST_RIGHT_JAXLIB)
ROOT = Path(__file__).parent.parent


def test_sums_and_writes_as_users_compile_them():
    """In a child without the settings that make tests quick; what the library avoids goes wrong past the cap only."""
    settings = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, "-W", "ignore", "-m", "tests.canary"]
    done = children.run(command, timeout=600, env=environment)
    assert not CAPPED or "avoids 0 of" in done.stdout, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SUMS)
def test_every_sum_is_right_at_every_size(name, dtype):
    assert not [line for size in sizes_of(name, dtype) for line in wrong(name, SUMS[name], size, dtype)]


def test_a_wrong_sum_is_noticed():
    """The tests above fail where they should: a mapping that spoils its last run is found in every kind of entry."""

    def spoiled(compute):
        return lambda *arguments: jax.tree.map(lambda x: x.at[-1].add(0.01), jax.vmap(compute)(*arguments))

    for name in ("total", "losses, delta_net"):
        assert errors(SUMS[name], {"spoiled": spoiled}, SIZES[2], "float64")["spoiled"] > 1e-4
    assert len(mappings(jax.device_count())) >= 2


def warnings_of_import(environment):
    code = "import warnings; warnings.simplefilter('always'); import damjax; import damjax.sweeps, damjax"
    done = children.run([sys.executable, "-c", code], timeout=300, env=os.environ | environment)
    return done.stderr.count("compiles some sums of products wrongly on CPUs")


def test_import_warns_once_of_a_compiler_that_is_wrong_and_never_of_a_right_one():
    assert warnings_of_import({"JAX_PLATFORMS": "cpu"}) == (0 if CAPPED else 1)
    assert warnings_of_import({"JAX_PLATFORMS": "cuda,cpu"}) == 0


@pytest.mark.parametrize(
    ("jaxlib", "platforms", "with_plugins", "expected"),
    [
        ("0.10.1", "cpu", False, False),
        ("0.9.0.1", None, False, False),
        ("0.10.2", "cpu", False, True),
        ("0.11.1", None, False, True),
        ("0.12.0.1", "", False, True),
        ("0.12.0.1", None, True, False),
        ("0.12.0.1", "cpu", True, True),
        ("0.12.0.1", "cuda,cpu", True, False),
        ("1.0.0", "cpu,cuda", True, True),
    ],
)
def test_whose_sums_go_wrong(jaxlib, platforms, with_plugins, expected):
    assert sums_go_wrong(jaxlib, platforms, with_plugins=with_plugins) == expected
