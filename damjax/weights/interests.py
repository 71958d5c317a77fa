"""Who wants whose associations: two forms of interest weights, a matrix and an edge list, under one protocol.

What an algorithm sums over senders has one column per interest: in the dense form column k is about agent k, in an edge
list column k of row n is about agent agents[n, k]. A sum is written once, over columns, and reads what the senders hold
through ``gather``; the two forms differ in how it is computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from damjax._arrays import (
    FULL,
    beside,
    by_head,
    contract,
    joined,
    mix,
    predictions,
    stored,
    sum_outer,
    zero_unweighted,
)
from damjax._checks import check_row_stochastic, check_square, concrete
from damjax.types import ArrayLike
from damjax.weights.edges import SparseWeights, check_sparse_agents, check_sparse_shape

__all__ = ["DenseInterests", "EdgeInterests", "Interests", "Weights", "as_interests", "stochastic_interests"]

Weights = Float[ArrayLike, "N N"] | SparseWeights


def _unchanged(residuals: Array) -> Array:
    return residuals


class DenseInterests(NamedTuple):
    """A matrix of weights: K = N columns, of which column m is about agent m.

    Attributes:
        weights: w_nm, (N, N).
    """

    weights: Float[Any, "N N"]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return _shape(self.weights)

    @property
    def agents(self) -> Int[Array, "1 N"]:
        """Whom each column is about: one row for all receivers."""
        return jnp.arange(self.shape[1], dtype=jnp.int32)[None]

    @property
    def mask(self) -> Bool[Array, "N N"]:
        """Which columns hold an interest."""
        return jnp.asarray(self.weights) != 0

    def at(self, time: Int[ArrayLike, ""]) -> "DenseInterests":
        """Those of a step: always the same."""
        return self

    def present_at(self, time: Int[ArrayLike, ""]) -> None:
        """Who takes part in a step: None, all of them."""

    def astype(self, dtype: jax.typing.DTypeLike) -> "DenseInterests":
        """The weights in the precision of a run."""
        return DenseInterests(jnp.asarray(self.weights, dtype))

    def gather(self, values: Shaped[Array, "N *item"]) -> Shaped[Array, "1 N *item"]:
        """What the senders hold, by receiver and column: one row for all receivers."""
        return values[None]

    def predictions(
        self, params: Float[Array, "N dv df"], features: Float[Array, "N *heads df"], time: Int[Array, ""]
    ) -> Float[Array, "N N dv"]:
        """Every memory recalls every cue: entry [n, m] is X_n phi_m, of several heads one behind the other."""
        return stored(predictions, params, features, time=time)

    def weighted_outer(
        self,
        residuals: Float[Array, "..."],
        features: Float[Array, "#N N *heads df"],
        time: Int[Array, ""],
        read: Callable[[Array], Float[Array, "N N dv"]] = _unchanged,
    ) -> Float[Array, "N dv df"]:
        """Each agent's weighted sum of rank-one gradients: sum_m w_nm r_nm phi_nm', head by head.

        Args:
            residuals: r, or what ``read`` finds them in: so reading and weighting them is one pass.
            features: phi.
            time: the current step.
            read: residuals from what holds them.
        """

        def weighted(weights: Array, residuals: Array) -> Array:
            return weights[:, :, None] * zero_unweighted(weights, read(residuals))

        # Weighted once: fused into the sum, it would be done again for each of the df features.
        return sum_outer(stored(weighted, jnp.asarray(self.weights), residuals, time=time), features)

    def weighted_sum(self, values: Float[Array, "#N *item"]) -> Float[Array, "N *item"]:
        """Each agent's weighted sum of what the senders hold, sum_m w_nm x_m; one row where all hold the same."""
        weights = jnp.asarray(self.weights, values.dtype)
        return _sum_of_equals(weights, values) if values.shape[0] == 1 else mix(weights, values)

    def weighted_sums(self, values: Float[Array, "H #N *item"]) -> Float[Array, "H N *item"]:
        """``weighted_sum`` of several at once."""
        return jax.vmap(self.weighted_sum)(values)


class EdgeInterests(NamedTuple):
    """An edge list: column k of row n is about agent agents[n, k].

    Attributes:
        agents: whom each column is about, (N, K).
        weights: of each column, (N, K).
    """

    agents: Int[Array, "N K"]
    weights: Float[Any, "N K"]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return _shape(self.weights)

    @property
    def mask(self) -> Bool[Array, "N K"]:
        """Which columns hold an interest."""
        return jnp.asarray(self.weights) != 0

    def at(self, time: Int[ArrayLike, ""]) -> "EdgeInterests":
        """Those of a step: always the same."""
        return self

    def present_at(self, time: Int[ArrayLike, ""]) -> None:
        """Who takes part in a step: None, all of them."""

    def astype(self, dtype: jax.typing.DTypeLike) -> "EdgeInterests":
        """The weights in the precision of a run."""
        return EdgeInterests(self.agents, jnp.asarray(self.weights, dtype))

    def gather(self, values: Shaped[Array, "N *item"]) -> Shaped[Array, "N K *item"]:
        """What the senders hold, by receiver and column."""
        return values.at[self.agents].get(mode="promise_in_bounds")

    def predictions(
        self, params: Float[Array, "N dv df"], features: Float[Array, "N *heads df"], time: Int[Array, ""]
    ) -> Float[Array, "N K dv"]:
        """Every memory recalls the cues of its columns: entry [n, k] is X_n phi_nk."""
        heads = features.shape[1:-1]
        # XLA folds a transposition into the product, which makes it six times slower on a CPU: one behind the border.
        recall = lambda blocks, cues: jnp.einsum("n...ij,nk...j->n...ik", blocks, cues, precision=FULL)  # noqa: E731
        each = stored(recall, by_head(params, heads, 1), self.gather(features), time=time)
        return jnp.swapaxes(joined(each, heads, 1), 1, 2)

    def weighted_outer(
        self,
        residuals: Float[Array, "..."],
        features: Float[Array, "N K *heads df"],
        time: Int[Array, ""],
        read: Callable[[Array], Float[Array, "N K dv"]] = _unchanged,
    ) -> Float[Array, "N dv df"]:
        """As of ``DenseInterests``: sum_k w_nk r_nk phi_nk'."""

        def weighted(weights: Array, residuals: Array) -> Array:
            return jnp.swapaxes(weights[:, :, None] * zero_unweighted(weights, read(residuals)), 1, 2)

        heads = features.shape[2:-1]
        blocks = by_head(stored(weighted, jnp.asarray(self.weights), residuals), heads, 1)
        # The product behind the border fuses with the step and the projection into one pass over the memories.
        return joined(jnp.einsum("n...ik,nk...j->n...ij", blocks, features, precision=FULL), heads, 1)

    def weighted_sum(self, values: Float[Array, "#N *item"]) -> Float[Array, "N *item"]:
        """As of ``DenseInterests``: sum_k w_nk x_nk."""
        weights = jnp.asarray(self.weights, values.dtype)
        if values.shape[0] == 1:
            return _sum_of_equals(weights, values)
        return contract("nk,nk...->n...", weights, zero_unweighted(weights, self.gather(values)))

    def weighted_sums(self, values: Float[Array, "H #N *item"]) -> Float[Array, "H N *item"]:
        """``weighted_sum`` of several at once."""
        return jax.vmap(self.weighted_sum)(values)


Interests = DenseInterests | EdgeInterests


def _shape(weights: ArrayLike) -> tuple[int, int]:
    num_agents, num_columns = np.shape(weights)
    return num_agents, num_columns


def _sum_of_equals(weights: Float[Array, "N K"], value: Float[Array, "1 *item"]) -> Float[Array, "N *item"]:
    return beside(jnp.sum(weights, axis=1), value) * value


def as_interests(name: str, weights: Weights, num_agents: int | None = None) -> Interests:
    """Weights of either form; raises unless their shapes are right and, where they are concrete, their agents exist."""
    if not isinstance(weights, SparseWeights):
        check_square(name, np.shape(weights), num_agents)
        return DenseInterests(weights)
    check_sparse_shape(name, weights, num_agents)
    agents = jnp.asarray(weights.agents, jnp.int32)
    if (concrete_agents := concrete(weights.agents)) is not None:
        values = concrete(weights.weights)
        check_sparse_agents(name, concrete_agents, None if values is None else values > 0)
        return EdgeInterests(agents, weights.weights)
    # Agents that nobody could check: weights of agents that do not exist are NaN, rather than another agent's.
    exist = (agents >= 0) & (agents < weights.num_agents)
    return EdgeInterests(jnp.where(exist, agents, 0), jnp.where(exist, jnp.asarray(weights.weights), jnp.nan))


def stochastic_interests(name: str, weights: Weights, num_agents: int | None = None) -> Interests:
    """As ``as_interests``; raises also unless concrete weights are row-stochastic."""
    interests = as_interests(name, weights, num_agents)
    values, agents = concrete(interests.weights), None
    if isinstance(weights, SparseWeights):
        name, values, agents = f"{name}.weights", concrete(weights.weights), concrete(weights.agents)
    if values is not None:
        check_row_stochastic(name, values, agents)
    return interests
