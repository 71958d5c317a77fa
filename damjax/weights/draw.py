"""Random interest weights, as a matrix and as an edge list."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from damjax._checks import (
    check_array,
    check_count,
    check_positive,
    concrete,
    float_dtype,
)
from damjax.types import ArrayLike
from damjax.weights.edges import SparseWeights

__all__ = ["dirichlet", "sparse_dirichlet"]


def dirichlet(
    key: Key[Array, ""],
    num_agents: int,
    *,
    concentration: float | ArrayLike = 1.0,
    self_factor: float | ArrayLike = 5.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> Float[Array, "N N"]:
    """Draw interest weights: row n ~ Dirichlet(a * (1, .., kappa at n, .., 1)).

    Small concentrations give rows that are near one-hot, mostly on the agent itself; large ones, rows near the mean
    (1, .., kappa, .., 1) / (N - 1 + kappa). The same key gives the same randomness at every concentration.

    Args:
        key: typed PRNG key.
        num_agents: N >= 1.
        concentration: a > 0.
        self_factor: kappa > 0, how much more of its own associations an agent wants.
        dtype: of the result; jax's default float otherwise.

    Returns:
        (N, N), row-stochastic. Entries below the smallest float are 0.

    Raises:
        ValueError: a count, concentration or factor that is not positive.

    Example:
        >>> import jax
        >>> weights = dirichlet(jax.random.key(0), 4, self_factor=10.0)
        >>> weights.shape, bool(abs(weights.sum(axis=1) - 1).max() < 1e-6)
        ((4, 4), True)

    Source: [DAM] sec. 5.
    """
    check_count("num_agents", num_agents)
    _check_parameters(concentration, self_factor)
    dtype = float_dtype(dtype)
    ones, own = jnp.ones((num_agents, num_agents), dtype), jnp.eye(num_agents, dtype=dtype)
    alpha = concentration * (ones + (self_factor - 1) * own)
    return jax.random.dirichlet(key, alpha.astype(dtype), dtype=dtype)


def sparse_dirichlet(
    key: Key[Array, ""],
    num_agents: int,
    num_interests: int,
    *,
    concentration: float | ArrayLike = 1.0,
    self_factor: float | ArrayLike = 5.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> SparseWeights:
    """Draw interest weights for a large network: each agent wants itself and K - 1 distinct others, all equally likely.

    The weights of row n ~ Dirichlet(a * (kappa, 1, .., 1)), the agent itself first. Nothing of size (N, N) is made.

    Args:
        key: typed PRNG key.
        num_agents: N >= 1.
        num_interests: K, the agent itself among them, 1 <= K <= N.
        concentration: a > 0.
        self_factor: kappa > 0, how much more of its own associations an agent wants.
        dtype: of the weights; jax's default float otherwise.

    Returns:
        SparseWeights, (N, K).

    Raises:
        ValueError: a count, concentration or factor that is not positive; more interests than agents.

    Example:
        >>> import jax
        >>> table = sparse_dirichlet(jax.random.key(0), 10_000, 16)
        >>> table.agents.shape, table.agents[:, 0].tolist() == list(range(10_000))
        ((10000, 16), True)
    """
    check_count("num_agents", num_agents)
    check_count("num_interests", num_interests)
    if num_interests > num_agents:
        raise ValueError(f"num_interests must be at most num_agents = {num_agents}, but it is {num_interests}")
    _check_parameters(concentration, self_factor)
    dtype = float_dtype(dtype)
    others_key, weights_key = jax.random.split(key)
    own = jnp.arange(num_agents, dtype=jnp.int32)[:, None]
    # Counted from the agent itself, around the circle, the others are 1..N-1 for everyone.
    others = (own + 1 + _distinct(others_key, num_agents, num_interests - 1, num_agents - 1)) % num_agents
    alpha = concentration * jnp.ones(num_interests, dtype).at[0].set(self_factor)
    weights = jax.random.dirichlet(weights_key, alpha.astype(dtype), (num_agents,), dtype)
    return SparseWeights(jnp.concatenate([own, others], axis=1), weights)


def _check_parameters(concentration: float | ArrayLike, self_factor: float | ArrayLike) -> None:
    for name, number in (("concentration", concentration), ("self_factor", self_factor)):
        check_array(name, number, "")
        if (value := concrete(number)) is not None:
            check_positive(name, value)


def _distinct(key: Key[Array, ""], num_rows: int, num_draws: int, num_items: int) -> Int[Array, "rows draws"]:
    """In every row that many distinct items of 0..num_items - 1, every set of them equally likely.

    Floyd's way: draw from the first j items and, where that one is taken already, take item j itself, for the last
    num_draws values of j. It costs draws squared, where shuffling would cost the number of items.
    """

    def draw(index: Int[Array, ""], taken: Int[Array, "rows draws"]) -> Int[Array, "rows draws"]:
        newest = num_items - num_draws + index
        drawn = jax.random.randint(jax.random.fold_in(key, index), (num_rows,), 0, newest + 1, jnp.int32)
        again = jnp.any(taken == drawn[:, None], axis=1)
        return taken.at[:, index].set(jnp.where(again, newest, drawn))

    taken = jnp.full((num_rows, num_draws), -1, jnp.int32)
    return jax.lax.fori_loop(0, num_draws, draw, taken) if num_draws else taken
