"""Losses and regret: how much worse the agents did than the best fixed memory in hindsight.

    Reg_n(T) = sum_{t <= T} sum_m w_nm f_mt(X_nt) - min_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set

with one comparator per agent and per horizon ([DAM] sec. 2). Weights that change are those of step t.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._arrays import beside, running_sums
from damjax._checks import check_array, check_count, check_instance, concrete
from damjax.domains import Domain
from damjax.evaluation import check_params, num_agents_of, pairs
from damjax.hindsight import best_beside_empty, checked_horizons
from damjax.objectives import MemoryLoss, Objective, as_objective
from damjax.types import ArrayLike, Associations, Horizons, Info, Observer, Stream
from damjax.weights.epochs import EpochWeights, changing_interests
from damjax.weights.interests import Weights

__all__ = [
    "observe_losses",
    "personalized_losses",
    "recovery_time",
    "regret_against",
    "static_regret",
    "step_losses",
]

GAP_SHARE = 1e-3  # of the regret: what a comparator may leave undecided before static_regret says so
EXACT = 1e-6  # of the losses: less is not worth a word, however small the regret


def step_losses(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    params: Any,
    associations: Associations,
    time: Int[ArrayLike, ""] | int,
) -> Float[Array, "N"]:
    """The personalised losses of one step: sum_m w_nm f_mt(X_n).

    Args:
        objective: the memory loss f.
        weights: W, (N, N), row-stochastic, or SparseWeights; or EpochWeights, by which absent agents have no loss.
        params: the memories X, (N, dv, df), or a pytree whose leaves have a leading N.
        associations: of that step.
        time: its 1-based number.

    Returns:
        (N,).

    Raises:
        ValueError: a time that is no step count; weights that are not row-stochastic; shapes that do not meet.

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
    of_loss = as_objective(objective)
    interests = changing_interests("weights", weights, num_agents_of(params)).at(jnp.asarray(time))
    params = check_params(of_loss, params, interests.shape[0])
    return pairs(of_loss, interests, params, associations, jnp.asarray(time)).weighted_losses()


def observe_losses(objective: MemoryLoss, weights: Weights | EpochWeights) -> Observer:
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
    as_objective(objective)
    changing_interests("weights", weights)

    def observe(params: Any, associations: Associations, info: Info) -> Float[Array, "N"]:
        return step_losses(objective, weights, params, associations, info.time)

    return observe


def personalized_losses(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    trace_params: Any,
    associations: Associations,
) -> Float[Array, "T N"]:
    """The personalised losses of a recorded run, sum_m w_nm f_mt(X_nt).

    Args:
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights, or EpochWeights.
        trace_params: X_1..X_T as ``simulate`` records them, (T, N, dv, df), or a pytree of leaves (T, N, ..).
        associations: the stream, every field with a leading T.

    Returns:
        (T, N).

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> stream = damjax.Associations(jnp.ones((3, 1, 2)), jnp.full((3, 1, 1), 2.0))
        >>> personalized_losses(damjax.objectives.delta_net(), jnp.eye(1), jnp.zeros((3, 1, 1, 2)), stream).tolist()
        [[2.0], [2.0], [2.0]]
    """
    linear, is_array = as_objective(objective).linear_memory, hasattr(trace_params, "shape")
    if linear and not (is_array and np.ndim(trace_params) == 4):
        raise ValueError(
            f"trace_params must be an array of memories (T, N, dv, df), as trace.params of what simulate records, but"
            f" it is {type(trace_params).__name__} of shape {getattr(trace_params, 'shape', None)}"
        )
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    times = jnp.arange(1, jax.tree.leaves(trace_params)[0].shape[0] + 1)
    return jax.vmap(step_losses, in_axes=(None, None, 0, 0, 0))(objective, weights, trace_params, associations, times)


def static_regret(
    losses: Float[ArrayLike, "T N"],
    objective: Objective,
    weights: Weights | EpochWeights,
    domain: Domain,
    associations: Stream,
    horizons: Horizons,
) -> Float[Array, "H N"]:
    """Cumulative regret of every agent at every horizon, each against its own best memory in hindsight.

    Args:
        losses: personalised losses of the run, (T, N), from ``personalized_losses`` or ``observe_losses``.
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights, or EpochWeights.
        domain: the feasible set of the comparators; bounded unless the objective is quadratic. One of your own needs a
            ``support``, see ``damjax.domains.Domain``.
        associations: the stream of the run, as arrays or as a function of the time.
        horizons: increasing step counts, at most T, (H,), concrete.

    Returns:
        (H, N). The figures plot its sum over agents over N T. Differentiable twice in losses, weights, associations and
        the size of the domain.

    Raises:
        ValueError: horizons beyond the run; an objective without a minimum on the domain.

    Warns:
        RuntimeWarning: the gap of a comparator is more than a thousandth of the regret, and more than a millionth of
            the two cumulative losses it is the difference of. Under jit and vmap nothing can be said at run time;
            look at ``damjax.hindsight.best_in_hindsight(..).gap`` there.

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
    expected = (np.shape(losses)[0], changing_interests("weights", weights).shape[0])
    if np.shape(losses) != expected:
        raise ValueError(f"losses must have shape (T, N) = {expected}, but it is {np.shape(losses)}")
    cumulative = _cumulative(losses, steps)
    best, loss_at_zero = best_beside_empty(objective, weights, domain, associations, steps)
    regret = cumulative - best.loss
    _warn_if_inexact(best.gap, regret, jnp.abs(loss_at_zero) + jnp.abs(best.loss), steps)
    return regret


def regret_against(
    losses: Float[ArrayLike, "T N"], reference: Float[ArrayLike, "T N"], horizons: Horizons
) -> Float[Array, "H N"]:
    """How much more a run has cost than another on the same associations: what there is where no best memory is known.

        sum_{t <= T} [ sum_m w_nm f_mt(X_nt) - sum_m w_nm f_mt(Y_nt) ],   Y_nt the memories of the other run

    For memories that are not convex, of which no theorem bounds the regret: the customary reference is ``damjax.ogd``
    with full information, from the same first memories on the same seeds, so that the difference is what delays and
    missing information cost.

    Args:
        losses: personalised losses of the run, (T, N), from ``observe_losses``.
        reference: those of the other one, (T, N).
        horizons: increasing step counts, at most T, (H,), concrete.

    Returns:
        (H, N); negative where the run was the better one.

    Raises:
        ValueError: losses of different shapes, horizons beyond the runs.

    Example:
        >>> regret_against(jnp.full((4, 1), 3.0), jnp.full((4, 1), 2.0), [2, 4]).tolist()
        [[2.0], [4.0]]
    """
    steps = checked_horizons(horizons)
    for name, series in (("losses", losses), ("reference", reference)):
        check_array(name, series, "T N")
    if np.shape(losses) != np.shape(reference):
        raise ValueError(
            f"reference must be losses of as many steps and agents, {np.shape(losses)}, but its shape is"
            f" {np.shape(reference)}"
        )
    return _cumulative(jnp.asarray(losses) - jnp.asarray(reference), steps)


def _cumulative(losses: Float[ArrayLike, "T N"], steps: Sequence[int]) -> Float[Array, "H N"]:
    """The sums of losses up to every horizon, or a ValueError for one beyond the run."""
    if steps[-1] > np.shape(losses)[0]:
        raise ValueError(f"horizons must be at most the {np.shape(losses)[0]} steps of losses, but one is {steps[-1]}")
    return running_sums(jnp.asarray(losses)[: steps[-1]])[np.array(steps) - 1]


def recovery_time(
    losses: Float[ArrayLike, "T *agents"],
    twin_losses: Float[ArrayLike, "T *agents"],
    border: int | Int[ArrayLike, ""],
    *,
    window: int = 50,
    tolerance: float = 0.05,
) -> Float[Array, "*agents"]:
    """How long after a change of the network an agent does as well as if there had been none.

    The least d >= 0 such that over the steps border + d, .., border + d + window - 1 the mean loss exceeds that of the
    twin by at most the tolerance.

    Args:
        losses: of the run, (T, N), or (T,).
        twin_losses: of a run on the same stream in a network that never failed, as ``losses``.
        border: 1-based first step of the epoch that is to be recovered from, or in which recovery begins.
        window: steps of a mean, at least 1.
        tolerance: share of the twin's mean loss, at least 0.

    Returns:
        Steps, (N,) or (), 0 where nothing was to recover from; infinite if not within the run. A float, since infinity
        is one.

    Raises:
        ValueError: losses of different shapes, a window that does not fit between the border and the end of the run.

    Example:
        >>> losses = jnp.concatenate([jnp.ones(20), jnp.full(10, 2.0), jnp.ones(30)])
        >>> float(recovery_time(losses, jnp.ones(60), border=21, window=5))
        10.0
    """
    check_array("losses", losses, "...")
    check_array("twin_losses", twin_losses, "...")
    if np.shape(losses) != np.shape(twin_losses):
        raise ValueError(
            f"losses and twin_losses must have one shape, but theirs are {np.shape(losses)} and {np.shape(twin_losses)}"
        )
    check_count("window", window)
    check_array("tolerance", tolerance, "")
    check_array("border", border, "")
    num_steps, last = np.shape(losses)[0], concrete(border)
    if last is not None and not 1 <= last <= num_steps - window + 1:
        raise ValueError(
            f"border must be a step with a window of {window} steps from it on within the run of {num_steps}, but it is"
            f" {last}; make the run longer or the window shorter"
        )

    def means(series: Float[ArrayLike, "T *agents"]) -> Array:
        sums = running_sums(jnp.asarray(series))
        return (sums[window - 1 :] - jnp.concatenate([jnp.zeros_like(sums[:1]), sums[:-window]])) / window

    mean, twin = means(losses), means(twin_losses)
    delays = jnp.arange(1, num_steps - window + 2) - jnp.asarray(border)
    recovered = (mean - twin <= tolerance * jnp.abs(twin)) & beside(delays >= 0, mean)
    first = delays[jnp.argmax(recovered, axis=0)].astype(mean.dtype)
    return jnp.where(jnp.any(recovered, axis=0), first, jnp.inf)


def _warn_if_inexact(gap: Array, regret: Array, size: Array, horizons: Sequence[int]) -> None:
    slack, measured, losses = concrete(gap), concrete(regret), concrete(size)
    if slack is None or measured is None or losses is None:
        return
    slack = np.where(slack > EXACT * losses, slack, 0)
    if np.any(np.isinf(slack)):
        warnings.warn(
            "nothing certifies the best memory in hindsight on an unbounded set, so the regret may be larger than it"
            " seems; use a bounded set, such as frobenius_ball",
            RuntimeWarning,
            stacklevel=3,
        )
    elif np.any(slack > GAP_SHARE * np.abs(measured)):
        worst = np.unravel_index(
            np.argmax(slack / np.maximum(np.abs(measured), np.finfo(slack.dtype).tiny)), slack.shape
        )
        warnings.warn(
            f"the best memory in hindsight is known to {slack[worst]:.3g} only, of a regret of {measured[worst]:.3g}"
            f" (horizon {horizons[int(worst[0])]}, agent {worst[1]}): a large set, steep features or nearly dependent"
            f" cues make it hard to find, and float32 hard to certify; use float64, cues nearer to 0, or a smaller set",
            RuntimeWarning,
            stacklevel=3,
        )
