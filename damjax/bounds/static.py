"""Bounds that are known before the run: [DAM]'s theorems, printed and mended, and the weighted-delay bound.

Throughout eta_nt = c (t - tau_n,min)^(-beta), beta = 1/2 unless said otherwise, as ``damjax.schedules.power`` makes it;
for agent n, over its interests W_n = {m : w_nm > 0},

    Lbar = sum_m w_nm L_m,  tbar = sum_m w_nm L_m tau_nm / Lbar,  K = max_m w_nm L_m,  Dt = tau_max - tau_min.

Sums of rates appear through sum_{j <= J} j^(-beta) <= J^(1-beta) / (1-beta), so that every bound is a smooth function
of horizon and delays: a delay may be any number >= 0, and the derivative in it says what a shorter link is worth.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from damjax._checks import (
    check_array,
    check_choice,
    check_delays_shape,
    check_doubly_stochastic,
    check_positive,
    check_square,
)
from damjax._layouts import Weights, stochastic_interests
from damjax._types import ArrayLike, concrete
from damjax.bounds.lipschitz import Constants, check_constants

ORDERS = {"adapt_then_combine": 2.0, "combine_then_adapt": 8.0}
Scalar = float | int | np.number | Num[ArrayLike, ""]
PerAgent = Scalar | Num[ArrayLike, "N"]


def ogd(
    weights: Weights,
    constants: Constants,
    *,
    scale: PerAgent,
    horizon: Scalar,
    exponent: Scalar = 0.5,
    path_length: PerAgent = 0.0,
) -> Float[Array, "N"]:
    """Full-information OGD: Reg_n <= B^2 / (2 eta_T) + (Lbar^2 / 2) sum_t eta_t, that is (B^2/2c + c Lbar^2) sqrt(T).

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
        >>> ogd(jnp.eye(2), known, scale=1.0, horizon=100).tolist()
        [30.0, 110.0]

    Source: [DAM] Theorem 1.
    """
    agents = _interests(weights, None, constants)
    rates = _rates(scale, exponent, horizon, agents)
    return rates.inverse_last * _travel(agents, path_length) + agents.mean_slope**2 / 2 * rates.total


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
        >>> c_dogd(jnp.full((2, 2), 0.5), Constants(jnp.ones(2), 2.0), scale=1.0, horizon=100).tolist()
        [30.0, 30.0]

    Source: [DAM] Theorem 2 leaves the constants open; these follow from the distance to the mean memory,
    ||X_t - mean|| <= sqrt(N) L sum_{u < t} s^(t-u) eta_u, in combine-then-adapt with s^(t-1-u).
    """
    check_choice("order", order, tuple(ORDERS))
    if (values := concrete(mixing)) is not None:
        check_square("mixing", values.shape)
        check_doubly_stochastic("mixing", values)
    num_agents = np.shape(mixing)[0]
    agents = _interests(jnp.full((num_agents, num_agents), 1 / num_agents), None, constants)
    disagreement = jnp.asarray(mixing, agents.mean_slope.dtype) - 1 / num_agents
    second = jnp.linalg.norm(disagreement, ord=2)
    # A second singular value of one, up to rounding, is a network that does not mix.
    exactness = 10 * num_agents * jnp.finfo(disagreement.dtype).eps
    gap = jnp.where(1 - second > exactness, 1 - second, 0)
    spread = ORDERS[order] * (second if order == "adapt_then_combine" else 1.0) / gap
    rates = _rates(scale, exponent, horizon, agents)
    steepest = jnp.max(jnp.asarray(constants.lipschitz))
    share = rates.inverse_last * _travel(agents, path_length) + steepest**2 * (0.5 + spread) * rates.total
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
    """DAM-TOGD as [DAM] prints it: 2cQ sqrt(T + Dt) + (B^2/2c) sqrt(T) + P c + Ccst.

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
        Two steps of its proof do not hold: (A-14a) bounds eta_{t-j} by eta_{t-1}, the wrong way round for rates that
        fall; (B-4) evaluates B^2 / (2 eta_{tau_min+1}) = B^2 / 2c as (B^2 / 2c) T^beta. See ``dam_togd_mended``.

    Example:
        >>> import jax.numpy as jnp
        >>> delays, known = jnp.array([[0, 2], [2, 0]]), Constants(jnp.ones(2), 2.0)
        >>> dam_togd_printed(jnp.full((2, 2), 0.5), delays, known, scale=1.0, horizon=98).round(1).tolist()
        [62.79..., 62.79...]

    Source: [DAM] Theorem 3 and Corollary 1.
    """
    check_array("delays", delays, "N K")
    agents = _interests(weights, delays, constants)
    steep = agents.members**2 * agents.steepest**2 * agents.longest**2
    upfront = _rates(scale, exponent, horizon, agents).inverse_last * agents.diameter**2 / 2
    extended = _rates(scale, exponent, horizon, agents, shift=agents.longest - agents.shortest)
    return _printed_slope(agents) * extended.total + upfront + steep * jnp.asarray(scale) + _printed_constant(agents)


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
    last, smallest rate. For beta = 1/2: 2cQ sqrt(T + Dt) + (B^2/2c) sqrt(T + Dt) + Ccst. Below the printed bound
    wherever P c >= (B^2/2c) (sqrt(T + Dt) - sqrt(T)), which holds for every T from (B^2 Dt / 4 c^2 P)^2 on.

    Args and Returns: as for ``dam_togd_printed``.

    Example:
        >>> import jax.numpy as jnp
        >>> delays, known = jnp.array([[0, 2], [2, 0]]), Constants(jnp.ones(2), 2.0)
        >>> dam_togd_mended(jnp.full((2, 2), 0.5), delays, known, scale=1.0, horizon=98).tolist()
        [59.0, 59.0]

    Source: [DAM] Theorem 3, mended here.
    """
    check_array("delays", delays, "N K")
    agents = _interests(weights, delays, constants)
    rates = _rates(scale, exponent, horizon, agents, shift=agents.longest - agents.shortest)
    return (
        _printed_slope(agents) * rates.total + rates.inverse_last * agents.diameter**2 / 2 + _printed_constant(agents)
    )


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
    at zero delay OGD's own. Never above the mended bound where tau_min = 0.

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
        >>> bound(jnp.array([[0, 2], [2, 0]])).tolist()
        [52.0, 52.0]
        >>> jax.jacobian(bound)(jnp.array([[0.0, 2.0], [2.0, 0.0]]))[0].tolist()  # regret per step of delay
        [[..., 11.0], [0.0, 0.0]]

    Source: this library. Split <G_s, X_s - U> at the arrival step t into <G_s, X_t - U>, which telescopes, and
    <G_s, X_s - X_t>, where ||X_s - X_t|| <= sum_{s <= u < t} eta_u Lbar; what has not arrived by T costs at most
    B w_nm L_m for each of tau_nm messages.
    """
    check_array("delays", delays, "N K")
    agents = _interests(weights, delays, constants)
    rates = _rates(scale, exponent, horizon, agents, shift=-agents.shortest)
    regret = (agents.mean_slope / 2 + agents.late_slope) * agents.mean_slope * rates.total
    travel = rates.inverse_last * _travel(agents, path_length)
    return regret + travel + (agents.diameter + jnp.asarray(path_length)) * agents.late_slope


def optimal_scale(weights: Weights, delays: Num[ArrayLike, "N K"], constants: Constants) -> Float[Array, "N"]:
    """The rate constant that minimises ``weighted_delay`` for beta = 1/2 at every T: B / (2 Lbar sqrt(1/2 + tbar)).

    Args and Raises: as for ``weighted_delay``.

    Returns:
        c, (N,); pass it on as the ``scale`` of schedule and bounds.

    Example:
        >>> import jax.numpy as jnp
        >>> optimal_scale(jnp.eye(1), jnp.zeros((1, 1)), Constants(jnp.array([2.0]), 8.0)).tolist()
        [2.828...]
    """
    check_array("delays", delays, "N K")
    agents = _interests(weights, delays, constants)
    return agents.diameter / (2 * jnp.sqrt(agents.mean_slope * (agents.mean_slope / 2 + agents.late_slope)))


class _Interests(NamedTuple):
    """What the bounds see of each agent's interests, (N,) each but the diameter."""

    mean_slope: Array  # Lbar
    late_slope: Array  # Lbar tbar
    steepest: Array  # K
    slopes: Array  # sum of L_m over W_n
    delays: Array  # sum of tau_nm over W_n
    members: Array  # |W_n|
    shortest: Array
    longest: Array
    diameter: Array


def _interests(weights: Weights, delays: ArrayLike | None, constants: Constants) -> _Interests:
    check_constants(constants)
    if np.ndim(constants.lipschitz) != 1:
        given = np.shape(constants.lipschitz)
        raise ValueError(f"lipschitz must hold one constant per agent, shape (N,), but its shape is {given}")
    num_agents = np.shape(constants.lipschitz)[0]
    interests = stochastic_interests("weights", weights, num_agents)
    for name in ("lipschitz", "diameter"):
        if (given := concrete(getattr(constants, name))) is not None:
            check_positive(name, given, allow_zero=True)
    _check_size("diameter", constants.diameter, None)
    slope = jnp.asarray(constants.lipschitz)
    # Whole numbers are no dtype for weights.
    slope = slope if jnp.issubdtype(slope.dtype, jnp.floating) else slope.astype(float)
    member, slope = interests.counted, interests.heard(slope)
    if delays is None:
        late = table = jnp.zeros(interests.shape, slope.dtype)
    else:
        check_delays_shape(np.shape(delays), interests.shape)
        table = jnp.asarray(delays).astype(slope.dtype)
        late = jnp.where(member, table, 0)
        if (given := concrete(late)) is not None:
            check_positive("delays", given, allow_zero=True)
    weighted = interests.astype(slope.dtype).weights * slope
    return _Interests(
        mean_slope=jnp.sum(weighted, axis=1),
        # An interest of weight 0 has a derivative too, at the delay that it would have.
        late_slope=jnp.sum(weighted * jnp.where(jnp.isfinite(table), table, 0), axis=1),
        steepest=jnp.max(weighted, axis=1),
        slopes=jnp.sum(jnp.where(member, slope, 0), axis=1),
        delays=jnp.sum(late, axis=1),
        members=jnp.sum(member, axis=1).astype(slope.dtype),
        shortest=jnp.min(late, axis=1, where=member, initial=jnp.inf),
        longest=jnp.max(late, axis=1),
        diameter=jnp.asarray(constants.diameter, slope.dtype),
    )


class _Rates(NamedTuple):
    """Of eta_j = c j^(-beta), j <= J: a bound on the sum, and 1 / eta_J."""

    total: Array
    inverse_last: Array


def _rates(
    scale: PerAgent, exponent: Scalar, horizon: Scalar, agents: _Interests, shift: ArrayLike | float = 0.0
) -> _Rates:
    """For J = T + shift."""
    num_agents = agents.mean_slope.shape[0]
    _check_size("scale", scale, num_agents)
    _check_size("horizon", horizon, None)
    _check_size("exponent", exponent, None)
    if (value := concrete(scale)) is not None:
        check_positive("scale", value)
    check_array("exponent", exponent, "")
    if (value := concrete(exponent)) is not None and not np.all((value >= 0) & (value < 1)):
        raise ValueError(f"exponent must lie in [0, 1) for sublinear regret, but it is {value}; 0.5 is the best")
    if (value := concrete(horizon)) is not None:
        check_positive("horizon", value, allow_zero=True)
    dtype = agents.mean_slope.dtype
    scale, exponent, horizon = (jnp.asarray(x, dtype) for x in (scale, exponent, horizon))
    count = horizon + shift
    # Before anything arrives the sum is empty; its power of zero has no slope, so it is not evaluated.
    started = count > 0
    steps = jnp.where(started, count, 1)
    return _Rates(
        total=jnp.where(started, scale * steps ** (1 - exponent) / (1 - exponent), 0),
        inverse_last=jnp.where(started, steps**exponent / scale, 0),
    )


def _check_size(name: str, number: PerAgent, num_agents: int | None) -> None:
    """Raise unless it is one number, or one per agent where that is allowed."""
    shape = np.shape(number)
    if shape != () and (num_agents is None or shape != (num_agents,)):
        allowed = "one number" if num_agents is None else f"one number or one per agent, shape ({num_agents},)"
        raise ValueError(f"{name} must be {allowed}, but its shape is {shape}; map over several with jax.vmap")


def _travel(agents: _Interests, path_length: PerAgent) -> Array:
    """B^2 / 2 + B P: what a unit of inverse rate costs, against a comparator that moves by P."""
    _check_size("path_length", path_length, agents.mean_slope.shape[0])
    if (value := concrete(path_length)) is not None:
        check_positive("path_length", value, allow_zero=True)
    return agents.diameter**2 / 2 + agents.diameter * jnp.asarray(path_length, agents.mean_slope.dtype)


def _printed_slope(agents: _Interests) -> Array:
    """Q."""
    return agents.steepest / 2 * agents.slopes + agents.members * agents.steepest**2 * agents.delays


def _printed_constant(agents: _Interests) -> Array:
    """Ccst."""
    spread = (agents.longest - agents.shortest) / 2
    return spread * (agents.steepest * agents.slopes + agents.members * agents.diameter**2)
