"""The best fixed memory in hindsight of every agent: what regret is measured against.

argmin_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set, one per agent n and horizon T
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._arrays import add_compensated, outer
from damjax._checks import check_function, check_instance, concrete
from damjax._laws import check_linear_memory, check_objective, num_features
from damjax.domains import Domain, with_support
from damjax.evaluation import filled, ridge_coefficients, weigh
from damjax.hindsight.convex import Comparator
from damjax.hindsight.quadratic import Moments
from damjax.hindsight.samples import Samples, samples
from damjax.objectives import Linear, Objective, Quadratic, Smooth
from damjax.types import Associations, Horizons, Stream
from damjax.weights.epochs import EpochInterests, EpochWeights, changing_interests, sums_over_epochs
from damjax.weights.interests import Weights, stochastic_interests

__all__ = ["best_beside_empty", "best_in_hindsight", "best_losses", "best_memories", "checked_horizons", "moments"]


def moments(objective: Objective, associations: Stream, horizons: Horizons) -> Moments:
    """Each agent's own losses f_m1 + .. + f_mT as a quadratic, at every horizon: leading axes (H, N).

    One pass, and memory that does not grow with T when the stream is a function of the time.

    Args:
        objective: a quadratic one.
        associations: the stream, or a function from the 1-based time to the associations of that step.
        horizons: increasing step counts, (H,), concrete.

    Returns:
        Moments with hessian (H, N, df, df), or one for each head of a memory before the last two axes; ridge and linear
        (H, N, dv, df), constant (H, N).

    Raises:
        ValueError: an objective that is not quadratic; horizons that do not increase or are not positive.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=9)
        >>> ball, delta = damjax.domains.frobenius_ball(9.0), damjax.objectives.delta_net()
        >>> moments(delta, stream, [4, 9]).linear.shape
        (2, 2, 5, 5)
    """
    check_linear_memory(objective)
    if not objective.kind.entrywise:
        raise ValueError(
            f"moments exist for quadratic objectives only, but the kind of this objective is {objective.kind};"
            f" damjax.hindsight.best_in_hindsight finds its best memory by iteration"
        )
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
    weights: Weights | EpochWeights,
    domain: Domain,
    associations: Stream,
    horizons: Horizons,
) -> Comparator:
    """The best fixed memory of every agent at every horizon, with its cumulative loss and a certificate.

    In closed form for quadratic objectives; else by accelerated gradient, in memory that grows with T.

    Args:
        objective: the memory loss f, of the kind ``Linear``, ``Quadratic`` or ``Smooth``.
        weights: W, (N, N), or SparseWeights, or EpochWeights.
        domain: the feasible set; bounded unless the objective is quadratic. One of your own needs a ``support``.
        associations: the stream, or a function of the time.
        horizons: increasing step counts, (H,), concrete.

    Returns:
        Comparator with params (H, N, dv, df), loss and gap (H, N); loss - gap is at most the true minimum.

    Raises:
        ValueError: an objective without a minimum, or without a certificate, on the domain; a set of the user's own
            without ``support``.

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
    objective: Objective, weights: Weights | EpochWeights, domain: Domain, associations: Stream, horizons: Horizons
) -> tuple[Comparator, Float[Array, "H N"]]:
    """``best_in_hindsight``, and the cumulative loss of a memory of zeros, which says what is large.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=9)
        >>> ball, delta = damjax.domains.frobenius_ball(9.0), damjax.objectives.delta_net()
        >>> best, empty = best_beside_empty(delta, jnp.eye(2), ball, stream, [4, 9])
        >>> empty.shape, bool((best.loss < empty).all())
        ((2, 2), True)
    """
    check_linear_memory(objective)
    domain = with_support(domain)
    interests, steps = changing_interests("weights", weights), checked_horizons(horizons)
    if isinstance(interests, EpochInterests):
        interests = sums_over_epochs(interests, steps)
        steps = interests.steps
    personal = _cumulative_losses(objective, associations, steps).weighted_sum(interests)
    return personal.minimize(domain), personal.constant


def best_losses(sources: Moments, weights: Weights, domain: Domain) -> Float[Array, "H N"]:
    """The least cumulative loss in hindsight, min_U sum_m w_nm F_m(U), for moments (H, N) of the agents' own losses.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=9)
        >>> ball, delta = damjax.domains.frobenius_ball(9.0), damjax.objectives.delta_net()
        >>> best_losses(moments(delta, stream, [4, 9]), jnp.eye(2), ball).shape
        (2, 2)
    """
    return _best_of(sources, weights, domain).loss


def best_memories(sources: Moments, weights: Weights, domain: Domain) -> Float[Array, "H N dv df"]:
    """The best memories in hindsight, one per horizon and agent, for moments (H, N) of the agents' own losses.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=9)
        >>> ball, delta = damjax.domains.frobenius_ball(9.0), damjax.objectives.delta_net()
        >>> best_memories(moments(delta, stream, [4, 9]), jnp.eye(2), ball).shape
        (2, 2, 5, 5)
    """
    return _best_of(sources, weights, domain).params


def _best_of(sources: Moments, weights: Weights, domain: Domain) -> Comparator:
    check_instance(
        "sources", sources, Moments, "damjax.hindsight.moments(objective, associations, horizons) makes them"
    )
    return sources.weighted_sum(stochastic_interests("weights", weights, sources.num_agents)).minimize(domain)


def _cumulative_losses(objective: Objective, associations: Stream, horizons: Horizons) -> Moments | Samples:
    """Each agent's own losses at every horizon, in the form in which the objective's kind can be minimised."""
    match objective.kind:
        case Linear() | Quadratic():
            return moments(objective, associations, horizons)
        case Smooth():
            steps = checked_horizons(horizons)
            stream = jax.vmap(_reading(associations, steps[-1]))(jnp.arange(1, steps[-1] + 1, dtype=jnp.int32))
            check_instance("associations", stream, Associations, "a function of the time gives those of one step")
            _check_laws(objective, jnp.asarray(stream.keys), jnp.asarray(stream.values))
            return samples(objective, stream, steps)
    raise ValueError(
        f"objective is of the kind {objective.kind}, whose best memory nobody can find: where its loss is convex it"
        f" must declare its smoothness (a bound on the second derivative of the loss in the prediction),"
        f" kind=damjax.objectives.Smooth(smoothness), or Quadratic(curvature) where that is a multiple of the identity"
    )


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
    seen = filled(jax.tree.map(jnp.asarray, associations))
    return weigh(seen.sample_weights, _unweighted_moments(objective, seen._replace(sample_weights=None), time))


def _unweighted_moments(objective: Objective, associations: Associations, time: Int[Array, ""]) -> Moments:
    keys, values = jnp.asarray(associations.keys), jnp.asarray(associations.values)
    _check_laws(objective, keys, values)
    features = jax.vmap(objective.features)(keys)
    step = time.astype(features.dtype)
    at_zero = jnp.zeros_like(values)
    residuals = jax.vmap(objective.residual, in_axes=(0, 0, None))(at_zero, values, step)
    linear = -outer(residuals, features)
    hessian = None
    if objective.kind.bounded_below:
        curvature, _ = objective.kind.curvatures
        hessian = jnp.asarray(curvature, features.dtype) * features[..., :, None] * features[..., None, :]
    ridge = ridge_coefficients(objective, associations, time, linear)
    if hessian is not None and ridge is not None and ridge.shape[1] == 1:
        # The same for every row of a memory, it is a curvature of the features: U C U' + U diag(D) U'.
        diagonal = jnp.broadcast_to(ridge, (len(features), 1, features.shape[-1]))
        alike = jax.vmap(jnp.diag)(diagonal[:, 0]).reshape(
            len(features), *[1] * len(objective.heads), *hessian.shape[-2:]
        )
        hessian, ridge = hessian + alike, None
    return Moments(
        hessian=hessian,
        ridge=None if ridge is None else jnp.broadcast_to(ridge, linear.shape),
        linear=linear,
        constant=jax.vmap(objective.loss, in_axes=(0, 0, None))(at_zero, values, step),
    )


def _check_laws(objective: Objective, keys: Array, values: Array) -> None:
    num_features(objective, keys.shape[-1:], keys.dtype)
    check_objective(objective, values.shape[-1], values.dtype)


def checked_horizons(horizons: Horizons) -> list[int]:
    """The horizons as integers, or a ValueError that says what is wrong with them.

    Example:
        >>> checked_horizons(np.array([10, 100]))
        [10, 100]
    """
    steps = concrete(horizons)
    if steps is None:
        raise ValueError("horizons must be concrete step counts, but they are traced; close over them instead")
    whole = steps.ndim == 1 and steps.size > 0 and np.issubdtype(steps.dtype, np.integer)
    if not whole or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"horizons must be increasing positive step counts, but they are {steps.tolist()}")
    return steps.tolist()
