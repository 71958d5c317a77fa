"""Delays that someone wrote down."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_count, check_delays_shape, check_whole_delays, concrete
from damjax._pytrees import register_dataclass
from damjax.channels.laws.epochs import of_timeline
from damjax.channels.laws.law import Law, or_lost
from damjax.routing.timeline import Timeline
from damjax.types import ArrayLike

__all__ = ["Table", "as_law", "table"]


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Table(Law):
    """Delays by step and pair, or by pair alone.

    Attributes:
        delays: (T, N, K), or (N, K) for ever; -1 for what is lost.
        max_delay: the longest.
    """

    delays: Int[Array, "*T N K"]
    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        check_delays_shape(self.delays.shape[-2:], agents.shape)
        if self.delays.ndim == 2:
            return self.delays
        return self.delays.at[time - 1].get(mode="fill", fill_value=-1)

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        if self.delays.ndim == 3:
            # What was lost once is lost for sure, and nobody knows how likely it was.
            return super().arrival_probability(time, agents)
        return (self.at(time, agents) >= 0).astype(jnp.float32)


def table(delays: Int[ArrayLike, "*T N K"], *, max_delay: int | None = None) -> Table:
    """The delays that are written in a table, those of agents' questions to themselves too.

    Args:
        delays: entry [s-1, n, m] of the question of step s, or one table (N, K) for all steps: integers, shaped like
            the weights; negative = lost, as are questions after the last step of the table.
        max_delay: the longest round trip that is waited for; taken from a concrete table, needed for a traced one.

    Returns:
        A Law.

    Raises:
        ValueError: delays that are no integers or no table; no max_delay where it is needed.

    Example:
        >>> law = table(np.array([[[0, 1], [2, -1]], [[0, 3], [1, 0]]]))
        >>> law.max_delay, law.table(3, (2, 2)).tolist()
        (3, [[[0, 1], [2, -1]], [[0, 3], [1, 0]], [[-1, -1], [-1, -1]]])
    """
    if np.ndim(delays) not in (2, 3):
        raise ValueError(
            f"delays must be a table (T, N, K) of the round trips of every step, or (N, K) of all, but its shape is"
            f" {np.shape(delays)}"
        )
    check_whole_delays(jnp.asarray(delays).dtype)
    if max_delay is None:
        if (values := concrete(delays)) is None:
            raise ValueError(
                "max_delay must be given when delays is traced (as under vmap), since it is a static length"
            )
        max_delay = int(values.max(initial=0))
    check_count("max_delay", max_delay, allow_zero=True)
    return Table(or_lost(delays, max_delay), max_delay)


def as_law(name: str, delays: Law | Timeline | Int[ArrayLike, "*T N K"]) -> Law:
    """A law as it is, a timeline or a table of delays as the law that it is."""
    if isinstance(delays, Law):
        return delays
    if isinstance(delays, Timeline):
        return of_timeline(delays)
    if callable(delays):
        raise ValueError(f"{name} must be a law of damjax.channels, or a table of round trips, but it is a function")
    return table(delays)
