"""The channel for delays of any kind."""

from damjax.channels.answers import Answers
from damjax.channels.bins import arrival_bins
from damjax.channels.channel import Channel
from damjax.channels.delays import Delays, is_table
from damjax.channels.rings import residual_rings
from damjax.objectives import MemoryLoss, as_objective
from damjax.weights.epochs import EpochWeights
from damjax.weights.interests import Weights

__all__ = ["connect"]


def connect(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    delays: Delays,
    *,
    max_delay: int | None = None,
    reweight: bool = False,
    answers: Answers | None = None,
) -> Channel:
    """The channel that carries gradients with these delays: residual rings where they can serve, else arrival bins.

    Rings are several times faster for small linear memories; they need a table of delays, and gradients of rank
    one that are sent as they are.

    Args:
        objective: the memory loss f.
        weights: as for ``arrival_bins``.
        delays: as for ``arrival_bins``.
        max_delay: as for ``arrival_bins``.
        reweight: as for ``arrival_bins``.
        answers: as for ``arrival_bins``.

    Returns:
        A Channel.

    Raises:
        ValueError: as ``arrival_bins``.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> weights, delays = jnp.full((2, 2), 0.5), jnp.array([[0, 2], [2, 0]])
        >>> channel = connect(damjax.objectives.delta_net(), weights, delays)
        >>> type(channel.init(jnp.zeros((2, 1, 1)))).__name__
        'Rings'
    """
    objective = as_objective(objective)
    plain = objective.has_rank_one_gradient and not reweight and answers is None
    if plain and is_table(delays) and not isinstance(weights, EpochWeights):
        return residual_rings(objective, weights, delays, max_delay=max_delay)
    return arrival_bins(objective, weights, delays, max_delay=max_delay, reweight=reweight, answers=answers)
