"""The bound on the expected regret where delays and losses are random, from their means alone."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from damjax._checks import check_array, concrete
from damjax.bounds.ingredients import Ingredients, PerAgent, ingredients, rates_until, travel
from damjax.bounds.lipschitz import Constants
from damjax.bounds.sums import Scalar
from damjax.types import ArrayLike
from damjax.weights.interests import Weights

__all__ = ["expected_delay"]


def expected_delay(
    weights: Weights,
    mean_delays: Num[ArrayLike, "N K"],
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    loss_probability: Scalar | Num[ArrayLike, "N K"] = 0.0,
    exponent: Scalar = 0.5,
) -> Float[Array, "N"]:
    """A bound on the mean of DAM-TOGD's regret over random delays and losses.

    With taub_nm the mean round trip of what arrives, p_nm the probability that an answer never does, and
    tb = sum_m w_nm L_m taub_nm / Lbar,

        E Reg_n <= B^2 / (2 eta_T) + B Lbar tb
                   + (Lbar^2 / 2 + 1/2 sum_m (w_nm L_m)^2 / (1 - p_nm) + Lbar^2 tb) sum_t eta_t.

    Assumptions. Round trips and losses do not depend on one another, nor on the data, which is chosen without knowledge
    of them; those between two agents follow one law at every step. What arrives is weighted by w_nm / (1 - p_nm), as
    ``dam_togd(..., reweight=True)`` does, so that it makes up for what is lost; without that every lost answer may cost
    B w_nm L_m, and regret grows with T.
    Losses are convex, X_1 lies in the set, steps are plain projected ones. The rates do not depend on the delays:
    eta_t = c t^(-beta), which is the clock of every agent with an interest in itself, whose answer arrives at once.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        mean_delays: taub, shaped like the weights, any numbers >= 0; ignored where the weight is 0.
        constants: L_m and B, see ``constants``.
        scale: c > 0, a number or one per agent.
        horizon: T > 0, steps.
        loss_probability: p in [0, 1), one number or shaped like the weights; answers later than ``max_delay`` count as
            lost too, and the mean round trip is over those that are not.
        exponent: beta, in [0, 1).

    Returns:
        (N,), differentiable in every float argument.

    Raises:
        ValueError: what is out of range, while it is concrete.

    Note:
        Where delays are fixed and nothing is lost ``weighted_delay`` is smaller: it need not pay for several answers of
        one agent in a step. That takes the term in (w_nm L_m)^2: the bound without it does not hold.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights, constants = jnp.full((2, 2), 0.5), Constants(jnp.ones(2), 2.0)
        >>> bound = lambda p: expected_delay(weights, jnp.array([[0.0, 2.0], [2.0, 0.0]]), constants, scale=1.0,
        ...     horizon=100, loss_probability=jnp.array([[0.0, p], [p, 0.0]]))
        >>> [round(bound(p)[0].item(), 2) for p in (0.0, 0.5)]
        [54.53, 56.86]
        >>> round(jax.jacobian(bound)(0.5)[0].item(), 2)
        9.29

    Source: this library. In expectation an answer that arrives, weighted by w / (1 - p), is the gradient that was asked
    for, whose regret splits as in ``weighted_delay``. The answers of one agent that arrive in one step are a sum of
    independent coins of mean 1 - p at most, hence E kappa^2 <= Lbar^2 + sum_m (w_nm L_m)^2 / (1 - p_nm). What arrives
    in a step and what is then still under way, F, are of different questions: E kappa F <= E kappa E F <= Lbar^2 tb.
    """
    agents = ingredients(weights, mean_delays, constants, name="mean_delays")
    arriving = 1 - _probabilities(loss_probability, agents)
    rates = rates_until(scale, exponent, horizon, agents)
    several = jnp.sum(agents.messages**2 / arriving, axis=1)
    slope = (agents.mean_slope**2 + several) / 2 + agents.mean_slope * agents.late_slope
    return rates.inverse_last * travel(agents, 0.0) + slope * rates.sum + agents.diameter * agents.late_slope


def _probabilities(loss_probability: Scalar | Num[ArrayLike, "N K"], agents: Ingredients) -> Float[Array, "..."]:
    check_array("loss_probability", loss_probability, "...")
    shape, allowed = np.shape(loss_probability), agents.messages.shape
    if shape not in ((), allowed):
        raise ValueError(
            f"loss_probability must be one number or have shape {allowed}, one entry per entry of the weights, but its"
            f" shape is {shape}"
        )
    lost = jnp.asarray(loss_probability, agents.messages.dtype)
    lost = jnp.where(agents.messages > 0, lost, 0) if shape else lost
    if (values := concrete(lost)) is not None and np.any(wrong := ~((values >= 0) & (values < 1))):
        raise ValueError(
            f"loss_probability must lie in [0, 1), but one is {values[wrong].flat[0]}; from what never arrives nothing"
            f" can be learned: give it no weight"
        )
    return lost
