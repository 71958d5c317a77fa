"""What the tests of trees share: all trees of a small graph, and networks with links of any length."""

import itertools
from typing import NamedTuple

import networkx as nx
import numpy as np

from tests.cases import connected_graph, interests


class Tree(NamedTuple):
    """Edges of a graph that form a tree, and how long the way from its root to each of its nodes is."""

    edges: tuple[tuple[int, int], ...]
    lengths: dict[int, int]


def lengthy(rng, num_agents, longest=4, **options):
    """A connected graph of few links, whose attribute "steps" is their length."""
    graph = connected_graph(rng, num_agents, **options)
    nx.set_edge_attributes(graph, {edge: int(rng.integers(1, longest + 1)) for edge in graph.edges}, "steps")
    return graph


def all_trees(graph, root, attribute="steps"):
    """Every tree in the graph that holds the root; a link without the attribute has length 1."""
    edges = sorted(graph.edges)
    for size in range(len(graph)):
        for chosen in itertools.combinations(edges, size):
            lengths, missing = {root: 0}, set(chosen)
            while joined := [edge for edge in missing if (edge[0] in lengths) != (edge[1] in lengths)]:
                for edge in joined:
                    one, other = edge if edge[0] in lengths else edge[::-1]
                    if other not in lengths:
                        lengths[other] = lengths[one] + graph.edges[edge].get(attribute, 1)
                        missing.discard(edge)
            if not missing:
                yield Tree(chosen, lengths)


def instance(seed, num_agents=6, **options):
    """A graph with lengths, weights of few interests, and slopes."""
    rng = np.random.default_rng(seed)
    graph = lengthy(rng, num_agents, probability=0.2)
    return rng, graph, interests(rng, num_agents, density=0.4), rng.uniform(0.2, 3.0, num_agents)
