"""Balls around the zero memory: of the Frobenius norm, and what all of them share."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import promoting, sum_squares
from damjax._pytrees import register_dataclass
from damjax.domains.domain import (
    ON_BOUNDARY,
    Boundary,
    Domain,
    Face,
    Matrix,
    at_least_single,
    check_size,
    norm_of,
    rounding_of,
    stationary,
)
from damjax.types import ArrayLike

__all__ = ["FrobeniusBall", "NormBall", "frobenius_ball"]

BISECTIONS = 100  # more than the bits of a float64 and its exponent range in practice


@dataclass(frozen=True)
class NormBall(Domain):
    """The memories whose norm, whichever it is, is at most the radius, so that none is at a distance above 2 R."""

    radius: float | ArrayLike

    @property
    def diameter(self) -> float | ArrayLike:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 * self.radius

    def reach(self, memory: Any) -> float | ArrayLike:
        return self.radius


@register_dataclass()
@dataclass(frozen=True)
class FrobeniusBall(NormBall):
    """{X : ||X||_F <= radius}, whose best memories are known in closed form: B (C + lam I)^-1 with one number lam.

    Attributes:
        radius: R > 0, ().
    """

    rotates = True

    def project(self, tree: Any) -> Any:
        squared = jnp.asarray(promoting(sum, [sum_squares(at_least_single(leaf)) for leaf in jax.tree.leaves(tree)]))
        # Exactly 1 for a point of the ball; the root is kept off zero, where it has no slope.
        norm = jnp.sqrt(jnp.maximum(squared, jnp.finfo(squared.dtype).tiny))
        # Of a memory whose squares overflow nobody knows the norm: NaN, which is seen, and not zero.
        scale = jnp.where(jnp.isinf(norm), jnp.nan, self.radius / jnp.maximum(norm, self.radius))
        return jax.tree.map(lambda leaf: leaf * jnp.asarray(scale, leaf.dtype), tree)

    def support(self, direction: Any) -> Any:
        norm = norm_of(direction)
        scale = jnp.asarray(self.radius, norm.dtype) / jnp.where(norm > 0, norm, 1)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), direction)

    def support_value(self, direction: Any) -> Float[Array, ""]:
        norm = norm_of(direction)
        return jnp.asarray(self.radius, norm.dtype) * norm

    def diagonal_minimizer(self, linear: Matrix, curvature: Matrix) -> Matrix:
        flat, free = stationary(linear, curvature)
        radius = jnp.asarray(self.radius, linear.dtype)
        multiplier = _multiplier(linear, curvature, radius)
        inside = ~jnp.any(flat) & (jnp.linalg.norm(free) <= radius)
        bounded = linear / jnp.where(multiplier + curvature > 0, multiplier + curvature, 1)
        # The last bit of the multiplier must not push the comparator out of its ball.
        return jnp.where(inside, free, self.project(bounded))

    def face(self, point: Matrix, slope: Matrix, scale: Float[ArrayLike, ""]) -> Face:
        radius = jnp.asarray(self.radius, point.dtype)
        radius_now = jax.lax.stop_gradient(radius)
        norm, pull = jnp.linalg.norm(point), -jnp.sum(slope * point)
        held = (norm >= radius_now * (1 - ON_BOUNDARY)) & (pull > rounding_of(scale, point.dtype) * norm)
        outward = jnp.where(held, point / jnp.where(held, norm, 1), 0)
        growth = jnp.where(held, radius / radius_now, 1)

        def onto(x: Matrix) -> Matrix:
            # The square root has no slope at zero, which the branch that is not taken must not ask for.
            length = jnp.sqrt(jnp.where(held, jnp.sum(x**2), 1))
            return jnp.where(held, x * (growth * norm / length), x)

        return Face(
            anchored=point * growth,
            multiplier=jnp.where(held, pull / jnp.maximum(jnp.sum(point**2), jnp.finfo(point.dtype).tiny), 0),
            along=lambda x: x - outward * jnp.sum(outward * x),
            onto=onto,
        )

    def boundary(self, memories: np.ndarray) -> Boundary:
        norms = np.linalg.norm(memories / float(self.radius), axis=(-2, -1))
        return Boundary(norms, 1 - ON_BOUNDARY, "The best memory's norm is {:.4g} times the radius of the ball")


def frobenius_ball(radius: float | ArrayLike) -> FrobeniusBall:
    """The ball ||X||_F <= R around the zero memory, diameter B = 2R.

    Args:
        radius: R > 0.

    Raises:
        ValueError: the radius is not positive.

    Example:
        >>> ball = frobenius_ball(1.0)
        >>> ball.project(jnp.array([[0.0, 4.0]])).tolist(), ball.diameter
        ([[0.0, 1.0]], 2.0)
    """
    check_size("radius", radius)
    return FrobeniusBall(radius)


def _multiplier(linear: Matrix, curvature: Matrix, radius: Float[Array, ""]) -> Float[Array, ""]:
    """lam >= 0 with ||B / (D + lam)|| = R, by bisection: the left side falls with lam, to below R at ||B|| / R."""

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        outside = jnp.linalg.norm(linear / jnp.maximum(middle + curvature, jnp.finfo(linear.dtype).tiny)) > radius
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    top = jnp.linalg.norm(linear) / radius
    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(top), top))[1]
