"""The online algorithms: full-information OGD, consensus C-DOGD and DAM-TOGD.

Each factory returns an ``Algorithm``, a pair of pure functions; its state holds all that the next step needs, the delay
queues included. Factories may be called inside jit, vmap and grad with traced rates, weights and delays: what can be
checked is checked when it is concrete.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from damjax import delays as queues
from damjax._checks import (
    check_choice,
    check_count,
    check_delays,
    check_delays_shape,
    check_doubly_stochastic,
    check_instance,
    check_square,
    check_whole_delays,
)
from damjax._contractions import contract, heeded, mix
from damjax._layouts import Weights, stochastic_interests
from damjax._steps import (
    OgdState as OgdState,
)
from damjax._steps import (
    check_associations,
    check_parts,
    checked_schedule,
    checked_transform,
    init_state,
    make_info,
    rates_at,
    recall,
    ridge_coefficients,
    select,
    transformed,
)
from damjax._types import (
    Algorithm,
    ArrayLike,
    Associations,
    Info,
    LearningRate,
    concrete,
)
from damjax.domains import Domain
from damjax.objectives import Objective

ORDERS = ("adapt_then_combine", "combine_then_adapt")


def ogd(
    objective: Objective,
    weights: Weights,
    *,
    learning_rate: LearningRate,
    domain: Domain,
    transform: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Full-information online gradient descent: every agent sees every association at once.

        X_n <- P[X_n - eta_nt sum_m w_nm grad f_mt(X_n)]

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or a ``damjax.weights.SparseWeights``, for large networks.
        learning_rate: a number is a constant rate; a schedule maps the count t, (N,), to rates. No array: see
            ``damjax.schedules``.
        domain: the feasible set, P its projection.
        transform: an optax transformation between the aggregated gradient and the step, applied to each agent by
            itself; what it returns is subtracted, so use the scaling ones (``optax.scale_by_adam()``, ``optax.trace``):
            optimisers, which bring a negative rate, are refused.

    Returns:
        An Algorithm; its state is an OgdState.

    Raises:
        ValueError: weights that are not row-stochastic; at init and step, memories and associations whose
            shapes do not meet.

    Example:
        >>> import jax, damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=20)
        >>> algorithm = ogd(damjax.objectives.delta_net(), jax.numpy.full((3, 3), 1 / 3),
        ...     learning_rate=damjax.schedules.inverse_sqrt(0.3), domain=damjax.domains.frobenius_ball(20.0))
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((3, 5, 5)), stream)
        >>> trace.params.shape
        (20, 3, 5, 5)

    Source: [DAM] eq. 3.
    """
    check_parts(objective, domain)
    wanted = stochastic_interests("weights", weights)
    num_agents, _ = wanted.shape
    schedule, transform = checked_schedule(learning_rate, num_agents), checked_transform(transform)

    def init(params: Float[ArrayLike, "N dv df"]) -> OgdState:
        return init_state(params, num_agents, transform, domain)

    def step(state: OgdState, associations: Associations) -> tuple[OgdState, Info]:
        check_instance("state", state, OgdState, "it comes from this algorithm's init")
        check_associations(state.params, associations, objective)
        interests = wanted.astype(state.params.dtype)
        time = state.step + 1
        features, residuals = recall(objective, objective.residual, state.params, associations, interests, time)
        gradient = interests.gradient(residuals, interests.heard(features), time)
        if (ridge := ridge_coefficients(objective, associations, time, state.params)) is not None:
            gradient = gradient + interests.total(ridge) * state.params
        direction, transform_state = transformed(transform, gradient, state.transform, state.params)
        rates = rates_at(schedule, jnp.broadcast_to(time, (num_agents,)), state.params.dtype)[:, None, None]
        moved = state.params - rates * direction
        params = jax.vmap(domain.project)(moved)
        num_applied = jnp.sum(interests.counted, axis=1, dtype=jnp.int32)
        return OgdState(time, params, transform_state), make_info(time, gradient, num_applied, moved, params)

    return Algorithm(init, step)


def c_dogd(
    objective: Objective,
    mixing: Float[ArrayLike, "N N"],
    *,
    learning_rate: LearningRate,
    domain: Domain,
    order: str = "adapt_then_combine",
    transform: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Consensus distributed OGD: each agent follows its own gradient and averages with its neighbours.

        adapt_then_combine: Z_m = P[X_m - eta_t grad f_mt(X_m)],  X_n <- sum_m a_nm Z_m
        combine_then_adapt: X_n <- P[sum_m a_nm X_m - eta_t grad f_nt(X_n)]

    It never sees the interest weights: all memories are driven to one.

    Args:
        objective: the memory loss f.
        mixing: A, (N, N), doubly stochastic, supported on the links (``damjax.graphs.metropolis_weights``).
        learning_rate: a number is a constant rate; a schedule maps the count t, (N,), to rates. No array: see
            ``damjax.schedules``.
        domain: the feasible set, P its projection.
        order: "adapt_then_combine" or "combine_then_adapt".
        transform: as for ``ogd``.

    Returns:
        An Algorithm; its state is an OgdState. Info reports the own gradient, before the averaging.

    Raises:
        ValueError: a mixing matrix that is not doubly stochastic, an unknown order, shapes that do not meet.

    Example:
        >>> import jax, damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=20)
        >>> mixing = damjax.graphs.metropolis_weights(damjax.graphs.path(3))
        >>> algorithm = c_dogd(damjax.objectives.delta_net(), mixing, learning_rate=0.1,
        ...     domain=damjax.domains.frobenius_ball(20.0))
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((3, 5, 5)), stream)
        >>> int(state.step)
        20

    Source: [DAM] eq. 5.
    """
    check_parts(objective, domain)
    check_square("mixing", np.shape(mixing))
    num_agents = np.shape(mixing)[0]
    check_choice("order", order, ORDERS)
    if (values := concrete(mixing)) is not None:
        check_doubly_stochastic("mixing", values)
    schedule, transform = checked_schedule(learning_rate, num_agents), checked_transform(transform)

    def init(params: Float[ArrayLike, "N dv df"]) -> OgdState:
        return init_state(params, num_agents, transform, domain)

    def step(state: OgdState, associations: Associations) -> tuple[OgdState, Info]:
        check_instance("state", state, OgdState, "it comes from this algorithm's init")
        check_associations(state.params, associations, objective)
        time = state.step + 1
        clock = time.astype(state.params.dtype)
        gradient = jax.vmap(objective.gradient, in_axes=(0, 0, 0, 0, None))(state.params, *associations, clock)
        direction, transform_state = transformed(transform, gradient, state.transform, state.params)
        rates = rates_at(schedule, jnp.broadcast_to(time, (num_agents,)), state.params.dtype)[:, None, None]

        def combine(memories: Float[Array, "N dv df"]) -> Float[Array, "N dv df"]:
            return mix(jnp.asarray(mixing, memories.dtype), memories)

        if order == "adapt_then_combine":
            moved = state.params - rates * direction
            projected = jax.vmap(domain.project)(moved)
            params = combine(projected)
        else:
            moved = combine(state.params) - rates * direction
            projected = params = jax.vmap(domain.project)(moved)
        info = make_info(time, gradient, jnp.ones(num_agents, jnp.int32), moved, projected)
        return OgdState(time, params, transform_state), info

    return Algorithm(init, step)


class DamTogdState(NamedTuple):
    """State of ``dam_togd``; D = max_delay + 1, and K columns, one per interest (K = N for a matrix of weights).

    Attributes:
        step: steps made so far, ().
        params: the memories X, (N, dv, df).
        transform: state of the gradient transformation, one per agent.
        residuals: what is under way to agent n from the agent of column k, dl/dz of its association, (D, N, K, dv).
        features: the other factor of those gradients, phi of agent m's cue, (D, N, df).
        memories: the memories that were sent out, (D, N, dv, df); None for objectives without a ridge part.
        ridges: the ridge coefficients of agent m's associations, (D, N, dv, df); None likewise.
    """

    step: Int[Array, ""]
    params: Float[Array, "N dv df"]
    transform: optax.OptState
    residuals: Float[Array, "D N K dv"]
    features: Float[Array, "D N df"]
    memories: Float[Array, "D N dv df"] | None
    ridges: Float[Array, "D N dv df"] | None


def dam_togd(
    objective: Objective,
    weights: Weights,
    delays: Int[ArrayLike, "N K"],
    *,
    learning_rate: LearningRate,
    domain: Domain,
    max_delay: int | None = None,
    transform: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Distributed associative memory by tree-based online gradient descent: DAM-TOGD.

    Agent n sends X_n,t down its routing tree; agent m evaluates the gradient on the association it stored at t and
    returns it; it arrives tau_nm steps after it was asked for:

        X_n,t+1 = P[X_nt - eta_nt sum_m w_nm 1{t > tau_nm} grad f_m,s(X_ns)],   s = t - tau_nm

    What the queues hold are the residuals and features whose outer products are the gradients, not the (dv, df)
    matrices.

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or a ``damjax.weights.SparseWeights`` with K entries per
            agent, for large networks: time and memory then grow with N K.
        delays: round trips tau, (N, N) integers, (N, K) for sparse weights, even; entries where the (concrete) weight
            is 0 are ignored. See ``damjax.routing.compile_routes``.
        learning_rate: a number is a constant rate; a schedule maps the count t - tau_n,min, (N,), to rates, where
            tau_n,min is the shortest round trip of agent n (0 whenever w_nn > 0). Before that count reaches 1 nothing
            has arrived and the rate is 0. No array: see ``damjax.schedules``.
        domain: the feasible set, P its projection.
        max_delay: what the queues are built for; taken from ``delays`` when it is concrete, needed when it is traced.
            A traced delay that is odd, negative or beyond it turns the agent's memory into NaN rather than read a
            wrong slot.
        transform: as for ``ogd``.

    Returns:
        An Algorithm; its state is a DamTogdState.

    Raises:
        ValueError: weights that are not row-stochastic; delays that are negative, odd or not integers, traced ones
            too: a run has no derivative in its delays, while ``damjax.bounds`` has; a max_delay that is too small, or
            missing while delays is traced; shapes that do not meet.

    Example:
        >>> import jax, damjax
        >>> weights = damjax.weights.dirichlet(jax.random.key(0), 10)
        >>> routes = damjax.routing.compile_routes(damjax.graphs.paper_network(), weights)
        >>> algorithm = dam_togd(damjax.objectives.delta_net(), weights, routes.delays,
        ...     learning_rate=damjax.schedules.inverse_sqrt(0.1), domain=damjax.domains.frobenius_ball(20.0))
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(1), num_steps=50)
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((10, 5, 5)), stream)
        >>> bool(trace.info.finite.all())
        True

    Source: [DAM] eq. 7.
    """
    check_parts(objective, domain)
    wanted = stochastic_interests("weights", weights)
    check_delays_shape(np.shape(delays), wanted.shape)
    known = None if (values := concrete(wanted.weights)) is None else values > 0
    check_whole_delays(jnp.asarray(delays).dtype)
    if max_delay is not None:
        check_count("max_delay", max_delay, allow_zero=True)
    if (table := concrete(delays)) is not None:
        check_delays(table, known, max_delay)
        max_delay = int(np.max(table, where=True if known is None else known, initial=max_delay or 0))
    elif max_delay is None:
        raise ValueError("max_delay must be given when delays is traced (as under vmap), since it is a static length")
    length, transform = max_delay + 1, checked_transform(transform)
    schedule = checked_schedule(learning_rate, wanted.shape[0])

    round_trips = jnp.asarray(delays, jnp.int32)
    possible = (round_trips >= 0) & (round_trips < length) & (round_trips % 2 == 0)
    if table is None:
        # No table of round trips: it would read some other message's slot.
        wanted = wanted._replace(weights=jnp.where(wanted.counted & ~possible, jnp.nan, wanted.weights))
    # Entries without interest may hold anything: what they read is multiplied by a zero weight.
    round_trips = jnp.where(possible, round_trips, 0)
    first_arrival = jnp.min(round_trips, axis=1, where=wanted.counted, initial=max_delay)

    def init(params: Float[ArrayLike, "N dv df"]) -> DamTogdState:
        base = init_state(params, wanted.shape[0], transform, domain)
        num_agents, value_dim, feature_dim = base.params.shape
        dtype = base.params.dtype
        with_ridge = objective.ridge is not None
        return DamTogdState(
            *base,
            residuals=queues.init(length, (*wanted.shape, value_dim), dtype),
            features=queues.init(length, (num_agents, feature_dim), dtype),
            memories=queues.init(length, base.params.shape, dtype) if with_ridge else None,
            ridges=queues.init(length, base.params.shape, dtype) if with_ridge else None,
        )

    def step(state: DamTogdState, associations: Associations) -> tuple[DamTogdState, Info]:
        check_instance("state", state, DamTogdState, "it comes from this algorithm's init")
        check_associations(state.params, associations, objective)
        if state.residuals.shape[0] != length:
            raise ValueError(
                f"state must come from this algorithm: its queues have length {state.residuals.shape[0]}, but max_delay"
                f" + 1 is {length}; declare the same max_delay for every part of a run"
            )
        time = state.step + 1
        interests = wanted.astype(state.params.dtype)
        features, residuals = recall(objective, objective.residual, state.params, associations, interests, time)
        state = state._replace(
            residuals=queues.push(state.residuals, time, residuals),
            features=queues.push(state.features, time, features),
        )
        gradient = interests.gradient(
            state.residuals,
            queues.pop_senders(state.features, time, round_trips, interests.agents),
            time,
            read=lambda queue: queues.pop_pairs(queue, time, round_trips),
        )
        if (ridge := ridge_coefficients(objective, associations, time, state.params)) is not None:
            assert state.memories is not None
            assert state.ridges is not None
            memories = queues.push(state.memories, time, state.params)
            ridges = queues.push(state.ridges, time, jnp.broadcast_to(ridge, state.params.shape))
            state = state._replace(memories=memories, ridges=ridges)
            shrinkage = queues.pop_senders(ridges, time, round_trips, interests.agents)
            asked = queues.pop_receivers(memories, time, round_trips)
            shrunk = heeded(interests.weights, shrinkage * asked)
            gradient = gradient + contract("nk,nkij->nij", interests.weights, shrunk)

        count = time - first_arrival
        direction, transform_state = transformed(transform, gradient, state.transform, state.params)
        # A transformation that counts or averages starts with the first gradient, as the rate does.
        transform_state = jax.vmap(select)(count > 0, transform_state, state.transform)
        rates = rates_at(schedule, count, state.params.dtype)[:, None, None]
        moved = state.params - rates * direction
        params = jax.vmap(domain.project)(moved)
        num_applied = jnp.sum(wanted.counted & (time > round_trips), axis=1, dtype=jnp.int32)
        info = make_info(time, gradient, num_applied, moved, params)
        return state._replace(step=time, params=params, transform=transform_state), info

    return Algorithm(init, step)
