"""(a) Orthogonal tokens of two classes: margins grow as log t, the loss falls as 1/t, against the closed form."""

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


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    num_tokens: int = 10
    exponent: float = 1.0
    learning_rates: tuple[float, ...] = (1.0, 10.0, 100.0)
    shown_rate: float = 10.0
    shown_ranks: tuple[int, ...] = (1, 3, 10)
    num_steps: int = 10000


CLAIM = "Margins grow as log t and the loss falls as 1/t, as in closed form; descent leads its flow at every step size"
QUICK = {"num_steps": 200}


def compute(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    num_tokens, times = protocol.num_tokens, _common.log_times(protocol.num_steps)
    problem = particles.Problem(
        jnp.eye(num_tokens),
        jnp.eye(2),
        particles.embeddings.zipf(num_tokens, protocol.exponent),
        particles.one_hot(np.arange(num_tokens) % 2, 2),
    )
    memory = particles.particle_system(num_tokens, 2)
    distance = particles.binary.output_distance(problem)

    def run(_, learning_rate):
        read = _common.train(memory, learning_rate, problem, protocol.num_steps)
        rates = learning_rate * distance * problem.frequencies
        flow = particles.binary.flow_margins(0.0, rates, times[:, None])
        return {
            "losses": read.losses[times],
            "margins": read.margins[times],
            "flow_losses": jnp.sum(problem.frequencies[None] * jax.nn.softplus(-flow), axis=1),
            "flow_margins": flow,
            "bounds": particles.binary.flow_loss_bound(problem, learning_rate, times),
        }

    found = sweep("runs", run, keys=_common.one_key(), learning_rate=protocol.learning_rates)
    names = ("losses", "margins", "flow_losses", "flow_margins", "bounds")
    losses, margins, flow_losses, flow, bounds = (np.asarray(found[name]) for name in names)
    shown, eta = protocol.learning_rates.index(protocol.shown_rate), rf"$\eta$ = {protocol.shown_rate:g}"
    closed = {f"flow, {eta}": flow_losses[shown], f"bound, {eta}": bounds[shown]}
    by_rank = lambda curves: {f"rank {rank}": curves[shown, ..., rank - 1] for rank in protocol.shown_ranks}  # noqa: E731
    leads = np.max(margins - flow, axis=-1)
    return {
        "margins": Panel(STEP, times, by_rank(margins), log=False),
        "margins_closed_form": Panel(STEP, times, by_rank(flow), log=False),
        "losses": Panel(STEP, times, _common.by_rate(protocol.learning_rates, losses) | closed),
        "leads": Panel(STEP, times, _common.by_rate(protocol.learning_rates, leads), log=False),
    }


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.3), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        title = rf"margins at $\eta$ = {protocol.shown_rate:g}; lines: flow"
        _common.draw_against_steps(left, panels["margins"], title, MARGIN)
        _common.draw_closed_form(left, panels["margins_closed_form"])
        _common.draw_against_steps(middle, panels["losses"], "loss, its flow and its bound", LOSS)
        title = "descent less the flow"
        _common.draw_against_steps(right, panels["leads"], title, "largest difference in margin (nats)")
        for axes in figure.axes:
            axes.legend(fontsize=7)
        _panels.letter(figure.axes)
        frequencies = f"{protocol.num_tokens} orthonormal tokens, Zipf({protocol.exponent:g})"
        _common.note(figure, f"{frequencies}, two classes in turn; W starts at 0. Nothing is random.")
    return figure


make = _common.maker("orthogonal", Protocol(), QUICK, compute, draw, claim=CLAIM)
