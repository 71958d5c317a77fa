"""Oscillation: memories that swing, by a rate too large for the delays or by hand."""

import numpy as np
import pytest

import damjax
from damjax.diagnostics import diagnose
from tests.diagnostics.runs import (
    BALL,
    DELTA,
    FREE,
    hand_made,
    problem,
    random_round_trips,
    routed,
    signs,
    simulated,
    with_round_trips,
)


def test_a_rate_too_large_for_the_delays_oscillates():
    stream, weights = problem()
    delays = np.full((10, 10), 20)
    trace = simulated(damjax.dam_togd(DELTA, weights, delays, learning_rate=0.3, domain=BALL), stream)
    findings = diagnose(DELTA, weights, BALL, stream, trace)
    assert signs(findings) == ["divergence", "oscillation"]
    finding = findings[1]
    assert finding.agents == tuple(range(10))
    assert "delays, up to 20 steps" in finding.message
    length = int(finding.message.split()[2])
    assert 20 <= length <= 41  # between tau and 2 tau + 1, the half periods of a delayed step
    path = np.asarray(trace.params)[200:].reshape(200, 10, 25)
    move = path[length:] - path[:-length]

    def opposition(n):
        first, second = move[:-length, n].ravel(), move[length:, n].ravel()
        return -first @ second / np.sqrt(first @ first * (second @ second))

    assert finding.value == pytest.approx(max(opposition(n) for n in range(10)))


def test_the_delays_of_the_network_swing_too():
    stream, weights = problem()
    trace = simulated(damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=1.5, domain=BALL), stream)
    assert "oscillation" in signs(diagnose(DELTA, weights, BALL, stream, trace))


@pytest.mark.long
def test_delays_that_vary_swing_too():
    """Up to 20 steps, which only the first questions take."""
    stream, weights = problem()
    table = np.minimum(random_round_trips(0, lost=0.0) // 4 + 15, 19)
    table[:5] = 20
    trace = simulated(with_round_trips(weights, table, rate=0.4), stream)
    finding = diagnose(DELTA, weights, BALL, stream, trace)[-1]
    assert finding.sign == "oscillation"
    assert "delays, up to 20 steps" in finding.message


def test_bouncing_between_two_points():
    stream, trace = hand_made(1 + 0.9 * (-1.0) ** np.arange(400))
    finding = diagnose(DELTA, np.eye(1), FREE, stream, trace)[-1]
    assert finding.sign == "oscillation"
    assert finding.value == pytest.approx(1)
    assert "steps overshoot" in finding.message
    # The same where it grows until the loss is no number any more, though the memory still is.
    stream, trace = hand_made(1e150 * (-1.5) ** np.arange(400))
    assert signs(diagnose(DELTA, np.eye(1), FREE, stream, trace)) == ["divergence", "oscillation"]


def test_a_swing_without_delays():
    stream, trace = hand_made(1 + 0.9 * np.sin(np.pi * np.arange(400) / 10))
    finding = diagnose(DELTA, np.eye(1), FREE, stream, trace)[-1]
    assert finding.sign == "oscillation"
    assert finding.value == pytest.approx(1)
    assert "Moves over 10 step(s)" in finding.message
    assert "says nothing: look for momentum" in finding.message
    # The same of an algorithm that says how old its gradients are.
    now = np.zeros((400, 1), int)
    spoken = trace._replace(info=trace.info._replace(max_age=now, num_lost=now))
    assert "No delays were seen: look for momentum" in diagnose(DELTA, np.eye(1), FREE, stream, spoken)[-1].message


@pytest.mark.parametrize("size", [1e-3, 1e-9], ids=["negligible loss", "rounding"])
def test_small_swings_are_no_sign(size):
    stream, trace = hand_made(1 + size * (-1.0) ** np.arange(400))
    assert diagnose(DELTA, np.eye(1), FREE, stream, trace) == ()


def test_a_swing_of_rounding_is_no_sign_where_no_best_memory_exists():
    linear = damjax.objectives.linear_attention()
    for size, expected in ((1e-9, []), (0.5, ["oscillation"])):
        stream, trace = hand_made(1 + size * (-1.0) ** np.arange(400))
        assert signs(diagnose(linear, np.eye(1), FREE, stream, trace)) == expected
