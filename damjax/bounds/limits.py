"""What no algorithm can promise to stay below."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from damjax.bounds.ingredients import check_horizon, ingredients
from damjax.bounds.lipschitz import Constants
from damjax.bounds.sums import Scalar
from damjax.types import ArrayLike
from damjax.weights.interests import Weights

__all__ = ["lower"]


def lower(
    weights: Weights, delays: Num[ArrayLike, "N K"], constants: Constants, *, horizon: Scalar
) -> Float[Array, "N"]:
    """A regret that some losses force on every algorithm that hears so late: (B L / 2) sqrt((tau + 1) T).

    For one interest of delay tau and slope L. With several, losses may be zero but where the delay is tau or more, so

        max over tau among tau_nm of (B / 2) (sum_{m: tau_nm >= tau} w_nm L_m) sqrt(min(tau + 1, T) T).

    It holds for memories in a ball of diameter B with a dimension for each block of tau + 1 steps, at every T that is a
    multiple of tau + 1; in one dimension for 1 / sqrt(2) of it. The losses may be drawn before the run, and everything
    of a block may arrive at its end: delays of tau - i for its i-th step do no less harm than tau for all of them.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        delays: round trips tau, shaped like the weights, any numbers >= 0; ignored where the weight is 0.
        constants: L_m and B, see ``constants``.
        horizon: T > 0, steps.

    Returns:
        (N,), differentiable in every float argument, but where two tau give the same.

    Raises:
        ValueError: what is out of range, while it is concrete.

    Example:
        >>> import jax.numpy as jnp
        >>> weights, late = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([[0, 8], [0, 0]])
        >>> lower(weights, late, Constants(jnp.ones(2), 2.0), horizon=900).tolist()
        [90.0, 30.0]

    Source: this library, after the blocks of Weinberger and Ordentlich, "On delayed prediction of individual
    sequences", 2002. All losses of a block are linear, along one direction that is new and with a random sign: whoever
    has not heard of the block pays nothing on average, and the best memory gains (B / 2) L (tau + 1) for every one of
    T / (tau + 1) orthogonal directions, added as squares. In one dimension it gains the sum of as many random signs,
    which Khintchine's inequality bounds.
    """
    agents = ingredients(weights, delays, constants)
    check_horizon(horizon)
    time = jnp.asarray(horizon, agents.mean_slope.dtype)
    # From the longest delay down, the slopes of all that are as late.
    order = jnp.argsort(-agents.round_trips, axis=1)
    late, messages = (jnp.take_along_axis(x, order, axis=1) for x in (agents.round_trips, agents.messages))
    forced = jnp.cumsum(messages, axis=1) * jnp.sqrt(jnp.minimum(late + 1, time) * time)
    return agents.diameter / 2 * jnp.max(forced, axis=1)
