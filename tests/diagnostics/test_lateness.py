"""How late gradients are, from round trips message by message; and what no aggregate can tell."""

import numpy as np
import pytest

from damjax.diagnostics.lateness import Lateness, measure_lateness

STEPS, AGENTS = 300, 20


def lateness(table: np.ndarray) -> Lateness:
    """Of the round trips (T, N, K) of every step's questions, negative = lost."""
    num_steps, num_agents, num_interests = table.shape
    num_applied, max_age = np.zeros((num_steps, num_agents), int), np.full((num_steps, num_agents), -1)
    asked, agent, column = np.nonzero(table >= 0)
    arrives = asked + table[asked, agent, column]
    in_time = arrives < num_steps
    arrival = arrives[in_time], agent[in_time]
    np.add.at(num_applied, arrival, 1)
    np.maximum.at(max_age, arrival, (arrives - asked)[in_time])
    return measure_lateness(num_applied, max_age, np.sum(table < 0, axis=2), np.full(num_agents, num_interests))


def static(*round_trips: int, num_steps: int = STEPS) -> np.ndarray:
    return np.broadcast_to(round_trips, (num_steps, 1, len(round_trips)))


def uniform(rng, num_interests=10, lost=0.0):
    """Round trips between 0 and 20."""
    table = rng.integers(0, 21, (STEPS, AGENTS, num_interests))
    return np.where(rng.random(table.shape) < lost, -1, table)


def heavy_tailed(rng):
    """One in a hundred takes more than 20 steps, a few more than the whole run."""
    return (1 + rng.pareto(1.5, (STEPS, AGENTS, 10))).astype(int)


def congested(rng):
    """Everything of an agent waits for up to 20 steps now and then."""
    table = rng.integers(0, 5, (STEPS, AGENTS, 10))
    for agent in range(AGENTS):
        for start in np.flatnonzero(rng.random(STEPS) < 0.03):
            jam = np.arange(min(20, STEPS - start))
            table[start + jam, agent] += (20 - jam)[:, None]
    return table


def with_one(table: np.ndarray, round_trip: int) -> np.ndarray:
    """The same, but for one interest of every agent."""
    table = table.copy()
    table[:, :, 0] = round_trip
    return table


@pytest.mark.parametrize("num_steps", [32, 33, 300])
def test_static_round_trips_are_told_exactly(num_steps):
    """An interest counts from half of the run on, in whatever company: one per late step, arrived or not."""
    half = num_steps // 2
    for round_trip in (0, half - 1, half, half + 1, num_steps - 1, num_steps, 10 * num_steps):
        late = lateness(static(0, 3, round_trip, half - 1, num_steps=num_steps))
        assert late.overdue.item() == (round_trip >= half)
        assert late.num_overdue.item() == (1.0 if round_trip >= half else 0.0)
        assert late.longest_delay.item() == (max(round_trip, half - 1) if round_trip < num_steps else half - 1)
        assert not late.unanswered.any()
    nothing = lateness(static(400, 500))
    assert (nothing.longest_delay.item(), nothing.num_overdue.item()) == (-1, 2)


@pytest.mark.parametrize(
    "draw",
    [
        uniform,
        lambda rng: uniform(rng, num_interests=1, lost=0.3),
        lambda rng: uniform(rng, lost=0.1),
        lambda rng: uniform(rng, lost=0.3),
        lambda rng: uniform(rng, num_interests=60, lost=0.1),
        heavy_tailed,
        congested,
    ],
    ids=["uniform", "one interest", "lossy", "very lossy", "many interests", "heavy tails", "congestion"],
)
def test_chance_is_not_taken_for_an_interest(draw):
    late = lateness(draw(np.random.default_rng(0)))
    assert not late.overdue.any()
    assert not late.unanswered.any()


@pytest.mark.parametrize("round_trip", [151, 200, 290, 1000, -1])
@pytest.mark.parametrize("lost", [0.0, 0.1])
def test_an_interest_that_does_not_come_in_time_shows_among_random_ones(round_trip, lost):
    late = lateness(with_one(uniform(np.random.default_rng(1), lost=lost), round_trip))
    assert (late.overdue | late.unanswered).all()
    assert late.unanswered.all() == (round_trip < 0)
    longest = round_trip if 0 < round_trip < STEPS else 20
    assert np.all(late.longest_delay == longest)


def test_losses_of_more_than_half_need_no_regularity():
    late = lateness(uniform(np.random.default_rng(2), num_interests=2, lost=0.7))
    assert late.unanswered.all()
    assert np.all(np.abs(late.lost_share - 0.7) < 0.15)


def test_interests_that_are_lost_in_turn_look_like_one_that_is_never_answered():
    """A limit of what the numbers can tell: nobody says whose answers were lost."""
    table = np.zeros((STEPS, 1, 10), int)
    table[np.arange(STEPS), 0, np.arange(STEPS) % 10] = -1
    in_turn, never = lateness(table), lateness(with_one(np.zeros((STEPS, 1, 10), int), -1))
    assert all(np.array_equal(*pair) for pair in zip(in_turn, never, strict=True))
    assert in_turn.unanswered.all()
