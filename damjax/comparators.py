"""The best memory in hindsight of convex losses, with a certificate and with derivatives.

Quadratic objectives add up to F(U) = 1/2 <U C, U> + 1/2 <D, U^2> - <B, U> + const, with moments C, D, B that are sums
over time, so every horizon comes from one pass. C (from DeltaNet) and D (from the gates) occur together only where D is
the same in every row of U, and then it is part of C; which leaves a problem that is diagonal after a rotation of the
features:

- Frobenius ball: U(lam) = B (C + lam I)^-1 with lam >= 0 the root of ||U(lam)|| = R, or 0 if U(0) is inside;
- box: the clipped entrywise minimiser without C, else projected Newton steps and projected accelerated gradient;
- unconstrained: the minimiser of least norm.

Any other convex loss goes by projected accelerated gradient. Every answer comes with its Frank-Wolfe gap
max_S <grad F(U), U - S>, which bounds F(U) - min F, because an inexact comparator biases regret.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from damjax._checks import check_array, check_function, check_instance, check_positive
from damjax._contractions import product
from damjax._convex import ON_BOUNDARY, Gradient, accelerated, frank_wolfe_gap, implicit
from damjax._types import ArrayLike, concrete
from damjax.domains import Box, Domain, FrobeniusBall, Shape, Unconstrained, known_shape, project

BISECTIONS = 100  # more than the bits of a float64 and its exponent range in practice
ROUNDINGS = 4.0  # that a term of F(U) goes through
NEWTON_STEPS, HALVINGS = 50, 16


class Comparator(NamedTuple):
    """The best memory in hindsight; leading axes are a batch.

    Attributes:
        params: U, (.., dv, df); derivatives are the implicit ones of the minimiser, exact to first order where it is
            unique. Where F is flat (fewer cues than dimensions) the choice among minimisers is not differentiated.
        loss: F(U), (..); derivatives are those of the minimum, exact to second order.
        gap: at least F(U) - min F, (..): the Frank-Wolfe gap, of a quadratic without constraint half its Newton
            decrement, and what rounding of the moments may hide; infinite where the set is unbounded else. No
            derivatives.
    """

    params: Float[Array, "*batch dv df"]
    loss: Float[Array, "*batch"]
    gap: Float[Array, "*batch"]


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
            value = value + 0.5 * jnp.sum(product(params, self.hessian) * params, axis=(-2, -1))
        if self.ridge is not None:
            value = value + 0.5 * jnp.sum(self.ridge * params**2, axis=(-2, -1))
        return value

    def rounding(self, params: Float[Array, "*batch dv df"]) -> Float[Array, "*batch"]:
        """What F(U) may be off by, (..): rounding of its terms, and of the moments, which are sums."""
        sizes = jax.tree.map(jnp.abs, self)
        terms = sizes._replace(linear=-sizes.linear).value(jnp.abs(params))
        return ROUNDINGS * float(jnp.finfo(terms.dtype).eps) * terms

    def gradient(self, params: Float[Array, "*batch dv df"]) -> Float[Array, "*batch dv df"]:
        """Grad F(U), (.., dv, df)."""
        gradient = -self.linear
        if self.hessian is not None:
            gradient = gradient + product(params, self.hessian)
        if self.ridge is not None:
            gradient = gradient + self.ridge * params
        return gradient


def best(moments: Moments, domain: Domain) -> Comparator:
    """argmin and min of F over the domain, for every entry of the batch.

    Args:
        moments: with any leading batch axes; not both a hessian and a ridge.
        domain: from ``damjax.domains``.

    Returns:
        A Comparator; NaN where F has no minimum. Differentiable in the moments, the radius of a ball and the bounds of
        a box.

    Raises:
        ValueError: moments with both a hessian and a ridge; a set of the user's own.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> moments = Moments(None, None, jnp.array([[3.0, 4.0]]), jnp.zeros(()))
        >>> found = lambda radius: best(moments, damjax.domains.frobenius_ball(radius))
        >>> found(10.0).params.tolist(), float(found(10.0).loss)
        ([[6.0, 8.0]], -50.0)
        >>> jax.grad(lambda radius: found(radius).loss)(10.0).item()
        -5.0
    """
    check_instance(
        "moments", moments, Moments, "damjax.hindsight.moments(objective, associations, horizons) makes them"
    )
    if moments.hessian is not None and moments.ridge is not None:
        raise ValueError(
            "moments with both a hessian and a ridge that differs from row to row have no closed-form minimiser; give"
            " one of them, or a ridge part that is one number or one per feature, (1, df)"
        )
    return _best(moments, known_shape(domain))


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
        domain: from ``damjax.domains``; on an unbounded one nothing certifies the answer.
        smoothness: a Lipschitz constant of grad F, > 0.
        tolerance: the gap at which to stop, > 0, in units of F; or after 20000 steps.
        gradient: grad F where one is at hand; by autodiff otherwise.

    Returns:
        A Comparator; look at its gap.

    Raises:
        ValueError: a smoothness or tolerance that is not positive; a set of the user's own.

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
    slope, shape = jax.grad(loss) if gradient is None else gradient, known_shape(domain)
    for name, number in (("smoothness", smoothness), ("tolerance", tolerance)):
        check_array(name, number, "")
        if (value := concrete(number)) is not None:
            check_positive(name, value)
    start = jnp.asarray(start)
    start = start.astype(jnp.result_type(start, float))
    steepness, target = (jnp.asarray(x, start.dtype) for x in (smoothness, tolerance))
    found = accelerated(slope, start, shape, steepness, target)
    return _finish(loss, slope, found, shape)


# The set is an argument, not a closure, so that a second call compiles nothing.
@jax.jit
def _best(moments: Moments, shape: Shape) -> Comparator:
    def solve(moments: Moments) -> Comparator:
        fixed, fixed_shape = jax.lax.stop_gradient((moments, shape))
        if fixed.hessian is not None and isinstance(fixed_shape, Box):
            memory = _coupled(fixed.hessian, fixed.linear, fixed_shape)
        else:
            memory = _diagonal(fixed, fixed_shape)
        found = _finish(moments.value, moments.gradient, memory, shape)
        gap = _newton_decrement(fixed, memory) / 2 if isinstance(shape, Unconstrained) else found.gap
        return found._replace(gap=gap + fixed.rounding(memory))

    for _ in range(moments.linear.ndim - 2):
        solve = jax.vmap(solve)
    return solve(moments)


def _finish(loss: Callable, gradient: Gradient, found: Float[Array, "dv df"], shape: Shape) -> Comparator:
    solution = implicit(gradient, found, shape)
    gap = jax.lax.stop_gradient(jnp.maximum(frank_wolfe_gap(gradient(found), found, shape), 0))
    return Comparator(solution.params, loss(solution.anchored) + solution.decrement, gap)


def _coupled(hessian: Float[Array, "df df"], linear: Float[Array, "dv df"], box: Box) -> Float[Array, "dv df"]:
    """Least squares on a box, to rounding, in units in which every feature has curvature 1: a box is a box in any."""
    diagonal = jnp.diagonal(hessian)
    units = jnp.where(diagonal > 0, jnp.sqrt(diagonal), 1)
    hessian = hessian / (units[None] * units[:, None])
    scaled = Moments(hessian, None, linear / units[None], jnp.zeros((), units.dtype))
    lower, upper = (jnp.broadcast_to(jnp.asarray(b, units.dtype), linear.shape) for b in box)
    shape = Box(lower * units[None], upper * units[None])
    start = project(shape, jnp.zeros_like(linear))
    first_gap = frank_wolfe_gap(scaled.gradient(start), start, shape)
    # Where a bound is infinite no gap tells when to stop.
    tolerance = jnp.where(jnp.isfinite(first_gap), 10 * jnp.finfo(start.dtype).eps * first_gap, 0)
    near = _projected_newton(scaled.gradient, hessian, start, shape, tolerance)
    smoothness = jnp.linalg.eigvalsh(hessian)[-1]
    return project(box, accelerated(scaled.gradient, near, shape, smoothness, tolerance) / units[None])


def _projected_newton(
    gradient: Gradient,
    hessian: Float[Array, "df df"],
    start: Float[Array, "dv df"],
    box: Box,
    tolerance: Float[Array, ""],
) -> Float[Array, "dv df"]:
    """Newton steps among the entries that no bound holds; however nearly dependent the features are, a few suffice.

    Rows of the memory do not interact, so each has its own step and step length. Source: Bertsekas, "Projected Newton
    methods for optimization problems with simple constraints", 1982.
    """
    damping = len(hessian) * float(jnp.finfo(start.dtype).eps)
    lengths = jnp.append(0.5 ** jnp.arange(HALVINGS, dtype=start.dtype), 0)

    def direction(slope: Float[Array, "df"], held: Bool[Array, "df"]) -> Float[Array, "df"]:
        free = ~held
        among = jnp.where(free[:, None] & free[None], hessian, 0)
        among = among + jnp.diag(jnp.where(held, jnp.ones_like(slope), damping))
        return jnp.where(free, jax.scipy.linalg.solve(among, jnp.where(free, -slope, 0), assume_a="pos"), 0)

    falling = gradient(jnp.zeros_like(start))

    def losses(params: Float[Array, "dv df"]) -> Float[Array, "dv"]:
        return jnp.sum((0.5 * product(params, hessian) + falling) * params, axis=1)

    def advance(params: Float[Array, "dv df"]) -> Float[Array, "dv df"]:
        slope = gradient(params)
        held = ((params <= box.lower) & (slope > 0)) | ((params >= box.upper) & (slope < 0))
        step = jax.vmap(direction)(slope, held)
        tried = jax.vmap(lambda length: project(box, params + length * step))(lengths)
        tried = jnp.where(jnp.isfinite(tried), tried, params[None])
        chosen = jnp.argmin(jax.vmap(losses)(tried), axis=0)
        return jnp.take_along_axis(tried, chosen[None, :, None], axis=0)[0]

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        count, params, before = carry
        gap = frank_wolfe_gap(gradient(params), params, box)
        return (count < NEWTON_STEPS) & (gap > tolerance) & jnp.any(params != before)

    first = (jnp.ones((), jnp.int32), advance(start), start)
    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, advance(carry[1]), carry[1]), first)[1]


def _diagonal(moments: Moments, shape: Shape) -> Float[Array, "dv df"]:
    """Solve one problem whose curvature is diagonal, if need be after rotating the features."""
    linear = moments.linear
    if moments.hessian is None:
        curvature = jnp.zeros_like(linear) if moments.ridge is None else moments.ridge
        return _diagonal_minimizer(linear, jnp.broadcast_to(curvature, linear.shape), shape)
    eigenvalues, basis = _spectrum(moments.hessian)
    # B lies in the range of C: what it has outside is rounding, and would be blown up.
    rotated = jnp.where(eigenvalues[None] > 0, product(linear, basis), 0)
    found = product(_diagonal_minimizer(rotated, jnp.broadcast_to(eigenvalues, linear.shape), shape), basis.T)
    return _refined(moments.gradient, found, shape, eigenvalues, basis)


def _refined(
    gradient: Gradient,
    found: Float[Array, "dv df"],
    shape: Shape,
    eigenvalues: Float[Array, "df"],
    basis: Float[Array, "df df"],
) -> Float[Array, "dv df"]:
    """One Newton step more, for what rounding of the basis has cost, where it lowers the slope along the set."""

    def slope(params: Float[Array, "dv df"]) -> Float[Array, "dv df"]:
        return gradient(params) + multiplier * params

    pull = -jnp.sum(gradient(found) * found)
    held = isinstance(shape, FrobeniusBall) and jnp.linalg.norm(found) >= shape.radius * (1 - ON_BOUNDARY)
    multiplier = jnp.where(held & (pull > 0), pull / jnp.maximum(jnp.sum(found**2), jnp.finfo(found.dtype).tiny), 0)
    curvature = (eigenvalues + multiplier)[None]
    step = jnp.where(curvature > 0, product(slope(found), basis) / jnp.where(curvature > 0, curvature, 1), 0)
    moved = project(shape, found - product(step, basis.T))
    return jnp.where(jnp.linalg.norm(slope(moved)) < jnp.linalg.norm(slope(found)), moved, found)


def _spectrum(hessian: Float[Array, "df df"]) -> tuple[Float[Array, "df"], Float[Array, "df df"]]:
    """The eigenvalues of C, 0 where rounding hides them, and its eigenvectors as columns.

    Where C has a Cholesky factor they are the squares of its singular values, and told from 0 down to eps^2 of the
    largest: keys far from 0 are nearly dependent, and eigenvalues computed directly are off by eps of the largest.
    """
    eps, size = float(jnp.finfo(hessian.dtype).eps), hessian.shape[0]
    factor = jnp.linalg.cholesky(hessian)
    # Smaller pivots are rounding of the entry from which they are left over. No pivot is a NaN.
    definite = jnp.all(jnp.diagonal(factor) ** 2 > 4 * size * eps * jnp.diagonal(hessian))
    axes, sizes, _ = jnp.linalg.svd(jnp.where(definite, factor, jnp.eye(size, dtype=hessian.dtype)))
    eigenvalues, basis = jnp.linalg.eigh(hessian)
    eigenvalues = jnp.where(eigenvalues > size * eps * jnp.max(eigenvalues), eigenvalues, 0)
    return jnp.where(definite, sizes**2, eigenvalues), jnp.where(definite, axes, basis)


def _newton_decrement(moments: Moments, params: Float[Array, "dv df"]) -> Float[Array, ""]:
    """<grad F, C^-1 grad F>, twice F(U) - min F without constraint; infinite where F falls forever."""
    slope, linear = moments.gradient(params), moments.linear
    curvature = jnp.zeros_like(linear) if moments.ridge is None else moments.ridge
    if moments.hessian is not None:
        eigenvalues, basis = _spectrum(moments.hessian)
        slope, curvature = product(slope, basis), jnp.broadcast_to(eigenvalues, linear.shape)
    rounding = float(jnp.finfo(linear.dtype).eps) ** 0.5 * jnp.linalg.norm(linear)
    falling = (curvature == 0) & (jnp.abs(slope) > rounding)
    decrement = jnp.sum(jnp.where(curvature > 0, slope**2 / jnp.where(curvature > 0, curvature, 1), 0))
    return jnp.where(jnp.any(falling), jnp.inf, decrement)


def _diagonal_minimizer(
    linear: Float[Array, "dv df"], curvature: Float[Array, "dv df"], shape: Shape
) -> Float[Array, "dv df"]:
    """argmin of 1/2 <D, U^2> - <B, U> over the set, D >= 0."""
    flat = (curvature == 0) & (linear != 0)
    free = jnp.where(curvature > 0, linear / jnp.where(curvature > 0, curvature, 1), 0)
    match shape:
        case Box(lower, upper):
            steepest = jnp.where(flat, jnp.inf * jnp.sign(linear), free)
            return jnp.clip(steepest, jnp.asarray(lower, linear.dtype), jnp.asarray(upper, linear.dtype))
        case FrobeniusBall(radius):
            radius = jnp.asarray(radius, linear.dtype)
            multiplier = _multiplier(linear, curvature, radius)
            inside = ~jnp.any(flat) & (jnp.linalg.norm(free) <= radius)
            bounded = linear / jnp.where(multiplier + curvature > 0, multiplier + curvature, 1)
            # The last bit of the multiplier must not push the comparator out of its ball.
            return jnp.where(inside, free, project(shape, bounded))
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
