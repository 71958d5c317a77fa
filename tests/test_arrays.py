"""The unrolled sums and the ordinary operations are the same numbers, on both sides of the threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import _arrays as contractions


@pytest.mark.parametrize("shape", [(), (7,), (1, 3), (5, 5), (64, 3), (65, 3), (4, 2, 3)])
def test_sum_squares(shape):
    x = np.random.default_rng(0).normal(size=shape)
    found, slope = jax.value_and_grad(contractions.sum_squares)(jnp.asarray(x))
    np.testing.assert_allclose(found, (x**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * x, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3)])
def test_norm(shape, dtype):
    """Its slope is that of the norm, but 0 at 0, of the second order too."""
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    size, slope = jax.jit(jax.value_and_grad(contractions.norm))(x)
    assert size.dtype == slope.dtype == dtype
    np.testing.assert_allclose(size, np.linalg.norm(x), rtol=1e-6 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(slope, x / np.linalg.norm(x), rtol=1e-6 if dtype == np.float32 else 1e-12)
    nothing = jnp.zeros_like(x)
    assert contractions.norm(nothing) == 0
    for derivative in (jax.grad, jax.hessian):
        np.testing.assert_array_equal(derivative(contractions.norm)(nothing), 0)


@pytest.mark.parametrize("num_features", [1, 4, contractions.MAX_UNROLLED_TERMS, contractions.MAX_UNROLLED_TERMS + 1])
@pytest.mark.parametrize("num_agents", [1, 3, contractions.MAX_UNROLLED_TERMS + 1])
def test_sums(num_features, num_agents):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape))

    params, features = normal(num_agents, 2, num_features), normal(num_agents, num_features)
    expected = np.einsum("nij,mj->nmi", params, features)
    np.testing.assert_allclose(contractions.predictions(params, features), expected, rtol=1e-10, atol=1e-12)

    weighted = normal(num_agents, num_agents, 2)
    arrived = normal(num_agents, num_agents, num_features)
    expected = np.einsum("nmi,nmj->nij", weighted, arrived)
    np.testing.assert_allclose(contractions.sum_outer(weighted, arrived), expected, rtol=1e-10, atol=1e-12)
    expected = np.einsum("nmi,mj->nij", weighted, features)
    np.testing.assert_allclose(contractions.sum_outer(weighted, features[None]), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(contractions.sum_last(arrived), arrived.sum(-1), rtol=1e-10, atol=1e-12)


def test_a_computation_asked_for_twice_is_made_once():
    """The step wants the predictions for its residuals, its observer for the losses."""

    def run(params, features, time):
        first = contractions.stored(contractions.predictions, params, features, time=time)
        again = contractions.stored(contractions.predictions, params, features, time=time)
        return first, jnp.exp(again)

    arguments = jnp.ones((4, 2, 3)), jnp.ones((4, 3)), jnp.array(1)
    program = jax.jit(run).lower(*arguments).compile().as_text()
    assert program is not None
    assert program.count(" conditional(") == 1
    np.testing.assert_array_equal(run(*arguments)[0], 3.0)
