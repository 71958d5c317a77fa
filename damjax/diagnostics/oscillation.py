"""Oscillation: moves that the next ones take back, over and over."""

import numpy as np

from damjax.diagnostics.measures import SMALL, Run
from damjax.diagnostics.report import Finding, findings_of
from damjax.diagnostics.thresholds import THRESHOLDS

__all__ = ["find_oscillation", "opposition"]

NUM_LENGTHS = 64  # of moves, from a step to an eighth of the run


def find_oscillation(run: Run) -> list[Finding]:
    """Whose memory swings through the last half of the run, with a loss that is not negligible."""
    opposite, lengths = opposition(run.params)
    noticed = True if run.best is None else run.best.excess > THRESHOLDS.negligible_excess

    def cause(n: int) -> str:
        delay = run.lateness.longest_delay[n] if run.lateness else 0
        if delay > 0 and lengths[n] > 1:
            return f"The rate is likely too large for the delays, up to {delay} steps; lower it."
        if lengths[n] <= 2:
            return "The rate is likely so large that steps overshoot; lower it."
        delays = "No delays were seen" if run.lateness else "Of delays the trace's Info says nothing"
        return f"{delays}: look for momentum in the transform and for a period in the stream."

    def explain(n: int) -> str:
        size = f"correlation {-opposite[n]:.2f}, from noise alone -0.50"
        taken_back = f"Moves over {lengths[n]} step(s) are taken back by the next ({size}): half a period of a swing."
        return f"{taken_back} {cause(n)}"

    threshold = THRESHOLDS.opposition
    return findings_of("oscillation", opposite, noticed & (opposite > threshold), threshold, explain)


def opposition(params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How opposite consecutive moves of memories (T, N, dv, df) are, (N,), and the length where they are most, (N,).

    Example:
        >>> opposite, lengths = opposition((-1.0) ** np.arange(64).reshape(-1, 1, 1, 1))
        >>> opposite.round(6).tolist(), lengths.tolist()
        ([1.0], [1])
    """
    num_steps, num_agents = params.shape[:2]
    path = params[num_steps // 2 :].reshape(-(num_steps // -2), num_agents, -1)
    path = path / np.maximum(np.abs(path).max(axis=(0, 2), keepdims=True), SMALL)
    # Entries and stretches of the run both average noise out: with fewer than 16, chance could look like a swing.
    longest = max(1, min(num_steps // 8, num_steps * path.shape[2] // 32))
    lengths = np.unique(np.geomspace(1, longest, NUM_LENGTHS).round().astype(int))

    def correlation(length: int) -> np.ndarray:
        moves = path[length:] - path[:-length]
        first, second = moves[:-length], moves[length:]
        sizes = np.sqrt(np.sum(first**2, axis=(0, 2)) * np.sum(second**2, axis=(0, 2)))
        return np.sum(first * second, axis=(0, 2)) / (sizes + THRESHOLDS.rounding**2)

    opposite = -np.array([correlation(length) for length in lengths.tolist()])
    return opposite.max(axis=0), lengths[opposite.argmax(axis=0)]
