"""Paired runs of algorithms, and the tuning of their rate constants, per algorithm and setting.

The paper's three are ``ALGORITHMS``, consensus in the order that the follow-up prints, combine-then-adapt. One of your
own stands beside them in every figure that takes ``algorithms``:

    figure_1.compute(protocol, algorithms=ALGORITHMS | {"mine": lambda parts, constant: damjax.ogd(...)})
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax
from paper_figs.problems import (
    Case,
    Problem,
    Protocol,
    Setting,
    concentrations,
    draw_case,
    objective_and_domain,
    stream,
)
from paper_figs.sweeps import Sweep, quiet


class Parts(NamedTuple):
    """What an algorithm may be made of, for the problem of one seed and setting.

    Attributes:
        objective: the memory loss.
        domain: the feasible set.
        weights: interests, (N, N), or as edge lists.
        delays: round trips in steps, shaped like the weights.
        max_delay: in steps, what no round trip of the network exceeds; static.
        mixing: the network's Metropolis weights, (N, N).
    """

    objective: damjax.objectives.Objective
    domain: damjax.domains.Domain
    weights: Any
    delays: Any
    max_delay: int
    mixing: Any


Factory = Callable[[Parts, jax.Array], damjax.Algorithm]
"""``factory(parts, constant)``: an algorithm, with the rate constant c that is tuned, shape () and positive."""


def by_rate(rate: Callable[[jax.Array], Any]) -> dict[str, Factory]:
    """The paper's algorithms, of the rate or the schedule that this makes of the constant."""
    return {
        "OGD": lambda parts, constant: damjax.ogd(
            parts.objective, parts.weights, learning_rate=rate(constant), domain=parts.domain
        ),
        "C-DOGD": lambda parts, constant: damjax.c_dogd(
            parts.objective,
            parts.mixing,
            learning_rate=rate(constant),
            domain=parts.domain,
            order="combine_then_adapt",
        ),
        "DAM-TOGD": lambda parts, constant: damjax.dam_togd(
            parts.objective,
            parts.weights,
            parts.delays,
            learning_rate=rate(constant),
            domain=parts.domain,
            max_delay=parts.max_delay,
        ),
    }


ALGORITHMS = by_rate(lambda constant: damjax.schedules.inverse_sqrt(constant))


def average_losses(
    name: str,
    case: Case,
    constants: Mapping[str, Any],
    *,
    horizons: Sequence[int],
    sweep: Sweep,
    algorithms: Mapping[str, Factory] = ALGORITHMS,
) -> dict[str, np.ndarray]:
    """Loss per step and agent of each algorithm at every setting, for every seed, rate constant and horizon.

    Args:
        name: of the sweep.
        case: network, settings and problems.
        constants: algorithm -> rate constants, (P, C).
        horizons: increasing.
        sweep: computes.
        algorithms: makes those that ``constants`` names.

    Returns:
        Algorithm -> (P, S, C, H).

    Raises:
        FloatingPointError: losses that are not finite.
    """
    graph, protocol, settings, problems = case
    objective, ball = objective_and_domain(protocol)
    num_agents, mixing = graph.number_of_nodes(), damjax.graphs.metropolis_weights(graph)
    steps = np.array(horizons)

    def run(seed: Problem, correlation: jax.Array, table: jax.Array, scales: jax.Array) -> jax.Array:
        problem = seed.at(table)
        parts = Parts(objective, ball, problem.weights, problem.delays, 2 * (num_agents - 1), mixing)

        def observe(params, associations, info):
            return damjax.regret.step_losses(objective, problem.weights, params, associations, info.time).mean()

        def losses(factory: Factory, constant: jax.Array) -> jax.Array:
            start = jnp.zeros((num_agents, protocol.value_dim, protocol.key_dim), problem.weights.dtype)
            _, means = damjax.simulate(
                factory(parts, constant),
                start,
                stream(correlation, problem),
                num_steps=max(horizons),
                observe=observe,
            )
            return jnp.cumsum(means)[steps - 1] / steps.astype(means.dtype)

        # One constant after the other, many seeds and settings at once: the stream is read once for all constants.
        return jnp.stack(
            [jax.lax.map(functools.partial(losses, algorithms[of]), c) for of, c in zip(constants, scales, strict=True)]
        )

    scales = np.stack([np.asarray(of_algorithm, float) for of_algorithm in constants.values()], axis=1)
    results = sweep(name, run, keys=problems, zipped=[(*_axes(settings), "scales")], **_axes(settings), scales=scales)
    averages = {of: np.asarray(results["value"])[:, :, i] for i, of in enumerate(constants)}
    for of, values in averages.items():
        for setting, losses in zip(settings, values, strict=True):
            if not np.isfinite(losses).all():
                raise FloatingPointError(f"{of} at {setting} gave losses that are not finite; lower the rate constants")
    return averages


def average_regret(
    name: str,
    case: Case,
    constants: Mapping[str, Any],
    *,
    horizons: Sequence[int],
    sweep: Sweep,
    algorithms: Mapping[str, Factory] = ALGORITHMS,
) -> dict[str, np.ndarray]:
    """sum_n Reg_n(T) / (N T), arguments and result as of ``average_losses``.

    The comparators depend on neither the algorithm nor the rate: a sweep of their own solves for them once.
    """
    objective, ball = objective_and_domain(case.protocol)
    steps, axes = np.array(horizons), _axes(case.settings)

    def best(seed: Problem, correlation: jax.Array, table: jax.Array) -> jax.Array:
        problem = seed.at(table)
        sources = damjax.hindsight.moments(objective, stream(correlation, problem), steps)
        least = damjax.hindsight.best_losses(sources, problem.weights, ball).mean(axis=1)
        return least / steps.astype(least.dtype)

    averages = average_losses(name, case, constants, horizons=horizons, sweep=sweep, algorithms=algorithms)
    results = sweep(f"{name}_comparators", best, keys=case.problems, zipped=[tuple(axes)], **axes)
    least = np.asarray(results["value"])[:, :, None]
    return {of: losses - least for of, losses in averages.items()}


def _axes(settings: Sequence[Setting]) -> dict[str, list[float]]:
    """The settings as zipped axes: the correlation, and the place of the concentration's tables."""
    tables = concentrations(settings)
    return {
        "correlation": [setting.correlation for setting in settings],
        "table": [tables.index(setting.concentration) for setting in settings],
    }


def tuned_regret(
    settings: Sequence[Setting],
    *,
    graph: nx.Graph,
    protocol: Protocol,
    horizons: Sequence[int],
    sweep: Sweep = quiet,
    prefix: str = "",
    algorithms: Mapping[str, Factory] = ALGORITHMS,
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Average regret (P, S, H) of every algorithm at its own best rate constant, and those constants, (P,).

    The constant is the one of the least mean loss over all steps on the tuning seeds, and so of the least regret: the
    comparators are the same for all.

    Args:
        settings: P of them.
        graph: the network.
        protocol: sizes, seeds and rate constants.
        horizons: increasing, for the regret.
        sweep: computes.
        prefix: of the sweeps' names.
        algorithms: by name.
    """
    tuning, evaluation = (draw_case(graph, protocol, settings, tuning=part) for part in (True, False))
    grid = dict.fromkeys(algorithms, np.tile(protocol.rate_constants, (len(settings), 1)))
    losses = average_losses(
        f"{prefix}tuning", tuning, grid, horizons=[protocol.num_steps], sweep=sweep, algorithms=algorithms
    )
    best = {of: values[..., -1].mean(axis=1).argmin(axis=1) for of, values in losses.items()}
    chosen = {of: np.array(protocol.rate_constants)[places] for of, places in best.items()}
    constants = {of: rates[:, None] for of, rates in chosen.items()}
    regret = average_regret(
        f"{prefix}evaluation", evaluation, constants, horizons=horizons, sweep=sweep, algorithms=algorithms
    )
    return {of: values[:, :, 0] for of, values in regret.items()}, {of: c.tolist() for of, c in chosen.items()}
