"""(h) Layer normalisation of the inputs and of the scores: what becomes of the loss spikes of overlapping tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles, plotting
from paper_figs.figure import Figure, Picture
from paper_figs.panels import POWERS, Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, STEP
from paper_figs.sweeps import Sweep, quiet

CASES = {"random": "random direction", "ones": "along 1"}
NAMES: tuple[str, ...] = ("none", "inputs", "scores", "both")


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; seeds draw embeddings and the start, the same for all memories.

    Inputs are Gaussian rows of norm 1 plus a common vector of norm ``overlap``: their squared norm is 17 on average,
    with layer normalisation it is 16, so step sizes compare.
    """

    num_tokens: int = 8
    dim: int = 16
    overlap: float = 4.0
    exponent: float = 1.0
    gain: float = 4.0
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    multiples: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    shown_rate: float = 3.0
    num_steps: int = 300
    num_seeds: int = 32
    seed: int = 0


CLAIM = (
    "Normalised inputs tame spikes if what tokens share lies along 1; normalised scores cap spikes, and make small ones"
)
QUICK = {"learning_rates": (0.1, 3.0), "multiples": (0.5, 2.0), "num_steps": 50, "num_seeds": 3}


def memory_of(inputs: jax.Array, normalised: jax.Array, protocol: Protocol) -> particles.Memory:
    """A matrix that maps inputs to scores, with layer normalisation of the scores or without: one program for both."""
    plain = particles.full(inputs, jnp.eye(protocol.num_tokens))
    scored = particles.normalized_scores(plain, protocol.gain)

    # From W = 0 normalised scores jump: equal scores have no variance to divide by. Here scores start with variance 1.
    def start(key):
        spread = jnp.sqrt(1 + protocol.overlap**2)
        return jax.random.normal(key, (protocol.num_tokens, protocol.dim)) / spread

    return particles.parameterized(start, lambda w: jnp.where(normalised, scored.scores(w), plain.scores(w)))


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    times, (num_tokens, dim) = common.log_times(protocol.num_steps), (protocol.num_tokens, protocol.dim)
    rates, multiples = np.array(protocol.learning_rates), np.array(protocol.multiples)
    shown = protocol.learning_rates.index(protocol.shown_rate)

    def run(key, along_ones, scores, inputs):
        row_key, direction_key, start_key = jax.random.split(key, 3)
        direction = jnp.where(along_ones, 1.0, jax.random.normal(direction_key, (dim,)))
        shared = protocol.overlap * direction / jnp.linalg.norm(direction)
        rows = particles.embeddings.gaussian(row_key, num_tokens, dim) + shared[None]
        rows = jnp.where(inputs, particles.layer_norm(rows), rows)
        memory = memory_of(rows, scores, protocol)
        problem = common.own_classes(rows, jnp.eye(num_tokens), protocol.exponent)
        start = memory.init(start_key)
        sharpness = particles.sharpness(memory, start, problem, key=key)

        def losses(rate):
            dynamics = particles.descent(memory, rate)
            observe = lambda scores: particles.loss(scores, problem)  # noqa: E731
            return particles.evolve(dynamics, start, problem, protocol.num_steps, observe=observe)[1]

        curves = jax.vmap(losses)(jnp.concatenate([rates, 2 / sharpness * multiples]))
        return {
            "amplitudes": jax.vmap(particles.trajectories.spike_amplitude)(curves),
            "durations": jax.vmap(particles.trajectories.spike_duration)(curves).astype(float),
            "losses": curves[shown, times],
        }

    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    switch = [False, True]
    results = sweep("runs", run, keys=keys, along_ones=switch, scores=switch, inputs=switch)
    # The last two switches make the memories in the order of their names.
    amplitudes, durations, losses = (
        np.asarray(results[kind]).reshape(len(CASES), len(NAMES), protocol.num_seeds, -1)
        for kind in ("amplitudes", "durations", "losses")
    )
    relative = r"$\eta$ in units of 2 / sharpness at the start"
    kinds = {
        "amplitudes": (r"step size $\eta$", rates, amplitudes[..., : len(rates)]),
        "relative": (relative, multiples, amplitudes[..., len(rates) :]),
        "durations": (r"step size $\eta$", rates, durations[..., : len(rates)]),
        "losses": (STEP, times, losses),
    }
    return {
        f"{kind}_{case}": Panel(label, x, dict(zip(NAMES, values[i], strict=True)), log=kind == "losses")
        for i, case in enumerate(CASES)
        for kind, (label, x, values) in kinds.items()
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    grid = figure.subplots(2, 4)
    for row, (case, title) in zip(grid, CASES.items(), strict=True):
        kinds = ("amplitudes", "relative", "durations")
        ylabels = ("largest rise of the loss (nats)",) * 2 + ("steps above an earlier loss",)
        for axes, kind, ylabel in zip(row, kinds, ylabels, strict=False):
            panel = panels[f"{kind}_{case}"]
            panel.curves(axes)
            axes.set(xlabel=panel.label, ylabel=ylabel)
            plotting.log_axis(axes.xaxis, protocol.multiples if kind == "relative" else POWERS)
            if kind != "durations":
                axes.set_yscale("symlog", linthresh=0.1)
                axes.set_yticks((0, 0.1, 1, 10, 100), ("0", "0.1", "1", "10", "100"))
                axes.set_ylim(bottom=-0.03)
        for axes, what in zip(row, ("spikes", "spikes, relative step", "time in spikes"), strict=False):
            axes.set_title(f"{what}, {title}")
        loss = panels[f"losses_{case}"]
        common.draw_against_steps(row[-1], loss, rf"loss, {title}, $\eta$ = {protocol.shown_rate:g}", LOSS)
        row[-1].set_ylim(bottom=0.5 * min(x.mean(axis=0).min() for x in loss.samples.values()))
    letter(grid.flat)
    grid[0, -1].legend(title="normalised", fontsize=7, title_fontsize=7, loc="lower left")
    note(
        figure,
        f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs: Gaussian rows of"
        f" norm 1 in {protocol.dim} dimensions plus a common vector of norm {protocol.overlap:g}, in a random"
        f" direction or along (1, ..., 1); scores start with variance 1; gain of normalised"
        f" scores {protocol.gain:g}; {protocol.num_steps} steps.\n"
        f"Mean and 95% interval over {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("normalization", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (13, 5.8))
