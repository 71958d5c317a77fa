"""Sets with corners: the l1 ball and the simplex, of memories with few entries."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from damjax._arrays import dtype_of
from damjax._pytrees import register_dataclass
from damjax.domains.balls import NormBall
from damjax.domains.domain import ON_BOUNDARY, Boundary, Domain, check_declared, check_shape, check_size
from damjax.types import ArrayLike

__all__ = ["L1Ball", "Simplex", "l1_ball", "simplex"]


@register_dataclass()
@dataclass(frozen=True)
class L1Ball(NormBall):
    """{X : sum of |X_ij| <= radius}: memories with few entries.

    Attributes:
        radius: R > 0, ().
    """

    def project(self, tree: Any) -> Any:
        entries, restore = ravel_pytree(tree)
        return restore(onto_l1(entries, jnp.asarray(self.radius, entries.dtype)))

    def support(self, direction: Any) -> Any:
        entries, restore = ravel_pytree(direction)
        largest = jax.nn.one_hot(jnp.argmax(jnp.abs(entries)), len(entries), dtype=entries.dtype)
        return restore(jnp.asarray(self.radius, entries.dtype) * largest * jnp.sign(entries))

    def boundary(self, memories: np.ndarray) -> Boundary:
        norms = np.abs(memories / float(self.radius)).sum(axis=(-2, -1))
        return Boundary(norms, 1 - ON_BOUNDARY, "The best memory's l1 norm is {:.4g} times the radius of the ball")


@register_dataclass(static=["axis", "shape"])
@dataclass(frozen=True)
class Simplex(Domain):
    """{X : X >= 0 and its entries, all of them or along an axis, sum to a total}.

    Attributes:
        total: of the entries, > 0, ().
        axis: along which they sum to it; None for the whole memory.
        shape: of one memory, where it is known.
    """

    total: float | ArrayLike
    axis: int | None = None
    shape: tuple[int, ...] | None = None

    @property
    def diameter(self) -> float | ArrayLike:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.axis is None:
            return math.sqrt(2) * self.total
        return np.inf if self.shape is None else math.sqrt(2 * self._num_sums(self.shape)) * self.total

    def _num_sums(self, shape: tuple[int, ...]) -> int:
        return 1 if self.axis is None else math.prod(shape) // shape[self.axis]

    def _each(self, vertex: Callable[[Array, Array], Array], tree: Any) -> Any:
        """Apply a function of (entries (.., terms), total ()) to entries that sum to the total, on their last axis."""
        if self.axis is None:
            entries, restore = ravel_pytree(tree)
            return restore(vertex(entries, jnp.asarray(self.total, entries.dtype)))
        axis = self.axis

        def of_leaf(leaf: Array) -> Array:
            rows = vertex(jnp.moveaxis(leaf, axis, -1), jnp.asarray(self.total, leaf.dtype))
            return jnp.moveaxis(rows, -1, axis)

        return jax.tree.map(of_leaf, tree)

    def check_memory(self, memory: Any) -> None:
        check_declared(self.shape, memory)
        for leaf in jax.tree.leaves(memory):
            _check_axis("domain", self.axis, leaf.shape)

    def project(self, tree: Any) -> Any:
        return self._each(_onto_simplex, tree)

    def support(self, direction: Any) -> Any:
        def vertex(entries: Array, total: Array) -> Array:
            return total * jax.nn.one_hot(jnp.argmax(entries, -1), entries.shape[-1], dtype=entries.dtype)

        return self._each(vertex, direction)

    def width(self, memory: Any) -> Float[Array, ""]:
        return math.sqrt(2) * self.reach(memory)

    def reach(self, memory: Any) -> Float[Array, ""]:
        shapes = [leaf.shape for leaf in jax.tree.leaves(memory)]
        num_sums = 1 if self.axis is None else sum(map(self._num_sums, shapes))
        return math.sqrt(num_sums) * jnp.asarray(self.total, dtype_of(memory))

    def boundary(self, memories: np.ndarray) -> None:
        # Most of its memories lie on a face, since entries that are not needed are 0.
        return None


def l1_ball(radius: float | ArrayLike) -> L1Ball:
    """The ball sum |X_ij| <= R around the zero memory, diameter B = 2R: its memories have few entries.

    Args:
        radius: R > 0.

    Raises:
        ValueError: the radius is not positive.

    Example:
        >>> ball = l1_ball(2.0)
        >>> ball.project(jnp.array([[3.0, -2.0, 0.5]])).tolist(), ball.support(jnp.array([[1.0, -4.0, 0.5]])).tolist()
        ([[1.5, -0.5, 0.0]], [[0.0, -2.0, 0.0]])

    Source: the projection is that of Duchi et al., "Efficient projections onto the l1-ball", 2008.
    """
    check_size("radius", radius)
    return L1Ball(radius)


def simplex(
    total: float | ArrayLike = 1.0, axis: int | None = None, *, shape: tuple[int, ...] | None = None
) -> Simplex:
    """The memories X >= 0 whose entries sum to a total, all of them or along an axis.

    Args:
        total: > 0; 1 for distributions.
        axis: along which the entries sum to it, as -1 for rows; None, the default, for the whole memory.
        shape: of one memory, (dv, df). Without it the diameter is infinite where there is an axis, since nobody knows
            how many sums there are; that of the whole memory is sqrt(2) times the total.

    Raises:
        ValueError: a total that is not positive, an axis that is no integer.

    Example:
        >>> rows = simplex(axis=-1, shape=(2, 2))
        >>> rows.project(jnp.array([[0.5, 0.5], [3.0, 1.0]])).tolist(), rows.diameter
        ([[0.5, 0.5], [1.0, 0.0]], 2.0)
    """
    check_size("total", total)
    check_shape(shape)
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise ValueError(f"axis must be an integer, or None for the whole memory, but it is {axis!r}")
    if shape is not None:
        _check_axis("axis", axis, shape)
    return Simplex(total, axis, shape)


def _check_axis(name: str, axis: int | None, shape: tuple[int, ...]) -> None:
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name} must sum along an axis of the memory, whose shape is {shape}, but axis is {axis}")


def onto_l1(values: Float[Array, "terms"], radius: Float[Array, ""]) -> Float[Array, "terms"]:
    """The nearest point whose entries' sizes sum to the radius at most."""
    sizes = jnp.abs(values)
    return jnp.where(jnp.sum(sizes) <= radius, values, jnp.sign(values) * _onto_simplex(sizes, radius))


def _onto_simplex(values: Float[Array, "*batch terms"], total: Float[Array, ""]) -> Float[Array, "*batch terms"]:
    """The nearest point with entries >= 0 that sum to the total, along the last axis.

    That of optax does not keep single precision where double is allowed.
    """
    # A shift of all entries changes nothing; from the largest one on, no digit that matters is rounded away. Entries
    # a total below it vanish, and stay as far below as keeps them apart from those that are just positive.
    shifted = jnp.maximum(values - jax.lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True)), -2 * total)
    falling = jnp.sort(shifted, axis=-1, descending=True)
    counts = jnp.broadcast_to(jnp.arange(1, values.shape[-1] + 1, dtype=values.dtype), values.shape)
    thresholds = (jnp.cumsum(falling, axis=-1) - total) / counts
    num_positive = jnp.sum(falling > thresholds, axis=-1, keepdims=True)
    threshold = jnp.take_along_axis(thresholds, jnp.maximum(num_positive, 1) - 1, axis=-1)
    return jax.nn.relu(shifted - threshold)
