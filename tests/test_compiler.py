"""What the library asks of the compiler: right sums, in the forms in which it writes them, and writes in place."""

import os
import subprocess
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import pytest
from packaging.version import Version

from damjax._contractions import LAST_RIGHT_JAXLIB, sums_go_wrong
from tests.canary import AVOIDED, SIZES, SUMS, TOLERANCE, errors, mappings, sizes_of, wrong

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("untyped")]
CAPPED = Version(version("jaxlib")) <= Version(LAST_RIGHT_JAXLIB)
SINGLE = [name for name, one in SUMS.items() if one.expected is not None]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SINGLE)
def test_single_sums_are_right(name, dtype):
    assert not wrong(name, SUMS[name], SIZES[0], dtype)


@pytest.mark.long
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SUMS)
def test_every_sum_is_right_at_every_size(name, dtype):
    assert not [line for size in sizes_of(name, dtype) for line in wrong(name, SUMS[name], size, dtype)]


@pytest.mark.skipif(not CAPPED, reason="past the cap of pyproject.toml; python -m tests.canary says which are wrong")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", AVOIDED)
def test_the_sums_of_others_are_right_too(name, dtype):
    assert not wrong(name, AVOIDED[name], SIZES[0], dtype)


def test_a_wrong_sum_is_noticed():
    """The tests above fail where they should: a mapping that spoils its last run is found in every kind of entry."""

    def spoiled(compute):
        return lambda *arguments: jax.tree.map(lambda x: x.at[-1].add(0.01), jax.vmap(compute)(*arguments))

    for name in ("total", "losses, delta_net"):
        assert errors(SUMS[name], {"spoiled": spoiled}, SIZES[2], "float64")["spoiled"] > 1e-4
    assert len(mappings(jax.device_count())) >= 2


def test_a_small_write_into_a_large_array_costs_what_is_written():
    """On jaxlib 0.11.1 it costs what is there: jax issue 40101, a factor of thousands for this loop (1.1 elsewhere)."""
    steps = jnp.arange(40_000.0, dtype=jnp.float32)

    def loop(keep):
        run = jax.jit(
            lambda steps: jax.lax.scan(lambda x, t: (x * 0.9 + t, x if keep else None), 0.0 * steps[0], steps)
        )
        jax.block_until_ready(run(steps))
        start = time.process_time()
        jax.block_until_ready([run(steps) for _ in range(3)])
        return time.process_time() - start

    assert loop(keep=True) < 100 * loop(keep=False)


def warnings_of_import(environment):
    code = "import warnings; warnings.simplefilter('always'); import damjax; import damjax.sweep, damjax"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
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
