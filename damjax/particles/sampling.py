"""What gradient descent sees of a problem at each step: minibatches and noisy labels, as problems themselves.

A minibatch is the Problem whose frequencies and targets are those of the draws, so the same step serves full-batch
descent and SGD, in score space and in parameter space, on the same draws.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from damjax._checks import check_array, check_between, check_count, concrete
from damjax.particles.problem import Problem, check_problem
from damjax.types import ArrayLike

__all__ = ["minibatches", "noisy_labels", "with_label_noise"]

Stream = Callable[[Any], Problem]


def with_label_noise(problem: Problem, noise: float | ArrayLike) -> Problem:
    """The problem whose labels are, with probability ``noise``, replaced by a class drawn uniformly.

        Y <- (1 - noise) Y + noise / M

    Args:
        problem: the one whose targets become noisy.
        noise: in [0, 1].

    Raises:
        ValueError: noise outside [0, 1].

    Example:
        >>> import damjax.particles as particles
        >>> print(with_label_noise(particles.two_tokens(0.5, 0.75), 0.5).targets)
        [[0.75 0.25]
         [0.25 0.75]]
    """
    check_problem(problem)
    check_array("noise", noise, "")
    if (value := concrete(noise)) is not None:
        check_between("noise", value, 0.0, 1.0)
    noisy = (1 - noise) * problem.targets + noise / problem.targets.shape[1]
    return dataclasses.replace(problem, targets=noisy)


def minibatches(key: Key[Array, ""], problem: Problem, batch_size: int) -> Stream:
    """Fresh minibatches: at every step ``batch_size`` tokens from the frequencies, each with a label from its target.

    Args:
        key: typed PRNG key; the batch of step t comes from ``fold_in(key, t)``.
        problem: the one whose tokens and labels are drawn.
        batch_size: B >= 1.

    Returns:
        A function from the time, an integer, to the Problem of that step's batch, for ``evolve``.

    Raises:
        ValueError: B is not a positive integer.

    Example:
        >>> import damjax.particles as particles
        >>> batches = minibatches(jax.random.key(0), particles.two_tokens(0.5, 0.75), 4)
        >>> float((4 * batches(1).frequencies).sum())
        4.0
    """
    check_problem(problem)
    check_count("batch_size", batch_size)

    def at(time: int | Int[Array, ""]) -> Problem:
        joint = jnp.asarray(problem.frequencies)[:, None] * problem.targets
        cells = jax.random.choice(jax.random.fold_in(key, time), joint.size, (batch_size,), p=joint.ravel())
        counts = jnp.bincount(cells, length=joint.size).reshape(joint.shape).astype(joint.dtype)
        return _with_joint(problem, counts / batch_size)

    return at


def noisy_labels(key: Key[Array, ""], problem: Problem) -> Stream:
    """Every token at every step, each with one label drawn anew from its target: full batches with label noise.

    Args:
        key: typed PRNG key; the labels of step t come from ``fold_in(key, t)``.
        problem: with soft targets, such as ``with_label_noise`` makes.

    Returns:
        A function from the time, an integer, to the Problem of that step, for ``evolve``.

    Example:
        >>> import damjax.particles as particles
        >>> noisy = with_label_noise(particles.two_tokens(0.5, 0.75), 0.5)
        >>> noisy_labels(jax.random.key(0), noisy)(3).targets.sum(axis=1).tolist()
        [1.0, 1.0]
    """
    check_problem(problem)

    def at(time: int | Int[Array, ""]) -> Problem:
        targets = jnp.asarray(problem.targets)
        frequencies = jnp.asarray(problem.frequencies)
        drawn = jax.random.categorical(jax.random.fold_in(key, time), jnp.log(targets), axis=-1)
        return _with_joint(problem, frequencies[:, None] * jax.nn.one_hot(drawn, targets.shape[1], dtype=targets.dtype))

    return at


def _with_joint(problem: Problem, joint: Array) -> Problem:
    """The problem with another joint distribution of tokens and labels; tokens that did not come keep their target."""
    frequencies = joint.sum(axis=1)
    drawn = frequencies[:, None] > 0
    targets = jnp.where(drawn, joint / jnp.where(drawn, frequencies[:, None], 1), problem.targets)
    return dataclasses.replace(problem, frequencies=frequencies, targets=targets)
