"""Seeds and what is drawn for them."""

import jax
import numpy as np
import pytest

import damjax
from paper_figs.problems import Protocol, Setting, draw_problems, seeds


@pytest.mark.long
def test_every_algorithm_sees_the_same_problems_and_tuning_has_seeds_of_its_own():
    protocol = Protocol(num_seeds=3, num_tuning_seeds=2, num_steps=5)
    tuning_keys, final_keys = (seeds(protocol, tuning=tuning) for tuning in (True, False))
    tuning, final = (set(map(tuple, np.asarray(jax.random.key_data(keys)))) for keys in (tuning_keys, final_keys))
    assert not tuning & final
    graph = damjax.graphs.paper_network()
    drawn = draw_problems(graph, protocol, [Setting(concentration=10.0), Setting(concentration=0.1)], final_keys)
    assert drawn.weights.shape == drawn.delays.shape == (3, 2, 10, 10)
    # In the order of the concentrations; the smaller one gives the larger weights to fewer.
    assert np.all(drawn.weights[:, 0].max(axis=(1, 2)) > drawn.weights[:, 1].max(axis=(1, 2)))
    alone = draw_problems(graph, protocol, [Setting(concentration=10.0)], final_keys[1:])
    np.testing.assert_array_equal(alone.model.keys, drawn.model.keys[1:])
    np.testing.assert_array_equal(alone.weights[:, 0], drawn.weights[1:, 1])
    for weights, delays in zip(drawn.weights[:, 0], drawn.delays[:, 0], strict=True):
        np.testing.assert_array_equal(damjax.routing.compile_routes(graph, weights).delays, delays)


def test_an_agents_own_parameter_is_fixed_and_the_others_vary():
    """Row n ~ Dirichlet(y0, .., y1 at n, .., y0) with y1 = 10: the mean weight of oneself is y1 / (y1 + (N - 1) y0)."""
    protocol = Protocol(num_seeds=12, num_steps=1)
    graph, keys = damjax.graphs.paper_network(), seeds(protocol, tuning=False)
    drawn = draw_problems(graph, protocol, [Setting(concentration=y0) for y0 in (0.05, 2.0, 20.0)], keys)
    own = np.einsum("scnn->sc", drawn.weights) / 10
    np.testing.assert_allclose(own.mean(axis=0), [10 / (10 + 9 * y0) for y0 in (0.05, 2.0, 20.0)], rtol=0.12)


def test_the_ball_holds_the_targets():
    """At rho = 0 they are largest; the best memories are weighted means of them."""
    protocol = Protocol(num_seeds=32, num_steps=1)
    graph, keys = damjax.graphs.paper_network(), seeds(protocol, tuning=False)
    personal = draw_problems(graph, protocol, [Setting()], keys).model.personal
    norms = np.linalg.norm(personal, axis=(-2, -1))
    assert 0.5 * protocol.radius < norms.max() < protocol.radius
    assert personal.mean(axis=(-2, -1)).min() < -3 < 3 < personal.mean(axis=(-2, -1)).max()
