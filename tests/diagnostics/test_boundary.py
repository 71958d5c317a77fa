"""Boundary: sets too small for what the agents want, and the sets of losses that always end there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax.diagnostics import diagnose
from tests.cases import in_the_long_run
from tests.diagnostics.runs import ALONE, DELTA, hand_made, inverse_sqrt, only, problem, signs, simulated


def test_a_ball_smaller_than_the_targets():
    """Agent 0 wants a small target, the others' stick out of the ball."""
    stream, targets = damjax.streams.linear_model(jax.random.key(0), num_steps=400, noise_std=0.0)
    targets = targets.at[0].multiply(0.1)
    stream = damjax.Associations(stream.keys, damjax.streams.respond(targets, jnp.asarray(stream.keys)))
    ball = damjax.domains.frobenius_ball(2.0)
    norms = np.linalg.norm(targets, axis=(1, 2))
    assert norms[0] < 2 < norms[1:].min()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=inverse_sqrt(1.0), domain=ball), stream)
    finding = only(diagnose(DELTA, ALONE, ball, stream, trace), "boundary")
    assert finding.agents == tuple(range(1, 10))
    assert finding.value == pytest.approx(1)
    assert "set is likely too small" in finding.message
    # A function of the time is the same stream.
    assert diagnose(DELTA, ALONE, ball, lambda time: jax.tree.map(lambda x: x[time - 1], stream), trace) == (finding,)


@pytest.mark.long
def test_a_box_smaller_than_the_targets():
    """Five entries of twelve want beyond the bounds, one has wider bounds, and one is pinned."""
    target = np.array([[3.0, -3, 0.5, 0.1], [2, -2, 0.2, 9], [0.3, 5, -0.4, 0.7]])
    lower, upper = -np.ones((3, 4)), np.ones((3, 4))
    lower[1, 3], upper[1, 3], upper[2, 3] = -50, 50, -1
    keys = np.random.default_rng(0).normal(size=(400, 1, 4))
    stream = damjax.streams.from_arrays(keys, np.einsum("ij,tnj->tni", target, keys))
    box, alone = damjax.domains.box(lower, upper), np.eye(1)
    trace = simulated(damjax.ogd(DELTA, alone, learning_rate=inverse_sqrt(0.5), domain=box), stream)
    finding = only(diagnose(DELTA, alone, box, stream, trace), "boundary")
    assert finding.value == pytest.approx(5 / 12)
    # A ridge holds the best memory where there are no bounds at all.
    stream, trace = hand_made(np.full(400, 2.0))
    gated = stream._replace(gates=jnp.full((400, 1), 0.5))
    endless = damjax.domains.box(-np.inf, np.inf)
    assert diagnose(damjax.objectives.gated_linear_attention(), alone, endless, gated, trace) == ()


@pytest.mark.parametrize("name", ["gated_linear_attention", *in_the_long_run("linear_attention")])
def test_the_best_memory_of_a_linear_loss_is_on_the_boundary_in_health(name):
    objective, (stream, weights) = getattr(damjax.objectives, name)(), problem()
    ball = damjax.domains.frobenius_ball(4.0)
    if objective.gated:
        # Little forgetting: a large ridge would keep the best memory inside.
        stream = stream._replace(gates=jnp.full((400, 10), 0.999))
    trace = simulated(damjax.ogd(objective, weights, learning_rate=inverse_sqrt(3.0), domain=ball), stream)
    assert signs(diagnose(objective, weights, ball, stream, trace)) == (["boundary"] if objective.gated else [])
