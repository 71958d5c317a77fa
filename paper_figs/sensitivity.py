"""What each link is worth: the derivative of the weighted-delay bound in the links' lengths."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
from paper_figs import _output, _panels
from paper_figs._experiment import Setting, objective_and_domain, problems, seeds, stream
from paper_figs._panels import Panel
from paper_figs._theory import PROTOCOL, QUICK

BLUES = mpl.colormaps["Blues"](np.linspace(0.3, 1, 64))  # without the shades that paper swallows
PERCENT = "gain per hop saved (% of the bound)"


class Links(NamedTuple):
    """The physical links and what one hop less on each would gain, in percent of the bound, (seeds, links)."""

    links: tuple[tuple[int, int], ...]
    gains: np.ndarray


def link_gains(weights, routes, known, horizon) -> dict[tuple[int, int], float]:
    """How much of the network's bound, a share of it, one hop less on each link would save."""
    links, crosses = damjax.routing.path_links(routes)
    scale = bounds.optimal_scale(weights, routes.delays, known)

    def total(lengths):
        delays = 2 * crosses @ lengths
        return bounds.weighted_delay(weights, delays, known, scale=scale, horizon=horizon).sum()

    whole, slopes = jax.value_and_grad(total)(jnp.ones(len(links)))
    return dict(zip(links, np.asarray(slopes / whole).tolist(), strict=True))


def compute(protocol, *, advance: Callable[[], Any] = lambda: None) -> Links:
    """The gains for every seed's streams and weights; ``advance`` is called twice."""
    graph = damjax.graphs.paper_network()
    objective, ball = objective_and_domain(protocol)
    links = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))
    drawn = problems(graph, protocol, Setting(), seeds(protocol, tuning=False))
    gains = np.zeros((protocol.num_seeds, len(links)))
    advance()

    @jax.jit
    def known_of(problem):
        source = stream(jnp.asarray(Setting().correlation), problem)
        return bounds.constants(objective, ball, jax.vmap(source)(jnp.arange(1, protocol.num_steps + 1)))

    for seed in range(protocol.num_seeds):
        problem = jax.tree.map(lambda leaf, seed=seed: leaf[seed], drawn)
        weights = np.asarray(problem.weights)
        routes = damjax.routing.compile_routes(graph, weights, method=protocol.routing)
        found = link_gains(weights, routes, known_of(problem), protocol.num_steps)
        gains[seed] = [100 * found.get(link, 0.0) for link in links]
    advance()
    return Links(links, gains)


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 2


def draw(found: Links, protocol) -> Figure:
    """The network with its links coloured by what they are worth, and the same as bars."""
    graph = damjax.graphs.paper_network()
    positions = nx.get_node_attributes(graph, "pos")
    mean, _, high = plotting.mean_interval(found.gains)
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
        network.set_title("(a) what one hop less on a link is worth")
        order = np.argsort(mean)
        names = [f"{found.links[i][0]}–{found.links[i][1]}" for i in order]
        bars.barh(names, mean[order], xerr=(high - mean)[order], color="0.6", error_kw={"linewidth": 0.8})
        bars.set(xlabel=PERCENT, ylabel="link", title="(b) the same, in order")
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds: derivative of the weighted-delay bound, summed"
            " over agents, in the length of the link."
        )
        figure.text(0.0, -0.02, note, fontsize=7, va="top")
    return figure


def make(out: Path, *, quick: bool, num_seeds: int | None, advance: Callable[[], Any]) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(PROTOCOL, QUICK if quick else {}, num_seeds)
    found = compute(protocol, advance=advance)
    names = np.array([f"{a}-{b}" for a, b in found.links])
    tables = _panels.tables({"links": Panel("link", names, {"gain in percent": found.gains})})
    settings = _output.settings("sensitivity", dataclasses.asdict(protocol), quick)
    return _output.save("sensitivity", draw(found, protocol), tables, settings, out)
