"""Healthy runs show no sign, and calls that are wrong end in an error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import diagnostics
from damjax.diagnostics import diagnose
from tests.cases import in_the_long_run
from tests.diagnostics.runs import (
    ALONE,
    BALL,
    DELTA,
    inverse_sqrt,
    problem,
    random_round_trips,
    routed,
    simulated,
    with_round_trips,
)


@pytest.mark.parametrize("seed", [0, *in_the_long_run(1, 2, 3, 4)])
def test_tuned_runs_are_healthy(seed):
    stream, weights = problem(seed, num_steps=1000)
    rate = inverse_sqrt(1.5)
    for algorithm in (
        damjax.ogd(DELTA, weights, learning_rate=rate, domain=BALL),
        damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=rate, domain=BALL),
    ):
        assert diagnose(DELTA, weights, BALL, stream, simulated(algorithm, stream)) == ()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_tuned_runs_of_the_figures_problem_are_healthy(seed):
    """The thresholds are measured on a milder problem, and fit the default one of the streams as well."""
    wild = {"personal_mean": (-5.0, 5.0), "personal_variance": (0.0, 50.0), "noise_std": 1.0}
    stream, weights = problem(seed, num_steps=1000, **wild)
    ball, rate = damjax.domains.frobenius_ball(60.0), inverse_sqrt(1.0)
    for algorithm in (
        damjax.ogd(DELTA, weights, learning_rate=rate, domain=ball),
        damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=rate, domain=ball),
    ):
        assert diagnose(DELTA, weights, ball, stream, simulated(algorithm, stream)) == ()


@pytest.mark.long
def test_noise_is_not_taken_for_a_sign():
    """Loud noise and small memories, in which chance makes the largest correlations and the roughest regret."""
    stream, _ = problem(key_dim=2, value_dim=2, noise_std=1.0)
    algorithm = damjax.ogd(DELTA, ALONE, learning_rate=inverse_sqrt(0.5), domain=BALL)
    assert diagnose(DELTA, ALONE, BALL, stream, simulated(algorithm, stream)) == ()


@pytest.mark.long
def test_float32_runs_are_healthy():
    stream, weights = problem(num_steps=400, dtype=np.float32)
    algorithm = damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.5), domain=BALL)
    trace = simulated(algorithm, stream)
    assert trace.params.dtype == np.float32
    assert diagnose(DELTA, weights, BALL, stream, trace) == ()


@pytest.mark.parametrize("seed", [0, *in_the_long_run(*range(1, 8))])
def test_the_innocent_are_not_accused(seed):
    """Regret of short runs, also in noise that grows from 0.1 to 2 and brings in more of it late."""
    stream, weights = problem(seed, num_steps=200)
    louder = np.linspace(0.1, 2, 200)[:, None, None] * np.random.default_rng(seed).normal(size=stream.values.shape)
    noisy = stream._replace(values=stream.values + louder)
    full, delayed = (
        damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.0), domain=BALL),
        damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=inverse_sqrt(1.0), domain=BALL),
    )
    for algorithm, seen in ((full, stream), (delayed, stream), (full, noisy)):
        assert diagnose(DELTA, weights, BALL, seen, simulated(algorithm, seen)) == ()


@pytest.mark.parametrize("lost", [0.1, *in_the_long_run(0.0, 0.3)])
@pytest.mark.parametrize("seed", [0, *in_the_long_run(*range(1, 6))])
def test_random_delays_and_losses_are_no_sign(seed, lost):
    """The number of gradients rises and falls, and some never come: of every interest alike."""
    stream, weights = problem(seed)
    trace = simulated(with_round_trips(weights, random_round_trips(seed, lost=lost)), stream)
    assert np.any(np.diff(trace.info.num_applied[40:], axis=0) < 0)
    assert diagnose(DELTA, weights, BALL, stream, trace) == ()


def test_bad_input(untyped):
    stream, weights = problem(num_agents=3, num_steps=40)
    algorithm = damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.0), domain=BALL)
    state, trace = damjax.simulate(algorithm, jnp.zeros((3, 5, 5)), stream)
    call = functools.partial(diagnose, DELTA, weights, BALL)
    with pytest.raises(ValueError, match="trace must be of type Trace, but it is"):
        call(stream, trace.params)
    with pytest.raises(ValueError, match="some are traced; diagnose outside jit"):
        jax.jit(lambda trace: len(call(stream, trace)))(trace)
    short = jax.tree.map(lambda leaf: leaf[:31], (stream, trace))
    with pytest.raises(ValueError, match="at least 32 steps to tell a sign from chance, but has 31"):
        call(*short)
    with pytest.raises(ValueError, match="must have the 40 steps of the trace, but have 31"):
        call(short[0], trace)
    with pytest.raises(ValueError, match="associations must be of type Associations"):
        call(stream.keys, trace)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"weights must have shape \(3, 3\)"):
        diagnose(DELTA, jnp.eye(2), BALL, stream, trace)
    _, rest = damjax.resume(algorithm, state, stream)
    with pytest.raises(ValueError, match="trace must start with step 1 but starts with 41"):
        call(stream, rest)
    assert set(diagnostics.Finding._fields) == {"sign", "value", "threshold", "agents", "message"}
