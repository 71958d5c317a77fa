"""Who wants whose associations, in one form for matrices of weights and for edge lists.

What an algorithm sums over senders has one column per interest: in the dense form column m is about agent m, in an edge
list column k of row n is about agent agents[n, k]. A sum is written once, over columns, and reads what the senders hold
through ``Interests.heard``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from damjax._checks import check_row_stochastic, check_square
from damjax._contractions import FULL, contract, heeded, materialized, mix, predictions, product, sum_outer
from damjax._sparse import SparseWeights, check_sparse_agents, check_sparse_shape
from damjax._types import ArrayLike, concrete

Weights = Float[ArrayLike, "N N"] | SparseWeights


class Interests(NamedTuple):
    """Interest weights of either form, with K = N columns in the dense one.

    Attributes:
        weights: of each column, (N, K).
        agents: whom each column is about, (N, K); None in the dense form, where column m is about agent m.
    """

    weights: Float[Any, "N K"]
    agents: Int[Array, "N K"] | None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        num_agents, num_columns = np.shape(self.weights)
        return num_agents, num_columns

    @property
    def counted(self) -> Bool[Array, "N K"]:
        """Which columns hold an interest."""
        return jnp.asarray(self.weights) != 0

    def astype(self, dtype: jax.typing.DTypeLike) -> "Interests":
        """The weights in the precision of a run."""
        return self._replace(weights=jnp.asarray(self.weights, dtype))

    def heard(self, held: Shaped[Array, "N *item"]) -> Shaped[Array, "#N K *item"]:
        """What the senders hold, by receiver and column; one row for all receivers in the dense form."""
        return held[None] if self.agents is None else held.at[self.agents].get(mode="promise_in_bounds")

    def recalled(
        self, params: Float[Array, "N dv df"], features: Float[Array, "N df"], time: Int[Array, ""]
    ) -> Float[Array, "N K dv"]:
        """Every memory recalls the cues of its columns: entry [n, k] is X_n phi_nk."""
        if self.agents is None:
            return materialized(predictions, time, params, features)
        cues = self.heard(features)
        # XLA folds a transposition into the product, which makes it six times slower on a CPU: one behind the border.
        recall = lambda params, cues: jnp.einsum("nij,nkj->nik", params, cues, precision=FULL)  # noqa: E731
        recalled = materialized(recall, time, params, cues)
        return jnp.swapaxes(recalled, 1, 2)

    def gradient(
        self,
        held: Float[Array, "..."],
        features: Float[Array, "#N K df"],
        time: Int[Array, ""],
        read: Callable[[Array], Float[Array, "N K dv"]] = lambda held: held,
    ) -> Float[Array, "N dv df"]:
        """Each agent's weighted sum of rank-one gradients: sum_k w_nk r_nk phi_nk'.

        Args:
            held: the residuals r, or what ``read`` finds them in: so reading and weighting them is one pass.
            features: phi.
            time: the current step.
            read: residuals of what is held.
        """

        def weighted(weights: Array, held: Array) -> Array:
            return weights[:, :, None] * heeded(weights, read(held))

        weights = jnp.asarray(self.weights)
        if self.agents is None:
            # Weighted once: fused into the sum, it would be done again for each of the df features.
            return sum_outer(materialized(weighted, time, weights, held), features)
        # Again a border; the product behind it fuses with the step and the projection into one pass over the memories.
        return product(jax.lax.optimization_barrier(jnp.swapaxes(weighted(weights, held), 1, 2)), features)

    def total(self, held: Float[Array, "#N *item"]) -> Float[Array, "N *item"]:
        """Each agent's weighted sum of what the senders hold, sum_m w_nm x_m; one row where all hold the same."""
        weights = jnp.asarray(self.weights, held.dtype)
        if held.shape[0] == 1:
            return jnp.sum(weights, axis=1).reshape(-1, *[1] * (held.ndim - 1)) * held
        if self.agents is None:
            return mix(weights, held)
        return contract("nk,nk...->n...", weights, heeded(weights, self.heard(held)))


def as_interests(name: str, weights: Weights, num_agents: int | None = None) -> Interests:
    """Weights of either form; raises unless their shapes are right and, where they are concrete, their agents exist."""
    if not isinstance(weights, SparseWeights):
        check_square(name, np.shape(weights), num_agents)
        return Interests(weights, None)
    check_sparse_shape(name, weights, num_agents)
    agents = jnp.asarray(weights.agents, jnp.int32)
    if (named := concrete(weights.agents)) is not None:
        values = concrete(weights.weights)
        check_sparse_agents(name, named, None if values is None else values > 0)
        return Interests(weights.weights, agents)
    # Agents that nobody could check: weights of agents that do not exist are NaN, rather than another agent's.
    exist = (agents >= 0) & (agents < weights.num_agents)
    return Interests(jnp.where(exist, jnp.asarray(weights.weights), jnp.nan), jnp.where(exist, agents, 0))


def stochastic_interests(name: str, weights: Weights, num_agents: int | None = None) -> Interests:
    """As ``as_interests``; raises also unless concrete weights are row-stochastic."""
    if isinstance(weights, SparseWeights):
        interests = as_interests(name, weights, num_agents)
        values, agents = concrete(weights.weights), concrete(weights.agents)
        name = f"{name}.weights"
    else:
        interests = as_interests(name, weights, num_agents)
        values, agents = concrete(weights), None
    if values is not None:
        check_row_stochastic(name, values, agents)
    return interests
