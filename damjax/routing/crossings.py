"""What travels: floats, bytes and messages, by agent and by link, in every way of sending them.

A question is a memory, sent once over each edge of a tree; an answer is a gradient, whole or as its two factors, sent
back over each hop of its path, or added to others on the way (``convergecast``). Answers may be rounded to a few bits,
and questions may be asked in some steps only.
"""

import math
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from damjax._checks import check_count, check_instance
from damjax.routing.compile import Routes
from damjax.routing.network import Edge

__all__ = [
    "Crossings",
    "LinkLoad",
    "LinkTraffic",
    "PathLinks",
    "Traffic",
    "equal_budget_steps",
    "link_load",
    "link_traffic",
    "path_links",
    "traffic",
]

MAKES_THEM = "compile_routes makes them"
BYTE = 8  # bits


class Traffic(NamedTuple):
    """Floats that cross links per step on behalf of each agent.

    Attributes:
        query: the memory sent over each edge of the agent's tree, (N,).
        reply: the gradients returned over each hop of their paths, (N,).
    """

    query: Int[np.ndarray, "N"]
    reply: Int[np.ndarray, "N"]


class Crossings(NamedTuple):
    """What crosses each link per step, in both directions and on behalf of all agents.

    Attributes:
        messages: how many, (E,).
        numbers: that they hold, beside what it takes to read rounded ones, (E,).
        bytes: that they take, (E,).
    """

    messages: Float[np.ndarray, "E"]
    numbers: Float[np.ndarray, "E"]
    bytes: Float[np.ndarray, "E"]


class LinkTraffic(NamedTuple):
    """All that travels, by link.

    Attributes:
        links: those that some tree uses, (smaller node, larger node), sorted; E of them.
        query: the memories sent down the trees, on average over steps.
        reply: the gradients sent back.
    """

    links: tuple[Edge, ...]
    query: Crossings
    reply: Crossings


class LinkLoad(NamedTuple):
    """How many messages cross each link per step, counted along paths.

    Attributes:
        links: those that some tree uses, (smaller node, larger node), sorted; E of them.
        messages: (E,).
    """

    links: tuple[Edge, ...]
    messages: Int[np.ndarray, "E"]

    @property
    def largest(self) -> int:
        """C_max, of the busiest link; 0 where nothing travels."""
        return int(self.messages.max(initial=0))


class PathLinks(NamedTuple):
    """Which physical links the messages cross.

    Attributes:
        links: the links that some tree uses, (smaller node, larger node), sorted.
        crosses: whether the path between n and m on n's tree crosses link e, (N, N, E), or (N, K, E) where the weights
            were sparse.
    """

    links: tuple[Edge, ...]
    crosses: Bool[np.ndarray, "N K E"]


def traffic(routes: Routes, *, value_dim: int, feature_dim: int, rank_one: bool = True, num_heads: int = 1) -> Traffic:
    """How many floats cross the network per step for each agent.

    A query is the memory, dv*df floats over each tree edge. A reply is dv + df floats where the gradient is sent as its
    two factors (``rank_one``), dv + H df of a memory of H heads, else dv*df, over each hop of its path. Where inner
    nodes add up the replies, one of dv*df floats crosses each tree edge, for a sum has no two factors.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> routes = compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3))
        >>> traffic(routes, value_dim=5, feature_dim=5)
        Traffic(query=array([50, 50, 50]), reply=array([30, 20, 30]))
    """
    _check_sizes(routes, value_dim, feature_dim)
    tree_edges = np.array([len(tree) for tree in routes.trees])
    query = value_dim * feature_dim * tree_edges
    if routes.summed:
        return Traffic(query, query)
    check_count("num_heads", num_heads)
    reply_size = value_dim + num_heads * feature_dim if rank_one else value_dim * feature_dim
    return Traffic(query, reply_size * np.maximum(routes.hops, 0).sum(axis=1))


def link_traffic(
    routes: Routes,
    *,
    value_dim: int,
    feature_dim: int,
    rank_one: bool = True,
    num_heads: int = 1,
    bits: int | None = None,
    period: int = 1,
    float_bytes: int = 4,
) -> LinkTraffic:
    """What crosses each link per step: the traffic of every way of sending questions and answers, in one table.

    Args:
        routes: summed ones send one answer over each tree edge, of dv*df numbers.
        value_dim: dv.
        feature_dim: df.
        rank_one: whether an answer is sent as its two factors, dv + H df numbers, else as a matrix, dv*df.
        num_heads: H, of the memory, whose df is that of one head.
        bits: of every number of an answer that is rounded, see ``damjax.channels.quantised``; each of its factors, or
            the matrix, then takes one float more, for the range. A message is whole bytes. None: numbers are floats.
        period: questions are asked in one step of so many, see ``damjax.channels.periodic``.
        float_bytes: of a float.

    Returns:
        LinkTraffic; its sums over links are the traffic of the whole network.

    Raises:
        ValueError: routes that are none, a size that is no positive integer.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> routes = compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3))
        >>> links, query, reply = link_traffic(routes, value_dim=5, feature_dim=5, bits=8, period=2)
        >>> links, query.messages.tolist(), query.bytes.tolist()
        (((0, 1), (1, 2)), [1.5, 1.5], [150.0, 150.0])
        >>> reply.messages.tolist(), reply.numbers.tolist(), reply.bytes.tolist()
        ([4.0, 4.0], [40.0, 40.0], [72.0, 72.0])
    """
    _check_sizes(routes, value_dim, feature_dim)
    for name, count in (("period", period), ("num_heads", num_heads), ("float_bytes", float_bytes)):
        check_count(name, count)
    if bits is not None:
        check_count("bits", bits)
    by_edge, by_path = _edges_of_trees(routes), _edges_of_paths(routes)
    links = tuple(sorted(by_edge))
    parts = 2 if rank_one and not routes.summed else 1
    numbers = value_dim + num_heads * feature_dim if parts == 2 else value_dim * feature_dim
    reply_bytes = numbers * float_bytes if bits is None else math.ceil(numbers * bits / BYTE) + parts * float_bytes

    def crossings(messages: Counter[Edge], numbers: int, size: int, share: float) -> Crossings:
        counts = share * np.array([messages[link] for link in links], float)
        return Crossings(counts, numbers * counts, size * counts)

    memory = value_dim * feature_dim
    return LinkTraffic(
        links,
        crossings(by_edge, memory, memory * float_bytes, 1 / period),
        crossings(by_edge if routes.summed else by_path, numbers, reply_bytes, 1.0),
    )


def link_load(routes: Routes) -> LinkLoad:
    """How many messages cross each link per step, in the count of [DDAM]: 2 sum_n sum_m 1{link on n's path to m}.

    A question and an answer for every interest, as if questions were not shared; of summed routes, which share both,
    one of each for every tree. A step of C-DOGD has 2 on every link, one each way.

    Raises:
        ValueError: routes that are none.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> load = link_load(compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3)))
        >>> load.links, load.messages.tolist(), load.largest
        (((0, 1), (1, 2)), [8, 8], 8)

    Source: [DDAM] eq. 15.
    """
    check_instance("routes", routes, Routes, MAKES_THEM)
    messages = _edges_of_trees(routes) if routes.summed else _edges_of_paths(routes)
    links = tuple(sorted(messages))
    return LinkLoad(links, 2 * np.array([messages[link] for link in links], int))


def equal_budget_steps(routes: Routes, num_steps: int) -> int:
    """How many steps DAM-TOGD makes with the messages of ``num_steps`` steps of an algorithm with one per link.

    The comparison of [DDAM] at equal budget: of T steps of data it sees every C_max-th, C_max the largest load of a
    link, so that it makes floor(T / C_max) steps.

    Args:
        routes: of DAM-TOGD.
        num_steps: T.

    Raises:
        ValueError: routes that are none, no positive number of steps, or too few for one step.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> equal_budget_steps(compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3)), 2000)
        250
    """
    check_count("num_steps", num_steps)
    largest = max(link_load(routes).largest, 1)
    if num_steps < largest:
        raise ValueError(
            f"num_steps must be at least the largest load of a link, {largest}, but it is {num_steps}: that is not the"
            f" budget of one step"
        )
    return num_steps // largest


def path_links(routes: Routes) -> PathLinks:
    """The links behind the delays: ``2 * crosses @ lengths`` is the table of round trips for links of any length.

    With every length 1 it is ``routes.delays``, and so it is with the lengths that the routes were compiled for; its
    derivative in the lengths says which link is worth shortening.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> routes = compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3))
        >>> links, crosses = path_links(routes)
        >>> links, (2 * crosses @ np.ones(2))[0].tolist()
        (((0, 1), (1, 2)), [0.0, 2.0, 4.0])
    """
    check_instance("routes", routes, Routes, MAKES_THEM)
    links = sorted(_edges_of_trees(routes))
    index = {link: i for i, link in enumerate(links)}
    crosses = np.zeros((*routes.hops.shape, len(links)), bool)
    for agent in range(len(routes.trees)):
        paths = routes.paths(agent)
        for column, other in routes.others(agent).items():
            crosses[agent, column, [index[min(edge), max(edge)] for edge in pairwise(paths[other])]] = True
    return PathLinks(tuple(links), crosses)


def _check_sizes(routes: Routes, value_dim: int, feature_dim: int) -> None:
    check_instance("routes", routes, Routes, MAKES_THEM)
    check_count("value_dim", value_dim)
    check_count("feature_dim", feature_dim)


def _edges_of_trees(routes: Routes) -> Counter[Edge]:
    """In how many trees each link is."""
    return Counter((min(edge), max(edge)) for tree in routes.trees for edge in tree)


def _edges_of_paths(routes: Routes) -> Counter[Edge]:
    """On how many paths between an agent and an interest of it each link is."""
    crossings: Counter[Edge] = Counter()
    for agent, tree in enumerate(routes.trees):
        below = Counter(routes.others(agent).values())
        # Children come after their parents, so from the end what is below a child is complete.
        for parent, child in reversed(tree):
            crossings[min(parent, child), max(parent, child)] += below[child]
            below[parent] += below[child]
    return crossings
