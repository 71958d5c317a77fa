"""What the bounds before a run are made of: sums over an agent's interests, and sums of its rates."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from damjax._checks import check_array, check_delays_shape, check_positive, concrete
from damjax.bounds.lipschitz import Constants, check_constants
from damjax.bounds.sums import Scalar, harmonic_number
from damjax.types import ArrayLike
from damjax.weights.interests import Weights, stochastic_interests

__all__ = [
    "Ingredients",
    "PerAgent",
    "Rates",
    "check_horizon",
    "checked_count",
    "ingredients",
    "rates_until",
    "travel",
    "without_delays",
]

PerAgent = Scalar | Num[ArrayLike, "N"]


class Ingredients(NamedTuple):
    """What the bounds see of each agent's interests W_n, (N,) where no other shape is said."""

    messages: Array  # w_nm L_m, (N, K)
    round_trips: Array  # tau_nm, 0 where there is no interest, (N, K)
    mean_slope: Array  # Lbar
    late_slope: Array  # Lbar tbar
    steepest: Array  # K
    slopes: Array  # sum of L_m over W_n
    delays: Array  # sum of tau_nm over W_n
    members: Array  # |W_n|
    shortest: Array
    longest: Array
    diameter: Array  # ()


def ingredients(
    weights: Weights, delays: Num[ArrayLike, "N K"], constants: Constants, *, name: str = "delays"
) -> Ingredients:
    """The sums over interests, or a ValueError for what is out of range.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        delays: shaped like the weights, any numbers >= 0; ignored where the weight is 0.
        constants: L_m and B.
        name: of the delays, where an error speaks of them.
    """
    check_array(name, delays, "N K")
    return _ingredients(weights, delays, constants, name)


def without_delays(weights: Weights, constants: Constants) -> Ingredients:
    """The same where everything arrives at once."""
    return _ingredients(weights, None, constants, "delays")


def _ingredients(weights: Weights, delays: ArrayLike | None, constants: Constants, name: str) -> Ingredients:
    check_constants(constants)
    if len(shape := np.shape(constants.lipschitz)) != 1:
        raise ValueError(f"lipschitz must hold one constant per agent, shape (N,), but its shape is {shape}")
    interests = stochastic_interests("weights", weights, shape[0])
    for field in Constants._fields:
        if (numbers := concrete(getattr(constants, field))) is not None:
            check_positive(field, numbers, allow_zero=True)
    _check_size("diameter", constants.diameter, None)
    slope = jnp.asarray(constants.lipschitz)
    # Whole numbers are no dtype for weights.
    slope = slope if jnp.issubdtype(slope.dtype, jnp.floating) else slope.astype(float)
    member, slope = interests.mask, interests.gather(slope)
    if delays is None:
        late = table = jnp.zeros(interests.shape, slope.dtype)
    else:
        check_delays_shape(np.shape(delays), interests.shape, name)
        table = jnp.asarray(delays).astype(slope.dtype)
        late = jnp.where(member, table, 0)
        if (numbers := concrete(late)) is not None:
            check_positive(name, numbers, allow_zero=True)
    messages = interests.astype(slope.dtype).weights * slope
    return Ingredients(
        messages=messages,
        round_trips=late,
        mean_slope=jnp.sum(messages, axis=1),
        # An interest of weight 0 has a derivative too, at the delay that it would have.
        late_slope=jnp.sum(messages * jnp.where(jnp.isfinite(table), table, 0), axis=1),
        steepest=jnp.max(messages, axis=1),
        slopes=jnp.sum(jnp.where(member, slope, 0), axis=1),
        delays=jnp.sum(late, axis=1),
        members=jnp.sum(member, axis=1).astype(slope.dtype),
        shortest=jnp.min(late, axis=1, where=member, initial=jnp.inf),
        longest=jnp.max(late, axis=1),
        diameter=jnp.asarray(constants.diameter, slope.dtype),
    )


class Rates(NamedTuple):
    """Of eta_j = c j^(-beta), j <= J: the sum, and 1 / eta_J; both 0 where J is none."""

    sum: Array
    inverse_last: Array


def rates_until(
    scale: PerAgent, exponent: Scalar, horizon: Scalar, agents: Ingredients, shift: ArrayLike | float = 0.0
) -> Rates:
    """For J = T + shift."""
    _check_size("scale", scale, agents.mean_slope.shape[0])
    if (value := concrete(scale)) is not None:
        check_positive("scale", value)
    exponent, count = checked_count(exponent, horizon, agents, shift)
    scale = jnp.asarray(scale, count.dtype)
    # Before anything arrives the sum is empty; its power of zero has no slope, so it is not evaluated.
    started = count > 0
    return Rates(
        sum=jnp.where(started, scale * harmonic_number(jnp.where(started, count, 0), exponent), 0),
        inverse_last=jnp.where(started, jnp.where(started, count, 1) ** exponent / scale, 0),
    )


def checked_count(
    exponent: Scalar, horizon: Scalar, agents: Ingredients, shift: ArrayLike | float
) -> tuple[Float[Array, ""], Float[Array, "..."]]:
    """Beta, and J = T + shift, in the dtype of the bound."""
    check_horizon(horizon)
    _check_size("exponent", exponent, None)
    check_array("exponent", exponent, "")
    if (value := concrete(exponent)) is not None and not np.all((value >= 0) & (value < 1)):
        raise ValueError(f"exponent must lie in [0, 1) for sublinear regret, but it is {value}; 0.5 is the best")
    dtype = agents.mean_slope.dtype
    return jnp.asarray(exponent, dtype), jnp.asarray(horizon, dtype) + shift


def check_horizon(horizon: Scalar) -> None:
    """Raise unless it is one number, and not negative."""
    _check_size("horizon", horizon, None)
    if (value := concrete(horizon)) is not None:
        check_positive("horizon", value, allow_zero=True)


def travel(agents: Ingredients, path_length: PerAgent) -> Array:
    """B^2 / 2 + B P: what a unit of inverse rate costs, against a comparator that moves by P."""
    _check_size("path_length", path_length, agents.mean_slope.shape[0])
    if (value := concrete(path_length)) is not None:
        check_positive("path_length", value, allow_zero=True)
    return agents.diameter**2 / 2 + agents.diameter * jnp.asarray(path_length, agents.mean_slope.dtype)


def _check_size(name: str, number: PerAgent, num_agents: int | None) -> None:
    """Raise unless it is one number, or one per agent where that is allowed."""
    shape = np.shape(number)
    if shape != () and (num_agents is None or shape != (num_agents,)):
        allowed = "one number" if num_agents is None else f"one number or one per agent, shape ({num_agents},)"
        raise ValueError(f"{name} must be {allowed}, but its shape is {shape}; map over several with jax.vmap")
