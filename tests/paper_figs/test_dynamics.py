"""The figure of networks that change: its runs are those of timelines, and its claim holds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from paper_figs import dynamics
from paper_figs.dynamics import EVENTS, PLAIN, REWEIGHTED, SETTING, compute, draw_seeds, run_losses, with_twin
from paper_figs.problems import objective_and_domain, stream

TINY = dataclasses.replace(dynamics.FIGURE.sized(quick=True).protocol, num_seeds=1, num_steps=60, depths=(9,))
SMALL = dataclasses.replace(
    dynamics.Protocol(), num_seeds=4, num_steps=600, depths=(1, 9), mean_delays=(0, 8), losses=(0.0, 0.8)
)


@pytest.mark.long
def test_the_runs_are_those_of_timelines():
    """Stacked and filled up, with everyone present in name, they are what the library makes of each timeline."""
    everything, longest = draw_seeds(TINY)
    seed = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), everything)
    losses = run_losses(seed, TINY, longest)
    assert losses.shape == (len(EVENTS) + 1, 2, 60, 10)
    objective, ball = objective_and_domain(TINY)
    weights, graph = seed.problem.weights[0], damjax.graphs.paper_network()
    for name in ("links", "joins"):
        for twin, timeline in enumerate(with_twin(EVENTS[name].epochs(graph, TINY, 0), weights, TINY)):
            algorithm = damjax.dam_togd(objective, timeline.weights, timeline, learning_rate=TINY.rate, domain=ball)
            observe = damjax.regret.observe_losses(objective, timeline.weights)
            source = stream(SETTING.correlation, seed.problem)
            _, expected = damjax.simulate(algorithm, jnp.zeros((10, 5, 5)), source, observe=observe, num_steps=60)
            np.testing.assert_allclose(losses[list(EVENTS).index(name), twin], expected, rtol=1e-10)


@pytest.mark.long
def test_every_change_is_recovered_from_and_deep_trees_take_longer():
    panels = compute(SMALL)
    ratios = {name: panel.samples["loss over the twin's"] for name, panel in panels.items() if name in EVENTS}
    for name, ratio in ratios.items():
        np.testing.assert_allclose(ratio[:, -1], 1, atol=0.02, err_msg=name)
    # Cut off, the agents forget what they hear no more; links that fail at random cost less.
    during = slice(2 * 4, 4 * 4)
    assert ratios["partition"][:, during].mean() > 1.05
    assert 1 < ratios["links"][:, 4 : 5 * 4].mean() < ratios["partition"][:, during].mean()
    np.testing.assert_allclose(ratios["partition"][:, : 2 * 4], 1, rtol=1e-12)
    near, far = panels["recovery"].samples["recovery time"].mean(axis=0)
    assert 2 < near < far < panels["recovery"].limit
    delays, losses = panels["delays"].samples, panels["losses"].samples
    assert (delays[PLAIN][:, 1] > delays[PLAIN][:, 0]).all()
    np.testing.assert_allclose(delays[PLAIN][:, 0], delays[dynamics.FIXED][:, 0], rtol=1e-9)
    assert (losses[REWEIGHTED][:, 1] < losses[PLAIN][:, 1]).all()
