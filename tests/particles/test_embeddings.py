"""Gram matrices and frequencies are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax.particles import embeddings


def test_embeddings():
    assert jnp.linalg.matrix_rank(embeddings.low_rank(jax.random.key(0), 6, 2)) == 2
    np.testing.assert_allclose(embeddings.toeplitz(0.5 ** jnp.arange(4.0))[0], [1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(embeddings.block(6, 2, 0.25)[3], [0, 0, 0, 1, 0.25, 0.25])
    np.testing.assert_allclose(jnp.diag(embeddings.wishart(jax.random.key(0), 5, 3)), 1)
    rows = embeddings.gaussian(jax.random.key(0), 4000, 5)
    assert jnp.sum(rows**2, 1).mean() == pytest.approx(1, abs=5 * np.sqrt(2 / 5 / 4000))
    pair = embeddings.pair(-0.3)
    np.testing.assert_allclose(pair @ pair.T, [[1, -0.3], [-0.3, 1]], atol=1e-12)
    np.testing.assert_allclose(
        embeddings.zipf(4, 2.0) * 1.0, np.array([1, 1 / 4, 1 / 9, 1 / 16]) / 1.4236111, rtol=1e-6
    )
    assert embeddings.two_point(5, 2, 0.8).tolist() == pytest.approx([0.4, 0.4, 0.2 / 3, 0.2 / 3, 0.2 / 3])
    assert embeddings.sphere(jax.random.key(0), 3, 4, dtype=jnp.float32).dtype == jnp.float32
    # Exactly what they are given, also next to 0 and 1.
    for overlap in jnp.array([1e-9, 0.3, 1 - 2.0**-24], jnp.float32):
        assert embeddings.block(4, 2, overlap)[0].tolist() == [1, float(overlap), 0, 0]
        height = np.sqrt((1 - float(overlap)) * (1 + float(overlap)))
        assert embeddings.pair(overlap)[1, 1] == pytest.approx(height, rel=2e-7)
    assert embeddings.zipf(3, jnp.float32(40.0))[2] == pytest.approx(3.0**-40, rel=1e-5)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embeddings.wishart(jax.random.key(0), 4, 0), "degrees must be a positive integer"),
        (lambda: embeddings.orthogonal(4, 3), "num_tokens must be at most dim"),
        (lambda: embeddings.pair(1.5), "alpha must lie in"),
        (lambda: embeddings.two_tokens(0.5, 1.5), "frequency must lie in"),
        (lambda: embeddings.block(5, 2, 0.5), "num_blocks must divide"),
        (lambda: embeddings.block(4, 2, -0.5), "correlation must lie in"),
        (lambda: embeddings.low_rank(jax.random.key(0), 3, 3), "rank must be below num_tokens"),
        (lambda: embeddings.zipf(3, -1.0), "exponent must be finite and non-negative"),
        (lambda: embeddings.two_point(3, 3, 0.5), "num_frequent must be below"),
        (lambda: embeddings.two_point(3, 1, 1.0), "share must lie in"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
