"""Figures that are made to be read."""

import itertools

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.path import Path as Line

import damjax
from damjax import plotting


def test_delays_are_written_where_no_link_is():
    graph = damjax.graphs.paper_network()
    routes = damjax.routing.compile_routes(graph, np.full((10, 10), 0.1))
    figure = Figure(figsize=(4.3, 3.3), layout="constrained")
    axes = figure.subplots()
    plotting.network(axes, graph, routes, agent=0)
    figure.draw_without_rendering()
    at = {node: axes.transData.transform(graph.nodes[node]["pos"]) for node in graph}
    labels = [text.get_window_extent() for text in axes.texts if "tau" in text.get_text()]
    assert len(labels) == 9
    for label, (one, other) in itertools.product(labels, graph.edges):
        assert not Line([at[one], at[other]]).intersects_bbox(label, filled=False)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))


@pytest.mark.parametrize("num_seeds", [6, 9, 32])
def test_the_interval_of_a_median_holds_95_percent(num_seeds):
    ranks = np.arange(1.0, num_seeds + 1)[:, None]
    _, (low,), (high,) = plotting.median_interval(ranks, limit=np.inf)
    below = scipy.stats.binom(num_seeds, 0.5).cdf
    assert below(high - 1) - below(low - 1) >= 0.95
    assert below(high - 2) - below(low) < 0.95
    assert np.isnan(plotting.median_interval(ranks[:5], limit=np.inf)[1:]).all()
