"""A recall task from arrays: items, each a cue and a response, that agents hold, and everyone is asked for all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from damjax._checks import check_array, check_count, concrete, float_dtype
from damjax.recall.task import Questions, Task
from damjax.types import ArrayLike, Associations

__all__ = ["from_arrays", "passes"]


def from_arrays(
    key: Key[Array, ""],
    keys: Float[ArrayLike, "Q dk"],
    values: Float[ArrayLike, "Q dv"],
    holders: Int[ArrayLike, "Q"] | Sequence[int],
    *,
    num_agents: int,
    num_steps: int,
    dtype: jax.typing.DTypeLike | None = None,
) -> Task:
    """A task from the user's own arrays: everyone learns from the items it holds, and is asked for all.

    At every step an agent sees one of its items, in an order that the key draws: each pass over them is a permutation
    of its own. Afterwards every agent is asked for every item once, its own and others', by the very key it is held
    under; all values are candidates.

    Args:
        key: typed PRNG key, of the order alone.
        keys: cues, (Q, dk).
        values: responses, (Q, dv), no two alike, or neither can be told from the other.
        holders: the agent that holds each item, (Q,), known before tracing; everyone holds at least one.
        num_agents: N.
        num_steps: T.
        dtype: of the task; jax's default float otherwise.

    Returns:
        A Task with associations (T, N, ..), questions (Q, N, ..) in the order of the items, and candidates (Q, dv).

    Raises:
        ValueError: arrays that do not fit one another or are not finite in this dtype, a holder that is no agent, an
            agent that holds nothing, holders that are traced.

    Example:
        >>> task = from_arrays(jax.random.key(0), np.eye(4), np.eye(4), [0, 1, 1, 1], num_agents=2, num_steps=3)
        >>> task.associations.keys.shape, task.questions.keys.shape, task.questions.agents[:, 0].tolist()
        ((3, 2, 4), (4, 2, 4), [0, 1, 1, 1])
    """
    check_count("num_agents", num_agents)
    check_count("num_steps", num_steps)
    dtype = float_dtype(dtype)
    keys, values = _finite("keys", keys, "Q dk", dtype), _finite("values", values, "Q dv", dtype)
    agents = _checked_holders(holders, num_agents, len(keys))
    if len(values) != len(keys):
        raise ValueError(f"values must have a row per key, {len(keys)}, but there are {len(values)}")
    counts = np.bincount(agents, minlength=num_agents)
    if np.any(counts == 0):
        raise ValueError(
            f"holders must give every agent an item, since each sees one at every step, but agent {np.argmin(counts)}"
            f" of {num_agents} holds none"
        )
    by_agent = jnp.asarray(np.argsort(agents, kind="stable"))
    drawn = by_agent[jnp.asarray(np.cumsum(counts) - counts)[None] + passes(key, counts, num_steps)]
    asked = (len(keys), num_agents)
    return Task(
        associations=Associations(keys[drawn], values[drawn]),
        questions=Questions(
            keys=jnp.broadcast_to(keys[:, None], (*asked, keys.shape[1])),
            answers=jnp.broadcast_to(jnp.arange(len(keys), dtype=jnp.int32)[:, None], asked),
            agents=jnp.broadcast_to(jnp.asarray(agents, jnp.int32)[:, None], asked),
        ),
        candidates=values,
    )


def passes(key: Key[Array, ""], counts: Int[np.ndarray, "N"], num_steps: int) -> Int[Array, "T N"]:
    """Which of its items every agent sees at every step: pass by pass, each pass a permutation.

    Args:
        key: typed PRNG key.
        counts: how many items each agent has, (N,), positive.
        num_steps: T.

    Returns:
        (T, N), the entries of agent n in 0 .. counts[n] - 1.

    Example:
        >>> sorted(passes(jax.random.key(0), np.array([3, 5]), 3)[:, 0].tolist())
        [0, 1, 2]
    """
    num_passes = -(-num_steps // counts)
    # One sort of the N T places of all passes of all agents: time and memory do not depend on who holds how many.
    lengths = np.repeat(counts, num_passes)
    passes_of_places = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(len(passes_of_places)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    # Of the same precision whatever jax's default, so that the order is the same.
    luck = jax.random.uniform(key, positions.shape, jnp.float32)
    shuffled = jnp.asarray(positions)[jnp.lexsort((luck, jnp.asarray(passes_of_places)))]
    firsts = np.cumsum(num_passes * counts) - num_passes * counts
    return shuffled[firsts[None] + np.arange(num_steps)[:, None]]


def _finite(name: str, array: Float[ArrayLike, "..."], axes: str, dtype: np.dtype) -> Float[Array, "Q d"]:
    """The array in this dtype, checked."""
    check_array(name, array, axes)
    with np.errstate(over="ignore"):  # checked below
        rounded = jnp.asarray(array, dtype)
    if not isinstance(rounded, Tracer) and not np.all(np.isfinite(rounded)):
        row = int(np.argwhere(~np.isfinite(rounded))[0, 0])
        raise ValueError(f"{name} must be finite in {rounded.dtype}, but row {row} is not; leave it out, or rescale")
    return rounded


def _checked_holders(holders: Int[ArrayLike, "Q"] | Sequence[int], num_agents: int, num_items: int) -> np.ndarray:
    agents = concrete(holders)
    if agents is None:
        raise ValueError(
            "holders must be known before tracing, since they fix how often each agent sees an item, but they are"
            " traced; pass a NumPy array that jit and vmap do not map"
        )
    if agents.shape != (num_items,) or not np.issubdtype(agents.dtype, np.integer):
        raise ValueError(
            f"holders must be one agent per key, integers of shape ({num_items},), but they are {agents.dtype} of shape"
            f" {agents.shape}"
        )
    if agents.size and not 0 <= agents.min() <= agents.max() < num_agents:
        raise ValueError(
            f"holders must lie in 0 .. {num_agents - 1}, but they range from {agents.min()} to {agents.max()}"
        )
    return agents
