"""A network as routing searches it: links in arrays, shortest paths from one agent at a time, each searched once.

The searches are scipy's, in C: in Python they take thirty times as long, and networkx's own approximation searches from
every terminal of every tree anew. What has been searched is kept as long as all of it fits in a fixed memory.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Float, Int

from damjax.graphs import canonical
from damjax.types import Graph

__all__ = ["Edge", "Network", "Search", "as_network"]

Edge = tuple[int, int]
MEMORY_OF_SEARCHES = 2**28  # bytes
NOWHERE = -9999  # scipy's word for a node without a parent


class Search(NamedTuple):
    """Shortest paths from one agent to all.

    Attributes:
        distances: -1 where no path leads, (N,).
        parents: the last agent before each one on its path, of no meaning for the first and where no path leads, (N,).
    """

    distances: Int[np.ndarray, "N"]
    parents: Int[np.ndarray, "N"]

    def path(self, node: int) -> list[int]:
        """From ``node`` back to where the search began."""
        walk = [node]
        while self.parents[walk[-1]] != NOWHERE:
            walk.append(int(self.parents[walk[-1]]))
        return walk


@dataclass(frozen=True)
class Network:
    """Links with their lengths, and the searches over them.

    Attributes:
        graph: the links in canonical order, without attributes.
        lengths: of every link (smaller node, larger node), steps; None where all have length 1.
        by_hops: ``by_hops(agent)``, the paths of fewest links from it.
        by_length: ``by_length(agent)``, the paths of least length from it, and of those with few links.
    """

    graph: Graph
    lengths: dict[Edge, int] | None
    by_hops: Callable[[int], Search]
    by_length: Callable[[int], Search]

    @functools.cached_property
    def neighbors(self) -> dict[int, list[int]]:
        """Of every agent, sorted."""
        return {node: sorted(self.graph[node]) for node in self.graph}

    @functools.cached_property
    def arcs(self) -> tuple[Int[np.ndarray, "A"], Int[np.ndarray, "A"], Float[np.ndarray, "A"]]:
        """Every link twice, once a direction: tails, heads in order, and lengths."""
        links = np.array(self.graph.edges, int).reshape(-1, 2)
        lengths = np.array([self.length(*link) for link in self.graph.edges], float)
        tails, heads = np.concatenate([links, links[:, ::-1]]).T
        order = np.lexsort((tails, heads))
        return tails[order], heads[order], np.concatenate([lengths, lengths])[order]

    def length(self, one: int, other: int) -> int:
        """Of the link between two agents, steps."""
        return 1 if self.lengths is None else self.lengths[min(one, other), max(one, other)]


def as_network(graph: Graph, latency: str | None) -> Network:
    """The network of a graph, with the lengths that its links have as attribute ``latency``, 1 without.

    Raises:
        ValueError: a graph that is none of ours; a link without the attribute, or of a length that is no integer >= 1.

    Example:
        >>> import networkx as nx
        >>> network = as_network(nx.Graph([(0, 1, {"ms": 5}), (1, 2, {"ms": 1}), (0, 2, {"ms": 9})]), "ms")
        >>> network.by_hops(0).path(2), network.by_length(0).path(2), network.by_length(0).distances.tolist()
        ([2, 0], [2, 1, 0], [0, 5, 6])
    """
    links = canonical(graph)
    lengths = None if latency is None else {edge: _length(graph, edge, latency) for edge in links.edges}
    num_agents = links.number_of_nodes()
    ends = np.array(links.edges, np.int32).reshape(-1, 2).T
    shape = (num_agents, num_agents)

    def matrix(weights: np.ndarray) -> scipy.sparse.csr_matrix:
        both = np.concatenate([ends, ends[::-1]], axis=1)
        sums = scipy.sparse.csr_matrix((np.concatenate([weights, weights]), (both[0], both[1])), shape=shape)
        sums.sort_indices()
        return sums

    # 32 bits each for distance and parent.
    remembered = functools.lru_cache(max(1, MEMORY_OF_SEARCHES // (8 * max(num_agents, 1))))
    unit = matrix(np.ones(ends.shape[1]))
    by_hops = remembered(lambda source: _breadth_first(unit, source))
    if lengths is None:
        return Network(links, None, by_hops, by_hops)
    # A path has fewer than N links, so that their number only decides between paths of one length.
    weighted = matrix(num_agents * np.array([lengths[edge] for edge in links.edges], float) + 1)
    return Network(links, lengths, by_hops, remembered(lambda source: _dijkstra(weighted, source)))


def _length(graph: Graph, edge: Edge, latency: str) -> int:
    length = graph.edges[edge].get(latency)
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(
            f"latency must name an attribute that is an integer >= 1 on every link, steps, but {latency!r} of the link"
            f" {edge} is {length!r}; networkx.set_edge_attributes(graph, 1, {latency!r}) sets all of them"
        )
    return int(length)


def _breadth_first(links: scipy.sparse.csr_matrix, source: int) -> Search:
    order, parents = scipy.sparse.csgraph.breadth_first_order(links, source)
    place = np.empty(len(parents), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    # In the order of the search the parents' places do not fall, so that every level is one run of it.
    of_parent = place[parents[order[1:]]]
    starts = [0, 1]
    while starts[-1] < len(order):
        starts.append(1 + int(np.searchsorted(of_parent, starts[-1])))
    distances = np.full(len(parents), -1, np.int32)
    distances[order] = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    return Search(distances, parents)


def _dijkstra(links: scipy.sparse.csr_matrix, source: int) -> Search:
    distances, parents = scipy.sparse.csgraph.dijkstra(links, indices=source, return_predecessors=True)
    steps = np.where(np.isfinite(distances), distances // len(parents), -1)
    return Search(steps.astype(np.int32), parents)
