"""Paired runs of the three algorithms, and the tuning of their rate constants, per algorithm and setting."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax
from paper_figs import _sweeps
from paper_figs._problems import (
    Case,
    Problem,
    Protocol,
    Setting,
    concentrations,
    draw_case,
    objective_and_domain,
    stream,
)
from paper_figs._sweeps import Sweep

ALGORITHMS = ("OGD", "C-DOGD", "DAM-TOGD")


def algorithm(name: str, scale: jax.Array, problem: Problem, graph: nx.Graph, protocol: Protocol) -> damjax.Algorithm:
    """The algorithm of this name with the rate c / sqrt(count)."""
    objective, ball = objective_and_domain(protocol)
    rate = damjax.schedules.inverse_sqrt(scale)
    if name == "OGD":
        return damjax.ogd(objective, problem.weights, learning_rate=rate, domain=ball)
    if name == "C-DOGD":
        mixing = damjax.graphs.metropolis_weights(graph)
        return damjax.c_dogd(objective, mixing, learning_rate=rate, domain=ball)
    longest = 2 * (graph.number_of_nodes() - 1)
    return damjax.dam_togd(
        objective, problem.weights, problem.delays, learning_rate=rate, domain=ball, max_delay=longest
    )


def average_losses(
    name: str, case: Case, scales: Mapping[Any, Any], *, horizons: Sequence[int], sweep: Sweep
) -> dict[str, np.ndarray]:
    """Loss per step and agent of each algorithm at every setting, for every seed, rate constant and horizon.

    Args:
        name: of the sweep.
        case: network, settings and problems.
        scales: algorithm -> rate constants, (P, C).
        horizons: increasing.
        sweep: computes.

    Returns:
        Algorithm -> (P, S, C, H).

    Raises:
        FloatingPointError: losses that are not finite.
    """
    graph, protocol, settings, drawn = case
    objective, _ = objective_and_domain(protocol)
    algorithms, steps = tuple(scales), np.array(horizons)

    def run(seed: Problem, correlation: jax.Array, table: jax.Array, scales: jax.Array) -> jax.Array:
        problem = seed.at(table)

        def observe(params, associations, info):
            return damjax.regret.step_losses(objective, problem.weights, params, associations, info.time).mean()

        def losses(of: str, scale: jax.Array) -> jax.Array:
            start = jnp.zeros((graph.number_of_nodes(), protocol.value_dim, protocol.key_dim), problem.weights.dtype)
            _, found = damjax.simulate(
                algorithm(of, scale, problem, graph, protocol),
                start,
                stream(correlation, problem),
                num_steps=max(horizons),
                observe=observe,
            )
            return jnp.cumsum(found)[steps - 1] / steps.astype(found.dtype)

        # One constant after the other, many seeds and settings at once: the stream is read once for all constants.
        return jnp.stack(
            [jax.lax.map(functools.partial(losses, of), c) for of, c in zip(algorithms, scales, strict=True)]
        )

    tried = np.stack([np.asarray(scales[of], float) for of in algorithms], axis=1)
    found = sweep(name, run, keys=drawn, zipped=[(*_axes(settings), "scales")], **_axes(settings), scales=tried)
    paid = {of: np.asarray(found["value"])[:, :, i] for i, of in enumerate(algorithms)}
    for of, values in paid.items():
        if lost := [setting for setting, of_it in zip(settings, values, strict=True) if not np.isfinite(of_it).all()]:
            raise FloatingPointError(f"{of} at {lost[0]} gave losses that are not finite; lower the rate constants")
    return paid


def average_regret(
    name: str, case: Case, scales: Mapping[Any, Any], *, horizons: Sequence[int], sweep: Sweep
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

    paid = average_losses(name, case, scales, horizons=horizons, sweep=sweep)
    found = sweep(f"{name}_comparators", best, keys=case.problems, zipped=[tuple(axes)], **axes)
    least = np.asarray(found["value"])[:, :, None]
    return {of: losses - least for of, losses in paid.items()}


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
    sweep: Sweep = _sweeps.quiet,
    prefix: str = "",
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
    """
    tuning, evaluation = (draw_case(graph, protocol, settings, tuning=part) for part in (True, False))
    grid = dict.fromkeys(ALGORITHMS, np.tile(protocol.rate_constants, (len(settings), 1)))
    paid = average_losses(f"{prefix}tuning", tuning, grid, horizons=[protocol.num_steps], sweep=sweep)
    best = {of: losses[..., -1].mean(axis=1).argmin(axis=1) for of, losses in paid.items()}
    chosen = {of: np.array(protocol.rate_constants)[places] for of, places in best.items()}
    scales = {of: rates[:, None] for of, rates in chosen.items()}
    regret = average_regret(f"{prefix}evaluation", evaluation, scales, horizons=horizons, sweep=sweep)
    return {of: values[:, :, 0] for of, values in regret.items()}, {of: c.tolist() for of, c in chosen.items()}
