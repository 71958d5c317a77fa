"""Figures that are made to be read, in print and in grey. The only module that imports matplotlib."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import networkx as nx
import numpy as np
import scipy.special
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatterMathtext, NullFormatter, StrMethodFormatter

from damjax.routing import Routes

# Colours of clearly different lightness (Okabe and Ito's, safe for the colour-blind); marker and dash tell them apart
# where colour is lost.
STYLES = (
    {"color": "#000000", "marker": "o", "linestyle": "-"},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#0072B2", "marker": "^", "linestyle": "-."},
    {"color": "#009E73", "marker": "D", "linestyle": ":"},
    {"color": "#CC79A7", "marker": "v", "linestyle": (0, (6, 2))},
)
RC = {
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


def curves(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    samples: Mapping[str, Float[np.ndarray, "seeds points"]],
    *,
    positive: bool = False,
) -> None:
    """One line per entry of ``samples``: mean over seeds, with its 95% interval as a band.

    Args:
        axes: to draw on.
        x: (points,).
        samples: name -> (seeds, points), at most as many names as ``STYLES``.
        positive: as for ``mean_interval``: for a logarithmic axis.

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
        mean, low, high = mean_interval(values, positive=positive)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        (line,) = axes.plot(x, mean, label=name, markersize=3.5, linewidth=1.3)
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


def network(axes: Axes, graph: nx.Graph, routes: Routes, agent: int) -> None:
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
    wanted = [node for node in graph if node in delays and node != agent]
    other = [node for node in graph if node not in delays and node != agent]
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
    for nodes, face, edge in (([agent], "#E69F00", "black"), (wanted, "white", "black"), (other, "0.9", "0.6")):
        nx.draw_networkx_nodes(
            graph, positions, nodelist=nodes, ax=axes, node_color=face, edgecolors=edge, node_size=260
        )
    nx.draw_networkx_labels(graph, positions, ax=axes, font_size=8)
    for node in wanted:
        x, y = positions[node]
        axes.annotate(
            rf"$\tau={delays[node]}$",
            (x, y),
            xytext=(0, -15),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
        )
    axes.margins(0.12)
    axes.set_axis_off()


def style() -> mpl.RcParams:
    """Settings for a ``with matplotlib.rc_context(style()):`` around a figure."""
    return mpl.RcParams(RC)
