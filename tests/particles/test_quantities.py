"""Losses, margins and errors are what they say, in every precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from damjax import particles
from damjax.particles.quantities import residuals
from tests.particles.cases import PROBLEM


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_log_odds_keep_their_precision(num_classes):
    scores = jax.random.normal(jax.random.key(0), (50, num_classes)) * jnp.geomspace(1e-2, 1e2, 50)[:, None]
    exact = jax.scipy.special.logit(jax.nn.softmax(scores[:20]))
    odds = jax.jit(particles.log_odds)
    np.testing.assert_allclose(odds(scores)[:20], exact, rtol=1e-7, atol=1e-7)
    single = odds(scores.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, odds(scores), rtol=1e-5, atol=1e-5)
    # softmax in float32 would stop at 17: these particles still move, with the right speed.
    problem = particles.Problem(np.eye(1), np.eye(num_classes), np.ones(1), particles.one_hot([0], num_classes)).astype(
        jnp.float32
    )
    sure = jnp.zeros((1, num_classes), jnp.float32).at[0, 0].set(40.0)
    loss, gradient = jax.jit(jax.value_and_grad(particles.loss))(sure, problem)
    assert loss == pytest.approx((num_classes - 1) * np.exp(-40), rel=1e-5)
    assert gradient[0, 0] == pytest.approx(-(num_classes - 1) * np.exp(-40), rel=1e-5)


SCORES = np.array(
    [
        [88.0, 20, -20],
        [-88, 40, 0],
        [1e-30, -1e-8, 0],
        [17, 1e-3, 16],
        [1e6, 1e6, 1e6 - 1],  # a logarithm of 2 is lost beside 1e6
        [1e6 - 1, 1e6, 1e6],
        [1e38, 0, -1e38],
        [-1e38, 0, 1e38],
        [0, -np.inf, 1],
    ],
    np.float32,
)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.2])
def test_losses_and_forces_in_single_precision(noise):
    """Against float64, in which one minus the rest is written as the sum of the others."""
    targets = np.array([1 - noise, 0.75 * noise, 0.25 * noise], np.float32)
    problem = particles.Problem(np.eye(1), np.eye(3), np.ones(1), targets[None])

    def both(scores):
        loss, gradient = jax.value_and_grad(particles.loss)(scores[None], problem)
        return loss, gradient[0], residuals(scores[None], problem)[0]

    loss, gradient, forces = jax.jit(jax.vmap(both))(jnp.asarray(SCORES))
    assert loss.dtype == forces.dtype == jnp.float32
    wide, soft = SCORES.astype(float), targets.astype(float)
    against = np.stack([logsumexp(np.delete(wide, j, 1) - wide[:, [j]], axis=1) for j in range(3)], axis=1)
    expected = np.where(soft == 0, 0, np.logaddexp(0, against)) @ soft
    representable = expected < 3e38
    np.testing.assert_allclose(loss[representable], expected[representable], rtol=1e-5, atol=1e-37)
    assert np.isinf(loss[~representable]).all()
    missing = soft[1:] - np.exp(-np.logaddexp(0, against[:, 1:]))
    pull = np.concatenate([-missing.sum(axis=1, keepdims=True), missing], axis=1)
    np.testing.assert_allclose(forces, pull, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(-gradient[representable], pull[representable], rtol=1e-5, atol=1e-37)


def test_scores_that_are_lost_recall_nothing():
    problem = particles.two_tokens(0.5, 0.75)
    lost = jnp.array([[1.0, jnp.nan], [0.0, 1.0]])
    assert particles.recalled(lost, problem).tolist() == [False, True]
    # And no number is made of them.
    numbers = (particles.error_rate, particles.loss, lambda *both: particles.margins(*both)[0])
    assert np.isnan([number(lost, problem) for number in numbers]).all()
    # Ties go to the first class, whose margin is zero then.
    assert particles.recalled(jnp.zeros((2, 2)), problem).tolist() == [True, False]
    assert particles.margins(jnp.zeros((2, 2)), problem).tolist() == [0, 0]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.loss(jnp.zeros((4, 3, 2)), PROBLEM), "for many, such as a trajectory, use jax.vmap"),
        (lambda: particles.margins(np.zeros((3, 2), int), PROBLEM), "scores must be floating-point"),
        (lambda: particles.error_rate(jnp.zeros((2, 3, 2)), PROBLEM), "scores must have one row a token"),
        (lambda: particles.log_odds(jnp.zeros((2, 3, 2))), r"scores must have shape \(N, M\)"),
        (lambda: particles.loss(jnp.zeros((3, 2)), None), "problem must be of type Problem"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
