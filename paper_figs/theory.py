"""What the theory figures share: one run of DAM-TOGD with its regret and every bound on it."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import bounds
from paper_figs import problems
from paper_figs.adversary import KEY_DIM, worst_case
from paper_figs.problems import Case, Problem, objective_and_domain, stream
from paper_figs.sweeps import Sweep

QUICK = {"num_seeds": 3, "num_steps": 100}
BOUNDS = {
    "printed bound": bounds.dam_togd_printed,
    "mended bound": bounds.dam_togd_mended,
    "weighted-delay bound": bounds.weighted_delay,
}
CURVES = ("regret", "certificate", *reversed(BOUNDS))
REGRET = "regret per agent (cumulative loss)"
UNIT_RADIUS = 1.0


@dataclasses.dataclass(frozen=True)
class Protocol(problems.Protocol):
    """How every run of a theory figure is made, in a set as small as its own setting allows: the bounds grow with it.

    Of 20,000 best memories of the default setting the largest norm is 22.
    """

    radius: float = 25.0


def evaluate(objective, domain, weights, delays, constants, scale, losses, norms, associations, horizons):
    """Regret, certificate and the three bounds of a run, every curve (H, N)."""
    rate = damjax.schedules.inverse_sqrt(scale)
    rates = bounds.applied_rates(rate, weights, delays, horizons[-1])
    table, times = bounds.arrivals(delays, horizons[-1]), jnp.arange(1, horizons[-1] + 1, dtype=int)

    def certify(horizon):
        """As if the run had ended at the horizon: nothing sets out after it, and what comes later is lost."""
        sent = jax.tree.map(
            lambda field: jnp.where(times.reshape(-1, *[1] * (field.ndim - 1)) <= horizon, field, 0), norms
        )
        in_time = jnp.where(table <= horizon, table, horizons[-1] + 1)
        return bounds.certificate(sent, domain.diameter, rates=rates, arrivals=in_time)

    curves = {
        "regret": damjax.regret.static_regret(losses, objective, weights, domain, associations, horizons),
        "certificate": jax.lax.map(certify, jnp.array(horizons, table.dtype)),
    }
    for name, bound in BOUNDS.items():
        at = functools.partial(bound, weights, delays, constants, scale=scale)
        curves[name] = jax.vmap(lambda horizon, at=at: at(horizon=horizon))(jnp.array(horizons, float))
    return curves


def measure(
    name: str, case: Case, factors: Sequence[float], *, horizons: Sequence[int], sweep: Sweep
) -> dict[str, np.ndarray]:
    """Every curve for every seed, rate constant and horizon, mean over agents, (S, C, H).

    Args:
        name: of the sweep.
        case: network and problems of one setting.
        factors: the rate constants, as multiples of the one that minimises the weighted-delay bound, (C,).
        horizons: increasing.
        sweep: computes.
    """
    graph, protocol, (setting,), seeds = case
    objective, ball = objective_and_domain(protocol)
    num_agents = graph.number_of_nodes()

    def run(seed: Problem) -> dict[str, jax.Array]:
        problem = seed.at(0)
        weights, delays = problem.weights, problem.delays
        source = stream(setting.correlation, problem)
        associations = jax.vmap(source)(jnp.arange(1, horizons[-1] + 1))
        constants = bounds.constants(objective, ball, associations)
        best = bounds.optimal_scale(weights, delays, constants)

        def with_factor(factor):
            algorithm = damjax.dam_togd(
                objective,
                weights,
                delays,
                learning_rate=damjax.schedules.inverse_sqrt(factor * best),
                domain=ball,
                max_delay=2 * (num_agents - 1),
            )
            norms_of = bounds.observe_gradient_norms(objective, weights)

            def observe(params, now, info):
                losses = damjax.regret.step_losses(objective, weights, params, now, info.time)
                return losses, norms_of(params, now, info)

            start = jnp.zeros((num_agents, protocol.value_dim, protocol.key_dim), weights.dtype)
            _, (losses, norms) = damjax.simulate(algorithm, start, associations, observe=observe)
            curves = evaluate(
                objective, ball, weights, delays, constants, factor * best, losses, norms, associations, horizons
            )
            return jax.tree.map(lambda curve: curve.mean(axis=1), curves)

        # One constant after the other: they share the stream, and the norms of all their messages would not fit.
        return jax.lax.map(with_factor, jnp.array(factors))

    results = sweep(name, run, keys=seeds)
    return {curve: np.asarray(results[curve]) for curve in CURVES}


def movement(name: str, delays: Sequence[int], steps: Sequence[int], sweep: Sweep) -> dict[str, np.ndarray]:
    """How far the memory of an agent with one late interest moves while a question is out, over what proofs allow it.

    Every loss is the same, of slope 1, and the ball is never met, so it moves as far as its rates let it:

        printed, (A-14a):       ||X_t - X_{t-tau}|| <= tau eta_{t-1}                       at every t
        mended, their sum:      sum_{s <= t} ||X_s - X_{s-tau}|| <= tau sum_{s <= t} eta_s

    Args:
        name: of the sweep.
        delays: tau.
        steps: t - tau, counted from the first arrival; at least 2, since nothing has moved before.
        sweep: computes.

    Returns:
        "printed" and "mended": left side over right side, (delays, steps).
    """
    objective, weights = damjax.objectives.linear_attention(), np.array([[0.0, 1.0], [0.0, 1.0]])
    rate, ball = damjax.schedules.inverse_sqrt(1.0), damjax.domains.frobenius_ball(2.0 * max(steps))
    one = jnp.ones((max(delays) + max(steps), 2, 1))

    def run(key: jax.Array, delay: jax.Array) -> dict[str, jax.Array]:
        table = jnp.array([[0, delay], [0, 0]])
        algorithm = damjax.dam_togd(objective, weights, table, learning_rate=rate, domain=ball, max_delay=max(delays))
        stream = damjax.Associations(one, one)
        _, params = damjax.simulate(algorithm, jnp.zeros((2, 1, 1)), stream, observe=lambda params, *_: params[0, 0, 0])
        time, now = jnp.arange(len(one)), jnp.array(steps) + delay - 1
        moved = jnp.where(time >= delay, jnp.abs(params - params[time - delay]), 0)
        rates = bounds.applied_rates(rate, weights, table, len(one))[:, 0]
        return {
            "printed": moved[now] / (delay.astype(rates.dtype) * rates[now - 1]),
            "mended": jnp.cumsum(moved)[now] / (delay.astype(rates.dtype) * jnp.cumsum(rates)[now]),
        }

    results = sweep(name, run, keys=jax.random.split(jax.random.key(0), 1), delay=delays)
    return {side: np.asarray(results[side])[:, 0] for side in ("printed", "mended")}


def adversarial(
    name: str, delays: Sequence[int], factors: Sequence[float], horizons: Sequence[int], sweep: Sweep
) -> dict[str, np.ndarray]:
    """Every curve, (delays, C, H), for an agent that hears of unit linear losses late, against the adversary.

    Nothing is random: one seed, whose key nobody looks at.
    """
    objective, ball = damjax.objectives.linear_attention(), damjax.domains.frobenius_ball(UNIT_RADIUS)
    weights, constants = np.array([[0.0, 1.0], [0.0, 1.0]]), bounds.Constants(jnp.ones(2), ball.diameter)

    def run(key: jax.Array, delay: jax.Array, factor: jax.Array) -> dict[str, jax.Array]:
        table = jnp.array([[0, delay], [0, 0]])
        scale = factor * bounds.optimal_scale(weights, table, constants)
        rate = damjax.schedules.inverse_sqrt(scale)
        algorithm = damjax.dam_togd(objective, weights, table, learning_rate=rate, domain=ball, max_delay=max(delays))
        associations, params = worst_case(algorithm, num_agents=2, num_steps=max(horizons), block=delay + 1)
        losses = damjax.regret.personalized_losses(objective, weights, params, associations)
        observe = bounds.observe_gradient_norms(objective, weights)
        _, norms = damjax.simulate(algorithm, jnp.zeros((2, 1, KEY_DIM)), associations, observe=observe)
        curves = evaluate(objective, ball, weights, table, constants, scale, losses, norms, associations, horizons)
        return jax.tree.map(lambda curve: curve[:, 0], curves)

    results = sweep(name, run, keys=jax.random.split(jax.random.key(0), 1), delay=delays, factor=factors)
    return {curve: np.asarray(results[curve])[:, :, 0] for curve in CURVES}
