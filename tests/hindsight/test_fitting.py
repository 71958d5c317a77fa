from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from damjax.hindsight import best_fit, best_in_hindsight
from damjax.recall import memories

N, T = 3, 40
WEIGHTS = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])


def problem():
    rng = np.random.default_rng(0)
    stream = damjax.Associations(jnp.asarray(rng.normal(size=(T, N, 2))), jnp.asarray(rng.normal(size=(T, N, 2))))
    return stream, damjax.domains.frobenius_ball(0.7)


def test_of_a_convex_memory_the_fit_is_the_best_in_hindsight():
    """The linear memory, given as one of which nothing is known, against its closed form."""
    stream, ball = problem()
    memory = memories.linear(2, 2)
    general = damjax.objectives.of_memory(memory.apply, damjax.objectives.delta_net().loss)
    starts = jnp.asarray(np.random.default_rng(1).normal(size=(2, N, 2, 2)))
    fit = best_fit(general, WEIGHTS, ball, stream, starts, optimizer=optax.sgd(0.3), num_iterations=200)
    best = best_in_hindsight(memory.objective(), WEIGHTS, ball, stream, [T])
    np.testing.assert_allclose(fit.loss, best.loss[0], rtol=1e-10)
    np.testing.assert_allclose(fit.params, best.params[0], atol=1e-6)
    np.testing.assert_allclose(fit.losses, jnp.broadcast_to(best.loss, (2, N)), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_best_iterate_of_the_best_start_counts(dtype):
    """A rate so large that training goes up and down; the loss told is that of the memories told."""
    stream, ball = problem()
    stream = jax.tree.map(lambda field: field.astype(dtype), stream)
    memory = memories.mlp(2, 2, width=4)
    starts = jax.vmap(jax.vmap(memory.init))(jax.random.split(jax.random.key(0), (3, N)))
    starts = jax.tree.map(lambda leaf: leaf.astype(dtype), starts)
    train = partial(best_fit, memory.objective(), WEIGHTS, ball, stream, starts, optimizer=optax.adam(0.5))
    fit = train(num_iterations=30)
    trace = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (T, *leaf.shape)), fit.params)
    losses = damjax.regret.personalized_losses(memory.objective(), WEIGHTS, trace, stream).sum(axis=0)
    np.testing.assert_allclose(fit.loss, losses, rtol=1e-4 if dtype == "float32" else 1e-10)
    np.testing.assert_array_equal(fit.loss, fit.losses.min(axis=0))
    assert jax.vmap(ball.contains)(fit.params).all()
    shorter = train(num_iterations=10)
    assert (fit.losses <= shorter.losses).all()
    assert fit.loss.dtype == dtype


def test_starts_without_an_axis_of_starts_are_refused():
    stream, ball = problem()
    memory = memories.mlp(2, 2, width=4)
    starts = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    with pytest.raises(ValueError, match="starts must hold memories of 3 agents"):
        best_fit(memory.objective(), WEIGHTS, ball, stream, starts, optimizer=optax.sgd(0.1), num_iterations=2)


def test_regret_against_another_run_is_the_difference_of_their_losses():
    rng = np.random.default_rng(2)
    losses, reference = rng.normal(size=(2, T, N))
    regret = damjax.regret.regret_against(losses, reference, [1, 7, T])
    expected = [losses[:h].sum(axis=0) - reference[:h].sum(axis=0) for h in (1, 7, T)]
    np.testing.assert_allclose(regret, expected, rtol=1e-12)


@pytest.mark.usefixtures("untyped")
def test_runs_that_do_not_compare_are_refused():
    losses = reference = np.ones((T, N))
    with pytest.raises(ValueError, match="reference must be losses"):
        damjax.regret.regret_against(losses, reference[1:], [3])
    with pytest.raises(ValueError, match="horizons must be at most"):
        damjax.regret.regret_against(losses, reference, [T + 1])
