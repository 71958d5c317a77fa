"""Sums of losses that have no closed form: kept as the samples of a stream, and minimised by accelerated gradient."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import FULL, by_head, contract, joined, pairwise_sum, running_sums
from damjax.domains import Domain, with_support
from damjax.evaluation import filled, ridge_coefficients, weigh
from damjax.hindsight.convex import Comparator, minimize
from damjax.objectives import Objective
from damjax.types import Associations
from damjax.weights.epochs import SumsOverEpochs
from damjax.weights.interests import Interests

__all__ = ["PersonalSamples", "Samples", "samples"]

STEPS_PER_BLOCK = 64  # that a sum over samples takes at a time


class Samples(NamedTuple):
    """Each agent's own losses f_m1 + .. + f_mT, at every horizon T.

    Attributes:
        objective: f, of the kind ``Smooth``.
        features: phi of every cue, (T, N, df), or (T, N, heads, df) of several heads.
        values: (T, N, dv).
        sample_weights: s of every association, (T, N); None where all count alike.
        ridge: the sums of s D up to every horizon, (H, N, dv, df), an axis of length 1 where they are all the same;
            None where there is no ridge part.
        constant: the losses of a memory of zeros, (H, N).
        horizons: the step counts.
    """

    objective: Objective
    features: Float[Array, "T N *heads df"]
    values: Float[Array, "T N dv"]
    sample_weights: Float[Array, "T N"] | None
    ridge: Float[Array, "H #N #dv #df"] | None
    constant: Float[Array, "H N"]
    horizons: list[int]

    @property
    def num_agents(self) -> int:
        """N."""
        return self.values.shape[1]

    def weighted_sum(self, interests: Interests | SumsOverEpochs) -> "PersonalSamples":
        """What each agent is measured by: everyone's losses, weighted by its interests."""
        interests = interests.astype(self.values.dtype)
        times = jnp.arange(1, self.values.shape[0] + 1, dtype=jnp.int32)
        of_columns = jax.vmap(lambda time, now: interests.at(time).gather(now), out_axes=1)
        changes = isinstance(interests, SumsOverEpochs)
        weights = interests.over(times) if changes else jnp.asarray(interests.weights)[:, None]
        if self.sample_weights is not None:
            weights = weights * of_columns(times, self.sample_weights)
        return PersonalSamples(
            objective=self.objective,
            weights=weights,
            features=of_columns(times, self.features),
            values=of_columns(times, self.values),
            ridge=None if self.ridge is None else interests.weighted_sums(self.ridge),
            constant=interests.weighted_sums(self.constant),
            horizons=interests.horizons if changes else self.horizons,
        )


class PersonalSamples(NamedTuple):
    """Each agent's losses, F_n(U) = sum_{t <= T} sum_k w_nkt s_kt f_kt(U) over the columns k of its interests.

    Attributes:
        objective: f, of the kind ``Smooth``.
        weights: w s of each column, (N, T, K); (N, 1, K) where they do not change.
        features: by receiver and column, (N, T, K, df), or (N, T, K, heads, df); one row for all receivers where they
            are all the same.
        values: likewise, (N, T, K, dv).
        ridge: sums of w s D up to every horizon, (H, N, dv, df), or None.
        constant: F_n(0), (H, N).
        horizons: the step counts.
    """

    objective: Objective
    weights: Float[Array, "N #T K"]
    features: Float[Array, "#N T K *heads df"]
    values: Float[Array, "#N T K dv"]
    ridge: Float[Array, "H N #dv #df"] | None
    constant: Float[Array, "H N"]
    horizons: list[int]

    def minimize(self, domain: Domain) -> Comparator:
        """The minimum over the set, (H, N): one horizon after the other, each from the memories of the one before."""
        dtype = self.values.dtype
        first = jnp.zeros((len(self.weights), self.values.shape[-1], self.features.shape[-1]), dtype)
        if not with_support(domain).is_bounded(first[0]):
            raise ValueError(
                f"domain must be bounded for a loss that is not quadratic, whose best memory nothing certifies on"
                f" others, but {domain} is not; use frobenius_ball or box"
            )
        features, values = (x[0] if x.shape[0] == 1 else x for x in (self.features, self.values))
        shared = None if values.ndim == 3 else 0

        def solve(start: Array, weights: Array, features: Array, values: Array, at: tuple) -> Comparator:
            horizon, constant, ridge = at
            reached = (jnp.arange(1, features.shape[0] + 1) <= horizon)[:, None]
            share = jnp.where(reached, weights, 0)
            loss, gradient, steepness = _cumulative_loss(self.objective, share, features, values, ridge)
            tolerance = float(jnp.finfo(dtype).eps) ** 0.7 * jnp.abs(constant)
            return minimize(loss, start, domain, smoothness=steepness, tolerance=tolerance, gradient=gradient)

        over_agents = jax.vmap(solve, in_axes=(0, 0, shared, shared, (None, 0, None if self.ridge is None else 0)))

        def advance(starts: Array, at: tuple) -> tuple[Array, Comparator]:
            best = over_agents(starts, self.weights, features, values, at)
            return jax.lax.stop_gradient(best.params), best

        return jax.lax.scan(advance, first, (jnp.array(self.horizons), self.constant, self.ridge))[1]


def samples(objective: Objective, stream: Associations, horizons: list[int]) -> Samples:
    """Each agent's own losses of a stream that was checked, at every horizon.

    Args:
        objective: of the kind ``Smooth``.
        stream: as arrays, every field with a leading T, at least the last horizon.
        horizons: increasing step counts.
    """
    stream = filled(stream)
    keys, values = jnp.asarray(stream.keys), jnp.asarray(stream.values)
    times = jnp.arange(1, keys.shape[0] + 1, dtype=jnp.int32)
    features = jax.vmap(jax.vmap(objective.features))(keys)
    last = np.array(horizons) - 1
    coefficients = jax.vmap(lambda now, time: ridge_coefficients(objective, now, time, features))(stream, times)
    ridge = jax.tree.map(lambda each: running_sums(each)[last], coefficients)
    weights = None if stream.sample_weights is None else jnp.asarray(stream.sample_weights)
    at_zero = weigh(weights, _by_sample(objective.loss, jnp.zeros_like(values), values))
    return Samples(objective, features, values, weights, ridge, running_sums(at_zero)[last], horizons)


def _by_sample(function: Callable[..., Array], predictions: Array, values: Array) -> Array:
    """The loss or the residual of every sample, for predictions and values (T, K, dv)."""
    times = jnp.arange(1, values.shape[0] + 1).astype(values.dtype)
    return jax.vmap(jax.vmap(function, in_axes=(0, 0, None)))(predictions, values, times)


def _cumulative_loss(
    objective: Objective,
    share: Float[Array, "T K"],
    features: Float[Array, "T K *heads df"],
    values: Float[Array, "T K dv"],
    ridge: Float[Array, "#dv #df"] | None,
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Float[Array, ""]]:
    """F(U) = sum_t sum_k share_tk f_kt(U) of one agent, its gradient, and a Lipschitz constant of the gradient."""
    heads = features.shape[2:-1]

    def recalled(params: Array) -> Array:
        blocks = jnp.einsum("tk...j,...ij->tk...i", features, by_head(params, heads, 0), precision=FULL)
        return joined(blocks, heads, 2)

    def loss(params: Array) -> Array:
        losses = _summed("tk,tk->", share, _by_sample(objective.loss, recalled(params), values))
        return losses if ridge is None else losses + 0.5 * jnp.sum(ridge * params**2)

    def gradient(params: Array) -> Array:
        residuals = by_head(_by_sample(objective.residual, recalled(params), values), heads, 2)
        slope = joined(_summed("tk,tk...i,tk...j->...ij", share, residuals, features), heads, 0)
        return slope if ridge is None else slope + ridge * params

    _, smoothness = objective.kind.curvatures
    second_moments = _summed("tk,tk...i,tk...j->...ij", share, features, features)
    steepness = jnp.asarray(smoothness, values.dtype) * jnp.max(jnp.linalg.eigvalsh(second_moments))
    return loss, gradient, steepness if ridge is None else steepness + jnp.max(jnp.abs(ridge))


def _summed(subscripts: str, *series: Float[Array, "T ..."]) -> Array:
    """An einsum of operands and a result that all have time as their first axis, summed over it.

    Block by block, since a sum over a long run loses digits in single precision.
    """
    num_steps = series[0].shape[0]
    num_blocks = max(num_steps // STEPS_PER_BLOCK, 1)

    def blocks(x: Array) -> Array:
        padding = [(0, -num_steps % num_blocks), *[(0, 0)] * (x.ndim - 1)]
        return jnp.pad(x, padding).reshape(num_blocks, -1, *x.shape[1:])

    return pairwise_sum(jax.vmap(functools.partial(contract, subscripts))(*map(blocks, series)))
