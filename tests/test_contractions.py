"""The unrolled sums and the ordinary operations are the same numbers, on both sides of the threshold."""

import jax.numpy as jnp
import numpy as np
import pytest

from damjax import _contractions as contractions


@pytest.mark.parametrize("num_features", [1, 4, contractions.MAX_UNROLLED_TERMS, contractions.MAX_UNROLLED_TERMS + 1])
@pytest.mark.parametrize("num_agents", [1, 3, contractions.MAX_UNROLLED_TERMS + 1])
def test_sums(num_features, num_agents):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape))

    params, features = normal(num_agents, 2, num_features), normal(num_agents, num_features)
    expected = np.einsum("nij,mj->nmi", params, features)
    np.testing.assert_allclose(contractions.predictions(params, features), expected, rtol=1e-10, atol=1e-12)

    weights, residuals = normal(num_agents, num_agents), normal(num_agents, num_agents, 2)
    arrived = normal(num_agents, num_agents, num_features)
    expected = np.einsum("nm,nmi,nmj->nij", weights, residuals, arrived)
    np.testing.assert_allclose(contractions.aggregate(weights, residuals, arrived), expected, rtol=1e-10, atol=1e-12)
    expected = np.einsum("nm,nmi,mj->nij", weights, residuals, features)
    shared = contractions.aggregate(weights, residuals, features[None])
    np.testing.assert_allclose(shared, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(contractions.sum_last(arrived), arrived.sum(-1), rtol=1e-10, atol=1e-12)
