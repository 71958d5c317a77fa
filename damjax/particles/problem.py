"""The learning problem of an associative memory, reduced to what its particles feel: two Gram matrices and the data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._arrays import product
from damjax._checks import check_array, check_count, check_distributions, check_instance, concrete, float_dtype
from damjax._pytrees import register_dataclass
from damjax.types import ArrayLike

__all__ = ["Problem", "from_embeddings", "labels", "one_hot"]

ROUNDING = 1e-4


@register_dataclass()
@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """N tokens, each with a frequency and a class (or a distribution over M classes), seen through inner products.

    A pytree: vmap over it, differentiate in it. It is checked where it is built, never when JAX rebuilds it, so a
    gradient may take the same form; fields that are None or plain integers (vmap's ``in_axes``) pass unchecked.

    Attributes:
        input_gram: A = E E', inner products of the N input embeddings, (N, N), positive semidefinite.
        output_gram: G = U U', inner products of the M output embeddings, (M, M), positive semidefinite.
        frequencies: p, how often each token comes, (N,), non-negative, summing to one.
        targets: Y, row x the distribution p(y|x) of token x's class, (N, M): one-hot, or soft for noisy labels.

    Raises:
        ValueError: shapes that do not meet, a Gram matrix that is not symmetric positive semidefinite, frequencies or
            rows of targets that are negative or do not sum to one.

    Example:
        >>> problem = Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.75, 0.25]), one_hot([0, 1], 2))
        >>> problem.targets.shape
        (2, 2)

    Source: [LAM] sec. 2-3.
    """

    input_gram: Float[ArrayLike, "N N"]
    output_gram: Float[ArrayLike, "M M"]
    frequencies: Float[ArrayLike, "N"]
    targets: Float[ArrayLike, "N M"]

    def __post_init__(self) -> None:
        fields = vars(self)
        if any(field is None or isinstance(field, int) for field in fields.values()):
            return
        for name, field in fields.items():
            if not hasattr(field, "dtype"):
                check_array(name, field, "...")
                object.__setattr__(self, name, jnp.asarray(field))
        _check_shapes(fields)
        for name in ("input_gram", "output_gram"):
            if (gram := concrete(fields[name])) is not None:
                _check_gram(name, gram)
        for name in ("frequencies", "targets"):
            if (rows := concrete(fields[name])) is not None:
                check_distributions(name, rows)

    def astype(self, dtype: Any) -> "Problem":
        """The same problem in another precision."""
        return jax.tree.map(lambda field: jnp.asarray(field, dtype), self)


def from_embeddings(
    inputs: Float[ArrayLike, "N din"],
    outputs: Float[ArrayLike, "M dout"],
    frequencies: Float[ArrayLike, "N"],
    targets: Float[ArrayLike, "N M"],
) -> Problem:
    """The problem of a memory W (dout, din) with scores S = E W' U'.

    Args:
        inputs: E, one row e_x per token, (N, din).
        outputs: U, one row u_y per class, (M, dout).
        frequencies: p, (N,).
        targets: Y, (N, M); ``one_hot(classes, M)`` for hard classes.

    Returns:
        Problem(E E', U U', p, Y).

    Raises:
        ValueError: as ``Problem``.

    Example:
        >>> from_embeddings(jnp.ones((3, 5)), jnp.eye(2), jnp.full(3, 1 / 3), one_hot([0, 1, 1], 2)).input_gram.shape
        (3, 3)
    """
    inputs, outputs = as_embeddings(inputs, outputs)
    return Problem(product(inputs, inputs.T), product(outputs, outputs.T), frequencies, targets)


def as_embeddings(inputs: Any, outputs: Any) -> tuple[Array, Array]:
    """Both as arrays with one embedding a row, checked."""
    for name, rows in (("inputs", inputs), ("outputs", outputs)):
        if np.ndim(rows) != 2:
            raise ValueError(
                f"{name} must have one embedding a row, (rows, dimensions), but its shape is {np.shape(rows)}"
            )
    return jnp.asarray(inputs), jnp.asarray(outputs)


def one_hot(classes: Any, num_classes: int, dtype: Any = None) -> Float[Array, "N M"]:
    """Targets of tokens with one class each.

    Args:
        classes: y(x) in 0..M-1, (N,) integers.
        num_classes: M.
        dtype: of the result; jax's default float otherwise.

    Raises:
        ValueError: classes that are not integers or out of range.

    Example:
        >>> one_hot([0, 2], 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_count("num_classes", num_classes)
    dtype_of = classes.dtype if hasattr(classes, "dtype") else np.asarray(classes).dtype
    if np.ndim(classes) != 1 or not jnp.issubdtype(dtype_of, jnp.integer):
        raise ValueError(
            f"classes must be integers, one a token, (N,), but they have shape {np.shape(classes)} and dtype {dtype_of}"
        )
    if (values := concrete(classes)) is not None and np.any(outside := (values < 0) | (values >= num_classes)):
        raise ValueError(f"classes must lie in 0..{num_classes - 1}, but one of them is {values[outside].flat[0]}")
    return jax.nn.one_hot(jnp.asarray(classes), num_classes, dtype=float_dtype(dtype))


def labels(problem: Problem) -> Int[Array, "N"]:
    """y(x), the likeliest class of each token.

    Example:
        >>> problem = Problem(jnp.eye(2), jnp.eye(3), jnp.array([0.5, 0.5]), one_hot([2, 0], 3))
        >>> labels(problem).tolist()
        [2, 0]
    """
    check_problem(problem)
    return jnp.argmax(problem.targets, axis=-1)


def check_problem(problem: Problem) -> None:
    """Raise unless it is a Problem."""
    check_instance("problem", problem, Problem, "damjax.particles.Problem(...) or from_embeddings(...) makes one")


def as_scores(scores: Any, problem: Problem) -> Float[Array, "N M"]:
    """Scores as an array, checked to be those of the problem's tokens and classes."""
    check_problem(problem)
    if np.shape(scores) != (expected := np.shape(problem.targets)):
        raise ValueError(
            f"scores must have one row a token and one column a class, as the problem's targets, {expected}, but their"
            f" shape is {np.shape(scores)}; for many, such as a trajectory, use jax.vmap"
        )
    scores = jnp.asarray(scores)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise ValueError(f"scores must be floating-point numbers, but their dtype is {scores.dtype}")
    return scores


def _check_shapes(fields: dict[str, Any]) -> None:
    shapes = {name: np.shape(field) for name, field in fields.items()}
    num_tokens, num_classes = shapes["targets"] if len(shapes["targets"]) == 2 else (None, None)
    expected = {
        "input_gram": (num_tokens, num_tokens),
        "output_gram": (num_classes, num_classes),
        "frequencies": (num_tokens,),
    }
    for name, shape in expected.items():
        if num_tokens is None or shapes[name] != shape:
            raise ValueError(
                "a Problem of N tokens and M classes has input_gram (N, N), output_gram (M, M), frequencies (N,) and"
                f" targets (N, M), but the shapes are {shapes}; for many problems at once, build it inside jax.vmap"
            )


def _check_gram(name: str, gram: np.ndarray) -> None:
    largest = float(np.max(np.abs(gram), initial=0))
    if not np.isfinite(largest):
        raise ValueError(f"{name} must be finite, but it holds NaN or infinity")
    if np.max(np.abs(gram - gram.T)) > ROUNDING * largest:
        raise ValueError(f"{name} must be symmetric: it holds inner products, such as embeddings @ embeddings.T")
    if largest == 0:
        return
    try:
        # A shift within the rounding; far cheaper than the eigenvalues, which are for the message only.
        np.linalg.cholesky(gram.astype(float) + ROUNDING * largest * np.eye(len(gram)))
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(gram.astype(float))[0]
        raise ValueError(
            f"{name} must be positive semidefinite, but its lowest eigenvalue is {lowest:.6g};"
            f" embeddings @ embeddings.T is such a matrix"
        ) from None
