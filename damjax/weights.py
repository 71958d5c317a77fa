"""Interest matrices: row n says how much agent n cares about the associations of each agent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._checks import check_count, check_positive
from damjax._types import ArrayLike, concrete


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
    for name, number in (("concentration", concentration), ("self_factor", self_factor)):
        if (value := concrete(number)) is not None:
            check_positive(name, value)
    dtype = jnp.result_type(float) if dtype is None else dtype
    ones, own = jnp.ones((num_agents, num_agents), dtype), jnp.eye(num_agents, dtype=dtype)
    alpha = concentration * (ones + (self_factor - 1) * own)
    return jax.random.dirichlet(key, alpha.astype(dtype), dtype=dtype)
