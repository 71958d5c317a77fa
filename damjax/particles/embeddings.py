"""Embeddings and frequencies of the study: rows e_x (N, d), Gram matrices of given correlations, and Zipf laws."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from damjax._arrays import product
from damjax._checks import check_array, check_between, check_count, check_positive, concrete, float_dtype
from damjax.particles.problem import Problem, one_hot
from damjax.types import ArrayLike

__all__ = [
    "block",
    "gaussian",
    "low_rank",
    "orthogonal",
    "pair",
    "sphere",
    "toeplitz",
    "two_point",
    "two_tokens",
    "wishart",
    "zipf",
]


def orthogonal(num_tokens: int, dim: int, *, dtype: jax.typing.DTypeLike | None = None) -> Float[Array, "N d"]:
    """The first N unit vectors of R^d.

    Raises:
        ValueError: more tokens than dimensions.

    Example:
        >>> orthogonal(2, 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    _check_sizes(num_tokens=num_tokens, dim=dim)
    if num_tokens > dim:
        raise ValueError(f"num_tokens must be at most dim, {dim}, to be orthogonal, but it is {num_tokens}")
    return jnp.eye(num_tokens, dim, dtype=float_dtype(dtype))


def gaussian(
    key: Key[Array, ""], num_tokens: int, dim: int, *, dtype: jax.typing.DTypeLike | None = None
) -> Float[Array, "N d"]:
    """Rows with i.i.d. N(0, 1/d) entries, of unit norm on average, (N, d).

    Example:
        >>> gaussian(jax.random.key(0), 4, 3).shape
        (4, 3)
    """
    _check_sizes(num_tokens=num_tokens, dim=dim)
    dtype = float_dtype(dtype)
    return jax.random.normal(key, (num_tokens, dim), dtype) / jnp.sqrt(jnp.asarray(dim, dtype))


def sphere(
    key: Key[Array, ""], num_tokens: int, dim: int, *, dtype: jax.typing.DTypeLike | None = None
) -> Float[Array, "N d"]:
    """Rows drawn uniformly from the unit sphere, (N, d).

    Example:
        >>> norms = jnp.linalg.norm(sphere(jax.random.key(0), 4, 3), axis=1)
        >>> bool(jnp.allclose(norms, 1))
        True
    """
    rows = gaussian(key, num_tokens, dim, dtype=dtype)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def pair(alpha: float | ArrayLike) -> Float[Array, "2 2"]:
    """Two unit vectors with inner product alpha in [-1, 1].

    Example:
        >>> print(np.asarray(pair(0.6)).round(3))
        [[1.  0. ]
         [0.6 0.8]]
    """
    _check_correlation("alpha", alpha)
    alpha = jnp.asarray(alpha, jnp.result_type(float, alpha))
    one, zero = jnp.ones_like(alpha), jnp.zeros_like(alpha)
    return jnp.stack([jnp.stack([one, zero]), jnp.stack([alpha, jnp.sqrt((1 - alpha) * (1 + alpha))])])


def two_tokens(alpha: float | ArrayLike, frequency: float | ArrayLike, *, same_class: bool = False) -> Problem:
    """Two tokens of unit norm that overlap by alpha, one frequent and one rare, with two orthonormal outputs (c = 2).

    Args:
        alpha: <e_1, e_2> in [-1, 1].
        frequency: p_1, in (0, 1); p_2 = 1 - p_1.
        same_class: whether both tokens have the first class (s = +1), or each its own (s = -1).

    Example:
        >>> problem = two_tokens(0.95, 0.75)
        >>> print(problem.input_gram[0].round(2), problem.frequencies)
        [1.   0.95] [0.75 0.25]

    Source: [LAM] sec. 4.
    """
    _check_correlation("alpha", alpha)
    _check_correlation("frequency", frequency, low=0.0)
    dtype = jnp.result_type(float, alpha, frequency)
    p = jnp.asarray(frequency, dtype)
    gram = toeplitz(jnp.stack([jnp.ones((), dtype), jnp.asarray(alpha, dtype)]))
    return Problem(gram, jnp.eye(2, dtype=dtype), jnp.stack([p, 1 - p]), one_hot([0, 0 if same_class else 1], 2, dtype))


def wishart(
    key: Key[Array, ""], num_tokens: int, degrees: int, *, dtype: jax.typing.DTypeLike | None = None
) -> Float[Array, "N N"]:
    """A Gram matrix of Gaussian embeddings in ``degrees`` dimensions, scaled to unit diagonal: random correlations.

    Example:
        >>> gram = wishart(jax.random.key(0), 4, 6)
        >>> gram.shape, bool(jnp.allclose(jnp.diag(gram), 1))
        ((4, 4), True)
    """
    _check_sizes(degrees=degrees)
    rows = sphere(key, num_tokens, degrees, dtype=dtype)
    return product(rows, rows.T)


def block(num_tokens: int, num_blocks: int, correlation: float | ArrayLike) -> Float[Array, "N N"]:
    """A Gram matrix of equal blocks: tokens of one block overlap by ``correlation`` in [0, 1], others not at all.

    Example:
        >>> block(4, 2, 0.5)[0].tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    _check_sizes(num_tokens=num_tokens, num_blocks=num_blocks)
    _check_correlation("correlation", correlation, low=0.0)
    if num_tokens % num_blocks:
        raise ValueError(f"num_blocks must divide num_tokens, {num_tokens}, but it is {num_blocks}")
    member = np.arange(num_tokens) // (num_tokens // num_blocks)
    overlap = jnp.asarray(correlation, jnp.result_type(float, correlation))
    return jnp.where(np.eye(num_tokens, dtype=bool), 1, jnp.where(member[:, None] == member[None, :], overlap, 0))


def toeplitz(correlations: Float[ArrayLike, "N"]) -> Float[Array, "N N"]:
    """A Gram matrix whose entry depends on the distance of the two tokens only: A_xy = r_|x-y|.

    Args:
        correlations: r_0..r_{N-1}; rho^0, rho^1, ... is positive definite for every |rho| < 1.

    Example:
        >>> toeplitz(jnp.array([1.0, 0.5, 0.25])).tolist()
        [[1.0, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 1.0]]
    """
    check_array("correlations", correlations, "N")
    index = np.arange(len(correlations))
    return jnp.asarray(correlations)[np.abs(index[:, None] - index[None, :])]


def low_rank(
    key: Key[Array, ""], num_tokens: int, rank: int, *, dtype: jax.typing.DTypeLike | None = None
) -> Float[Array, "N N"]:
    """A Gram matrix of N unit vectors in r < N dimensions: of rank r, not invertible, (N, N).

    Raises:
        ValueError: a rank that is not below the number of tokens.

    Example:
        >>> int(jnp.linalg.matrix_rank(low_rank(jax.random.key(0), 5, 2)))
        2
    """
    _check_sizes(num_tokens=num_tokens, rank=rank)
    if rank >= num_tokens:
        raise ValueError(f"rank must be below num_tokens, {num_tokens}, but it is {rank}; wishart takes any")
    return wishart(key, num_tokens, rank, dtype=dtype)


def zipf(num_tokens: int, exponent: float | ArrayLike = 1.0) -> Float[Array, "N"]:
    """Frequencies p_x proportional to x^-exponent, the most frequent token first.

    Example:
        >>> print(np.asarray(zipf(3)).round(3))
        [0.545 0.273 0.182]
    """
    _check_sizes(num_tokens=num_tokens)
    check_array("exponent", exponent, "")
    if (value := concrete(exponent)) is not None:
        check_positive("exponent", value, allow_zero=True)
    dtype = jnp.result_type(float, exponent)
    weights = jnp.arange(1, num_tokens + 1, dtype=dtype) ** -jnp.asarray(exponent, dtype)
    return weights / weights.sum()


def two_point(num_tokens: int, num_frequent: int, share: float | ArrayLike) -> Float[Array, "N"]:
    """Two kinds of tokens: ``num_frequent`` that share the probability ``share`` evenly, the others the rest.

    Raises:
        ValueError: a number of frequent tokens outside 1..N-1, a share outside (0, 1).

    Example:
        >>> print(np.asarray(two_point(4, 1, 0.7)).round(3))
        [0.7 0.1 0.1 0.1]
    """
    _check_sizes(num_tokens=num_tokens, num_frequent=num_frequent)
    if num_frequent >= num_tokens:
        raise ValueError(f"num_frequent must be below num_tokens, {num_tokens}, but it is {num_frequent}")
    check_array("share", share, "")
    if (value := concrete(share)) is not None and not np.all((value > 0) & (value < 1)):
        raise ValueError(f"share must lie in (0, 1), but it is {value}")
    frequent = np.arange(num_tokens) < num_frequent
    return jnp.where(frequent, share / num_frequent, (1 - jnp.asarray(share)) / (num_tokens - num_frequent))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_count(name, size)


def _check_correlation(name: str, correlation: float | ArrayLike, low: float = -1.0) -> None:
    check_array(name, correlation, "")
    if (value := concrete(correlation)) is not None:
        check_between(name, value, low, 1.0)
