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
    """Every run from a process that has it. Each sends its own share only, so that nobody holds several copies of all.

    Args:
        results: name -> (runs, ...); the same shapes on every process.
        known: which runs this process has, (runs,).
    """
    if jax.process_count() == 1:
        return dict(results)
    holders = gather(known)
    if not holders.any(axis=0).all():
        raise RuntimeError("some runs were computed by no host; do all hosts run the same program on the same devices?")
    shares = [np.flatnonzero(owner) for owner in owners(holders)]
    longest = max(map(len, shares))
    mine = np.pad(shares[jax.process_index()], (0, longest - len(shares[jax.process_index()])))

    def joined(array: np.ndarray) -> np.ndarray:
        # As bytes, since jax would round float64 where double precision is off.
        sent = gather(np.ascontiguousarray(array[mine]).reshape(longest, -1).view(np.uint8))
        whole = np.empty((len(array), sent.shape[-1]), np.uint8)
        for share, rows in zip(shares, sent, strict=True):
            whole[share] = rows[: len(share)]
        return whole.view(array.dtype).reshape(array.shape)

    return {name: joined(array) for name, array in results.items()}


def owners(holders: np.ndarray) -> np.ndarray:
    """Of all processes that have a run, one, by turns: which runs each sends, (processes, runs).

    Example:
        >>> owners(np.array([[True, True, True], [True, True, False]])).astype(int).tolist()
        [[1, 0, 1], [0, 1, 0]]
    """
    num_processes, num_runs = holders.shape
    order = (np.arange(num_processes)[:, None] - np.arange(num_runs)) % num_processes
    first = np.where(holders, order, num_processes).argmin(axis=0)
    return np.arange(num_processes)[:, None] == first
