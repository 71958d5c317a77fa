"""Interest weights of a network that changes: one table per epoch, in which nobody wants or is an absent agent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from damjax._arrays import running_sums
from damjax._checks import check_row_stochastic, concrete
from damjax.types import ArrayLike
from damjax.weights.edges import SparseWeights
from damjax.weights.interests import DenseInterests, EdgeInterests, Interests, Weights, stochastic_interests

__all__ = [
    "EpochInterests",
    "EpochWeights",
    "SumsOverEpochs",
    "changing_interests",
    "check_epochs",
    "epoch_at",
    "over_epochs",
    "sums_over_epochs",
]


class EpochWeights(NamedTuple):
    """Interest weights that change at borders, and who is present; ``over_epochs`` makes them.

    They go wherever weights go in ``damjax.ogd``, ``dam_togd`` and ``damjax.regret``: a question counts with the
    weights of the step in which it is asked, and an absent agent learns nothing and costs nothing.

    Attributes:
        first_steps: 1-based first step of each of the E epochs, increasing from 1, (E,).
        present: who takes part, (E, N).
        weights: w_nm of each epoch, (E, N, N), or (E, N, K) beside ``agents``; every row sums to one, or is zero for
            an agent that is absent or wants nobody who is present.
        agents: whom each entry is about, (E, N, K); None for matrices.
    """

    first_steps: Int[ArrayLike, "E"]
    present: Bool[ArrayLike, "E N"]
    weights: Float[ArrayLike, "E N K"]
    agents: Int[ArrayLike, "E N K"] | None = None


def over_epochs(
    weights: Weights | Sequence[Weights],
    first_steps: Int[ArrayLike, "E"] | Sequence[int],
    present: Bool[ArrayLike, "E N"],
) -> EpochWeights:
    """In every epoch the weights of absent agents go to those present, in proportion to theirs.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights, traced or not; or a list of one of them per epoch,
            concrete.
        first_steps: 1-based, increasing from 1, (E,), concrete.
        present: who takes part, (E, N), concrete.

    Returns:
        EpochWeights. The row of an agent all of whose interests are absent is zero, as that of an absent agent is.

    Raises:
        ValueError: weights that are not row-stochastic, first steps that do not increase from 1, shapes that do not
            meet.

    Example:
        >>> present = np.array([[True, True, True], [True, True, False]])
        >>> over_epochs(np.full((3, 3), 1 / 3), [1, 10], present).weights[1].tolist()
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    steps, here = check_epochs(first_steps, present)
    num_epochs, num_agents = here.shape
    agents, table = _tables(weights, num_epochs, num_agents)
    xp = jnp if isinstance(table, jax.Array) else np
    if agents is None:
        others = here[:, None, :]
    else:
        agents = xp.broadcast_to(agents, (num_epochs, *agents.shape[-2:])).astype(np.int32)
        others = xp.asarray(here)[xp.arange(num_epochs)[:, None, None], agents]
    wanted = xp.where(here[:, :, None] & others, table, 0)
    sums = wanted.sum(axis=2, keepdims=True)
    return EpochWeights(steps, here, xp.where(sums > 0, wanted / xp.where(sums > 0, sums, 1), 0), agents)


def check_epochs(first_steps: Any, present: Any) -> tuple[np.ndarray, np.ndarray]:
    """The epochs as arrays, or a ValueError for what are none."""
    steps, here = concrete(first_steps), concrete(present)
    if steps is None or here is None:
        raise ValueError("first_steps and present must be concrete, since epochs are static, but are traced")
    if steps.ndim != 1 or not steps.size or not np.issubdtype(steps.dtype, np.integer):
        raise ValueError(f"first_steps must be step counts, one per epoch, but they are {steps.tolist()}")
    if steps[0] != 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"first_steps must increase from 1, the first step of a run, but they are {steps.tolist()}")
    if here.ndim != 2 or here.dtype != bool or len(here) != len(steps):
        raise ValueError(
            f"present must be booleans of shape (E, N) = ({len(steps)}, N), one row per epoch, but it is an array of"
            f" {here.dtype} of shape {here.shape}"
        )
    return steps.astype(np.int32), here


def epoch_at(first_steps: Int[ArrayLike, "E"], time: Int[ArrayLike, ""]) -> Int[Array, ""]:
    """The epoch of a step, counted from 0."""
    # By comparisons: a bisection is a loop, and what it looks up in a scan XLA for GPUs cannot compile (xla 49299).
    steps, now = jnp.asarray(first_steps, jnp.int32), jnp.asarray(time, jnp.int32)
    return jnp.searchsorted(steps, now, side="right", method="compare_all") - 1


class EpochInterests(NamedTuple):
    """Interests of a network that changes, whose ``at`` are those of a step.

    Attributes:
        epochs: the weights.
    """

    epochs: EpochWeights

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        _, num_agents, num_columns = np.shape(self.epochs.weights)
        return num_agents, num_columns

    def of_epoch(self, epoch: Int[ArrayLike, ""] | int) -> Interests:
        """Those of one epoch, counted from 0."""
        weights = jnp.asarray(self.epochs.weights)[epoch]
        if self.epochs.agents is None:
            return DenseInterests(weights)
        return EdgeInterests(jnp.asarray(self.epochs.agents)[epoch], weights)

    def at(self, time: Int[ArrayLike, ""]) -> Interests:
        """Those of a step, 1-based."""
        return self.of_epoch(self._epoch(time))

    def present_at(self, time: Int[ArrayLike, ""]) -> Bool[Array, "N"]:
        """Who takes part in a step."""
        return jnp.asarray(self.epochs.present)[self._epoch(time)]

    def _epoch(self, time: Int[ArrayLike, ""]) -> Int[Array, ""]:
        return epoch_at(self.epochs.first_steps, time)


class SumsOverEpochs(NamedTuple):
    """Weighted sums over time: of running sums at some steps, those of each agent at the horizons.

    Attributes:
        interests: that change.
        horizons: increasing step counts, (H,).
        steps: the horizons and the last steps of epochs before the last of them: between two of them no weight changes.
    """

    interests: EpochInterests
    horizons: list[int]
    steps: list[int]

    def astype(self, dtype: jax.typing.DTypeLike) -> "SumsOverEpochs":
        """The weights in the precision of a run."""
        epochs = self.interests.epochs
        return self._replace(interests=EpochInterests(epochs._replace(weights=jnp.asarray(epochs.weights, dtype))))

    def at(self, time: Int[ArrayLike, ""]) -> Interests:
        """The interests of a step, 1-based."""
        return self.interests.at(time)

    def over(self, times: Int[Array, "T"]) -> Float[Array, "N T K"]:
        """The weights of several steps."""
        return jax.vmap(lambda time: jnp.asarray(self.at(time).weights), out_axes=1)(times)

    def weighted_sums(self, values: Float[Array, "S #N *item"]) -> Float[Array, "H N *item"]:
        """sum_t sum_m w_nmt x_mt up to every horizon, for sums of x up to every one of the steps."""
        pieces = values - jnp.concatenate([jnp.zeros_like(values[:1]), values[:-1]])
        weighted = jax.vmap(lambda time, piece: self.at(time).weighted_sum(piece))(jnp.array(self.steps), pieces)
        return running_sums(weighted)[np.searchsorted(self.steps, self.horizons)]


def sums_over_epochs(interests: EpochInterests, horizons: list[int]) -> SumsOverEpochs:
    """How everyone's running sums become those of each agent, up to every horizon."""
    ends = np.asarray(interests.epochs.first_steps)[1:] - 1
    return SumsOverEpochs(interests, horizons, sorted({*horizons, *ends[ends < horizons[-1]].tolist()}))


def changing_interests(
    name: str, weights: Weights | EpochWeights, num_agents: int | None = None
) -> Interests | EpochInterests:
    """As ``stochastic_interests``, of weights that may change; their rows may also be zero."""
    if not isinstance(weights, EpochWeights):
        if isinstance(getattr(weights, "weights", None), EpochWeights):
            raise ValueError(f"{name} must be weights, but it is a {type(weights).__name__}; pass its .weights")
        return stochastic_interests(name, weights, num_agents)
    check_epochs(weights.first_steps, weights.present)
    (num_epochs, rows), shape = np.shape(weights.present), np.shape(weights.weights)
    agents_shape = () if weights.agents is None else np.shape(weights.agents)
    columns = agents_shape[-1] if agents_shape else rows
    if shape != (num_epochs, rows, columns) or agents_shape not in ((), shape):
        raise ValueError(
            f"{name}.weights must have shape {(num_epochs, rows, columns)} and {name}.agents, if any, the same, but"
            f" theirs are {shape} and {agents_shape or None}; damjax.weights.over_epochs makes such weights"
        )
    if num_agents not in (None, rows):
        raise ValueError(f"{name} must have {num_agents} rows in every epoch, one per agent, but it has {rows}")
    tables, agents = concrete(weights.weights), None if weights.agents is None else concrete(weights.agents)
    for epoch, table in enumerate([] if tables is None else tables):
        # An empty row is that of an agent that wants nobody.
        filled = np.array(table)
        filled[~np.any(table, axis=1), 0] = 1
        check_row_stochastic(f"{name}.weights[{epoch}]", filled, None if agents is None else agents[epoch])
    return EpochInterests(weights)


def _tables(weights: Any, num_epochs: int, num_agents: int) -> tuple[Any, Any]:
    """Whom each entry is about, None of matrices, and the weights themselves; a leading axis where epochs differ."""
    if not _is_one_per_epoch(weights):
        stochastic_interests("weights", weights, num_agents)
        return (weights.agents, weights.weights) if isinstance(weights, SparseWeights) else (None, weights)
    if len(weights) != num_epochs:
        raise ValueError(f"weights must be one, or one per epoch, {num_epochs}, but there are {len(weights)}")
    for one in weights:
        stochastic_interests("weights", one, num_agents)
    if not isinstance(weights[0], SparseWeights):
        return None, np.stack(weights)
    return np.stack([one.agents for one in weights]), np.stack([one.weights for one in weights])


def _is_one_per_epoch(weights: Any) -> bool:
    if isinstance(weights, SparseWeights) or not isinstance(weights, list | tuple):
        return False
    return all(isinstance(one, SparseWeights) or np.ndim(one) == 2 for one in weights)
