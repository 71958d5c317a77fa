"""Divergence: runs made to show it, and runs that look like it and must not."""

import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import hindsight, regret
from damjax.diagnostics import diagnose
from tests.cases import in_the_long_run
from tests.diagnostics.runs import (
    ALONE,
    BALL,
    DELTA,
    FREE,
    inverse_sqrt,
    only,
    problem,
    rate_of_agent_1,
    signs,
    simulated,
)


def test_memories_that_are_not_finite_are_reported_alone():
    """Agent 1 alone runs at a rate that overflows; the step is the one after which its memory is no longer finite."""
    stream, _ = problem()
    algorithm = damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(1e6), domain=FREE)
    with pytest.warns(RuntimeWarning, match="ended as NaN"):
        _, trace = damjax.simulate(algorithm, jnp.zeros((10, 5, 5)), stream)
    finding = only(diagnose(DELTA, ALONE, FREE, stream, trace), "divergence")
    # X_t of the trace is the memory before step t.
    first = next(t for t in range(400) if not np.isfinite(trace.params[t, 1]).all())
    assert finding.agents == (1,)
    assert finding.value == np.inf
    assert f"first in step {first};" in finding.message
    assert "frobenius_ball" in finding.message
    # In a bounded set no rate can do that.
    bounded = diagnose(DELTA, ALONE, BALL, stream, trace)
    assert "max_delay" in bounded[0].message


@pytest.mark.parametrize("scale", [1.0, *in_the_long_run(1e150)])
def test_finite_growth_without_projection(scale):
    """Also of a memory so large that its square, and with it its loss, overflows."""
    stream, _ = problem()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(4.0), domain=FREE), stream)
    grown = trace.params.at[150:, 1].multiply(scale)
    finding = only(diagnose(DELTA, ALONE, FREE, stream, trace._replace(params=grown)), "divergence")
    best = hindsight.best_in_hindsight(DELTA, ALONE, FREE, stream, [400]).params[0, 1]
    late = np.array(np.linalg.norm(trace.params[:, 1], axis=(1, 2)))
    late[150:] *= scale
    assert finding.agents == (1,)
    assert finding.value == pytest.approx(late.max() / max(np.linalg.norm(best), np.median(late)))
    assert f"{late.max():.3g} in step {late.argmax() + 1}" in finding.message
    assert "no projection" in finding.message


def test_a_large_start_is_no_divergence():
    stream, weights = problem()
    algorithm = damjax.ogd(DELTA, weights, learning_rate=0.2, domain=FREE)
    trace = simulated(algorithm, stream, start=jnp.full((10, 5, 5), 1e3))
    assert np.linalg.norm(trace.params[0, 0]) > 100 * np.linalg.norm(trace.params[-1, 0])
    assert "divergence" not in signs(diagnose(DELTA, weights, FREE, stream, trace))


@pytest.mark.long
@pytest.mark.parametrize(
    ("domain", "reach"),
    [
        (damjax.domains.frobenius_ball(1e4), 1e4),
        # The corner (-200, .., -200) of 25 entries.
        (damjax.domains.box(-200.0, 100.0), 1e3),
    ],
    ids=["ball", "box"],
)
def test_divergence_kept_in_bounds_by_a_large_set(domain, reach):
    stream, _ = problem()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(6.0), domain=domain), stream)
    finding = diagnose(DELTA, ALONE, domain, stream, trace)[0]
    assert finding.sign == "divergence"
    assert finding.agents == (1,)
    best = hindsight.best_in_hindsight(DELTA, ALONE, domain, stream, [200, 400])
    late = regret.personalized_losses(DELTA, ALONE, trace.params, stream)[200:, 1].sum()
    late = late - (best.loss[1, 1] - best.loss[0, 1])
    nothing = regret.personalized_losses(DELTA, ALONE, 0 * trace.params, stream)[:, 1].mean()
    assert finding.value == pytest.approx(late / 200 / (nothing - best.loss[1, 1] / 400))
    assert f"reaches {reach / np.linalg.norm(best.params[1, 1]):.3g} times the best memory's norm" in finding.message


def test_growth_where_no_best_memory_exists():
    linear = damjax.objectives.linear_attention()
    stream, weights = problem()
    trace = simulated(damjax.ogd(linear, weights, learning_rate=0.1, domain=FREE), stream)
    finding = only(diagnose(linear, weights, FREE, stream, trace), "divergence")
    assert finding.agents == tuple(range(10))
    # Constant gradients on average: the norm grows in proportion to t.
    assert finding.value == pytest.approx(1, abs=0.1)
    assert "t^" in finding.message
    assert "frobenius_ball" in finding.message


def classes(noise, num_steps=300, num_agents=2):
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(num_steps, num_agents, 3))
    logits = keys @ rng.normal(size=(3, 3)).T + noise * rng.gumbel(size=(num_steps, num_agents, 3))
    return damjax.streams.from_arrays(keys, np.eye(3)[logits.argmax(axis=-1)])


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 2.0], ids=["separable", "not separable"])
def test_cross_entropy(noise):
    objective, alone, stream = damjax.objectives.cross_entropy(jnp.eye(3)), jnp.eye(2), classes(noise)
    ball = damjax.domains.frobenius_ball(8.0)
    free, bounded = (
        simulated(damjax.ogd(objective, alone, learning_rate=inverse_sqrt(1.0), domain=domain), stream)
        for domain in (FREE, ball)
    )
    # Even what grows without end, like log t, is no divergence.
    assert diagnose(objective, alone, FREE, stream, free) == ()
    findings = diagnose(objective, alone, ball, stream, bounded)
    if noise:
        assert findings == ()
    else:
        assert "separable" in only(findings, "boundary").message
