"""Types are checked at run time, and the tests see both precisions: float64 is on, float32 is asked for by name.

At test size tracing and compiling take most of the time. So the compiler does without most of XLA's optimisations, but
where a test is marked ``optimized``, and by the emitters that are quickest to compile; children of tests do as well.
"""

import gc
import os
import shutil
import tempfile
from importlib.metadata import version

import jaxtyping

CACHE = "JAX_COMPILATION_CACHE_DIR"
# Workers use all cores already, and XLA's pool of threads can wait for itself: a run that never ended was seen twice in
# some thousand runs of tests on two cores.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
# Of flags of XLA no release takes one that it does not know; those past the cap do not know the first.
QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# In the environment, for workers and for children of tests too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Programs are many small objects that live long: looking for cycles among them takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)

jaxtyping.install_import_hook("damjax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from damjax._compiler import sums_go_wrong  # noqa: E402

# What promotes in silence hides mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("damjax", deadline=None, derandomize=True, max_examples=12)
hypothesis.settings.load_profile("damjax")


def pytest_configure(config):
    """Before anything is compiled: the compiler's flags, and one cache for what any worker or child has compiled."""
    past_the_cap = sums_go_wrong(version("jaxlib"), "cpu", with_plugins=False)
    os.environ.setdefault("XLA_FLAGS", ONE_THREAD if past_the_cap else f"{ONE_THREAD} {QUICK_TO_COMPILE}")
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="damjax-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True))


@pytest.fixture(autouse=True)
def _float64(request):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimized") is None)
    yield
    # Not back to what was before: a fixture of a whole module may have switched it on, and doctests run in single.
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def untyped():
    """Leave bad shapes to the library's own checks, as users without the run-time type checker do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
