"""What is measured on the scores S (N, M) of a memory: loss, margins, errors; every function is pure and vmappable."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from damjax._arrays import sigmoid, softplus
from damjax._checks import check_array
from damjax.particles.problem import Problem, as_scores, labels
from damjax.types import ArrayLike

__all__ = ["error_rate", "log_odds", "loss", "margins", "recalled"]


def log_odds(scores: Float[ArrayLike, "N M"]) -> Float[Array, "N M"]:
    """z_xj = s_xj - log sum_{k != j} exp s_xk, so that sigmoid(z) = softmax(s) and sigmoid(-z) is what it lacks to one.

    From them loss and gradient keep their relative precision however sure the memory is: 1 - softmax(s) is 0 in
    float32 as soon as the margin passes 17, and with it a particle would stand still.

    Example:
        >>> scores = jnp.array([[1.0, 2.0, 3.0]])
        >>> bool(jnp.allclose(jax.nn.sigmoid(log_odds(scores)), jax.nn.softmax(scores)))
        True
    """
    check_array("scores", scores, "...")
    scores = jnp.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (N, M), but it is {scores.shape}; for many, use jax.vmap")
    if scores.shape[1] == 2:
        return scores - scores[:, ::-1]
    is_top = jax.nn.one_hot(jnp.argmax(scores, axis=1), scores.shape[1], dtype=bool)
    # Not jnp.max, whose derivative is shared out among equal scores.
    top = jnp.sum(jnp.where(is_top, scores, 0), axis=1, keepdims=True)
    # From the top, since a logarithm of 2 is lost beside scores of 1e8.
    scores = jnp.where(is_top, 0, scores - top)
    ratios = jnp.where(is_top, 0, jnp.exp(scores))
    # Beside the top's own 1, of which nothing is taken away unless j is the top: no cancellation.
    beside = ratios.sum(axis=1, keepdims=True) - ratios
    rest = jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, scores), axis=1, keepdims=True)
    return jnp.where(is_top, -rest, scores - jnp.log1p(beside))


def loss(scores: Float[ArrayLike, "N M"], problem: Problem) -> Float[Array, ""]:
    """L = -sum_x p_x sum_y Y_xy log softmax(S_x)_y, in nats; for noisy labels their entropy is part of it.

    Args:
        scores: S, (N, M).
        problem: frequencies and targets are used.

    Example:
        >>> from damjax.particles import one_hot
        >>> problem = Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.75, 0.25]), one_hot([0, 1], 2))
        >>> round(float(loss(jnp.zeros((2, 2)), problem)), 4)
        0.6931
    """
    odds = log_odds(as_scores(scores, problem))
    problem = problem.astype(odds.dtype)
    weights = problem.frequencies[:, None] * problem.targets
    nats = softplus(-odds)
    # What never comes costs nothing, also where its odds are beyond the range of the precision.
    return jnp.sum(weights * jnp.where((weights == 0) & jnp.isinf(nats), 0, nats))


def residuals(scores: Float[ArrayLike, "N M"], problem: Problem) -> Float[Array, "N M"]:
    """Y - softmax(S), with the small entries as precise as the large ones."""
    odds = log_odds(as_scores(scores, problem))
    targets = jnp.asarray(problem.targets, odds.dtype)
    likeliest = jax.nn.one_hot(jnp.argmax(targets, axis=1), targets.shape[1], dtype=bool)
    # As a sum: a label noise of 1e-8 is none in 1 - Y, and scores would grow for ever.
    others = jnp.sum(jnp.where(likeliest, 0, targets), axis=1, keepdims=True)
    return targets * sigmoid(-odds) - jnp.where(likeliest, others, 1 - targets) * sigmoid(odds)


def margins(scores: Float[ArrayLike, "N M"], problem: Problem) -> Float[Array, "N"]:
    """m_x = s_xy - max_{j != y} s_xj with y = y(x): positive where no other class scores as high.

    For noisy labels y(x) is the likeliest class.

    Example:
        >>> from damjax.particles import one_hot
        >>> problem = Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.75, 0.25]), one_hot([0, 1], 2))
        >>> margins(jnp.array([[3.0, 1.0], [3.0, 1.0]]), problem).tolist()
        [2.0, -2.0]
    """
    scores = as_scores(scores, problem)
    own = jax.nn.one_hot(labels(problem), scores.shape[1], dtype=bool)
    return jnp.sum(jnp.where(own, scores, 0), axis=1) - jnp.max(jnp.where(own, -jnp.inf, scores), axis=1)


def recalled(scores: Float[ArrayLike, "N M"], problem: Problem) -> Bool[Array, "N"]:
    """Accuracy per token: whether the class of highest score is its own.

    Between equal scores the first class counts; scores with a NaN recall nothing.

    Example:
        >>> from damjax.particles import one_hot
        >>> problem = Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.75, 0.25]), one_hot([0, 1], 2))
        >>> recalled(jnp.array([[3.0, 1.0], [3.0, 1.0]]), problem).tolist()
        [True, False]
    """
    scores = as_scores(scores, problem)
    return (jnp.argmax(scores, axis=1) == labels(problem)) & ~jnp.isnan(scores).any(axis=1)


def error_rate(scores: Float[ArrayLike, "N M"], problem: Problem) -> Float[Array, ""]:
    """L01 = sum_x p_x 1{argmax_j s_xj != y(x)}, in [0, 1]; NaN where a score is.

    Example:
        >>> from damjax.particles import one_hot
        >>> problem = Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.75, 0.25]), one_hot([0, 1], 2))
        >>> float(error_rate(jnp.array([[3.0, 1.0], [3.0, 1.0]]), problem))
        0.25
    """
    scores = as_scores(scores, problem)
    wrong = jnp.where(recalled(scores, problem), 0, jnp.where(jnp.isnan(scores).any(axis=1), jnp.nan, 1))
    return jnp.sum(wrong.astype(scores.dtype) * jnp.asarray(problem.frequencies, scores.dtype))
