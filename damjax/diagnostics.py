"""Known failure signs of a finished run, in words and with the number behind each.

| sign | number | threshold | likely causes |
|---|---|---|---|
| divergence | peak norm over the best memory's, or the first or median one if larger; infinite for NaN | 10 | rate |
| | excess loss, of memories that the projection holds in the set | 1 | rate too large in a large set |
| | exponent p of the norm's growth t^p, where no best memory exists | 0.25 | no projection |
| plateau | excess loss, of memories in consensus or without what they want | 0.001 | consensus, delays |
| | exponent p of t^p, as which regret comes in between T/4 and T | -0.25 | rate |
| oscillation | how opposite consecutive moves of equal length are: minus their correlation | 0.75 | rate, delays |
| boundary | norm of the best memory over the radius; in a box, share of its entries at a bound | 1; 0 | set too small |

Excess loss: the regret per step over the last half in units of what could be learned, the loss per step of an empty
memory less that of the best memory. 0 is as good as the best memory, 1 as bad as none; what stays below 1 % is no
oscillation, and no plateau that only the exponent tells of.

Exponent: regret that grows like sqrt(T) comes in like t^-1/2, regret that grows like T like t^0. It must be large
relative to the squared norms of the gradients too, since louder noise brings in more of both. The numbers of a plateau
are means over blocks of steps, above their thresholds by more than noise explains at the level of 1 %.

Without what they want are memories to which an interest never comes, or comes after half of the run. Where every agent
applies one gradient a step, as by c_dogd, they must also recall their own associations better than halfway from the
best memory to the best one for these alone. Random delays and losses let the number of gradients fall again; then
nobody knows whose were missing.

Moves: D_t = X_{t+s} - X_t, compared with D_{t+s} over the last half of the run at the worst length s. Noise around one
point gives 1/2 at most, a swing that lasts gives 1 where s is half its period, and a round trip tau with too large a
rate swings with half periods between tau and 2 tau.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import check_function, check_instance
from damjax._layouts import Weights, as_interests, stochastic_interests
from damjax._steps import check_parts
from damjax._types import ArrayLike, Associations, concrete
from damjax.domains import Box, Domain, FrobeniusBall, Unconstrained, known_shape
from damjax.hindsight import best_in_hindsight
from damjax.objectives import Objective
from damjax.regret import personalized_losses
from damjax.simulate import Stream, Trace

MIN_STEPS = 32  # with fewer, chance decides slopes and correlations
NORM_RATIO = 10.0
HELD_SHARE, HELD_EXCESS = 0.1, 1.0  # of the last half's steps were projected; worse than an empty memory
GROWTH_EXPONENT = 0.25  # above log t, which is how a memory of separable classes may grow
PLATEAU_EXPONENT = -0.25
NEGLIGIBLE, ATTRIBUTED = 0.01, 0.001  # where the memories themselves show the cause, less is a sign
NUM_BLOCKS, TREND_QUANTILE = 16, 2.62  # Student's, one-sided, at 1 %, with 14 degrees of freedom
NUM_LATE_BLOCKS, MEAN_QUANTILE = 8, 3.0  # and with 7
CONSENSUS = 0.6  # the memories' relative spread over that of the best ones: below 0.4 in consensus, else about 1
ALIKE = 0.01  # the best memories' relative spread, below which consensus costs nothing
LATE = 0.5  # of the run, before the last interest is served
HALF_WAY = 0.5  # of the best memory's norm, which a rate that is too small does not reach
OPPOSITE = 0.75
ON_BOUNDARY = 1 - 1e-6
ROUNDING = 1e-6
NUM_HORIZONS, NUM_LENGTHS = 9, 64
HUGE, SMALL = 1e200, 1e-100  # their ratio, and sums of it, do not overflow

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


class _Best(NamedTuple):
    """The best memories in hindsight, and the run measured by them."""

    params: np.ndarray  # (N, dv, df)
    norms: np.ndarray  # (N,)
    excess: np.ndarray  # (N,), regret per step of the last half, in units of what could be learned
    regret: np.ndarray  # (T, N), against the last best memories, step by step, in these units
    self_taught: np.ndarray  # (N,), whether a memory holds hardly more than its agent's own associations


class _Run(NamedTuple):
    """A finite run."""

    objective: Objective
    domain: Domain
    params: np.ndarray  # (T, N, dv, df)
    norms: np.ndarray  # (T, N)
    applied: np.ndarray  # (T, N), how many gradients
    gradients: np.ndarray  # (T, N), norms of their sums, relative to the largest
    projected: np.ndarray  # (N,), in which share of the last half's steps
    wanted: np.ndarray  # (N,), how many interests
    best: _Best | None  # None where none exists


def diagnose(
    objective: Objective,
    weights: Weights,
    domain: Domain,
    associations: Stream,
    trace: Trace,
) -> tuple[Finding, ...]:
    """Say which known failure signs a finished run shows; the module's table tells what is measured.

    Args:
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights, also for algorithms that never see it.
        domain: the feasible set, also of the best memories that the run is measured by.
        associations: the stream of the run, as arrays or as a function of the 1-based time.
        trace: what ``simulate`` records by default, of at least 32 steps.

    Returns:
        The findings, none for a healthy run. Memories that became NaN or infinite are reported alone: nothing else can
        be measured. Plateau and boundary need a best memory, which linear losses and cross-entropy do not have on an
        unconstrained domain.

    Raises:
        ValueError: traced values, another observer's trace, too few steps, a stream of another length.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights, free = damjax.objectives.delta_net(), jnp.eye(2), damjax.domains.unconstrained()
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=100)
        >>> def run(rate):
        ...     algorithm = damjax.ogd(objective, weights, learning_rate=rate, domain=free)
        ...     return damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream)[1]
        >>> diagnose(objective, weights, free, stream, run(0.5))
        ()
        >>> [(finding.sign, finding.agents) for finding in diagnose(objective, weights, free, stream, run(2.0))]
        [('divergence', (0, 1))]
    """
    check_parts(objective, domain)
    _check(weights, associations, trace)
    known_shape(domain)
    finite = np.asarray(trace.info.finite)
    if not finite.all():
        return (_not_finite(finite, domain),)
    run = _measure(objective, weights, domain, associations, trace)
    return (*_divergence(run), *_plateau(run), *_oscillation(run), *_boundary(run))


def _check(weights: Weights, associations: Stream, trace: Trace) -> None:
    check_instance("trace", trace, Trace, "it must be what simulate records by default, without an observe")
    given = (weights, trace, None if callable(associations) else associations)
    if any(concrete(leaf) is None for leaf in jax.tree.leaves(given)):
        raise ValueError("weights, associations and trace must be concrete, but some are traced; diagnose outside jit")
    num_steps, num_agents = trace.params.shape[:2]
    stochastic_interests("weights", weights, num_agents)
    if (first := int(trace.info.time[0])) != 1:
        raise ValueError(f"trace must start with step 1 but starts with {first}; concatenate the traces of its parts")
    if num_steps < MIN_STEPS:
        raise ValueError(f"trace must have at least {MIN_STEPS} steps to tell a sign from chance, but has {num_steps}")
    if callable(associations):
        check_function("associations", associations, "time", "it gives the associations of a step")
    else:
        check_instance("associations", associations, Associations, "damjax.streams.from_arrays makes one")
        if (length := np.shape(associations.keys)[0]) != num_steps:
            raise ValueError(f"associations must have the {num_steps} steps of the trace, but have {length}")


def _measure(objective: Objective, weights: Weights, domain: Domain, associations: Stream, trace: Trace) -> _Run:
    params, num_steps = np.asarray(trace.params, float), trace.params.shape[0]
    gradients = np.asarray(trace.info.grad_norm, float)
    bounded_below = objective.curvature is not None and not _is_linear(objective)
    exists = bounded_below or not isinstance(domain.shape, Unconstrained)
    return _Run(
        objective,
        domain,
        params,
        norms=_norms(params),
        applied=np.asarray(trace.info.num_applied),
        gradients=gradients / np.maximum(gradients.max(axis=0), SMALL),
        projected=np.asarray(trace.info.projected)[num_steps // 2 :].mean(axis=0),
        wanted=np.sum(np.asarray(as_interests("weights", weights).weights) > 0, axis=1),
        best=_hindsight(objective, weights, domain, associations, trace) if exists else None,
    )


def _hindsight(objective: Objective, weights: Weights, domain: Domain, associations: Stream, trace: Trace) -> _Best:
    num_steps = trace.params.shape[0]
    stream = jax.vmap(associations)(jnp.arange(1, num_steps + 1)) if callable(associations) else associations
    half = num_steps // 2
    found = best_in_hindsight(objective, weights, domain, stream, [half, num_steps])
    params, least = np.asarray(found.params[-1], float), np.asarray(found.loss, float)

    def losses(memories: ArrayLike, weights: Weights = weights) -> np.ndarray:
        memories = jnp.broadcast_to(memories, trace.params.shape)
        values = np.asarray(personalized_losses(objective, weights, memories, stream), float)
        # A memory may be finite and its loss no more.
        return np.clip(np.nan_to_num(values, nan=HUGE), -HUGE, HUGE)

    empty = domain.project(jnp.zeros_like(trace.params[0, 0]))
    learnable = np.maximum(losses(empty).mean(axis=0) - least[-1] / num_steps, SMALL)
    incurred = losses(trace.params)
    excess = (incurred[half:].sum(axis=0) - (least[1] - least[0])) / learnable / (num_steps - half)
    regret = np.clip((incurred - losses(found.params[-1])) / learnable, -(HUGE**0.5), HUGE**0.5)

    def self_taught() -> np.ndarray:
        alone = jnp.eye(len(params), dtype=trace.params.dtype)
        own = best_in_hindsight(objective, alone, domain, stream, [num_steps]).params[-1]
        late = [losses(memories, alone)[half:].mean(axis=0) for memories in (trace.params, found.params[-1], own)]
        return late[0] < (late[1] + late[2]) / 2

    one_each = np.all(np.asarray(trace.info.num_applied) == 1)
    return _Best(params, _norms(params), excess, regret, self_taught() if one_each else np.ones(len(params), bool))


def _findings(sign: str, values: np.ndarray, shown: np.ndarray, threshold: float, explain: Words) -> list[Finding]:
    """One finding about the agents ``shown``, explained on the one with the largest value; none without agents."""
    if not (agents := np.flatnonzero(shown)).size:
        return []
    worst = int(agents[np.argmax(values[agents])])
    return [Finding(sign, float(values[worst]), threshold, tuple(agents.tolist()), explain(worst))]


def _not_finite(finite: np.ndarray, domain: Domain) -> Finding:
    agents, first = np.flatnonzero(~finite.all(axis=0)), int(np.argmin(finite.all(axis=1))) + 1
    cause = "the set is bounded, so look for NaN in the stream and the rate, and for delays beyond max_delay"
    if isinstance(domain.shape, Unconstrained):
        cause = "the rate is likely too large and no projection holds the memories: lower it, or use frobenius_ball"
    message = f"Memories became NaN or infinite, the first in step {first}; {cause}."
    return Finding("divergence", float("inf"), NORM_RATIO, tuple(agents.tolist()), message)


def _divergence(run: _Run) -> list[Finding]:
    if (best := run.best) is None:
        return _growth(run)
    ratios, ran_away, held = _diverged(run, best)

    def cause(n: int) -> str:
        if isinstance(run.domain.shape, Unconstrained):
            return "the rate is likely too large and no projection holds the memory; lower it, or use frobenius_ball."
        times = _reach(run) / max(best.norms[n], SMALL)
        return f"the rate is likely too large, and the set too: it reaches {times:.3g} times the best memory's norm."

    def away(n: int) -> str:
        peak = int(np.argmax(run.norms[:, n]))
        size = f"{run.norms[peak, n]:.3g} in step {peak + 1}"
        return f"The norm peaked at {size}, and the best memory's is {best.norms[n]:.3g}: {cause(n)}"

    def stuck(n: int) -> str:
        size = f"{best.excess[n]:.3g} times that of an empty memory"
        return f"The projection was at work in {run.projected[n]:.0%} of late steps, excess loss is {size}: {cause(n)}"

    return [
        *_findings("divergence", ratios, ran_away, NORM_RATIO, away),
        *_findings("divergence", best.excess, held, HELD_EXCESS, stuck),
    ]


def _diverged(run: _Run, best: _Best) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The peak norm's ratio, who ran away, and who would have but for the projection; each (N,)."""
    # The first and the median norm: a memory that starts large, or wanders in pure noise, does not run away.
    usual = np.maximum(np.maximum(best.norms, run.norms[0]), np.median(run.norms, axis=0))
    ratios = run.norms.max(axis=0) / np.maximum(usual, SMALL)
    ran_away = ratios > NORM_RATIO
    return ratios, ran_away, ~ran_away & (run.projected > HELD_SHARE) & (best.excess > HELD_EXCESS)


def _growth(run: _Run) -> list[Finding]:
    """Divergence where no best memory tells how large a memory should be."""
    horizons = _horizons(len(run.norms))
    exponents = _slopes(horizons, np.maximum(run.norms[horizons - 1], SMALL))
    words = "The norm grows like t^{:.2f}: no best memory exists, no projection holds this one; use frobenius_ball."
    shown = exponents > GROWTH_EXPONENT
    return _findings("divergence", exponents, shown, GROWTH_EXPONENT, lambda n: words.format(exponents[n]))


def _plateau(run: _Run) -> list[Finding]:
    if (best := run.best) is None:
        return []
    _, ran_away, held = _diverged(run, best)
    exponents, level = _exponents(run, best)
    late = np.array([part.mean(axis=0) for part in np.array_split(best.regret[len(run.norms) // 2 :], NUM_LATE_BLOCKS)])
    least = late.mean(axis=0) - MEAN_QUANTILE * late.std(axis=0, ddof=1) / NUM_LATE_BLOCKS**0.5
    learning = ~ran_away & ~held

    def attributed(n: int, cause: Words) -> str:
        return f"Late regret per step is {best.excess[n]:.3g} of what could be learned. {cause(n)}"

    def lasting(n: int, cause: Words) -> str:
        size = f"t^{exponents[n]:.2f} (healthy: t^-0.5), late {best.excess[n]:.3g} of what could be learned a step"
        return f"Regret comes in like {size}. {cause(n)}"

    (agreed, consensus), (delayed, delays), rate = _plateau_causes(run, best)
    known = learning & (least > ATTRIBUTED)
    return [
        *_findings("plateau", best.excess, known & agreed, ATTRIBUTED, partial(attributed, cause=consensus)),
        *_findings("plateau", best.excess, known & delayed, ATTRIBUTED, partial(attributed, cause=delays)),
        *_findings(
            "plateau",
            exponents,
            learning & level & (least > NEGLIGIBLE) & ~agreed & ~delayed,
            PLATEAU_EXPONENT,
            partial(lasting, cause=rate),
        ),
    ]


def _exponents(run: _Run, best: _Best) -> tuple[np.ndarray, np.ndarray]:
    """As which power of t each agent's regret comes in, and whether that is above the threshold by more than chance.

    By chance is also what all agents together make improbable, each in units of its own mean.
    """
    num_steps = len(best.regret)
    parts = np.array_split(np.arange(num_steps // 4, num_steps), NUM_BLOCKS)
    times = np.array([np.log1p(part).mean() for part in parts])
    regret = np.array([best.regret[part].mean(axis=0) for part in parts])
    noise = np.array([np.mean(run.gradients[part] ** 2, axis=0) for part in parts])

    def trend(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The exponents, and how many standard errors they are above the threshold."""
        values = values * np.exp(-PLATEAU_EXPONENT * times)[:, None]
        values = values / np.maximum(np.abs(values.mean(axis=0)), SMALL)
        values = np.column_stack([values, values[:, best.excess > NEGLIGIBLE].sum(axis=1)])
        centred = times - times.mean()
        slope = centred @ values / np.sum(centred**2)
        rest = values - values.mean(axis=0) - centred[:, None] * slope
        error = np.sqrt(np.sum(rest**2, axis=0) / (NUM_BLOCKS - 2) / np.sum(centred**2))
        certain = slope > TREND_QUANTILE * error
        return PLATEAU_EXPONENT + slope[:-1], (slope[:-1] > 0) & (certain[:-1] | certain[-1])

    exponents, level = trend(regret)
    return exponents, level & trend(regret / np.maximum(noise, ROUNDING**2))[1]


def _plateau_causes(run: _Run, best: _Best) -> tuple[tuple[np.ndarray, Words], tuple[np.ndarray, Words], Words]:
    """Whom consensus and whom delays apply to, (N,), with their words, and the words about the rate for the others."""
    num_steps = len(run.norms)
    last = run.params[-(num_steps // 4) :]
    # Averaged over time, since the noise of a large rate sets even agents in consensus apart.
    start, end = run.params[0], last.mean(axis=0)
    spread, best_spread = _spread(end), _spread(best.params)
    # Memories that began alike and hardly moved, or moved apart, have not been driven together.
    moved = _norms(end - start).max() > ROUNDING * best.norms.max()
    driven = _spread(start) >= CONSENSUS * best_spread or (moved and _spread(end - start) < CONSENSUS * best_spread)
    applied, since = run.applied[-1], _first_of_last(run.applied) + 1
    reached = _norms(last).mean(axis=0) / np.maximum(best.norms, SMALL)
    agreed = np.full(len(applied), best_spread > ALIKE and spread < CONSENSUS * best_spread and driven)
    steady = np.all(np.diff(run.applied, axis=0) >= 0, axis=0)
    delayed = ~agreed & steady & best.self_taught & ((applied < run.wanted) | (since > LATE * num_steps))

    def consensus(n: int) -> str:
        size = f"by {spread:.2g} of their norm, their best ones by {best_spread:.2g}"
        return f"Agents' memories differ {size}: consensus is likely forced on different interests; use dam_togd."

    def delays(n: int) -> str:
        own = ", or only own gradients are applied, as by c_dogd" if np.all(run.applied == 1) else ""
        size = f"{applied[n]} of {run.wanted[n]} interests, since step {since[n]} of {num_steps}"
        return f"Gradients arrive for {size}: the delays are likely too long for the run{own}."

    def rate(n: int) -> str:
        size = "small" if reached[n] < HALF_WAY else "large, or does not decrease; use inverse_sqrt"
        return f"The norm is {reached[n]:.0%} of the best memory's: the rate is likely too {size}."

    return (agreed, consensus), (delayed, delays), rate


def _oscillation(run: _Run) -> list[Finding]:
    opposite, lengths = _opposition(run.params)
    delays = _first_of_last(run.applied)
    noticed = True if run.best is None else run.best.excess > NEGLIGIBLE

    def explain(n: int) -> str:
        if delays[n] and lengths[n] > 1:
            cause = f"The rate is likely too large for the delays, up to {delays[n]} steps; lower it."
        elif lengths[n] <= 2:
            cause = "The rate is likely so large that steps overshoot; lower it."
        else:
            cause = "No delays were seen: look for momentum in the transform and for a period in the stream."
        size = f"correlation {-opposite[n]:.2f}, from noise alone -0.50"
        return f"Moves over {lengths[n]} step(s) are taken back by the next ({size}): half a period of a swing. {cause}"

    return _findings("oscillation", opposite, noticed & (opposite > OPPOSITE), OPPOSITE, explain)


def _opposition(params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How opposite consecutive moves are, at the length where they are most, and that length; each (N,)."""
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
        return np.sum(first * second, axis=(0, 2)) / (sizes + ROUNDING**2)

    opposite = -np.array([correlation(length) for length in lengths.tolist()])
    return opposite.max(axis=0), lengths[opposite.argmax(axis=0)]


def _boundary(run: _Run) -> list[Finding]:
    # The best memory of a linear loss always lies on the boundary.
    if run.best is None or _is_linear(run.objective):
        return []
    best = run.best.params
    match run.domain.shape:
        case FrobeniusBall(radius):
            values, threshold = run.best.norms / float(radius), ON_BOUNDARY
            words = "The best memory's norm is {:.4g} times the radius of the ball"
        case Box(lower, upper):
            low, high = (np.broadcast_to(np.asarray(bound, float), best.shape[1:]) for bound in (lower, upper))
            # An entry without bounds has none to touch, and where both meet there is nothing to learn.
            slack = np.where(np.isfinite(high - low), ROUNDING * (high - low), 0.0)
            at_bound = ((best <= low + slack) | (best >= high - slack)) & (low < high)
            values, threshold = at_bound.mean(axis=(1, 2)), 0.0
            words = "A share of {:.3g} of the best memory's entries is at a bound of the box"
        case _:
            return []
    end = "the set is likely too small, and regret is measured against the best of what it leaves; enlarge it."
    if run.objective.curvature is None:
        end += " (Where the data are separable, it is on the boundary of every set, and that is no failure.)"
    return _findings("boundary", values, values > threshold, threshold, lambda n: f"{words.format(values[n])}: {end}")


def _is_linear(objective: Objective) -> bool:
    return objective.curvature == 0 and objective.ridge is None


def _reach(run: _Run) -> float:
    """The largest norm in the set."""
    match run.domain.shape:
        case FrobeniusBall(radius):
            return float(radius)
        case Box(lower, upper):
            farthest = np.maximum(np.abs(lower), np.abs(upper))
            return float(np.linalg.norm(np.broadcast_to(farthest, run.params.shape[2:])))
    return float("inf")


def _norms(memories: np.ndarray) -> np.ndarray:
    """Frobenius norms over the last two axes, without the overflow of squares."""
    largest = np.maximum(np.abs(memories).max(axis=(-2, -1), keepdims=True), SMALL)
    return largest[..., 0, 0] * np.linalg.norm(memories / largest, axis=(-2, -1))


def _spread(memories: np.ndarray) -> float:
    """How far the agents' memories (N, dv, df) are from their mean, relative to their norms; in [0, 1]."""
    flat = memories.reshape(1, len(memories), -1)
    return float(_norms(flat - flat.mean(axis=1))[0] / max(_norms(flat)[0], SMALL))


def _first_of_last(applied: np.ndarray) -> np.ndarray:
    """Steps before each agent's number of applied gradients (T, N) was what it is at the end: its longest delay."""
    return np.argmax(applied == applied[-1], axis=0)


def _horizons(num_steps: int) -> np.ndarray:
    return np.geomspace(num_steps / 4, num_steps, NUM_HORIZONS).round().astype(int)


def _slopes(horizons: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least-squares slopes of log values (H, N) in log horizons (H,)."""
    times = np.log(horizons) - np.log(horizons).mean()
    return times @ np.log(values) / np.sum(times**2)
