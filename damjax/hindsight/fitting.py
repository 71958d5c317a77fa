"""The best of several offline fits: what a memory of which no theorem speaks is measured against in hindsight."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from damjax._arrays import add_compensated, beside, dtype_of, promoting
from damjax._checks import check_count, check_instance
from damjax._laws import check_domain
from damjax.domains import Domain, as_domain
from damjax.evaluation import pairs
from damjax.objectives import MemoryLoss, MemoryObjective, Objective, as_objective
from damjax.types import Associations
from damjax.weights.epochs import EpochInterests, EpochWeights, changing_interests
from damjax.weights.interests import Interests, Weights

__all__ = ["Fit", "best_fit"]


class Fit(NamedTuple):
    """The best memories that offline training found.

    Attributes:
        params: U, one per agent, as the memories: leaves (N, ..).
        loss: their cumulative losses F_n(U_n), (N,).
        losses: the best of every start, (S, N); where they differ much, more starts may find better.
    """

    params: Any
    loss: Float[Array, "N"]
    losses: Float[Array, "S N"]


def best_fit(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    domain: Domain,
    associations: Associations,
    starts: Any,
    *,
    optimizer: optax.GradientTransformation,
    num_iterations: int,
) -> Fit:
    """The best fixed memory of every agent that offline training finds, from several starts.

        F_n(U) = sum_{t <= T} sum_m w_nm f_mt(U),   U <- P[U + update(grad F_n(U) / T)]

    For memories that are not convex, of which nobody knows the best in hindsight. Of every run the iterate with the
    least loss counts, and of all runs the best; nothing certifies that there is no better one.

    Args:
        objective: the memory loss f, of memories of any shape.
        weights: W, (N, N), row-stochastic, or SparseWeights, or EpochWeights.
        domain: the feasible set, P its projection.
        associations: the stream, every field with a leading T.
        starts: the memories that training sets out from, leaves (S, N, ..), such as
            ``jax.vmap(jax.vmap(memory.init))(keys)`` of keys (S, N).
        optimizer: from optax, with its rate, such as ``optax.adam(0.01)``.
        num_iterations: steps on the gradient of the whole stream.

    Returns:
        A Fit.

    Raises:
        ValueError: starts without the axes (S, N), what is no optimizer, shapes that do not meet.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=40)
        >>> memory = damjax.recall.memories.mlp(5, 5, width=8)
        >>> starts = jax.vmap(jax.vmap(memory.init))(jax.random.split(jax.random.key(1), (3, 2)))
        >>> fit = best_fit(memory.objective(), jnp.eye(2), damjax.domains.frobenius_ball(30.0), stream, starts,
        ...     optimizer=optax.adam(0.05), num_iterations=50)
        >>> fit.losses.shape, bool((fit.loss == fit.losses.min(axis=0)).all())
        ((3, 2), True)
    """
    objective, interests = as_objective(objective), changing_interests("weights", weights)
    check_instance("optimizer", optimizer, optax.GradientTransformation, "optax.adam(0.01) is one")
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    check_count("num_iterations", num_iterations)
    domain, num_agents = as_domain(domain), interests.shape[0]
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(starts)]
    if not shapes or any(shape[1:2] != (num_agents,) for shape in shapes):
        raise ValueError(
            f"starts must hold memories of {num_agents} agents for every start, leaves (S, {num_agents}, ..), but their"
            f" shapes are {shapes}; add an axis in front for one start"
        )
    starts = jax.tree.map(jnp.asarray, starts)
    check_domain(domain, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), starts))
    stream = jax.tree.map(jnp.asarray, associations)

    def fit(start: Any) -> tuple[Any, Float[Array, "N"]]:
        whole = functools.partial(_whole, objective, interests, stream)
        return _descended(whole, start, domain, optimizer, num_iterations, stream.keys.shape[0])

    memories, losses = jax.lax.map(fit, starts)
    which, agents = jnp.argmin(losses, axis=0), jnp.arange(num_agents)
    return Fit(jax.tree.map(lambda leaf: leaf[which, agents], memories), losses[which, agents], losses)


def _whole(
    objective: Objective | MemoryObjective, interests: Interests | EpochInterests, stream: Associations, params: Any
) -> tuple[Float[Array, "N"], Any]:
    """F and its gradient, of all agents."""

    def add(carry: tuple[Any, Any], at: tuple[Array, Associations]) -> tuple[Any, None]:
        time, now = at
        asked = pairs(objective, interests.at(time), params, now, time)
        return add_compensated(*carry, (asked.weighted_losses(), asked.weighted_gradient())), None

    nothing = (jnp.zeros(interests.shape[0], dtype_of(params)), jax.tree.map(jnp.zeros_like, params))
    times = jnp.arange(1, stream.keys.shape[0] + 1, dtype=jnp.int32)
    (sums, _), _ = jax.lax.scan(add, (nothing, nothing), (times, stream))
    return sums


def _descended(
    whole: Callable[[Any], tuple[Float[Array, "N"], Any]],
    start: Any,
    domain: Domain,
    optimizer: optax.GradientTransformation,
    num_iterations: int,
    num_steps: int,
) -> tuple[Any, Float[Array, "N"]]:
    """The best memory of every agent on the way from the start, and its loss."""

    def better_of(params: Any, losses: Array, best: Any, least: Array) -> tuple[Any, Array]:
        better = losses < least
        kept = jax.tree.map(lambda new, old: jnp.where(beside(better, new), new, old), params, best)
        return kept, jnp.where(better, losses, least)

    def iterate(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
        params, state, best, least = carry
        losses, gradient = whole(params)
        best, least = better_of(params, losses, best, least)
        mean = jax.tree.map(lambda leaf: leaf / num_steps, gradient)
        updates, state = promoting(jax.vmap(optimizer.update), mean, state, params)
        moved = jax.tree.map(lambda x, update: (x + update).astype(x.dtype), params, updates)
        return (jax.vmap(domain.project)(moved), state, best, least), None

    first = jax.vmap(domain.project)(start)
    never = jnp.full(len(jax.tree.leaves(start)[0]), jnp.inf, dtype_of(start))
    carry = (first, jax.vmap(optimizer.init)(first), first, never)
    (last, _, best, least), _ = jax.lax.scan(iterate, carry, length=num_iterations)
    return better_of(last, whole(last)[0], best, least)
