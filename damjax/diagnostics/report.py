"""What is said of a run: one sign, in whom and how strongly it shows, and why."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Finding", "Words", "findings_of"]

Words = Callable[[int], str]  # about an agent


class Finding(NamedTuple):
    """One failure sign of a run.

    Attributes:
        sign: "divergence", "plateau", "oscillation" or "boundary".
        value: the number behind it, from the agent that shows it most.
        threshold: a value above it counts as the sign.
        agents: who shows it.
        message: the numbers, the likely cause and the likely fix.
    """

    sign: str
    value: float
    threshold: float
    agents: tuple[int, ...]
    message: str


def findings_of(sign: str, values: np.ndarray, mask: np.ndarray, threshold: float, explain: Words) -> list[Finding]:
    """One finding about the agents of the mask, explained on the one with the largest value; none without agents.

    Args:
        sign: as in ``Finding``.
        values: the number behind it, (N,).
        mask: who shows it, (N,).
        threshold: as in ``Finding``.
        explain: what to say about an agent.

    Example:
        >>> findings_of("boundary", np.array([0.5, 2.0, 1.5]), np.array([False, True, True]), 1.0, "agent {}".format)
        [Finding(sign='boundary', value=2.0, threshold=1.0, agents=(1, 2), message='agent 1')]
    """
    if not (agents := np.flatnonzero(mask)).size:
        return []
    worst = int(agents[np.argmax(values[agents])])
    return [Finding(sign, float(values[worst]), threshold, tuple(agents.tolist()), explain(worst))]
