"""Approximate Steiner trees (Kou, Markowsky and Berman 1981; Mehlhorn 1988), and the tree helpers of routing."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import networkx as nx
import numpy as np

from damjax.routing.network import Edge, Search

__all__ = ["branches", "depths", "kou", "mehlhorn", "orient", "pruned", "shortest_path_tree"]


def kou(search: Callable[[int], Search], terminals: Iterable[int]) -> set[Edge]:
    """A tree over the terminals, with at most 2 (1 - 1/terminals) times the fewest edges.

    The shortest paths of a minimum spanning tree of the terminals, without what they have twice: a spanning tree of all
    their links, of which leaves that are no terminals fall off.

    Args:
        search: the paths of fewest links from an agent; the terminals are within reach of each other.
        terminals: nodes to join.

    Returns:
        Undirected edges.

    Example:
        >>> from damjax.routing.network import as_network
        >>> sorted(kou(as_network(nx.star_graph(3), None).by_hops, [1, 2, 3]))
        [(0, 1), (0, 2), (0, 3)]
    """
    ends = np.array(sorted(terminals))
    distances = np.stack([search(end).distances[ends] for end in ends.tolist()])
    ones, others = np.triu_indices(len(ends), 1)
    order = np.argsort(distances[ones, others], kind="stable")
    pairs = zip(ends[ones[order]].tolist(), ends[others[order]].tolist(), strict=True)
    walks = (search(one).path(other) for one, other in _spanning(pairs))
    edges = {(min(edge), max(edge)) for walk in walks for edge in pairwise(walk)}
    return pruned(_spanning(sorted(edges)), ends.tolist())


def _spanning(edges: Iterable[Edge]) -> Iterator[Edge]:
    """Those that join what is not yet joined, in their order."""
    joined = nx.utils.UnionFind()
    for one, other in edges:
        if joined[one] != joined[other]:
            joined.union(one, other)
            yield one, other


def pruned(edges: Iterable[Edge], terminals: Iterable[int]) -> set[Edge]:
    """A tree without the leaves that are no terminals, and without those that then are.

    Example:
        >>> sorted(pruned({(0, 1), (1, 2), (2, 3)}, terminals=[0, 1]))
        [(0, 1)]
    """
    tree, kept = nx.Graph(list(edges)), set(terminals)
    leaves = [node for node in tree if tree.degree[node] == 1 and node not in kept]
    while leaves:
        leaf = leaves.pop()
        (above,) = tree[leaf]
        tree.remove_node(leaf)
        if tree.degree[above] == 1 and above not in kept:
            leaves.append(above)
    return {(min(edge), max(edge)) for edge in tree.edges}


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


def depths(edges: Iterable[Edge], root: int, length: Callable[[int, int], int]) -> dict[int, int]:
    """How far every node of a tree is from its root.

    Args:
        edges: as (parent, child), parents before their children.
        root: at depth 0.
        length: ``length(parent, child)`` of an edge.

    Example:
        >>> depths([(0, 1), (1, 2)], root=0, length=lambda parent, child: 5)
        {0: 0, 1: 5, 2: 10}
    """
    depth = {root: 0}
    for parent, child in edges:
        depth[child] = depth[parent] + length(parent, child)
    return depth


def shortest_path_tree(neighbors: Mapping[int, Sequence[int]], root: int, terminals: Iterable[int]) -> set[Edge]:
    """The breadth-first tree from ``root``, as far as it leads to the terminals; every one of them at its distance.

    The search ends with the last of them, so that a network far larger than the interests costs little.

    Args:
        neighbors: of every node, sorted; all terminals are within reach.
        root: where the search begins.
        terminals: nodes to reach.

    Returns:
        Undirected edges.

    Example:
        >>> sorted(shortest_path_tree({0: [1], 1: [0, 2, 3], 2: [1], 3: [1]}, root=0, terminals=[2]))
        [(0, 1), (1, 2)]
    """
    parent: dict[int, int] = {root: root}
    missing = set(terminals) - {root}
    queue = deque([root])
    while missing:
        node = queue.popleft()
        for other in neighbors[node]:
            if other not in parent:
                parent[other] = node
                queue.append(other)
                missing.discard(other)
    return branches(parent, root, terminals)


def branches(parents: Mapping[int, int] | np.ndarray, root: int, terminals: Iterable[int]) -> set[Edge]:
    """The edges between ``root`` and the terminals of the tree in which every node has this parent.

    Example:
        >>> sorted(branches({1: 0, 2: 1, 3: 1}, root=0, terminals=[2]))
        [(0, 1), (1, 2)]
    """
    edges: set[Edge] = set()
    for terminal in terminals:
        node = terminal
        while node != root:
            above = int(parents[node])
            edges.add((min(above, node), max(above, node)))
            node = above
    return edges
