"""What crosses the links: by hand, by counting real messages, and in every way of sending them."""

import re

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest

from damjax.routing import (
    METHODS,
    compile_routes,
    convergecast,
    equal_budget_steps,
    link_load,
    link_traffic,
    path_links,
    traffic,
)
from damjax.weights import sparse
from tests.cases import connected_graph, interests

seeds = st.integers(0, 10**6)


def test_traffic_by_hand():
    """Agent 0 on a path of three wants 2: two edges down with a memory of 2*3 floats, two hops back."""
    routes = compile_routes(nx.path_graph(3), np.array([[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]]))
    assert [t.tolist() for t in traffic(routes, value_dim=2, feature_dim=3)] == [[12, 0, 0], [10, 0, 0]]
    assert traffic(routes, value_dim=2, feature_dim=3, rank_one=False).reply.tolist() == [12, 0, 0]
    # Two factors, of which the second has a part for each head, on two links.
    assert traffic(routes, value_dim=2, feature_dim=3, num_heads=2).reply.tolist() == [16, 0, 0]
    by_link = link_traffic(routes, value_dim=2, feature_dim=3, num_heads=2)
    assert by_link.reply.numbers.sum() == 16
    for rank_one in (False, True):
        summed = traffic(convergecast(routes), value_dim=2, feature_dim=3, rank_one=rank_one)
        assert [t.tolist() for t in summed] == [[12, 0, 0], [12, 0, 0]]


def shared():
    """Agent 0 wants 2 and 3 behind link (0, 1); everybody else wants nobody."""
    weights = np.eye(4)
    weights[0] = [0, 0, 0.5, 0.5]
    return compile_routes(nx.Graph([(0, 1), (1, 2), (1, 3)]), weights)


@pytest.mark.parametrize(
    ("options", "messages", "numbers", "sizes"),
    [
        ({}, [2, 1, 1], [10, 5, 5], [40, 20, 20]),
        ({"rank_one": False}, [2, 1, 1], [12, 6, 6], [48, 24, 24]),
        ({"float_bytes": 2}, [2, 1, 1], [10, 5, 5], [20, 10, 10]),
        # Five numbers of 3 bits are 2 bytes, and each factor has a range; six of them are 3, with one.
        ({"bits": 3}, [2, 1, 1], [10, 5, 5], [20, 10, 10]),
        ({"bits": 3, "rank_one": False}, [2, 1, 1], [12, 6, 6], [14, 7, 7]),
        ({"summed": True}, [1, 1, 1], [6, 6, 6], [24, 24, 24]),
        ({"summed": True, "bits": 8}, [1, 1, 1], [6, 6, 6], [10, 10, 10]),
    ],
)
def test_replies_by_hand(options, messages, numbers, sizes):
    routes = convergecast(shared()) if options.pop("summed", False) else shared()
    links, query, reply = link_traffic(routes, value_dim=2, feature_dim=3, **options)
    assert links == ((0, 1), (1, 2), (1, 3))
    assert [field.tolist() for field in reply] == [messages, numbers, sizes]
    assert query.messages.tolist() == [1, 1, 1]
    assert query.bytes.tolist() == [6 * options.get("float_bytes", 4)] * 3


def test_questions_of_every_other_step_are_half_of_them():
    every, other = (link_traffic(shared(), value_dim=2, feature_dim=3, period=period) for period in (1, 2))
    for whole, half in zip(every.query, other.query, strict=True):
        np.testing.assert_array_equal(half, whole / 2)
    np.testing.assert_array_equal(other.reply.bytes, every.reply.bytes)


@hypothesis.given(seed=seeds, method=st.sampled_from(METHODS), summed=st.booleans())
def test_links_and_agents_agree(seed, method, summed):
    """What crosses all links is what is sent for all agents; loads are the paths across each link."""
    rng = np.random.default_rng(seed)
    routes = compile_routes(connected_graph(rng, 8), interests(rng, 8), method=method)
    links, crosses = path_links(routes)
    load = link_load(routes)
    assert load.links == links
    np.testing.assert_array_equal(load.messages, 2 * crosses.sum(axis=(0, 1)))
    assert load.largest == max(load.messages)
    routes = convergecast(routes) if summed else routes
    by_agent = traffic(routes, value_dim=2, feature_dim=3)
    by_link = link_traffic(routes, value_dim=2, feature_dim=3)
    assert by_link.links == links
    assert by_link.query.numbers.sum() == by_agent.query.sum()
    assert by_link.reply.numbers.sum() == by_agent.reply.sum()
    if summed:
        assert link_load(routes).messages.tolist() == [
            2 * sum(link in {(min(edge), max(edge)) for edge in tree} for tree in routes.trees) for link in links
        ]


def test_sparse_weights_travel_alike():
    rng = np.random.default_rng(0)
    graph, weights = connected_graph(rng, 9), interests(rng, 9)
    dense, few = (compile_routes(graph, table) for table in (weights, sparse(weights)))
    np.testing.assert_array_equal(link_load(dense).messages, link_load(few).messages)
    for one, other in zip(convergecast(dense).delays, convergecast(few).delays, strict=True):
        assert sorted(one[one > 0]) == sorted(other[other > 0])


def test_load_and_budget_of_a_path_by_hand():
    """Everybody on a path of four wants everybody: 3 + 3 paths cross an outer link of theirs, 4 + 4 the middle one."""
    routes = compile_routes(nx.path_graph(4), np.full((4, 4), 1 / 4))
    assert link_load(routes).messages.tolist() == [12, 16, 12]
    assert equal_budget_steps(routes, 100) == 6
    assert equal_budget_steps(convergecast(routes), 100) == 12
    alone = compile_routes(nx.path_graph(2), np.eye(2))
    assert link_load(alone).largest == 0
    assert equal_budget_steps(alone, 100) == 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda routes: traffic(routes, value_dim=0, feature_dim=1), "value_dim must be a positive integer"),
        (lambda routes: link_traffic(routes, value_dim=1, feature_dim=1, bits=0), "bits must be a positive integer"),
        (lambda routes: link_traffic(routes, value_dim=1, feature_dim=1, period=0), "period must be a positive"),
        (lambda routes: equal_budget_steps(routes, 3), "num_steps must be at least the largest load of a link, 4"),
        (lambda routes: link_load(routes.trees), "routes must be of type Routes"),
        (lambda routes: convergecast(routes.trees), "routes must be of type Routes"),
    ],
)
def test_what_is_refused(untyped, call, message):
    routes = compile_routes(nx.path_graph(2), np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=re.escape(message)):
        call(routes)
