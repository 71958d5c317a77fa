"""Channels without delay: every gradient at once, or each agent's own only. Nothing is under way."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from damjax import evaluation
from damjax._arrays import dtype_of
from damjax.channels.channel import Arrivals, Channel, check_box
from damjax.objectives import MemoryLoss, as_objective
from damjax.types import Associations
from damjax.weights.epochs import EpochWeights, changing_interests
from damjax.weights.interests import Weights

__all__ = ["full_information", "own_gradients"]


def full_information(objective: MemoryLoss, weights: Weights | EpochWeights) -> Channel:
    """Every agent gets the gradients of all its interests in the step in which it asks for them.

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or ``SparseWeights``, or ``EpochWeights``.

    Returns:
        A Channel with an empty box.

    Raises:
        ValueError: an object that is no objective; weights that are not row-stochastic.

    Example:
        >>> import damjax
        >>> channel = full_information(damjax.objectives.delta_net(), jnp.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> seen, params = Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]])), jnp.zeros((2, 1, 1))
        >>> _, gradient, arrivals = channel.exchange(channel.init(params), jnp.asarray(1), params, seen)
        >>> gradient.ravel().tolist(), arrivals.number.tolist()
        ([-1.0, -2.0], [1, 2])
    """
    objective, changing = as_objective(objective), changing_interests("weights", weights)
    num_agents, _ = changing.shape

    def init(params: Any) -> tuple[()]:
        evaluation.check_params(objective, params, num_agents)
        return ()

    def exchange(box: Any, time: Int[Array, ""], params: Any, associations: Associations) -> tuple[Any, Any, Arrivals]:
        check_box(box, tuple)
        interests = changing.at(time)
        gradient = evaluation.pairs(objective, interests, params, associations, jnp.asarray(time)).weighted_gradient()
        number = jnp.sum(interests.mask, axis=1, dtype=jnp.int32)
        return box, gradient, _at_once(number, dtype_of(params))._replace(present=changing.present_at(time))

    return Channel(num_agents, init, exchange)


def own_gradients(objective: MemoryLoss, num_agents: int) -> Channel:
    """Every agent gets the gradient on its own association only.

    Args:
        objective: the memory loss f.
        num_agents: N.

    Returns:
        A Channel with an empty box.

    Raises:
        ValueError: an object that is no objective.

    Example:
        >>> import damjax
        >>> channel = own_gradients(damjax.objectives.delta_net(), 2)
        >>> seen, params = Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]])), jnp.zeros((2, 1, 1))
        >>> channel.exchange(channel.init(params), jnp.asarray(1), params, seen)[1].ravel().tolist()
        [-1.0, -3.0]
    """
    objective = as_objective(objective)

    def init(params: Any) -> tuple[()]:
        evaluation.check_params(objective, params, num_agents)
        return ()

    def exchange(box: Any, time: Int[Array, ""], params: Any, associations: Associations) -> tuple[Any, Any, Arrivals]:
        check_box(box, tuple)
        evaluation.check_associations(params, associations, objective)
        gradient = evaluation.own_gradients(objective, params, associations, time)
        return box, gradient, _at_once(jnp.ones(num_agents, jnp.int32), dtype_of(params))

    return Channel(num_agents, init, exchange)


def _at_once(number: Int[Array, "N"], dtype: jax.typing.DTypeLike) -> Arrivals:
    nothing = jnp.zeros_like(number)
    at_once = jnp.ones(number.shape, bool)
    return Arrivals(at_once, number, max_age=nothing, lost=nothing, mean_age=nothing.astype(dtype))
