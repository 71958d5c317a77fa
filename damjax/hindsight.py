"""The best fixed memory in hindsight of every agent: what regret is measured against.

argmin_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set, one per agent n and horizon T
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_function, check_instance
from damjax._contractions import contract, product
from damjax._laws import check_objective, check_objective_kind, num_features
from damjax._layouts import Interests, Weights, as_interests, stochastic_interests
from damjax._numerics import add_compensated, total
from damjax._steps import check_parts, ridge_coefficients
from damjax._types import ArrayLike, Associations, concrete
from damjax.comparators import Comparator, Moments, best, minimize
from damjax.domains import Domain, Unconstrained, known_shape
from damjax.objectives import Objective
from damjax.simulate import Stream

Horizons = Int[ArrayLike, "H"] | Sequence[int]
STEPS_PER_BLOCK = 64  # that a sum over samples takes at a time


def moments(objective: Objective, associations: Stream, horizons: Horizons) -> Moments:
    """Each agent's own losses f_m1 + .. + f_mT as a quadratic, at every horizon: leading axes (H, N).

    One pass, and memory that does not grow with T when the stream is a function of the time.

    Args:
        objective: a quadratic one.
        associations: the stream, or a function from the 1-based time to the associations of that step.
        horizons: increasing step counts, (H,), concrete.

    Returns:
        Moments with hessian (H, N, df, df), ridge and linear (H, N, dv, df), constant (H, N).

    Raises:
        ValueError: an objective that is not quadratic; horizons that do not increase or are not positive.
    """
    check_objective_kind(objective)
    if objective.curvature is None:
        raise ValueError("moments exist for quadratic objectives only, but this objective has no curvature")
    steps = checked_horizons(horizons)
    read = _reading(associations, steps[-1])

    def add(carry: tuple[Moments, Moments, Moments], at: tuple[Array, Array]) -> tuple[Any, None]:
        so_far, excess, snapshots = carry
        time, row = at
        so_far, excess = add_compensated(so_far, excess, _step_moments(objective, read(time), time))
        # The last sum written to a row is the one at its horizon.
        snapshots = jax.tree.map(lambda rows, leaf: rows.at[row].set(leaf), snapshots, so_far)
        return (so_far, excess, snapshots), None

    times = jnp.arange(1, steps[-1] + 1, dtype=jnp.int32)
    rows = jnp.searchsorted(jnp.array(steps, jnp.int32), times)
    shapes = jax.eval_shape(lambda: _step_moments(objective, read(jnp.asarray(1)), jnp.asarray(1)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    empty = jax.tree.map(lambda leaf: jnp.zeros((len(steps), *leaf.shape), leaf.dtype), shapes)
    (_, _, snapshots), _ = jax.lax.scan(add, (zeros, zeros, empty), (times, rows))
    return snapshots


def best_in_hindsight(
    objective: Objective,
    weights: Weights,
    domain: Domain,
    associations: Stream,
    horizons: Horizons,
) -> Comparator:
    """The best fixed memory of every agent at every horizon, with its cumulative loss and a certificate.

    In closed form for quadratic objectives; else by accelerated gradient, in memory that grows with T.

    Args:
        objective: the memory loss f; not quadratic, it must declare its smoothness.
        weights: W, (N, N), or SparseWeights.
        domain: the feasible set; bounded unless the objective is quadratic.
        associations: the stream, or a function of the time.
        horizons: increasing step counts, (H,), concrete.

    Returns:
        Comparator with params (H, N, dv, df), loss and gap (H, N); loss - gap is at most the true minimum.

    Raises:
        ValueError: an objective without a minimum, or without a certificate, on the domain; a set of the user's own.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective = damjax.objectives.cross_entropy(jnp.eye(3))
        >>> stream = damjax.Associations(jnp.ones((4, 1, 2)), jnp.eye(3)[jnp.array([0, 0, 1, 2])][:, None])
        >>> ball = damjax.domains.frobenius_ball(2.0)
        >>> found = best_in_hindsight(objective, jnp.eye(1), ball, stream, [2, 4])
        >>> found.params.shape, bool((found.gap < 1e-3 * found.loss).all())
        ((2, 1, 3, 2), True)
    """
    return best_beside_empty(objective, weights, domain, associations, horizons)[0]


def best_beside_empty(
    objective: Objective, weights: Weights, domain: Domain, associations: Stream, horizons: Horizons
) -> tuple[Comparator, Float[Array, "H N"]]:
    """``best_in_hindsight``, and the cumulative loss of a memory of zeros, which says what is large."""
    check_parts(objective, domain)
    as_interests("weights", weights)
    if objective.curvature is None:
        return _best_by_samples(objective, weights, domain, associations, checked_horizons(horizons))
    total = _interests(moments(objective, associations, horizons), weights, domain)
    return best(total, domain), total.constant


def best_losses(sources: Moments, weights: Weights, domain: Domain) -> Float[Array, "H N"]:
    """The least cumulative loss in hindsight, min_U sum_m w_nm F_m(U), for moments (H, N) of the agents' own losses."""
    return best(_interests(sources, weights, domain), domain).loss


def best_memories(sources: Moments, weights: Weights, domain: Domain) -> Float[Array, "H N dv df"]:
    """The best memories in hindsight, one per horizon and agent, for moments (H, N) of the agents' own losses."""
    return best(_interests(sources, weights, domain), domain).params


class _Samples(NamedTuple):
    """A stream as the losses see it."""

    features: Float[Array, "T K df"]
    values: Float[Array, "T K dv"]
    times: Float[Array, "T"]
    ridge: Float[Array, "T #K #dv #df"] | None


def _samples(objective: Objective, associations: Stream, num_steps: int) -> _Samples:
    times = jnp.arange(1, num_steps + 1, dtype=jnp.int32)
    stream = jax.vmap(_reading(associations, num_steps))(times)
    check_instance("associations", stream, Associations, "a function of the time gives those of one step")
    keys, values = jnp.asarray(stream.keys), jnp.asarray(stream.values)
    _check_laws(objective, keys, values)
    features = jax.vmap(jax.vmap(objective.features))(keys)
    ridge = None
    if objective.ridge is not None:
        ridge = jax.vmap(lambda seen, time: ridge_coefficients(objective, seen, time, features))(stream, times)
    return _Samples(features, values, times.astype(values.dtype), ridge)


def _summed(subscripts: str, *series: Float[Array, "T ..."]) -> Array:
    """An einsum of operands and a result that all have time as their first axis, summed over it.

    Block by block, since a sum over a long run loses digits in single precision.
    """
    num_steps = series[0].shape[0]
    num_blocks = max(num_steps // STEPS_PER_BLOCK, 1)

    def blocks(x: Array) -> Array:
        padding = [(0, -num_steps % num_blocks), *[(0, 0)] * (x.ndim - 1)]
        return jnp.pad(x, padding).reshape(num_blocks, -1, *x.shape[1:])

    return total(jax.vmap(functools.partial(contract, subscripts))(*map(blocks, series)))


def _weighted_loss(
    objective: Objective, samples: _Samples, share: Float[Array, "T K"]
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Float[Array, ""]]:
    """F(U) = sum_t sum_m share_tm f_mt(U), its gradient, and a Lipschitz constant of the gradient."""
    features, values, times, ridge = samples
    shrinkage = None if ridge is None else total(jnp.sum(share[:, :, None, None] * ridge, axis=1))

    def judged(judge: Callable[..., Array], params: Array) -> Array:
        over_senders = jax.vmap(judge, in_axes=(0, 0, None))
        return jax.vmap(over_senders)(product(features, params.T), values, times)

    def loss(params: Array) -> Array:
        losses = _summed("tm,tm->", share, judged(objective.loss, params))
        return losses if shrinkage is None else losses + 0.5 * jnp.sum(shrinkage * params**2)

    def gradient(params: Array) -> Array:
        slope = _summed("tm,tmi,tmj->ij", share, judged(objective.residual, params), features)
        return slope if shrinkage is None else slope + shrinkage * params

    second_moment = _summed("tm,tmi,tmj->ij", share, features, features)
    steepness = jnp.asarray(objective.smoothness, values.dtype) * jnp.linalg.eigvalsh(second_moment)[-1]
    return loss, gradient, steepness if shrinkage is None else steepness + jnp.max(jnp.abs(shrinkage))


def _best_by_samples(
    objective: Objective, weights: Weights, domain: Domain, associations: Stream, steps: list[int]
) -> tuple[Comparator, Float[Array, "H N"]]:
    """Sums over the stream itself, one horizon after the other, each from the memories of the one before."""
    if objective.smoothness is None:
        raise ValueError(
            "objective must declare its smoothness (a bound on the second derivative of the loss in the prediction),"
            " since it has no curvature and its best memory is found by iteration"
        )
    if isinstance(known_shape(domain), Unconstrained):
        raise ValueError(
            "a loss that is not quadratic needs a bounded domain, where its comparator can be certified;"
            " use frobenius_ball or box"
        )
    samples = _samples(objective, associations, steps[-1])
    _, num_agents, value_dim = samples.values.shape
    dtype = samples.values.dtype
    interests = stochastic_interests("weights", weights, num_agents).astype(dtype)

    def solve(start: Array, row: Interests, horizon: Array) -> tuple[Comparator, Array]:
        share = jnp.where((samples.times <= horizon)[:, None], row.weights[None], 0)
        loss, gradient, steepness = _weighted_loss(objective, _heard(samples, row.agents), share)
        empty = loss(jnp.zeros_like(start))
        tolerance = float(jnp.finfo(dtype).eps) ** 0.7 * jnp.abs(empty)
        return minimize(loss, start, domain, smoothness=steepness, tolerance=tolerance, gradient=gradient), empty

    def advance(starts: Array, horizon: Array) -> tuple[Array, tuple[Comparator, Array]]:
        found, empty = jax.vmap(solve, in_axes=(0, 0, None))(starts, interests, horizon)
        return jax.lax.stop_gradient(found.params), (found, empty)

    first = jnp.zeros((num_agents, value_dim, samples.features.shape[2]), dtype)
    return jax.lax.scan(advance, first, jnp.array(steps, dtype))[1]


def _heard(samples: _Samples, agents: Int[Array, "K"] | None) -> _Samples:
    """What one agent hears of everyone's samples."""
    if agents is None:
        return samples
    features, values, times, ridge = samples
    if ridge is not None and ridge.shape[1] > 1:
        ridge = ridge[:, agents]
    return _Samples(features[:, agents], values[:, agents], times, ridge)


def _interests(sources: Moments, weights: Weights, domain: Domain) -> Moments:
    """What each agent is measured by: the sources' moments weighted by its interests."""
    check_instance(
        "sources", sources, Moments, "damjax.hindsight.moments(objective, associations, horizons) makes them"
    )
    interests = stochastic_interests("weights", weights, sources.linear.shape[1])
    if isinstance(known_shape(domain), Unconstrained) and sources.hessian is None and sources.ridge is None:
        raise ValueError("a linear objective has no minimum on an unconstrained domain; use frobenius_ball or box")
    return jax.tree.map(jax.vmap(interests.total), sources)


def _reading(associations: Stream, num_steps: int) -> Callable[[Int[Array, ""]], Associations]:
    """The associations of a step by its 1-based time."""
    if callable(associations):
        check_function("associations", associations, "time", "it gives the associations of a step")
        return associations
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    length = jnp.shape(associations.keys)[0]
    if num_steps > length:
        raise ValueError(f"horizons must be at most the {length} steps of associations, but one is {num_steps}")
    stream = jax.tree.map(jnp.asarray, associations)
    return lambda time: jax.tree.map(lambda field: field[time - 1], stream)


def _step_moments(objective: Objective, associations: Associations, time: Int[Array, ""]) -> Moments:
    check_instance("associations", associations, Associations, "a function of the time gives those of one step")
    keys, values, _ = jax.tree.map(jnp.asarray, associations)
    _check_laws(objective, keys, values)
    features = jax.vmap(objective.features)(keys)
    clock = time.astype(features.dtype)
    at_zero = jnp.zeros_like(values)
    residuals = jax.vmap(objective.residual, in_axes=(0, 0, None))(at_zero, values, clock)
    linear = -residuals[:, :, None] * features[:, None, :]
    hessian = objective.curvature * features[:, :, None] * features[:, None, :] if objective.curvature else None
    ridge = ridge_coefficients(objective, associations, time, linear)
    if hessian is not None and ridge is not None and ridge.shape[1] == 1:
        # The same for every row of a memory, it is a curvature of the features: U C U' + U diag(D) U'.
        diagonal = jnp.broadcast_to(ridge[:, 0], features.shape)
        hessian, ridge = hessian + jax.vmap(jnp.diag)(diagonal), None
    return Moments(
        hessian=hessian,
        ridge=None if ridge is None else jnp.broadcast_to(ridge, linear.shape),
        linear=linear,
        constant=jax.vmap(objective.loss, in_axes=(0, 0, None))(at_zero, values, clock),
    )


def _check_laws(objective: Objective, keys: Array, values: Array) -> None:
    num_features(objective, keys.shape[-1:], keys.dtype)
    check_objective(objective, values.shape[-1], values.dtype)


def checked_horizons(horizons: Horizons) -> list[int]:
    """The horizons as integers, or a ValueError that says what is wrong with them."""
    steps = concrete(horizons)
    if steps is None:
        raise ValueError("horizons must be concrete step counts, but they are traced; close over them instead")
    whole = steps.ndim == 1 and steps.size > 0 and np.issubdtype(steps.dtype, np.integer)
    if not whole or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"horizons must be increasing positive step counts, but they are {steps.tolist()}")
    return steps.tolist()
