"""The best memory in hindsight of convex losses, with a certificate and with derivatives.

Quadratic objectives add up to F(U) = 1/2 <U C, U> + 1/2 <D, U^2> - <B, U> + const, with moments C, D, B that are sums
over time, so every horizon comes from one pass. C (from DeltaNet) and D (from the gates) occur together only where D is
the same in every row of U, and then it is part of C; which leaves a problem that is diagonal after a rotation of the
features. A memory of several heads has a C and a rotation for each, and U C means U_h C_h, head by head:

- Frobenius ball: U(lam) = B (C + lam I)^-1 with lam >= 0 the root of ||U(lam)|| = R, or 0 if U(0) is inside;
- box: the clipped entrywise minimiser without C, else projected Newton steps and projected accelerated gradient;
- unconstrained: the minimiser of least norm;
- any other set: its linear maximiser where F is linear, else projected accelerated gradient.

Any other convex loss goes by projected accelerated gradient. Every answer comes with its Frank-Wolfe gap
max_S <grad F(U), U - S>, which bounds F(U) - min F, because an inexact comparator biases regret.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from damjax._arrays import by_head, joined, outer, product
from damjax._checks import check_instance
from damjax._laws import check_domain
from damjax._pytrees import node_types
from damjax.domains import Box, Domain, with_support
from damjax.hindsight.convex import Comparator, Gradient, accelerated, finish, frank_wolfe_gap
from damjax.weights.epochs import SumsOverEpochs
from damjax.weights.interests import Interests

__all__ = ["Moments", "best"]

ROUNDINGS = 4.0  # that a term of F(U) goes through
ROUNDED_GAP = 30.0  # in units of the rounding of F, what a gap can be told from
NEWTON_STEPS, HALVINGS = 50, 16


class Moments(NamedTuple):
    """A sum of quadratic losses, F(U) = 1/2 <U C, U> + 1/2 <D, U^2> - <B, U> + const; leading axes are a batch.

    Attributes:
        hessian: C, (.., df, df), or (.., heads, df, df) of memories of several heads; None when every loss is linear in
            the prediction.
        ridge: D, (.., dv, df); None when there is no ridge part.
        linear: B, (.., dv, df).
        constant: (..).
    """

    hessian: Float[Array, "... df df"] | None
    ridge: Float[Array, "*batch dv df"] | None
    linear: Float[Array, "*batch dv df"]
    constant: Float[Array, "*batch"]

    @property
    def num_agents(self) -> int:
        """N, of moments (H, N)."""
        return self.linear.shape[1]

    def weighted_sum(self, interests: Interests | SumsOverEpochs) -> "Moments":
        """What each agent is measured by: everyone's moments (H, N), weighted by its interests."""
        return jax.tree.map(interests.weighted_sums, self)

    def minimize(self, domain: Domain) -> Comparator:
        """The minimum over the set, as ``best``; a sum without one on any such set is refused."""
        bounded = with_support(domain).is_bounded(jnp.zeros_like(self.linear[0, 0]))
        if not bounded and self.hessian is None and self.ridge is None:
            raise ValueError(
                f"domain must be bounded for a linear objective, which has no minimum on others, but {domain} is not;"
                f" use frobenius_ball or box"
            )
        return best(self, domain)

    def value(self, params: Float[Array, "*batch dv df"]) -> Float[Array, "*batch"]:
        """F(U), (..)."""
        value = self.constant - jnp.sum(self.linear * params, axis=(-2, -1))
        if self.hessian is not None:
            value = value + 0.5 * jnp.sum(_times(params, self.hessian) * params, axis=(-2, -1))
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
            gradient = gradient + _times(params, self.hessian)
        if self.ridge is not None:
            gradient = gradient + self.ridge * params
        return gradient


def _times(params: Float[Array, "*batch dv df"], matrices: Float[Array, "..."]) -> Float[Array, "*batch dv df"]:
    """U C, with one matrix (*batch, df, df) for all rows, or one for those of each head, (*batch, heads, df, df)."""
    place = params.ndim - 2
    heads = matrices.shape[place:-2]
    return joined(product(by_head(params, heads, place), matrices), heads, place)


def _by_row(numbers: Float[Array, "*heads df"], like: Float[Array, "dv df"]) -> Float[Array, "dv df"]:
    """Numbers of features, of each head by themselves, beside every row of a memory."""
    return outer(jnp.ones_like(like[:, 0]), numbers)


def best(moments: Moments, domain: Domain) -> Comparator:
    """argmin and min of F over the domain, for every entry of the batch.

    Args:
        moments: with any leading batch axes; not both a hessian and a ridge.
        domain: from ``damjax.domains``, or one of your own with a ``support``.

    Returns:
        A Comparator; NaN where F has no minimum. Differentiable in the moments, the radius of a ball, the bounds of a
        box, and in whatever the projection of another set can be differentiated.

    Raises:
        ValueError: moments with both a hessian and a ridge; a set of the user's own without ``support``, or one that
            breaks a law.

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
    domain = with_support(domain)
    check_domain(domain, jax.ShapeDtypeStruct(moments.linear.shape[-2:], moments.linear.dtype))
    # A set that is data is an argument, not a closure, so that a second call compiles nothing; beside it its class.
    if all(map(_is_data, jax.tree.leaves(domain))):
        return _best_jitted(node_types(domain), moments, domain)
    return jax.jit(lambda moments: _minimized(moments, domain))(moments)


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, (bool, int, float, np.ndarray, np.number, jax.Array))


@functools.partial(jax.jit, static_argnums=0)
def _best_jitted(_: tuple[type, ...], moments: Moments, domain: Domain) -> Comparator:
    return _minimized(moments, domain)


def _minimized(moments: Moments, domain: Domain) -> Comparator:
    fixed_domain = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if _is_data(leaf) else leaf, domain)

    def solve(moments: Moments) -> Comparator:
        fixed = jax.lax.stop_gradient(moments)
        memory = _minimizer(fixed, fixed_domain)
        best = finish(moments.value, moments.gradient, memory, domain)
        gap = best.gap if domain.constrained else _newton_decrement(fixed, memory) / 2
        return best._replace(gap=gap + fixed.rounding(memory))

    for _ in range(moments.linear.ndim - 2):
        solve = jax.vmap(solve)
    return solve(moments)


def _minimizer(moments: Moments, domain: Domain) -> Float[Array, "dv df"]:
    """Solve one problem by the best means that the set allows."""
    hessian, ridge, linear, _ = moments
    if hessian is None:
        curvature = jnp.zeros_like(linear) if ridge is None else jnp.broadcast_to(ridge, linear.shape)
        if (memory := domain.diagonal_minimizer(linear, curvature)) is not None:
            return memory
        return domain.support(linear) if ridge is None else _iterated(moments, domain, jnp.max(ridge))
    if domain.rotates and (memory := _rotated(hessian, moments, domain)) is not None:
        return memory
    if (corners := domain.as_box(linear)) is not None:
        return _coupled(hessian, linear, Box(*corners))
    return _iterated(moments, domain, jnp.max(jnp.linalg.eigvalsh(hessian)))


def _iterated(moments: Moments, domain: Domain, smoothness: Float[Array, ""]) -> Float[Array, "dv df"]:
    """Projected accelerated gradient, until the gap is what rounding leaves of the first one and of the terms of F."""
    start = domain.project(jnp.zeros_like(moments.linear))
    first_gap = frank_wolfe_gap(moments.gradient(start), start, domain)
    scale = jnp.where(jnp.isfinite(first_gap), first_gap, 0) + jnp.abs(moments.constant)
    return accelerated(
        moments.gradient, start, domain, smoothness, ROUNDED_GAP * float(jnp.finfo(start.dtype).eps) * scale
    )


def _coupled(hessian: Float[Array, "*heads df df"], linear: Float[Array, "dv df"], box: Box) -> Float[Array, "dv df"]:
    """Least squares on a box, to rounding, in units in which every feature has curvature 1: a box is a box in any."""
    diagonal = jnp.diagonal(hessian, axis1=-2, axis2=-1)
    units = jnp.where(diagonal > 0, jnp.sqrt(diagonal), 1)
    hessian = hessian / (units[..., None, :] * units[..., :, None])
    units = _by_row(units, linear)
    scaled = Moments(hessian, None, linear / units, jnp.zeros((), units.dtype))
    lower, upper = box.as_box(linear)
    scaled_box = Box(lower * units, upper * units)
    start = scaled_box.project(jnp.zeros_like(linear))
    first_gap = frank_wolfe_gap(scaled.gradient(start), start, scaled_box)
    # Where a bound is infinite no gap tells when to stop.
    tolerance = jnp.where(jnp.isfinite(first_gap), 10 * jnp.finfo(start.dtype).eps * first_gap, 0)
    near = _projected_newton(scaled.gradient, hessian, start, scaled_box, tolerance)
    smoothness = jnp.max(jnp.linalg.eigvalsh(hessian))
    return box.project(accelerated(scaled.gradient, near, scaled_box, smoothness, tolerance) / units)


def _projected_newton(
    gradient: Gradient,
    hessian: Float[Array, "*heads df df"],
    start: Float[Array, "dv df"],
    box: Box,
    tolerance: Float[Array, ""],
) -> Float[Array, "dv df"]:
    """Newton steps among the entries that no bound holds; however nearly dependent the features are, a few suffice.

    Rows of the memory do not interact, so each has its own step and step length. Source: Bertsekas, "Projected Newton
    methods for optimization problems with simple constraints", 1982.
    """
    damping = hessian.shape[-1] * float(jnp.finfo(start.dtype).eps)
    of_rows = hessian if hessian.ndim == 2 else jnp.repeat(hessian, len(start) // len(hessian), axis=0)
    lengths = jnp.append(0.5 ** jnp.arange(HALVINGS, dtype=start.dtype), 0)

    def direction(
        slope: Float[Array, "df"], held: Bool[Array, "df"], curvature: Float[Array, "df df"]
    ) -> Float[Array, "df"]:
        free = ~held
        among = jnp.where(free[:, None] & free[None], curvature, 0)
        among = among + jnp.diag(jnp.where(held, jnp.ones_like(slope), damping))
        return jnp.where(free, jax.scipy.linalg.solve(among, jnp.where(free, -slope, 0), assume_a="pos"), 0)

    over_rows = jax.vmap(direction, in_axes=(0, 0, None if hessian.ndim == 2 else 0))
    falling = gradient(jnp.zeros_like(start))

    def losses(params: Float[Array, "dv df"]) -> Float[Array, "dv"]:
        return jnp.sum((0.5 * _times(params, hessian) + falling) * params, axis=1)

    def advance(params: Float[Array, "dv df"]) -> Float[Array, "dv df"]:
        slope = gradient(params)
        held = ((params <= box.lower) & (slope > 0)) | ((params >= box.upper) & (slope < 0))
        step = over_rows(slope, held, of_rows)
        tried = jax.vmap(lambda length: box.project(params + length * step))(lengths)
        tried = jnp.where(jnp.isfinite(tried), tried, params[None])
        chosen = jnp.argmin(jax.vmap(losses)(tried), axis=0)
        return jnp.take_along_axis(tried, chosen[None, :, None], axis=0)[0]

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        count, params, before = carry
        gap = frank_wolfe_gap(gradient(params), params, box)
        return (count < NEWTON_STEPS) & (gap > tolerance) & jnp.any(params != before)

    first = (jnp.ones((), jnp.int32), advance(start), start)
    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, advance(carry[1]), carry[1]), first)[1]


def _rotated(hessian: Float[Array, "*heads df df"], moments: Moments, domain: Domain) -> Float[Array, "dv df"] | None:
    """Solve one problem whose curvature is diagonal after a rotation of the features, where the set allows any."""
    linear = moments.linear
    eigenvalues, basis = _spectra(hessian)
    curvature = _by_row(eigenvalues, linear)
    # B lies in the range of C: what it has outside is rounding, and would be blown up.
    rotated = jnp.where(curvature > 0, _times(linear, basis), 0)
    if (memory := domain.diagonal_minimizer(rotated, curvature)) is None:
        return None
    return _refined(moments.gradient, _times(memory, jnp.swapaxes(basis, -2, -1)), domain, curvature, basis)


def _refined(
    gradient: Gradient,
    memory: Float[Array, "dv df"],
    domain: Domain,
    curvature: Float[Array, "dv df"],
    basis: Float[Array, "*heads df df"],
) -> Float[Array, "dv df"]:
    """One Newton step more, for what rounding of the basis has cost, where it lowers the slope along the set."""
    multiplier = domain.face(memory, gradient(memory), jnp.zeros((), memory.dtype)).multiplier

    def slope(params: Float[Array, "dv df"]) -> Float[Array, "dv df"]:
        return gradient(params) + multiplier * params

    curvature = curvature + multiplier
    step = jnp.where(curvature > 0, _times(slope(memory), basis) / jnp.where(curvature > 0, curvature, 1), 0)
    moved = domain.project(memory - _times(step, jnp.swapaxes(basis, -2, -1)))
    return jnp.where(jnp.linalg.norm(slope(moved)) < jnp.linalg.norm(slope(memory)), moved, memory)


def _spectra(hessian: Float[Array, "*heads df df"]) -> tuple[Float[Array, "*heads df"], Float[Array, "*heads df df"]]:
    """The eigenvalues and eigenvectors of C, or of that of every head."""
    return _spectrum(hessian) if hessian.ndim == 2 else jax.vmap(_spectrum)(hessian)


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
        eigenvalues, basis = _spectra(moments.hessian)
        slope, curvature = _times(slope, basis), _by_row(eigenvalues, linear)
    rounding = float(jnp.finfo(linear.dtype).eps) ** 0.5 * jnp.linalg.norm(linear)
    falling = (curvature == 0) & (jnp.abs(slope) > rounding)
    decrement = jnp.sum(jnp.where(curvature > 0, slope**2 / jnp.where(curvature > 0, curvature, 1), 0))
    return jnp.where(jnp.any(falling), jnp.inf, decrement)
