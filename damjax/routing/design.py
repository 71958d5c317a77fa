"""Trees by design: regret against traffic, with one knob between the fewest edges and the shortest paths.

In the weighted-delay bound the tree of agent n counts by sum_m w_nm L_m tau_nm alone, and its questions cost one
message per edge. So a tree costs, with lambda the edges that one step of weighted round trip is worth,

    edges + 2 lambda sum_m w_nm L_m length_n(m).

``lightest_tree`` finds the least of all by dynamic programming over sets of terminals, exponential in their number;
``light_tree`` stays within a factor of the shortest paths and of the fewest edges at once, for any number of terminals.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import networkx as nx
import numpy as np
from jaxtyping import Float

from damjax.routing.network import Edge, Network, Search
from damjax.routing.steiner import branches, depths, kou, pruned

__all__ = ["balanced_tree", "cost", "light_tree", "lightest_tree"]

# Between the shortest paths and the fewest edges, which are tried as well.
STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
MAX_NUMBERS = 2**22  # that one step of the search over all subsets holds: 32 MiB of them


def cost(edges: Iterable[Edge], network: Network, root: int, interests: Mapping[int, float], knob: float) -> float:
    """What a tree costs: edges + 2 lambda sum_m w_m length(m).

    Args:
        edges: of the tree, undirected.
        network: whose links have lengths.
        root: the agent whose tree this is.
        interests: w_m, weight times slope per terminal.
        knob: lambda.

    Example:
        >>> from damjax.routing.network import as_network
        >>> cost({(0, 1), (1, 2)}, as_network(nx.path_graph(3), None), 0, {2: 0.5}, knob=3.0)
        8.0
    """
    tree = nx.Graph(list(edges))
    tree.add_node(root)
    depth = depths(nx.bfs_edges(tree, root), root, network.length)
    return tree.number_of_edges() + 2 * knob * sum(weight * depth[m] for m, weight in interests.items())


def lightest_tree(network: Network, root: int, interests: Mapping[int, float], knob: float) -> set[Edge]:
    """The tree over ``root`` and the keys of ``interests`` that is best of all.

    best[S, v] is the least cost of a tree that joins v to all of S: two such trees meet at v, S split in two, or one
    goes on to v from a neighbour u. An edge that leads to S costs as much as S weighs:

        best[S, v] = min( min_A best[A, v] + best[S - A, v],  min_u best[S, u] + 1 + 2 lambda W(S) length(u, v) )

    Args:
        network: the terminals are within reach of the root.
        root: the agent whose tree this is.
        interests: w_m > 0, weight times slope per terminal, the root left out.
        knob: lambda >= 0. At 0, and near it, the tree has the fewest edges, and of those with as few the least delay.

    Returns:
        Undirected edges. For k terminals there are 3^k sums of N numbers: a second for eleven of them among a hundred.

    Example:
        >>> from damjax.routing.network import as_network
        >>> network = as_network(nx.cycle_graph(5), None)
        >>> [sorted(lightest_tree(network, 0, {2: 0.5, 3: 0.5}, knob)) for knob in (0.0, 10.0)]
        [[(0, 1), (1, 2), (2, 3)], [(0, 1), (0, 4), (1, 2), (3, 4)]]

    Source: Dreyfus and Wagner 1971, with costs that depend on the set.
    """
    terminals, weights = sorted(interests), np.array([interests[terminal] for terminal in sorted(interests)])
    num_agents, everyone = network.graph.number_of_nodes(), (1 << len(terminals)) - 1
    longest = max(network.lengths.values(), default=1) if network.lengths else 1
    # So small that all delays together count less than an edge: they decide between trees of equally many.
    least = 1 / (4 * num_agents * longest * max(1.0, float(weights.sum())))
    bits = np.arange(everyone + 1)[:, None] >> np.arange(len(terminals)) & 1
    per_step = 2 * max(knob, least) * (bits @ weights)

    best = np.full((everyone + 1, num_agents), np.inf)
    split = np.zeros((everyone + 1, num_agents), int)
    for bit, terminal in enumerate(terminals):
        best[1 << bit, terminal] = 0
    for size in range(1, len(terminals) + 1):
        subsets = np.flatnonzero(bits.sum(axis=1) == size)
        if size > 1:
            for subset in subsets.tolist():
                parts = np.fromiter(_halves(subset), int)
                sums = best[parts] + best[subset ^ parts]
                split[subset] = parts[sums.argmin(axis=0)]
                best[subset] = sums.min(axis=0)
        best[subsets] = _grown(best[subsets], per_step[subsets], network)

    edges: set[Edge] = set()
    stack = [(everyone, root)]
    while stack:
        subset, node = stack.pop()
        neighbors = network.neighbors[node]
        lengths = np.array([network.length(node, other) for other in neighbors])
        onward = best[subset, neighbors] + (1 + per_step[subset] * lengths)
        part, is_one = int(split[subset, node]), not subset & (subset - 1)
        meeting = best[part, node] + best[subset ^ part, node]
        if is_one:
            meeting = 0 if node == terminals[subset.bit_length() - 1] else np.inf
        if onward.min(initial=np.inf) < meeting:
            other = neighbors[int(onward.argmin())]
            edges.add((min(node, other), max(node, other)))
            stack.append((subset, other))
        elif not is_one:
            stack += [(part, node), (subset ^ part, node)]
    return edges


def _halves(subset: int) -> Iterator[int]:
    """One side of each way to split ``subset`` into two non-empty parts; the side without its highest bit."""
    rest = subset ^ (1 << (subset.bit_length() - 1))
    part = rest
    while part:
        yield part
        part = (part - 1) & rest


def _grown(
    costs: Float[np.ndarray, "S N"], per_step: Float[np.ndarray, "S"], network: Network
) -> Float[np.ndarray, "S N"]:
    """Costs of trees that may go on over any links: the rounds of Bellman and Ford, for many sets at once."""
    tails, heads, lengths = network.arcs
    if not len(heads):
        return costs
    starts = np.flatnonzero(np.diff(heads, prepend=-1))
    reached, rows = heads[starts], max(1, MAX_NUMBERS // len(heads))
    for first in range(0, len(costs), rows):
        block, prices = costs[first : first + rows], 1 + per_step[first : first + rows, None] * lengths
        changes = True
        while changes:
            onward = np.minimum.reduceat(block[:, tails] + prices, starts, axis=1)
            changes = bool((onward < block[:, reached]).any())
            block[:, reached] = np.minimum(block[:, reached], onward)
    return costs


def light_tree(
    edges: Iterable[Edge], shortest: Search, root: int, length: Callable[[int, int], int], *, stretch: float
) -> set[Edge]:
    """A tree of short paths that is little longer than a given one.

    No node of the given tree is farther from the root than ``stretch`` times its distance, and all links together are
    at most 1 + 2 / (stretch - 1) times as long as those of the given tree. A walk around that tree adds the shortest
    path to every node that it reaches too late.

    Args:
        edges: of a tree with the root, such as a Steiner tree.
        shortest: the paths of least length from the root.
        root: the agent whose tree this is.
        length: ``length(one, other)`` of the link between two agents.
        stretch: > 1.

    Returns:
        Undirected edges.

    Example:
        >>> from damjax.routing.network import as_network
        >>> network = as_network(nx.cycle_graph(6), None)
        >>> around = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
        >>> sorted(light_tree(around, network.by_length(0), 0, network.length, stretch=1.5))
        [(0, 1), (0, 5), (1, 2), (2, 3), (4, 5)]

    Source: Khuller, Raghavachari and Young 1995, light approximate shortest-path trees.
    """
    tree = nx.Graph(list(edges))
    tree.add_node(root)
    depth, parent = {root: 0}, {}

    def relax(one: int, other: int) -> None:
        if (reached := depth[one] + length(one, other)) < depth.get(other, np.inf):
            depth[other], parent[other] = reached, one

    # Down every edge and up again.
    for one, other, direction in nx.dfs_labeled_edges(tree, root):
        if one == other or direction == "nontree":
            continue
        if direction == "reverse":
            relax(other, one)
            continue
        relax(one, other)
        if depth[other] > stretch * shortest.distances[other]:
            for above, below in pairwise(shortest.path(other)[::-1]):
                relax(above, below)
    return branches(parent, root, parent)


def balanced_tree(network: Network, root: int, interests: Mapping[int, float], knob: float) -> set[Edge]:
    """The best of several light trees, of the shortest paths and of an approximation of the fewest edges.

    Args:
        network: the terminals are within reach of the root.
        root: the agent whose tree this is.
        interests: as of ``lightest_tree``, any number.
        knob: lambda >= 0.

    Returns:
        Undirected edges.

    Example:
        >>> from damjax.routing.network import as_network
        >>> network = as_network(nx.cycle_graph(5), None)
        >>> [sorted(balanced_tree(network, 0, {2: 0.5, 3: 0.5}, knob)) for knob in (0.0, 10.0)]
        [[(0, 1), (1, 2), (2, 3)], [(0, 1), (0, 4), (1, 2), (3, 4)]]
    """
    shortest, terminals = network.by_length(root), [root, *interests]
    steiner = kou(network.by_hops, terminals)
    trees = [steiner, branches(shortest.parents, root, interests)]
    for stretch in STRETCHES:
        light = light_tree(steiner, shortest, root, network.length, stretch=stretch)
        trees.append(pruned(light, terminals))
    return min(trees, key=lambda tree: cost(tree, network, root, interests, knob))
