"""(b) Two tokens: the first step at which both are right, over 10 x 10 x 10 frequencies, step sizes and overlaps."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import LogNorm

from damjax import particles
from damjax.particles import trajectories
from paper_figs.figure import Figure, Picture
from paper_figs.panels import letter, note
from paper_figs.particles import common
from paper_figs.sweeps import Sweep, quiet


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    size: int = 10
    num_steps: int = 1000
    shown_overlaps: tuple[int, ...] = (0, 4, 6, 8)


CLAIM = "Larger steps are right sooner until tokens overlap much; then they swing"
QUICK = {"size": 4, "num_steps": 50, "shown_overlaps": (0, 3)}


def grid(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p_1 = sigmoid(logspace(-.5, .5)), eta = logspace(-1, 1), alpha = linspace(.5, 1), each (size,)."""
    frequencies = np.asarray(jax.nn.sigmoid(jnp.logspace(-0.5, 0.5, size)))
    return frequencies, np.logspace(-1, 1, size), np.linspace(0.5, 1, size)


def first_perfect_step(frequency, rate, overlap, *, num_steps: int) -> jax.Array:
    """The first t in 1..T with no error, T + 1 if there is none."""
    problem = particles.two_tokens(overlap, frequency)
    dynamics = particles.descent(particles.particle_system(2, 2), rate)
    start = jnp.zeros((2, 2), jnp.result_type(overlap))
    _, errors = particles.evolve(
        dynamics, start, problem, num_steps, observe=lambda scores: particles.error_rate(scores, problem)
    )
    return 1 + trajectories.first_time(errors[1:] == 0)


def compute(protocol: Protocol, sweep: Sweep = quiet) -> np.ndarray:
    """The first perfect step of every run, (frequencies, rates, overlaps)."""
    axes = dict(zip(("frequency", "rate", "overlap"), grid(protocol.size), strict=True))
    run = lambda _, **setting: first_perfect_step(**setting, num_steps=protocol.num_steps)  # noqa: E731
    return np.asarray(sweep("grid", run, keys=common.one_key(), **axes)["value"])[..., 0]


def draw(figure: Picture, first: np.ndarray, protocol: Protocol) -> None:
    """Draw the numbers."""
    frequencies, rates, overlaps = grid(protocol.size)
    panels = figure.subplots(1, len(protocol.shown_overlaps), sharey=True)
    norm = LogNorm(1, protocol.num_steps)
    for axes, k in zip(panels, protocol.shown_overlaps, strict=True):
        shown = np.where(first[:, :, k] <= protocol.num_steps, first[:, :, k], np.nan).T
        common.heat_map(axes, frequencies, rates, shown, norm=norm)
        axes.set(title=rf"$\alpha$ = {overlaps[k]:.3g}", xlabel="$p_1$, of the frequent token")
    letter(panels)
    panels[0].set_ylabel(r"step size $\eta$")
    common.color_bar(figure, panels, norm, "first perfect step")
    text = r"Two unit tokens of different classes from W = 0, c = 2 (at $\alpha$ = 1 they cannot be told apart);"
    note(figure, f"{text} white: some error at every step up to {protocol.num_steps}. Nothing is random.")


def tables(first: np.ndarray, protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """One row per run."""
    columns = (x.ravel().tolist() for x in (*np.meshgrid(*grid(protocol.size), indexing="ij"), first))
    names = ("p_1", "eta", "alpha", "first_perfect_step")
    return {"": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}


FIGURE = Figure("perfect_accuracy", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.1), tables=tables)
