"""Trees and tables: by brute force on small graphs, by law on random ones, by hand on a few."""

import itertools
import re

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest

import damjax
import damjax.routing.compile as compiling
from damjax.routing import METHODS, compile_routes, network, path_links, traffic
from tests.cases import connected_graph, interests
from tests.routing.trees import lengthy

seeds = st.integers(0, 10**6)


def fewest_edges(graph, terminals):
    """A minimum Steiner tree spans some connected set of nodes with one edge less than nodes."""
    others = set(graph) - terminals
    for extra in range(len(others) + 1):
        for chosen in itertools.combinations(others, extra):
            nodes = terminals | set(chosen)
            if nx.is_connected(graph.subgraph(nodes)):
                return len(nodes) - 1
    raise AssertionError


def least_weighted_hops(graph, root, weights, num_edges):
    """Over all trees of that many edges that hold the root and every terminal."""
    best = np.inf
    for edges in itertools.combinations(graph.edges, num_edges):
        tree = nx.Graph(edges)
        tree.add_node(root)
        if nx.is_tree(tree) and {m for m in range(len(graph)) if weights[m] > 0} <= set(tree):
            lengths = nx.single_source_shortest_path_length(tree, root)
            best = min(best, sum(weights[m] * lengths[m] for m in lengths))
    return best


@hypothesis.given(seed=seeds, num_agents=st.integers(1, 7))
def test_exact_has_the_fewest_edges_and_steiner_is_within_its_factor(seed, num_agents):
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents)
    weights = interests(rng, num_agents, density=0.5)
    exact = compile_routes(graph, weights, method="exact")
    approximate = [compile_routes(graph, weights, method=method) for method in ("steiner", "steiner_mehlhorn")]
    for n in range(num_agents):
        terminals = {n, *np.flatnonzero(weights[n]).tolist()}
        fewest = fewest_edges(graph, terminals)
        assert len(exact.trees[n]) == fewest
        for routes in approximate:
            assert fewest <= len(routes.trees[n]) <= 2 * (1 - 1 / len(terminals)) * fewest


@hypothesis.given(seed=seeds, num_agents=st.integers(2, 6))
@hypothesis.settings(max_examples=15)
def test_exact_breaks_ties_by_the_weighted_delay(seed, num_agents):
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents)
    weights = interests(rng, num_agents, density=0.5)
    routes = compile_routes(graph, weights, method="exact")
    for n in range(num_agents):
        total = np.sum(weights[n] * np.maximum(routes.hops[n], 0))
        best = least_weighted_hops(graph, n, weights[n], len(routes.trees[n]))
        assert total == pytest.approx(best, abs=1e-9)


@hypothesis.given(seed=seeds, num_agents=st.integers(1, 9), method=st.sampled_from(METHODS))
def test_laws_of_every_method(seed, num_agents, method):
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents)
    weights = interests(rng, num_agents)
    routes = compile_routes(graph, weights, method=method)
    assert routes.hops.dtype == routes.delays.dtype == np.int32
    np.testing.assert_array_equal(routes.hops >= 0, weights > 0)
    np.testing.assert_array_equal(routes.delays, np.where(weights > 0, 2 * routes.hops, 0))
    assert routes.max_delay == routes.delays.max()
    assert routes.num_tree_edges == sum(map(len, routes.trees))
    for n, edges in enumerate(routes.trees):
        terminals = {n, *np.flatnonzero(weights[n]).tolist()}
        tree = nx.Graph(edges)
        tree.add_node(n)
        assert nx.is_tree(tree)
        assert all(graph.has_edge(*edge) for edge in edges)
        assert all(leaf in terminals for leaf, degree in tree.degree if degree <= 1)
        for m in np.flatnonzero(weights[n]):
            assert routes.hops[n, m] == nx.single_source_shortest_path_length(tree, n)[int(m)]
        reached = {n}
        for parent, child in edges:
            assert parent in reached
            reached.add(child)


@hypothesis.given(seed=seeds, num_agents=st.integers(1, 9))
def test_shortest_path_minimises_every_delay(seed, num_agents):
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents)
    weights = interests(rng, num_agents)
    lengths = dict(nx.all_pairs_shortest_path_length(graph))
    hops = compile_routes(graph, weights, method="shortest_path").hops
    for n, m in np.argwhere(weights > 0):
        assert hops[n, m] == lengths[n][m]


@hypothesis.given(seed=seeds, num_agents=st.integers(2, 8), method=st.sampled_from(METHODS))
def test_relabelling_permutes_the_tables(seed, num_agents, method):
    """On trees for every method. With cycles, the approximations may break ties otherwise, but two methods may not:
    shortest paths, whose delays are unique, and the exact tree, where random weights leave no tie."""
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents, probability=0.3 if method in ("exact", "shortest_path") else 0)
    weights = interests(rng, num_agents)
    order = rng.permutation(num_agents)
    renamed = nx.relabel_nodes(graph, {int(old): new for new, old in enumerate(order)})
    before = compile_routes(graph, weights, method=method).hops
    after = compile_routes(renamed, weights[np.ix_(order, order)], method=method).hops
    np.testing.assert_array_equal(after, before[np.ix_(order, order)])


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_construction_does_not_matter(method):
    rng = np.random.default_rng(0)
    graph = damjax.graphs.grid(3, 3)
    weights = interests(rng, 9)
    shuffled = nx.Graph()
    shuffled.add_nodes_from(rng.permutation(9).tolist())
    shuffled.add_edges_from([(b, a, {"weight": 7.0}) for a, b in reversed(list(graph.edges))])
    assert compile_routes(graph, weights, method=method).trees == compile_routes(shuffled, weights, method=method).trees


def test_by_hand_a_shared_trunk():
    """0 wants 4 and 5 behind a common trunk 0-1-2-3, though 4 has a detour of its own through 6 and 7."""
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (0, 6), (6, 7), (7, 4)])
    weights = np.eye(8)
    weights[0] = [0.5, 0, 0, 0, 0.25, 0.25, 0, 0]
    exact, shortest = (compile_routes(graph, weights, method=m) for m in ("exact", "shortest_path"))
    assert exact.trees[0] == ((0, 1), (1, 2), (2, 3), (3, 4), (3, 5))
    assert exact.delays[0].tolist() == [0, 0, 0, 0, 8, 8, 0, 0]
    assert exact.hops[0].tolist() == [0, -1, -1, -1, 4, 4, -1, -1]
    assert shortest.delays[0].tolist() == [0, 0, 0, 0, 6, 8, 0, 0]
    assert len(shortest.trees[0]) == 7
    assert exact.trees[3] == ()


def test_by_hand_the_agent_itself_is_the_root_even_without_interest():
    routes = compile_routes(nx.path_graph(3), np.array([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]]))
    assert routes.hops.tolist() == [[-1, -1, 2], [-1, 0, -1], [2, -1, -1]]
    assert routes.delays.tolist() == [[0, 0, 4], [0, 0, 0], [4, 0, 0]]


def test_a_disconnected_graph_is_fine_where_interests_are_not_cut():
    graph = nx.Graph([(0, 1), (2, 3)])
    weights = np.kron(np.eye(2), np.full((2, 2), 0.5))
    for method in METHODS:
        assert compile_routes(graph, weights, method=method).delays.max() == 2
    graph = nx.path_graph(5)
    graph.add_node(5)
    weights = np.eye(6)
    weights[0] = [0.2, 0, 0, 0.4, 0.4, 0]
    for method in METHODS:
        assert compile_routes(graph, weights, method=method).delays[0].tolist() == [0, 0, 0, 6, 8, 0]


def test_trees_hold_plain_integers_whatever_the_labels():
    graph = nx.Graph([(np.int64(0), np.int64(1)), (np.int64(1), np.int64(2))])
    for method in METHODS:
        trees = compile_routes(graph, np.full((3, 3), 1 / 3), method=method).trees
        assert all(type(node) is int for tree in trees for edge in tree for node in edge)


@hypothesis.given(seed=seeds, num_agents=st.integers(1, 9), method=st.sampled_from(METHODS))
def test_the_links_of_the_paths_give_back_the_delays(seed, num_agents, method):
    rng = np.random.default_rng(seed)
    graph, weights = connected_graph(rng, num_agents), interests(rng, num_agents)
    routes = compile_routes(graph, weights, method=method)
    links, crosses = path_links(routes)
    assert all(graph.has_edge(*link) for link in links)
    np.testing.assert_array_equal(2 * crosses @ np.ones(len(links)), routes.delays)
    lengths = rng.uniform(0, 2, len(links))
    for n, tree in enumerate(routes.trees):
        lengthened = nx.Graph()
        lengthened.add_node(n)
        for edge in tree:
            lengthened.add_edge(*edge, weight=lengths[links.index((min(edge), max(edge)))])
        distance = nx.single_source_dijkstra_path_length(lengthened, n)
        for m in np.flatnonzero(weights[n]).tolist():
            assert 2 * crosses[n, m] @ lengths == pytest.approx(2 * distance[m])


def test_every_agent_is_searched_from_once(monkeypatch):
    """Whatever the number of trees: a search is most of the time of an approximate tree."""
    searched = []
    search = network._breadth_first
    monkeypatch.setattr(
        network, "_breadth_first", lambda links, source: searched.append(source) or search(links, source)
    )
    weights = np.kron(np.eye(2), np.full((3, 3), 1 / 3))
    compile_routes(nx.disjoint_union(nx.path_graph(3), nx.path_graph(3)), weights)
    assert sorted(searched) == list(range(6))


@hypothesis.given(seed=seeds, num_agents=st.integers(2, 30))
def test_steiner_is_the_approximation_that_networkx_has_up_to_ties(seed, num_agents):
    """All terminals alone, where no tie is left: to the edge. Else as many edges, but for ties."""
    rng = np.random.default_rng(seed)
    graph = connected_graph(rng, num_agents)
    everyone = compile_routes(graph, np.full((num_agents, num_agents), 1 / num_agents))
    theirs = nx.algorithms.approximation.steiner_tree(graph, range(num_agents), method="kou")
    assert {(min(edge), max(edge)) for edge in everyone.trees[0]} == {(min(edge), max(edge)) for edge in theirs.edges}


@hypothesis.given(seed=seeds, method=st.sampled_from(METHODS))
def test_with_lengths_the_delays_are_those_of_the_trees(seed, method):
    rng = np.random.default_rng(seed)
    graph, weights = lengthy(rng, 8), interests(rng, 8)
    routes = compile_routes(graph, weights, method=method, latency="steps")
    links, crosses = path_links(routes)
    lengths = np.array([graph.edges[link]["steps"] for link in links])
    np.testing.assert_array_equal(2 * crosses @ lengths, routes.delays)
    np.testing.assert_array_equal(crosses.sum(axis=2), np.maximum(routes.hops, 0))
    if method == "shortest_path":
        distances = dict(nx.all_pairs_dijkstra_path_length(graph, weight="steps"))
        assert all(routes.delays[n, m] == 2 * distances[n][m] for n, m in np.argwhere(weights > 0).tolist())


@pytest.mark.parametrize("method", METHODS)
def test_links_of_length_one_change_nothing(method):
    rng = np.random.default_rng(3)
    graph, weights = lengthy(rng, 9, longest=1, probability=0.3), interests(rng, 9)
    plain, measured = (compile_routes(graph, weights, method=method, latency=latency) for latency in (None, "steps"))
    np.testing.assert_array_equal(plain.hops, measured.hops)
    np.testing.assert_array_equal(plain.delays, measured.delays)
    if method != "shortest_path":  # between paths of one length the two searches choose differently
        assert plain.trees == measured.trees


def test_a_bar_shows_only_what_takes_long(monkeypatch, capsys):
    graph, weights = damjax.graphs.grid(3, 3), np.full((9, 9), 1 / 9)
    compile_routes(graph, weights)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(compiling, "QUICK", 1e-6)
    compile_routes(graph, weights)
    assert "steiner trees" in capsys.readouterr().err


@pytest.mark.parametrize(("num_agents", "num_interests"), [(30, 4), (200, 1), (60, 20)])
def test_mehlhorn_finds_what_networkx_does_up_to_ties(num_agents, num_interests):
    rng = np.random.default_rng(num_agents)
    graph = nx.connected_watts_strogatz_graph(num_agents, 4, 0.3, seed=0)
    weights = np.zeros((num_agents, num_agents))
    for n in range(num_agents):
        weights[n, rng.choice(num_agents, num_interests, replace=False)] = 1 / num_interests
    routes = compile_routes(graph, weights, method="steiner_mehlhorn")
    theirs = [
        nx.algorithms.approximation.steiner_tree(graph, [n, *np.flatnonzero(weights[n])], method="mehlhorn")
        for n in range(num_agents)
    ]
    total = sum(tree.number_of_edges() for tree in theirs)
    assert abs(routes.num_tree_edges - total) <= 0.02 * total


half = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("graph", "weights", "message"),
    [
        (nx.Graph([("a", "b")]), half, "nodes 0..1, but it has ['a', 'b']"),
        (nx.Graph([(0, 1), (0, 0)]), half, "agents [0] have one"),
        (nx.DiGraph([(0, 1)]), half, "undirected networkx.Graph, but it is a DiGraph"),
        (nx.MultiGraph([(0, 1)]), half, "MultiGraph"),
        (nx.empty_graph(2), half, "agent 0 is interested in agents [1]"),
        (nx.path_graph(2), np.array([[0.5, 0.5], [0.5, 0.4]]), "row of agent 1 sums to 0.9"),
        (nx.path_graph(2), np.array([[1.0, 0.0], [1.5, -0.5]]), "agent 1 gives agent 1 the weight -0.5"),
        (nx.path_graph(2), np.array([[1.0, 0.0], [np.nan, 1.0]]), "row 1 holds nan"),
        (nx.path_graph(3), half, "must have shape (3, 3)"),
        (None, half, "graph must be a networkx.Graph, but it is None"),
        (nx.path_graph(2), np.ones((2, 3)), "its shape is (2, 3)"),
    ],
)
def test_bad_input_names_the_agents(untyped, graph, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compile_routes(graph, weights)


def test_unknown_methods_and_too_many_terminals_are_refused():
    with pytest.raises(ValueError, match=r"method must be one of steiner, .*'dijkstra'"):
        compile_routes(nx.path_graph(2), half, method="dijkstra")
    with pytest.raises(ValueError, match="at most 12 terminals, but the tree of agent 0 has 13"):
        compile_routes(nx.path_graph(13), np.full((13, 13), 1 / 13), method="exact")
    with pytest.raises(ValueError, match="value_dim must be a positive integer, but it is 0"):
        traffic(compile_routes(nx.path_graph(2), half), value_dim=0, feature_dim=1)
