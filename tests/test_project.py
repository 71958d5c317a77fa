"""What the project demands of its own source, format, lint and types; and of the compiler it stands on."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["pyright", "--pythonpath", sys.executable],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_source(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_compiler_sums_products_right(dtype):
    """Some releases of jaxlib do not, on CPUs: jax issue 39103, and a product with a constant matrix."""
    rng = np.random.default_rng(0)
    weights, factors = rng.uniform(size=(80, 4, 4)).astype(dtype), rng.normal(size=(80, 4, 14)).astype(dtype)
    vectors = rng.normal(size=(40_000, 3)).astype(dtype)

    @jax.jit
    def compute(weights, factors, vectors, scale):
        constant = jnp.full((4, 14), scale, dtype)
        return ((weights @ constant) * factors).sum(axis=-1), ((jnp.eye(3, dtype=dtype) @ vectors.T).T ** 2).sum(axis=1)

    wanted = (0.5 * weights.sum(axis=-1) * factors.sum(axis=-1), (vectors**2).sum(axis=1))
    for found, expected in zip(compute(weights, factors, vectors, 0.5), wanted, strict=True):
        np.testing.assert_allclose(
            found,
            expected,
            rtol=2e-4,
            atol=1e-4,
            err_msg=f"jaxlib {version('jaxlib')} computes wrong sums here; install one that pyproject.toml allows",
        )
