"""The records and aliases that every module shares."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import jax
import networkx as nx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from damjax._checks import check_gates, concrete

__all__ = [
    "Algorithm",
    "ArrayLike",
    "Associations",
    "Graph",
    "Horizons",
    "Info",
    "LearningRate",
    "Memories",
    "Observer",
    "Schedule",
    "Signal",
    "Stream",
]

T = TypeVar("T")

ArrayLike = jax.Array | np.ndarray
# A value, or a pure function of the 1-based time, called inside the scan with a traced integer.
Signal = T | Callable[[Int[Array, ""]], T]
Schedule = Callable[[Any], Any]
LearningRate = float | ArrayLike | Schedule
Horizons = Int[ArrayLike, "H"] | Sequence[int]
# At run time what the second branch says; type checkers know less of trees, and want the type of a graph's nodes.
if TYPE_CHECKING:
    Graph: TypeAlias = nx.Graph[Any]
    Memories: TypeAlias = Any
else:
    Graph = nx.Graph
    # An array (N, dv, df), or a tree of arrays that all start with the axis of the N agents.
    Memories = PyTree[Float[ArrayLike, "N ..."]]


class Associations(NamedTuple):
    """What the agents see at one step: each one a cue and its response.

    A whole stream is the same record with a leading time axis T on every field.

    Attributes:
        keys: cues, shape (N, dk).
        values: responses, shape (N, dv).
        gates: forget gates in (0, 1] that broadcast against one memory (dv, df): shape (N,), (N, dv, 1)
            or (N, 1, df). None for objectives without a gate.
        sample_weights: s >= 0, finite, what single associations count, (N,): the loss of agent m's is s_m f_m wherever
            a loss, a gradient, a best memory or a bound is asked for. One of weight 0 is missing: it costs and teaches
            nothing whatever its key, value and gate are, NaN included, and has no derivatives. A traced weight that is
            negative is NaN. None where all count alike.

    Example:
        >>> import jax.numpy as jnp
        >>> stream = Associations(keys=jnp.ones((100, 3, 2)), values=jnp.ones((100, 3, 4)))
        >>> stream.keys.shape, stream.gates is None
        ((100, 3, 2), True)
        >>> heard = jnp.ones((100, 3)).at[50:, 0].set(0.0)  # from step 51 on agent 0 sees nothing
        >>> stream._replace(sample_weights=heard).sample_weights.shape
        (100, 3)
    """

    keys: Float[ArrayLike, "*T N dk"]
    values: Float[ArrayLike, "*T N dv"]
    gates: Float[ArrayLike, "..."] | None = None
    sample_weights: Float[ArrayLike, "*T N"] | None = None


class Info(NamedTuple):
    """What a person wants to see of one step; the next step does not need it.

    Attributes:
        time: the step t that was just made, 1-based, shape ().
        grad_norm: Frobenius norm of each agent's aggregated gradient, shape (N,).
        num_applied: how many gradients each agent applied, shape (N,).
        projected: whether the projection moved the agent's memory, shape (N,).
        finite: whether the agent's memory is free of NaN and infinity after the step, shape (N,).
        max_age: steps since the oldest gradient that the agent applied was asked for, 0 for one on the current
            association, -1 where it applied none, shape (N,); None of an algorithm that does not say.
        num_lost: how many of the questions that the agent asked in this step will never be answered, and of an absent
            agent how many answers find nobody, shape (N,); likewise.
        mean_age: as ``max_age``, the mean over the gradients that the agent applied, shape (N,).
        reweighting_variance: what making up for losses adds to the expected squared norm of the weighted gradient that
            the agent asks for in this step, sum_m w_nm^2 (1/q_nm - 1) ||grad f_m||^2 with q the probability that an
            answer arrives, shape (N,); None where nothing is made up for. See ``damjax.channels.arrival_bins``.
    """

    time: Int[Array, ""]
    grad_norm: Float[Array, "N"]
    num_applied: Int[Array, "N"]
    projected: Bool[Array, "N"]
    finite: Bool[Array, "N"]
    max_age: Int[Array, "N"] | None = None
    num_lost: Int[Array, "N"] | None = None
    mean_age: Float[Array, "N"] | None = None
    reweighting_variance: Float[Array, "N"] | None = None


class Algorithm(NamedTuple):
    """An online algorithm as data: two pure functions.

    Attributes:
        init: ``init(params) -> state``, of memories X_1, (N, dv, df) or a pytree whose leaves have a leading N.
        step: ``step(state, associations) -> (state, info)``, a literal scan body. ``state.params`` is X_t
            before the step and X_{t+1} after it; ``state.step`` counts the steps made.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]


Stream = Signal[Associations]


Observer = Callable[[Any, Associations, Info], Any]


def check_ranges(prefix: str, associations: Associations) -> None:
    """Raise for sample weights or gates of a stream that are out of range, where they are concrete.

    Args:
        prefix: of the names of the fields in a message.
        associations: the stream; a NaN among gates is for others to see, and those of missing associations are free.

    Example:
        >>> check_ranges("stream.", Associations(np.ones((1, 1, 1)), np.ones((1, 1, 1)), None, np.array([[-1.0]])))
        Traceback (most recent call last):
        ValueError: stream.sample_weights must be finite and non-negative, but sample_weights[0, 0] is -1.0; ...
    """
    weights = None if associations.sample_weights is None else concrete(associations.sample_weights)
    if weights is not None and np.any(wrong := ~((weights >= 0) & (weights < np.inf))):
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(
            f"{prefix}sample_weights must be finite and non-negative, but sample_weights[{', '.join(map(str, place))}]"
            f" is {weights[place]}; give what is missing the weight 0"
        )
    missing, gates = missing_ones(associations), None if associations.gates is None else concrete(associations.gates)
    if gates is not None and missing is not None:
        if gates.shape[:2] == missing.shape:  # other shapes are for the first step to see
            gates = np.array(gates)
            gates[missing] = 1
        check_gates(f"{prefix}gates", gates)


def missing_ones(associations: Associations) -> np.ndarray | None:
    """Which associations of a stream are missing, (T, N); None where the sample weights are traced."""
    if associations.sample_weights is None:
        return np.zeros(np.shape(associations.keys)[:2], bool)
    weights = concrete(associations.sample_weights)
    return None if weights is None else weights == 0
