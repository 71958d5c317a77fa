"""What the figure of the network claims, in its numbers, at a smaller size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paper_figs.recall import network

SMALL = network.Protocol(
    num_seeds=4,
    num_tuning_seeds=2,
    num_others=(1, 9),
    link_lengths=(1, 4),
    num_windows=3,
    rates=(0.6, 1.0),
)


@pytest.mark.parametrize("num_others", [1, 4, 9])
def test_interests_are_half_oneself_and_the_rest_in_equal_parts(num_others):
    weights = np.asarray(network.draw_interests(jax.random.key(0), jnp.asarray(num_others), SMALL))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.diag(weights), SMALL.own_weight, rtol=1e-6)
    others = weights[~np.eye(10, dtype=bool)].reshape(10, 9)
    np.testing.assert_array_equal((others > 0).sum(axis=1), num_others)
    np.testing.assert_allclose(others[others > 0], 0.5 / num_others, rtol=1e-6)


@pytest.mark.long
def test_who_listens_to_few_recalls_them_and_one_memory_for_all_forgets_its_own():
    panels = network.compute(SMALL)
    mean = {name: {k: v.mean(axis=0) for k, v in panel.samples.items()} for name, panel in panels.items()}
    few, all_of_them = 0, 1
    # Full information and late gradients recall alike, of oneself and of few others.
    assert mean["own"]["OGD"].min() > 0.97
    assert mean["own"]["DAM-TOGD"].min() > 0.95
    assert mean["others"]["OGD"][few] > 0.95
    assert mean["others"]["DAM-TOGD"][few] > 0.9
    # One memory for all loses half of its own, and is the better one only where everyone wants everyone.
    assert mean["own"]["C-DOGD"].max() < 0.6
    assert mean["others"]["C-DOGD"][few] < 0.5 * mean["others"]["DAM-TOGD"][few]
    assert mean["others"]["C-DOGD"][all_of_them] > mean["others"]["OGD"][all_of_them] + 0.2
    assert max(curve.max() for curve in (mean["others"]["alone"], mean["delay"]["alone"])) < 0.05
    # Delay costs the early questions, and only those.
    assert mean["delay"]["DAM-TOGD"][1] < mean["delay"]["DAM-TOGD"][0] - 0.1
    np.testing.assert_allclose(mean["delay"]["OGD"], mean["delay"]["OGD"][0], atol=0.03)
    assert mean["time"]["DAM-TOGD"][0] < 0.5
    assert mean["time"]["DAM-TOGD"][-1] > 0.95
