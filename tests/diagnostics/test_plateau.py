"""Plateaus: runs made to show one cause each, and the numbers by independent means."""

import re

import jax
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
    GRAPH,
    inverse_sqrt,
    only,
    problem,
    random_round_trips,
    routed,
    simulated,
    with_round_trips,
)


def test_consensus_of_agents_that_want_the_same_is_no_sign():
    """One gradient a step, as from interests that never come; but the memories hold what all have seen."""
    stream, _ = problem()
    mixing = damjax.graphs.metropolis_weights(GRAPH)
    trace = simulated(damjax.c_dogd(DELTA, mixing, learning_rate=inverse_sqrt(1.0), domain=BALL), stream)
    assert diagnose(DELTA, np.full((10, 10), 0.1), BALL, stream, trace) == ()


@pytest.mark.parametrize(("num_steps", "rate"), [(400, 0.3), *in_the_long_run((200, 0.3), (200, 1.0), (400, 1.0))])
def test_consensus_is_named_as_the_cause_of_a_plateau(num_steps, rate):
    """In the default problem, where what all have in common makes the plateau a few hundredths of what is learned."""
    stream, weights = problem(num_steps=num_steps)
    mixing = damjax.graphs.metropolis_weights(GRAPH)
    trace = simulated(damjax.c_dogd(DELTA, mixing, learning_rate=inverse_sqrt(rate), domain=BALL), stream)
    finding = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert len(finding.agents) >= 9
    assert "consensus" in finding.message
    losses = regret.personalized_losses(DELTA, weights, trace.params, stream)
    half = num_steps // 2
    late = np.diff(regret.static_regret(losses, DELTA, weights, BALL, stream, [half, num_steps]), axis=0)[0] / half
    nothing = regret.personalized_losses(DELTA, weights, 0 * trace.params, stream).mean(axis=0)
    least = hindsight.best_in_hindsight(DELTA, weights, BALL, stream, [num_steps]).loss[0] / num_steps
    assert finding.value == pytest.approx(np.asarray(late / (nothing - least))[list(finding.agents)].max())


@pytest.mark.parametrize("rate", [1e-5, *in_the_long_run(0.0)])
def test_a_rate_that_moves_nothing_is_no_consensus(rate):
    """Memories that began alike and stayed so, each interested in itself alone: nobody forced them together."""
    stream, _ = problem()
    algorithm = damjax.ogd(DELTA, ALONE, learning_rate=rate, domain=BALL)
    run = jax.jit(lambda start: damjax.simulate(algorithm, start, stream))
    for start in (0.0, 1.0):
        _, trace = run(jnp.full((10, 5, 5), start))
        messages = [finding.message for finding in diagnose(DELTA, ALONE, BALL, stream, trace)]
        assert any("rate is likely too" in message for message in messages)
        assert not any("consensus" in message for message in messages)


def test_no_consensus_is_seen_where_all_want_the_same():
    """A rate that is too small, and memories that agree because the best ones differ by less than a hundredth."""
    stream, _ = problem()
    similar = np.full((10, 10), 0.1) + 0.001 * (np.eye(10) - 0.1)
    trace = simulated(damjax.ogd(DELTA, similar, learning_rate=1e-4, domain=BALL), stream)
    one = jnp.broadcast_to(trace.params.mean(axis=1, keepdims=True), trace.params.shape)
    finding = only(diagnose(DELTA, similar, BALL, stream, trace._replace(params=one)), "plateau")
    assert "too small" in finding.message
    assert "consensus" not in finding.message


def test_a_constant_rate_plateaus():
    stream, _ = problem(num_steps=1000, noise_std=1.0)
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=0.5, domain=BALL), stream)
    finding = only(diagnose(DELTA, ALONE, BALL, stream, trace), "plateau")
    assert finding.message.endswith("too large, or does not decrease; use inverse_sqrt.")
    # Where nobody says whether gradients were late, the message says so too.
    silent = trace._replace(info=trace.info._replace(max_age=None, num_lost=None))
    words = only(diagnose(DELTA, ALONE, BALL, stream, silent), "plateau").message
    assert words == f"{finding.message} (Of delays and losses the trace's Info says nothing.)"
    # t^(1/4) times the regret, block by block, over log t.
    best = hindsight.best_in_hindsight(DELTA, ALONE, BALL, stream, [1000]).params[0]
    memories = (trace.params, jnp.broadcast_to(best, trace.params.shape))
    incurred, least = (np.asarray(regret.personalized_losses(DELTA, ALONE, x, stream)) for x in memories)
    parts = np.array_split(np.arange(250, 1000), 16)
    times = np.array([np.log(part + 1).mean() for part in parts])
    weighted = np.array([(incurred - least)[part].mean(axis=0) for part in parts]) * np.exp(times / 4)[:, None]
    exponents = np.polyfit(times, weighted / weighted.mean(axis=0), 1)[0] - 0.25
    assert finding.value == pytest.approx(exponents[list(finding.agents)].max())


@pytest.mark.parametrize(
    ("num_steps", "delay", "words"),
    [
        (
            400,
            300,
            "5 of 10 interests .*; the longest delay seen is 300 of 400 steps",
        ),
        (
            400,
            600,
            "9 of 10 interests .*; the longest delay seen is 0 of 400 steps",
        ),
        *in_the_long_run((200, 200, "9 of 10 interests")),
    ],
)
def test_delays_are_named_as_the_cause_of_a_plateau(num_steps, delay, words):
    """Round trips of most of the run, and of all of it or more."""
    stream, weights = problem(num_steps=num_steps)
    delays = np.where(np.eye(10) > 0, 0, delay)
    trace = simulated(damjax.dam_togd(DELTA, weights, delays, learning_rate=inverse_sqrt(1.0), domain=BALL), stream)
    finding = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert re.search(words, finding.message)
    assert "delays are likely too long" in finding.message
    assert ("c_dogd" in finding.message) == (delay >= num_steps)


def two_without_what_they_want(weights):
    """Agent 3 lacks a third of what it wants if agent 7 is silent; agent 4 lacks all if agent 8 is."""
    weights = np.array(weights)
    weights[3], weights[4] = 0.7 * np.eye(10)[3] + 0.3 * np.eye(10)[7], np.eye(10)[8]
    return weights


def test_interests_that_never_come_are_named():
    """Of two agents; the regret of the others falls as it should."""
    stream, weights = problem(correlation=0.0)
    weights = two_without_what_they_want(weights)
    delays = np.array(routed(weights))
    delays[3, 7] = delays[4, 8] = 500
    algorithm = damjax.dam_togd(DELTA, weights, delays, learning_rate=inverse_sqrt(1.0), domain=BALL)
    trace = simulated(algorithm, stream)
    finding = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert finding.agents == (3, 4)
    assert re.search("1 of 1 interests .* no gradient ever came|1 of 2 interests", finding.message)
    # An algorithm that says nothing of ages and losses is not suspected of them.
    silent = trace._replace(info=trace.info._replace(max_age=None, num_lost=None))
    assert diagnose(DELTA, weights, BALL, stream, silent) == ()


@pytest.mark.parametrize(
    ("round_trip", "agents", "words"),
    [
        (-1, (3, 4), "are lost"),
        *in_the_long_run(
            (500, (3, 4), "no gradient"),
            # What comes so late throws agent 4's memory about: its loss is too rough to be sure of.
            (300, (3,), "no gradient"),
        ),
    ],
)
def test_interests_that_never_come_under_random_delays_are_named(round_trip, agents, words):
    """Lost, after the run, or late in it; a twentieth of what the others ask for is lost too, and that is no cause."""
    stream, weights = problem(correlation=0.0)
    weights = two_without_what_they_want(weights)
    table = random_round_trips(0, lost=0.05)
    table[:, 3, 7] = table[:, 4, 8] = round_trip
    trace = simulated(with_round_trips(weights, table), stream)
    finding = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert finding.agents == agents
    assert words in finding.message
