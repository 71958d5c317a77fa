"""Physical networks as networkx graphs on the nodes 0..N-1, and the mixing matrix of consensus."""

import difflib
import importlib.resources
import json
from importlib.resources.abc import Traversable

import networkx as nx
import numpy as np

from damjax._checks import brief, check_array, check_between, check_count, check_positive, missing_extra
from damjax.types import Graph

__all__ = [
    "canonical",
    "complete",
    "erdos_renyi",
    "failing_links",
    "grid",
    "metropolis_weights",
    "moving_geometric",
    "paper_network",
    "path",
    "random_geometric",
    "ring",
    "star",
    "topologies",
    "topology",
]

# Ten agents, thirteen links, diameter four: a ring of six with a chord, and a second loop beside it. Long routes
# and short ones and agents of degree two to four, so that the delays of different agents differ.
_PAPER_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 4),
    (3, 6), (6, 7), (7, 8), (8, 3), (8, 9), (5, 9),
)  # fmt: skip
_PAPER_POSITIONS = (
    (0.0, 1.0), (1.0, 2.0), (2.2, 2.0), (3.0, 1.0), (2.0, 0.3),
    (0.8, -0.3), (4.2, 1.9), (5.2, 1.1), (4.0, 0.2), (2.6, -0.8),
)  # fmt: skip


def paper_network() -> Graph:
    """The fixed connected network of the experiments: 10 agents, 13 links.

    The published text does not give its graph; this one is the library's default. Node attribute ``pos`` holds the
    drawing.

    Example:
        >>> graph = paper_network()
        >>> graph.number_of_nodes(), graph.number_of_edges(), nx.diameter(graph)
        (10, 13, 4)
    """
    graph = nx.Graph()
    graph.add_nodes_from((node, {"pos": pos}) for node, pos in enumerate(_PAPER_POSITIONS))
    graph.add_edges_from(_PAPER_EDGES)
    return graph


def ring(num_agents: int) -> Graph:
    """A cycle.

    Example:
        >>> sorted(ring(3).edges)
        [(0, 1), (0, 2), (1, 2)]
    """
    check_count("num_agents", num_agents)
    return _with_positions(nx.cycle_graph(num_agents) if num_agents > 2 else nx.path_graph(num_agents))


def path(num_agents: int) -> Graph:
    """A line of agents: the graph with the longest routes.

    Example:
        >>> nx.diameter(path(5))
        4
    """
    check_count("num_agents", num_agents)
    return _with_positions(nx.path_graph(num_agents))


def star(num_agents: int) -> Graph:
    """Agent 0 in the middle, everyone else one hop away from it.

    Example:
        >>> nx.diameter(star(5))
        2
    """
    check_count("num_agents", num_agents)
    return _with_positions(nx.star_graph(num_agents - 1))


def complete(num_agents: int) -> Graph:
    """Everyone one hop from everyone.

    Example:
        >>> complete(4).number_of_edges()
        6
    """
    check_count("num_agents", num_agents)
    return _with_positions(nx.complete_graph(num_agents))


def grid(num_rows: int, num_columns: int) -> Graph:
    """A rectangular grid, numbered row by row.

    Example:
        >>> sorted(grid(2, 2).edges)
        [(0, 1), (0, 2), (1, 3), (2, 3)]
    """
    check_count("num_rows", num_rows)
    check_count("num_columns", num_columns)
    cells = nx.grid_2d_graph(num_rows, num_columns)
    for row, column in cells:
        cells.nodes[row, column]["pos"] = (float(column), float(-row))
    return nx.convert_node_labels_to_integers(cells, ordering="sorted")


def random_geometric(num_agents: int, radius: float, seed: int) -> Graph:
    """Agents at uniform places in the unit square, linked when nearer than ``radius``.

    Raises:
        ValueError: a radius that is not positive, no seed, a draw that is not connected.

    Example:
        >>> nx.is_connected(random_geometric(12, 0.5, seed=0))
        True
    """
    check_count("num_agents", num_agents)
    check_array("radius", radius, "")
    check_positive("radius", np.asarray(radius))
    check_count("seed", seed, allow_zero=True)
    graph = nx.random_geometric_graph(num_agents, radius, seed=seed)
    return _connected(graph, f"random_geometric({num_agents}, {radius}, seed={seed})", "a larger radius")


def erdos_renyi(num_agents: int, probability: float, seed: int) -> Graph:
    """Each pair linked independently with ``probability``.

    Raises:
        ValueError: a probability outside of [0, 1], no seed, a draw that is not connected.

    Example:
        >>> nx.is_connected(erdos_renyi(12, 0.4, seed=1))
        True
    """
    check_count("num_agents", num_agents)
    check_array("probability", probability, "")
    check_between("probability", np.asarray(probability), 0.0, 1.0)
    check_count("seed", seed, allow_zero=True)
    graph = nx.gnp_random_graph(num_agents, probability, seed=seed)
    return _with_positions(
        _connected(graph, f"erdos_renyi({num_agents}, {probability}, seed={seed})", "a larger probability")
    )


def topologies() -> tuple[str, ...]:
    """The names of the real networks that ``topology`` knows, 203 of them, of 3 to 143 nodes.

    Raises:
        ImportError: the extra ``recall`` is not installed.

    Example:
        >>> len(topologies()), topologies()[:3]
        (203, ('Aarnet', 'Abilene', 'Abvt'))
    """
    files = (file.name for file in _topology_zoo().iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in files if name.endswith(".json")))


def topology(name: str) -> Graph:
    """A real network from the Internet Topology Zoo, as the package topohub ships it: connected, one link a pair.

    Node attributes are ``name``, of the place, and ``pos``, its longitude and latitude; ``length`` of a link is the
    distance between its ends in kilometres.

    Args:
        name: one of ``topologies()``, such as "Abilene".

    Raises:
        ValueError: an unknown name.
        ImportError: the extra ``recall`` is not installed.

    Example:
        >>> abilene = topology("Abilene")
        >>> abilene.number_of_nodes(), abilene.number_of_edges(), nx.diameter(abilene), abilene.nodes[3]["name"]
        (11, 14, 5, 'Seattle')

    Source: S. Knight et al., "The Internet Topology Zoo", IEEE JSAC 2011; P. Jurkiewicz, TopoHub, SoftwareX 2023.
    """
    names = topologies()
    if not isinstance(name, str) or name not in names:
        like = difflib.get_close_matches(str(name), names) or names[:3]
        raise ValueError(
            f"name must be one of topologies(), such as {', '.join(map(repr, like))}, but it is {brief(repr(name))}"
        )
    network = json.loads((_topology_zoo() / f"{name}.json").read_text(encoding="utf-8"))
    numbers = {node["id"]: number for number, node in enumerate(network["nodes"])}  # the ids have gaps
    graph = nx.Graph()
    graph.add_nodes_from(
        (numbers[node["id"]], {"name": node["name"], "pos": tuple(node["pos"])}) for node in network["nodes"]
    )
    graph.add_edges_from(
        (numbers[link["source"]], numbers[link["target"]], {"length": link["dist"]}) for link in network["edges"]
    )
    return graph


def _topology_zoo() -> Traversable:
    """The folder of its files: topohub's own reader leaves each one open."""
    try:
        return importlib.resources.files("topohub") / "data" / "topozoo"
    except ImportError as error:
        raise missing_extra("real networks need topohub", "recall") from error


def failing_links(graph: Graph, probability: float, *, num_epochs: int, seed: int) -> list[Graph]:
    """The same network in several epochs, in each of which every link is down independently with ``probability``.

    Nothing keeps what is left connected: see ``unreachable`` of ``damjax.routing.compile_timeline``.

    Args:
        graph: undirected, nodes 0..N-1.
        probability: in [0, 1].
        num_epochs: E.
        seed: of the draw; the same one fails more links where ``probability`` is larger, and never others.

    Returns:
        E graphs, node attributes kept.

    Raises:
        ValueError: a probability outside of [0, 1], no seed.

    Example:
        >>> [graph.number_of_edges() for graph in failing_links(ring(8), 0.25, num_epochs=4, seed=0)]
        [6, 5, 6, 8]
    """
    links = sorted(canonical(graph).edges)
    check_array("probability", probability, "")
    check_between("probability", np.asarray(probability), 0.0, 1.0)
    check_count("num_epochs", num_epochs)
    check_count("seed", seed, allow_zero=True)
    down = np.random.default_rng(seed).random((num_epochs, len(links))) < probability
    return [_without(graph, [link for link, fails in zip(links, row, strict=True) if fails]) for row in down]


def moving_geometric(num_agents: int, radius: float, *, speed: float, num_epochs: int, seed: int) -> list[Graph]:
    """Agents that move in the unit square, linked when nearer than ``radius``: one random geometric graph per epoch.

    Places are uniform at first; from epoch to epoch each coordinate changes by a normal draw of standard deviation
    ``speed``, reflected at the walls, so that they stay uniform.

    Args:
        num_agents: N.
        radius: of the links, > 0.
        speed: at least 0.
        num_epochs: E.
        seed: of the draw.

    Returns:
        E graphs on the nodes 0..N-1, with their places as ``pos``. They may fall into parts: see ``unreachable`` of
        ``damjax.routing.compile_timeline``.

    Raises:
        ValueError: a radius that is not positive, a negative speed, no seed.

    Example:
        >>> graphs = moving_geometric(12, 0.5, speed=0.1, num_epochs=3, seed=0)
        >>> [graph.number_of_edges() for graph in graphs]
        [27, 26, 25]
    """
    check_count("num_agents", num_agents)
    check_array("radius", radius, "")
    check_positive("radius", np.asarray(radius))
    check_array("speed", speed, "")
    check_positive("speed", np.asarray(speed), allow_zero=True)
    check_count("num_epochs", num_epochs)
    check_count("seed", seed, allow_zero=True)
    rng = np.random.default_rng(seed)
    walks = rng.random((num_agents, 2)) + speed * np.cumsum(
        np.concatenate([np.zeros((1, num_agents, 2)), rng.normal(size=(num_epochs - 1, num_agents, 2))]), axis=0
    )
    # A walk on the line, folded into [0, 1] at every whole number, is one between two walls.
    places = 1 - np.abs(1 - walks % 2)
    return [_near(row, radius) for row in places]


def _near(places: np.ndarray, radius: float) -> Graph:
    graph = nx.Graph()
    graph.add_nodes_from((agent, {"pos": tuple(place)}) for agent, place in enumerate(places.tolist()))
    graph.add_edges_from(nx.geometric_edges(graph, radius))
    return graph


def _without(graph: Graph, links: list[tuple[int, int]]) -> Graph:
    rest = graph.copy()
    rest.remove_edges_from(links)
    return rest


def metropolis_weights(graph: Graph) -> np.ndarray:
    """The Metropolis mixing matrix: a_ij = 1 / (1 + max(deg_i, deg_j)) on links, the rest of each row on itself.

    Args:
        graph: undirected, nodes 0..N-1.

    Returns:
        (N, N) float64, symmetric and doubly stochastic.

    Example:
        >>> metropolis_weights(path(3)).round(3)
        array([[0.667, 0.333, 0.   ],
               [0.333, 0.333, 0.333],
               [0.   , 0.333, 0.667]])
    """
    links = canonical(graph)
    mixing = np.zeros((len(links), len(links)))
    for i, j in links.edges:
        mixing[i, j] = mixing[j, i] = 1 / (1 + max(links.degree[i], links.degree[j]))
    return mixing + np.diag(1 - mixing.sum(axis=1))


def canonical(graph: Graph) -> Graph:
    """The same links in sorted order, on plain integers and without attributes: ties always break the same way.

    Raises:
        ValueError: not a plain undirected graph, nodes other than 0..N-1, or self-loops.

    Example:
        >>> list(canonical(nx.Graph([(1, 0), (2, 1)])).edges)
        [(0, 1), (1, 2)]
    """
    if not isinstance(graph, nx.Graph):
        raise ValueError(f"graph must be a networkx.Graph, but it is {graph!r}; see damjax.graphs")
    if graph.is_directed() or graph.is_multigraph():
        raise ValueError(
            f"graph must be a plain undirected networkx.Graph, but it is a {type(graph).__name__};"
            f" networkx.Graph(graph) makes one, with a link wherever there is one or more"
        )
    if set(graph.nodes) != set(range(graph.number_of_nodes())):
        strangers = sorted(set(graph.nodes) - set(range(graph.number_of_nodes())), key=str)
        raise ValueError(
            f"graph must have the nodes 0..{graph.number_of_nodes() - 1}, but it has {strangers[:5]};"
            f" networkx.convert_node_labels_to_integers(graph, ordering='sorted', label_attribute='name') numbers them"
            f" in their order and keeps their names"
        )
    if loops := sorted(nx.nodes_with_selfloops(graph)):
        raise ValueError(
            f"graph must have no self-loops, since an agent needs no link to itself, but agents {loops[:5]} have one"
            f" ({len(loops)} in all); graph.remove_edges_from(list(networkx.selfloop_edges(graph))) removes them"
        )
    same = nx.Graph()
    same.add_nodes_from(range(graph.number_of_nodes()))
    same.add_edges_from(sorted((int(min(edge)), int(max(edge))) for edge in graph.edges))
    return same


def _connected(graph: Graph, call: str, fix: str) -> Graph:
    if not nx.is_connected(graph):
        parts = nx.number_connected_components(graph)
        raise ValueError(f"{call} drew a graph of {parts} components; try another seed or {fix}")
    return graph


def _with_positions(graph: Graph) -> Graph:
    nx.set_node_attributes(graph, nx.circular_layout(graph), "pos")
    return graph
