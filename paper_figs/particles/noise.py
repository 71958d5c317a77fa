"""(i) Minibatches and label noise: how long it takes to settle, against batch size, step size and noise level."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles, plotting
from damjax.particles import sampling, trajectories
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, MARGIN, STEP
from paper_figs.sweeps import Sweep, quiet


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made."""

    num_tokens: int = 6
    correlation: float = 0.5
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    shown_batches: tuple[int, ...] = (1, 16, 256)
    learning_rates: tuple[float, ...] = (1.0, 3.0)
    noises: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
    shown_noises: tuple[float, ...] = (0.0, 0.05, 0.2)
    noise_rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    num_steps: int = 4000
    tolerance: float = 0.25
    # Of the run: what has held for less than the rest of it may be chance.
    settled_by: float = 0.9
    num_seeds: int = 32
    base_seed: int = 0


CLAIM = "Small batches and noisy labels delay settling; large steps with noisy labels do not settle"
QUICK = {"num_steps": 200, "num_seeds": 3, "batch_sizes": (1, 16), "shown_batches": (1, 16)}


def tokens(protocol: Protocol) -> particles.Problem:
    """Tokens of two classes in turn with frequencies of Zipf's law, whose overlaps fall off with their distance."""
    num_tokens = protocol.num_tokens
    return particles.Problem(
        particles.embeddings.toeplitz(protocol.correlation ** jnp.arange(float(num_tokens))),
        jnp.eye(2),
        particles.embeddings.zipf(num_tokens),
        particles.one_hot(np.arange(num_tokens) % 2, 2),
    )


def minibatch_runs(protocol: Protocol, sweep: Sweep) -> Any:
    """Losses at ``log_times`` and the time to the logarithmic regime, (batches, rates, seeds, ...); first full ones."""
    problem, times = tokens(protocol), common.log_times(protocol.num_steps)
    memory = particles.particle_system(protocol.num_tokens, 2)

    def run(key, batch, rate):
        seen = problem if batch is None else sampling.minibatches(key, problem, batch)
        losses = common.train(memory, rate, problem, protocol.num_steps, seen=seen).losses
        regime = trajectories.in_logarithmic_regime(losses, tolerance=protocol.tolerance)
        return {"losses": losses[times], "settled": trajectories.settling_time(regime).astype(float)}

    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds)
    axes = {"batch": (None, *protocol.batch_sizes), "rate": protocol.learning_rates}
    # Drawing and counting tokens is faster with the runs in front.
    return sweep("minibatches", run, keys=keys, vectorize=jax.vmap, **axes)


def label_noise_runs(protocol: Protocol, sweep: Sweep) -> Any:
    """Mean margins at ``log_times`` and the time from which no token is wrong, (noises, rates, seeds, ...)."""
    problem, times = tokens(protocol), common.log_times(protocol.num_steps)
    memory = particles.particle_system(protocol.num_tokens, 2)

    def run(key, noise, rate):
        seen = sampling.noisy_labels(key, sampling.with_label_noise(problem, noise))
        read = common.train(memory, rate, problem, protocol.num_steps, seen=seen)
        perfect = trajectories.settling_time(read.errors == 0).astype(float)
        return {"margins": read.margins.mean(axis=1)[times], "perfect": perfect}

    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds)
    return sweep("label noise", run, keys=keys, noise=protocol.noises, rate=protocol.noise_rates)


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    times = common.log_times(protocol.num_steps)
    results = minibatch_runs(protocol, sweep)
    losses, settled = np.asarray(results["losses"]), np.asarray(results["settled"])
    # Nothing is random in full batches.
    shown = {"full batch": losses[0, -1, :1]}
    shown |= {f"B = {size}": losses[1 + protocol.batch_sizes.index(size), -1] for size in protocol.shown_batches}
    by_batch = common.by_rate(protocol.learning_rates, np.moveaxis(settled[1:], 0, -1))
    for rate, full in zip(protocol.learning_rates, settled[0, :, :1], strict=True):
        by_batch[rf"$\eta$ = {rate:g}, full batch"] = np.repeat(full[:, None], len(protocol.batch_sizes), axis=1)
    results = label_noise_runs(protocol, sweep)
    margins, perfect = np.asarray(results["margins"]), np.asarray(results["perfect"])
    by_noise = {f"noise {noise:g}": margins[protocol.noises.index(noise), 1] for noise in protocol.shown_noises}
    limit = protocol.settled_by * protocol.num_steps
    by_rate = common.by_rate(protocol.noise_rates, np.moveaxis(perfect, 0, -1))
    return {
        "losses": Panel(STEP, times, shown),
        "batches": Panel("batch size B (tokens)", np.array(protocol.batch_sizes), by_batch, limit=limit),
        "margins": Panel(STEP, times, by_noise, log=False),
        "noises": Panel("label noise (probability)", np.array(protocol.noises), by_rate, limit=limit),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    settling = "median settling time (steps)"
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    rate = protocol.learning_rates[-1]
    common.draw_against_steps(top_left, panels["losses"], rf"minibatches, $\eta$ = {rate:g}", LOSS)
    panels["batches"].draw(top_right, "time to the logarithmic regime", settling)
    plotting.log_axis(top_right.xaxis, protocol.batch_sizes)
    rate = protocol.noise_rates[1]
    title = rf"labels drawn anew at every step, $\eta$ = {rate:g}"
    common.draw_against_steps(low_left, panels["margins"], title, f"mean {MARGIN}")
    title = "step from which no token is wrong"
    panels["noises"].draw(low_right, title, settling)
    for axes in figure.axes:
        axes.legend(fontsize=7)
    letter(figure.axes)
    note(
        figure,
        f"{protocol.num_tokens} tokens, Toeplitz({protocol.correlation:g}) overlaps, Zipf(1), two classes in turn;"
        f" {protocol.num_steps} steps. Mean and 95% interval over {protocol.num_seeds} seeds;\n(b, d)"
        f" median and its 95% interval; grey: not in the first {protocol.settled_by:.0%} of the run, with the"
        " share of seeds that settle in it.\n(b) from when on the"
        f" loss falls as 1/t over each doubling of t, to within {protocol.tolerance:g} of the exponent.",
    )


FIGURE = Figure("noise", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (9.2, 6.4))
