"""Bounds from a table of issue and arrival times: any delays at all, and certificates of finished runs.

Message q = (m, s) carries agent m's gradient at X_ns, set out at step s, and arrives at a_q, or never. Where regret
comes from, agent by agent:

    Reg_n <= B^2 / (2 eta_T) + 1/2 sum_t eta_t kappa_t^2
             + sum_{a_q <= T} G_q sum_{s <= u < a_q} eta_u kappa_u + B sum_{a_q > T} G_q

with G_q = w_nm L_m a bound on the message's gradient, and kappa_t, the sum of G_q over what arrives at t, a bound on
the gradient applied at t; or, after the run, with the norms themselves. Assumptions: those of ``damjax.bounds``, and
that what arrives has the weight that the losses have; of a run that makes up for lost answers (``reweight=True``) only
the mean over losses is bounded, by ``expected_delay``. In a network that changes G_q has the weight of step s, nothing
arrives at an absent agent, and its memory is kept meanwhile (``absent="keep"``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from damjax._arrays import pairwise_sum, root, running_sums, zero_unweighted
from damjax._checks import (
    check_array,
    check_count,
    check_delays_shape,
    check_instance,
    check_positive,
    check_whole_delays,
    concrete,
)
from damjax.algorithms.rates import checked_schedule, rates_at
from damjax.bounds.lipschitz import Constants, check_constants
from damjax.evaluation import pairs
from damjax.objectives import MemoryLoss, as_objective
from damjax.types import ArrayLike, Associations, Info, LearningRate
from damjax.weights.epochs import EpochInterests, EpochWeights, changing_interests
from damjax.weights.interests import Weights

__all__ = [
    "GradientNorms",
    "applied_rates",
    "arrivals",
    "certificate",
    "observe_gradient_norms",
    "path_moves",
    "realised_delay",
]


class GradientNorms(NamedTuple):
    """The gradients of a run, as ``observe_gradient_norms`` keeps them.

    Attributes:
        messages: ||w_nm grad f_ms(X_ns)||, by the step s at which the message sets out, (T, N, N),
            or (T, N, K) for sparse weights.
        applied: the norm of the aggregated gradient that agent n applies at t, (T, N).
        present: who takes part, (T, N); None where everybody always does. What arrives at an absent agent is lost.
    """

    messages: Float[ArrayLike, "T N K"]
    applied: Float[ArrayLike, "T N"]
    present: Bool[ArrayLike, "T N"] | None = None


def arrivals(delays: Int[ArrayLike, "*T N K"], horizon: int) -> Int[Array, "T N K"]:
    """The table of a delay: entry [s - 1, n, m] is s + tau_nm, the step at which that message arrives.

    Args:
        delays: round trips tau, a table (N, K) of fixed ones; or (T, N, K), entry [s - 1, n, m] of the question of step
            s, as ``law.table(T, shape)`` and ``timeline.table(T)`` give them. Negative for what is lost.
        horizon: T, steps.

    Returns:
        (T, N, K); the largest integer where a message is lost.

    Raises:
        ValueError: delays of another shape or for fewer steps.

    Example:
        >>> import jax.numpy as jnp
        >>> arrivals(jnp.array([[0, 2], [2, 0]]), 3)[:, 0].tolist()
        [[1, 3], [2, 4], [3, 5]]
        >>> arrivals(jnp.array([[[2]], [[0]], [[-1]]]), 3).ravel().tolist()  # the first two at once, the last never
        [3, 2, ...]
    """
    _check_is_table(delays)
    check_array("delays", delays, "T N K" if np.ndim(delays) == 3 else "N K")
    check_count("horizon", horizon)
    table = jnp.asarray(delays)
    # No type of few bits, which a long horizon would overflow.
    table = table.astype(int) if jnp.issubdtype(table.dtype, jnp.integer) else table
    issued = jnp.arange(1, horizon + 1, dtype=table.dtype)[:, None, None]
    if table.ndim == 2:
        table = table[None]
    elif len(table) < horizon:
        raise ValueError(
            f"delays must have one table (N, K) for each of the {horizon} steps of horizon, but it has {len(table)}"
        )
    else:
        table = table[:horizon]
    return jnp.where(table >= 0, issued + table, _never(table.dtype))


def _check_is_table(delays: Any) -> None:
    if callable(delays) or hasattr(delays, "table"):
        raise ValueError(
            f"delays must be a table of round trips, but it is a {type(delays).__name__}; damjax.channels.Law has"
            f" law.table(horizon, (N, N)), a Timeline has timeline.table(horizon), and a function of the time is mapped"
            f" by jax.vmap(delays)(jnp.arange(1, horizon + 1))"
        )


def _never(dtype: np.dtype) -> int | float:
    return np.iinfo(dtype).max if jnp.issubdtype(dtype, jnp.integer) else np.inf


def applied_rates(
    schedule: LearningRate, weights: Weights | EpochWeights, delays: Int[ArrayLike, "*T N K"], horizon: int
) -> Float[Array, "T N"]:
    """The rates of a DAM-TOGD run: the schedule of the steps since the first arrival, and 0 before it.

    For fixed delays eta_nt = schedule(t - tau_n,min). Steps in which an agent is absent are not counted.

    Args:
        schedule: the learning rate of the run.
        weights: W, (N, N), or SparseWeights, or EpochWeights.
        delays: as for ``arrivals``, those of the run.
        horizon: T, steps.

    Returns:
        (T, N).

    Raises:
        ValueError: shapes that do not meet, delays that are no integers.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> weights, delays = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([[0, 2], [0, 0]])
        >>> applied_rates(damjax.schedules.inverse_sqrt(1.0), weights, delays, 3).round(2).tolist()
        [[0.0, 1.0], [0.0, ...], [1.0, ...]]
    """
    changing = changing_interests("weights", weights)
    check_count("horizon", horizon)
    changes = isinstance(changing, EpochInterests)
    # Of fixed round trips those of the first step are the first to arrive.
    arrive = arrivals(delays, horizon if changes or np.ndim(delays) == 3 else 1)
    check_delays_shape(np.shape(delays)[-2:], changing.shape)
    check_whole_delays(jnp.asarray(delays).dtype)
    if isinstance(changing, EpochInterests):
        count = _steps_since_the_first_heard(changing, arrive)
    else:
        first = jnp.min(arrive, axis=(0, 2), where=changing.mask[None], initial=_never(arrive.dtype))
        count = jnp.arange(1, horizon + 1, dtype=first.dtype)[:, None] - first[None] + 1
    dtype = jnp.asarray(changing.at(jnp.asarray(1)).weights).dtype
    rates = checked_schedule(schedule, changing.shape[0], "schedule")
    return jax.vmap(lambda count: rates_at(rates, count, dtype))(jnp.maximum(count, 0).astype(jnp.int32))


def _steps_since_the_first_heard(changing: EpochInterests, arrive: Int[Array, "T N K"]) -> Int[Array, "T N"]:
    """The clocks after every step, of agents that are absent at times: then nothing arrives and no step counts."""
    horizon, num_agents, _ = arrive.shape
    times = jnp.arange(1, horizon + 1)
    wanted, present = jax.vmap(lambda time: (changing.at(time).mask, changing.present_at(time)))(times)
    places = jnp.where(wanted & (arrive <= horizon), arrive - 1, horizon)
    heard = jnp.zeros((horizon, num_agents), bool).at[places, jnp.arange(num_agents)[:, None]].set(True, mode="drop")
    runs = jax.lax.associative_scan(jnp.logical_or, heard & present) & present
    return jnp.cumsum(runs, axis=0, dtype=jnp.int32)


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
    weights: Weights | EpochWeights,
    constants: Constants,
    *,
    rates: Float[ArrayLike, "T N"],
    arrivals: Num[ArrayLike, "T N K"],
    moves: Float[ArrayLike, "T-1 N"] | None = None,
) -> Float[Array, "N"]:
    """The bound for delays that are random, change with time, overtake each other or never end.

    Of networks that change too, if absent agents keep their memories (``absent="keep"``).

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights, or EpochWeights.
        constants: L_m and B, see ``constants``.
        rates: eta_nt, (T, N), non-negative and, once positive, not increasing with time; 0 while nothing can have
            arrived. See ``applied_rates``.
        arrivals: entry [s - 1, n, m] is the step at which agent m's gradient at X_ns arrives, >= s; anything beyond T,
            infinity included, is on its way or lost. What arrives at an absent agent counts as lost. (T, N, N), or
            (T, N, K) for sparse weights; ignored where the weight is 0. Fractions count as the step after.
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
    changing = changing_interests("weights", weights)
    check_constants(constants)
    num_agents, _ = changing.shape
    if np.ndim(rates) != 2 or np.shape(constants.lipschitz) != (num_agents,):
        raise ValueError(
            f"rates must have shape (T, {num_agents}) and lipschitz ({num_agents},) to fit weights, but their shapes"
            f" are {np.shape(rates)} and {np.shape(constants.lipschitz)}"
        )
    horizon = np.shape(rates)[0]
    lipschitz = jnp.asarray(constants.lipschitz)

    def sent(time: ArrayLike) -> Float[Array, "N K"]:
        interests = changing.at(time)
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(interests.weights) * interests.gather(lipschitz)

    times = jnp.arange(1, horizon + 1)
    messages = jax.vmap(sent)(times)
    present = jax.vmap(changing.present_at)(times) if isinstance(changing, EpochInterests) else None
    return _bound(messages, None, present, constants, rates, arrivals, moves)


def certificate(
    norms: GradientNorms,
    diameter: float | Float[ArrayLike, ""],
    *,
    rates: Float[ArrayLike, "T N"],
    arrivals: Num[ArrayLike, "T N K"],
    moves: Float[ArrayLike, "T-1 N"] | None = None,
) -> Float[Array, "N"]:
    """A bound on the regret of a finished run from its own gradients, far tighter than from constants.

    A theorem under the assumptions of ``damjax.bounds``: convex losses, X_1 in the set, plain projected steps X - eta g
    without an optax transformation, rates that do not increase. It is none of runs with ``reweight`` or ``answers``,
    which are right in the mean only, of ``damjax.channels.periodic``, whose gradients are those of older memories, or
    with ``absent="empty"``, where a memory moves without a gradient.

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
    messages, applied = jnp.asarray(norms.messages), jnp.asarray(norms.applied)
    for name in ("applied", "present"):
        field = getattr(norms, name)
        if field is not None and np.shape(field) != messages.shape[:2]:
            raise ValueError(
                f"norms.{name} must have shape (T, N) = {messages.shape[:2]} to fit norms.messages, but its shape is"
                f" {np.shape(field)}; cut all fields at once, jax.tree.map(lambda field: field[:T], norms)"
            )
    constants = Constants(jnp.zeros(messages.shape[1], messages.dtype), diameter)
    return _bound(messages, applied, norms.present, constants, rates, arrivals, moves)


def observe_gradient_norms(
    objective: MemoryLoss, weights: Weights | EpochWeights
) -> Callable[[Any, Associations, Info], GradientNorms]:
    """An observer for ``simulate`` that keeps what ``certificate`` needs, by the weights of the run.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> observe = observe_gradient_norms(damjax.objectives.delta_net(), jnp.eye(1))
        >>> algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(1), learning_rate=1.0,
        ...     domain=damjax.domains.unconstrained())
        >>> stream = damjax.Associations(jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), 3.0))
        >>> damjax.simulate(algorithm, jnp.zeros((1, 1, 1)), stream, observe=observe)[1].messages.tolist()
        [[[3.0]]]
    """
    of_loss, changing = as_objective(objective), changing_interests("weights", weights)

    def observe(params: Any, associations: Associations, info: Info) -> GradientNorms:
        every = pairs(of_loss, changing.at(info.time), params, associations, info.time)
        weights = every.interests.weights
        messages = weights * zero_unweighted(weights, every.gradient_norms())
        return GradientNorms(messages, info.grad_norm, changing.present_at(info.time))

    return observe


def _bound(
    messages: Array,
    applied: Array | None,
    present: ArrayLike | None,
    constants: Constants,
    rates: ArrayLike,
    table: ArrayLike,
    moves: ArrayLike | None,
) -> Float[Array, "N"]:
    horizon, num_agents, _ = messages.shape
    _check_table(messages, rates, table, moves)
    if (width := concrete(constants.diameter)) is not None:
        check_positive("diameter", width, allow_zero=True)
    messages = messages.astype(jnp.result_type(messages, float))
    rates, diameter = jnp.asarray(rates, messages.dtype), jnp.asarray(constants.diameter, messages.dtype)
    # Whatever comes too late has one place, behind the horizon.
    times = jnp.arange(1, horizon + 1, dtype=jnp.int32)
    when = jnp.ceil(jnp.asarray(table, messages.dtype))
    late = ~((when <= horizon) & (when >= times[:, None, None].astype(when.dtype)))
    if present is not None:
        there = jnp.asarray(present)[jnp.clip(when, 1, horizon).astype(jnp.int32) - 1, jnp.arange(num_agents)[:, None]]
        late = late | ~there
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
        travel = (diameter**2 / 2 + diameter * pairwise_sum(moves)) * inverse_last
        return travel + 0.5 * pairwise_sum(rates * steps**2) + pairwise_sum(jnp.sum(messages * waited, axis=1))

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
    if (values := concrete(rates)) is not None:
        # A rate of zero stands for a step at which nothing can have arrived yet.
        least_so_far = np.minimum.accumulate(np.where(values > 0, values, np.inf), axis=0)
        growing = values[1:] > least_so_far[:-1] * (1 + 1e-6)
        if np.any(values < 0) or not np.all(np.isfinite(values)) or np.any(growing):
            raise ValueError("rates must be finite, non-negative and, once positive, must not increase with time")
