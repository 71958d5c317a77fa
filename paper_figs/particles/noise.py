"""(i) Minibatches and label noise: how long it takes to settle, against batch size, step size and noise level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from damjax.particles import sampling, trajectories
from paper_figs import _panels
from paper_figs._panels import Panel
from paper_figs.particles import _common
from paper_figs.particles._common import LOSS, MARGIN, STEP


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
    num_seeds: int = 32
    base_seed: int = 0


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


def minibatch_runs(protocol: Protocol, batch_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Losses (rates, seeds, T + 1) and the time to the logarithmic regime (rates, seeds); None for the full batch."""
    problem = tokens(protocol)

    def run(rate, key):
        seen = problem if batch_size is None else sampling.minibatches(key, problem, batch_size)
        memory = particles.particle_system(protocol.num_tokens, 2)
        losses = _common.train(memory, rate, problem, protocol.num_steps, seen=seen).losses
        regime = trajectories.in_logarithmic_regime(losses, tolerance=protocol.tolerance)
        return losses, trajectories.settling_time(regime)

    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds if batch_size else 1)
    over_all = jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None))
    losses, settled = jax.jit(over_all)(jnp.array(protocol.learning_rates), keys)
    return np.asarray(losses), np.asarray(settled)


def label_noise_runs(protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Mean margins (noises, rates, seeds, T + 1) and the time from which no token is wrong (noises, rates, seeds)."""
    problem = tokens(protocol)

    def run(noise, rate, key):
        seen = sampling.noisy_labels(key, sampling.with_label_noise(problem, noise))
        memory = particles.particle_system(protocol.num_tokens, 2)
        read = _common.train(memory, rate, problem, protocol.num_steps, seen=seen)
        return read.margins.mean(axis=1), trajectories.settling_time(read.errors == 0)

    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds)
    over_rates = jax.vmap(jax.vmap(run, in_axes=(None, None, 0)), in_axes=(None, 0, None))
    found = jax.jit(jax.vmap(over_rates, in_axes=(0, None, None)))(
        jnp.array(protocol.noises), jnp.array(protocol.noise_rates), keys
    )
    margins, settled = (np.asarray(x) for x in found)
    return margins, settled


def compute(protocol: Protocol, *, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; ``advance`` is called once a batch size, the full one included, and once more."""
    times = _common.log_times(protocol.num_steps)
    losses, settled = {}, {}
    for batch_size in (None, *protocol.batch_sizes):
        losses[batch_size], settled[batch_size] = minibatch_runs(protocol, batch_size)
        advance()
    shown = {
        ("full batch" if b is None else f"B = {b}"): losses[b][-1][:, times] for b in (None, *protocol.shown_batches)
    }
    by_batch = {
        rf"$\eta$ = {rate:g}": np.stack([settled[b][i] for b in protocol.batch_sizes], axis=1).astype(float)
        for i, rate in enumerate(protocol.learning_rates)
    } | {
        rf"$\eta$ = {rate:g}, full batch": np.repeat(settled[None][i][:, None], len(protocol.batch_sizes), 1).astype(
            float
        )
        for i, rate in enumerate(protocol.learning_rates)
    }
    margins, perfect = label_noise_runs(protocol)
    advance()
    rows = [protocol.noises.index(noise) for noise in protocol.shown_noises]
    return {
        "losses": Panel(STEP, times, shown),
        "batches": Panel("batch size B (tokens)", np.array(protocol.batch_sizes), by_batch),
        "margins": Panel(STEP, times, {f"noise {protocol.noises[r]:g}": margins[r, 1][:, times] for r in rows}),
        "noises": Panel(
            "label noise (probability)",
            np.array(protocol.noises),
            {rf"$\eta$ = {rate:g}": perfect[:, i].T.astype(float) for i, rate in enumerate(protocol.noise_rates)},
        ),
    }


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 2 + len(QUICK["batch_sizes"] if quick else Protocol().batch_sizes)


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    settling = "settling time (steps)"
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(9.2, 6.4), layout="constrained")
        (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
        rate = protocol.learning_rates[-1]
        _common.draw_against_steps(top_left, panels["losses"], rf"(a) minibatches, $\eta$ = {rate:g}", LOSS)
        _panels.draw(top_right, panels["batches"], "(b) time to the logarithmic regime", settling)
        plotting.log_axis(top_right.xaxis, protocol.batch_sizes)
        rate = protocol.noise_rates[1]
        title = rf"(c) labels drawn anew at every step, $\eta$ = {rate:g}"
        _common.draw_against_steps(low_left, panels["margins"], title, f"mean {MARGIN}", log=False)
        title = "(d) step from which no token is wrong"
        _panels.draw(low_right, panels["noises"], title, settling)
        for axes in figure.axes:
            axes.legend(fontsize=7)
        _common.note(
            figure,
            f"{protocol.num_tokens} tokens, Toeplitz({protocol.correlation:g}) overlaps, Zipf(1), two classes in turn;"
            f" {protocol.num_steps} steps, which stands for 'not yet'. Mean and 95% interval over"
            f" {protocol.num_seeds} seeds.\n(b) from when on the loss falls as 1/t over each doubling of t, to within"
            f" {protocol.tolerance:g} of the exponent.",
        )
    return figure


make = _common.maker("noise", Protocol(), QUICK, compute, draw)
