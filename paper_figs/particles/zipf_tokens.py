"""(d) Five Zipf tokens, each its own class, in 3, 5 and 10 dimensions: losses, margins, spikes and perfect recall."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs._panels import Panel
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


QUICK = {"num_steps": 100, "num_seeds": 3}


def compute(protocol: Protocol, *, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    num_tokens, num_steps, times = protocol.num_tokens, protocol.num_steps, _common.log_times(protocol.num_steps)
    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    memory = particles.particle_system(num_tokens, num_tokens)

    def read(dim, key, learning_rate):
        problem = _common.own_classes(key, num_tokens, dim, max_dim=max(protocol.dims), exponent=protocol.exponent)
        run = _common.train(memory, learning_rate, problem, num_steps)
        rise = particles.trajectories.spike_amplitude(run.losses)
        perfect = particles.trajectories.settling_time(jnp.all(run.margins > 0, axis=1))
        return run.losses[times], run.margins[times], rise, perfect.astype(float)

    by_rate = jax.vmap(read, (None, None, 0), -1)
    run = jax.jit(jax.vmap(jax.vmap(by_rate, (None, 0, None)), (0, None, None)))
    found = run(jnp.array(protocol.dims), keys, jnp.array(protocol.learning_rates))
    losses, margins, rises, perfect = map(np.asarray, found)
    advance()
    names = [rf"$\eta$ = {rate:g}" for rate in protocol.learning_rates]
    shown = protocol.learning_rates.index(protocol.shown_rate)
    panels = {}
    for loss, margin, dim in zip(losses, margins, protocol.dims, strict=True):
        panels[f"losses_{dim}"] = Panel(STEP, times, {name: loss[..., i] for i, name in enumerate(names)})
        ranks = {f"rank {rank}": margin[:, :, rank - 1, shown] for rank in protocol.shown_ranks}
        panels[f"margins_{dim}"] = Panel(STEP, times, ranks)
    for kind, values in {"rises": rises, "perfect": perfect}.items():
        samples = {name: values[..., i].T for i, name in enumerate(names)}
        panels[kind] = Panel(DIMENSION, np.array(protocol.dims), samples)
    return panels


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 1


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(12.5, 5.4), layout="constrained")
        grid = figure.subplots(2, len(protocol.dims) + 1)
        for column, dim in zip(grid.T, protocol.dims, strict=False):
            _common.draw_against_steps(column[0], panels[f"losses_{dim}"], f"loss, d = {dim}", LOSS)
            # The interval of a mean may reach below zero, which a logarithmic axis would show as far down as it can.
            column[0].set_ylim(bottom=0.5 * min(x.mean(0).min() for x in panels[f"losses_{dim}"].samples.values()))
            title = rf"margins, d = {dim}, $\eta$ = {protocol.shown_rate:g}"
            _common.draw_against_steps(column[1], panels[f"margins_{dim}"], title, MARGIN, log=False)
            column[1].axhline(0, color="0.4", linewidth=0.7)
        for axes, kind in zip(grid[:, -1], ("rises", "perfect"), strict=True):
            plotting.curves(axes, panels[kind].x, panels[kind].samples)
            axes.set(xlabel=DIMENSION, xticks=protocol.dims)
        grid[0, -1].set(title="spikes", ylabel="largest rise of the loss (nats)")
        grid[1, -1].set(title="every token recalled for good", ylabel="from step")
        for axes in grid.ravel():
            axes.legend(fontsize=7)
        _common.note(
            figure,
            f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs and outputs uniform"
            f" on the sphere; W starts at 0; runs that never recall all count {protocol.num_steps + 1} steps."
            f" Mean and 95% interval over {protocol.num_seeds} seeds.",
        )
    return figure


make = _common.maker("zipf_tokens", Protocol(), QUICK, compute, draw)
