"""The delay queues: ring buffers that hold what travels the network, as pure functions on an array.

A queue of length D = max_delay + 1 keeps the last D items, item t at slot t mod D. It starts filled with zeros, and
that is all the bookkeeping there is: a delay tau at a step t <= tau reads a slot not yet written, so the zero found
there plays the part of the indicator 1{t > tau} in the update of DAM-TOGD. Delays are from 0 to D - 1: nobody checks
here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax._arrays import stored

__all__ = ["init", "pop_pairs", "pop_senders", "push"]

MAX_FUSED_DELAYS = 4096


def init(length: int, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Float[Array, "D *item"]:
    """An empty queue for items of this shape.

    Args:
        length: D, one more than the longest delay that will be read.
        shape: of one item; its leading axes are the agents.
        dtype: of the items.

    Example:
        >>> init(3, (2,), jnp.float32).shape
        (3, 2)
    """
    return jnp.zeros((length, *shape), dtype)


def push(queue: Float[Array, "D *item"], time: Int[Array, ""], item: Float[Array, "*item"]) -> Float[Array, "D *item"]:
    """Store the item of step ``time``, over the one of D steps before.

    Example:
        >>> push(init(2, (1,), jnp.float32), jnp.array(3), jnp.array([7.0])).tolist()
        [[0.0], [7.0]]
    """
    return jax.lax.dynamic_update_index_in_dim(queue, item, time % queue.shape[0], axis=0)


def pop_pairs(
    queue: Float[Array, "D N K *item"], time: Int[Array, ""], delays: Int[Array, "N K"]
) -> Float[Array, "N K *item"]:
    """What arrives at ``time`` of items kept per pair: entry [n, k] of step ``time - delays[n, k]``.

    Example:
        >>> queue = push(init(3, (1, 1), jnp.float32), jnp.array(1), jnp.array([[5.0]]))
        >>> [float(pop_pairs(queue, jnp.array(t), jnp.array([[2]]))[0, 0]) for t in (1, 2, 3)]
        [0.0, 0.0, 5.0]
    """
    receivers, places = jnp.arange(delays.shape[0])[:, None], jnp.arange(delays.shape[1])[None, :]
    return _read(queue, _slots(queue, time, delays), receivers, places)


def pop_senders(
    queue: Float[Array, "D N *item"],
    time: Int[Array, ""],
    delays: Int[Array, "N K"],
    senders: Int[Array, "#N K"] | None = None,
) -> Float[Array, "N K *item"]:
    """What arrives of items kept per sender: entry [n, k] is item m = senders[n, k] of step ``time - delays[n, k]``.

    Without ``senders``, column m is about agent m.

    Example:
        >>> queue = push(init(3, (2,), jnp.float32), jnp.array(1), jnp.array([5.0, 6.0]))
        >>> pop_senders(queue, jnp.array(1), jnp.array([[0, 0], [2, 0]])).tolist()
        [[5.0, 6.0], [0.0, 6.0]]
    """
    senders = jnp.arange(delays.shape[1])[None, :] if senders is None else senders
    return _read(queue, _slots(queue, time, delays), senders)


def _slots(queue: Array, time: Int[Array, ""], delays: Int[Array, "N K"]) -> Int[Array, "N K"]:
    """Where the items of step ``time - delays`` lie: one division for the clock, and none for each delay below D."""
    length = queue.shape[0]

    def back(now: Array, delays: Array) -> Array:
        return jnp.where(now < delays, now + length - delays, now - delays)

    now = time % length
    # Fused into a read, a table would be computed again for each number of an item: many numbers in a large network.
    return back(now, delays) if delays.size <= MAX_FUSED_DELAYS else stored(back, now, delays, time=time)


def _read(queue: Array, *index: Array) -> Array:
    # One index per row of the flattened queue: XLA on CPU would put several together anew for every number it reads.
    rows = index[0]
    for axis, position in enumerate(index[1:], 1):
        rows = rows * queue.shape[axis] + position.astype(rows.dtype)
    flat = queue.reshape(-1, *queue.shape[len(index) :])
    # Delays from 0 to D - 1 lead to slots of the queue; saying so spares XLA a select over the whole result.
    return flat.at[rows].get(mode="promise_in_bounds")
