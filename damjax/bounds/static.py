"""Bounds that are known before the run: [DAM]'s theorems, printed and mended, and the weighted-delay bound.

Throughout eta_nt = c (t - tau_n,min)^(-beta), beta = 1/2 unless said otherwise, as ``damjax.schedules.power`` makes it;
for agent n, over its interests W_n = {m : w_nm > 0},

    Lbar = sum_m w_nm L_m,  tbar = sum_m w_nm L_m tau_nm / Lbar,  K = max_m w_nm L_m,  Dt = tau_max - tau_min.

Sums of rates are exact, sum_{j <= J} c j^(-beta) = c H_J with ``harmonic_number``, which is about
J^(1-beta) / (1-beta), and for beta = 1/2 at most 2 sqrt(J), which the formulas of a theorem may have in its place. A
bound is so a smooth function of horizon and delays: a delay may be any number >= 0, and the derivative in it says what
a shorter link is worth.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from damjax._checks import check_choice, check_doubly_stochastic, check_square, concrete
from damjax.bounds.ingredients import (
    Ingredients,
    PerAgent,
    checked_count,
    ingredients,
    rates_until,
    travel,
    without_delays,
)
from damjax.bounds.lipschitz import Constants
from damjax.bounds.sums import Scalar, harmonic_number
from damjax.types import ArrayLike
from damjax.weights.interests import Weights

__all__ = ["c_dogd", "dam_togd_mended", "dam_togd_printed", "ogd", "optimal_scale", "weighted_delay"]

ORDERS = {"adapt_then_combine": 2.0, "combine_then_adapt": 8.0}


def ogd(
    weights: Weights,
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    exponent: Scalar = 0.5,
    path_length: PerAgent = 0.0,
) -> Float[Array, "N"]:
    """Full-information OGD: Reg_n <= B^2 / (2 eta_T) + (Lbar^2 / 2) sum_t eta_t.

    At most (B^2/2c + c Lbar^2) sqrt(T), which is how [DAM] prints it.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        constants: L_m and B, see ``constants``.
        scale: c > 0 of the rate, a number or one per agent.
        horizon: T > 0, steps.
        exponent: beta of the rate, in [0, 1).
        path_length: P = sum_t ||u_{t+1} - u_t|| of moving comparators, a number or one per agent; adds B P / eta_T and
            bounds the dynamic regret.

    Returns:
        One bound on the cumulative regret per agent, (N,).

    Raises:
        ValueError: what is out of range, while it is concrete.

    Example:
        >>> import jax.numpy as jnp
        >>> known = Constants(jnp.array([1.0, 3.0]), 2.0)
        >>> [round(bound, 2) for bound in ogd(jnp.eye(2), known, scale=1.0, horizon=100).tolist()]
        [29.29, 103.65]

    Source: [DAM] Theorem 1.
    """
    agents = without_delays(weights, constants)
    rates = rates_until(scale, exponent, horizon, agents)
    return rates.inverse_last * travel(agents, path_length) + agents.mean_slope**2 / 2 * rates.sum


def c_dogd(
    mixing: Float[ArrayLike, "N N"],
    constants: Constants,
    *,
    scale: Scalar,
    horizon: Scalar,
    order: str = "adapt_then_combine",
    exponent: Scalar = 0.5,
    path_length: Scalar = 0.0,
) -> Float[Array, "N"]:
    """Consensus OGD, for interests W = 11'/N and memories that start equal: each agent's share of the network's bound.

        adapt_then_combine: Reg <= N [B^2 / (2 eta_T) + L^2 (1/2 + 2 s/(1-s)) sum_t eta_t]
        combine_then_adapt: Reg <= N [B^2 / (2 eta_T) + L^2 (1/2 + 8 / (1-s)) sum_t eta_t]

    with s the second largest singular value of A and L = max_m L_m. The theorem is about the sum over agents: the
    shares are equal, and their sum bounds the sum of the regrets, not each share its own agent's.

    Args:
        mixing: A, (N, N), doubly stochastic.
        constants: as for ``ogd``.
        scale: c > 0.
        horizon: T > 0, steps.
        order: "adapt_then_combine" or "combine_then_adapt".
        exponent: beta, in [0, 1).
        path_length: of the moving comparator, which all agents share.

    Returns:
        (N,); infinite where A does not mix (s = 1).

    Raises:
        ValueError: what is out of range, while it is concrete.

    Example:
        >>> import jax.numpy as jnp
        >>> shares = c_dogd(jnp.full((2, 2), 0.5), Constants(jnp.ones(2), 2.0), scale=1.0, horizon=100)
        >>> [round(share, 2) for share in shares.tolist()]
        [29.29, 29.29]

    Source: [DAM] Theorem 2 leaves the constants open; these follow from the distance to the mean memory,
    ||X_t - mean|| <= sqrt(N) L sum_{u < t} s^(t-u) eta_u, in combine-then-adapt with s^(t-1-u).
    """
    check_choice("order", order, tuple(ORDERS))
    if (values := concrete(mixing)) is not None:
        check_square("mixing", values.shape)
        check_doubly_stochastic("mixing", values)
    num_agents = np.shape(mixing)[0]
    agents = without_delays(jnp.full((num_agents, num_agents), 1 / num_agents), constants)
    disagreement = jnp.asarray(mixing, agents.mean_slope.dtype) - 1 / num_agents
    second = jnp.linalg.norm(disagreement, ord=2)
    # A second singular value of one, up to rounding, is a network that does not mix.
    exactness = 10 * num_agents * jnp.finfo(disagreement.dtype).eps
    gap = jnp.where(1 - second > exactness, 1 - second, 0)
    spread = ORDERS[order] * (second if order == "adapt_then_combine" else 1.0) / gap
    rates = rates_until(scale, exponent, horizon, agents)
    steepest = jnp.max(jnp.asarray(constants.lipschitz))
    share = rates.inverse_last * travel(agents, path_length) + steepest**2 * (0.5 + spread) * rates.sum
    return jnp.broadcast_to(share, num_agents)


def dam_togd_printed(
    weights: Weights,
    delays: Num[ArrayLike, "N K"],
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    exponent: Scalar = 0.5,
) -> Float[Array, "N"]:
    """DAM-TOGD as [DAM] prints it: Q sum_t eta_t + (B^2/2c) T^beta + P c + Ccst, t = tau_min+1..T+tau_max.

        Q = (K/2) sum_m L_m + |W| K^2 sum_m tau_nm,  P = |W|^2 K^2 tau_max^2,  Ccst = (Dt/2) (K sum_m L_m + |W| B^2)

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        delays: round trips tau, shaped like the weights, any numbers >= 0; ignored where the weight is 0.
        constants: as for ``ogd``.
        scale: c > 0, a number or one per agent.
        horizon: T > 0, steps.
        exponent: beta, in [0, 1).

    Returns:
        (N,).

    Raises:
        ValueError: what is out of range, while it is concrete.

    Note:
        Corollary 1 prints 2cQ sqrt(T + Dt) for the sum, which is larger by about 1.46 cQ. Two steps of its proof do not
        hold: (A-14a) bounds eta_{t-j} by eta_{t-1}, the wrong way round for rates that fall; (B-4) evaluates
        B^2 / (2 eta_{tau_min+1}) = B^2 / 2c as (B^2 / 2c) T^beta. See ``dam_togd_mended``.

    Example:
        >>> import jax.numpy as jnp
        >>> delays, known = jnp.array([[0, 2], [2, 0]]), Constants(jnp.ones(2), 2.0)
        >>> dam_togd_printed(jnp.full((2, 2), 0.5), delays, known, scale=1.0, horizon=98)[0].round(2).item()
        60.6...

    Source: [DAM] Theorem 3, its last two terms as in Corollary 1.
    """
    agents = ingredients(weights, delays, constants)
    steep = agents.members**2 * agents.steepest**2 * agents.longest**2
    upfront = rates_until(scale, exponent, horizon, agents).inverse_last * agents.diameter**2 / 2
    extended = rates_until(scale, exponent, horizon, agents, shift=agents.longest - agents.shortest)
    return _printed_slope(agents) * extended.sum + upfront + steep * jnp.asarray(scale) + _printed_constant(agents)


def dam_togd_mended(
    weights: Weights,
    delays: Num[ArrayLike, "N K"],
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    exponent: Scalar = 0.5,
) -> Float[Array, "N"]:
    """[DAM]'s bound with its proof mended: Q sum_t eta_t + B^2 / (2 eta_{T + tau_max}) + Ccst.

    The sum is over t = tau_min+1..T+tau_max. Regrouping the double sum by the step at which the movement happened gives
    sum_t sum_{j <= tau} eta_{t-j} <= tau sum_t eta_t, so that no P term is needed; the telescoping sum H ends at the
    last, smallest rate. For beta = 1/2 at most 2cQ sqrt(T + Dt) + (B^2/2c) sqrt(T + Dt) + Ccst. Below the printed bound
    wherever P c >= (B^2/2c) (sqrt(T + Dt) - sqrt(T)), which holds for every T from (B^2 Dt / 4 c^2 P)^2 on.

    Args and Returns: as for ``dam_togd_printed``.

    Example:
        >>> import jax.numpy as jnp
        >>> delays, known = jnp.array([[0, 2], [2, 0]]), Constants(jnp.ones(2), 2.0)
        >>> dam_togd_mended(jnp.full((2, 2), 0.5), delays, known, scale=1.0, horizon=98)[0].round(2).item()
        56.8...

    Source: [DAM] Theorem 3, mended here.
    """
    agents = ingredients(weights, delays, constants)
    rates = rates_until(scale, exponent, horizon, agents, shift=agents.longest - agents.shortest)
    return _printed_slope(agents) * rates.sum + rates.inverse_last * agents.diameter**2 / 2 + _printed_constant(agents)


def weighted_delay(
    weights: Weights,
    delays: Num[ArrayLike, "N K"],
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    exponent: Scalar = 0.5,
    path_length: PerAgent = 0.0,
) -> Float[Array, "N"]:
    """The weighted-delay bound of DAM-TOGD: Lbar^2 (1/2 + tbar) sum_t eta_nt + B^2 / (2 eta_nT) + B Lbar tbar.

    The sum is over t = tau_min+1..T. Only the weighted mean delay matters, and it is linear in tau: the best trees for
    regret are shortest-path trees. At the best c (``optimal_scale``) the leading term is B Lbar sqrt(2 (1 + 2 tbar) T),
    at zero delay OGD's own, and with a constant rate for a known horizon B Lbar sqrt((1 + 2 tbar) T). No algorithm can
    promise less than a quarter of the first or 1 / (2 sqrt(2)) of the second (``lower``). Never above the mended bound
    where tau_min = 0.

    Args:
        weights: W, (N, N), row-stochastic, or SparseWeights.
        delays: as for ``dam_togd_printed``.
        constants: as for ``ogd``.
        scale: c > 0, a number or one per agent.
        horizon: T > 0, steps.
        exponent: beta, in [0, 1).
        path_length: P of moving comparators; adds B P / eta_T + Lbar tbar P and bounds the dynamic regret.

    Returns:
        (N,).

    Raises:
        ValueError: what is out of range, while it is concrete.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights, known = jnp.full((2, 2), 0.5), Constants(jnp.ones(2), 2.0)
        >>> bound = lambda delays: weighted_delay(weights, delays, known, scale=1.0, horizon=100)
        >>> [round(x, 2) for x in bound(jnp.array([[0, 2], [2, 0]])).tolist()]
        [49.88, 49.88]
        >>> prices = jax.jacobian(bound)(jnp.array([[0.0, 2.0], [2.0, 0.0]]))[0]  # regret per step of delay
        >>> [round(x, 2) for x in prices[0].tolist()], prices[1].tolist()
        ([..., 10.29], [0.0, 0.0])

    Source: this library. Split <G_s, X_s - U> at the arrival step t into <G_s, X_t - U>, which telescopes, and
    <G_s, X_s - X_t>, where ||X_s - X_t|| <= sum_{s <= u < t} eta_u Lbar; what has not arrived by T costs at most
    B w_nm L_m for each of tau_nm messages.
    """
    agents = ingredients(weights, delays, constants)
    rates = rates_until(scale, exponent, horizon, agents, shift=-agents.shortest)
    regret = (agents.mean_slope / 2 + agents.late_slope) * agents.mean_slope * rates.sum
    regret = regret + rates.inverse_last * travel(agents, path_length)
    return regret + (agents.diameter + jnp.asarray(path_length)) * agents.late_slope


def optimal_scale(
    weights: Weights,
    delays: Num[ArrayLike, "N K"],
    constants: Constants,
    *,
    horizon: Scalar | None = None,
    exponent: Scalar = 0.5,
) -> Float[Array, "N"]:
    """The rate constant that minimises ``weighted_delay``: c^2 = (B^2 / 2) J^beta / ((1/2 + tbar) Lbar^2 H_J).

    J = T - tau_min, H_J the sum of the rates over c. For beta = 1/2 it hardly depends on T, and tends from above to
    B / (2 Lbar sqrt(1/2 + tbar)) as T grows; for beta = 0 it is the best constant rate,
    B / (Lbar sqrt((1 + 2 tbar) J)).

    Args:
        weights: as for ``weighted_delay``.
        delays: as for ``weighted_delay``.
        constants: as for ``weighted_delay``.
        horizon: T, steps; by default it is infinite. While nothing can have arrived c is that of one step.
        exponent: beta, in [0, 1); a horizon is needed for any but 1/2.

    Returns:
        c, (N,); pass it on as the ``scale`` of schedule and bounds.

    Raises:
        ValueError: what is out of range, while it is concrete; an exponent without a horizon.

    Example:
        >>> import jax.numpy as jnp
        >>> problem = (jnp.eye(1), jnp.zeros((1, 1)), Constants(jnp.array([2.0]), 8.0))
        >>> optimal_scale(*problem).tolist(), optimal_scale(*problem, horizon=100).tolist()
        ([2.828...], [2.933...])
        >>> optimal_scale(*problem, horizon=100, exponent=0.0).tolist()  # a constant rate
        [0.39...]
    """
    agents = ingredients(weights, delays, constants)
    ratio: Array | float = 0.5
    if horizon is not None:
        beta, count = checked_count(exponent, horizon, agents, -agents.shortest)
        count = jnp.where(count > 0, count, 1)
        ratio = count**beta / harmonic_number(count, beta)
    elif (value := concrete(exponent)) is None or value != 0.5:
        raise ValueError(
            f"horizon must be given for an exponent other than 0.5, since the best rate depends on it, but the exponent"
            f" is {exponent}"
        )
    # Of c x + y / c the minimum is at sqrt(y / x).
    price = agents.mean_slope * (agents.mean_slope / 2 + agents.late_slope)
    return agents.diameter * jnp.sqrt(ratio / (2 * price))


def _printed_slope(agents: Ingredients) -> Array:
    """Q."""
    return agents.steepest / 2 * agents.slopes + agents.members * agents.steepest**2 * agents.delays


def _printed_constant(agents: Ingredients) -> Array:
    """Ccst."""
    spread = (agents.longest - agents.shortest) / 2
    return spread * (agents.steepest * agents.slopes + agents.members * agents.diameter**2)
