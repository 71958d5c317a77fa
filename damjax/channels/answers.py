"""Messages that cost less: answers of few bits, and questions that are asked in some steps only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from damjax._arrays import beside, outer
from damjax._checks import check_count, check_key
from damjax.channels.channel import Arrivals, Channel, check_box
from damjax.channels.laws.law import asked_agents, its_own
from damjax.evaluation import Pairs, RankOnePairs, own_gradients
from damjax.objectives import MemoryLoss, as_objective
from damjax.types import Associations
from damjax.weights.interests import Weights, stochastic_interests

__all__ = ["Answers", "Asked", "periodic", "quantised", "rounded"]

Answers = Callable[[Int[Array, ""], Pairs], Any]


def rounded(key: Key[Array, ""], numbers: Float[Array, "*item"], bits: int, num_axes: int) -> Float[Array, "*item"]:
    """Numbers rounded at random, up or down, to one of 2^bits - 1 values, so that their means stay what they are.

    Of a message of numbers x, with s the largest absolute one and L = 2^(bits-1) - 1,

        Q(x) = (s / L) floor(L x / s + U),   U uniform on [0, 1),   E Q(x) = x,   Var Q(x) <= (s / L)^2 / 4.

    Zero stays zero. Q is flat between its jumps; its derivative is that of its mean, 1.

    Args:
        key: of the draws.
        numbers: messages.
        bits: of each number, at least 2.
        num_axes: how many axes at the end make one message, which has one s.

    Example:
        >>> draws = jax.vmap(lambda key: rounded(key, jnp.array([1.0, 0.25, 0.0]), 2, 1))
        >>> sent = draws(jax.random.split(jax.random.key(0), 4000))
        >>> sorted(set(sent.ravel().tolist())), sent.mean(axis=0).round(1).tolist()
        ([0.0, 1.0], [1.0, 0.2..., 0.0])
    """
    axes = tuple(range(numbers.ndim - num_axes, numbers.ndim))
    largest = jnp.max(jnp.abs(numbers), axis=axes, keepdims=True)
    step = jnp.where(largest > 0, largest, 1) / (2 ** (bits - 1) - 1)
    draws = jax.random.uniform(key, numbers.shape, numbers.dtype)
    sent = step * jnp.floor(numbers / step + draws)
    # What rounding makes larger than the largest is none of the values.
    sent = jnp.clip(sent, -largest, largest)
    return jax.lax.stop_gradient(sent) + (numbers - jax.lax.stop_gradient(numbers))


def quantised(bits: int, *, key: Key[Array, ""]) -> Answers:
    """Answers of so many bits a number, for ``arrival_bins`` and ``dam_togd``: ``answers=quantised(8, key=key)``.

    Every answer is rounded by itself (``rounded``): of linear memories its two factors, independently, whose product
    then has the mean of the gradient; of other memories, and of a ridge part, each array. What an agent tells itself
    is not sent, and stays as it is. A pure function of the key and the time, so that every algorithm and setting sees
    the same draws.

    Args:
        bits: of every number, at least 2 and at most 16.
        key: of the draws.

    Returns:
        ``answers(time, pairs) -> gradients (N, K, ..)``, as ``pairs.gradients()`` gives them.

    Raises:
        ValueError: bits that are no integer in that range; a key that is none.

    Example:
        >>> import damjax
        >>> objective, weights = damjax.objectives.delta_net(), jnp.full((3, 3), 1 / 3)
        >>> algorithm = damjax.dam_togd(objective, weights, jnp.array([[0, 2, 4], [2, 0, 2], [4, 2, 0]]),
        ...     learning_rate=0.1, domain=damjax.domains.frobenius_ball(20.0),
        ...     answers=quantised(4, key=jax.random.key(0)))
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(1), num_agents=3, num_steps=20)
        >>> _, trace = damjax.simulate(algorithm, jnp.zeros((3, 5, 5)), stream)
        >>> bool(trace.info.finite.all())
        True

    Source: stochastic rounding, as of QSGD (Alistarh et al. 2017).
    """
    check_key("key", key)
    check_count("bits", bits)
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must be in 2..16, but it is {bits}; leave answers out to send floats")

    def answers(time: Int[Array, ""], asked: Pairs) -> Any:
        now = jax.random.fold_in(key, time)
        exact = asked.gradients()
        if isinstance(asked, RankOnePairs):
            sent = _rank_one(now, asked, bits)
        else:
            leaves, form = jax.tree.flatten(exact)
            keys = jax.random.split(now, len(leaves))
            sent = form.unflatten(
                [rounded(one, leaf, bits, leaf.ndim - 2) for one, leaf in zip(keys, leaves, strict=True)]
            )
        own = its_own(asked_agents(asked.interests))
        return jax.tree.map(lambda sent, exact: jnp.where(beside(own, exact), exact, sent), sent, exact)

    return answers


def _rank_one(key: Key[Array, ""], asked: RankOnePairs, bits: int) -> Float[Array, "N K dv df"]:
    residuals, cues = asked.factors()
    # An answer has draws of its own, also where all receivers ask for the same cue.
    cues = jnp.broadcast_to(cues, (*residuals.shape[:2], *cues.shape[2:]))
    of_residuals, of_cues, of_ridge = jax.random.split(key, 3)
    products = outer(rounded(of_residuals, residuals, bits, 1), rounded(of_cues, cues, bits, cues.ndim - 2))
    shrinkage = asked.shrinkage()
    return products if shrinkage is None else products + rounded(of_ridge, shrinkage, bits, 2)


class Asked(NamedTuple):
    """The box of a channel whose questions are periodic.

    Attributes:
        params: the memories that were asked with last, as the memories.
        box: of the channel that carries them.
    """

    params: Any
    box: Any


def periodic(channel: Channel, objective: MemoryLoss, weights: Weights, period: int) -> Channel:
    """Questions in the steps 1, 1 + period, 1 + 2 period, ..; in between all answer the last one.

    In step s agent m answers with its gradient on the association of that step, at the memory that it last heard of:

        sum of w_nm grad f_ms(X_nq)   over the answers that arrive at t,   q = s - (s - 1) mod period

    So its staleness s - q is a delay like any other, and ``max_age`` counts from q; the mean age is not told. What an
    agent asks itself is about its present memory.

    Args:
        channel: of this objective and these weights, in which own questions are answered at once, such as
            ``arrival_bins``.
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or ``SparseWeights``.
        period: steps.

    Returns:
        A Channel with Asked as its box, for ``damjax.algorithms.descend``.

    Raises:
        ValueError: a period that is no positive integer; weights that are not row-stochastic.

    Example:
        >>> import damjax
        >>> objective, weights = damjax.objectives.delta_net(), jnp.array([[0.0, 1.0], [0.0, 1.0]])
        >>> channel = damjax.channels.connect(objective, weights, jnp.array([[0, 2], [2, 0]]))
        >>> rarely = periodic(channel, objective, weights, 5)
        >>> algorithm = damjax.algorithms.descend(rarely, learning_rate=0.1, domain=damjax.domains.frobenius_ball(9.0))
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=8)
        >>> damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream)[1].info.max_age[:, 0].tolist()
        [-1, -1, 2, 3, 4, 5, 6, 2]
    """
    check_count("period", period)
    objective, interests = as_objective(objective), stochastic_interests("weights", weights)
    own = its_own(asked_agents(interests))
    own_weight = jnp.sum(jnp.where(own, jnp.asarray(interests.weights), 0), axis=1)

    def last_asked(time: Int[Array, "*N"]) -> Int[Array, "*N"]:
        return time - (time - 1) % period

    def init(params: Any) -> Asked:
        return Asked(jax.tree.map(lambda leaf: jnp.zeros_like(jnp.asarray(leaf)), params), channel.init(params))

    def exchange(
        box: Any, time: Int[Array, ""], params: Any, associations: Associations
    ) -> tuple[Asked, Any, Arrivals]:
        check_box(box, Asked)
        asks = last_asked(time) == time
        asked = jax.tree.map(lambda now, before: jnp.where(asks, now, before), params, box.params)
        inner, gradient, arrivals = channel.exchange(box.box, time, asked, associations)
        # Nobody waits for a question of its own.
        alone = lambda memories: own_gradients(objective, memories, associations, time)  # noqa: E731
        correction = jax.tree.map(jnp.subtract, alone(params), alone(asked))

        def corrected(total: Array, change: Array) -> Array:
            weight = beside(own_weight.astype(total.dtype), total)
            return total + weight * jnp.where(weight == 0, 0, change)

        oldest = jnp.where(arrivals.max_age > 0, time - last_asked(time - arrivals.max_age), arrivals.max_age)
        return (
            Asked(asked, inner),
            jax.tree.map(corrected, gradient, correction),
            arrivals._replace(max_age=oldest, mean_age=None),
        )

    return Channel(channel.num_agents, init, exchange)
