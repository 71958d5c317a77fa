"""What the figures of recall share: the paper's algorithms at constant rates, and memories on the way."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import recall
from paper_figs.experiment import Parts, by_rate

ALONE = "alone"
_AT_CONSTANT_RATES = by_rate(lambda constant: constant)
NAMES = (*_AT_CONSTANT_RATES, ALONE)


def at_constant_rate(name: str, parts: Parts, rate: jax.Array) -> damjax.Algorithm:
    """One of the paper's algorithms at a constant rate, or full information for agents that hear nobody."""
    if name == ALONE:
        name, parts = "OGD", parts._replace(weights=np.eye(len(parts.mixing)))
    return _AT_CONSTANT_RATES[name](parts, rate)


def stretch_by_stretch(
    algorithm: damjax.Algorithm,
    params: Any,
    stream: damjax.Associations,
    num_stretches: int,
    measure: Callable[[Any], Any],
) -> Any:
    """What ``measure`` makes of the memories after every one of so many stretches of the stream, stacked.

    Args:
        algorithm: learns.
        params: first memories.
        stream: of a number of steps that the stretches divide.
        num_stretches: all of one length.
        measure: of the memories, ``measure(params) -> pytree``.
    """

    def advance(state: Any, stretch: damjax.Associations) -> tuple[Any, Any]:
        state, _ = damjax.resume(algorithm, state, stretch, observe=lambda *step: None)
        return state, measure(state.params)

    stretches = jax.tree.map(lambda field: field.reshape(num_stretches, -1, *field.shape[1:]), stream)
    return jax.lax.scan(advance, algorithm.init(params), stretches)[1]


def learn(algorithm: damjax.Algorithm, task: recall.Task, num_places: int, horizons: Sequence[int]) -> jax.Array:
    """The agents' linear memories after every horizon, (H, L, dv, dk); at other places nobody sees anything."""
    keys, values = task.associations.keys, task.associations.values
    num_agents = keys.shape[1]
    # A cue of zeros has no gradient.
    places = [(0, 0), (0, num_places - num_agents), (0, 0)]
    stream = damjax.Associations(jnp.pad(keys, places), jnp.pad(values, places))
    every = int(np.gcd.reduce(horizons))
    start = jnp.zeros((num_places, values.shape[2], keys.shape[2]), keys.dtype)
    memories = stretch_by_stretch(algorithm, start, stream, len(keys) // every, lambda params: params[:num_agents])
    return memories[np.array(horizons) // every - 1]
