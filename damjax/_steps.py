"""The pieces that every algorithm's step is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from damjax._checks import check_array, check_gates_given, check_instance
from damjax._contractions import sum_last
from damjax._laws import check_domain, check_objective, check_objective_kind, num_features
from damjax._layouts import Interests
from damjax._numerics import promoting, root
from damjax._types import ArrayLike, Associations, Info, LearningRate, Schedule, as_schedule, concrete
from damjax.domains import Domain
from damjax.objectives import Objective


class OgdState(NamedTuple):
    """State of ``ogd`` and ``c_dogd``.

    Attributes:
        step: steps made so far, ().
        params: the memories X, (N, dv, df).
        transform: state of the gradient transformation, one per agent.
    """

    step: Int[Array, ""]
    params: Float[Array, "N dv df"]
    transform: optax.OptState


def check_parts(objective: Objective, domain: Domain) -> None:
    """Raise unless the parts of an algorithm are what their factories make."""
    check_objective_kind(objective)
    check_instance("domain", domain, Domain, "call a factory of damjax.domains, such as frobenius_ball(radius)")


def checked_transform(transform: optax.GradientTransformation | None) -> optax.GradientTransformation:
    """What stands between gradient and step: nothing for None, or a ValueError for what is no transformation."""
    if transform is None:
        return optax.identity()
    check_instance("transform", transform, optax.GradientTransformation, "call one of optax, as optax.scale_by_adam()")
    return transform


def _check_downhill(transform: optax.GradientTransformation, params: Array) -> None:
    """Raise where what is subtracted from a memory would lead uphill, as with transformations that bring a rate."""
    with jax.ensure_compile_time_eval():
        gradient = jnp.ones(params.shape[1:], params.dtype)
        memory = jnp.zeros_like(gradient)
        direction, _ = promoting(transform.update, gradient, transform.init(memory), memory)
    if (first := concrete(direction)) is not None and np.sum(first) < 0:
        raise ValueError(
            "transform must return what is to be subtracted, but its first update points uphill: optimisers of optax"
            " bring a negative rate; leave it out, as optax.scale_by_adam() for optax.adam(rate): learning_rate is it"
        )


def init_state(params: ArrayLike, num_agents: int, transform: optax.GradientTransformation, domain: Domain) -> OgdState:
    """The state before the first step, of memories that were checked."""
    if np.ndim(params) != 3 or np.shape(params)[0] != num_agents:
        raise ValueError(
            f"params must hold one memory per agent, shape ({num_agents}, dv, df), but its shape is {np.shape(params)}"
        )
    check_array("params", params, "N dv df")
    params = jnp.asarray(params, jnp.asarray(params).dtype)  # a weak type would change after the first step
    if not jnp.issubdtype(params.dtype, jnp.floating):
        raise ValueError(f"params must be floating-point, but their dtype is {params.dtype}; use .astype(float)")
    _check_downhill(transform, params)
    check_domain(domain, params.shape[1:], params.dtype)
    return OgdState(jnp.zeros((), jnp.int32), params, jax.vmap(transform.init)(params))


def check_associations(params: Array, associations: Associations, objective: Objective) -> None:
    """Raise unless one step's associations fit. Static facts only, so it costs nothing once compiled."""
    num_agents, value_dim, feature_dim = params.shape
    check_instance(
        "associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes a stream"
    )
    keys, values, gates = associations
    if keys.ndim != 2 or keys.shape[0] != num_agents:
        raise ValueError(
            f"associations.keys must have shape ({num_agents}, dk) at each step, but its shape is {keys.shape};"
            f" simulate takes the whole stream, step one slice of it"
        )
    if values.shape != (num_agents, value_dim):
        raise ValueError(
            f"associations.values must have shape ({num_agents}, {value_dim}) to fit params, but it is {values.shape}"
        )
    for name, array in (("keys", keys), ("values", values), ("gates", gates)):
        if array is not None and array.dtype != params.dtype:
            raise ValueError(
                f"associations.{name} must have the dtype of params, {params.dtype}, but it is {array.dtype};"
                f" cast one of them"
            )
    if (expected := num_features(objective, keys.shape[1:], keys.dtype)) != feature_dim:
        raise ValueError(
            f"params has feature dimension df = {feature_dim}, but the objective maps keys of length {keys.shape[1]} to"
            f" {expected} features; make the memories (N, dv, {expected})"
        )
    check_objective(objective, value_dim, params.dtype)
    check_gates_given(objective.gated, gates)
    if objective.gated and gates is not None:
        shapes = [
            (num_agents,),
            *((num_agents, rows, columns) for rows in (1, value_dim) for columns in (1, feature_dim)),
        ]
        if gates.shape not in shapes:
            raise ValueError(
                f"associations.gates must have shape ({num_agents},), or ({num_agents}, rows, columns) with rows 1 or"
                f" {value_dim} and columns 1 or {feature_dim}, but it is {gates.shape}"
            )


def recall(
    objective: Objective,
    judge: Callable[..., Array],
    params: Array,
    associations: Associations,
    interests: Interests,
    time: Array,
) -> tuple[Float[Array, "M df"], Float[Array, "N K *judgement"]]:
    """Features of every cue, and what ``judge`` says of memory n's recall of every association that it may want.

    ``judge`` is the objective's loss or residual.
    """
    features = jax.vmap(objective.features)(jnp.asarray(associations.keys))
    recalled = interests.recalled(params, features, time)
    dense = interests.agents is None
    values = associations.values if dense else interests.heard(jnp.asarray(associations.values))
    over_columns = jax.vmap(judge, in_axes=(0, 0, None))
    over_pairs = jax.vmap(over_columns, in_axes=(0, None if dense else 0, None))
    judged = over_pairs(recalled, values, time.astype(params.dtype))
    # A cue with a NaN spoils every judgement of it, and the sums of those who want it, and no other sum. Zero or NaN:
    spoiled = interests.heard(sum_last(0 * features))
    judged = judged + spoiled.reshape(*spoiled.shape, *[1] * (judged.ndim - 2))
    return jnp.where(jnp.isfinite(features), features, 0), judged


def ridge_coefficients(
    objective: Objective, associations: Associations, time: Array, params: Array
) -> Float[Array, "#N #dv #df"] | None:
    """The ridge coefficients D of every association, or None where there are none.

    An axis along which they are all the same has length 1: sums over it come first, and whoever needs it broadcasts.
    """
    if objective.ridge is None:
        return None
    check_gates_given(objective.gated, associations.gates)
    clock, ridge = time.astype(params.dtype), objective.ridge

    def matrix(gate: Array | None) -> Float[Array, "#dv #df"]:
        return jnp.atleast_2d(jnp.asarray(ridge(gate, clock), params.dtype))

    return matrix(None)[None] if associations.gates is None else jax.vmap(matrix)(jnp.asarray(associations.gates))


def transformed(
    transform: optax.GradientTransformation, gradient: Array, state: Any, params: Array
) -> tuple[Array, Any]:
    """Each agent's own transformation of its own gradient."""
    direction, state = promoting(jax.vmap(transform.update), gradient, state, params)
    return jnp.asarray(direction), state


def select(condition: Array, new: Any, old: Any) -> Any:
    """``new`` where the condition holds, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def checked_schedule(learning_rate: LearningRate, num_agents: int, name: str = "learning_rate") -> Schedule:
    """The schedule of a learning rate that gives every agent a rate, or a ValueError."""
    schedule = as_schedule(learning_rate, name)
    jax.eval_shape(lambda: rates_at(schedule, jnp.ones(num_agents, jnp.int32), jnp.float32))
    return schedule


def rates_at(schedule: Schedule, count: Int[Array, "N"], dtype: jax.typing.DTypeLike) -> Float[Array, "N"]:
    """Each agent's rate at its own count of steps; 0 while nothing has arrived.

    A schedule sees one count at a time, since those of others (optax's with cases) mix them up, and sees it in at least
    single precision, since half precision has no 257.
    """
    (num_agents,) = count.shape
    counts = jnp.maximum(count, 1).astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)

    def rate(count: Array) -> Array:
        if callable(value := promoting(schedule, count)):
            raise ValueError(f"learning_rate must give numbers, but of a count it makes {value!r}; call the factory")
        return jnp.asarray(value)

    rates = jax.vmap(rate)(counts)
    if rates.shape == (num_agents, num_agents):
        # From constants of every agent it makes the rates of all; an agent's own is on the diagonal.
        rates = jnp.diagonal(rates)
    if rates.shape != (num_agents,):
        raise ValueError(
            f"learning_rate must give one number, or one per agent ({num_agents},), at every count, but it gives rates"
            f" of shape {rates.shape[1:]}; see damjax.schedules"
        )
    return jnp.where(count > 0, rates.astype(dtype), 0)


def make_info(time: Array, gradient: Array, num_applied: Array, moved: Array, params: Array) -> Info:
    """What a person wants to see; ``moved`` is where the step led before the projection."""
    return Info(
        time=time,
        grad_norm=root(jnp.sum(gradient**2, axis=(1, 2))),
        num_applied=num_applied,
        projected=jnp.any((moved != params) & jnp.isfinite(moved), axis=(1, 2)),
        finite=jnp.all(jnp.isfinite(params), axis=(1, 2)),
    )
