"""The step that all algorithms share: exchange -> transform -> project."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from damjax._arrays import beside, dtype_of, root
from damjax._checks import brief, check_choice, check_instance
from damjax._laws import check_domain
from damjax.algorithms.rates import checked_schedule, rates_at
from damjax.algorithms.transforms import check_downhill, checked_transform, select, transformed
from damjax.channels.channel import Arrivals, Channel
from damjax.domains import Domain, as_domain
from damjax.types import Algorithm, Associations, Info, LearningRate

__all__ = ["State", "descend", "describe"]

ABSENT = ("keep", "empty")


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        step: steps made so far, ().
        params: the memories X, (N, dv, df), or a pytree whose leaves have a leading N.
        clock: of every agent's rate, (N,): steps since its first gradient arrived, that step included and those in
            which it was absent not; 0 before it.
        transform: state of the gradient transformation, one per agent.
        box: what the channel keeps, the gradients that are under way.
    """

    step: Int[Array, ""]
    params: Any
    clock: Int[Array, "N"]
    transform: optax.OptState
    box: Any


def _unchanged(params: Any) -> Any:
    return params


def _zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


def descend(
    channel: Channel,
    *,
    learning_rate: LearningRate,
    domain: Domain,
    transform: optax.GradientTransformation | None = None,
    before: Callable[[Any], Any] = _unchanged,
    after: Callable[[Any], Any] = _unchanged,
    absent: str = "keep",
) -> Algorithm:
    """Projected online gradient descent on what a channel brings.

        X_n,t+1 = P[X_nt - eta_n(clock_nt) g_nt],   g_nt the gradients that arrive for agent n at step t

    Args:
        channel: from ``damjax.channels``.
        learning_rate: a number is a constant rate; a schedule maps the clock's count (N,) to rates. No array: see
            ``damjax.schedules``.
        domain: the feasible set, P its projection.
        transform: an optax transformation between the aggregated gradient and the step; see ``damjax.ogd``.
        before: of the memories, what the step sets out from, such as an average over neighbours.
        after: of the projected memories, what becomes of them.
        absent: what becomes of the memory of an agent that takes no part in a step: "keep" leaves it as it is, "empty"
            makes it zeros (the point of the set that is nearest to them), for which no bound holds.

    Returns:
        An Algorithm; its state is a State.

    Raises:
        ValueError: a rate, a set or a transformation that is none; at init, memories that don't fit channel and set.

    Example:
        >>> import damjax
        >>> objective, weights = damjax.objectives.delta_net(), jnp.full((3, 3), 1 / 3)
        >>> channel = damjax.channels.full_information(objective, weights)
        >>> algorithm = descend(channel, learning_rate=0.1, domain=damjax.domains.frobenius_ball(20.0))
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=20)
        >>> state, _ = damjax.simulate(algorithm, jnp.zeros((3, 5, 5)), stream)
        >>> state.clock.tolist()
        [20, 20, 20]
    """
    domain = as_domain(domain)
    check_choice("absent", absent, ABSENT)
    schedule, transform = checked_schedule(learning_rate, channel.num_agents), checked_transform(transform)

    def beginning(params: Any) -> State:
        box = channel.init(params)
        # A weak type would change after the first step.
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), params)
        clock = jnp.zeros(channel.num_agents, jnp.int32)
        return State(jnp.zeros((), jnp.int32), params, clock, jax.vmap(transform.init)(params), box)

    def init(params: Any) -> State:
        state = beginning(params)
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.params)
        check_downhill(transform, one)
        check_domain(domain, one)
        return state

    def step(state: State, associations: Associations) -> tuple[State, Info]:
        check_instance("state", state, State, "it comes from this algorithm's init")
        _check_state(state, jax.eval_shape(beginning, state.params))
        time = state.step + 1
        box, gradient, arrivals = channel.exchange(state.box, time, state.params, associations)
        runs = arrivals.any | (state.clock > 0)
        if arrivals.present is not None:
            runs = runs & arrivals.present
        clock = jnp.where(runs, state.clock + 1, state.clock)
        direction, transform_state = transformed(transform, gradient, state.transform, state.params)
        # A transformation that counts or averages starts with the first gradient, as the rate does.
        transform_state = jax.vmap(select)(runs, transform_state, state.transform)
        rates = rates_at(schedule, clock, dtype_of(state.params))
        moved = jax.tree.map(
            lambda old, slope: old - beside(rates.astype(slope.dtype), slope) * slope,
            before(state.params),
            direction,
        )
        projected = jax.vmap(domain.project)(moved)
        if arrivals.present is not None:
            rests = state.params if absent == "keep" else jax.vmap(domain.project)(_zeros(state.params))
            moved, projected = (jax.vmap(select)(arrivals.present, new, rests) for new in (moved, projected))
        params = after(projected)
        info = describe(time, gradient, arrivals, moved, projected)._replace(finite=_finite(params))
        return State(time, params, clock, transform_state, box), info

    return Algorithm(init, step)


def _check_state(state: State, own: State) -> None:
    """Raise where a state of another algorithm is to go on in this one. Static facts only, so it costs no run time."""
    for part, theirs, ours in zip(State._fields, state, own, strict=True):
        held, expected = (jax.tree.map(_described, tree) for tree in (theirs, ours))
        if held != expected:
            raise ValueError(
                f"state must come from this algorithm, but its {part} is {brief(held)} and that of this algorithm's"
                f" init {brief(expected)}; declare the same objective, weights, max_delay and transform for every part"
                f" of a run"
            )


def _described(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def describe(time: Int[Array, ""], gradient: Any, arrivals: Arrivals, moved: Any, projected: Any) -> Info:
    """What a person wants to see of a step.

    Args:
        time: the step that was made, 1-based.
        gradient: the gradients that were applied, as the memories.
        arrivals: what the channel says of them.
        moved: the memories before the projection.
        projected: the memories after it, which are those after the step.

    Returns:
        An Info.

    Example:
        >>> import damjax
        >>> objective, params = damjax.objectives.delta_net(), jnp.zeros((1, 1, 1))
        >>> channel = damjax.channels.full_information(objective, jnp.eye(1))
        >>> seen = Associations(jnp.ones((1, 1)), jnp.full((1, 1), 3.0))
        >>> _, gradient, arrivals = channel.exchange(channel.init(params), jnp.asarray(1), params, seen)
        >>> info = describe(jnp.asarray(1), gradient, arrivals, params - gradient, params - gradient)
        >>> info.grad_norm.tolist(), info.num_applied.tolist(), info.projected.tolist()
        ([3.0], [1], [False])
    """
    squares = jax.tree.map(lambda leaf: jnp.sum(leaf**2, axis=_of_one(leaf)), gradient)
    clipped = jax.tree.map(lambda a, b: jnp.any((a != b) & jnp.isfinite(a), axis=_of_one(a)), moved, projected)
    return Info(
        time=time,
        grad_norm=root(jax.tree.reduce(jnp.add, squares)),
        num_applied=arrivals.number,
        projected=jax.tree.reduce(jnp.logical_or, clipped),
        finite=_finite(projected),
        max_age=arrivals.max_age,
        num_lost=arrivals.lost,
        mean_age=arrivals.mean_age,
        reweighting_variance=arrivals.reweighting_variance,
    )


def _finite(params: Any) -> Bool[Array, "N"]:
    finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf), axis=_of_one(leaf)), params)
    return jax.tree.reduce(jnp.logical_and, finite)


def _of_one(leaf: Array) -> tuple[int, ...]:
    """The axes of one agent's leaf."""
    return tuple(range(1, leaf.ndim))
