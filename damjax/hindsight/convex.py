"""Convex minimisation over a feasible set: the solver, its certificate, and derivatives of the solution.

The derivative is implicit: it comes from the conditions that the solution satisfies, not from the iterations that found
it, so it costs one linear solve and no memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from damjax._checks import check_array, check_function, check_positive, concrete
from damjax._laws import check_domain
from damjax.domains import Domain, with_support
from damjax.types import ArrayLike

__all__ = ["Comparator", "Implicit", "accelerated", "finish", "frank_wolfe_gap", "implicit", "minimize"]

MAX_STEPS = 20_000
STEPS_PER_CHECK = 10
NO_CURVATURE = 1e-30

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


def frank_wolfe_gap(gradient: Matrix, params: Matrix, domain: Domain) -> Float[Array, ""]:
    """max over S in the set of <grad F(U), U - S>, which is at least F(U) - min F; infinite without bounds."""
    return jnp.sum(gradient * params) + domain.support_value(-gradient)


def accelerated(
    gradient: Gradient, start: Matrix, domain: Domain, smoothness: Float[Array, ""], tolerance: Float[Array, ""]
) -> Matrix:
    """Projected accelerated gradient with restarts, until the Frank-Wolfe gap is within the tolerance.

    Args:
        gradient: of a convex F.
        start: a memory; its shape and dtype are those of the solution.
        domain: the set, bounded if the gap is to stop the iterations before ``MAX_STEPS``.
        smoothness: a Lipschitz constant of the gradient.
        tolerance: on F(U) - min F.
    """
    start, smoothness, tolerance = jax.lax.stop_gradient((domain.project(start), smoothness, tolerance))
    rate = 1 / jnp.maximum(smoothness, jnp.finfo(start.dtype).tiny)

    # Derivatives do not pass through the iterations, so none are carried along either.
    def move(ahead: Matrix) -> Matrix:
        return jax.lax.stop_gradient(domain.project(ahead - rate * jax.lax.stop_gradient(gradient(ahead))))

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
        gap = jax.lax.stop_gradient(frank_wolfe_gap(gradient(iterates[0]), iterates[0], domain))
        # Without a bounded set every gap is infinite, and the last iterate is the best one.
        return count + 1, iterates, jnp.where(gap <= least, iterates[0], best), jnp.minimum(gap, least)

    first = (
        jnp.zeros((), jnp.int32),
        (start, start, jnp.ones((), start.dtype)),
        start,
        jnp.full_like(tolerance, jnp.inf),
    )
    return jax.lax.while_loop(unfinished, advance_and_check, first)[2]


def implicit(gradient: Gradient, solution: Matrix, domain: Domain) -> Implicit:
    """Give a solution its derivatives, by one Newton step that has the value zero.

    On the face of the set that holds the solution, a change of the problem moves the minimiser by

        -(P H P + lam P)^-1 P d(grad F),   P the projection onto the face's directions, H the Hessian of F,

    with lam the multiplier of a ball (the curvature of its sphere); for sets of which no more is known than their
    projection, P is its derivative at U - s grad F(U), and (P - P^2) / s takes the place of lam P. First derivatives of
    ``params`` and second ones of the minimum are exact where the minimiser is unique; along directions in which F is
    flat it is left where it is.

    Args:
        gradient: of F; what it closes over may be traced and differentiated.
        solution: argmin F over the set.
        domain: the set; its radius or bounds may be differentiated too.
    """
    fixed = jax.lax.stop_gradient(solution)
    slope_there, slope_at_zero = jax.lax.stop_gradient((gradient(fixed), gradient(jnp.zeros_like(fixed))))
    face = domain.face(fixed, slope_there, jnp.linalg.norm(slope_at_zero))

    def curvature(x: Matrix) -> Matrix:
        inside = face.along(x)
        bent = jax.jvp(gradient, (fixed,), (inside,))[1]
        if face.length is not None:
            bent = bent + (x - inside) / face.length
        # Across a sphere the multiplier keeps rounding from being divided by nothing; the last term does so along a
        # direction without curvature.
        return face.along(bent) + face.multiplier * x + NO_CURVATURE * x

    slope = gradient(face.anchored)
    if face.length is not None:
        slope = slope - face.anchored / face.length
    slope = face.along(slope - jax.lax.stop_gradient(slope))
    exactness = float(jnp.finfo(fixed.dtype).eps) ** 0.75
    newton, _ = jax.scipy.sparse.linalg.cg(curvature, -slope, tol=exactness, maxiter=4 * fixed.size)
    # <slope, x> + 1/2 <x, curvature(x)> at its minimum, without terms that cancel and leave rounding to be solved for.
    return Implicit(face.onto(face.anchored + face.along(newton)), face.anchored, 0.5 * jnp.sum(slope * newton))


class Comparator(NamedTuple):
    """The best memory in hindsight; leading axes are a batch.

    Attributes:
        params: U, (.., dv, df); derivatives are the implicit ones of the minimiser, exact to first order where it is
            unique, if the set's projection has the derivatives that jax finds (one by bisection has not). Where F is
            flat (fewer cues than dimensions) the choice among minimisers is not differentiated.
        loss: F(U), (..); derivatives are those of the minimum, exact to second order; in the size of a set other than
            a ball or a box, to first order.
        gap: at least F(U) - min F, (..): the Frank-Wolfe gap, of a quadratic without constraint half its Newton
            decrement, and what rounding of the moments may hide; infinite where the set is unbounded else. No
            derivatives.
    """

    params: Float[Array, "*batch dv df"]
    loss: Float[Array, "*batch"]
    gap: Float[Array, "*batch"]


def minimize(
    loss: Callable[[Float[Array, "dv df"]], Float[Array, ""]],
    start: Float[ArrayLike, "dv df"],
    domain: Domain,
    *,
    smoothness: float | ArrayLike,
    tolerance: float | ArrayLike,
    gradient: Gradient | None = None,
) -> Comparator:
    """argmin and min of any smooth convex F over the domain, by projected accelerated gradient with restarts.

    Args:
        loss: F, memory (dv, df) -> (); what it closes over may be differentiated.
        start: where to begin, (dv, df).
        domain: from ``damjax.domains``, or one of your own with a ``support``; on an unbounded one nothing certifies
            the answer.
        smoothness: a Lipschitz constant of grad F, > 0.
        tolerance: the gap at which to stop, > 0, in units of F; or after 20000 steps.
        gradient: grad F where one is at hand; by autodiff otherwise.

    Returns:
        A Comparator; look at its gap.

    Raises:
        ValueError: a smoothness or tolerance that is not positive; a set of the user's own without ``support``, or one
            that breaks a law.

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> loss = lambda params: jnp.sum(jnp.cosh(params - 2.0))
        >>> ball = damjax.domains.frobenius_ball(1.0)
        >>> found = minimize(loss, jnp.zeros((1, 1)), ball, smoothness=10.0, tolerance=1e-5)
        >>> round(float(found.params[0, 0]), 4), bool(found.gap <= 1e-5)
        (1.0, True)
    """
    for name, function in (("loss", loss), ("gradient", loss if gradient is None else gradient)):
        check_function(name, function, "params", "it takes one memory (dv, df)")
    check_array("start", start, "dv df")
    slope, domain = jax.grad(loss) if gradient is None else gradient, with_support(domain)
    for name, number in (("smoothness", smoothness), ("tolerance", tolerance)):
        check_array(name, number, "")
        if (value := concrete(number)) is not None:
            check_positive(name, value)
    start = jnp.asarray(start)
    start = start.astype(jnp.result_type(start, float))
    check_domain(domain, start)
    steepness, target = (jnp.asarray(x, start.dtype) for x in (smoothness, tolerance))
    minimiser = accelerated(slope, start, domain, steepness, target)
    return finish(loss, slope, minimiser, domain)


def finish(loss: Callable, gradient: Gradient, minimiser: Float[Array, "dv df"], domain: Domain) -> Comparator:
    """The comparator of a minimiser, with its gap and its derivatives."""
    solution = implicit(gradient, minimiser, domain)
    gap = jax.lax.stop_gradient(jnp.maximum(frank_wolfe_gap(gradient(minimiser), minimiser, domain), 0))
    return Comparator(solution.params, loss(solution.anchored) + solution.decrement, gap)
