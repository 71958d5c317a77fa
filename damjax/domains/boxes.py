"""Boxes, and no constraint at all, which is a box without walls."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from damjax._arrays import norm
from damjax._checks import check_between, concrete
from damjax._pytrees import register_dataclass
from damjax.domains.domain import (
    ON_BOUNDARY,
    Boundary,
    Domain,
    Face,
    Matrix,
    check_declared,
    check_shape,
    rounding_of,
    stationary,
)
from damjax.types import ArrayLike

__all__ = ["Box", "Unconstrained", "box", "unconstrained"]


@register_dataclass(static=["shape"])
@dataclass(frozen=True)
class Box(Domain):
    """{X : lower <= X <= upper}, entry by entry.

    Attributes:
        lower: a number or an array that broadcasts against one memory.
        upper: likewise.
        shape: of one memory, where it is known.
    """

    lower: float | ArrayLike
    upper: float | ArrayLike
    shape: tuple[int, ...] | None = None

    @property
    def diameter(self) -> float | ArrayLike:  # pyright: ignore[reportIncompatibleVariableOverride]
        width = jnp.asarray(self.upper) - jnp.asarray(self.lower)
        if self.shape is None and width.ndim == 0:
            return np.inf
        return jnp.linalg.norm(jnp.broadcast_to(width, width.shape if self.shape is None else self.shape))

    def check_memory(self, memory: Any) -> None:
        check_declared(self.shape, memory)
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            for leaf in jax.tree.leaves(memory):
                if not _broadcasts(np.shape(bound), leaf.shape):
                    raise ValueError(
                        f"domain must have bounds that broadcast against a memory {leaf.shape}, but the shape of its"
                        f" {name} ones is {np.shape(bound)}"
                    )

    def project(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: optax.projections.projection_box(leaf, *self.as_box(leaf)), tree)

    def support(self, direction: Any) -> Any:
        def corner(leaf: Array) -> Array:
            lower, upper = self.as_box(leaf)
            # Where nothing pulls, an entry need not be at a bound, which may be infinite.
            return jnp.where(leaf == 0, jnp.clip(jnp.zeros_like(leaf), lower, upper), jnp.where(leaf < 0, lower, upper))

        return jax.tree.map(corner, direction)

    def width(self, memory: Any) -> Float[Array, ""]:
        sides = [jnp.ravel(upper - lower) for lower, upper in map(self.as_box, jax.tree.leaves(memory))]
        return norm(jnp.concatenate(sides))

    def reach(self, memory: Any) -> float | ArrayLike:
        ends = [jnp.ravel(jnp.maximum(*map(jnp.abs, self.as_box(leaf)))) for leaf in jax.tree.leaves(memory)]
        return norm(jnp.concatenate(ends))

    def as_box(self, memory: Any) -> tuple[Array, Array]:
        lower, upper = (jnp.asarray(bound, memory.dtype) for bound in (self.lower, self.upper))
        return jnp.broadcast_to(lower, memory.shape), jnp.broadcast_to(upper, memory.shape)

    def diagonal_minimizer(self, linear: Matrix, curvature: Matrix) -> Matrix:
        flat, free = stationary(linear, curvature)
        steepest = jnp.where(flat, jnp.inf * jnp.sign(linear), free)
        return jnp.clip(steepest, jnp.asarray(self.lower, linear.dtype), jnp.asarray(self.upper, linear.dtype))

    def face(self, point: Matrix, slope: Matrix, scale: Float[ArrayLike, ""]) -> Face:
        lower, upper = self.as_box(point)
        low, high = jax.lax.stop_gradient((lower, upper))
        rounding = rounding_of(scale, point.dtype)
        # An entry without bounds has nothing to be held at.
        margin = jnp.where(jnp.isfinite(high - low), ON_BOUNDARY * (high - low), 0)
        at_low = (point <= low + margin) & (slope > rounding)
        at_high = (point >= high - margin) & (slope < -rounding)
        motion = jnp.where(at_low, lower - low, jnp.where(at_high, upper - high, 0))
        held = at_low | at_high
        return Face(point + motion, jnp.zeros((), point.dtype), lambda x: jnp.where(held, 0, x), lambda x: x)

    def boundary(self, memories: np.ndarray) -> Boundary:
        low, high = (np.broadcast_to(np.asarray(b, float), memories.shape[1:]) for b in (self.lower, self.upper))
        # An entry without bounds has none to touch, and where both meet there is nothing to learn.
        slack = np.where(np.isfinite(high - low), ON_BOUNDARY * (high - low), 0.0)
        at_bound = ((memories <= low + slack) | (memories >= high - slack)) & (low < high)
        words = "A share of {:.3g} of the best memory's entries is at a bound of the box"
        return Boundary(at_bound.mean(axis=(1, 2)), 0.0, words)


@register_dataclass()
@dataclass(frozen=True)
class Unconstrained(Domain):
    """Every memory."""

    constrained = False
    rotates = True

    @property
    def diameter(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return np.inf

    def project(self, tree: Any) -> Any:
        return tree

    def support(self, direction: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.where(leaf == 0, 0, jnp.inf * leaf), direction)

    def diagonal_minimizer(self, linear: Matrix, curvature: Matrix) -> Matrix:
        flat, free = stationary(linear, curvature)
        # A direction without curvature leads to minus infinity: no minimiser, and no silent zero for it.
        return jnp.where(jnp.any(flat), jnp.nan, free)

    def face(self, point: Matrix, slope: Matrix, scale: Float[ArrayLike, ""]) -> Face:
        return Face(point, jnp.zeros((), point.dtype), lambda x: x, lambda x: x)

    def boundary(self, memories: np.ndarray) -> None:
        return None


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        length in (1, wanted) for length, wanted in zip(shape[::-1], to[::-1], strict=False)
    )


def box(lower: float | ArrayLike, upper: float | ArrayLike, *, shape: tuple[int, ...] | None = None) -> Box:
    """The box lower <= X <= upper.

    Args:
        lower: a number or an array that broadcasts against one memory.
        upper: likewise; lower <= upper everywhere.
        shape: of one memory, (dv, df); the diameter is ||upper - lower||_F over it. When it is left out, bounds that
            are arrays must have the full shape, and numbers give an infinite diameter, since the size is unknown.

    Raises:
        ValueError: a lower bound above its upper bound.

    Example:
        >>> unit = box(-1.0, 1.0, shape=(2, 2))
        >>> unit.project(jnp.array([[3.0, -4.0], [0.5, 0.0]])).tolist(), float(unit.diameter)
        ([[1.0, -1.0], [0.5, 0.0]], 4.0)
    """
    for name, bound in (("lower", lower), ("upper", upper)):
        if (value := concrete(bound)) is not None:
            check_between(name, value, -np.inf, np.inf)
    check_shape(shape)
    low, high = concrete(lower), concrete(upper)
    if low is not None and high is not None and not np.all(low <= high):
        raise ValueError(f"lower must be at most upper in every entry, but lower is {low} and upper {high}; swap them")
    return Box(lower, upper, shape)


def unconstrained() -> Unconstrained:
    """No constraint: the projection is the identity and the diameter infinite.

    Example:
        >>> unconstrained().diameter
        inf
    """
    return Unconstrained()
