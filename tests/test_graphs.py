"""Networks and the mixing matrix."""

import sys

import networkx as nx
import numpy as np
import pytest

import damjax.graphs as graphs

MAKERS = {
    "paper_network": graphs.paper_network,
    "ring": lambda: graphs.ring(7),
    "path": lambda: graphs.path(4),
    "star": lambda: graphs.star(6),
    "complete": lambda: graphs.complete(5),
    "grid": lambda: graphs.grid(3, 4),
    "random_geometric": lambda: graphs.random_geometric(15, 0.5, seed=1),
    "erdos_renyi": lambda: graphs.erdos_renyi(15, 0.4, seed=1),
    "one": lambda: graphs.ring(1),
    "Abilene": lambda: graphs.topology("Abilene"),
    "Geant2012": lambda: graphs.topology("Geant2012"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_network_is_connected_numbered_placed_and_mixes(name):
    graph = MAKERS[name]()
    assert list(graph.nodes) == list(range(len(graph)))
    assert nx.is_connected(graph)
    assert nx.number_of_selfloops(graph) == 0
    assert len(nx.get_node_attributes(graph, "pos")) == len(graph)
    mixing = graphs.metropolis_weights(graph)
    np.testing.assert_allclose(mixing, mixing.T)
    np.testing.assert_allclose(mixing.sum(axis=0), 1)
    assert (mixing >= 0).all()
    off = mixing - np.diag(np.diag(mixing))
    np.testing.assert_array_equal(off > 0, nx.to_numpy_array(graph, nodelist=range(len(graph))) > 0)
    assert np.sort(np.abs(np.linalg.eigvalsh(mixing)))[-2:][0] < 1 - 1e-6 or len(graph) == 1


def test_metropolis_by_hand():
    third = 1 / 3
    expected = [[1 - third, third, 0], [third, third, third], [0, third, 1 - third]]
    np.testing.assert_allclose(graphs.metropolis_weights(graphs.path(3)), expected)


def test_bad_input():
    with pytest.raises(ValueError, match=r"drew a graph of \d+ components; try another seed or a larger radius"):
        graphs.random_geometric(30, 0.05, seed=0)
    with pytest.raises(ValueError, match="a larger probability"):
        graphs.erdos_renyi(30, 0.01, seed=0)
    with pytest.raises(ValueError, match="num_agents must be a positive integer, but it is 0"):
        graphs.ring(0)
    with pytest.raises(ValueError, match=r"nodes 0\.\.1"):
        graphs.metropolis_weights(nx.Graph([("a", "b")]))
    with pytest.raises(ValueError, match=r"agents \[1\] have one"):
        graphs.metropolis_weights(nx.Graph([(0, 1), (1, 1)]))


def test_every_real_network_is_connected_and_numbered():
    names = graphs.topologies()
    assert len(set(names)) == 203
    for name in names:
        graph = graphs.topology(name)
        assert list(graph.nodes) == list(range(len(graph)))
        assert nx.is_connected(graph)
        assert nx.number_of_selfloops(graph) == 0
        assert len(nx.get_node_attributes(graph, "name")) == len(graph)


def test_a_real_network_lies_where_its_places_are():
    """Links of the known network between known places, as long as the arcs of a sphere of 6371 km between them."""
    abilene = graphs.topology("Abilene")
    names = nx.get_node_attributes(abilene, "name")
    assert {frozenset((names[n], names[m])) for n, m in abilene.edges} >= {
        frozenset({"Seattle", "Denver"}),
        frozenset({"New York", "Chicago"}),
        frozenset({"Houston", "Atlanta"}),
    }
    for n, m, length in abilene.edges.data("length"):
        (east_n, north_n), (east_m, north_m) = (np.radians(abilene.nodes[node]["pos"]) for node in (n, m))
        cosine = np.sin(north_n) * np.sin(north_m) + np.cos(north_n) * np.cos(north_m) * np.cos(east_n - east_m)
        np.testing.assert_allclose(length, 6371 * np.arccos(cosine), rtol=0.01)


def test_unknown_networks_and_no_networks(monkeypatch):
    with pytest.raises(ValueError, match=r"name must be one of topologies\(\), such as 'Abilene', .*it is 'Abilen'"):
        graphs.topology("Abilen")
    with pytest.raises(ValueError, match=r"such as 'Aarnet', 'Abilene', 'Abvt', but it is '\.\./sndlib/polska'"):
        graphs.topology("../sndlib/polska")
    monkeypatch.setitem(sys.modules, "topohub", None)
    for call in (graphs.topologies, lambda: graphs.topology("Abilene")):
        with pytest.raises(ImportError, match=r"pip install 'damjax\[recall\]'"):
            call()


def test_networks_that_change():
    """The chance of a link, the same draws for every chance, and places that stay in the square and move."""
    whole = graphs.grid(5, 5)
    some, more = (graphs.failing_links(whole, p, num_epochs=200, seed=3) for p in (0.2, 0.5))
    up = [np.mean([graph.number_of_edges() for graph in each]) / whole.number_of_edges() for each in (some, more)]
    np.testing.assert_allclose(up, [0.8, 0.5], atol=0.02)
    assert all(set(few.edges) <= set(many.edges) <= set(whole.edges) for many, few in zip(some, more, strict=True))
    moving = graphs.moving_geometric(40, 0.3, speed=0.2, num_epochs=100, seed=1)
    places = np.array([[graph.nodes[n]["pos"] for n in range(40)] for graph in moving])
    assert places.min() >= 0
    assert places.max() <= 1
    np.testing.assert_allclose(places.mean(axis=(0, 1)), 0.5, atol=0.05)
    np.testing.assert_allclose(places.var(axis=(0, 1)), 1 / 12, atol=0.01)
    gaps = np.linalg.norm(places[7, :, None] - places[7, None], axis=2)
    np.testing.assert_array_equal(nx.to_numpy_array(moving[7]) > 0, (gaps <= 0.3) & ~np.eye(40, dtype=bool))
    still = graphs.moving_geometric(10, 0.5, speed=0.0, num_epochs=3, seed=1)
    assert nx.utils.graphs_equal(still[0], still[2])
