"""Trees between little traffic and little delay: against all trees of small graphs, and by their guarantees."""

import itertools
import re

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest

from damjax.routing import compile_routes
from damjax.routing.design import light_tree
from damjax.routing.network import as_network
from damjax.routing.steiner import kou
from tests.cases import connected_graph, interests
from tests.routing.trees import all_trees, instance, lengthy

seeds = st.integers(0, 10**6)
KNOBS = (0.0, 0.1, 0.5, 2.0, 30.0)
FINE = (0.0, *np.geomspace(0.05, 20.0, 9))


def worth(edges, lengths, row, slopes, knob):
    """The cost of a tree in the words of the definition."""
    return len(edges) + 2 * knob * sum(row[m] * slopes[m] * lengths[m] for m in np.flatnonzero(row))


def test_exact_is_the_best_of_all_trees_on_300_instances():
    for seed in range(300):
        rng, graph, weights, slopes = instance(seed, num_agents=int(5 + seed % 2))
        knob = KNOBS[seed % len(KNOBS)]
        routes = compile_routes(graph, weights, method="exact", latency="steps", traffic_weight=knob, lipschitz=slopes)
        agent = int(rng.integers(len(graph)))
        row = weights[agent]
        wanted = set(np.flatnonzero(row).tolist())
        best = min(
            worth(tree.edges, tree.lengths, row, slopes, knob)
            for tree in all_trees(graph, agent)
            if wanted <= tree.lengths.keys()
        )
        half = np.maximum(routes.delays[agent], 0) / 2
        assert worth(routes.trees[agent], half, row, slopes, knob) == pytest.approx(best, rel=1e-12)


@hypothesis.given(seed=seeds)
@hypothesis.settings(max_examples=4)
def test_the_ends_of_the_knob_are_the_fewest_edges_and_the_shortest_paths(seed):
    rng = np.random.default_rng(seed)
    graph, weights = lengthy(rng, 7), interests(rng, 7, density=0.5)
    for latency in (None, "steps"):
        exact = compile_routes(graph, weights, method="exact", latency=latency)
        at_0 = compile_routes(graph, weights, method="exact", latency=latency, traffic_weight=0.0)
        assert exact.trees == at_0.trees
        shortest = compile_routes(graph, weights, method="shortest_path", latency=latency)
        for method in ("exact", "light"):
            large = compile_routes(graph, weights, method=method, latency=latency, traffic_weight=1e7)
            np.testing.assert_array_equal(large.delays, shortest.delays)
            assert large.num_tree_edges <= shortest.num_tree_edges
        steiner, light = (compile_routes(graph, weights, method=m, latency=latency) for m in ("steiner", "light"))
        assert exact.num_tree_edges <= light.num_tree_edges <= steiner.num_tree_edges


def front(graph, weights, slopes, knobs, method="exact"):
    """Edges of all trees and half the weighted round trips of all agents, (knobs,) each."""
    for knob in knobs:
        routes = compile_routes(graph, weights, method=method, traffic_weight=knob, lipschitz=slopes)
        yield routes.num_tree_edges, float(np.sum(weights * slopes * routes.delays) / 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_front_is_monotone_and_convex(seed):
    """With more weight on delay there are more edges and less delay, and every further edge buys less."""
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, 14, probability=0.2)
    weights = np.zeros((14, 14))
    for n in range(14):
        weights[n, rng.choice(14, 5, replace=False)] = rng.dirichlet(np.ones(5))
    slopes = rng.uniform(0.2, 3.0, 14)
    points = list(front(graph, weights, slopes, FINE))
    edges, delay = np.array(points).T
    assert (np.diff(edges) >= 0).all()
    assert (np.diff(delay) <= 1e-9).all()
    assert edges[0] < edges[-1]
    corners = [points[0]] + [point for before, point in itertools.pairwise(points) if point[0] > before[0]]
    slope = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(corners)]
    assert len(slope) > 3
    assert (np.diff(slope) >= -1e-9).all()
    # Nothing between the corners lies below the front.
    for e, d in front(graph, weights, slopes, KNOBS, method="light"):
        for knob, point in zip(FINE, points, strict=True):
            assert point[0] + 2 * knob * point[1] <= e + 2 * knob * d + 1e-9


@hypothesis.given(seed=seeds, stretch=st.sampled_from([1.05, 1.5, 2.0, 4.0]))
@hypothesis.settings(max_examples=60)
def test_light_trees_keep_both_promises(seed, stretch):
    """Of Khuller, Raghavachari and Young: no node too far, and not much longer than the tree that they start from."""
    rng = np.random.default_rng(seed)
    graph = lengthy(rng, 25, probability=0.05)
    network = as_network(graph, "steps")
    root, *others = rng.choice(25, 12, replace=False).tolist()
    given = kou(network.by_hops, [root, *others])
    shortest = network.by_length(root)
    edges = light_tree(given, shortest, root, network.length, stretch=stretch)
    length = lambda edges: sum(network.length(*edge) for edge in edges)  # noqa: E731
    tree = nx.Graph()
    tree.add_weighted_edges_from((*edge, network.length(*edge)) for edge in edges)
    assert nx.is_tree(tree)
    assert length(edges) <= (1 + 2 / (stretch - 1)) * length(given)
    lengths = nx.single_source_dijkstra_path_length(tree, root)
    for node in {node for edge in given for node in edge}:
        assert lengths[node] <= stretch * shortest.distances[node]


def test_both_promises_bind():
    """Around a ring the given tree breaks the first, the shortest paths the second, and the light tree neither."""
    graph = nx.cycle_graph(40)
    graph.add_edges_from((40, node) for node in range(1, 40))
    nx.set_edge_attributes(graph, {edge: 1 if 40 not in edge else 3 for edge in graph.edges}, "steps")
    graph.add_edge(0, 40, steps=3)
    network = as_network(graph, "steps")
    around = {(node, node + 1) for node in range(39)}
    shortest = network.by_length(0)
    light = light_tree(around, shortest, 0, network.length, stretch=2.0)
    depth = nx.single_source_dijkstra_path_length(
        nx.Graph([(*edge, {"weight": network.length(*edge)}) for edge in light]), 0
    )
    assert max(depth[node] / shortest.distances[node] for node in range(1, 40)) <= 2
    assert 39 < sum(network.length(*edge) for edge in light) <= 3 * 39
    assert 2 * shortest.distances[20] < 19


@pytest.mark.parametrize("knob", KNOBS)
def test_light_is_no_worse_than_what_it_lies_between(knob):
    rng = np.random.default_rng(0)
    graph, weights = lengthy(rng, 16, probability=0.15), interests(rng, 16, density=0.9)

    def costs(method, **options):
        routes = compile_routes(graph, weights, method=method, latency="steps", **options)
        return np.array([len(tree) for tree in routes.trees]) + knob * np.sum(weights * routes.delays, axis=1)

    light = costs("light", traffic_weight=knob)
    others = np.minimum(costs("steiner"), costs("shortest_path"))
    assert (light <= others + 1e-9).all()
    # And it is more than the choice between the two.
    assert knob not in KNOBS[1:3] or (light < others - 1e-9).any()


@pytest.mark.parametrize("seed", range(10))
def test_the_tree_program_without_a_load_term_gives_pruned_shortest_paths(seed):
    """Of all trees, those with the least weighted delay are the ones in which every interest is at its distance."""
    _, graph, weights, _ = instance(seed)
    shortest = compile_routes(graph, weights, method="shortest_path", latency="steps")
    for n, row in enumerate(weights):
        wanted = np.flatnonzero(row).tolist()
        costs = [
            (sum(row[m] * tree.lengths[m] for m in wanted), [2 * tree.lengths[m] for m in wanted])
            for tree in all_trees(graph, n)
            if set(wanted) <= tree.lengths.keys()
        ]
        least = min(cost for cost, _ in costs)
        assert all(delays == shortest.delays[n, wanted].tolist() for cost, delays in costs if cost < least + 1e-9)
        leaves = [node for _, node in shortest.trees[n] if all(node != parent for parent, _ in shortest.trees[n])]
        assert set(leaves) <= set(wanted)


half = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"traffic_weight": 1.0}, "traffic_weight is for the methods exact and light"),
        ({"lipschitz": [1.0, 1.0]}, "lipschitz is for the methods exact and light"),
        ({"method": "exact", "traffic_weight": -1.0}, "traffic_weight must be finite and non-negative, but it is -1.0"),
        ({"method": "exact", "traffic_weight": np.inf}, "traffic_weight must be finite"),
        ({"method": "light", "lipschitz": [1.0]}, "lipschitz must have shape (2,), one slope per agent"),
        ({"method": "light", "lipschitz": [1.0, np.nan]}, "lipschitz must be finite"),
        ({"latency": "ms"}, "latency must name an attribute that is an integer >= 1 on every link, steps, but 'ms' of"),
        ({"latency": "zero"}, "'zero' of the link (0, 1) is 0;"),
        ({"latency": "half"}, "'half' of the link (0, 1) is 0.5;"),
    ],
)
def test_what_is_refused(options, message):
    graph = nx.Graph([(0, 1, {"zero": 0, "half": 0.5})])
    with pytest.raises(ValueError, match=re.escape(message)):
        compile_routes(graph, half, **options)
