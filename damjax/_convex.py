"""Convex minimisation over a feasible set: the solver, its certificate, and derivatives of the solution.

The derivative is implicit: it comes from the conditions that the solution satisfies, not from the iterations that found
it, so it costs one linear solve and no memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from damjax.domains import Box, FrobeniusBall, Shape, project

MAX_STEPS = 20_000
STEPS_PER_CHECK = 10
NO_CURVATURE = 1e-30
ON_BOUNDARY = 1e-6  # a solution this near, relative to the size of the set, is held at the boundary

Matrix = Float[Array, "dv df"]
Gradient = Callable[[Matrix], Matrix]


class Implicit(NamedTuple):
    """A solution as a function of whatever the gradient and the domain depend on.

    Attributes:
        params: U, with the derivatives of the minimiser.
        anchored: U, fixed but for its share of the boundary's motion.
        decrement: 0, with the second derivatives that the minimum has beyond those of F(anchored).
    """

    params: Matrix
    anchored: Matrix
    decrement: Float[Array, ""]


def frank_wolfe_gap(gradient: Matrix, params: Matrix, shape: Shape) -> Float[Array, ""]:
    """max over S in the set of <grad F(U), U - S>, which is at least F(U) - min F; infinite without bounds."""
    match shape:
        case FrobeniusBall(radius):
            farthest = -jnp.asarray(radius, params.dtype) * jnp.linalg.norm(gradient)
        case Box(lower, upper):
            corner = jnp.where(gradient > 0, jnp.asarray(lower, params.dtype), jnp.asarray(upper, params.dtype))
            farthest = jnp.sum(jnp.where(gradient == 0, 0, gradient * corner))
        case _:
            return jnp.asarray(jnp.inf, params.dtype)
    return jnp.sum(gradient * params) - farthest


def accelerated(
    gradient: Gradient, start: Matrix, shape: Shape, smoothness: Float[Array, ""], tolerance: Float[Array, ""]
) -> Matrix:
    """Projected accelerated gradient with restarts, until the Frank-Wolfe gap is within the tolerance.

    Args:
        gradient: of a convex F.
        start: a memory; its shape and dtype are those of the solution.
        shape: the set, bounded if the gap is to stop the iterations before ``MAX_STEPS``.
        smoothness: a Lipschitz constant of the gradient.
        tolerance: on F(U) - min F.
    """
    start, smoothness, tolerance = jax.lax.stop_gradient((project(shape, start), smoothness, tolerance))
    rate = 1 / jnp.maximum(smoothness, jnp.finfo(start.dtype).tiny)

    # Derivatives do not pass through the iterations, so none are carried along either.
    def move(ahead: Matrix) -> Matrix:
        return jax.lax.stop_gradient(project(shape, ahead - rate * jax.lax.stop_gradient(gradient(ahead))))

    def advance(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        current, ahead, momentum = carry
        after = move(ahead)
        # Momentum that points uphill has outlived its use.
        uphill = jnp.sum((ahead - after) * (after - current)) > 0
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + jnp.where(uphill, 0, (momentum - 1) / grown) * (after - current)
        return after, ahead, jnp.where(uphill, 1, grown)

    def unfinished(carry: tuple[Any, ...]) -> Array:
        count, _, _, least = carry
        return (count < MAX_STEPS // STEPS_PER_CHECK) & (least > tolerance)

    def advance_and_check(carry: tuple[Array, Any, Array, Array]) -> tuple[Array, Any, Array, Array]:
        count, iterates, best, least = carry
        iterates = jax.lax.fori_loop(0, STEPS_PER_CHECK, advance, iterates)
        gap = jax.lax.stop_gradient(frank_wolfe_gap(gradient(iterates[0]), iterates[0], shape))
        # Without a bounded set every gap is infinite, and the last iterate is the best one.
        return count + 1, iterates, jnp.where(gap <= least, iterates[0], best), jnp.minimum(gap, least)

    first = (
        jnp.zeros((), jnp.int32),
        (start, start, jnp.ones((), start.dtype)),
        start,
        jnp.full_like(tolerance, jnp.inf),
    )
    return jax.lax.while_loop(unfinished, advance_and_check, first)[2]


class Face(NamedTuple):
    """The part of the boundary that holds a solution, or the interior.

    Attributes:
        anchored: the solution, moving with the boundary.
        multiplier: lam, the curvature that the boundary adds.
        along: projects a direction onto the directions of the face.
        onto: takes a point near the solution back to the face.
    """

    anchored: Matrix
    multiplier: Float[Array, ""]
    along: Callable[[Matrix], Matrix]
    onto: Callable[[Matrix], Matrix]


def implicit(gradient: Gradient, solution: Matrix, shape: Shape) -> Implicit:
    """Give a solution its derivatives, by one Newton step that has the value zero.

    On the face of the set that holds the solution, a change of the problem moves the minimiser by

        -(P H P + lam P)^-1 P d(grad F),   P the projection onto the face's directions, H the Hessian of F,

    with lam the multiplier of a ball (the curvature of its sphere). First derivatives of ``params`` and second ones of
    the minimum are exact where the minimiser is unique; along directions in which F is flat it is left where it is.

    Args:
        gradient: of F; what it closes over may be traced and differentiated.
        solution: argmin F over the set.
        shape: the set; its radius or bounds may be differentiated too.
    """
    fixed = jax.lax.stop_gradient(solution)
    slope_there, slope_at_zero = jax.lax.stop_gradient((gradient(fixed), gradient(jnp.zeros_like(fixed))))
    rounding = float(jnp.finfo(fixed.dtype).eps) ** 0.5 * jnp.linalg.norm(slope_at_zero)
    face = _face(shape, fixed, slope_there, rounding)

    def curvature(x: Matrix) -> Matrix:
        inside = face.along(x)
        # The last term keeps a direction without curvature from dividing zero by zero.
        return face.along(jax.jvp(gradient, (fixed,), (inside,))[1] + face.multiplier * inside) + NO_CURVATURE * x

    slope = face.along(gradient(face.anchored))
    slope = slope - jax.lax.stop_gradient(slope)
    exactness = float(jnp.finfo(fixed.dtype).eps) ** 0.75
    newton, _ = jax.scipy.sparse.linalg.cg(curvature, -slope, tol=exactness, maxiter=4 * fixed.size)
    step = face.along(newton)
    decrement = jnp.sum(slope * step) + 0.5 * jnp.sum(step * curvature(step))
    return Implicit(face.onto(face.anchored + step), face.anchored, decrement)


def _face(shape: Shape, fixed: Matrix, slope: Matrix, rounding: Float[Array, ""]) -> Face:
    """The face of the set on which the solution ``fixed`` lies, given grad F there; neither carries derivatives.

    A boundary holds a solution only if the slope towards it is more than rounding.
    """
    match shape:
        case FrobeniusBall(radius):
            radius = jnp.asarray(radius, fixed.dtype)
            radius_now = jax.lax.stop_gradient(radius)
            norm, pull = jnp.linalg.norm(fixed), -jnp.sum(slope * fixed)
            held = (norm >= radius_now * (1 - ON_BOUNDARY)) & (pull > rounding * norm)
            outward = jnp.where(held, fixed / jnp.where(held, norm, 1), 0)
            growth = jnp.where(held, radius / radius_now, 1)

            def onto(x: Matrix) -> Matrix:
                # The square root has no slope at zero, which the branch that is not taken must not ask for.
                length = jnp.sqrt(jnp.where(held, jnp.sum(x**2), 1))
                return jnp.where(held, x * (growth * norm / length), x)

            return Face(
                anchored=fixed * growth,
                multiplier=jnp.where(held, pull / jnp.where(held, norm, 1) ** 2, 0),
                along=lambda x: x - outward * jnp.sum(outward * x),
                onto=onto,
            )
        case Box(lower, upper):
            lower, upper = (jnp.broadcast_to(jnp.asarray(b, fixed.dtype), fixed.shape) for b in (lower, upper))
            low, high = jax.lax.stop_gradient((lower, upper))
            # An entry without bounds has nothing to be held at.
            margin = jnp.where(jnp.isfinite(high - low), ON_BOUNDARY * (high - low), 0)
            at_low = (fixed <= low + margin) & (slope > rounding)
            at_high = (fixed >= high - margin) & (slope < -rounding)
            motion = jnp.where(at_low, lower - low, jnp.where(at_high, upper - high, 0))
            held = at_low | at_high
            return Face(fixed + motion, jnp.zeros((), fixed.dtype), lambda x: jnp.where(held, 0, x), lambda x: x)
    return Face(fixed, jnp.zeros((), fixed.dtype), lambda x: x, lambda x: x)
