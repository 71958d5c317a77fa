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


def wait(name: str) -> None:
    """Until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def exchange(results: Mapping[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
    """Every batch from a process that has it.

    Args:
        results: name -> (batches, ...); the same shapes on every process.
        known: which batches this process has, (batches,).
    """
    if jax.process_count() == 1:
        return dict(results)
    owner = np.asarray(multihost_utils.process_allgather(known)).argmax(axis=0)
    places = np.arange(len(known))

    def joined(array: np.ndarray) -> np.ndarray:
        # As bytes, since jax would round float64 where double precision is off.
        flat = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
        everything = np.asarray(multihost_utils.process_allgather(flat))
        return everything[owner, places].copy().view(array.dtype).reshape(array.shape)

    return {name: joined(array) for name, array in results.items()}
