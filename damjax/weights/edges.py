"""Interest weights as an edge list, for networks in which every agent wants few of the others."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_instance, check_row_stochastic, check_square, concrete
from damjax.types import ArrayLike

__all__ = ["SparseWeights", "dense", "sparse"]


class SparseWeights(NamedTuple):
    """Interest weights as K entries per agent instead of N: agent n wants weights[n, k] of agent agents[n, k].

    An algorithm with such weights costs memory and time in proportion to N K, and takes a table of delays of the same
    shape, (N, K). Entries of weight 0 are padding and may name any agent.

    Attributes:
        agents: whose associations, integers in 0..N-1, (N, K); no agent twice in a row with positive weights.
        weights: how much of them, (N, K), row-stochastic.

    Example:
        >>> table = SparseWeights(np.array([[0, 2], [1, 1], [2, 0]]), np.array([[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]]))
        >>> table.num_agents, table.num_interests
        (3, 2)
    """

    agents: Int[Any, "N K"]
    weights: Float[Any, "N K"]

    @property
    def num_agents(self) -> int:
        """N, the number of rows."""
        return np.shape(self.agents)[0]

    @property
    def num_interests(self) -> int:
        """K, the entries per agent, padding included."""
        return np.shape(self.agents)[1]


def check_sparse_shape(name: str, table: SparseWeights, num_agents: int | None) -> None:
    """Raise unless both fields are (N, K), with N = ``num_agents`` when that is given. Static facts only."""
    agents, weights = np.shape(table.agents), np.shape(table.weights)
    if len(agents) != 2 or agents != weights or agents[1] == 0:
        raise ValueError(
            f"{name}.agents and {name}.weights must have one shape (N, K), one row per agent, but theirs are {agents}"
            f" and {weights}"
        )
    if num_agents is not None and agents[0] != num_agents:
        raise ValueError(f"{name} must have {num_agents} rows, one per agent, but it has {agents[0]}")
    dtype = getattr(table.agents, "dtype", None) or np.asarray(table.agents).dtype
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(f"{name}.agents must be integers, but their dtype is {dtype}; use .astype(int)")


def check_sparse_agents(name: str, agents: np.ndarray, wanted: np.ndarray | None) -> None:
    """Raise unless the entries are agents and, as far as is known who is ``wanted``, no row wants one of them twice."""
    num_agents = len(agents)
    if np.any(outside := (agents < 0) | (agents >= num_agents)):
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{name}.agents must be in 0..{num_agents - 1}, but {name}.agents[{row}, {column}] is {agents[row, column]}"
        )
    if wanted is None:
        return
    # Padding becomes as many different strangers as there are entries.
    named = np.sort(np.where(wanted, agents, -1 - np.arange(agents.shape[1])), axis=1)
    if np.any(repeated := named[:, 1:] == named[:, :-1]):
        row, column = np.argwhere(repeated)[0]
        raise ValueError(
            f"{name}.agents must name an agent once in a row, but agent {row} wants agent {named[row, column]} twice;"
            f" add up its weights in one entry and give the other the weight 0"
        )


def check_sparse(name: str, table: SparseWeights, num_agents: int | None = None) -> None:
    """Raise unless concrete weights are an edge list as ``SparseWeights`` describes it."""
    check_sparse_shape(name, table, num_agents)
    agents, weights = np.asarray(table.agents), np.asarray(table.weights)
    check_row_stochastic(f"{name}.weights", weights, agents)
    check_sparse_agents(name, agents, weights > 0)


def sparse(weights: Float[ArrayLike, "N N"]) -> SparseWeights:
    """The edge list of a matrix of weights, with K the largest number of interests of an agent.

    Args:
        weights: W, (N, N), row-stochastic, concrete.

    Returns:
        SparseWeights: in each row the wanted agents in order, then padding with the agent itself at weight 0.

    Raises:
        ValueError: weights that are traced, not square or not row-stochastic.

    Example:
        >>> sparse(np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])).agents.tolist()
        [[1, 0], [0, 2], [2, 2]]
    """
    check_square("weights", np.shape(weights))
    if (values := concrete(weights)) is None:
        raise ValueError("weights must be concrete, since the number of interests is a static length, but are traced")
    check_row_stochastic("weights", values)
    num_interests = int(np.max(np.sum(values > 0, axis=1)))
    # A stable sort by wanted or not leaves the wanted agents in order.
    agents = np.argsort(values <= 0, axis=1, kind="stable")[:, :num_interests]
    chosen = np.take_along_axis(values, agents, axis=1)
    agents = np.where(chosen > 0, agents, np.arange(len(values))[:, None])
    return SparseWeights(jnp.asarray(agents, jnp.int32), jnp.asarray(chosen))


def dense(weights: SparseWeights) -> Float[Array, "N N"]:
    """The matrix of an edge list.

    Args:
        weights: SparseWeights, traced or not.

    Returns:
        W, (N, N).

    Raises:
        ValueError: fields that are not an edge list.

    Example:
        >>> dense(SparseWeights(np.array([[1, 0], [1, 1]]), np.array([[0.75, 0.25], [1.0, 0.0]]))).tolist()
        [[0.25, 0.75], [0.0, 1.0]]
    """
    check_instance("weights", weights, SparseWeights, "sparse(weights) makes one of a matrix")
    check_sparse_shape("weights", weights, None)
    if concrete(weights.agents) is not None and concrete(weights.weights) is not None:
        check_sparse("weights", weights)
    values, rows = jnp.asarray(weights.weights), jnp.arange(weights.num_agents)[:, None]
    # Added, not set: padding may name an agent that is also wanted.
    return jnp.zeros((weights.num_agents, weights.num_agents), values.dtype).at[rows, weights.agents].add(values)
