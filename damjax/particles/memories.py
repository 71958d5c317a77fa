"""Memories that can be trained: the particle system itself, and matrices W that make the scores S = E W' U'.

A ``Memory`` is data: how to start, how parameters make scores, and the gradient of the loss in them. The particle
system has the scores for parameters and costs the same in every dimension; the others go through autodiff.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from damjax._arrays import FULL, product
from damjax._checks import check_array, check_count, check_function, check_instance, float_dtype
from damjax.particles.problem import Problem, as_embeddings
from damjax.particles.quantities import loss, residuals
from damjax.types import ArrayLike

__all__ = [
    "Factors",
    "Memory",
    "block_diagonal",
    "full",
    "layer_norm",
    "low_rank",
    "normalized_scores",
    "parameterized",
    "particle_system",
]


class Memory(NamedTuple):
    """Something that scores every class for every token.

    Attributes:
        init: ``init(key) -> params``; scores are zero at the start.
        scores: ``scores(params) -> (N, M)``.
        gradient: ``gradient(params, problem) -> like params``, the gradient of the loss.
        parametric: whether the gradient is that of ``loss(scores(params))``; the particle system's is the gradient in
            W, seen in score space.
    """

    init: Callable[[Key[Array, ""]], Any]
    scores: Callable[[Any], Float[Array, "N M"]]
    gradient: Callable[[Any, Problem], Any]
    parametric: bool = True


def velocity(scores: Float[ArrayLike, "N M"], problem: Problem) -> Float[Array, "N M"]:
    """dS/dt = A P (Y - softmax(S)) G, the force that all particles exert on each; minus the gradient, seen in S.

    Source: [LAM] sec. 3.
    """
    scores = jnp.asarray(scores)
    problem = problem.astype(scores.dtype)
    forces = problem.frequencies[:, None] * residuals(scores, problem)
    return product(problem.input_gram, forces, problem.output_gram)


def particle_system(num_tokens: int, num_classes: int, *, dtype: jax.typing.DTypeLike | None = None) -> Memory:
    """The memory in score space: its parameters are the scores, moved as gradient descent on W moves them.

    Args:
        num_tokens: N.
        num_classes: M.
        dtype: of the scores that ``init`` makes; jax's default float otherwise.

    Example:
        >>> particle_system(3, 2).init(jax.random.key(0)).shape
        (3, 2)
    """
    check_count("num_tokens", num_tokens)
    check_count("num_classes", num_classes)
    dtype = float_dtype(dtype)
    return Memory(
        init=lambda key: jnp.zeros((num_tokens, num_classes), dtype),
        scores=lambda scores: scores,
        gradient=lambda scores, problem: -velocity(scores, problem),
        parametric=False,
    )


def parameterized(init: Callable[[Key[Array, ""]], Any], scores: Callable[[Any], Float[Array, "N M"]]) -> Memory:
    """A memory from any differentiable ``scores(params)``; the gradient is autodiff's.

    Example:
        >>> memory = parameterized(lambda key: jnp.zeros(()), lambda gain: gain * jnp.eye(2))
        >>> memory.scores(jnp.array(2.0)).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    check_function("init", init, "key", "it makes the parameters to start from")
    check_function("scores", scores, "params", "it makes the scores (N, M) of parameters")
    return Memory(init, scores, jax.grad(lambda params, problem: loss(scores(params), problem)))


def full(inputs: Float[ArrayLike, "N din"], outputs: Float[ArrayLike, "M dout"]) -> Memory:
    """W itself, (dout, din), started at zero: S = E W' U'.

    Args:
        inputs: E, (N, din).
        outputs: U, (M, dout).

    Example:
        >>> full(jnp.ones((4, 3)), jnp.eye(2)).init(jax.random.key(0)).shape
        (2, 3)

    Source: [LAM] eq. (1).
    """
    inputs, outputs = as_embeddings(inputs, outputs)
    start = jnp.zeros((outputs.shape[1], inputs.shape[1]), inputs.dtype)
    return parameterized(lambda key: start, lambda matrix: product(inputs, matrix.T, outputs.T))


class Factors(NamedTuple):
    """The factors of a low-rank memory W = P Q'.

    Attributes:
        left: P, (dout, r).
        right: Q, (din, r).
    """

    left: Float[Array, "dout r"]
    right: Float[Array, "din r"]


def low_rank(inputs: Float[ArrayLike, "N din"], outputs: Float[ArrayLike, "M dout"], rank: int) -> Memory:
    """W = P Q' with P (dout, r) and Q (din, r): (dout + din) r parameters.

    P starts with i.i.d. N(0, 1/r) entries and Q at zero: P P' is the identity on average, and so the first step is, on
    average, that of the full memory.

    Args:
        inputs: E, (N, din).
        outputs: U, (M, dout).
        rank: r >= 1.

    Example:
        >>> low_rank(jnp.ones((4, 3)), jnp.eye(2), 1).init(jax.random.key(0)).right.shape
        (3, 1)
    """
    check_count("rank", rank)
    inputs, outputs = as_embeddings(inputs, outputs)

    def init(key: Key[Array, ""]) -> Factors:
        left = jax.random.normal(key, (outputs.shape[1], rank), inputs.dtype) / jnp.sqrt(rank).astype(inputs.dtype)
        return Factors(left, jnp.zeros((inputs.shape[1], rank), inputs.dtype))

    def scores(factors: Factors) -> Array:
        return product(product(inputs, factors.right), product(outputs, factors.left).T)

    return parameterized(init, scores)


def block_diagonal(inputs: Float[ArrayLike, "N din"], outputs: Float[ArrayLike, "M dout"], num_blocks: int) -> Memory:
    """W with ``num_blocks`` blocks on its diagonal and zeros elsewhere: dout din / B parameters, (B, dout/B, din/B).

    Args:
        inputs: E, (N, din).
        outputs: U, (M, dout).
        num_blocks: B, a divisor of both dimensions.

    Raises:
        ValueError: B does not divide a dimension.

    Example:
        >>> block_diagonal(jnp.ones((4, 6)), jnp.eye(2), 2).init(jax.random.key(0)).shape
        (2, 1, 3)
    """
    check_count("num_blocks", num_blocks)
    inputs, outputs = as_embeddings(inputs, outputs)
    for name, dim in (("inputs", inputs.shape[1]), ("outputs", outputs.shape[1])):
        if dim % num_blocks:
            raise ValueError(f"num_blocks must divide the dimension of {name}, {dim}, but it is {num_blocks}")
    keys, values = (x.reshape(len(x), num_blocks, -1) for x in (inputs, outputs))
    start = jnp.zeros((num_blocks, values.shape[2], keys.shape[2]), inputs.dtype)

    def scores(blocks: Array) -> Array:
        return jnp.einsum("nbi,boi,mbo->nm", keys, blocks, values, precision=FULL)

    return parameterized(lambda key: start, scores)


def normalized_scores(memory: Memory, gain: float | ArrayLike = 1.0, *, epsilon: float = 1e-5) -> Memory:
    """The same memory with layer normalisation of the scores of each token over the classes, times a gain.

    Normalised scores are bounded, |s| <= gain sqrt(M): the loss cannot vanish. Its gradient grows as one over the
    spread of the memory's own scores: at zero, where they have none, the first step is far too long; start elsewhere.
    Of two classes only the sign is left.

    Args:
        memory: what makes the scores; a parameterisation of W, not the particle system.
        gain: multiplies the normalised scores, ().
        epsilon: added to the variance.

    Raises:
        ValueError: the particle system, which has no parameters to differentiate in.

    Example:
        >>> memory = normalized_scores(full(jnp.eye(2), jnp.eye(2)))
        >>> print(memory.scores(jnp.array([[9.0, 0.0], [0.0, 9.0]])).round(3))
        [[ 1. -1.]
         [-1.  1.]]
    """
    check_memory(memory)
    check_array("gain", gain, "")
    check_array("epsilon", epsilon, "")
    if not memory.parametric:
        raise ValueError("memory must parameterise W, as damjax.particles.full does, but it is the particle system")

    def scores(params: Any) -> Array:
        normal = layer_norm(memory.scores(params), epsilon=epsilon)
        return jnp.asarray(gain, normal.dtype) * normal

    return parameterized(memory.init, scores)


def layer_norm(rows: Float[ArrayLike, "*rows d"], *, epsilon: float = 1e-5) -> Float[Array, "*rows d"]:
    """Each row less its mean, over its standard deviation: (x - mean) / sqrt(variance + epsilon); norms near sqrt(d).

    Example:
        >>> print(layer_norm(jnp.array([[1.0, 3.0]])).round(3))
        [[-1.  1.]]
    """
    check_array("rows", rows, "...")
    check_array("epsilon", epsilon, "")
    if np.shape(rows) == ():
        raise ValueError(f"rows must have at least one axis, but they are one number, {rows}")
    centred = jnp.asarray(rows)
    for _ in range(2):  # the first mean of entries far from zero is rounded, that of their small differences is not
        centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    # In units in which squares do not overflow; no slope comes from them.
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(centred), axis=-1, keepdims=True), 1))
    scaled = centred / unit
    return scaled * jax.lax.rsqrt(jnp.mean(scaled**2, axis=-1, keepdims=True) + epsilon / unit / unit)


def check_memory(memory: Memory) -> None:
    """Raise unless it is a Memory."""
    check_instance("memory", memory, Memory, "damjax.particles.full(inputs, outputs) makes one")
