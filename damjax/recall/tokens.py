"""Multi-query associative recall (MQAR): sequences of tokens in which every key is asked for its value."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from damjax._checks import check_array, check_count, check_key, check_positive, concrete
from damjax.recall.task import NOBODY
from damjax.types import ArrayLike
from damjax.weights.interests import stochastic_interests

__all__ = ["Sequences", "mqar"]


class Sequences(NamedTuple):
    """One sequence per agent.

    Attributes:
        tokens: in 0 .. V - 1, (L, N).
        targets: the token that is the right answer at this place, (L, N); -1 where nothing is asked.
        agents: whose pair is asked for, (L, N); -1 where nothing is asked.
        written: whether a pair begins at this place, (L, N): its key stands here, its value at the next one.
    """

    tokens: Int[Array, "L N"]
    targets: Int[Array, "L N"]
    agents: Int[Array, "L N"]
    written: Bool[Array, "L N"]


def mqar(
    key: Key[Array, ""],
    *,
    length: int,
    num_pairs: int,
    num_agents: int = 1,
    weights: Float[ArrayLike, "N N"] | None = None,
    vocabulary: int = 8192,
    power: float | ArrayLike = 0.01,
    num_rewritten: int = 0,
) -> Sequences:
    """Sequences of multi-query associative recall, one per agent.

    Keys are drawn from 1 .. V/2 - 1 and values from V/2 .. V - 1, without replacement, over all agents together. A
    sequence begins with its P pairs, key and value in turn. Then P of the even places are questions, whose distances
    from the pairs are drawn without replacement, that of i places with a probability in proportion to i^(power - 1).
    Question j of an agent is for the j-th pair of the agent itself, or of another one that it draws by its weights. All
    other places hold random tokens of the vocabulary.

    Args:
        key: typed PRNG key.
        length: L, even, at least 4 (P + num_rewritten).
        num_pairs: P, of every agent.
        num_agents: N.
        weights: whom an agent asks about, (N, N), row-stochastic; by default everyone asks about itself.
        vocabulary: V, even.
        power: a > 0; small ones put most questions soon after the pairs.
        num_rewritten: how many of the pairs are written a second time, with a new value, before anything is asked; the
            last value counts.

    Returns:
        Sequences. The share of questions answered right, by the largest of scores over the vocabulary, is the accuracy.

    Raises:
        ValueError: sizes that do not fit, weights that are not row-stochastic, a power that is not positive.

    Example:
        >>> drawn = mqar(jax.random.key(0), length=16, num_pairs=4, vocabulary=64)
        >>> keys, values = drawn.tokens[:8:2, 0], drawn.tokens[1:8:2, 0]
        >>> asked = drawn.targets[:, 0] >= 0
        >>> sorted(drawn.tokens[asked, 0].tolist()) == sorted(keys.tolist())
        True

    Source: Arora et al. 2024, "Zoology: measuring and improving recall in efficient language models", app. E.
    """
    check_key("key", key)
    writes = _check_sizes(length, num_pairs, num_agents, vocabulary, num_rewritten)
    check_array("power", power, "")
    if (value := concrete(power)) is not None:
        check_positive("power", value)
    interests = np.eye(num_agents) if weights is None else weights
    stochastic_interests("weights", interests, num_agents)

    key_key, value_key, again_key, gap_key, agent_key, token_key = jax.random.split(key, 6)

    def draw(key: Key[Array, ""], low: int, high: int, count: int) -> Int[Array, "count N"]:
        return jax.random.choice(key, jnp.arange(low, high, dtype=jnp.int32), (count, num_agents), replace=False)

    keys = draw(key_key, 1, vocabulary // 2, num_pairs)
    values = draw(value_key, vocabulary // 2, vocabulary, writes)
    again = _ranks(again_key, (num_pairs, num_agents))[:num_rewritten]  # which pairs, of every agent
    columns = jnp.arange(num_agents)[None]
    written_keys = jnp.concatenate([keys, keys[again, columns]])
    latest = values[:num_pairs].at[again, columns].set(values[num_pairs:])

    about = _draw_agents(agent_key, jnp.asarray(interests), num_pairs)
    pairs = jnp.arange(num_pairs)[:, None]
    places = 2 * writes + 2 * _gaps(gap_key, length // 2 - writes, num_pairs, num_agents, power)

    tokens = jax.random.randint(token_key, (length, num_agents), 0, vocabulary, jnp.int32)
    nothing = jnp.full((length, num_agents), NOBODY, tokens.dtype)
    tokens = tokens.at[: 2 * writes : 2].set(written_keys).at[1 : 2 * writes : 2].set(values)
    return Sequences(
        tokens=tokens.at[places, columns].set(keys[pairs, about]),
        targets=nothing.at[places, columns].set(latest[pairs, about]),
        agents=nothing.at[places, columns].set(about.astype(nothing.dtype)),
        written=jnp.zeros(tokens.shape, bool).at[: 2 * writes : 2].set(True),
    )


def _ranks(key: Key[Array, ""], shape: tuple[int, int]) -> Int[Array, "P N"]:
    """A random order of the rows, one per column."""
    return jnp.argsort(jax.random.uniform(key, shape), axis=0)


def _draw_agents(key: Key[Array, ""], weights: Float[Array, "N N"], num_pairs: int) -> Int[Array, "P N"]:
    """Whom every agent asks about, question by question."""
    chances = jnp.log(jnp.where(weights > 0, weights, 0))
    return jax.random.categorical(key, chances, axis=1, shape=(num_pairs, weights.shape[0]))


def _gaps(
    key: Key[Array, ""], space: int, num_pairs: int, num_agents: int, power: float | ArrayLike
) -> Int[Array, "P N"]:
    """Distances of the questions from the pairs, in pairs of places from 0 on, without replacement."""
    distances = jnp.arange(1, space + 1, dtype=jnp.result_type(float))
    log_chances = (jnp.asarray(power, distances.dtype) - 1) * jnp.log(distances)
    # The largest of log p + Gumbel noise are a draw without replacement, in the order in which they are drawn.
    noise = jax.random.gumbel(key, (num_agents, space), distances.dtype)
    return jax.lax.top_k(log_chances[None] + noise, num_pairs)[1].T


def _check_sizes(length: int, num_pairs: int, num_agents: int, vocabulary: int, num_rewritten: int) -> int:
    """How many pairs are written; raises for sizes that do not fit."""
    sizes = {"length": length, "num_pairs": num_pairs, "num_agents": num_agents, "vocabulary": vocabulary}
    for name, size in sizes.items():
        check_count(name, size)
    check_count("num_rewritten", num_rewritten, allow_zero=True)
    if num_rewritten > num_pairs:
        raise ValueError(f"num_rewritten must be at most num_pairs, {num_pairs}, but it is {num_rewritten}")
    writes = num_pairs + num_rewritten
    if length % 2 or length < 4 * writes:
        raise ValueError(
            f"length must be even and at least {4 * writes}, four times the pairs that are written, but it is {length}"
        )
    if vocabulary % 2 or num_agents * num_pairs > vocabulary // 2 - 1 or num_agents * writes > vocabulary // 2:
        raise ValueError(
            f"vocabulary must be even and hold a key and a value of its own for each of {num_agents} x {writes} pairs,"
            f" at least {2 * max(num_agents * num_pairs + 1, num_agents * writes)}, but it is {vocabulary}"
        )
    return writes
