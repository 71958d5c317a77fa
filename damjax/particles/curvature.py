"""Sharpness, the largest eigenvalue of the loss's Hessian: gradient descent is stable while it is below 2 / eta."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from damjax._arrays import FULL
from damjax._checks import check_array, check_count, check_positive
from damjax.particles.memories import Memory, check_memory
from damjax.particles.problem import Problem, check_problem

__all__ = ["sharpness"]


def sharpness(
    memory: Memory,
    params: Any,
    problem: Problem,
    *,
    key: Key[Array, ""],
    num_iterations: int = 200,
    tolerance: float = 1e-6,
) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian, by power iteration on Hessian-vector products.

    In score space the particle system's own linearisation has the eigenvalues of the Hessian in W, at a cost that does
    not depend on the dimension. Where an eigenvalue of largest modulus is negative, as at the saddles of a factorised
    memory, the spectrum is shifted by it and the iteration repeated.

    Args:
        memory: what is trained; its gradient is linearised at ``params``.
        params: the parameters at which the Hessian is taken.
        problem: the one whose loss it is.
        key: typed PRNG key, of the random vector that the iteration starts from.
        num_iterations: the most iterations that are made.
        tolerance: stop when the estimate changes by less than this in an iteration, relatively; where the next
            eigenvalue is close the error is larger, up to that distance.

    Example:
        >>> import damjax.particles as particles
        >>> problem = particles.two_tokens(0.95, 0.75)
        >>> largest = sharpness(particles.particle_system(2, 2), jnp.zeros((2, 2)), problem, key=jax.random.key(0))
        >>> round(float(largest), 4), round(float(particles.binary.sharpness_at_zero(0.95, 0.75)), 4)
        (0.4907, 0.4907)
    """
    check_memory(memory)
    check_problem(problem)
    check_count("num_iterations", num_iterations)
    check_array("tolerance", tolerance, "")
    check_positive("tolerance", np.asarray(tolerance))
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: leaf is None):
        check_array("params", leaf, "...")
    flat, rebuild = ravel_pytree(params)
    start = jax.random.normal(key, flat.shape, flat.dtype)
    _, curvature = jax.linearize(lambda x: ravel_pytree(memory.gradient(rebuild(x), problem))[0], flat)
    size, quotient = _power_iteration(curvature, start, num_iterations, tolerance)
    # With +size and -size both in the spectrum, the iterates swing between the two and the quotient says nothing.
    return jax.lax.cond(
        quotient > 0.99 * size,
        lambda: quotient,
        lambda: _power_iteration(lambda v: curvature(v) + size * v, start, num_iterations, tolerance)[1] - size,
    )


def _power_iteration(
    apply: Callable[[Array], Array], start: Array, num_iterations: int, tolerance: float
) -> tuple[Array, Array]:
    """The largest modulus of an eigenvalue, and the Rayleigh quotient of the last iterate; 0 for the zero operator."""

    def body(carry):
        vector, size, _, _, count = carry
        image = apply(vector)
        norm = _norm(image)
        return image / jnp.where(norm > 0, norm, 1), norm, jnp.vdot(vector, image, precision=FULL), size, count + 1

    def unfinished(carry):
        _, size, _, before, count = carry
        return (count < 2) | ((count < num_iterations) & (jnp.abs(size - before) > tolerance * size))

    zero = jnp.zeros((), start.dtype)
    carry = (start / jnp.linalg.norm(start), zero, zero, zero, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, body, carry)[1:3]


def _norm(vector: Array) -> Array:
    """The norm without the squares, which late in training, where the curvature is 1e-20, are 0 in float32."""
    largest = jnp.max(jnp.abs(vector))
    return largest * jnp.linalg.norm(vector / jnp.where(largest > 0, largest, 1))
