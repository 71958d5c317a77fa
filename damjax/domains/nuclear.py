"""The ball of the nuclear norm, of memories of low rank."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import product
from damjax._pytrees import register_dataclass
from damjax.domains.balls import NormBall
from damjax.domains.domain import ON_BOUNDARY, Boundary, Matrix, check_size
from damjax.domains.simplices import onto_l1
from damjax.types import ArrayLike

__all__ = ["NuclearBall", "nuclear_ball"]


@register_dataclass()
@dataclass(frozen=True)
class NuclearBall(NormBall):
    """{X : the sum of X's singular values <= radius}: memories of low rank.

    Attributes:
        radius: R > 0, ().
    """

    def project(self, tree: Any) -> Any:
        matrix, restore = _one_matrix(tree)
        return restore(_onto_nuclear(matrix, jnp.asarray(self.radius, matrix.dtype)))

    def support(self, direction: Any) -> Any:
        matrix, restore = _one_matrix(direction)
        left, _, right = jnp.linalg.svd(matrix, full_matrices=False)
        return restore(jnp.asarray(self.radius, matrix.dtype) * jnp.outer(left[:, 0], right[0]))

    def boundary(self, memories: np.ndarray) -> Boundary:
        norms = np.linalg.svd(memories / float(self.radius), compute_uv=False).sum(axis=-1)
        return Boundary(norms, 1 - ON_BOUNDARY, "The best memory's nuclear norm is {:.4g} times the radius of the ball")


def nuclear_ball(radius: float | ArrayLike) -> NuclearBall:
    """The memories (dv, df) whose singular values sum to R at most, diameter B = 2R: memories of low rank.

    The projection is that of the singular values onto the l1 ball. Its first derivative exists everywhere, also at the
    zero memory and where singular values repeat, but not where one is about to vanish (there it is the one of the side
    on which it has vanished); second derivatives need singular values that differ.

    Args:
        radius: R > 0.

    Raises:
        ValueError: the radius is not positive. Where it is used: a memory that is no one matrix.

    Example:
        >>> ball = nuclear_ball(2.0)
        >>> ball.project(jnp.diag(jnp.array([3.0, 2.0, 0.5]))).round(5).tolist()
        [[1.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    check_size("radius", radius)
    return NuclearBall(radius)


def _one_matrix(tree: Any) -> tuple[Matrix, Callable[[Matrix], Any]]:
    """The only leaf, and how to put another one in its place."""
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) != 1 or leaves[0].ndim != 2:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(
            f"domain must be a set of such memories, but nuclear_ball is one of matrices (dv, df) and the memory has"
            f" arrays of shapes {shapes}; damjax.domains.product gives every part its own set"
        )
    return jnp.asarray(leaves[0]), lambda matrix: structure.unflatten([matrix])


@jax.custom_jvp
def _onto_nuclear(matrix: Matrix, radius: Float[Array, ""]) -> Matrix:
    """The nearest matrix whose singular values sum to the radius at most."""
    left, sizes, right = jnp.linalg.svd(matrix, full_matrices=False)
    nearest = product(left * onto_l1(sizes, radius)[None], right)
    return jnp.where(jnp.sum(sizes) <= radius, matrix, nearest)


@_onto_nuclear.defjvp
def _(points: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """By divided differences of the singular values, which have limits where these repeat; slopes of an SVD have none.

    Source: Lewis and Sendov, "Nonsmooth analysis of singular values", 2005.
    """
    (matrix, radius), (change, growth) = points, tangents
    left, sizes, right = jnp.linalg.svd(matrix, full_matrices=False)
    shrunk = onto_l1(sizes, radius)
    positive = shrunk > 0
    core = product(left.T, change, right.T)
    mixed = positive[:, None] != positive[None]
    steps = jnp.where(mixed, sizes[:, None] - sizes[None], 1)
    both = (positive[:, None] & positive[None]).astype(sizes.dtype)
    even = jnp.where(mixed, (shrunk[:, None] - shrunk[None]) / steps, both)
    sums = sizes[:, None] + sizes[None]
    odd = jnp.where(sums > 0, (shrunk[:, None] + shrunk[None]) / jnp.where(sums > 0, sums, 1), 0)
    share = jnp.where(positive, 1 / jnp.maximum(jnp.sum(positive), 1).astype(sizes.dtype), 0)
    lowered = share * (jnp.sum(jnp.where(positive, jnp.diagonal(core), 0)) - growth)
    inner = even * (core + core.T) / 2 + odd * (core - core.T) / 2 - jnp.diag(lowered)
    # The rows or columns beyond the square: one of these two is zero.
    ratios = jnp.where(sizes > 0, shrunk / jnp.where(sizes > 0, sizes, 1), 0)
    rows = product(left.T, change) - product(core, right)
    columns = product(change, right.T) - product(left, core)
    tangent = (
        product(left, inner, right) + product(left, ratios[:, None] * rows) + product(columns * ratios[None], right)
    )
    inside = jnp.sum(sizes) <= radius
    nearest = product(left * shrunk[None], right)
    return jnp.where(inside, matrix, nearest), jnp.where(inside, change, tangent)
