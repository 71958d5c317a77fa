"""Losses and regret: how much worse the agents did than the best fixed memory in hindsight.

    Reg_n(T) = sum_{t <= T} sum_m w_nm f_mt(X_nt) - min_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set

with one comparator per agent and per horizon ([DAM] sec. 2).
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_array, check_instance
from damjax._contractions import heeded, sum_last
from damjax._laws import check_objective_kind
from damjax._layouts import Weights, stochastic_interests
from damjax._numerics import running_sums
from damjax._steps import check_associations, recall, ridge_coefficients
from damjax._types import ArrayLike, Associations, Info, concrete
from damjax.domains import Domain
from damjax.hindsight import Horizons, best_beside_empty, checked_horizons
from damjax.objectives import Objective
from damjax.simulate import Observer, Stream

GAP_SHARE = 1e-3  # of the regret: what a comparator may leave undecided before static_regret says so
EXACT = 1e-6  # of the losses: less is not worth a word, however small the regret


def step_losses(
    objective: Objective,
    weights: Weights,
    params: Float[ArrayLike, "N dv df"],
    associations: Associations,
    time: Int[ArrayLike, ""] | int,
) -> Float[Array, "N"]:
    """The personalised losses of one step: sum_m w_nm f_mt(X_n), (N,).

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> now = damjax.Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> weights = jnp.array([[1.0, 0.0], [0.5, 0.5]])
        >>> step_losses(damjax.objectives.delta_net(), weights, jnp.zeros((2, 1, 1)), now, time=1).tolist()
        [0.5, 2.5]
    """
    now = concrete(time)
    if now is not None and not (np.issubdtype(now.dtype, np.integer) and now.shape == () and now >= 1):
        raise ValueError(f"time must be a 1-based step count, but it is {now}")
    check_objective_kind(objective)
    check_array("params", params, "N dv df")
    params, time = jnp.asarray(params), jnp.asarray(time)
    interests = stochastic_interests("weights", weights, params.shape[0]).astype(params.dtype)
    check_associations(params, associations, objective)
    _, losses = recall(objective, objective.loss, params, associations, interests, time)
    total = sum_last(interests.weights * heeded(interests.weights, losses))
    if (ridge := ridge_coefficients(objective, associations, time, params)) is not None:
        total = total + 0.5 * jnp.sum(interests.total(ridge) * params**2, axis=(1, 2))
    return total


def observe_losses(objective: Objective, weights: Weights) -> Observer:
    """An observer for ``simulate`` that keeps the personalised losses, (T, N), and not the memories.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights = damjax.objectives.delta_net(), jnp.eye(2)
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=30)
        >>> algorithm = damjax.ogd(objective, weights, learning_rate=0.2, domain=damjax.domains.unconstrained())
        >>> _, losses = damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream,
        ...     observe=observe_losses(objective, weights))
        >>> losses.shape
        (30, 2)
    """
    check_objective_kind(objective)
    stochastic_interests("weights", weights)

    def observe(params: Float[Array, "N dv df"], associations: Associations, info: Info) -> Float[Array, "N"]:
        return step_losses(objective, weights, params, associations, info.time)

    return observe


def personalized_losses(
    objective: Objective,
    weights: Weights,
    trace_params: Float[ArrayLike, "T N dv df"],
    associations: Associations,
) -> Float[Array, "T N"]:
    """The personalised losses of a recorded run, sum_m w_nm f_mt(X_nt).

    Args:
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights.
        trace_params: X_1..X_T as ``simulate`` records them, (T, N, dv, df).
        associations: the stream, every field with a leading T.

    Returns:
        (T, N).

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> stream = damjax.Associations(jnp.ones((3, 1, 2)), jnp.full((3, 1, 1), 2.0))
        >>> personalized_losses(damjax.objectives.delta_net(), jnp.eye(1), jnp.zeros((3, 1, 1, 2)), stream).tolist()
        [[2.0], [2.0], [2.0]]
    """
    if not hasattr(trace_params, "shape") or np.ndim(trace_params) != 4:
        raise ValueError(
            f"trace_params must be an array of memories (T, N, dv, df), as trace.params of what simulate records, but"
            f" it is {type(trace_params).__name__} of shape {getattr(trace_params, 'shape', None)}"
        )
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    times = jnp.arange(1, trace_params.shape[0] + 1)
    return jax.vmap(step_losses, in_axes=(None, None, 0, 0, 0))(objective, weights, trace_params, associations, times)


def static_regret(
    losses: Float[ArrayLike, "T N"],
    objective: Objective,
    weights: Weights,
    domain: Domain,
    associations: Stream,
    horizons: Horizons,
) -> Float[Array, "H N"]:
    """Cumulative regret of every agent at every horizon, each against its own best memory in hindsight.

    Args:
        losses: personalised losses of the run, (T, N), from ``personalized_losses`` or ``observe_losses``.
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights.
        domain: the feasible set of the comparators; bounded unless the objective is quadratic.
        associations: the stream of the run, as arrays or as a function of the time.
        horizons: increasing step counts, at most T, (H,), concrete.

    Returns:
        (H, N). The figures plot its sum over agents over N T. Differentiable twice in losses, weights, associations and
        the size of the domain.

    Raises:
        ValueError: horizons beyond the run; an objective without a minimum on the domain.

    Warns:
        RuntimeWarning: the gap of a comparator is more than a thousandth of the regret, and more than a millionth of
            the losses it is between. Under jit and vmap nothing can be said at run time; look at
            ``damjax.hindsight.best_in_hindsight(..).gap`` there.

    Note:
        Regret is a small difference of large sums: use float64. In float32 it carries an error of about 1e-6 of the
        cumulative loss, and more, with a warning, where the cues are nearly dependent.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights, ball = damjax.objectives.delta_net(), jnp.eye(2), damjax.domains.frobenius_ball(20.0)
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=300)
        >>> algorithm = damjax.ogd(objective, weights, learning_rate=damjax.schedules.inverse_sqrt(1.0), domain=ball)
        >>> _, trace = damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream)
        >>> losses = personalized_losses(objective, weights, trace.params, stream)
        >>> regret = static_regret(losses, objective, weights, ball, stream, [30, 300])
        >>> regret.shape, bool((regret[1] / 300 < regret[0] / 30).all())
        ((2, 2), True)
    """
    steps = checked_horizons(horizons)
    check_array("losses", losses, "T N")
    expected = (np.shape(losses)[0], stochastic_interests("weights", weights).shape[0])
    if np.shape(losses) != expected:
        raise ValueError(f"losses must have shape (T, N) = {expected}, but it is {np.shape(losses)}")
    if steps[-1] > losses.shape[0]:
        raise ValueError(f"horizons must be at most the {losses.shape[0]} steps of losses, but one is {steps[-1]}")
    cumulative = running_sums(jnp.asarray(losses)[: steps[-1]])[np.array(steps) - 1]
    found, empty = best_beside_empty(objective, weights, domain, associations, steps)
    regret = cumulative - found.loss
    _warn_if_inexact(found.gap, regret, jnp.abs(empty) + jnp.abs(found.loss))
    return regret


def _warn_if_inexact(gap: Array, regret: Array, size: Array) -> None:
    slack, measured, losses = concrete(gap), concrete(regret), concrete(size)
    if slack is None or measured is None or losses is None:
        return
    slack = np.where(np.isfinite(slack) & (slack > EXACT * losses), slack, 0)
    if np.any(slack > GAP_SHARE * np.abs(measured)):
        worst = np.unravel_index(
            np.argmax(slack / np.maximum(np.abs(measured), np.finfo(slack.dtype).tiny)), slack.shape
        )
        warnings.warn(
            f"the best memory in hindsight is known to {slack[worst]:.3g} only, of a regret of {measured[worst]:.3g}"
            f" (horizon {worst[0]}, agent {worst[1]}): a large set, steep features or nearly dependent cues make it"
            f" hard to find, and float32 hard to certify; use float64, cues nearer to 0, or a smaller set",
            RuntimeWarning,
            stacklevel=3,
        )
