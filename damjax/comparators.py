"""The best memory in hindsight for quadratic objectives.

The objectives of ``damjax.objectives`` add up to quadratics F(U) = 1/2 <U C, U> + 1/2 <D, U^2> - <B, U> + const, with
moments C, D, B that are sums over time, so every horizon comes from one pass. C (from DeltaNet) and D (from the gates)
never occur together, which leaves a problem that is diagonal after a rotation of the features:

- Frobenius ball: U(lam) = B (C + lam I)^-1 with lam >= 0 the root of ||U(lam)|| = R, or 0 if U(0) is inside;
- box: the clipped entrywise minimiser without C, else projected accelerated gradient;
- unconstrained: the minimiser of least norm.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from damjax.domains import Box, Domain, FrobeniusBall

BISECTIONS = 100  # more than the bits of a float64 and its exponent range in practice
ACCELERATED_STEPS = 2000


class Moments(NamedTuple):
    """A sum of quadratic losses, F(U) = 1/2 <U C, U> + 1/2 <D, U^2> - <B, U> + const; leading axes are a batch.

    Attributes:
        hessian: C, (.., df, df); None when every loss is linear in the prediction.
        ridge: D, (.., dv, df); None when there is no ridge part.
        linear: B, (.., dv, df).
        constant: (..).
    """

    hessian: Float[Array, "*batch df df"] | None
    ridge: Float[Array, "*batch dv df"] | None
    linear: Float[Array, "*batch dv df"]
    constant: Float[Array, "*batch"]

    def value(self, params: Float[Array, "*batch dv df"]) -> Float[Array, "*batch"]:
        """F(U), (..)."""
        value = self.constant - jnp.sum(self.linear * params, axis=(-2, -1))
        if self.hessian is not None:
            value = value + 0.5 * jnp.sum((params @ self.hessian) * params, axis=(-2, -1))
        if self.ridge is not None:
            value = value + 0.5 * jnp.sum(self.ridge * params**2, axis=(-2, -1))
        return value

    def gradient(self, params: Float[Array, "*batch dv df"]) -> Float[Array, "*batch dv df"]:
        """Grad F(U), (.., dv, df)."""
        gradient = -self.linear
        if self.hessian is not None:
            gradient = gradient + params @ self.hessian
        if self.ridge is not None:
            gradient = gradient + self.ridge * params
        return gradient


def minimizer(moments: Moments, domain: Domain) -> Float[Array, "*batch dv df"]:
    """argmin of F over the domain, for every entry of the batch.

    Args:
        moments: with any leading batch axes; not both a hessian and a ridge.
        domain: from ``damjax.domains``.

    Returns:
        U, (.., dv, df); NaN where F has no minimum. Derivatives do not flow through it; see ``minimum``.

    Raises:
        ValueError: a linear loss on an unconstrained domain, which has no minimum.

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> linear = jnp.array([[3.0, 4.0]])
        >>> moments = Moments(hessian=None, ridge=None, linear=linear, constant=jnp.zeros(()))
        >>> minimizer(moments, damjax.domains.frobenius_ball(10.0)).tolist()
        [[6.0, 8.0]]
    """
    if moments.hessian is not None and moments.ridge is not None:
        raise ValueError("moments with both a hessian and a ridge have no closed-form minimiser; give one of them")
    batch = moments.linear.ndim - 2
    coupled = moments.hessian is not None and isinstance(domain.shape, Box)
    solve = _accelerated(domain) if coupled else _diagonal(domain)
    for _ in range(batch):
        solve = jax.vmap(solve)
    return jax.lax.stop_gradient(solve(moments))


def minimum(moments: Moments, domain: Domain) -> Float[Array, "*batch"]:
    """min of F over the domain, differentiable once in the moments, the radius of a ball and the bounds of a box.

    By the envelope theorem the derivative of the minimum is that of F at the fixed minimiser; a ball's minimiser is
    scaled by R / stop_gradient(R) to let the derivative in R, -lam R, through, and a box's entries at a bound move with
    it. Only first derivatives are right: a second one would take the derivative of the minimiser itself.

    Args:
        moments: with any leading batch axes.
        domain: from ``damjax.domains``.

    Returns:
        (..).

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> moments = Moments(None, None, jnp.array([[3.0, 4.0]]), jnp.zeros(()))
        >>> best = lambda radius: minimum(moments, damjax.domains.frobenius_ball(radius))
        >>> float(best(2.0)), float(jax.grad(best)(2.0))
        (-10.0, -5.0)
    """
    best = minimizer(moments, domain)
    match domain.shape:
        case FrobeniusBall(radius):
            radius = jnp.asarray(radius, best.dtype)
            best = best * (radius / jax.lax.stop_gradient(radius))
        case Box(lower, upper):
            lower, upper = jnp.asarray(lower, best.dtype), jnp.asarray(upper, best.dtype)
            best = jnp.where(best <= lower, lower, jnp.where(best >= upper, upper, best))
    return moments.value(best)


def _diagonal(domain: Domain):
    """Solve one problem whose curvature is diagonal, if need be after rotating the features."""

    def solve(moments: Moments) -> Float[Array, "dv df"]:
        linear = moments.linear
        if moments.hessian is None:
            curvature = jnp.zeros_like(linear) if moments.ridge is None else moments.ridge
            return _diagonal_minimizer(linear, jnp.broadcast_to(curvature, linear.shape), domain)
        eigenvalues, basis = jnp.linalg.eigh(moments.hessian)
        floor = jnp.finfo(linear.dtype).eps * eigenvalues.shape[0] * jnp.max(eigenvalues)
        eigenvalues = jnp.where(eigenvalues > floor, eigenvalues, 0)
        # B lies in the range of C: what it has outside is rounding, and would be blown up.
        rotated = jnp.where(eigenvalues > 0, linear @ basis, 0)
        curvature = jnp.broadcast_to(eigenvalues, linear.shape)
        return _diagonal_minimizer(rotated, curvature, domain) @ basis.T

    return solve


def _diagonal_minimizer(
    linear: Float[Array, "dv df"], curvature: Float[Array, "dv df"], domain: Domain
) -> Float[Array, "dv df"]:
    """argmin of 1/2 <D, U^2> - <B, U> over the domain, D >= 0."""
    flat = (curvature == 0) & (linear != 0)
    free = jnp.where(curvature > 0, linear / jnp.where(curvature > 0, curvature, 1), 0)
    match domain.shape:
        case Box(lower, upper):
            steepest = jnp.where(flat, jnp.inf * jnp.sign(linear), free)
            return jnp.clip(steepest, jnp.asarray(lower, linear.dtype), jnp.asarray(upper, linear.dtype))
        case FrobeniusBall(radius):
            multiplier = _multiplier(linear, curvature, jnp.asarray(radius, linear.dtype))
            inside = ~jnp.any(flat) & (jnp.linalg.norm(free) <= radius)
            bounded = linear / jnp.where(multiplier + curvature > 0, multiplier + curvature, 1)
            # The last bit of the multiplier must not push the comparator out of its ball.
            return jnp.where(inside, free, domain.project(bounded))
        case _:
            # A direction without curvature leads to minus infinity: no minimiser, and no silent zero for it.
            return jnp.where(jnp.any(flat), jnp.nan, free)


def _multiplier(
    linear: Float[Array, "dv df"], curvature: Float[Array, "dv df"], radius: Float[Array, ""]
) -> Float[Array, ""]:
    """lam >= 0 with ||B / (D + lam)|| = R, by bisection: the left side falls with lam, to below R at ||B|| / R."""

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        outside = jnp.linalg.norm(linear / jnp.maximum(middle + curvature, jnp.finfo(linear.dtype).tiny)) > radius
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    top = jnp.linalg.norm(linear) / radius
    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(top), top))[1]


def _accelerated(domain: Domain):
    """Projected accelerated gradient with restarts, for one least-squares problem on a box."""

    def solve(moments: Moments) -> Float[Array, "dv df"]:
        smoothness = jnp.maximum(jnp.linalg.eigvalsh(moments.hessian)[-1], jnp.finfo(moments.linear.dtype).tiny)

        def advance(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            current, ahead, momentum = carry
            after = domain.project(ahead - moments.gradient(ahead) / smoothness)
            # Momentum that points uphill has outlived its use.
            uphill = jnp.sum((ahead - after) * (after - current)) > 0
            grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
            momentum = jnp.where(uphill, 1.0, grown)
            push = jnp.where(uphill, 0.0, (carry[2] - 1) / grown)
            return after, after + push * (after - current), momentum

        start = domain.project(jnp.zeros_like(moments.linear))
        return jax.lax.fori_loop(0, ACCELERATED_STEPS, advance, (start, start, jnp.ones((), start.dtype)))[0]

    return solve
