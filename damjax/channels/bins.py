"""Arrival bins: gradients that arrive whenever they do, of memories of any shape.

A bin is the weighted sum of all gradients that will arrive in one step. A question is answered in the step in which it
is asked, and the answer goes into the bin of its arrival; so round trips may differ from question to question,
overtake each other, and never end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax._arrays import beside, dtype_of
from damjax._checks import check_function
from damjax.channels.answers import Answers
from damjax.channels.channel import NOTHING, Arrivals, Channel, check_box, check_length, mean_of
from damjax.channels.delays import Delays, arrival_probability, as_delays, weights_beside
from damjax.evaluation import check_params, pairs, weigh
from damjax.objectives import MemoryLoss, as_objective
from damjax.types import Associations
from damjax.weights.epochs import EpochWeights, changing_interests
from damjax.weights.interests import Interests, Weights

__all__ = ["Bins", "Due", "arrival_bins"]


class Due(NamedTuple):
    """What is due in a step, or in each of the next steps, without the gradients themselves.

    Attributes:
        numbers: how many gradients, (*D, N).
        ages: the sum of their ages when they arrive, (*D, N).
        oldest: the largest of them, -1 where nothing is due, (*D, N).
    """

    numbers: Int[Array, "*D N"]
    ages: Int[Array, "*D N"]
    oldest: Int[Array, "*D N"]


class Bins(NamedTuple):
    """What will arrive; D = max_delay + 1.

    Attributes:
        gradients: weighted sums of gradients by the step of their arrival, step t in bin t mod D, as the memories:
            leaves (D, N, ..).
        due: what they are the sums of, by the time until then: row d is due in d + 1 steps, (D, N); the last row is
            empty between two steps.
    """

    gradients: Any
    due: Due


def arrival_bins(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    delays: Delays,
    *,
    max_delay: int | None = None,
    reweight: bool = False,
    answers: Answers | None = None,
) -> Channel:
    """The channel of any round trips and any memories.

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or ``SparseWeights``; or ``EpochWeights``, of which a
            question takes those of the step in which it is asked.
        delays: round trips tau, integers from 0 on, shaped like the weights and ignored where the weight is 0: a
            table; or a law of ``damjax.channels``; or a pure function of the 1-based step in which the questions are
            asked. An answer that a law or a function makes negative, or later than ``max_delay``, is lost, and counted.
            Or a ``damjax.routing.Timeline``, beside which the weights of absent agents go to those present.
        max_delay: the longest round trip; taken from ``delays`` when it is a concrete table or a law, needed otherwise.
            A traced table with a round trip beyond it, or a negative one, turns the agent's memory into NaN.
        reweight: whether an arrival weighs w_nm / q_nm, with q_nm the probability that it arrives, so that in the mean
            over losses every agent gets sum_m w_nm grad f_m. Then ``Arrivals.reweighting_variance`` says what that adds
            to the expected squared norm. For laws with an ``arrival_probability``; the agents must know it.
        answers: what is sent in place of the gradients, such as ``damjax.channels.quantised``:
            ``answers(time, pairs)``, a pure function of the step and of what is asked in it, gives them one by one as
            ``pairs.gradients()`` does.

    Returns:
        A Channel with Bins as its box.

    Raises:
        ValueError: weights that are not row-stochastic; delays that are no integers, of another shape or, in a
            table, negative or beyond max_delay; no max_delay where it is needed; ``reweight`` with delays that don't
            say how likely an answer arrives.

    Example:
        >>> import damjax
        >>> late = lambda time: jnp.where(time == 1, jnp.array([[0, 1], [0, 0]]), 0)
        >>> weights = jnp.array([[0.5, 0.5], [0.0, 1.0]])
        >>> channel = arrival_bins(damjax.objectives.delta_net(), weights, late, max_delay=1)
        >>> params, seen = jnp.zeros((2, 1, 1)), Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> box, gradient, _ = channel.exchange(channel.init(params), jnp.asarray(1), params, seen)
        >>> _, both, arrivals = channel.exchange(box, jnp.asarray(2), params, seen)
        >>> gradient.ravel().tolist(), both.ravel().tolist(), arrivals.number.tolist(), arrivals.max_age.tolist()
        ([-0.5, -3.0], [-3.5, -3.0], [3, 1], [1, 0])
    """
    objective, changing = as_objective(objective), changing_interests("weights", weights_beside(weights, delays))
    if answers is not None:
        check_function("answers", answers, "time, pairs", "damjax.channels.quantised(8, key=key) is one")
    probability = arrival_probability(delays, changing) if reweight else None
    changing, round_trips, max_delay = as_delays(delays, changing, max_delay)
    num_agents, length = changing.shape[0], max_delay + 1
    receivers = jnp.arange(num_agents)[:, None]

    def init(params: Any) -> Bins:
        params = check_params(objective, params, num_agents)
        nothing = jnp.zeros((length, num_agents), jnp.int32)
        return Bins(
            jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), params),
            Due(nothing, nothing, jnp.full_like(nothing, NOTHING)),
        )

    def exchange(box: Any, time: Int[Array, ""], params: Any, associations: Associations) -> tuple[Bins, Any, Arrivals]:
        check_box(box, Bins)
        check_length(box.due.numbers, length)
        interests = changing.at(time)
        asked, variance = pairs(objective, interests, params, associations, time), None
        if probability is not None:
            chances = probability(time)
            variance = _added_variance(asked.interests.weights, chances, asked.gradient_norms())
            asked = asked._replace(interests=_made_up_for(asked.interests, chances))
        delays_now = round_trips(time)
        in_time = delays_now >= 0
        # Past the end, where writes are dropped.
        slots = jnp.where(in_time, (time + delays_now) % length, length)
        gradients = jax.tree.map(
            lambda ring, answers: ring.at[slots, receivers].add(answers, mode="drop"),
            box.gradients,
            asked.weighted_gradients() if answers is None else weigh(asked.interests.weights, answers(time, asked)),
        )
        due = _with(box.due, jnp.where(interests.mask, delays_now, -1))
        numbers, ages, oldest = jax.tree.map(lambda rows: rows[0], due)

        gradients, arrived = _taken(gradients, time % length)
        lost = jnp.sum(interests.mask & ~in_time, axis=1, dtype=jnp.int32)
        if (present := changing.present_at(time)) is not None:
            lost = lost + jnp.where(present, 0, numbers)  # nobody is there to take it
            numbers, oldest = jnp.where(present, numbers, 0), jnp.where(present, oldest, NOTHING)
            arrived = jax.tree.map(lambda leaf: jnp.where(beside(present, leaf), leaf, 0), arrived)
        arrivals = Arrivals(
            any=numbers > 0,
            number=numbers,
            max_age=oldest,
            lost=lost,
            mean_age=mean_of(ages, numbers, dtype_of(params)),
            reweighting_variance=variance,
            present=present,
        )
        return Bins(gradients, _a_step_later(due)), arrived, arrivals

    return Channel(num_agents, init, exchange)


def _taken(rings: Any, place: Int[Array, ""]) -> tuple[Any, Any]:
    """The rings with one bin emptied, and what was in it."""
    # Not by scattering: XLA on CPU writes a row at once, and what it scatters number by number.
    emptied = jax.tree.map(
        lambda ring: jax.lax.dynamic_update_index_in_dim(ring, jnp.zeros_like(ring[0]), place, 0), rings
    )
    return emptied, jax.tree.map(lambda ring: jax.lax.dynamic_index_in_dim(ring, place, 0, keepdims=False), rings)


def _with(due: Due, delays: Int[Array, "N K"]) -> Due:
    """What is due now and later, by the delay, (D, N), with the questions of this step; those of -1 are none."""
    ages = jnp.arange(due.numbers.shape[0], dtype=jnp.int32)[:, None]
    # Counted for every delay rather than scattered: the comparisons fuse into the sum, where XLA scatters one by one.
    numbers = jnp.sum(delays[None] == ages[..., None], axis=2, dtype=jnp.int32)
    oldest = jnp.where(numbers > 0, ages, NOTHING)
    return Due(due.numbers + numbers, due.ages + ages * numbers, jnp.maximum(due.oldest, oldest))


def _a_step_later(due: Due) -> Due:
    """The rows moved up by one, with an empty one behind."""
    empty = Due(0, 0, NOTHING)  # pyright: ignore[reportArgumentType]
    return jax.tree.map(lambda rows, value: jnp.concatenate([rows[1:], jnp.full_like(rows[:1], value)]), due, empty)


def _made_up_for(interests: Interests, chances: Float[Array, "N K"]) -> Interests:
    """The weights of what arrives; 0 where nothing ever does."""
    weights, chances = jnp.asarray(interests.weights), chances.astype(interests.weights.dtype)
    return interests._replace(weights=jnp.where(chances > 0, weights / jnp.where(chances > 0, chances, 1), 0))


def _added_variance(
    weights: Float[Array, "N K"], chances: Float[Array, "N K"], norms: Float[Array, "N K"]
) -> Float[Array, "N"]:
    """sum_k w_nk^2 (1/q_nk - 1) ||grad f_k||^2: infinite where what an agent wants never arrives."""
    chances = chances.astype(norms.dtype)
    wanted = (weights > 0) & (norms > 0)
    return jnp.sum(jnp.where(wanted, (weights * norms) ** 2 * (1 - chances) / jnp.where(wanted, chances, 1), 0), axis=1)
