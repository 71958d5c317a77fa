"""Which interests come late or never, by what the Info of a run says of its gradients.

Every agent asks for one gradient per interest in every step; Info says how many it applied, how old the oldest was and
how many will never come. What is neither applied nor lost is under way. Where the delays do not change, each interest
that comes after half of the run or never counts 1 in every late step: it is under way, or its gradient is older than
half of the run. Under random delays what is under way goes up and down; only if it grows through the last half of the
run do gradients stay out, and the growth per step is the number of interests that they are missing for.

Info does not say which interest a lost question was for. Where each is lost by chance, steps that lose none occur as
often as their share says; if there are none at all, some interest is likely never answered. Interests that are lost in
turn, one in every step, look the same.
"""

from typing import NamedTuple

import numpy as np

from damjax.diagnostics.thresholds import THRESHOLDS

__all__ = ["Lateness", "measure_lateness"]


class Lateness(NamedTuple):
    """How late the gradients of every agent are, each (N,).

    Attributes:
        longest_delay: the largest age of a gradient that was applied, in steps; -1 where none was.
        num_overdue: how many interests have no gradient in a late step, or one that was asked for more than half of
            the run ago; the mean over the last half.
        lost_share: the share of the last half's questions that are lost, in [0, 1].
        overdue: whether ``num_overdue`` is an interest rather than chance.
        unanswered: whether the losses are so many, or so regular, that an interest is likely never answered.
    """

    longest_delay: np.ndarray
    num_overdue: np.ndarray
    lost_share: np.ndarray
    overdue: np.ndarray
    unanswered: np.ndarray


def measure_lateness(
    num_applied: np.ndarray, max_age: np.ndarray, num_lost: np.ndarray, num_interests: np.ndarray
) -> Lateness:
    """How late the gradients of a run are.

    Args:
        num_applied: as in ``damjax.Info``, (T, N).
        max_age: likewise.
        num_lost: likewise.
        num_interests: how many gradients each agent asks for in a step, (N,).

    Example:
        >>> age = np.where(np.arange(100) < 60, -1, 60)[:, None]  # of two interests one comes after 60 steps
        >>> late = measure_lateness(np.where(age < 0, 0, 1), age, np.zeros((100, 1), int), np.array([2]))
        >>> late.longest_delay.tolist(), late.num_overdue.tolist(), late.overdue.tolist()
        ([60], [2.0], [True])
    """
    num_steps, half = len(num_applied), len(num_applied) // 2
    late = slice(half, None)
    waiting = num_interests - num_applied - num_lost
    num_overdue = (waiting + (max_age >= half))[late].mean(axis=0)
    # The mean telescopes: all its noise is that of what is under way, at both ends.
    noise = 2**0.5 * _fluctuation(np.cumsum(waiting, axis=0)[late]) / (num_steps - half)
    lost_share = num_lost[late].mean(axis=0) / num_interests
    # That no late step is without a loss, if every question is lost by chance and alike; else it is less.
    chance = (1 - (1 - lost_share) ** num_interests) ** (num_steps - half)
    regular = np.all(num_lost[late] > 0, axis=0) & (chance < THRESHOLDS.chance_of_losses)
    return Lateness(
        longest_delay=max_age.max(axis=0),
        num_overdue=num_overdue,
        lost_share=lost_share,
        overdue=num_overdue > np.maximum(THRESHOLDS.num_overdue, THRESHOLDS.overdue_errors * noise),
        unanswered=(lost_share > THRESHOLDS.lost_share) | regular,
    )


def _fluctuation(values: np.ndarray) -> np.ndarray:
    """The standard deviation of every column (T, N) from its straight line, (N,)."""
    times = np.arange(len(values)) - (len(values) - 1) / 2
    centred = values - values.mean(axis=0)
    return np.std(centred - times[:, None] * (times @ centred / np.sum(times**2)), axis=0)
