"""Several hosts, each a process of ``jax.distributed``: who computes what, and how all come to know all of it."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_mine(batch: int) -> bool:
    """Whether this process computes the batch of this number.

    It depends on nothing else: processes that see different states of a store leave no batch out.
    """
    return batch % jax.process_count() == jax.process_index()


def gather(array: np.ndarray) -> np.ndarray:
    """The same array of every process, with a leading axis of processes."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))


def agree(problem: Exception | None, **numbers: int) -> dict[str, np.ndarray]:
    """Numbers of every process, name -> (processes,); raises on all of them if there is a problem on one.

    Args:
        problem: of this process.
        numbers: of this process.
    """
    everything = gather(np.array([problem is not None, *numbers.values()], np.int32))
    if problem is not None:
        raise problem
    if everything[:, 0].any():
        failed = np.flatnonzero(everything[:, 0]).tolist()
        raise RuntimeError(f"the sweep failed on hosts {failed}; their own messages say why")
    return dict(zip(numbers, everything[:, 1:].T, strict=True))


def exchange(results: Mapping[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
    """Every batch from a process that has it.

    Args:
        results: name -> (batches, ...); the same shapes on every process.
        known: which batches this process has, (batches,).
    """
    if jax.process_count() == 1:
        return dict(results)
    holders = gather(known)
    if not holders.any(axis=0).all():
        raise RuntimeError("some runs were computed by no host; do all hosts run the same program on the same devices?")
    owner = holders.argmax(axis=0)
    places = np.arange(len(known))

    def joined(array: np.ndarray) -> np.ndarray:
        # As bytes, since jax would round float64 where double precision is off.
        flat = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
        everything = gather(flat)
        return everything[owner, places].copy().view(array.dtype).reshape(array.shape)

    return {name: joined(array) for name, array in results.items()}
