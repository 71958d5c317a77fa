"""Sharpness against the eigenvalues of the Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from damjax import particles
from tests.particles.cases import random_instance


def test_memories_that_are_surely_wrong_are_curved():
    """f(m) f(-m) for both signs of m: 1 - f is 0 in float32 as soon as f is near 1."""
    margins = np.array([-70, -40, -17, -1, 0, 17, 40, 70], np.float32)
    problem = particles.Problem(np.eye(1), np.eye(2), np.ones(1), particles.one_hot([0], 2)).astype(jnp.float32)
    system = particles.particle_system(1, 2)

    def curvatures(margin):
        scores = jnp.stack([margin, jnp.zeros_like(margin)])[None]
        second = jax.grad(jax.grad(lambda x: particles.loss(scores.at[0, 0].set(x), problem)))(margin)
        return second, particles.sharpness(system, scores, problem, key=jax.random.key(0)) / 2

    expected = np.exp(-np.logaddexp(0, margins.astype(float)) - np.logaddexp(0, -margins.astype(float)))
    for curvature in jax.jit(jax.vmap(curvatures))(jnp.asarray(margins)):
        np.testing.assert_allclose(curvature, expected, rtol=1e-5)


@pytest.mark.long
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian():
    inputs, outputs, problem = random_instance(jax.random.key(4), 5, 4)
    options = {"num_iterations": 2000, "tolerance": 1e-12}

    def both(memory):
        """Sharpness by iteration, and all eigenvalues of the Hessian, as functions of the parameters."""

        def hessian(params):
            flat, rebuild = ravel_pytree(params)
            return jnp.linalg.eigvalsh(jax.hessian(lambda x: particles.loss(memory.scores(rebuild(x)), problem))(flat))

        iterate = lambda params, key: particles.sharpness(memory, params, problem, key=key, **options)  # noqa: E731
        return jax.jit(iterate), jax.jit(hessian)

    full, scores = particles.full(inputs, outputs), particles.particle_system(5, 3)
    matrix = jax.random.normal(jax.random.key(1), full.init(jax.random.key(0)).shape)
    find, eigenvalues = both(full)
    expected = float(eigenvalues(matrix)[-1])
    assert find(matrix, jax.random.key(2)) == pytest.approx(expected, rel=1e-8)
    assert both(scores)[0](full.scores(matrix), jax.random.key(2)) == pytest.approx(expected, rel=1e-6)
    assert particles.sharpness(full, matrix, problem, key=jax.random.key(2)) == pytest.approx(expected, rel=1e-3)
    # A product has negative curvature: at its saddle, zero, the eigenvalues come in pairs of both signs.
    low = particles.low_rank(inputs, outputs, 2)
    find, eigenvalues = both(low)
    saddle = jax.tree.map(jnp.zeros_like, low.init(jax.random.key(3)))
    for params in (saddle, jax.tree.map(lambda x: x + 0.1, saddle)):
        values = eigenvalues(params)
        assert values[0] < -0.1 * values[-1]
        for seed in range(3):
            assert find(params, jax.random.key(seed)) == pytest.approx(float(values[-1]), rel=1e-6)
    np.testing.assert_allclose(eigenvalues(saddle)[0], -eigenvalues(saddle)[-1], rtol=1e-9)
