"""Routing trees and their compilation to static hop and delay tables. Plain networkx and numpy, no jax.

Agent n sends its memory down a tree that reaches every agent it is interested in, and the gradients come back up the
same tree; one link takes one step. So the gradient of agent m reaches n after tau_nm = 2 hops_n(m) steps ([DAM]
sec. 4), and everything that an algorithm needs to know of the network is the table of these delays.
"""

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from tqdm import tqdm

from damjax._checks import check_array, check_choice, check_positive, check_row_stochastic, check_square
from damjax.routing.design import balanced_tree, lightest_tree
from damjax.routing.network import Edge, Network, as_network
from damjax.routing.steiner import branches, depths, kou, mehlhorn, orient, shortest_path_tree
from damjax.types import Graph
from damjax.weights.edges import SparseWeights, check_sparse

__all__ = ["Routes", "compile_routes"]

METHODS = ("steiner", "steiner_mehlhorn", "exact", "shortest_path", "light")
DESIGNED = ("exact", "light")
MAX_EXACT_TERMINALS = 12  # the exact tree costs 3^(terminals - 1): about a second at twelve
QUICK = 3.0  # seconds without a word, and between two


@dataclass(frozen=True)
class Routes:
    """The trees of all agents and the tables that follow from them; ``compile_routes`` makes them.

    Entry [n, m] of a table is about agents n and m; entry [n, k], where the weights were sparse, about agents n and
    agents[n, k].

    Attributes:
        hops: edges on the tree path from n to m, (N, N) or (N, K) int32; -1 where n has no interest in m.
        delays: round trip in steps, twice the length of that path, which is ``hops`` where links have no lengths of
            their own, (N, N) or (N, K) int32; 0 where there is no interest.
        trees: per agent its tree as edges (parent, child), nearest to the root first.
        agents: those of the sparse weights, (N, K); None for a matrix of weights.
        summed: whether inner nodes add up the replies, see ``convergecast``.
    """

    hops: Int[np.ndarray, "N K"]
    delays: Int[np.ndarray, "N K"]
    trees: tuple[tuple[Edge, ...], ...]
    agents: Int[np.ndarray, "N K"] | None = None
    summed: bool = False

    @property
    def max_delay(self) -> int:
        """The longest round trip, in steps."""
        return int(self.delays.max(initial=0))

    @property
    def num_tree_edges(self) -> int:
        """Edges of all trees together: how many messages carry the queries of one step."""
        return sum(len(tree) for tree in self.trees)

    def paths(self, agent: int) -> dict[int, list[int]]:
        """The way from an agent to every agent on its tree, both ends included."""
        ways = {agent: [agent]}
        for parent, child in self.trees[agent]:
            # Parents come before their children, so the way to the parent is complete.
            ways[child] = [*ways[parent], child]
        return ways

    def others(self, agent: int) -> dict[int, int]:
        """The interests of an agent that are not itself, by the columns of the tables that are about them."""
        columns = np.flatnonzero(self.hops[agent] > 0)
        about = columns if self.agents is None else self.agents[agent, columns]
        return dict(zip(columns.tolist(), about.tolist(), strict=True))


def compile_routes(
    graph: Graph,
    weights: npt.ArrayLike | SparseWeights,
    *,
    method: str = "steiner",
    latency: str | None = None,
    traffic_weight: float | int | None = None,
    lipschitz: npt.ArrayLike | None = None,
) -> Routes:
    """For each agent a tree over itself and the agents it is interested in, and from the trees the delay table.

    Deterministic: the same links, lengths and weights give the same trees, whatever the order in which the graph was
    built. Other attributes of the graph play no part.

    What to use when: "steiner" for little traffic, "shortest_path" for little regret, "exact" or, from 13 terminals on,
    "light" for a choice between them; "steiner_mehlhorn" in networks far larger than what lies between an agent and
    its interests, since its search, as that of "shortest_path", ends with the last of them. 2000 agents on 18,000
    links with 8 interests each take 4 seconds by "steiner", 7 by "shortest_path", and half a minute by "light" and
    "steiner_mehlhorn", on one core. What takes longer than three seconds shows a bar.

    Args:
        graph: undirected, nodes 0..N-1, no self-loops. It need not be connected, as long as every interest is.
        weights: (N, N), row-stochastic; agent n's tree reaches every m with weights[n, m] > 0. Or a
            ``damjax.weights.SparseWeights``; then the tables are (N, K), like its fields.
        method: "steiner", the approximation of Kou, Markowsky and Berman, within 2 (1 - 1/terminals) of the fewest
            edges; "steiner_mehlhorn", Mehlhorn's, with the same guarantee; "shortest_path", the tree that minimises
            every delay; "exact", of all trees the one with the least edges + 2 traffic_weight sum_m w_nm L_m
            length_n(m), for at most 12 terminals; "light", the best in the same sense of the shortest paths, a Steiner
            tree and some between them, for any number of terminals.
        latency: the attribute of the graph's links that holds their length, integer steps >= 1; all are 1 without.
        traffic_weight: lambda >= 0 of "exact" and "light": how many edges of a tree, each a message of every step, one
            step of weighted round trip is worth. 0, by default, asks for the fewest edges, and among those the least
            weighted delay; from a large one on the trees are those of shortest paths.
        lipschitz: L of "exact" and "light", (N,), how steep the loss of every agent is, as
            ``damjax.bounds.constants`` knows it; all 1 by default.

    Returns:
        Routes.

    Raises:
        ValueError: an argument is not as above; the message names the agents.

    Example:
        >>> import networkx as nx, numpy as np
        >>> weights = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> routes = compile_routes(nx.path_graph(3), weights)
        >>> routes.delays.tolist(), routes.trees[0]
        ([[0, 0, 4], [0, 0, 0], [0, 0, 0]], ((0, 1), (1, 2)))
        >>> routes.hops.tolist()
        [[0, -1, 2], [-1, 0, -1], [-1, -1, 0]]
        >>> slow = nx.Graph([(0, 1, {"steps": 3}), (1, 2, {"steps": 1})])
        >>> compile_routes(slow, weights, latency="steps").delays[0].tolist()
        [0, 0, 8]

    Source: [DAM] sec. 4; the tree is [DAM]'s Steiner tree rooted at n. The tree program of [DDAM] has no term for the
    load of links, so that its optimum is "shortest_path".
    """
    check_choice("method", method, METHODS)
    knob = _knob(method, traffic_weight, lipschitz)
    network = as_network(graph, latency)
    num_agents = network.graph.number_of_nodes()
    agents, interest = _interests(weights, num_agents)
    slopes = _slopes(lipschitz, num_agents)

    hops, lengths = (np.full(interest.shape, -1, np.int32) for _ in range(2))
    tree_of = _tree_finder(network, method, knob)
    components = {n: part for part in map(frozenset, nx.connected_components(network.graph)) for n in part}
    trees = []
    rows = tqdm(interest, f"{method} trees", delay=QUICK, mininterval=QUICK, leave=False, unit="agent")
    for agent, row in enumerate(rows):
        columns = _by_agent(np.flatnonzero(row > 0), agents, agent)
        others = columns if agents is None else agents[agent, columns]
        interests = dict(zip(others.tolist(), (row[columns] * slopes[others]).tolist(), strict=True))
        _check_reachable(agent, interests, components[agent])
        tree = tree_of(agent, interests)
        for table, length in ((hops, lambda parent, child: 1), (lengths, network.length)):
            depth = depths(tree, agent, length)
            table[agent, columns] = [depth[other] for other in interests]
        trees.append(tree)
    return Routes(hops=hops, delays=np.maximum(2 * lengths, 0), trees=tuple(trees), agents=agents)


def _knob(method: str, traffic_weight: float | int | None, lipschitz: npt.ArrayLike | None) -> float:
    """Lambda, 0 by default; raises where it, or the slopes beside it, would have no effect."""
    for name, value in (("traffic_weight", traffic_weight), ("lipschitz", lipschitz)):
        if value is not None and method not in DESIGNED:
            raise ValueError(
                f"{name} is for the methods {' and '.join(DESIGNED)}, which weigh delay against traffic, but the method"
                f" is {method!r}; choose one of them, or leave it out"
            )
    if traffic_weight is None:
        return 0.0
    check_array("traffic_weight", traffic_weight, "")
    check_positive("traffic_weight", np.asarray(traffic_weight), allow_zero=True)
    return float(traffic_weight)


def _slopes(lipschitz: npt.ArrayLike | None, num_agents: int) -> Float[np.ndarray, "N"]:
    if lipschitz is None:
        return np.ones(num_agents)
    check_array("lipschitz", lipschitz, "N")
    slopes = np.asarray(lipschitz, float)
    if slopes.shape != (num_agents,):
        raise ValueError(
            f"lipschitz must have shape ({num_agents},), one slope per agent, but its shape is {slopes.shape}"
        )
    check_positive("lipschitz", slopes, allow_zero=True)
    return slopes


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


def _tree_finder(network: Network, method: str, knob: float) -> Callable[[int, dict[int, float]], tuple[Edge, ...]]:
    """The function that finds an agent's tree from its interests, weight times slope of each."""

    def exact(agent: int, interests: dict[int, float]) -> set[Edge]:
        if len(interests) >= MAX_EXACT_TERMINALS:
            raise ValueError(
                f"method 'exact' takes at most {MAX_EXACT_TERMINALS} terminals, but the tree of agent {agent} has"
                f" {len(interests) + 1}; use 'light', 'steiner' or 'shortest_path'"
            )
        return lightest_tree(network, agent, interests, knob)

    finders = {
        "steiner": lambda agent, interests: kou(network.by_hops, [agent, *interests]),
        "steiner_mehlhorn": lambda agent, interests: mehlhorn(network.neighbors, [agent, *interests]),
        "exact": exact,
        "shortest_path": lambda agent, interests: _shortest_paths(network, agent, interests),
        "light": lambda agent, interests: balanced_tree(network, agent, interests, knob),
    }

    def tree(agent: int, interests: dict[int, float]) -> tuple[Edge, ...]:
        others = {other: weight for other, weight in interests.items() if other != agent}
        return orient(finders[method](agent, others) if others else set(), agent)

    return tree


def _shortest_paths(network: Network, agent: int, interests: dict[int, float]) -> set[Edge]:
    if network.lengths is not None:
        return branches(network.by_length(agent).parents, agent, interests)
    # In Python, but it ends with the last interest.
    return shortest_path_tree(network.neighbors, agent, interests)
