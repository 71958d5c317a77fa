"""What the library asks of the compiler: right sums, in the forms in which it writes them, and loops that write in place."""

import subprocess
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.version import Version

import damjax
from damjax._contractions import LAST_RIGHT_JAXLIB
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
