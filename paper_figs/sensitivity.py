"""What each link is worth: the derivative of the weighted-delay bound in the links' lengths."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import networkx as nx
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

import damjax
from damjax import bounds, plotting
from paper_figs.figure import Figure, Picture, Tables
from paper_figs.panels import Panel, letter, note, tabulate
from paper_figs.problems import Problem, Setting, draw_problems, facts, objective_and_domain, seeds, stream
from paper_figs.sweeps import Sweep, quiet
from paper_figs.theory import QUICK, Protocol

BLUES = mpl.colormaps["Blues"](np.linspace(0.3, 1, 64))  # without the shades that paper swallows
PERCENT = "gain per hop saved (% of the bound)"
CLAIM = "A few links are worth most, and those that no tree uses are worth nothing"


class Links(NamedTuple):
    """The physical links and what one hop less on each would gain, in percent of the bound, (seeds, links)."""

    links: tuple[tuple[int, int], ...]
    gains: np.ndarray


class Crossing(NamedTuple):
    """A seed's problem, and which links its messages cross, (N, N, E)."""

    problem: Problem
    crosses: np.ndarray


def crossings(graph: nx.Graph, protocol: Protocol, links: Sequence[tuple[int, int]]) -> Crossing:
    """The seeds with their trees: where a seed's trees leave a link out, nothing crosses it."""
    problems = draw_problems(graph, protocol, [Setting()], seeds(protocol, tuning=False))
    crosses = np.zeros((*problems.weights[:, 0].shape, len(links)))
    for seed, weights in enumerate(problems.weights[:, 0]):
        used, table = damjax.routing.path_links(damjax.routing.compile_routes(graph, weights, method=protocol.routing))
        crosses[seed][:, :, [links.index(link) for link in used]] = table
    return Crossing(problems, crosses)


def compute(protocol: Protocol, sweep: Sweep = quiet) -> Links:
    """The gains for every seed's streams and weights."""
    graph = damjax.graphs.paper_network()
    objective, ball = objective_and_domain(protocol)
    links = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))

    def run(seed: Crossing) -> jax.Array:
        problem = seed.problem.at(0)
        source = stream(Setting().correlation, problem)
        constants = bounds.constants(objective, ball, jax.vmap(source)(jnp.arange(1, protocol.num_steps + 1)))
        scale = bounds.optimal_scale(problem.weights, problem.delays, constants)

        def total(lengths: jax.Array) -> jax.Array:
            delays = 2 * seed.crosses @ lengths
            return bounds.weighted_delay(
                problem.weights, delays, constants, scale=scale, horizon=protocol.num_steps
            ).sum()

        whole, slopes = jax.value_and_grad(total)(jnp.ones(len(links)))
        return 100 * slopes / whole

    results = sweep("links", run, keys=crossings(graph, protocol, links))
    return Links(links, np.asarray(results["value"]))


def draw(figure: Picture, worth: Links, protocol: Protocol) -> None:
    """The network with its links coloured by what they are worth, and the same as bars."""
    graph = damjax.graphs.paper_network()
    positions = nx.get_node_attributes(graph, "pos")
    mean, low, high = plotting.mean_interval(worth.gains)
    network, bars = figure.subplots(1, 2)
    nx.draw_networkx_nodes(graph, positions, ax=network, node_color="white", edgecolors="black", node_size=260)
    nx.draw_networkx_labels(graph, positions, ax=network, font_size=8)
    lines = nx.draw_networkx_edges(
        graph,
        positions,
        edgelist=worth.links,
        ax=network,
        edge_color=mean.tolist(),
        edge_cmap=LinearSegmentedColormap.from_list("links", BLUES),
        edge_vmin=0.0,
        width=(1 + 4 * mean / mean.max()).tolist(),
    )
    assert isinstance(lines, LineCollection)  # as undirected graphs are problems
    figure.colorbar(lines, ax=network, label=PERCENT, shrink=0.8)
    network.set_axis_off()
    network.set_title("what one hop less on a link is worth")
    order = np.argsort(mean)
    names = [f"{worth.links[i][0]}–{worth.links[i][1]}" for i in order]
    bars.barh(
        names,
        mean[order],
        xerr=np.stack([mean - low, high - mean])[:, order],
        color="0.6",
        error_kw={"linewidth": 0.8},
    )
    bars.set(xlabel=PERCENT, ylabel="link", title="the same, in order")
    letter((network, bars))
    note(
        figure,
        f"Mean and 95% interval over {protocol.num_seeds} seeds: derivative of the weighted-delay bound, summed"
        " over agents, in the length of the link.",
    )


def tables(worth: Links, protocol: Protocol) -> Tables:
    """The gains of every link."""
    names = np.array([f"{a}-{b}" for a, b in worth.links])
    return tabulate({"links": Panel("link", names, {"gain in percent": worth.gains}, log=False)})


FIGURE = Figure("sensitivity", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (8.6, 3.6), tables=tables, facts=facts)
