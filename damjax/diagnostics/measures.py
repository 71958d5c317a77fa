"""A finished run in numbers: what the signs are read from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax.diagnostics.lateness import Lateness, measure_lateness
from damjax.domains import Domain
from damjax.hindsight import best_in_hindsight
from damjax.objectives import Objective
from damjax.regret import personalized_losses
from damjax.simulation import Trace
from damjax.types import ArrayLike, Info, Stream
from damjax.weights.interests import Weights, as_interests

__all__ = ["HUGE", "SMALL", "Best", "Run", "measure", "norms"]

HUGE, SMALL = 1e200, 1e-100  # their ratio, and sums of it, do not overflow


class Best(NamedTuple):
    """The best memories in hindsight, and the run measured by them.

    Attributes:
        params: (N, dv, df).
        norms: their Frobenius norms, (N,).
        excess: regret per step of the last half, in units of what could be learned, (N,).
        regret: against the last best memories, step by step, in these units, (T, N).
        self_taught: whether a memory recalls hardly more than its agent's own associations, (N,).
    """

    params: np.ndarray
    norms: np.ndarray
    excess: np.ndarray
    regret: np.ndarray
    self_taught: np.ndarray


class Run(NamedTuple):
    """A run whose memories are all finite.

    Attributes:
        objective: the memory loss f.
        domain: the feasible set.
        params: (T, N, dv, df).
        norms: Frobenius norms of the memories, (T, N).
        gradients: norms of the sums of gradients, relative to each agent's largest, (T, N).
        projected: in which share of the last half's steps the projection moved the memory, (N,).
        num_interests: (N,).
        one_each: whether every agent applied one gradient in every step.
        lateness: how late the gradients came; None where Info does not say.
        best: None where no best memory exists.
    """

    objective: Objective
    domain: Domain
    params: np.ndarray
    norms: np.ndarray
    gradients: np.ndarray
    projected: np.ndarray
    num_interests: np.ndarray
    one_each: bool
    lateness: Lateness | None
    best: Best | None


def measure(objective: Objective, weights: Weights, domain: Domain, associations: Stream, trace: Trace) -> Run:
    """The numbers of a run; arguments as of ``diagnose``, checked, all memories finite."""
    params, half = np.asarray(trace.params, float), trace.params.shape[0] // 2
    gradients = np.asarray(trace.info.grad_norm, float)
    num_interests = np.sum(np.asarray(as_interests("weights", weights).weights) > 0, axis=1)
    exists = objective.bounded_below or domain.is_bounded(jnp.asarray(params[0, 0]))
    return Run(
        objective,
        domain,
        params,
        norms=norms(params),
        gradients=gradients / np.maximum(gradients.max(axis=0), SMALL),
        projected=np.asarray(trace.info.projected)[half:].mean(axis=0),
        num_interests=num_interests,
        one_each=_one_each(trace),
        lateness=_lateness(trace.info, num_interests),
        best=_best(objective, weights, domain, associations, trace) if exists else None,
    )


def _one_each(trace: Trace) -> bool:
    return bool(np.all(np.asarray(trace.info.num_applied) == 1))


def _lateness(info: Info, num_interests: np.ndarray) -> Lateness | None:
    if info.max_age is None or info.num_lost is None:
        return None
    applied, ages, lost = map(np.asarray, (info.num_applied, info.max_age, info.num_lost))
    return measure_lateness(applied, ages, lost, num_interests)


def _best(objective: Objective, weights: Weights, domain: Domain, associations: Stream, trace: Trace) -> Best:
    num_steps = trace.params.shape[0]
    stream = jax.vmap(associations)(jnp.arange(1, num_steps + 1)) if callable(associations) else associations
    half = num_steps // 2
    comparator = best_in_hindsight(objective, weights, domain, stream, [half, num_steps])
    params, least = np.asarray(comparator.params[-1], float), np.asarray(comparator.loss, float)

    def losses(memories: ArrayLike, weights: Weights = weights) -> np.ndarray:
        memories = jnp.broadcast_to(memories, trace.params.shape)
        values = np.asarray(personalized_losses(objective, weights, memories, stream), float)
        # A memory may be finite and its loss no more.
        return np.clip(np.nan_to_num(values, nan=HUGE), -HUGE, HUGE)

    empty = domain.project(jnp.zeros_like(trace.params[0, 0]))
    learnable = np.maximum(losses(empty).mean(axis=0) - least[-1] / num_steps, SMALL)
    incurred = losses(trace.params)
    excess = (incurred[half:].sum(axis=0) - (least[1] - least[0])) / learnable / (num_steps - half)
    regret = np.clip((incurred - losses(comparator.params[-1])) / learnable, -(HUGE**0.5), HUGE**0.5)

    def self_taught() -> np.ndarray:
        alone = jnp.eye(len(params), dtype=trace.params.dtype)
        own = best_in_hindsight(objective, alone, domain, stream, [num_steps]).params[-1]
        late = [losses(memories, alone)[half:].mean(axis=0) for memories in (trace.params, comparator.params[-1], own)]
        return late[0] < (late[1] + late[2]) / 2

    # Who applies the gradients of others too is taught by them, and the numbers of these say whether all came.
    return Best(
        params, norms(params), excess, regret, self_taught() if _one_each(trace) else np.ones(len(params), bool)
    )


def norms(memories: np.ndarray) -> np.ndarray:
    """Frobenius norms over the last two axes, without the overflow of squares.

    Example:
        >>> norms(np.array([[[3e300, 4e300]]])).tolist()
        [5e+300]
    """
    largest = np.maximum(np.abs(memories).max(axis=(-2, -1), keepdims=True), SMALL)
    return largest[..., 0, 0] * np.linalg.norm(memories / largest, axis=(-2, -1))
