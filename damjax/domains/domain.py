"""What a set is: its laws, and the general answers of those that say no more than their projection."""

import abc
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import dtype_of, promoting, root
from damjax._checks import brief, check_array, check_positive, concrete
from damjax.types import ArrayLike

__all__ = ["Boundary", "Domain", "Face", "Matrix", "as_domain", "has_support", "with_support"]

ON_BOUNDARY = 1e-6  # a memory this near, relative to the size of the set, is held at the boundary
NOISE = 100.0  # roundings of the derivative of a projection
OUTWARD, TAKEN_BACK = 1e-3, 1e-2  # a step away from the centre, and the share of it by which a boundary is noticed

Matrix = Float[Array, "dv df"]


class Face(NamedTuple):
    """The part of a set's boundary that holds a memory, or the interior: how the memory moves with the problem.

    Attributes:
        anchored: the memory, moving with the boundary; derivatives are those in the radius or bounds of the set.
        multiplier: lam >= 0, the curvature that the boundary of a ball adds, ().
        along: projects a direction onto the directions of the face.
        onto: takes a memory near this one back to the face.
        length: where ``along`` is the derivative of the projection at X - length * grad F(X), which is no projection
            if the boundary is curved, this length, (); None where it is one.
    """

    anchored: Matrix
    multiplier: Float[Array, ""]
    along: Callable[[Matrix], Matrix]
    onto: Callable[[Matrix], Matrix]
    length: Float[Array, ""] | None = None


class Boundary(NamedTuple):
    """How near memories are to the boundary of their set, for ``damjax.diagnostics``.

    Attributes:
        values: a number per memory, (N,).
        threshold: a value above it says that the memory is at the boundary.
        words: what the number is, with a place for it, as "The norm is {:.4g} times the radius".
    """

    values: np.ndarray
    threshold: float
    words: str


class Domain(abc.ABC):
    """A feasible set: closed, convex, not empty.

    One of a user's own is a subclass, or any object with ``project`` and ``diameter``: it runs in every algorithm and
    has its bounds. With ``support`` it also has best memories in hindsight, regret, gaps and diagnoses. All else is
    optional. A set whose class is a pytree (a NamedTuple, a dataclass given to ``jax.tree_util.register_dataclass``) is
    an argument of compiled functions, so that a second call with another radius compiles nothing; another one is a
    constant to them. In compiled functions of your own mind that jaxlib, from 0.10 on, may run the program of one such
    dataclass for another with the same fields; for classes given to ``register_pytree_node_class`` it never does.

    Laws: ``project`` is idempotent, never moves two memories apart, leads to no two memories farther apart than
    ``diameter``, and keeps shapes and dtypes; ``support`` gives a memory of the set, and no other has a larger inner
    product with the direction. One of a user's own is tried where a run starts, on memories of its shape, and refused
    with a ValueError that names the part.

    Attributes:
        diameter: B, the largest distance between two memories of the set; infinite where it has none, or where it
            depends on a shape that is not known.
        constrained: whether there is any memory outside the set.
        rotates: whether every rotation of a memory's features leaves the set as it is, and of those of some rows by
            themselves, as heads have them.
        sets: those that it is made of.

    Example:
        >>> class Halfspace(Domain):
        ...     '''The memories whose entries sum to at most 1.'''
        ...     diameter = np.inf
        ...     def project(self, tree):
        ...         return tree - jnp.maximum(jnp.sum(tree) - 1, 0) / tree.size
        >>> Halfspace().project(jnp.array([[2.0, 1.0]])).tolist()
        [[1.0, 0.0]]
        >>> bool(Halfspace().contains(jnp.array([[2.0, 1.0]])))
        False
    """

    diameter: float | ArrayLike
    constrained: bool = True
    rotates: bool = False
    sets: "Sequence[Domain]" = ()

    @classmethod
    def __subclasshook__(cls, kind: type) -> Any:
        """Whatever has a projection is one, as whatever has a length is a ``collections.abc.Sized``."""
        has_projection = any("project" in vars(base) for base in inspect.getmro(kind))
        return True if cls is Domain and has_projection else NotImplemented

    def check_memory(self, memory: Any) -> None:  # noqa: B027 - most sets hold memories of every shape
        """Raise where one agent's memory, arrays or their shapes and dtypes, cannot be one of the set's at all.

        Raises:
            ValueError: by the name of domain; nothing by default.
        """

    @abc.abstractmethod
    def project(self, tree: Any) -> Any:
        """The nearest memory of the set to one agent's memory, an array (dv, df) or a pytree of arrays."""

    def support(self, direction: Any) -> Any:
        """A memory S of the set with the largest <direction, S>; any of them where there are several.

        Args:
            direction: of the shape of one agent's memory.

        Raises:
            ValueError: a set of the user's own that has none.
        """
        return _refuse_support(self)

    def support_value(self, direction: Any) -> Float[Array, ""]:
        """The largest <direction, S> over the set, (): its support function; infinite where the set has no end."""
        # An entry of the direction that is 0 weighs nothing, however far the set goes.
        pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(self.support(direction)), strict=True)
        return jnp.asarray(sum(jnp.sum(jnp.where(d == 0, 0, d * s)) for d, s in pairs))

    def contains(self, tree: Any, tolerance: float | None = None) -> Array:
        """Whether one agent's memory lies in the set, ().

        Args:
            tree: the memory.
            tolerance: how far outside it may be, relative to its norm; by default three quarters of its digits.
        """
        share = jnp.finfo(dtype_of(tree)).eps ** 0.75 if tolerance is None else tolerance
        return norm_of(jax.tree.map(jnp.subtract, tree, self.project(tree))) <= float(share) * norm_of(tree)

    def width(self, memory: Any) -> Float[Array, ""]:
        """The diameter among memories of the shapes and dtype of ``memory``, ()."""
        return jnp.asarray(self.diameter, dtype_of(memory))

    def is_bounded(self, memory: Any) -> bool:
        """Whether memories of the shapes and dtype of ``memory`` have a finite diameter, or a traced one."""
        return is_finite(self.width(memory))

    def reach(self, memory: Any) -> float | ArrayLike:
        """The largest norm in the set, or a bound on it, among memories of the shapes and dtype of ``memory``, ()."""
        nearest = self.project(jax.tree.map(jnp.zeros_like, memory))
        return norm_of(nearest) + self.width(memory)

    def as_box(self, memory: Matrix) -> tuple[Matrix, Matrix] | None:
        """The two corners of a set that is exactly a box, among memories like ``memory``; None of any other set.

        Entries may lie anywhere between the lower and the upper corner, and each by itself: a box around a smaller set
        is none, for best memories would be looked for in all of it.
        """
        return None

    def diagonal_minimizer(self, linear: Matrix, curvature: Matrix) -> Matrix | None:
        """argmin of 1/2 <D, U^2> - <B, U> over the set, B ``linear`` and D >= 0 ``curvature``, in closed form, if any.

        Not finite where the minimum does not exist.
        """
        return None

    def face(self, point: Matrix, slope: Matrix, scale: Float[ArrayLike, ""]) -> Face:
        """The face that holds the minimiser ``point`` of a convex F.

        In general by the equation that the minimiser satisfies, X = P(X - s grad F(X)) for any s > 0: it moves as the
        derivative of the projection P says. Derivatives in the size of the set are those of P.

        Args:
            point: X, without derivatives.
            slope: grad F(X), likewise.
            scale: of slopes, ||grad F(0)||: where the set's boundary is entry by entry or smooth, it holds a memory
                only against a slope of more than half the digits of this.
        """
        size, width = jnp.maximum(jnp.linalg.norm(slope), scale), jax.lax.stop_gradient(self.width(point))
        # As long as the set is wide: within it rounding of a slope crosses no kink of the projection.
        length = jnp.where(jnp.isfinite(width), width, 1 + jnp.linalg.norm(point)) / jnp.where(size > 0, size, 1)
        ahead = point - length * slope
        project, closed_over = jax.closure_convert(self.project, ahead)
        constants = jax.lax.stop_gradient(closed_over)
        _, derivative = jax.linearize(lambda x: project(x, *constants), ahead)

        def along(x: Matrix) -> Matrix:
            moved = derivative(x)
            # Of a direction across the face rounding must leave nothing, since no curvature is there to divide it by.
            least = NOISE * float(jnp.finfo(x.dtype).eps) * jnp.linalg.norm(x)
            return jnp.where(jnp.isfinite(moved) & (jnp.abs(moved) > least), moved, 0)

        def symmetric(x: Matrix) -> Matrix:
            # The derivative of a projection is its own transpose, which jax finds of no loop that ends by a condition.
            return jax.lax.custom_linear_solve(lambda y: y, x, lambda _, y: along(y), symmetric=True)

        nearest = self.project(ahead)
        anchored = point + (nearest - jax.lax.stop_gradient(nearest))
        return Face(anchored, jnp.zeros((), point.dtype), symmetric, lambda x: x, length)

    def boundary(self, memories: np.ndarray) -> Boundary | None:
        """How near memories (N, dv, df) of the set are to its boundary; None where that is no sign of a small set."""

        def taken_back(memory: Array) -> Array:
            outward = OUTWARD * (memory - self.project(jnp.zeros_like(memory)))
            beyond = memory + outward
            size = jnp.maximum(norm_of(outward), jnp.finfo(memory.dtype).tiny)
            return norm_of(beyond - self.project(beyond)) / size

        words = "A share of {:.3g} of a step on from the best memory, away from the middle of the set, leads out of it"
        return Boundary(np.asarray(jax.vmap(taken_back)(jnp.asarray(memories)), float), TAKEN_BACK, words)


# What an object that is no subclass may bring.
PARTS = ("diameter", *(name for name in vars(Domain) if not name.startswith("_") and name != "sets"))


@jax.tree_util.register_pytree_node_class
class _Own(Domain):
    """A user's object that is no subclass: its own parts, and the general answers for those that it lacks."""

    def __init__(self, original: Any) -> None:
        self.original = original
        for name in PARTS:
            if (part := getattr(original, name, None)) is not None:
                setattr(self, name, part)

    def project(self, tree: Any) -> Any:
        return self.original.project(tree)

    def __repr__(self) -> str:
        return repr(self.original)

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.original,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any]) -> "_Own":
        return cls(*children)


def as_domain(domain: Any, name: str = "domain") -> Domain:
    """A set with all its parts, from anything that has a projection and a diameter.

    Args:
        domain: the set.
        name: of the argument, for the message.

    Raises:
        ValueError: what is no set.

    Example:
        >>> from types import SimpleNamespace
        >>> own = SimpleNamespace(project=lambda tree: jnp.clip(tree, -1, 1), diameter=2.0)
        >>> float(as_domain(own).reach(jnp.zeros((1, 1))))
        2.0
    """
    if isinstance(domain, type) or not callable(getattr(domain, "project", None)) or not hasattr(domain, "diameter"):
        raise ValueError(
            f"{name} must be a set, with a function project and a diameter, but it is {brief(repr(domain))};"
            f" call a factory of damjax.domains, such as frobenius_ball(radius)"
        )
    return domain if Domain in inspect.getmro(type(domain)) else _Own(domain)


def with_support(domain: Any) -> Domain:
    """``as_domain``, for whoever looks for the best memory in the set or certifies one.

    Raises:
        ValueError: what is no set, or a set of the user's own that has no ``support``.

    Example:
        >>> from damjax.domains import frobenius_ball
        >>> with_support(frobenius_ball(2.0))
        FrobeniusBall(radius=2.0)
    """
    domain = as_domain(domain)
    if not has_support(domain):
        # Of a set that is made of others, it is one of these that says what it lacks.
        for part in domain.sets:
            with_support(part)
        _refuse_support(domain)
    return domain


def _refuse_support(domain: Domain) -> NoReturn:
    raise ValueError(
        f"domain must have a support where the best memory in it is asked for or certified, but {brief(repr(domain))}"
        f" has only a projection; give it a function support(direction) that returns the memory S of the set with the"
        f" largest <direction, S>, or measure in a set that contains it, such as frobenius_ball(radius)"
    )


def has_support(domain: Domain) -> bool:
    """Whether a set can say where it is farthest, and every set that it is made of.

    Example:
        >>> from types import SimpleNamespace
        >>> own = SimpleNamespace(project=lambda tree: jnp.clip(tree, -1, 1), diameter=2.0)
        >>> has_support(as_domain(own))
        False
    """
    support = getattr(domain.support, "__func__", None)
    return support is not Domain.support and all(map(has_support, domain.sets))


def norm_of(tree: Any) -> Float[Array, ""]:
    """The Frobenius norm of all entries together."""
    squares = [jnp.sum(jnp.square(at_least_single(leaf))) for leaf in jax.tree.leaves(tree)]
    return root(jnp.asarray(promoting(sum, squares))).astype(dtype_of(tree))


def at_least_single(x: ArrayLike) -> Array:
    """Numbers whose squares do not overflow: in half precision that of 256 does."""
    numbers = jnp.asarray(x)
    return numbers.astype(jnp.float32) if jnp.finfo(numbers.dtype).bits < 32 else numbers


def is_finite(number: float | ArrayLike) -> bool:
    """Whether a number is finite, or traced."""
    value = concrete(number)
    return value is None or bool(np.isfinite(value))


def rounding_of(scale: Float[ArrayLike, ""], dtype: jax.typing.DTypeLike) -> Float[ArrayLike, ""]:
    """Slopes up to this hold no memory at a boundary."""
    return float(jnp.finfo(dtype).eps) ** 0.5 * scale


def stationary(linear: Matrix, curvature: Matrix) -> tuple[Array, Matrix]:
    """Where 1/2 <D, U^2> - <B, U> falls forever, and its minimiser in every other entry, 0 there."""
    free = jnp.where(curvature > 0, linear / jnp.where(curvature > 0, curvature, 1), 0)
    return (curvature == 0) & (linear != 0), free


def check_size(name: str, size: float | ArrayLike) -> None:
    """Raise unless it is one number and, while it is concrete, positive."""
    check_array(name, size, "")
    if (value := concrete(size)) is not None:
        check_positive(name, value)


def check_declared(shape: tuple[int, ...] | None, memory: Any) -> None:
    """Raise where a set that was declared for memories of a shape meets one of another."""
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(memory)]
    if shape is not None and shapes != [shape]:
        raise ValueError(
            f"domain must be of memories of their shape, {shapes[0] if len(shapes) == 1 else shapes}, but it was made"
            f" with shape={shape}"
        )


def check_shape(shape: tuple[int, ...] | None) -> None:
    """Raise unless it is a shape, or none is declared."""
    if shape is not None and not (isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)):
        raise ValueError(f"shape must be a tuple of integers, such as (dv, df), but it is {shape!r}")
