"""Losses and regret: how much worse the agents did than the best fixed memory in hindsight.

    Reg_n(T) = sum_{t <= T} sum_m w_nm f_mt(X_nt) - min_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set

with one comparator per agent and per horizon ([DAM] sec. 2).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_square
from damjax._contractions import sum_last
from damjax._steps import check_associations, recall, ridge_coefficients
from damjax._types import ArrayLike, Associations, Info, concrete
from damjax.comparators import Moments, minimizer, minimum
from damjax.domains import Domain, Unconstrained
from damjax.objectives import Objective
from damjax.simulate import Observer, Stream

Horizons = Int[ArrayLike, "H"] | Sequence[int]


def step_losses(
    objective: Objective,
    weights: Float[ArrayLike, "N N"],
    params: Float[ArrayLike, "N dv df"],
    associations: Associations,
    time: Int[ArrayLike, ""] | int,
) -> Float[Array, "N"]:
    """The personalised losses of one step: sum_m w_nm f_mt(X_n), (N,).

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> now = damjax.Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> weights = jnp.array([[1.0, 0.0], [0.5, 0.5]])
        >>> step_losses(damjax.objectives.delta_net(), weights, jnp.zeros((2, 1, 1)), now, time=1).tolist()
        [0.5, 2.5]
    """
    if (now := concrete(time)) is not None and np.any(now < 1):
        raise ValueError(f"time must be a 1-based step count, but it is {now}")
    params, time = jnp.asarray(params), jnp.asarray(time)
    check_square("weights", np.shape(weights), params.shape[0])
    check_associations(params, associations, objective)
    _, losses = recall(objective, objective.loss, params, associations, time)
    interest = jnp.asarray(weights, params.dtype)
    total = sum_last(interest * losses)
    if (ridge := ridge_coefficients(objective, associations, time, params)) is not None:
        total = total + 0.5 * jnp.einsum("nm,mij,nij->n", interest, ridge, params**2)
    return total


def observe_losses(objective: Objective, weights: Float[ArrayLike, "N N"]) -> Observer:
    """An observer for ``simulate`` that keeps the personalised losses, (T, N), and not the memories.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights = damjax.objectives.delta_net(), jnp.eye(2)
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=30)
        >>> algorithm = damjax.ogd(objective, weights, learning_rate=0.2, domain=damjax.domains.unconstrained())
        >>> _, losses = damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream,
        ...     observe=observe_losses(objective, weights))
        >>> losses.shape
        (30, 2)
    """

    def observe(params: Float[Array, "N dv df"], associations: Associations, info: Info) -> Float[Array, "N"]:
        return step_losses(objective, weights, params, associations, info.time)

    return observe


def personalized_losses(
    objective: Objective,
    weights: Float[ArrayLike, "N N"],
    trace_params: Float[ArrayLike, "T N dv df"],
    associations: Associations,
) -> Float[Array, "T N"]:
    """The personalised losses of a recorded run, sum_m w_nm f_mt(X_nt).

    Args:
        objective: the memory loss f.
        weights: W, (N, N).
        trace_params: X_1..X_T as ``simulate`` records them, (T, N, dv, df).
        associations: the stream, every field with a leading T.

    Returns:
        (T, N).

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> stream = damjax.Associations(jnp.ones((3, 1, 2)), jnp.full((3, 1, 1), 2.0))
        >>> personalized_losses(damjax.objectives.delta_net(), jnp.eye(1), jnp.zeros((3, 1, 1, 2)), stream).tolist()
        [[2.0], [2.0], [2.0]]
    """
    times = jnp.arange(1, trace_params.shape[0] + 1)
    return jax.vmap(step_losses, in_axes=(None, None, 0, 0, 0))(objective, weights, trace_params, associations, times)


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
    if objective.curvature is None:
        raise ValueError("moments exist for quadratic objectives only, but this objective has no curvature")
    steps = _checked_horizons(horizons)
    read = associations if callable(associations) else _reader(associations, steps[-1])

    def add(carry: tuple[Moments, Moments], at: tuple[Array, Array]) -> tuple[tuple[Moments, Moments], None]:
        total, snapshots = carry
        time, row = at
        total = jax.tree.map(jnp.add, total, _step_moments(objective, read(time), time))
        # The last total written to a row is the one at its horizon.
        snapshots = jax.tree.map(lambda rows, leaf: rows.at[row].set(leaf), snapshots, total)
        return (total, snapshots), None

    times = jnp.arange(1, steps[-1] + 1, dtype=jnp.int32)
    rows = jnp.searchsorted(jnp.array(steps, jnp.int32), times)
    shapes = jax.eval_shape(lambda: _step_moments(objective, read(jnp.asarray(1)), jnp.asarray(1)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    empty = jax.tree.map(lambda leaf: jnp.zeros((len(steps), *leaf.shape), leaf.dtype), shapes)
    (_, snapshots), _ = jax.lax.scan(add, (zeros, empty), (times, rows))
    return snapshots


def static_regret(
    losses: Float[ArrayLike, "T N"],
    objective: Objective,
    weights: Float[ArrayLike, "N N"],
    domain: Domain,
    associations: Stream,
    horizons: Horizons,
) -> Float[Array, "H N"]:
    """Cumulative regret of every agent at every horizon, each against its own best memory in hindsight.

    Args:
        losses: personalised losses of the run, (T, N), from ``personalized_losses`` or ``observe_losses``.
        objective: the memory loss f, quadratic.
        weights: W, (N, N).
        domain: the feasible set of the comparators.
        associations: the stream of the run, as arrays or as a function of the time.
        horizons: increasing step counts, at most T, (H,), concrete.

    Returns:
        (H, N). The figures plot its sum over agents over N T. Differentiable, once, in losses, weights, associations
        and the size of the domain.

    Raises:
        ValueError: horizons beyond the run; an objective without a minimum on the domain.

    Note:
        Regret is a small difference of large sums: use float64. In float32 it carries an error of about 1e-6 of the
        cumulative loss, and more where the cues are nearly dependent, since the comparator then drops directions of
        the cues' second moments below 1e-7 of the largest.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights, ball = damjax.objectives.delta_net(), jnp.eye(2), damjax.domains.frobenius_ball(20.0)
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=300)
        >>> algorithm = damjax.ogd(objective, weights, learning_rate=damjax.schedules.inverse_sqrt(1.0), domain=ball)
        >>> _, trace = damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream)
        >>> losses = personalized_losses(objective, weights, trace.params, stream)
        >>> regret = static_regret(losses, objective, weights, ball, stream, [30, 300])
        >>> regret.shape, bool((regret[1] / 300 < regret[0] / 30).all())
        ((2, 2), True)
    """
    steps = _checked_horizons(horizons)
    expected = (np.shape(losses)[0], np.shape(weights)[0])
    if np.shape(losses) != expected:
        raise ValueError(f"losses must have shape (T, N) = {expected}, but it is {np.shape(losses)}")
    if steps[-1] > losses.shape[0]:
        raise ValueError(f"horizons must be at most the {losses.shape[0]} steps of losses, but one is {steps[-1]}")
    cumulative = jnp.cumsum(jnp.asarray(losses), axis=0)[np.array(steps) - 1]
    return cumulative - best_losses(moments(objective, associations, steps), weights, domain)


def best_losses(sources: Moments, weights: Float[ArrayLike, "N N"], domain: Domain) -> Float[Array, "H N"]:
    """The least cumulative loss in hindsight, min_U sum_m w_nm F_m(U), for moments (H, N) of the agents' own losses."""
    return minimum(_interests(sources, weights, domain), domain)


def best_memories(sources: Moments, weights: Float[ArrayLike, "N N"], domain: Domain) -> Float[Array, "H N dv df"]:
    """The best memories in hindsight, one per horizon and agent, for moments (H, N) of the agents' own losses."""
    return minimizer(_interests(sources, weights, domain), domain)


def _interests(sources: Moments, weights: ArrayLike, domain: Domain) -> Moments:
    """What each agent is measured by: the sources' moments weighted by its interests."""
    check_square("weights", np.shape(weights), sources.linear.shape[1])
    if isinstance(domain.shape, Unconstrained) and sources.hessian is None and sources.ridge is None:
        raise ValueError("a linear objective has no minimum on an unconstrained domain; use frobenius_ball or box")
    interest = jnp.asarray(weights, sources.linear.dtype)
    return jax.tree.map(lambda leaf: jnp.einsum("nm,hm...->hn...", interest, leaf), sources)


def _reader(associations: Associations, num_steps: int) -> Callable[[Int[Array, ""]], Associations]:
    """The associations of a step by its 1-based time."""
    length = jnp.shape(associations.keys)[0]
    if num_steps > length:
        raise ValueError(f"horizons must be at most the {length} steps of associations, but one is {num_steps}")
    stream = jax.tree.map(jnp.asarray, associations)
    return lambda time: jax.tree.map(lambda field: field[time - 1], stream)


def _step_moments(objective: Objective, associations: Associations, time: Int[Array, ""]) -> Moments:
    keys, values, _ = jax.tree.map(jnp.asarray, associations)
    features = jax.vmap(objective.features)(keys)
    clock = time.astype(features.dtype)
    at_zero = jnp.zeros_like(values)
    residuals = jax.vmap(objective.residual, in_axes=(0, 0, None))(at_zero, values, clock)
    linear = -residuals[:, :, None] * features[:, None, :]
    return Moments(
        hessian=objective.curvature * features[:, :, None] * features[:, None, :] if objective.curvature else None,
        ridge=ridge_coefficients(objective, associations, time, linear),
        linear=linear,
        constant=jax.vmap(objective.loss, in_axes=(0, 0, None))(at_zero, values, clock),
    )


def _checked_horizons(horizons: Horizons) -> list[int]:
    steps = concrete(horizons)
    if steps is None:
        raise ValueError("horizons must be concrete step counts, but they are traced; close over them instead")
    if steps.ndim != 1 or not np.issubdtype(steps.dtype, np.integer) or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"horizons must be increasing positive step counts, but they are {steps.tolist()}")
    return steps.tolist()
