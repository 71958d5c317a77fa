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
from matplotlib.figure import Figure

import damjax
from damjax import bounds, plotting
from paper_figs import _output, _panels, _sweeps
from paper_figs._panels import Panel
from paper_figs._problems import Problem, Protocol, Setting, objective_and_domain, problems, seeds, stream
from paper_figs._sweeps import Sweep
from paper_figs._theory import PROTOCOL, QUICK

BLUES = mpl.colormaps["Blues"](np.linspace(0.3, 1, 64))  # without the shades that paper swallows
CLAIM = "A few links are worth most, and those that no tree uses are worth nothing"
PERCENT = "gain per hop saved (% of the bound)"


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
    drawn = problems(graph, protocol, [Setting()], seeds(protocol, tuning=False))
    crosses = np.zeros((*drawn.weights[:, 0].shape, len(links)))
    for seed, weights in enumerate(drawn.weights[:, 0]):
        used, table = damjax.routing.path_links(damjax.routing.compile_routes(graph, weights, method=protocol.routing))
        crosses[seed][:, :, [links.index(link) for link in used]] = table
    return Crossing(drawn, crosses)


def compute(protocol: Protocol, *, quick: bool = False, sweep: Sweep = _sweeps.quiet) -> Links:
    """The gains for every seed's streams and weights; ``quick`` is in the protocol already."""
    graph = damjax.graphs.paper_network()
    objective, ball = objective_and_domain(protocol)
    links = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))

    def run(seed: Crossing) -> jax.Array:
        problem = seed.problem.at(0)
        source = stream(Setting().correlation, problem)
        known = bounds.constants(objective, ball, jax.vmap(source)(jnp.arange(1, protocol.num_steps + 1)))
        scale = bounds.optimal_scale(problem.weights, problem.delays, known)

        def total(lengths: jax.Array) -> jax.Array:
            delays = 2 * seed.crosses @ lengths
            return bounds.weighted_delay(problem.weights, delays, known, scale=scale, horizon=protocol.num_steps).sum()

        whole, slopes = jax.value_and_grad(total)(jnp.ones(len(links)))
        return 100 * slopes / whole

    found = sweep("links", run, keys=crossings(graph, protocol, links))
    return Links(links, np.asarray(found["value"]))


def draw(found: Links, protocol) -> Figure:
    """The network with its links coloured by what they are worth, and the same as bars."""
    graph = damjax.graphs.paper_network()
    positions = nx.get_node_attributes(graph, "pos")
    mean, low, high = plotting.mean_interval(found.gains)
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        network, bars = figure.subplots(1, 2)
        nx.draw_networkx_nodes(graph, positions, ax=network, node_color="white", edgecolors="black", node_size=260)
        nx.draw_networkx_labels(graph, positions, ax=network, font_size=8)
        lines = nx.draw_networkx_edges(
            graph,
            positions,
            edgelist=found.links,
            ax=network,
            edge_color=mean.tolist(),
            edge_cmap=LinearSegmentedColormap.from_list("links", BLUES),
            edge_vmin=0.0,
            width=(1 + 4 * mean / mean.max()).tolist(),
        )
        assert isinstance(lines, LineCollection)  # as undirected graphs are drawn
        figure.colorbar(lines, ax=network, label=PERCENT, shrink=0.8)
        network.set_axis_off()
        network.set_title("what one hop less on a link is worth")
        order = np.argsort(mean)
        names = [f"{found.links[i][0]}–{found.links[i][1]}" for i in order]
        bars.barh(
            names,
            mean[order],
            xerr=np.stack([mean - low, high - mean])[:, order],
            color="0.6",
            error_kw={"linewidth": 0.8},
        )
        bars.set(xlabel=PERCENT, ylabel="link", title="the same, in order")
        _panels.letter((network, bars))
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds: derivative of the weighted-delay bound, summed"
            " over agents, in the length of the link."
        )
        figure.text(0.0, -0.02, note, fontsize=7, va="top")
    return figure


def panels(found: Links) -> dict[str, Panel]:
    """The numbers as a table has them."""
    names = np.array([f"{a}-{b}" for a, b in found.links])
    return {"links": Panel("link", names, {"gain in percent": found.gains}, log=False)}


make = _output.maker("sensitivity", PROTOCOL, QUICK, compute, draw, panels, claim=CLAIM)
