"""Memories that parameterise W, against W itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import particles
from tests.particles.cases import random_instance


def test_layer_norm_of_extreme_rows():
    rows = np.array([[1e7, 1e7 + 1, 1e7 + 2], [1e20, 0, 1], [1e30, -1e30, 0], [1e-3, 2e-3, 0]], np.float32)
    wide = rows.astype(float) - rows.astype(float).mean(axis=1, keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(particles.layer_norm(jnp.asarray(rows)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_low_rank_of_full_rank_and_single_blocks_start_as_the_full_memory():
    inputs, outputs, problem = random_instance(jax.random.key(0), 5, 4)
    full = particles.full(inputs, outputs)
    one_block = particles.block_diagonal(inputs[:, :4], outputs, 1)
    W = full.init(jax.random.key(0))
    np.testing.assert_allclose(one_block.gradient(W[None], problem)[0], full.gradient(W, problem), rtol=1e-12)
    # On average over P the first step of P Q' is that of W: dL/dQ' = P' dL/dW, and E[P P'] = I.
    low = particles.low_rank(inputs, outputs, 3)

    def first_step(key):
        factors = low.init(key)
        return factors.left @ low.gradient(factors, problem).right.T

    steps = jax.jit(jax.vmap(first_step))(jax.random.split(jax.random.key(1), 4000))
    difference = jnp.abs(steps.mean(0) - full.gradient(W, problem))
    assert jnp.all(difference < 5 * steps.std(0) / np.sqrt(4000) + 1e-12)


def test_blocks_are_a_matrix_with_zeros_outside():
    inputs, outputs, problem = random_instance(jax.random.key(0), 5, 5)
    inputs = jnp.concatenate([inputs, inputs[:, :1]], axis=1)
    blocks = jax.random.normal(jax.random.key(1), (2, 3, 3))
    memory, full = particles.block_diagonal(inputs, outputs, 2), particles.full(inputs, outputs)
    matrix = jax.scipy.linalg.block_diag(*blocks)
    np.testing.assert_allclose(memory.scores(blocks), full.scores(matrix), rtol=1e-12)
    gradient = full.gradient(matrix, problem)
    expected = jnp.stack([gradient[:3, :3], gradient[3:, 3:]])
    np.testing.assert_allclose(memory.gradient(blocks, problem), expected, rtol=1e-10, atol=1e-14)


def test_layer_norm():
    rows = jax.random.normal(jax.random.key(0), (4, 64)) * 3 + 1
    normal = particles.layer_norm(rows)
    np.testing.assert_allclose(normal.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(normal, axis=1), 8, rtol=1e-4)
    inputs, outputs, _ = random_instance(jax.random.key(0), 4, 3)
    memory = particles.normalized_scores(particles.full(inputs, outputs), 2.5)
    matrix = jax.random.normal(jax.random.key(1), (4, 3))
    scores = memory.scores(matrix)
    np.testing.assert_allclose(jnp.std(scores, axis=1), 2.5, rtol=1e-3)
    np.testing.assert_allclose(memory.scores(7 * matrix), scores, rtol=1e-3)
    assert jnp.abs(scores).max() <= 2.5 * np.sqrt(3)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.normalized_scores(particles.particle_system(3, 2)), "memory must parameterise W"),
        (lambda: particles.block_diagonal(np.ones((3, 4)), np.ones((2, 4)), 3), "num_blocks must divide"),
        (lambda: particles.low_rank(np.ones((3, 4)), np.ones((2, 4)), 0), "rank must be a positive integer"),
        (lambda: particles.full(np.ones(3), np.ones((2, 4))), "inputs must have one embedding a row"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
