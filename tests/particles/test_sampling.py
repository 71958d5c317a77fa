"""Minibatches and noisy labels follow their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import particles
from damjax.particles import sampling
from tests.particles.cases import PROBLEM, random_instance


@pytest.mark.long
def test_minibatches_have_the_right_law():
    _, _, problem = random_instance(jax.random.key(0), 4, 3)
    soft = sampling.with_label_noise(problem, 0.6)
    batches = sampling.minibatches(jax.random.key(1), soft, 5)
    drawn = jax.jit(jax.vmap(batches))(jnp.arange(4000))
    joint = drawn.frequencies[:, :, None] * drawn.targets
    np.testing.assert_allclose(joint.sum((1, 2)), 1, rtol=1e-12)
    np.testing.assert_allclose(joint * 5, jnp.round(joint * 5), atol=1e-12)
    expected = soft.frequencies[:, None] * soft.targets
    error = jnp.sqrt(expected * (1 - expected) / (4000 * 5))
    assert jnp.all(jnp.abs(joint.mean(0) - expected) < 4.5 * error)
    np.testing.assert_array_equal(batches(7).targets, drawn.targets[7])
    # Labels drawn anew for every token keep the frequencies.
    labels = jax.jit(jax.vmap(sampling.noisy_labels(jax.random.key(2), soft)))(jnp.arange(4000))
    np.testing.assert_allclose(labels.frequencies, jnp.broadcast_to(soft.frequencies, (4000, 4)), rtol=1e-12)
    assert set(np.unique(labels.targets)) == {0.0, 1.0}
    assert jnp.all(jnp.abs(labels.targets.mean(0) - soft.targets) < 4.5 * jnp.sqrt(0.25 / 4000))


def test_minibatch_gradients_are_unbiased():
    _, _, problem = random_instance(jax.random.key(0), 4, 3)
    batches = sampling.minibatches(jax.random.key(1), problem, 3)
    scores = jax.random.normal(jax.random.key(2), (4, 3))
    moves = jax.jit(jax.vmap(lambda t: particles.step(scores, batches(t), 1.0)))(jnp.arange(6000)) - scores[None]
    full = particles.step(scores, problem, 1.0) - scores
    np.testing.assert_array_less(jnp.abs(moves.mean(0) - full), 5 * moves.std(0) / np.sqrt(6000) + 1e-12)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.with_label_noise(PROBLEM, np.ones(2) / 2), "noise must be one number"),
        (lambda: sampling.with_label_noise(PROBLEM, 1.5), "noise must lie in"),
        (lambda: sampling.minibatches(jax.random.key(0), PROBLEM, 0), "batch_size must be a positive integer"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
