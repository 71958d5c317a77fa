"""Types are checked at run time, and the tests see both precisions: float64 is on, float32 is asked for by name.

At test size the compiler takes most of the time, so it does without most of XLA's optimisations, but where a test is
marked ``optimized``: kernels, and last digits.
"""

import os
import shutil
import tempfile

import jaxtyping

jaxtyping.install_import_hook("damjax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# What promotes in silence hides mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("damjax", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("damjax")


CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config):
    """What one worker or child of a test has compiled, the others read: one cache for the time of the tests."""
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="damjax-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(autouse=True)
def _float64(request):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimized") is None)
    yield
    # Not back to what was before: a fixture of a whole module may have switched it on, and doctests run in single.
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def untyped():
    """Leave bad shapes to the library's own checks, as users without the run-time type checker do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
