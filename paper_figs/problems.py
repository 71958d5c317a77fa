"""The problems of the regret figures: settings, seeds, streams, interests and routes.

What the paper leaves open is as the follow-up by its authors publishes it (arXiv 2511.23347), where it does:
``figure_1.SOURCES`` says what comes from where.

One ``Setting`` is a point of a figure's axis. A seed draws its stream once: correlation and concentration only shape
it, and all algorithms see the same.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax


@dataclass(frozen=True)
class Setting:
    """One point of a figure.

    Attributes:
        correlation: rho, of the targets.
        concentration: y0, the Dirichlet parameter of every other agent, beside y1, an agent's own.
    """

    correlation: float = 0.75
    concentration: float = 2.0


@dataclass(frozen=True)
class Protocol:
    """How every run of a figure is made.

    The radius holds every target of every setting: at rho = 0, where they are largest, the norms of 20,000 have a
    median of 28 and a maximum of 58. A best memory is a weighted mean of targets, but for the noise.
    """

    num_seeds: int = 32
    num_tuning_seeds: int = 8
    num_steps: int = 2000
    key_dim: int = 5
    value_dim: int = 5
    personal_mean: tuple[float, float] = (-5.0, 5.0)
    personal_variance: tuple[float, float] = (0.0, 50.0)
    noise_std: float = 1.0
    self_concentration: float = 10.0
    radius: float = 60.0
    routing: str = "steiner"
    rate_constants: tuple[float, ...] = tuple(float(c) for c in np.geomspace(0.05, 12.0, 14).round(4))
    base_seed: int = 0


class Problem(NamedTuple):
    """What all algorithms see of a seed, drawn before the sweep, since routes are compiled on the host.

    Attributes:
        model: the stream, before the correlation mixes it.
        weights: (N, N), or a table per concentration, (A, N, N), as ``draw_problems`` makes them.
        delays: likewise.
    """

    model: damjax.streams.LinearModel
    weights: Any
    delays: Any

    def at(self, table: jax.Array | int) -> "Problem":
        """With the tables of one concentration only."""
        return self._replace(weights=jnp.asarray(self.weights)[table], delays=jnp.asarray(self.delays)[table])


class Case(NamedTuple):
    """What the runs of a sweep are about; ``draw_case`` makes it.

    Attributes:
        graph: the network.
        protocol: sizes.
        settings: P of them.
        problems: of every seed, for all settings; leading axis S.
    """

    graph: nx.Graph
    protocol: Protocol
    settings: Sequence[Setting]
    problems: Problem


def seeds(protocol: Protocol, *, tuning: bool) -> jax.Array:
    """The seeds' keys, (S,); tuning and evaluation never share one."""
    evaluation_key, tuning_key = jax.random.split(jax.random.key(protocol.base_seed))
    if tuning:
        return jax.random.split(tuning_key, protocol.num_tuning_seeds)
    return jax.random.split(evaluation_key, protocol.num_seeds)


def concentrations(settings: Sequence[Setting]) -> list[float]:
    """What ``draw_problems`` draws weights for, in order."""
    return sorted({setting.concentration for setting in settings})


def draw_case(graph: nx.Graph, protocol: Protocol, settings: Sequence[Setting], *, tuning: bool = False) -> Case:
    """The problems of all evaluation seeds, or of all tuning seeds."""
    return Case(graph, protocol, settings, draw_problems(graph, protocol, settings, seeds(protocol, tuning=tuning)))


def draw_problems(graph: nx.Graph, protocol: Protocol, settings: Sequence[Setting], keys: jax.Array) -> Problem:
    """Draw every seed's stream and weights and compile the routes; leading axis S."""
    table_concentrations = jnp.array(concentrations(settings), float)
    # One after the other: any number of seeds is one program.
    per_seed = [_draw(key, table_concentrations, num_agents=graph.number_of_nodes(), protocol=protocol) for key in keys]
    model, weights = jax.tree.map(lambda *leaves: np.stack(leaves), *per_seed)

    # Only exact trees depend on how much an interest weighs; others on who is interested in whom, mostly all in all.
    compiled: dict[bytes, np.ndarray] = {}
    delays = []
    for table in weights.reshape(-1, *weights.shape[-2:]):
        trees = (table if protocol.routing == "exact" else table > 0).tobytes()
        if trees not in compiled:
            compiled[trees] = damjax.routing.compile_routes(graph, table, method=protocol.routing).delays
        delays.append(compiled[trees])
    return Problem(model, weights, np.reshape(delays, weights.shape))


# Compiling this well would take longer than all its calls.
@functools.partial(
    jax.jit, static_argnames=("num_agents", "protocol"), compiler_options={"xla_backend_optimization_level": 0}
)
def _draw(key, concentrations, *, num_agents, protocol):
    model_key, weights_key = jax.random.split(key)
    model = damjax.streams.draw_linear_model(
        model_key,
        num_agents=num_agents,
        num_steps=protocol.num_steps,
        key_dim=protocol.key_dim,
        value_dim=protocol.value_dim,
        personal_mean=protocol.personal_mean,
        personal_variance=protocol.personal_variance,
        noise_std=protocol.noise_std,
    )

    def weights(concentration):
        own = protocol.self_concentration / concentration
        return damjax.weights.dirichlet(weights_key, num_agents, concentration=concentration, self_factor=own)

    return model, jax.vmap(weights)(concentrations)


def objective_and_domain(protocol: Protocol) -> tuple[damjax.objectives.Objective, damjax.domains.Domain]:
    """DeltaNet's objective in a Frobenius ball."""
    return damjax.objectives.delta_net(), damjax.domains.frobenius_ball(protocol.radius)


def facts(numbers: Any, protocol: Protocol) -> dict[str, Any]:
    """What it takes to make a figure of regret again, beside its protocol: the network."""
    return {"graph": sorted(damjax.graphs.paper_network().edges)}


def stream(correlation: jax.Array | float, problem: Problem):
    """The associations as a function of the time, made inside the scan."""
    return functools.partial(problem.model.associations, problem.model.targets(correlation))
