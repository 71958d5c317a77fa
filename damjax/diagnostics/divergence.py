"""Divergence: memories that run away, or would but for the projection."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from damjax.diagnostics.measures import SMALL, Best, Run
from damjax.diagnostics.report import Finding, findings_of
from damjax.diagnostics.thresholds import THRESHOLDS
from damjax.domains import Domain

__all__ = ["Diverged", "diverged", "find_divergence", "not_finite"]

NUM_HORIZONS = 9  # that a power of the time is fitted to


class Diverged(NamedTuple):
    """Who diverged, each (N,).

    Attributes:
        ratios: peak norms over usual ones.
        ran_away: whose ratio is too large.
        held_back: who would have run away but for the projection.
    """

    ratios: np.ndarray
    ran_away: np.ndarray
    held_back: np.ndarray


def not_finite(finite: np.ndarray, domain: Domain) -> Finding:
    """The finding about a run of which not all is ``finite``, (T, N), though nothing else can be measured.

    Example:
        >>> import damjax
        >>> not_finite(np.array([[True, True], [True, False]]), damjax.domains.unconstrained()).message[:57]
        'Memories became NaN or infinite, the first in step 2; the'
    """
    agents, first = np.flatnonzero(~finite.all(axis=0)), int(np.argmin(finite.all(axis=1))) + 1
    cause = "the set is bounded, so look for NaN in the stream and the rate, and for delays beyond max_delay"
    if not domain.constrained:
        cause = "the rate is likely too large and no projection holds the memories: lower it, or use frobenius_ball"
    message = f"Memories became NaN or infinite, the first in step {first}; {cause}."
    return Finding("divergence", float("inf"), THRESHOLDS.norm_ratio, tuple(agents.tolist()), message)


def find_divergence(run: Run) -> list[Finding]:
    """Whose norm is too large, or whose loss, where the projection is what keeps the norm small."""
    if (best := run.best) is None:
        return _growth(run)
    ratios, ran_away, held_back = diverged(run, best)

    def cause(n: int) -> str:
        if not run.domain.constrained:
            return "the rate is likely too large and no projection holds the memory; lower it, or use frobenius_ball."
        times = float(run.domain.reach(jnp.asarray(run.params[0, 0]))) / max(best.norms[n], SMALL)
        return f"the rate is likely too large, and the set too: it reaches {times:.3g} times the best memory's norm."

    def away(n: int) -> str:
        peak = int(np.argmax(run.norms[:, n]))
        size = f"{run.norms[peak, n]:.3g} in step {peak + 1}"
        return f"The norm peaked at {size}, and the best memory's is {best.norms[n]:.3g}: {cause(n)}"

    def stuck(n: int) -> str:
        size = f"{best.excess[n]:.3g} times that of an empty memory"
        return f"The projection was at work in {run.projected[n]:.0%} of late steps, excess loss is {size}: {cause(n)}"

    return [
        *findings_of("divergence", ratios, ran_away, THRESHOLDS.norm_ratio, away),
        *findings_of("divergence", best.excess, held_back, THRESHOLDS.projected_excess, stuck),
    ]


def diverged(run: Run, best: Best) -> Diverged:
    """Who diverged, by the best memories."""
    # The first and the median norm: a memory that starts large, or wanders in pure noise, does not run away.
    usual = np.maximum(np.maximum(best.norms, run.norms[0]), np.median(run.norms, axis=0))
    ratios = run.norms.max(axis=0) / np.maximum(usual, SMALL)
    ran_away = ratios > THRESHOLDS.norm_ratio
    at_work = run.projected > THRESHOLDS.projected_share
    return Diverged(ratios, ran_away, ~ran_away & at_work & (best.excess > THRESHOLDS.projected_excess))


def _growth(run: Run) -> list[Finding]:
    """Divergence where no best memory tells how large a memory should be."""
    num_steps, threshold = len(run.norms), THRESHOLDS.growth_exponent
    horizons = np.geomspace(num_steps / 4, num_steps, NUM_HORIZONS).round().astype(int)
    exponents = _slopes(horizons, np.maximum(run.norms[horizons - 1], SMALL))
    words = "The norm grows like t^{:.2f}: no best memory exists, no projection holds this one; use frobenius_ball."
    return findings_of("divergence", exponents, exponents > threshold, threshold, lambda n: words.format(exponents[n]))


def _slopes(horizons: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least-squares slopes of log values (H, N) in log horizons (H,)."""
    times = np.log(horizons) - np.log(horizons).mean()
    return times @ np.log(values) / np.sum(times**2)
