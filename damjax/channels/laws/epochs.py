"""Round trips of a network that changes, as a function of the time."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from damjax._checks import check_delays_shape
from damjax._pytrees import register_dataclass
from damjax.channels.laws.law import Law
from damjax.routing.timeline import Timeline
from damjax.types import ArrayLike
from damjax.weights.epochs import epoch_at

__all__ = ["EpochDelays", "of_timeline"]

LOST = -1


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class EpochDelays(Law):
    """Delays of the epoch in which a question is asked, but for what the next border cuts off.

    Attributes:
        first_steps: of the E epochs, (E,).
        delays: of their questions, (E, N, K); -1 where none is asked or answered.
        lost: as of ``damjax.routing.Timeline``.
        max_delay: the longest.
    """

    first_steps: Int[ArrayLike, "E"]
    delays: Int[ArrayLike, "E N K"]
    lost: UInt8[ArrayLike, "borders D N bytes"]
    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        check_delays_shape(np.shape(self.delays)[1:], agents.shape)
        epoch = epoch_at(self.first_steps, time)
        delays = jnp.asarray(self.delays)[epoch]
        if self.lost.size == 0:
            return delays
        # The last epoch ends with the run; its row is never looked at.
        next_steps = jnp.append(jnp.asarray(self.first_steps)[1:], np.int32(np.iinfo(np.int32).max))
        before = next_steps[epoch] - jnp.asarray(time, jnp.int32)
        row = jnp.asarray(self.lost).at[epoch, before - 1].get(mode="clip")
        cut = jnp.unpackbits(row, axis=-1, count=delays.shape[1]) != 0
        return jnp.where(cut & (before <= self.max_delay), LOST, delays)


def of_timeline(timeline: Timeline) -> EpochDelays:
    """The law of a compiled timeline.

    Example:
        >>> import networkx as nx, damjax
        >>> ring, broken = nx.cycle_graph(4), nx.path_graph(4)
        >>> timeline = damjax.routing.compile_timeline([(1, ring, None), (20, broken, None)], np.full((4, 4), 1 / 4))
        >>> of_timeline(timeline).table(20, (4, 4))[17:, 0, 3].tolist()
        [2, -1, 6]
    """
    return EpochDelays(timeline.first_steps, timeline.delays, timeline.lost, timeline.max_delay)
