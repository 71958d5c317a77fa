"""Steiner trees, exact (Dreyfus and Wagner 1971) and approximate (Mehlhorn 1988), and the tree helpers of routing."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Float

Edge = tuple[int, int]


def distances(graph: nx.Graph) -> Float[np.ndarray, "N N"]:
    """Hops between all pairs of the nodes 0..N-1 of a graph without attributes, infinite where no path joins them.

    Example:
        >>> distances(nx.path_graph(3)).tolist()
        [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    """
    # In 32 bits, as scipy's older searches want them.
    ends = np.array(graph.edges, np.int32).reshape(-1, 2).T
    shape = (graph.number_of_nodes(),) * 2
    links = scipy.sparse.csr_matrix((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=shape)
    return scipy.sparse.csgraph.shortest_path(links, directed=False, unweighted=True)


def dreyfus_wagner(
    graph: nx.Graph, hops: Float[np.ndarray, "N N"], root: int, interests: Mapping[int, float]
) -> set[Edge]:
    """The tree over ``root`` and the keys of ``interests`` with the fewest edges; among those, the least mean delay.

    best[S, v] is the least cost of a tree that joins v to all of S: two such trees meet at v (S split in two), or one
    meets at u and a shortest path leads on to v. Each edge costs 1 + epsilon times the interest that it carries, with
    epsilon so small that the second term only decides between trees of equally many edges.

    Args:
        graph: nodes 0..N-1.
        hops: its distances; those from the root to its interests are finite.
        root: the agent whose tree this is.
        interests: weight per terminal, the root left out.

    Returns:
        Undirected edges. 3^k steps of numpy work on N-vectors for k = len(interests).
    """
    num_nodes = graph.number_of_nodes()
    terminals = sorted(interests)
    # A tree has fewer than N edges, so all interests (together at most their sum) ride over fewer than N of them.
    epsilon = 1 / (2 * num_nodes * max(1.0, sum(interests.values())))

    everyone = (1 << len(terminals)) - 1
    best = np.zeros((everyone + 1, num_nodes))
    split = np.zeros((everyone + 1, num_nodes), int)
    came_from = np.zeros((everyone + 1, num_nodes), int)
    for subset in range(1, everyone + 1):
        members = [terminal for bit, terminal in enumerate(terminals) if subset >> bit & 1]
        if len(members) == 1:
            meeting = np.full(num_nodes, np.inf)
            meeting[members[0]] = 0
        else:
            parts = np.fromiter(_halves(subset), int)
            sums = best[parts] + best[subset ^ parts]
            split[subset] = parts[sums.argmin(axis=0)]
            meeting = sums.min(axis=0)
        edge_cost = 1 + epsilon * sum(interests[member] for member in members)
        grown = meeting[:, None] + edge_cost * hops
        came_from[subset] = grown.argmin(axis=0)
        best[subset] = grown.min(axis=0)

    edges: set[Edge] = set()
    stack = [(everyone, root)]
    while stack:
        subset, node = stack.pop()
        meeting_node = int(came_from[subset, node])
        walk = nx.shortest_path(graph, meeting_node, node)
        edges.update((min(edge), max(edge)) for edge in pairwise(walk))
        if subset & (subset - 1):
            part = int(split[subset, meeting_node])
            stack += [(part, meeting_node), (subset ^ part, meeting_node)]
    return edges


def _halves(subset: int) -> Iterator[int]:
    """One side of each way to split ``subset`` into two non-empty parts; the side without its highest bit."""
    rest = subset ^ (1 << (subset.bit_length() - 1))
    part = rest
    while part:
        yield part
        part = (part - 1) & rest


def mehlhorn(neighbors: Mapping[int, Sequence[int]], terminals: Iterable[int]) -> set[Edge]:
    """A tree over the terminals, with at most 2 (1 - 1/terminals) times the fewest edges.

    Regions grow from all terminals at once, a hop a round. A link between two regions makes a path between their
    terminals, as long as its ends are deep; a minimum spanning tree of the terminals needs such paths only. Rounds
    find them from short to long, so the search ends with the last one that joins anything, and a network far larger
    than the interests costs little. Paths within a region are those of one tree: no cycle arises, and no leaf that is
    no terminal.

    Args:
        neighbors: of every node, sorted; the terminals are within reach of each other.
        terminals: nodes to join.

    Returns:
        Undirected edges.

    Example:
        >>> sorted(mehlhorn({0: [1], 1: [0, 2, 3], 2: [1], 3: [1]}, [0, 2, 3]))
        [(0, 1), (1, 2), (1, 3)]
    """
    ring = sorted(terminals)
    region, depth, parent = {t: t for t in ring}, dict.fromkeys(ring, 0), {}
    joined, edges = nx.utils.UnionFind(ring), set()
    missing = len(ring) - 1
    while missing:
        grown, bridges = [], []
        for node in ring:
            for other in neighbors[node]:
                if other not in region:
                    region[other], depth[other], parent[other] = region[node], depth[node] + 1, node
                    grown.append(other)
                elif region[other] != region[node]:
                    bridges.append((depth[other], node, other))
        for _, *ends in sorted(bridges):
            one, another = (region[end] for end in ends)
            if joined[one] != joined[another]:
                joined.union(one, another)
                missing -= 1
                edges.add((min(ends), max(ends)))
                edges.update(edge for end in ends for edge in _upward(end, parent))
        ring = grown
    return edges


def _upward(node: int, parent: Mapping[int, int]) -> Iterator[Edge]:
    """The edges from a node to the root of its tree."""
    while node in parent:
        yield min(node, parent[node]), max(node, parent[node])
        node = parent[node]


def orient(edges: set[Edge], root: int) -> tuple[Edge, ...]:
    """The edges of a tree as (parent, child), nearest to the root first and in node order: one form for one tree.

    Example:
        >>> orient({(1, 2), (0, 1)}, root=1)
        ((1, 0), (1, 2))
    """
    tree = nx.Graph(sorted(edges))
    tree.add_node(root)
    return tuple(nx.bfs_edges(tree, root, sort_neighbors=sorted))


def shortest_path_tree(neighbors: Mapping[int, Sequence[int]], root: int, wanted: Iterable[int]) -> tuple[Edge, ...]:
    """The breadth-first tree from ``root``, as far as it leads to the wanted nodes; every one of them at its distance.

    The search ends with the last of them, so that a network far larger than the interests costs little.

    Args:
        neighbors: of every node, sorted; all wanted nodes are within reach.
        root: where the search begins.
        wanted: nodes to reach.

    Example:
        >>> shortest_path_tree({0: [1], 1: [0, 2, 3], 2: [1], 3: [1]}, root=0, wanted=[2])
        ((0, 1), (1, 2))
    """
    parent: dict[int, int] = {root: root}
    missing = set(wanted) - {root}
    queue = deque([root])
    while missing:
        node = queue.popleft()
        for other in neighbors[node]:
            if other not in parent:
                parent[other] = node
                queue.append(other)
                missing.discard(other)
    edges: set[Edge] = set()
    for node in wanted:
        while node != root and (edge := (parent[node], node)) not in edges:
            edges.add(edge)
            node = parent[node]
    return orient(edges, root)
