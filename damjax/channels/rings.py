"""Residual rings: static round trips of linear memories, of whose gradients only the two factors travel.

The gradient in flight is rank one, r phi': agent m's answer to n is a residual, kept per pair, and the features of m's
cue, kept per sender. A ring is read where what was stored a round trip ago lies; nothing is ever moved or summed on
the way.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax.channels import queues
from damjax.channels.channel import NOTHING, Arrivals, Channel, check_box, check_length, mean_of
from damjax.channels.delays import as_table
from damjax.evaluation import RankOnePairs, check_params, pairs
from damjax.objectives import MemoryLoss, Objective, as_objective
from damjax.types import ArrayLike, Associations
from damjax.weights.interests import Weights, stochastic_interests

__all__ = ["Rings", "residual_rings"]


class Rings(NamedTuple):
    """What is under way; D = max_delay + 1, and K columns, one per interest (K = N for a matrix of weights).

    Attributes:
        residuals: to agent n from the agent of column k, dl/dz of its association, (D, N, K, dv).
        features: the other factor of those gradients, phi of agent m's cue, (D, N, df), or (D, N, H, df) of H heads.
    """

    residuals: Float[Array, "D N K dv"]
    features: Float[Array, "D N *heads df"]


def residual_rings(
    objective: MemoryLoss, weights: Weights, delays: Int[ArrayLike, "N K"], *, max_delay: int | None = None
) -> Channel:
    """The channel of a static table of round trips, for linear memories without a ridge part.

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or ``SparseWeights``.
        delays: round trips tau, integers from 0 on, shaped like the weights; ignored where the weight is 0.
        max_delay: the longest round trip; taken from ``delays`` when it is concrete, needed when it is traced.

    Returns:
        A Channel with Rings as its box; equal to ``arrival_bins`` up to rounding.

    Raises:
        ValueError: as ``arrival_bins``; an objective with a ridge part or of other memories.

    Example:
        >>> import damjax
        >>> channel = residual_rings(damjax.objectives.delta_net(), jnp.array([[0.5, 0.5], [0.0, 1.0]]),
        ...     jnp.array([[0, 1], [0, 0]]))
        >>> params, seen = jnp.zeros((2, 1, 1)), Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> box, gradient, arrivals = channel.exchange(channel.init(params), jnp.asarray(1), params, seen)
        >>> gradient.ravel().tolist(), arrivals.number.tolist()  # agent 0 waits for the other half
        ([-0.5, -3.0], [1, 1])
        >>> channel.exchange(box, jnp.asarray(2), params, seen)[1].ravel().tolist()
        [-2.0, -3.0]
    """
    objective = as_objective(objective)
    if not objective.has_rank_one_gradient:
        raise ValueError(
            "objective must be one of linear memories without a ridge part for residual_rings, since their gradients"
            " alone are of rank one; use arrival_bins"
        )
    assert isinstance(objective, Objective)
    heads = objective.heads
    interests, round_trips, max_delay = as_table(delays, stochastic_interests("weights", weights), max_delay)
    (num_agents, num_columns), length = interests.shape, max_delay + 1
    first_arrival = jnp.min(round_trips, axis=1, where=interests.mask, initial=max_delay)

    def init(params: Float[ArrayLike, "N dv df"]) -> Rings:
        memories = check_params(objective, params, num_agents)
        _, value_dim, feature_dim = memories.shape
        return Rings(
            queues.init(length, (num_agents, num_columns, value_dim), memories.dtype),
            queues.init(length, (num_agents, *heads, feature_dim), memories.dtype),
        )

    def exchange(
        box: Any, time: Int[Array, ""], params: Float[Array, "N dv df"], associations: Associations
    ) -> tuple[Rings, Float[Array, "N dv df"], Arrivals]:
        check_box(box, Rings)
        check_length(box.residuals, length)
        asked = pairs(objective, interests, params, associations, time)
        assert isinstance(asked, RankOnePairs)
        features, residuals = asked.features_and(asked.objective.residual)
        box = Rings(queues.push(box.residuals, time, residuals), queues.push(box.features, time, features))
        gradient = asked.interests.weighted_outer(
            box.residuals,
            queues.pop_senders(box.features, time, round_trips, interests.agents),
            time,
            read=lambda residuals: queues.pop_pairs(residuals, time, round_trips),
        )
        arrived = interests.mask & (time > round_trips)
        number = jnp.sum(arrived, axis=1, dtype=jnp.int32)
        ages = jnp.sum(round_trips, axis=1, where=arrived, dtype=jnp.int32)
        return (
            box,
            gradient,
            Arrivals(
                any=time > first_arrival,
                number=number,
                max_age=jnp.max(round_trips, axis=1, where=arrived, initial=NOTHING),
                lost=jnp.zeros(num_agents, jnp.int32),
                mean_age=mean_of(ages, number, gradient.dtype),
            ),
        )

    return Channel(num_agents, init, exchange)
