"""Bounds from a table of issue and arrival times: any delays at all, and certificates of finished runs.

Message q = (m, s) carries agent m's gradient at X_ns, set out at step s, and arrives at a_q, or never. Where regret
comes from, agent by agent:

    Reg_n <= B^2 / (2 eta_T) + 1/2 sum_t eta_t kappa_t^2
             + sum_{a_q <= T} G_q sum_{s <= u < a_q} eta_u kappa_u + B sum_{a_q > T} G_q

with G_q a bound on the message's gradient, w_nm L_m, and kappa_t one on the gradient applied at t, the sum of G_q over
what arrives at t; or, after the run, with the norms themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from damjax._checks import (
    check_array,
    check_count,
    check_delays_shape,
    check_instance,
    check_positive,
    check_whole_delays,
)
from damjax._contractions import heeded
from damjax._laws import check_objective_kind
from damjax._layouts import Weights, as_interests, stochastic_interests
from damjax._numerics import root, running_sums, total
from damjax._steps import checked_schedule, rates_at, recall, ridge_coefficients
from damjax._types import ArrayLike, Associations, Info, LearningRate, concrete
from damjax.bounds.lipschitz import Constants, check_constants
from damjax.objectives import Objective


class GradientNorms(NamedTuple):
    """The gradients of a run, as ``observe_gradient_norms`` keeps them.

    Attributes:
        messages: ||w_nm grad f_ms(X_ns)||, by the step s at which the message sets out, (T, N, N),
            or (T, N, K) for sparse weights.
        applied: the norm of the aggregated gradient that agent n applies at t, (T, N).
    """

    messages: Float[ArrayLike, "T N K"]
    applied: Float[ArrayLike, "T N"]


def arrivals(delays: Int[ArrayLike, "N K"], horizon: int) -> Int[Array, "T N K"]:
    """The table of a fixed delay: entry [s - 1, n, m] is s + tau_nm, the step at which that message arrives.

    Example:
        >>> import jax.numpy as jnp
        >>> arrivals(jnp.array([[0, 2], [2, 0]]), 3)[:, 0].tolist()
        [[1, 3], [2, 4], [3, 5]]
    """
    check_array("delays", delays, "N K")
    check_count("horizon", horizon)
    table = jnp.asarray(delays)
    # No type of few bits, which a long horizon would overflow.
    table = table.astype(int) if jnp.issubdtype(table.dtype, jnp.integer) else table
    return jnp.arange(1, horizon + 1, dtype=table.dtype)[:, None, None] + table[None]


def applied_rates(
    schedule: LearningRate, weights: Weights, delays: Int[ArrayLike, "N K"], horizon: int
) -> Float[Array, "T N"]:
    """The rates of a DAM-TOGD run: eta_nt = schedule(t - tau_n,min), and 0 before anything can have arrived.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> weights, delays = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([[0, 2], [0, 0]])
        >>> applied_rates(damjax.schedules.inverse_sqrt(1.0), weights, delays, 3).round(2).tolist()
        [[0.0, 1.0], [0.0, ...], [1.0, ...]]
    """
    interests = as_interests("weights", weights)
    check_count("horizon", horizon)
    check_delays_shape(np.shape(delays), interests.shape)
    check_whole_delays(jnp.asarray(delays).dtype)
    table = jnp.asarray(delays, jnp.int32)
    first = jnp.min(table, axis=1, where=interests.counted, initial=np.iinfo(np.int32).max)
    count = jnp.arange(1, horizon + 1, dtype=jnp.int32)[:, None] - first[None]
    dtype, rates = jnp.asarray(interests.weights).dtype, checked_schedule(schedule, interests.shape[0], "schedule")
    return jax.vmap(lambda count: rates_at(rates, count, dtype))(count)


def path_moves(comparators: Float[ArrayLike, "T N dv df"]) -> Float[Array, "T-1 N"]:
    """||u_{t+1} - u_t|| of moving comparators; their sum over t is the path length.

    Example:
        >>> import jax.numpy as jnp
        >>> path_moves(jnp.array([0.0, 3.0, 3.0]).reshape(3, 1, 1, 1)).tolist()
        [[3.0], [0.0]]
    """
    check_array("comparators", comparators, "T N dv df")
    return root(jnp.sum(jnp.diff(jnp.asarray(comparators), axis=0) ** 2, axis=(2, 3)))


def realised_delay(
    weights: Weights,
    constants: Constants,
    *,
    rates: Float[ArrayLike, "T N"],
    arrivals: Num[ArrayLike, "T N K"],
    moves: Float[ArrayLike, "T-1 N"] | None = None,
) -> Float[Array, "N"]:
    """The bound for delays that are random, change with time, overtake each other or never end.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        constants: L_m and B, see ``constants``.
        rates: eta_nt, (T, N), positive and not increasing over the steps at which something arrives; see
            ``applied_rates``.
        arrivals: entry [s - 1, n, m] is the step at which agent m's gradient at X_ns arrives, >= s; anything beyond T,
            infinity included, is on its way or lost. (T, N, N), or (T, N, K) for sparse weights; ignored where the
            weight is 0. Fractions count as the step after.
        moves: of moving comparators, from ``path_moves``, for a bound on the dynamic regret.

    Returns:
        (N,), differentiable in weights, constants, rates and moves.

    Raises:
        ValueError: shapes that do not meet, rates that grow, arrivals before their issue.

    Example:
        >>> import jax.numpy as jnp
        >>> table, rates = jnp.array([[[1]], [[jnp.inf]]]), jnp.full((2, 1), 0.5)
        >>> realised_delay(jnp.eye(1), Constants(jnp.ones(1), 2.0), rates=rates, arrivals=table).tolist()  # one lost
        [6.25]

    Source: this library; the proof is that of ``weighted_delay``, message by message.
    """
    interests = stochastic_interests("weights", weights)
    check_constants(constants)
    num_agents, _ = interests.shape
    if np.ndim(rates) != 2 or np.shape(constants.lipschitz) != (num_agents,):
        raise ValueError(
            f"rates must have shape (T, {num_agents}) and lipschitz ({num_agents},) to fit weights, but their shapes"
            f" are {np.shape(rates)} and {np.shape(constants.lipschitz)}"
        )
    horizon = np.shape(rates)[0]
    lipschitz = jnp.asarray(constants.lipschitz)
    with jax.numpy_dtype_promotion("standard"):
        messages = jnp.asarray(interests.weights) * interests.heard(lipschitz)
    return _bound(jnp.broadcast_to(messages, (horizon, *messages.shape)), None, constants, rates, arrivals, moves)


def certificate(
    norms: GradientNorms,
    diameter: float | Float[ArrayLike, ""],
    *,
    rates: Float[ArrayLike, "T N"],
    arrivals: Num[ArrayLike, "T N K"],
    moves: Float[ArrayLike, "T-1 N"] | None = None,
) -> Float[Array, "N"]:
    """A bound on the regret of a finished run from its own gradients, far tighter than from constants.

    Holds for plain projected steps X - eta g, without an optax transformation in between, from an X_1 of the set.

    Args:
        norms: what ``observe_gradient_norms`` kept of the run, T steps; the first T steps of a longer run certify T.
        diameter: B.
        rates: as for ``realised_delay``, those of the run.
        arrivals: as for ``realised_delay``, those of the run.
        moves: as for ``realised_delay``.

    Returns:
        (N,).

    Raises:
        ValueError: as for ``realised_delay``.

    Example:
        >>> import jax, damjax, jax.numpy as jnp
        >>> objective, ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(20.0)
        >>> weights, delays = jnp.full((2, 2), 0.5), jnp.array([[0, 2], [2, 0]])
        >>> schedule = damjax.schedules.inverse_sqrt(1.0)
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=50)
        >>> run = damjax.dam_togd(objective, weights, delays, learning_rate=schedule, domain=ball)
        >>> _, norms = damjax.simulate(run, jnp.zeros((2, 5, 5)), stream,
        ...     observe=observe_gradient_norms(objective, weights))
        >>> certificate(norms, ball.diameter, rates=applied_rates(schedule, weights, delays, 50),
        ...     arrivals=arrivals(delays, 50)).shape
        (2,)
    """
    check_instance(
        "norms", norms, GradientNorms, "observe with damjax.bounds.observe_gradient_norms(objective, weights)"
    )
    check_array("diameter", diameter, "")
    check_array("norms.messages", norms.messages, "T N K")
    messages, applied = (jnp.asarray(array) for array in norms)
    known = Constants(jnp.zeros(messages.shape[1], messages.dtype), diameter)
    return _bound(messages, applied, known, rates, arrivals, moves)


def observe_gradient_norms(
    objective: Objective, weights: Weights
) -> Callable[[Array, Associations, Info], GradientNorms]:
    """An observer for ``simulate`` that keeps what ``certificate`` needs.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> observe = observe_gradient_norms(damjax.objectives.delta_net(), jnp.eye(1))
        >>> algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(1), learning_rate=1.0,
        ...     domain=damjax.domains.unconstrained())
        >>> stream = damjax.Associations(jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), 3.0))
        >>> damjax.simulate(algorithm, jnp.zeros((1, 1, 1)), stream, observe=observe)[1].messages.tolist()
        [[[3.0]]]
    """
    check_objective_kind(objective)
    as_interests("weights", weights)

    def observe(params: Float[Array, "N dv df"], associations: Associations, info: Info) -> GradientNorms:
        interests = as_interests("weights", weights, params.shape[0]).astype(params.dtype)
        features, residuals = recall(objective, objective.residual, params, associations, interests, info.time)
        cues = interests.heard(features)
        ridge = ridge_coefficients(objective, associations, info.time, params)
        if ridge is None:
            squared = jnp.sum(residuals**2, axis=-1) * jnp.sum(cues**2, axis=-1)
        else:
            heard = interests.heard(jnp.broadcast_to(ridge, (params.shape[0], *ridge.shape[1:])))
            gradients = residuals[..., :, None] * cues[..., None, :] + heard * params[:, None]
            squared = jnp.sum(gradients**2, axis=(-2, -1))
        return GradientNorms(interests.weights * heeded(interests.weights, root(squared)), info.grad_norm)

    return observe


def _bound(
    messages: Array,
    applied: Array | None,
    known: Constants,
    rates: ArrayLike,
    table: ArrayLike,
    moves: ArrayLike | None,
) -> Float[Array, "N"]:
    horizon, num_agents, _ = messages.shape
    _check_table(messages, rates, table, moves)
    if (width := concrete(known.diameter)) is not None:
        check_positive("diameter", width, allow_zero=True)
    messages = messages.astype(jnp.result_type(messages, float))
    rates, diameter = jnp.asarray(rates, messages.dtype), jnp.asarray(known.diameter, messages.dtype)
    # Whatever comes too late has one place, behind the horizon.
    times = jnp.arange(1, horizon + 1, dtype=jnp.int32)
    when = jnp.ceil(jnp.asarray(table, messages.dtype))
    late = ~((when <= horizon) & (when >= times[:, None, None].astype(when.dtype)))
    arrive = jnp.where(late, horizon + 1, when).astype(jnp.int32)
    if moves is None:
        moves = jnp.zeros((horizon - 1, num_agents), messages.dtype)

    def agent(
        messages: Array, applied: Array | None, rates: Array, arrive: Array, late: Array, moves: Array
    ) -> Float[Array, ""]:
        landed = (
            jnp.zeros((horizon + 2, 2), messages.dtype)
            .at[arrive]
            .add(jnp.stack([messages, (messages > 0).astype(messages.dtype)], axis=-1))[1 : horizon + 1]
        )
        steps = landed[:, 0] if applied is None else applied
        used = landed[:, 1] > 0
        last = jnp.min(jnp.where(used, rates, jnp.inf))
        inverse_last = jnp.where(jnp.any(used), 1 / last, 0)
        # Distance that the memory, and the comparator, can have covered before step t, at index t - 1.
        covered = jnp.concatenate([jnp.zeros(1, rates.dtype), running_sums(rates * steps)])
        strayed = jnp.concatenate([jnp.zeros(1, rates.dtype), running_sums(moves), jnp.zeros(1, rates.dtype)])
        apart = covered + strayed
        waited = jnp.where(late, diameter, apart[arrive - 1] - apart[times - 1][:, None])
        travel = (diameter**2 / 2 + diameter * total(moves)) * inverse_last
        return travel + 0.5 * total(rates * steps**2) + total(jnp.sum(messages * waited, axis=1))

    over_agents = jax.vmap(agent, in_axes=(1, None if applied is None else 1, 1, 1, 1, 1))
    return over_agents(messages, applied, rates, arrive, late, jnp.asarray(moves, messages.dtype))


def _check_table(messages: Array, rates: ArrayLike, table: ArrayLike, moves: ArrayLike | None) -> None:
    horizon, num_agents, _ = messages.shape
    expected = {"arrivals": (table, messages.shape), "rates": (rates, (horizon, num_agents))}
    if moves is not None:
        expected["moves"] = (moves, (horizon - 1, num_agents))
        if (lengths := concrete(moves)) is not None:
            check_positive("moves", lengths, allow_zero=True)
    for name, (array, wanted) in expected.items():
        if np.shape(array) != wanted:
            raise ValueError(f"{name} must have shape {wanted} to fit T and N, but its shape is {np.shape(array)}")
    times, sent = concrete(table), concrete(messages)
    if times is not None and sent is not None:
        early = (times < np.arange(1, horizon + 1)[:, None, None]) & (sent > 0)
        if np.any(early):
            step, agent, other = np.argwhere(early)[0]
            raise ValueError(
                f"arrivals must not be before their issue, but arrivals[{step}, {agent}, {other}] is"
                f" {times[step, agent, other]}, and that message sets out at step {step + 1} (steps count from 1)"
            )
    if (given := concrete(rates)) is not None:
        # A rate of zero stands for a step at which nothing can have arrived yet.
        least_so_far = np.minimum.accumulate(np.where(given > 0, given, np.inf), axis=0)
        growing = given[1:] > least_so_far[:-1] * (1 + 1e-6)
        if np.any(given < 0) or not np.all(np.isfinite(given)) or np.any(growing):
            raise ValueError("rates must be finite, non-negative and, once positive, must not increase with time")
