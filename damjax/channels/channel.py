"""What a channel is: it says which gradients an agent gets in a step, and keeps those that are under way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["NOTHING", "Arrivals", "Channel"]

NOTHING = -1  # the age of what did not arrive


class Arrivals(NamedTuple):
    """What arrived for every agent in one step, beside the gradients themselves.

    Attributes:
        any: whether anything arrived, (N,); the clock of an agent's rate starts with the first.
        number: how many gradients arrived, (N,).
        max_age: steps since the oldest of them was asked for, 0 for one on the current association, (N,); -1 where
            nothing arrived.
        lost: how many of the questions that the agent asked in this step will never be answered, and of an absent
            agent how many answers find nobody, (N,).
        mean_age: the mean of the ages whose largest is ``max_age``, (N,); -1 where nothing arrived.
        reweighting_variance: as in ``damjax.Info``, (N,); None where nothing is made up for.
        present: whether the agent takes part in this step, (N,); None where all do. To one that does not nothing
            arrives: it learns nothing, and its clock stands still.
    """

    any: Bool[Array, "N"]
    number: Int[Array, "N"]
    max_age: Int[Array, "N"]
    lost: Int[Array, "N"]
    mean_age: Float[Array, "N"] | None = None
    reweighting_variance: Float[Array, "N"] | None = None
    present: Bool[Array, "N"] | None = None


class Channel(NamedTuple):
    """Who gets which gradient when, as data: two pure functions.

    Law: whatever a channel keeps in its box, the gradient that it gives agent n at step t is

        sum of w_nm grad f_ms(X_ns)   over the questions of n to m of steps s whose answers arrive at t.

    Attributes:
        num_agents: N.
        init: ``init(params) -> box``, before the first step; the leaves of ``params`` have a leading N.
        exchange: ``exchange(box, time, params, associations) -> (box, gradient, Arrivals)``: agents ask with the
            memories X_t, and get what arrives at step t; the gradient is a pytree as ``params``.
    """

    num_agents: int
    init: Callable[[Any], Any]
    exchange: Callable[..., tuple[Any, Any, Arrivals]]


def mean_of(ages: Int[Array, "N"], number: Int[Array, "N"], dtype: jax.typing.DTypeLike) -> Float[Array, "N"]:
    """The mean age, of the sum of ages and their number; ``NOTHING`` where nothing arrived."""
    mean = ages.astype(dtype) / jnp.maximum(number, 1).astype(dtype)
    return jnp.where(number > 0, mean, NOTHING)


def check_box(box: Any, kind: type) -> None:
    """Raise unless the box is of this channel's kind."""
    if type(box) is not kind:
        raise ValueError(
            f"state must come from this algorithm, with a {kind.__name__} as its box, but it has a"
            f" {type(box).__name__}; it comes from this algorithm's init"
        )


def check_length(ring: Array, length: int) -> None:
    """Raise unless the ring is of this channel."""
    if ring.shape[0] != length:
        raise ValueError(
            f"state must come from this algorithm: its queues have length {ring.shape[0]}, but max_delay + 1 is"
            f" {length}; declare the same max_delay for every part of a run"
        )
