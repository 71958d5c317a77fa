"""Round trips of questions: a table, a law, or a function of the step in which they are asked."""

from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from damjax._checks import check_count, check_delays_shape, check_function, check_whole_delays, concrete
from damjax.channels.laws.epochs import of_timeline
from damjax.channels.laws.law import Law, asked_agents, or_lost
from damjax.routing.timeline import Timeline
from damjax.types import ArrayLike, Signal
from damjax.weights.epochs import EpochInterests, EpochWeights, over_epochs
from damjax.weights.interests import Interests, Weights

__all__ = ["Delays", "RoundTrips", "arrival_probability", "as_delays", "as_table", "is_table", "weights_beside"]

Delays = Signal[Int[ArrayLike, "N K"]] | Law | Timeline


class RoundTrips(NamedTuple):
    """Round trips that do not change, with the interests that they are for.

    Attributes:
        interests: with NaN for the weight of an interest whose traced round trip is none.
        round_trips: from 0 to max_delay, (N, K); of no meaning where there is no interest, 0 where a traced one is
            impossible.
        max_delay: the longest.
    """

    interests: Interests
    round_trips: Int[Array, "N K"]
    max_delay: int


def as_table(delays: Int[ArrayLike, "N K"], interests: Interests, max_delay: int | None) -> RoundTrips:
    """The table of static round trips, or a ValueError for what is none.

    Entries of no interest may hold anything: what they read is multiplied by a zero weight. A traced delay that is
    negative or beyond ``max_delay`` makes its weight NaN, for it would read some other message's slot.
    """
    check_delays_shape(np.shape(delays), interests.shape)
    check_whole_delays(jnp.asarray(delays).dtype)
    if max_delay is not None:
        check_count("max_delay", max_delay, allow_zero=True)
    weights, table = concrete(interests.weights), concrete(delays)
    wanted = np.ones(interests.shape, bool) if weights is None else weights > 0
    if table is not None:
        _check_entries(table, wanted, max_delay)
        max_delay = int(np.max(table, where=wanted, initial=max_delay or 0))
    elif max_delay is None:
        raise ValueError("max_delay must be given when delays is traced (as under vmap), since it is a static length")
    round_trips = or_lost(delays, max_delay)
    possible = round_trips >= 0
    if table is None:
        interests = interests._replace(weights=jnp.where(interests.mask & ~possible, jnp.nan, interests.weights))
    return RoundTrips(interests, jnp.where(possible, round_trips, 0), max_delay)


def weights_beside(weights: Weights | EpochWeights, delays: Delays) -> Weights | EpochWeights:
    """The weights of a run: in a network that changes, those of absent agents go to those present."""
    if isinstance(delays, Timeline) and not isinstance(weights, EpochWeights):
        return over_epochs(weights, delays.first_steps, delays.present)
    return weights


def as_delays(
    delays: Delays, interests: Interests | EpochInterests, max_delay: int | None
) -> tuple[Interests | EpochInterests, Callable[[Int[Array, ""]], Int[Array, "N K"]], int]:
    """Round trips as a function of the step in which the question is asked, with their interests and the longest.

    Of a function nothing can be checked beforehand: what it makes negative or later than ``max_delay`` is lost.
    """
    if isinstance(delays, Timeline):
        delays = of_timeline(delays)
    if isinstance(delays, Law):
        max_delay, delays = _longest(delays, max_delay), _at(delays, interests)
    if not callable(delays):
        if isinstance(interests, EpochInterests):
            raise ValueError(
                "delays must be a timeline or a function of the time beside weights that change, since a table is that"
                " of one network; lambda time: table says that it holds for all of them"
            )
        table = as_table(delays, interests, max_delay)
        return table.interests, lambda time: table.round_trips, table.max_delay
    check_function("delays", delays, "time", "it gives the round trips (N, K) of the questions of a step")
    if max_delay is None:
        raise ValueError("max_delay must be given when delays is a function of the time, since it is a static length")
    check_count("max_delay", max_delay, allow_zero=True)
    round_trips = jax.eval_shape(lambda: jnp.asarray(delays(jnp.asarray(1, jnp.int32))))
    check_delays_shape(round_trips.shape, interests.shape)
    check_whole_delays(round_trips.dtype)
    return interests, lambda time: or_lost(delays(time), max_delay), max_delay


def is_table(delays: Delays) -> TypeGuard[Int[ArrayLike, "N K"]]:
    """Whether these are round trips that do not change."""
    return not callable(delays) and not isinstance(delays, Law | Timeline)


def arrival_probability(
    delays: Delays, interests: Interests | EpochInterests
) -> Callable[[Int[Array, ""]], Float[Array, "N K"]]:
    """How likely the questions of a step are answered; raises for delays of which nobody knows."""
    if not isinstance(delays, Law):
        raise ValueError(
            "delays must be a law where losses are made up for, since it says how likely an answer arrives;"
            " damjax.channels.table(delays) makes one of a table, or use reweight=False"
        )
    law = delays

    def chances(time: Int[Array, ""]) -> Float[Array, "N K"]:
        return law.arrival_probability(time, asked_agents(interests.at(time)))

    jax.eval_shape(chances, jnp.asarray(1, jnp.int32))
    return chances


def _at(law: Law, interests: Interests | EpochInterests) -> Callable[[Int[Array, ""]], Int[Array, "N K"]]:
    """A law's round trips of the questions that these interests ask."""
    return lambda time: law.at(time, asked_agents(interests.at(time)))


def _longest(law: Law, max_delay: int | None) -> int:
    """The room that is made for a law, which knows itself what is too late."""
    if max_delay is not None and max_delay < law.max_delay:
        raise ValueError(
            f"max_delay must be at least that of the law, {law.max_delay}, but it is {max_delay}; give the law itself"
            f" a smaller one, and it will lose what is later"
        )
    return law.max_delay if max_delay is None else max_delay


def _check_entries(delays: np.ndarray, wanted: Bool[np.ndarray, "N K"], max_delay: int | None) -> None:
    """Raise unless the round trips of interests are non-negative and fit in ``max_delay``."""
    if np.any(bad := (delays < 0) & wanted):
        agent, other = np.argwhere(bad)[0]
        raise ValueError(
            f"delays must be non-negative but delays[{agent}, {other}] is {delays[agent, other]};"
            f" damjax.routing.compile_routes(graph, weights).delays is such a table"
        )
    longest = int(np.max(delays, where=wanted, initial=0))
    if max_delay is not None and max_delay < longest:
        raise ValueError(f"max_delay must be at least the longest delay, {longest}, but it is {max_delay}")
