"""(d) Five Zipf tokens, each its own class, in 3, 5 and 10 dimensions: losses, margins, spikes and perfect recall."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs import _panels, _sweeps
from paper_figs._panels import Panel
from paper_figs._sweeps import Sweep
from paper_figs.particles import _common
from paper_figs.particles._common import LOSS, MARGIN, STEP

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


def compute(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    num_tokens, num_steps, times = protocol.num_tokens, protocol.num_steps, _common.log_times(protocol.num_steps)
    memory = particles.particle_system(num_tokens, num_tokens)

    def run(key, dim, rate):
        problem = _common.own_classes(*_common.spheres(key, num_tokens, dim, max(protocol.dims)), protocol.exponent)
        read = _common.train(memory, rate, problem, num_steps)
        return {
            "losses": read.losses[times],
            "margins": read.margins[times],
            "rises": particles.trajectories.spike_amplitude(read.losses),
            "perfect": particles.trajectories.settling_time(jnp.all(read.margins > 0, axis=1)).astype(float),
        }

    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    found = sweep("runs", run, keys=keys, dim=protocol.dims, rate=protocol.learning_rates)
    shown = protocol.learning_rates.index(protocol.shown_rate)
    panels = {}
    for dim, losses, margins in zip(protocol.dims, *(np.asarray(found[n]) for n in ("losses", "margins")), strict=True):
        panels[f"losses_{dim}"] = Panel(STEP, times, _common.by_rate(protocol.learning_rates, losses))
        ranks = {f"rank {rank}": margins[shown, ..., rank - 1] for rank in protocol.shown_ranks}
        panels[f"margins_{dim}"] = Panel(STEP, times, ranks, log=False)
    for kind in ("rises", "perfect"):
        # (dims, rates, seeds) -> (rates, seeds, dims)
        samples = _common.by_rate(protocol.learning_rates, np.moveaxis(np.asarray(found[kind]), 0, -1))
        panels[kind] = Panel(DIMENSION, np.array(protocol.dims), samples, log=kind == "perfect")
    # The time of a run that never recalls all.
    panels["perfect"] = panels["perfect"]._replace(limit=num_steps + 1.0)
    return panels


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(12.5, 5.4), layout="constrained")
        grid = figure.subplots(2, len(protocol.dims) + 1)
        for column, dim in zip(grid.T, protocol.dims, strict=False):
            _common.draw_against_steps(column[0], panels[f"losses_{dim}"], f"loss, d = {dim}", LOSS)
            title = rf"margins, d = {dim}, $\eta$ = {protocol.shown_rate:g}"
            _common.draw_against_steps(column[1], panels[f"margins_{dim}"], title, MARGIN)
            column[1].axhline(0, color="0.4", linewidth=0.7)
        _panels.draw(grid[0, -1], panels["rises"], "spikes", "largest rise of the loss (nats)")
        _panels.draw(grid[1, -1], panels["perfect"], "every token recalled for good", "from step (median)")
        for axes in grid[:, -1]:
            axes.set_xticks(protocol.dims)
        _panels.letter(grid.flat)
        for axes in grid.ravel():
            axes.legend(fontsize=7)
        _common.note(
            figure,
            f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs and outputs uniform"
            f" on the sphere; W starts at 0. Mean and 95% interval over {protocol.num_seeds} seeds; in (h) median"
            " and its 95% interval, grey: not within the run, with the share of seeds that do.",
        )
    return figure


make = _common.maker("zipf_tokens", Protocol(), QUICK, compute, draw, claim=CLAIM)
