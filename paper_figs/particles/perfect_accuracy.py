"""(b) Two tokens: the first step at which both are right, over 10 x 10 x 10 frequencies, step sizes and overlaps."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from damjax import particles, plotting
from damjax.particles import trajectories
from paper_figs import _output, _panels, _sweeps
from paper_figs._sweeps import Sweep
from paper_figs.particles import _common


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


def compute(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> np.ndarray:
    """The first perfect step of every run, (frequencies, rates, overlaps)."""
    axes = dict(zip(("frequency", "rate", "overlap"), grid(protocol.size), strict=True))
    run = lambda _, **setting: first_perfect_step(**setting, num_steps=protocol.num_steps)  # noqa: E731
    return np.asarray(sweep("grid", run, keys=_common.one_key(), **axes)["value"])[..., 0]


def draw(found: np.ndarray, protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    frequencies, rates, overlaps = grid(protocol.size)
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.1), layout="constrained")
        panels = figure.subplots(1, len(protocol.shown_overlaps), sharey=True)
        norm = LogNorm(1, protocol.num_steps)
        for axes, k in zip(panels, protocol.shown_overlaps, strict=True):
            shown = np.where(found[:, :, k] <= protocol.num_steps, found[:, :, k], np.nan).T
            _common.heat_map(axes, frequencies, rates, shown, norm=norm)
            axes.set(title=rf"$\alpha$ = {overlaps[k]:.3g}", xlabel="$p_1$, of the frequent token")
        _panels.letter(panels)
        panels[0].set_ylabel(r"step size $\eta$")
        _common.color_bar(figure, panels, norm, "first perfect step")
        text = r"Two unit tokens of different classes from W = 0, c = 2 (at $\alpha$ = 1 they cannot be told apart);"
        _common.note(figure, f"{text} white: some error at every step up to {protocol.num_steps}. Nothing is random.")
    return figure


def make(out: Path, *, quick: bool, num_seeds: int | None, sweep: Sweep) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _common.resized(Protocol(), QUICK if quick else {}, None)
    found = compute(protocol, sweep)
    axes = np.meshgrid(*grid(protocol.size), indexing="ij")
    columns = zip(*(x.ravel().tolist() for x in (*axes, found)), strict=True)
    rows = [{"p_1": p, "eta": eta, "alpha": alpha, "first_perfect_step": step} for p, eta, alpha, step in columns]
    settings = _common.settings("perfect_accuracy", protocol, quick)
    return _output.save("perfect_accuracy", draw(found, protocol), {"": rows}, settings, out, claim=CLAIM, quick=quick)
