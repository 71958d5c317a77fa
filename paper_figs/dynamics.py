"""What changes of the network and random delays cost, and how long agents take to recover."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax
from damjax import channels
from damjax.channels import EpochDelays
from damjax.routing import Timeline, compile_timeline
from damjax.weights import EpochWeights
from paper_figs import problems
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.problems import Problem, Setting, draw_problems, facts, objective_and_domain, seeds, stream
from paper_figs.sweeps import Sweep, quiet

NUM_EPOCHS = 6
HEALED = 4  # the epoch with which recovery begins on the path
LEAVER = 3  # the agent with the most neighbours, without whom the others are still joined
CUT = ((3, 6), (3, 8), (5, 9))
RADIUS, SPEED = 0.5, 0.08
SETTING = Setting(correlation=0.0, concentration=0.5)
PLAIN, REWEIGHTED, FIXED = "random", "random, reweighted", "fixed, of the same mean"
MEAN_DELAY = 4  # of the messages that are not lost


@dataclass(frozen=True)
class Protocol(problems.Protocol):
    """How every run of the figure is made.

    The rate of the networks that change is constant, so that recovery takes as long whenever it begins; that of the
    regret decays.
    """

    num_steps: int = 1800
    window: int = 25
    rate: float = 0.1
    scale: float = 0.5
    self_concentration: float = 1.0
    failure: float = 0.3
    depths: tuple[int, ...] = (1, 3, 5, 7, 9)
    mean_delays: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    losses: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    longest: int = 40

    @property
    def first_steps(self) -> np.ndarray:
        """Of the epochs, which are equally long."""
        return 1 + self.num_steps // NUM_EPOCHS * np.arange(NUM_EPOCHS, dtype=np.int32)


QUICK = {
    "num_seeds": 3,
    "num_steps": 180,
    "window": 10,
    "depths": (1, 4),
    "mean_delays": (0, 8),
    "losses": (0.0, 0.8),
    "longest": 30,
}
CLAIM = "The network recovers from every change, later the deeper its trees; reweighting makes up for losses"

Epochs = list[tuple[nx.Graph, Any]]


def links_fail(graph: nx.Graph, protocol: Protocol, seed: int) -> Epochs:
    """Every link is down in each of three epochs with the same probability, and then all are mended."""
    failing = damjax.graphs.failing_links(graph, protocol.failure, num_epochs=3, seed=seed)
    return [(one, None) for one in (graph, *failing, graph, graph)]


def agent_dies(graph: nx.Graph, protocol: Protocol, seed: int) -> Epochs:
    """One agent is there for two epochs."""
    return [(graph, None)] * 2 + [(graph, _others(graph))] * 4


def agent_joins(graph: nx.Graph, protocol: Protocol, seed: int) -> Epochs:
    """One agent comes after two epochs."""
    return [(graph, _others(graph))] * 2 + [(graph, None)] * 4


def partition_heals(graph: nx.Graph, protocol: Protocol, seed: int) -> Epochs:
    """For two epochs the network is in two parts."""
    return _interrupted(graph, CUT)


def agents_move(graph: nx.Graph, protocol: Protocol, seed: int) -> Epochs:
    """As many agents at random places move three times, and then stay."""
    moving = damjax.graphs.moving_geometric(len(graph), RADIUS, speed=SPEED, num_epochs=4, seed=seed)
    return [(one, None) for one in (*moving, moving[-1], moving[-1])]


class Event(NamedTuple):
    """What happens to a network.

    Attributes:
        title: of its panel.
        borders: the epochs with which something changes, from 0.
        epochs: ``epochs(graph, protocol, seed)``: graph and who is present, of every epoch.
    """

    title: str
    borders: tuple[int, ...]
    epochs: Callable[[nx.Graph, Protocol, int], Epochs]


EVENTS = {
    "links": Event("links fail at random", (1, 2, 3, 4), links_fail),
    "dies": Event(f"agent {LEAVER} dies", (2,), agent_dies),
    "joins": Event(f"agent {LEAVER} joins", (2,), agent_joins),
    "partition": Event("a partition heals", (2, HEALED), partition_heals),
    "mobility": Event("agents move", (1, 2, 3), agents_move),
}


class Networks(NamedTuple):
    """Compiled networks of one seed, with a twin each, which comes last.

    Attributes:
        weights: of every epoch, (networks, 2, E, N, N).
        present: who is there, (networks, 2, E, N).
        delays: round trips, (networks, 2, E, N, N).
        lost: as of ``damjax.routing.Timeline``, filled up to the longest delay of all seeds.
    """

    weights: Any
    present: Any
    delays: Any
    lost: Any


class Seed(NamedTuple):
    """The key, the data, and the networks of a seed."""

    key: Any
    problem: Problem
    networks: Networks


def with_twin(epochs: Epochs, weights: np.ndarray, protocol: Protocol) -> list[Timeline]:
    """A network that changes, and one that has always been as the first is in the end."""
    return [
        compile_timeline(
            [(int(first), *epoch) for first, epoch in zip(protocol.first_steps, states, strict=True)],
            weights,
            method=protocol.routing,
            unreachable="lost",
        )
        for states in (epochs, [epochs[-1]] * NUM_EPOCHS)
    ]


def paths(protocol: Protocol, num_agents: int) -> list[list[Timeline]]:
    """For every depth a path, whose first agent wants itself and the agent that far away; its only link is cut."""
    path, timelines = damjax.graphs.path(num_agents), []
    for depth in protocol.depths:
        weights = np.eye(num_agents)
        weights[0, [0, depth]] = 0.5
        timelines.append(with_twin(_interrupted(path, [(0, 1)]), weights, protocol))
    return timelines


def stacked(timelines: Sequence[Sequence[Timeline]], longest: int) -> Networks:
    """Pairs of timelines as arrays."""

    def stack(field: Callable[[Timeline], Any]) -> np.ndarray:
        return np.stack([[np.asarray(field(timeline)) for timeline in pair] for pair in timelines])

    def filled(timeline: Timeline) -> np.ndarray:
        return np.pad(timeline.lost, ((0, 0), (0, longest - timeline.lost.shape[1]), (0, 0), (0, 0)))

    return Networks(
        stack(lambda one: one.weights.weights),
        stack(lambda one: one.present),
        stack(lambda one: one.delays),
        stack(filled),
    )


def draw_seeds(protocol: Protocol) -> tuple[Seed, int]:
    """All seeds, with the networks of all events and then the paths; the longest delay."""
    graph, keys = damjax.graphs.paper_network(), seeds(protocol, tuning=False)
    problem = draw_problems(graph, protocol, [SETTING], keys)
    on_paths = paths(protocol, len(graph))
    timelines = [
        [
            *(
                with_twin(event.epochs(graph, protocol, protocol.base_seed + i), weights, protocol)
                for event in EVENTS.values()
            ),
            *on_paths,
        ]
        for i, weights in enumerate(problem.weights[:, 0])
    ]
    longest = max(one.max_delay for of_seed in timelines for pair in of_seed for one in pair)
    networks = jax.tree.map(lambda *leaves: np.stack(leaves), *(stacked(of_seed, longest) for of_seed in timelines))
    return Seed(keys, problem, networks), longest


def run_losses(seed: Seed, protocol: Protocol, longest: int) -> jax.Array:
    """The losses in every network and its twin, by the weights of each, (networks, 2, T, N)."""
    objective, ball = objective_and_domain(protocol)
    source, first_steps = stream(SETTING.correlation, seed.problem), protocol.first_steps

    def losses(network: Networks) -> jax.Array:
        # Who is present may not be traced; the rows of absent agents are zero, so at a constant rate they rest anyway.
        weights = EpochWeights(first_steps, np.ones(network.present.shape, bool), network.weights)
        law = EpochDelays(first_steps, network.delays, network.lost, longest)
        algorithm = damjax.dam_togd(objective, weights, law, learning_rate=protocol.rate, domain=ball)
        start = jnp.zeros((network.weights.shape[-1], protocol.value_dim, protocol.key_dim), network.weights.dtype)
        observe = damjax.regret.observe_losses(objective, weights)
        return damjax.simulate(algorithm, start, source, observe=observe, num_steps=protocol.num_steps)[1]

    return jax.vmap(jax.vmap(losses))(jax.tree.map(jnp.asarray, seed.networks))


def changing(protocol: Protocol, everything: Seed, longest: int, sweep: Sweep = quiet) -> dict[str, Panel]:
    """Loss in networks that change over the twin's, in windows; recovery on paths."""
    window, border = protocol.window, int(protocol.first_steps[HEALED])

    def windows(values: jax.Array) -> jax.Array:
        return values.reshape(*values.shape[:-2], -1, window * values.shape[-1]).sum(axis=-1)

    def run(seed: Seed) -> dict[str, jax.Array]:
        of_events, of_paths = jnp.split(run_losses(seed, protocol, longest), [len(EVENTS)])
        in_both = jnp.all(jnp.asarray(seed.networks.present)[: len(EVENTS)], axis=1)
        here = jnp.repeat(in_both, protocol.num_steps // NUM_EPOCHS, axis=1)
        loss = windows(jnp.where(here[:, None], of_events, 0))
        recovery = jax.vmap(
            lambda pair: damjax.regret.recovery_time(pair[0, :, 0], pair[1, :, 0], border, window=window)
        )(of_paths)
        return {"ratio": loss[:, 0] / loss[:, 1], "recovery": recovery}

    results = sweep("networks", run, keys=everything)
    ratio, recovery = np.asarray(results["ratio"]), np.asarray(results["recovery"])
    middle = window * (np.arange(ratio.shape[-1]) + 0.5)
    # The last window that fits begins this long after the border.
    limit = float(protocol.num_steps - border - window + 1)
    return {
        name: Panel("time (steps)", middle, {"loss over the twin's": ratio[:, event]}, log=False)
        for event, name in enumerate(EVENTS)
    } | {
        "recovery": Panel(
            "depth of the tree (links)",
            np.array(protocol.depths),
            {"recovery time": recovery},
            log=False,
            limit=limit + 1,
        )
    }


def at_random(protocol: Protocol, everything: Seed, sweep: Sweep) -> dict[str, Panel]:
    """Regret under geometric delays and losses, made up for or not, and under fixed delays."""
    objective, ball = objective_and_domain(protocol)
    rate, late, missing = damjax.schedules.inverse_sqrt(protocol.scale), protocol.mean_delays, protocol.losses
    means = jnp.array([*late, *late, *[MEAN_DELAY] * len(missing)])
    lost = jnp.array([*[0.0] * 2 * len(late), *missing])
    longest = protocol.longest

    def run(seed: Seed, point: jax.Array) -> dict[str, jax.Array]:
        problem = seed.problem.at(0)
        weights, steps = problem.weights, jnp.arange(1, protocol.num_steps + 1)
        associations = jax.vmap(stream(SETTING.correlation, problem))(steps)
        law = channels.lossy(
            channels.geometric(1 / (1 + means[point].astype(float)), key=seed.key, max_delay=longest),
            lost[point],
            key=seed.key,
        )
        everyone = jnp.broadcast_to(jnp.arange(len(weights)), weights.shape)
        fixed = jnp.where(everyone == everyone.T, 0, means[point].astype(jnp.int32))
        is_fixed = (len(late) <= point) & (point < 2 * len(late))

        def round_trips(time: jax.Array) -> jax.Array:
            return jnp.where(is_fixed, fixed, law.at(time, everyone))

        def losses(delays: Any, *, reweight: bool) -> jax.Array:
            algorithm = damjax.dam_togd(
                objective, weights, delays, learning_rate=rate, domain=ball, max_delay=longest, reweight=reweight
            )
            start = jnp.zeros((len(weights), protocol.value_dim, protocol.key_dim), weights.dtype)
            observe = damjax.regret.observe_losses(objective, weights)
            return damjax.simulate(algorithm, start, associations, observe=observe)[1]

        both = jnp.stack([losses(round_trips, reweight=False), losses(law, reweight=True)])
        last = [protocol.num_steps]
        regret = jax.vmap(
            lambda losses: damjax.regret.static_regret(losses, objective, weights, ball, associations, last).mean()
        )(both)
        return {"plain": regret[0], "reweighted": regret[1]}

    results = sweep("delays", run, keys=everything, point=list(range(len(means))))
    plain, reweighted = (np.asarray(results[name]).T for name in ("plain", "reweighted"))
    random, fixed, lossy = np.split(np.arange(len(means)), [len(late), 2 * len(late)])
    return {
        "delays": Panel(
            "mean round trip (steps)",
            np.array(late),
            {PLAIN: plain[:, random], REWEIGHTED: reweighted[:, random], FIXED: plain[:, fixed]},
            log=False,
        ),
        "losses": Panel(
            "share of messages lost",
            np.array(missing),
            {PLAIN: plain[:, lossy], REWEIGHTED: reweighted[:, lossy]},
        ),
    }


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    everything, longest = draw_seeds(protocol)
    return changing(protocol, everything, longest, sweep) | at_random(protocol, everything, sweep)


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    dotted = {"color": "0.4", "linewidth": 0.9, "linestyle": (0, (1, 2))}
    axes = dict(zip(panels, figure.subplots(2, 4).flat, strict=True))
    for name, event in EVENTS.items():
        panels[name].draw(axes[name], event.title, "loss over the twin's (ratio)")
        axes[name].axhline(1, color="0.4", linewidth=0.8)
        for border in event.borders:
            axes[name].axvline(protocol.first_steps[border], **dotted)
    recovery = panels["recovery"]
    recovery.draw(axes["recovery"], "recovery when a link is mended", "recovery time (steps)")
    axes["recovery"].plot(recovery.x, 2 * recovery.x, label="round trip", **dotted)
    axes["recovery"].set_ylim(bottom=0)
    regret = "regret per agent (cumulative loss)"
    panels["delays"].draw(axes["delays"], "random delays", regret)
    panels["losses"].draw(axes["losses"], f"losses, mean round trip {MEAN_DELAY}", regret)
    for name in ("recovery", "delays", "losses"):
        axes[name].legend(fontsize=7.5)
    letter(axes.values())
    cut = ", ".join(f"{one}-{other}" for one, other in CUT)
    note(
        figure,
        f"DAM-TOGD, T = {protocol.num_steps}. Mean, in (f) median, and 95% interval over {protocol.num_seeds} seeds,"
        " which draw data, interests, failures and places. (a-f) Constant rate"
        f" {protocol.rate:g}. (a-e) Ten agents; mean loss of those who are present, by the interests of each run, in"
        f" windows of {protocol.window} steps,\nover that of a twin: the same data in a network that has always been as"
        " this one is in the end. Dotted: borders. (a) Between the borders every link is down with probability"
        f" {protocol.failure:g}. (d) Between the borders the links {cut} are cut. (e) Linked when nearer than"
        f" {RADIUS:g}\nin the unit square, moves of {SPEED:g}. (f) On a path the first agent wants itself and the one"
        f" that many links away, as much; its only link was down for T/3: steps until its mean loss of"
        f" {protocol.window} steps exceeds its twin's by at most 5%.\n"
        f"(g, h) Rate {protocol.scale:g} / sqrt(count); geometric delays, later than {protocol.longest} steps lost;"
        " reweighted: arrivals are divided by their probability.",
    )


def _others(graph: nx.Graph) -> list[int]:
    return [agent for agent in graph if agent != LEAVER]


def _interrupted(graph: nx.Graph, links: Sequence[tuple[int, int]]) -> Epochs:
    """For two epochs without some links."""
    rest = graph.copy()
    rest.remove_edges_from(links)
    return [(graph, None)] * 2 + [(rest, None)] * 2 + [(graph, None)] * 2


FIGURE = Figure("dynamics", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (14.0, 6.0), facts=facts)
