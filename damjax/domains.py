"""Feasible sets of a memory: closed convex sets with a projection and a diameter."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from damjax._checks import check_array, check_between, check_instance, check_positive
from damjax._contractions import sum_squares
from damjax._types import ArrayLike, concrete


class FrobeniusBall(NamedTuple):
    """{X : ||X||_F <= radius}."""

    radius: float | ArrayLike


class Box(NamedTuple):
    """{X : lower <= X <= upper}, entry by entry."""

    lower: float | ArrayLike
    upper: float | ArrayLike


class Unconstrained(NamedTuple):
    """Every memory."""


Shape = FrobeniusBall | Box | Unconstrained


class Domain(NamedTuple):
    """A feasible set.

    Laws: ``project`` is idempotent, never moves two points apart, returns a point of the set unchanged, keeps shape and
    dtype, and leads to no two points farther apart than ``diameter``. A set of a user's own is tried where a run
    starts, on memories of its shape, and refused with a ValueError.

    Attributes:
        project: the nearest point of the set to one agent's memory, an array or a pytree of arrays.
        diameter: B, the largest distance between two points; infinite where the set is unbounded.
        shape: the set as data, for closed-form comparators.
    """

    project: Callable[[Any], Any]
    diameter: float | ArrayLike
    shape: Shape


def known_shape(domain: Domain) -> Shape:
    """The set as data, for whoever looks for the best memory in it.

    Raises:
        ValueError: a set of the user's own, which would be measured as another.

    Example:
        >>> known_shape(frobenius_ball(2.0))
        FrobeniusBall(radius=2.0)
    """
    check_instance("domain", domain, Domain, "call a factory of damjax.domains, such as frobenius_ball(radius)")
    if not isinstance(domain.shape, Shape):
        raise ValueError(
            f"domain must be a ball, a box or unconstrained where the best memory in it is asked for, but its shape is"
            f" {domain.shape!r}: damjax can project onto a set of your own, and not measure regret in it; measure in a"
            f" set that contains it, such as frobenius_ball(radius)"
        )
    return domain.shape


def project(shape: Shape, tree: Any) -> Any:
    """The nearest point of the set to ``tree``; what ``Domain.project`` does, with the set as an argument.

    Example:
        >>> project(Box(0.0, 1.0), jnp.array([2.0, 0.5])).tolist()
        [1.0, 0.5]
    """
    match shape:
        case FrobeniusBall(radius):
            squared = jnp.asarray(sum(map(sum_squares, jax.tree.leaves(tree))))
            # Exactly 1 for a point of the ball; the root is kept off zero, where it has no slope.
            norm = jnp.sqrt(jnp.maximum(squared, jnp.finfo(squared.dtype).tiny))
            return jax.tree.map(lambda leaf: (leaf * (radius / jnp.maximum(norm, radius))).astype(leaf.dtype), tree)
        case Box(lower, upper):

            def clip(leaf: Any) -> Any:
                bounds = (jnp.broadcast_to(jnp.asarray(bound, leaf.dtype), leaf.shape) for bound in (lower, upper))
                return optax.projections.projection_box(leaf, *bounds)

            return jax.tree.map(clip, tree)
        case Unconstrained():
            return tree
    raise ValueError(f"shape must be a FrobeniusBall, a Box or Unconstrained, but it is {shape!r}")


def frobenius_ball(radius: float | ArrayLike) -> Domain:
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
    check_array("radius", radius, "")
    if (value := concrete(radius)) is not None:
        check_positive("radius", value)
    return _domain(FrobeniusBall(radius), 2 * radius)


def box(lower: float | ArrayLike, upper: float | ArrayLike, *, shape: tuple[int, ...] | None = None) -> Domain:
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
    if shape is not None and not (isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)):
        raise ValueError(f"shape must be a tuple of integers, such as (dv, df), but it is {shape!r}")
    low, high = concrete(lower), concrete(upper)
    if low is not None and high is not None and not np.all(low <= high):
        raise ValueError(f"lower must be at most upper in every entry, but lower is {low} and upper {high}; swap them")
    width = jnp.asarray(upper) - jnp.asarray(lower)
    if shape is None and width.ndim == 0:
        diameter = np.inf
    else:
        diameter = jnp.linalg.norm(jnp.broadcast_to(width, width.shape if shape is None else shape))
    return _domain(Box(lower, upper), diameter)


def unconstrained() -> Domain:
    """No constraint: the projection is the identity and the diameter infinite.

    Example:
        >>> unconstrained().diameter
        inf
    """
    return _domain(Unconstrained(), np.inf)


def _domain(shape: Shape, diameter: float | ArrayLike) -> Domain:
    return Domain(functools.partial(project, shape), diameter, shape)
