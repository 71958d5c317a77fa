"""Routing trees and their compilation to static hop and delay tables. Plain networkx and numpy, no jax.

Agent n sends its memory down a tree that reaches every agent it is interested in, and the gradients come back up the
same tree; one link takes one step. So the gradient of agent m reaches n after tau_nm = 2 hops_n(m) steps ([DAM]
sec. 4), and everything that an algorithm needs to know of the network is the table of these delays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from damjax._checks import check_choice, check_count, check_instance, check_row_stochastic, check_square
from damjax._sparse import SparseWeights, check_sparse
from damjax._steiner import Edge, distances, dreyfus_wagner, mehlhorn, orient, shortest_path_tree
from damjax.graphs import canonical

METHODS = ("steiner", "steiner_mehlhorn", "exact", "shortest_path")
MAX_EXACT_TERMINALS = 12  # the exact tree costs 3^(terminals - 1): about a second at twelve


@dataclass(frozen=True)
class Routes:
    """What ``compile_routes`` found.

    Entry [n, m] of a table is about agents n and m; entry [n, k], where the weights were sparse, about agents n and
    agents[n, k].

    Attributes:
        hops: edges on the tree path from n to m, (N, N) or (N, K) int32; -1 where n has no interest in m.
        delays: round trip in steps, 2 * hops, (N, N) or (N, K) int32; 0 where there is no interest.
        trees: per agent its tree as edges (parent, child), nearest to the root first.
        agents: those of the sparse weights, (N, K); None for a matrix of weights.
    """

    hops: Int[np.ndarray, "N K"]
    delays: Int[np.ndarray, "N K"]
    trees: tuple[tuple[Edge, ...], ...]
    agents: Int[np.ndarray, "N K"] | None = None

    @property
    def max_delay(self) -> int:
        """The longest round trip, in steps."""
        return int(self.delays.max(initial=0))

    @property
    def num_tree_edges(self) -> int:
        """Edges of all trees together: how many messages carry the queries of one step."""
        return sum(len(tree) for tree in self.trees)


class Traffic(NamedTuple):
    """Floats that cross links per step on behalf of each agent.

    Attributes:
        query: the memory sent over each edge of the agent's tree, (N,).
        reply: the gradients returned over each hop of their paths, (N,).
    """

    query: Int[np.ndarray, "N"]
    reply: Int[np.ndarray, "N"]


class PathLinks(NamedTuple):
    """Which physical links the messages cross.

    Attributes:
        links: the links that some tree uses, (smaller node, larger node), sorted.
        crosses: whether the path between n and m on n's tree crosses link e, (N, N, E), or (N, K, E) where the weights
            were sparse.
    """

    links: tuple[Edge, ...]
    crosses: Bool[np.ndarray, "N K E"]


def compile_routes(graph: nx.Graph, weights: npt.ArrayLike | SparseWeights, *, method: str = "steiner") -> Routes:
    """For each agent a tree over itself and the agents it is interested in, and from the trees the delay table.

    Deterministic: the same edges and weights give the same trees, whatever the order in which the graph was built.
    Edge attributes play no part: a link is one hop.

    Args:
        graph: undirected, nodes 0..N-1, no self-loops. It need not be connected, as long as every interest is.
        weights: (N, N), row-stochastic; agent n's tree reaches every m with weights[n, m] > 0. Or a
            ``damjax.weights.SparseWeights``; then the tables are (N, K), like its fields.
        method: "steiner", the approximation of Kou, Markowsky and Berman as networkx has it, within
            2 (1 - 1/terminals) of the fewest edges; "steiner_mehlhorn", Mehlhorn's, with the same guarantee in a
            fiftieth of the time (2000 agents with 8 interests each take seconds); "exact", the fewest edges (Dreyfus
            and Wagner) and among those the least weighted delay, for at most 12 terminals; "shortest_path", the
            breadth-first tree that minimises every delay.

    Returns:
        Routes.

    Raises:
        ValueError: the graph, the weights or the method is not as above; the message names the agents.

    Example:
        >>> import networkx as nx, numpy as np
        >>> weights = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> routes = compile_routes(nx.path_graph(3), weights)
        >>> routes.delays.tolist(), routes.trees[0]
        ([[0, 0, 4], [0, 0, 0], [0, 0, 0]], ((0, 1), (1, 2)))
        >>> routes.hops.tolist()
        [[0, -1, 2], [-1, 0, -1], [-1, -1, 0]]

    Source: [DAM] sec. 4; the tree is [DAM]'s Steiner tree rooted at n.
    """
    check_choice("method", method, METHODS)
    links = canonical(graph)
    agents, interest = _interests(weights, links.number_of_nodes())

    hops = np.full(interest.shape, -1, np.int32)
    tree_of = _tree_finder(links, method)
    components = {node: members for members in map(frozenset, nx.connected_components(links)) for node in members}
    trees = []
    for agent, row in enumerate(interest):
        columns = _by_agent(np.flatnonzero(row > 0), agents, agent)
        others = columns if agents is None else agents[agent, columns]
        interests = dict(zip(others.tolist(), row[columns].tolist(), strict=True))
        _check_reachable(agent, interests, components[agent])
        tree = tree_of(agent, interests)
        depth = {agent: 0}
        for parent, child in tree:
            depth[child] = depth[parent] + 1
        hops[agent, columns] = [depth[other] for other in interests]
        trees.append(tree)
    return Routes(hops=hops, delays=np.maximum(2 * hops, 0), trees=tuple(trees), agents=agents)


def traffic(routes: Routes, *, value_dim: int, feature_dim: int, rank_one: bool = True) -> Traffic:
    """How many floats cross the network per step for each agent.

    A query is the memory, dv*df floats over each tree edge. A reply is dv + df floats where the gradient is sent as its
    two factors (``rank_one``), else dv*df, over each hop of its path.

    Example:
        >>> import networkx as nx, numpy as np
        >>> routes = compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3))
        >>> traffic(routes, value_dim=5, feature_dim=5)
        Traffic(query=array([50, 50, 50]), reply=array([30, 20, 30]))
    """
    check_instance("routes", routes, Routes, "compile_routes makes them")
    check_count("value_dim", value_dim)
    check_count("feature_dim", feature_dim)
    tree_edges = np.array([len(tree) for tree in routes.trees])
    reply_size = value_dim + feature_dim if rank_one else value_dim * feature_dim
    return Traffic(
        query=value_dim * feature_dim * tree_edges,
        reply=reply_size * np.maximum(routes.hops, 0).sum(axis=1),
    )


def path_links(routes: Routes) -> PathLinks:
    """The links behind the delays: ``2 * crosses @ lengths`` is the table of round trips for links of any length.

    With every length 1 it is ``routes.delays``; its derivative in the lengths says which link is worth shortening.

    Example:
        >>> import networkx as nx, numpy as np
        >>> routes = compile_routes(nx.path_graph(3), np.full((3, 3), 1 / 3))
        >>> links, crosses = path_links(routes)
        >>> links, (2 * crosses @ np.ones(2))[0].tolist()
        (((0, 1), (1, 2)), [0.0, 2.0, 4.0])
    """
    check_instance("routes", routes, Routes, "compile_routes makes them")
    links = sorted({(min(edge), max(edge)) for tree in routes.trees for edge in tree})
    index = {link: i for i, link in enumerate(links)}
    crosses = np.zeros((*routes.hops.shape, len(links)), bool)
    for agent, tree in enumerate(routes.trees):
        paths: dict[int, list[int]] = {agent: []}
        for parent, child in tree:
            # Parents come before their children, so the path to the parent is complete.
            paths[child] = [*paths[parent], index[min(parent, child), max(parent, child)]]
        for column in np.flatnonzero(routes.hops[agent] > 0).tolist():
            other = column if routes.agents is None else int(routes.agents[agent, column])
            crosses[agent, column, paths[other]] = True
    return PathLinks(tuple(links), crosses)


def _interests(
    weights: npt.ArrayLike | SparseWeights, num_agents: int
) -> tuple[Int[np.ndarray, "N K"] | None, Float[np.ndarray, "N K"]]:
    """Whom each column is about, None where column m is about agent m, and its weights."""
    if isinstance(weights, SparseWeights):
        check_sparse("weights", weights, num_agents)
        return np.asarray(weights.agents), np.asarray(weights.weights)
    interest = np.asarray(weights)
    check_square("weights", interest.shape, num_agents)
    check_row_stochastic("weights", interest)
    return None, interest


def _by_agent(columns: np.ndarray, agents: np.ndarray | None, agent: int) -> np.ndarray:
    """The columns in the order of whom they are about: one tree for one set of interests, whatever their order."""
    return columns if agents is None else columns[np.argsort(agents[agent, columns])]


def _check_reachable(agent: int, interests: dict[int, float], reachable: frozenset[int]) -> None:
    if missing := interests.keys() - reachable:
        raise ValueError(
            f"agent {agent} is interested in agents {sorted(missing)}, but no path of the graph joins them;"
            f" add links or set these weights to zero"
        )


def _tree_finder(graph: nx.Graph, method: str) -> Callable[[int, dict[int, float]], tuple[Edge, ...]]:
    """The function that finds an agent's tree from its interests; what all trees need is computed once."""
    if method == "exact":
        hops = distances(graph)

        def find(agent: int, interests: dict[int, float]) -> set[Edge]:
            others = {m: weight for m, weight in interests.items() if m != agent}
            if len(others) >= MAX_EXACT_TERMINALS:
                raise ValueError(
                    f"method 'exact' takes at most {MAX_EXACT_TERMINALS} terminals, but the tree of agent {agent} has"
                    f" {len(others) + 1}; use 'steiner' or 'shortest_path'"
                )
            return dreyfus_wagner(graph, hops, agent, others)

    elif method == "steiner":
        # Copies: through the view of a part of a graph every step takes thrice the time.
        parts = [graph.subgraph(members).copy() for members in nx.connected_components(graph)]
        part_of = {node: part for part in parts for node in part}

        def find(agent: int, interests: dict[int, float]) -> set[Edge]:
            terminals = sorted({agent, *interests})
            return set(nx.algorithms.approximation.steiner_tree(part_of[agent], terminals, method="kou").edges)

    else:
        neighbors = {node: sorted(graph[node]) for node in graph}
        if method == "shortest_path":
            return lambda agent, interests: shortest_path_tree(neighbors, agent, interests)

        def find(agent: int, interests: dict[int, float]) -> set[Edge]:
            return mehlhorn(neighbors, {agent, *interests})

    return lambda agent, interests: orient(find(agent, interests) if {*interests} - {agent} else set(), agent)
