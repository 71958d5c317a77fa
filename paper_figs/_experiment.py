"""What the regret figures share: paired runs of the three algorithms, and the tuning of their rate constants.

One ``Setting`` is a point of a figure's axis. Every algorithm sees the same streams, weights and seeds; rate constants
are tuned per algorithm and setting on seeds of their own.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax

ALGORITHMS = ("OGD", "C-DOGD", "DAM-TOGD")


@dataclass(frozen=True)
class Setting:
    """One point of a figure.

    Attributes:
        correlation: rho, of the targets.
        concentration: a, of the Dirichlet weights.
    """

    correlation: float = 0.5
    concentration: float = 1.0


@dataclass(frozen=True)
class Protocol:
    """How every run of a figure is made."""

    num_seeds: int = 32
    num_tuning_seeds: int = 8
    num_steps: int = 2000
    key_dim: int = 5
    value_dim: int = 5
    noise_std: float = 0.1
    self_factor: float = 5.0
    radius: float = 40.0
    routing: str = "steiner"
    rate_constants: tuple[float, ...] = tuple(float(c) for c in np.geomspace(0.05, 12.0, 14).round(4))
    base_seed: int = 0


class Problems(NamedTuple):
    """The random part of a setting for several seeds, leading axis S: what all algorithms share."""

    model: damjax.streams.LinearModel
    weights: jax.Array
    delays: np.ndarray


def seeds(protocol: Protocol, *, tuning: bool) -> jax.Array:
    """The seeds' keys, (S,); tuning and evaluation never share one."""
    evaluation_key, tuning_key = jax.random.split(jax.random.key(protocol.base_seed))
    if tuning:
        return jax.random.split(tuning_key, protocol.num_tuning_seeds)
    return jax.random.split(evaluation_key, protocol.num_seeds)


@functools.partial(jax.jit, static_argnames=("num_agents", "protocol"))
def _draw(keys, concentration, *, num_agents, protocol):
    def draw(key):
        model_key, weights_key = jax.random.split(key)
        model = damjax.streams.draw_linear_model(
            model_key,
            num_agents=num_agents,
            num_steps=protocol.num_steps,
            key_dim=protocol.key_dim,
            value_dim=protocol.value_dim,
            noise_std=protocol.noise_std,
        )
        weights = damjax.weights.dirichlet(
            weights_key, num_agents, concentration=concentration, self_factor=protocol.self_factor
        )
        return model, weights

    return jax.vmap(draw)(keys)


def problems(graph: nx.Graph, protocol: Protocol, setting: Setting, keys: jax.Array) -> Problems:
    """Draw streams and weights for every seed and compile the routes."""
    num_agents = graph.number_of_nodes()
    model, weights = _draw(keys, setting.concentration, num_agents=num_agents, protocol=protocol)
    delays = [damjax.routing.compile_routes(graph, w, method=protocol.routing).delays for w in np.asarray(weights)]
    return Problems(model, weights, np.stack(delays))


def objective_and_domain(protocol: Protocol) -> tuple[damjax.objectives.Objective, damjax.domains.Domain]:
    """DeltaNet's objective in a Frobenius ball."""
    return damjax.objectives.delta_net(), damjax.domains.frobenius_ball(protocol.radius)


def algorithm(name: str, scale: jax.Array, problem: Problems, graph: nx.Graph, protocol: Protocol) -> damjax.Algorithm:
    """The algorithm of this name with the rate c / sqrt(count), for one seed's problem."""
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


def stream(correlation: jax.Array, problem: Problems):
    """The associations as a function of the time, made inside the scan."""
    return functools.partial(problem.model.associations, problem.model.targets(correlation))


@functools.partial(jax.jit, static_argnames=("name", "graph", "protocol", "horizons"))
def _losses(name, scales, correlation, problem, *, graph, protocol, horizons):
    """Cumulative loss at the horizons, mean over agents: (S, C, H)."""
    objective, _ = objective_and_domain(protocol)

    def run(scale, problem):
        def observe(params, associations, info):
            return damjax.regret.step_losses(objective, problem.weights, params, associations, info.time).mean()

        start = jnp.zeros((graph.number_of_nodes(), protocol.value_dim, protocol.key_dim), problem.weights.dtype)
        _, losses = damjax.simulate(
            algorithm(name, scale, problem, graph, protocol),
            start,
            stream(correlation, problem),
            num_steps=horizons[-1],
            observe=observe,
        )
        return jnp.cumsum(losses)[np.array(horizons) - 1]

    over_scales = damjax.vmap_last(run, in_axes=(0, None))
    return damjax.vmap_last(over_scales, in_axes=(None, 0))(scales, problem)


@functools.partial(jax.jit, static_argnames=("protocol", "horizons"))
def _best(correlation, problem, *, protocol, horizons):
    """Cumulative loss of the best memories in hindsight, mean over agents: (S, H)."""
    objective, ball = objective_and_domain(protocol)

    def one(problem):
        sources = damjax.hindsight.moments(objective, stream(correlation, problem), horizons)
        return damjax.hindsight.best_losses(sources, problem.weights, ball).mean(axis=1)

    return jax.vmap(one)(problem)


def average_regret(
    names: Sequence[str],
    scales: Mapping[Any, Sequence[float]],
    setting: Setting,
    problem: Problems,
    *,
    graph: nx.Graph,
    protocol: Protocol,
    horizons: Sequence[int],
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, np.ndarray]:
    """sum_n Reg_n(T) / (N T) of each algorithm for every seed, rate constant and horizon: (S, C, H).

    The comparators depend on neither the algorithm nor the rate, and are solved once.
    """
    steps = tuple(int(horizon) for horizon in horizons)
    correlation = jnp.asarray(setting.correlation)
    best = _best(correlation, problem, protocol=protocol, horizons=steps)
    regret = {}
    for name in names:
        tried = jnp.asarray(scales[name])
        losses = _losses(name, tried, correlation, problem, graph=graph, protocol=protocol, horizons=steps)
        regret[name] = np.asarray((losses - best[:, None]) / np.array(steps))
        if not np.all(np.isfinite(regret[name])):
            raise FloatingPointError(f"{name} at {setting} gave a regret that is not finite; lower the rate constants")
        advance()
    return regret


def tuned_regret(
    setting: Setting,
    *,
    graph: nx.Graph,
    protocol: Protocol,
    horizons: Sequence[int],
    advance: Callable[[], Any] = lambda: None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Average regret (S, H) of every algorithm at its own best rate constant, and those constants.

    The constant is the one of the least mean regret at the last step on the tuning seeds.
    """
    fixed = {"graph": graph, "protocol": protocol, "advance": advance}
    grid = dict.fromkeys(ALGORITHMS, protocol.rate_constants)
    tuning = problems(graph, protocol, setting, seeds(protocol, tuning=True))
    final = average_regret(ALGORITHMS, grid, setting, tuning, horizons=[protocol.num_steps], **fixed)
    rates = {name: protocol.rate_constants[int(r[:, :, -1].mean(axis=0).argmin())] for name, r in final.items()}
    evaluation = problems(graph, protocol, setting, seeds(protocol, tuning=False))
    chosen = {name: [rate] for name, rate in rates.items()}
    regret = average_regret(ALGORITHMS, chosen, setting, evaluation, horizons=horizons, **fixed)
    return {name: values[:, 0] for name, values in regret.items()}, rates
