"""(a) Orthogonal tokens of two classes: margins grow as log t, the loss falls as 1/t, against the closed form."""

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


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    num_tokens: int = 10
    exponent: float = 1.0
    learning_rates: tuple[float, ...] = (1.0, 10.0, 100.0)
    shown_rate: float = 10.0
    shown_ranks: tuple[int, ...] = (1, 3, 10)
    num_steps: int = 10000


QUICK = {"num_steps": 200}


def compute(protocol: Protocol, *, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; ``advance`` is called once a step size."""
    num_tokens, times = protocol.num_tokens, _common.log_times(protocol.num_steps)
    problem = particles.Problem(
        jnp.eye(num_tokens),
        jnp.eye(2),
        particles.embeddings.zipf(num_tokens, protocol.exponent),
        particles.one_hot(np.arange(num_tokens) % 2, 2),
    )
    memory = particles.particle_system(num_tokens, 2)
    distance = particles.binary.output_distance(problem)

    @jax.jit
    def run(learning_rate):
        read = _common.train(memory, learning_rate, problem, protocol.num_steps)
        rates = learning_rate * distance * problem.frequencies
        flow = particles.binary.flow_margins(0.0, rates, times[:, None])
        flow_loss = jnp.sum(problem.frequencies * jax.nn.softplus(-flow), axis=1)
        bound = particles.binary.flow_loss_bound(problem, learning_rate, times)
        return read.losses[times], read.margins[times], flow, flow_loss, bound

    found = {}
    for rate in protocol.learning_rates:
        found[rate] = [np.asarray(x) for x in run(rate)]
        advance()
    _, margin, flow, flow_loss, bound = found[protocol.shown_rate]
    closed = {rf"flow, $\eta$ = {protocol.shown_rate:g}": flow_loss, rf"bound, $\eta$ = {protocol.shown_rate:g}": bound}
    losses = {rf"$\eta$ = {rate:g}": loss for rate, (loss, *_) in found.items()} | closed
    leads = {rf"$\eta$ = {rate:g}": np.max(m - f, axis=1) for rate, (_, m, f, *_) in found.items()}
    return {
        "margins": Panel(STEP, times, {f"rank {rank}": margin[None, :, rank - 1] for rank in protocol.shown_ranks}),
        "margins_closed_form": Panel(
            STEP, times, {f"rank {rank}": flow[None, :, rank - 1] for rank in protocol.shown_ranks}
        ),
        "losses": Panel(STEP, times, {name: curve[None] for name, curve in losses.items()}),
        "leads": Panel(STEP, times, {name: curve[None] for name, curve in leads.items()}),
    }


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return len(Protocol().learning_rates)


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.3), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        title = rf"(a) margins at $\eta$ = {protocol.shown_rate:g}; lines: flow"
        _common.draw_against_steps(left, panels["margins"], title, MARGIN, log=False)
        for line, curve in zip(left.get_lines(), panels["margins_closed_form"].samples.values(), strict=True):
            line.set_linestyle("none")
            left.plot(panels["margins"].x, curve[0], color=line.get_color(), linewidth=1)
        _common.draw_against_steps(middle, panels["losses"], "(b) loss, its flow and its bound", LOSS)
        title = "(c) lead of descent over the flow"
        _common.draw_against_steps(right, panels["leads"], title, "largest lead in margin (nats)", log=False)
        for axes in (left, middle, right):
            axes.legend(fontsize=7)
        frequencies = f"{protocol.num_tokens} orthonormal tokens, Zipf({protocol.exponent:g})"
        _common.note(figure, f"{frequencies}, two classes in turn; W starts at 0. Nothing is random.")
    return figure


make = _common.maker("orthogonal", Protocol(), QUICK, compute, draw)
