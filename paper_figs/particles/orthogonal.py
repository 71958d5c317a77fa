"""(a) Orthogonal tokens of two classes: margins grow as log t, the loss falls as 1/t, against the closed form."""

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


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    num_tokens, times = protocol.num_tokens, common.log_times(protocol.num_steps)
    problem = particles.Problem(
        jnp.eye(num_tokens),
        jnp.eye(2),
        particles.embeddings.zipf(num_tokens, protocol.exponent),
        particles.one_hot(np.arange(num_tokens) % 2, 2),
    )
    memory = particles.particle_system(num_tokens, 2)
    distance = particles.binary.output_distance(problem)

    def run(_, learning_rate):
        read = common.train(memory, learning_rate, problem, protocol.num_steps)
        rates = learning_rate * distance * problem.frequencies
        flow = particles.binary.flow_margins(0.0, rates, times[:, None])
        return {
            "losses": read.losses[times],
            "margins": read.margins[times],
            "flow_losses": jnp.sum(problem.frequencies[None] * jax.nn.softplus(-flow), axis=1),
            "flow_margins": flow,
            "bounds": particles.binary.flow_loss_bound(problem, learning_rate, times),
        }

    results = sweep("runs", run, keys=common.one_key(), learning_rate=protocol.learning_rates)
    names = ("losses", "margins", "flow_losses", "flow_margins", "bounds")
    losses, margins, flow_losses, flow, bounds = (np.asarray(results[name]) for name in names)
    shown, eta = protocol.learning_rates.index(protocol.shown_rate), rf"$\eta$ = {protocol.shown_rate:g}"
    closed = {f"flow, {eta}": flow_losses[shown], f"bound, {eta}": bounds[shown]}
    by_rank = lambda curves: {f"rank {rank}": curves[shown, ..., rank - 1] for rank in protocol.shown_ranks}  # noqa: E731
    leads = np.max(margins - flow, axis=-1)
    return {
        "margins": Panel(STEP, times, by_rank(margins), log=False),
        "margins_closed_form": Panel(STEP, times, by_rank(flow), log=False),
        "losses": Panel(STEP, times, common.by_rate(protocol.learning_rates, losses) | closed),
        "leads": Panel(STEP, times, common.by_rate(protocol.learning_rates, leads), log=False),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    left, middle, right = figure.subplots(1, 3)
    title = rf"margins at $\eta$ = {protocol.shown_rate:g}; lines: flow"
    common.draw_against_steps(left, panels["margins"], title, MARGIN)
    common.draw_closed_form(left, panels["margins_closed_form"])
    common.draw_against_steps(middle, panels["losses"], "loss, its flow and its bound", LOSS)
    title = "descent less the flow"
    common.draw_against_steps(right, panels["leads"], title, "largest difference in margin (nats)")
    for axes in figure.axes:
        axes.legend(fontsize=7)
    letter(figure.axes)
    frequencies = f"{protocol.num_tokens} orthonormal tokens, Zipf({protocol.exponent:g})"
    note(figure, f"{frequencies}, two classes in turn; W starts at 0. Nothing is random.")


FIGURE = Figure("orthogonal", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.3))
