"""Plateaus: regret that keeps coming in, by consensus, by gradients that do not come, or by the rate."""

from functools import partial
from typing import NamedTuple

import numpy as np

from damjax.diagnostics.divergence import diverged
from damjax.diagnostics.measures import SMALL, Best, Run, norms
from damjax.diagnostics.report import Finding, Words, findings_of
from damjax.diagnostics.thresholds import THRESHOLDS

__all__ = ["find_plateau"]


class Cause(NamedTuple):
    """A cause that the memories or their gradients show.

    Attributes:
        agents: whom it applies to, (N,).
        words: what to say about one of them.
    """

    agents: np.ndarray
    words: Words


def find_plateau(run: Run) -> list[Finding]:
    """Whose late regret has a cause that shows, or does not fall as it should."""
    if (best := run.best) is None:
        return []
    _, ran_away, kept = diverged(run, best)
    exponents, level = _exponents(run, best)
    learning, least = ~ran_away & ~kept, _least_excess(best)

    def attributed(n: int, cause: Words) -> str:
        return f"Late regret per step is {best.excess[n]:.3g} of what could be learned. {cause(n)}"

    def lasting(n: int) -> str:
        size = f"t^{exponents[n]:.2f} (healthy: t^-0.5), late {best.excess[n]:.3g} of what could be learned a step"
        return f"Regret comes in like {size}. {_rate_words(run, best, n)}"

    consensus = _consensus(run, best)
    delays = _delays(run, best, ~consensus.agents)
    shown = learning & (least > THRESHOLDS.attributed_excess)
    rest = learning & level & (least > THRESHOLDS.negligible_excess) & ~consensus.agents & ~delays.agents
    return [
        finding
        for cause in (consensus, delays)
        for finding in findings_of(
            "plateau",
            best.excess,
            shown & cause.agents,
            THRESHOLDS.attributed_excess,
            partial(attributed, cause=cause.words),
        )
    ] + findings_of("plateau", exponents, rest, THRESHOLDS.plateau_exponent, lasting)


def _least_excess(best: Best) -> np.ndarray:
    """What the late regret per step, in units of what could be learned, is by more than chance, (N,)."""
    num_blocks = THRESHOLDS.num_late_blocks
    late = best.regret[len(best.regret) // 2 :]
    means = np.array([block.mean(axis=0) for block in np.array_split(late, num_blocks)])
    return means.mean(axis=0) - THRESHOLDS.mean_quantile * means.std(axis=0, ddof=1) / num_blocks**0.5


def _exponents(run: Run, best: Best) -> tuple[np.ndarray, np.ndarray]:
    """As which power of t each agent's regret comes in, and whether that is above the threshold by more than chance.

    By chance is also what all agents together make improbable, each in units of its own mean.
    """
    num_steps, num_blocks, threshold = len(best.regret), THRESHOLDS.num_blocks, THRESHOLDS.plateau_exponent
    blocks = np.array_split(np.arange(num_steps // 4, num_steps), num_blocks)
    times = np.array([np.log1p(block).mean() for block in blocks])
    regret = np.array([best.regret[block].mean(axis=0) for block in blocks])
    noise = np.array([np.mean(run.gradients[block] ** 2, axis=0) for block in blocks])

    def trend(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The exponents, and whether they are above the threshold by more than chance."""
        values = values * np.exp(-threshold * times)[:, None]
        values = values / np.maximum(np.abs(values.mean(axis=0)), SMALL)
        values = np.column_stack([values, values[:, best.excess > THRESHOLDS.negligible_excess].sum(axis=1)])
        centred = times - times.mean()
        slope = centred @ values / np.sum(centred**2)
        rest = values - values.mean(axis=0) - centred[:, None] * slope
        error = np.sqrt(np.sum(rest**2, axis=0) / (num_blocks - 2) / np.sum(centred**2))
        certain = slope > THRESHOLDS.trend_quantile * error
        return threshold + slope[:-1], (slope[:-1] > 0) & (certain[:-1] | certain[-1])

    exponents, level = trend(regret)
    return exponents, level & trend(regret / np.maximum(noise, THRESHOLDS.rounding**2))[1]


def _consensus(run: Run, best: Best) -> Cause:
    """All agents, where something drives their memories together though their best ones differ."""
    # Averaged over time, since the noise of a large rate sets even agents in consensus apart.
    start, end = run.params[0], _last_quarter(run).mean(axis=0)
    spread, best_spread = _spread(end), _spread(best.params)
    near = THRESHOLDS.consensus_spread * best_spread
    # Memories that began alike and hardly moved, or moved apart, have not been driven together.
    moved = norms(end - start).max() > THRESHOLDS.rounding * best.norms.max()
    driven = _spread(start) >= near or (moved and _spread(end - start) < near)
    agreed = best_spread > THRESHOLDS.alike_spread and spread < near and driven

    def words(n: int) -> str:
        size = f"by {spread:.2g} of their norm, their best ones by {best_spread:.2g}"
        return f"Agents' memories differ {size}: consensus is likely forced on different interests; use dam_togd."

    return Cause(np.full(len(best.norms), agreed), words)


def _delays(run: Run, best: Best, mask: np.ndarray) -> Cause:
    """Of the agents of the mask those who are without gradients that they want; nobody where Info does not say."""
    if (late := run.lateness) is None:
        return Cause(np.zeros_like(mask), str)
    num_steps = len(run.norms)

    def words(n: int) -> str:
        wanted = run.num_interests[n]
        if late.overdue[n]:
            own = ", or only own gradients are applied, as by c_dogd" if run.one_each else ""
            delay = f"the longest delay seen is {late.longest_delay[n]} of {num_steps} steps"
            delay = "no gradient ever came" if late.longest_delay[n] < 0 else delay
            size = f"{late.num_overdue[n]:.3g} of {wanted} interests have no gradient, or one from before half a run"
            return f"In late steps {size}; {delay}: the delays are likely too long for the run{own}."
        size = f"Of the late questions for {wanted} interests {late.lost_share[n]:.0%} are lost"
        if late.lost_share[n] > THRESHOLDS.lost_share:
            return f"{size}, so that at least one has most of its gradients missing: look for what loses them."
        return f"{size}, and in every step some: an interest is likely never answered; look for what loses them."

    return Cause(mask & best.self_taught & (late.overdue | late.unanswered), words)


def _rate_words(run: Run, best: Best, n: int) -> str:
    reached = norms(_last_quarter(run))[:, n].mean() / max(best.norms[n], SMALL)
    size = "small" if reached < THRESHOLDS.half_way else "large, or does not decrease; use inverse_sqrt"
    silent = "" if run.lateness else " (Of delays and losses the trace's Info says nothing.)"
    return f"The norm is {reached:.0%} of the best memory's: the rate is likely too {size}.{silent}"


def _last_quarter(run: Run) -> np.ndarray:
    return run.params[-(len(run.params) // 4) :]


def _spread(memories: np.ndarray) -> float:
    """How far the agents' memories (N, dv, df) are from their mean, relative to their norms; in [0, 1]."""
    flat = memories.reshape(1, len(memories), -1)
    return float(norms(flat - flat.mean(axis=1))[0] / max(norms(flat)[0], SMALL))
