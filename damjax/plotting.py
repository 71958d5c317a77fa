"""Figures that are made to be read, in print and in grey. The only module that imports matplotlib."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import networkx as nx
import numpy as np
import scipy.special
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatterMathtext, NullFormatter, StrMethodFormatter

from damjax.routing import Routes
from damjax.types import Graph

__all__ = ["curves", "log_axis", "mean_interval", "median_interval", "network", "style"]

# Colours of clearly different lightness (Okabe and Ito's, safe for the colour-blind); marker and dash tell them apart
# where colour is lost.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "marker": "o", "linestyle": "-"},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#0072B2", "marker": "^", "linestyle": "-."},
    {"color": "#009E73", "marker": "D", "linestyle": ":"},
    {"color": "#CC79A7", "marker": "v", "linestyle": (0, (6, 2))},
    {"color": "#D55E00", "marker": "P", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    {"color": "#56B4E9", "marker": "X", "linestyle": (0, (1, 1))},
)
RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


def mean_interval(
    samples: Num[np.ndarray, "seeds points"], *, positive: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds and the ends of its 95% interval, each (points,); a single sample has no spread.

        mean -+ t s / sqrt(S),   t the quantile of Student's distribution with S - 1 degrees of freedom (4.30 for S = 3)

    or, of a quantity that is positive by its nature, the same interval of the mean's logarithm, which stays positive,
    as on a logarithmic axis it must: mean * exp(-+ t s / (sqrt(S) mean)).

    Args:
        samples: (seeds, points).
        positive: whether the quantity is. To choose by its sample would spoil the interval's confidence.

    Example:
        >>> samples = np.array([[1.0], [2.0], [3.0]])
        >>> [float(end.round(2)[0]) for end in mean_interval(samples)]
        [2.0, -0.48, 4.48]
        >>> [float(end.round(2)[0]) for end in mean_interval(samples, positive=True)]
        [2.0, 0.58, 6.93]
    """
    num_seeds, mean = len(samples), samples.mean(axis=0)
    if num_seeds == 1:
        return mean, mean, mean
    half_width = scipy.special.stdtrit(num_seeds - 1, 0.975) * samples.std(axis=0, ddof=1) / np.sqrt(num_seeds)
    if positive:
        factor = np.exp(half_width / mean)
        return mean, mean / factor, mean * factor
    return mean, mean - half_width, mean + half_width


def median_interval(
    samples: Num[np.ndarray, "seeds points"], *, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median over seeds and the ends of its 95% interval, each (points,), of times of which some are censored.

    The ends are the k-th smallest and the k-th largest sample, with the largest k for which

        P(Binomial(S, 1/2) < k) <= 2.5%,

    whatever the distribution. Fewer than six samples have no such k, and no ends; a single one has no spread.

    Args:
        samples: (seeds, points).
        limit: what is not below it did not happen within the run, and is infinite here.

    Example:
        >>> samples = np.arange(1.0, 8.0)[:, None]
        >>> [float(end[0]) for end in median_interval(samples, limit=7.0)]
        [4.0, 1.0, inf]
        >>> [float(end[0]) for end in median_interval(samples, limit=4.0)]
        [inf, 1.0, inf]
    """
    num_seeds, times = len(samples), np.sort(np.where(samples < limit, samples, np.inf), axis=0)
    median = np.median(times, axis=0)
    if num_seeds == 1:
        return median, median, median
    rank = np.count_nonzero(scipy.special.bdtr(np.arange(num_seeds), num_seeds, 0.5) <= 0.025)
    if rank == 0:
        return median, np.full_like(median, np.nan), np.full_like(median, np.nan)
    return median, times[rank - 1], times[-rank]


def curves(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    samples: Mapping[str, Float[np.ndarray, "seeds points"]],
    *,
    positive: bool = False,
    limit: float = math.inf,
) -> None:
    """One line per entry of ``samples``: mean over seeds, with its 95% interval as a band; of censored times, medians.

    Args:
        axes: to draw on.
        x: (points,).
        samples: name -> (seeds, points), at most as many names as ``STYLES``.
        positive: as for ``mean_interval``: for a logarithmic axis.
        limit: as for ``median_interval``, where the run ends; what lies beyond is drawn there. Infinity for means.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> curves(axes, [1.0, 2.0], {"OGD": np.array([[1.0, 0.5], [1.2, 0.6]])})
        >>> axes.get_legend_handles_labels()[1]
        ['OGD']
    """
    if len(samples) > len(STYLES):
        raise ValueError(f"samples must hold at most {len(STYLES)} curves, which is all that can be told apart in grey")
    for style, (name, values) in zip(STYLES, samples.items(), strict=False):
        censored = math.isfinite(limit)
        interval = median_interval(values, limit=limit) if censored else mean_interval(values, positive=positive)
        middle, low, high = np.minimum(interval, limit)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        (line,) = axes.plot(x, middle, label=name, markersize=3.5, linewidth=1.3)
        line.set(**style)
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)


def log_axis(axis: Axis, ticks: Sequence[float | int]) -> None:
    """Make an axis logarithmic, with those of ``ticks`` that are in view written as plain numbers, or powers of ten.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``, after the data were drawn.
        ticks: places, increasing.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> _ = axes.plot([1, 10], [1, 2])
        >>> log_axis(axes.xaxis, [0.1, 1.0, 10.0, 100.0])
        >>> axes.get_xscale(), [float(tick) for tick in axes.get_xticks()]
        ('log', [1.0, 10.0])
    """
    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(shown)
    # Past this a plain number is too long to read.
    short = all(1e-4 <= tick < 1e5 for tick in shown)
    axis.set_major_formatter(StrMethodFormatter("{x:g}") if short else LogFormatterMathtext())
    axis.set_minor_formatter(NullFormatter())


def network(axes: Axes, graph: Graph, routes: Routes, agent: int) -> None:
    """The physical network with one agent's routing tree drawn on it and its delays written at the nodes.

    Args:
        axes: to draw on.
        graph: with positions in the node attribute ``pos``, as ``damjax.graphs`` makes them; without, those of Kamada
            and Kawai.
        routes: from ``damjax.routing.compile_routes``, of either form of weights.
        agent: whose tree.

    Example:
        >>> import damjax
        >>> from matplotlib.figure import Figure
        >>> graph = damjax.graphs.path(3)
        >>> network(Figure().subplots(), graph, damjax.routing.compile_routes(graph, np.full((3, 3), 1 / 3)), agent=0)
    """
    positions = nx.get_node_attributes(graph, "pos")
    if len(positions) < len(graph):
        positions = nx.kamada_kawai_layout(graph)
    columns = np.flatnonzero(routes.hops[agent] >= 0)
    nodes = columns if routes.agents is None else routes.agents[agent, columns]
    delays = dict(zip(nodes.tolist(), routes.delays[agent, columns].tolist(), strict=True))
    interests = [node for node in graph if node in delays and node != agent]
    others = [node for node in graph if node not in delays and node != agent]
    nx.draw_networkx_edges(graph, positions, ax=axes, edge_color="0.75", width=1.0)
    nx.draw_networkx_edges(
        nx.DiGraph(routes.trees[agent]),
        positions,
        ax=axes,
        edge_color="#0072B2",
        width=2.2,
        arrowsize=11,
        node_size=260,
    )
    for nodes, face, edge in (([agent], "#E69F00", "black"), (interests, "white", "black"), (others, "0.9", "0.6")):
        nx.draw_networkx_nodes(
            graph, positions, nodelist=nodes, ax=axes, node_color=face, edgecolors=edge, node_size=260
        )
    nx.draw_networkx_labels(graph, positions, ax=axes, font_size=8)
    axes.margins(0.12)
    axes.set_axis_off()
    for node, offset in zip(interests, _free_places(axes, graph, positions, interests), strict=True):
        text = rf"$\tau={delays[node]}$"
        place = {"xytext": offset, "textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 7.5}
        x, y = positions[node]
        axes.annotate(text, (x, y), **place)


def _free_places(axes: Axes, graph: Graph, positions: Mapping[int, Any], nodes: Sequence[int]) -> np.ndarray:
    """Where a label beside each node is farthest from every edge, node and earlier label, in points from the node."""
    axes.autoscale_view()
    points_per_dot = 72 / axes.figure.dpi
    at = {node: points_per_dot * axes.transData.transform(positions[node]) for node in graph}
    starts, ends = (np.array([at[edge[i]] for edge in graph.edges]) for i in (0, 1))
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False) - np.pi / 2
    around = np.stack([22 * np.cos(angles), 14 * np.sin(angles)], axis=1)
    # A label is about three times as wide as it is high: its middle and its ends must be free.
    label = np.array([[-9.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    taken, places = list(at.values()), []
    for node in nodes:
        parts = at[node] + around[:, None] + label
        along = np.clip(((parts[:, :, None] - starts) * (ends - starts)).sum(-1) / ((ends - starts) ** 2).sum(-1), 0, 1)
        nearest = starts + along[..., None] * (ends - starts)
        from_edges = np.linalg.norm(parts[:, :, None] - nearest, axis=-1).min(axis=(1, 2))
        others = np.array([point for point in taken if point is not at[node]])
        # A node or a label is wider than a line.
        from_others = np.linalg.norm(parts[:, :, None] - others, axis=-1).min(axis=(1, 2)) / 2
        best = int(np.argmax(np.minimum(from_edges, from_others)))
        taken += list(parts[best])
        places.append(around[best])
    return np.array(places)


def style() -> mpl.RcParams:
    """Settings for a ``with matplotlib.rc_context(style()):`` around a figure.

    Example:
        >>> style()["font.size"]
        9.0
    """
    return mpl.RcParams(RC)
