"""(d) Five Zipf tokens, each its own class, in 3, 5 and 10 dimensions: losses, margins, spikes and perfect recall."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, MARGIN, STEP
from paper_figs.sweeps import Sweep, quiet

DIMENSION = "dimension d"


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; seeds draw the embeddings."""

    num_tokens: int = 5
    exponent: float = 1.0
    dims: tuple[int, ...] = (3, 5, 10)
    learning_rates: tuple[float, ...] = (3.0, 10.0, 20.0)
    shown_rate: float = 10.0
    shown_ranks: tuple[int, ...] = (1, 3, 5)
    num_steps: int = 3000
    num_seeds: int = 32
    seed: int = 0


CLAIM = "The fewer the dimensions, the later all tokens are recalled, and the more large steps spike"
QUICK = {"num_steps": 100, "num_seeds": 3}


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    num_tokens, num_steps, times = protocol.num_tokens, protocol.num_steps, common.log_times(protocol.num_steps)
    memory = particles.particle_system(num_tokens, num_tokens)

    def run(key, dim, rate):
        problem = common.own_classes(*common.spheres(key, num_tokens, dim, max(protocol.dims)), protocol.exponent)
        read = common.train(memory, rate, problem, num_steps)
        return {
            "losses": read.losses[times],
            "margins": read.margins[times],
            "rises": particles.trajectories.spike_amplitude(read.losses),
            "perfect": particles.trajectories.settling_time(jnp.all(read.margins > 0, axis=1)).astype(float),
        }

    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    results = sweep("runs", run, keys=keys, dim=protocol.dims, rate=protocol.learning_rates)
    shown = protocol.learning_rates.index(protocol.shown_rate)
    panels = {}
    curves = (np.asarray(results[kind]) for kind in ("losses", "margins"))
    for dim, losses, margins in zip(protocol.dims, *curves, strict=True):
        panels[f"losses_{dim}"] = Panel(STEP, times, common.by_rate(protocol.learning_rates, losses))
        ranks = {f"rank {rank}": margins[shown, ..., rank - 1] for rank in protocol.shown_ranks}
        panels[f"margins_{dim}"] = Panel(STEP, times, ranks, log=False)
    for kind in ("rises", "perfect"):
        # (dims, rates, seeds) -> (rates, seeds, dims)
        samples = common.by_rate(protocol.learning_rates, np.moveaxis(np.asarray(results[kind]), 0, -1))
        panels[kind] = Panel(DIMENSION, np.array(protocol.dims), samples, log=kind == "perfect")
    # The time of a run that never recalls all.
    panels["perfect"] = panels["perfect"]._replace(limit=num_steps + 1.0)
    return panels


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    grid = figure.subplots(2, len(protocol.dims) + 1)
    for column, dim in zip(grid.T, protocol.dims, strict=False):
        common.draw_against_steps(column[0], panels[f"losses_{dim}"], f"loss, d = {dim}", LOSS)
        title = rf"margins, d = {dim}, $\eta$ = {protocol.shown_rate:g}"
        common.draw_against_steps(column[1], panels[f"margins_{dim}"], title, MARGIN)
        column[1].axhline(0, color="0.4", linewidth=0.7)
    panels["rises"].draw(grid[0, -1], "spikes", "largest rise of the loss (nats)")
    panels["perfect"].draw(grid[1, -1], "every token recalled for good", "from step (median)")
    for axes in grid[:, -1]:
        axes.set_xticks(protocol.dims)
    letter(grid.flat)
    for axes in grid.ravel():
        axes.legend(fontsize=7)
    note(
        figure,
        f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs and outputs uniform"
        f" on the sphere; W starts at 0. Mean and 95% interval over {protocol.num_seeds} seeds; in (h) median"
        " and its 95% interval, grey: not within the run, with the share of seeds that do.",
    )


FIGURE = Figure("zipf_tokens", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (12.5, 5.4))
