"""(g) Factorised memories: a full matrix against low-rank and block-diagonal ones with as many parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs import _panels
from paper_figs._panels import Panel
from paper_figs.particles import _common
from paper_figs.particles._common import LOSS, STEP


class Shape(NamedTuple):
    """A memory of d^2, 2 d r or d^2 / B parameters, and the step sizes it is tuned over.

    Attributes:
        kind: "full", "rank" or "blocks".
        size: r or B; 1 for a full matrix.
        dim: d, of inputs and outputs.
        learning_rates: eta.
    """

    kind: str
    size: int
    dim: int
    learning_rates: tuple[float, ...]

    @property
    def name(self) -> str:
        """As the legend has it."""
        kinds = {"full": "full", "rank": f"rank {self.size}", "blocks": f"{self.size} blocks"}
        return f"{kinds[self.kind]}, d = {self.dim}"

    def memory(self, inputs: jax.Array, outputs: jax.Array) -> particles.Memory:
        """What is trained."""
        if self.kind == "full":
            return particles.full(inputs, outputs)
        make = particles.low_rank if self.kind == "rank" else particles.block_diagonal
        return make(inputs, outputs, self.size)

    @property
    def num_parameters(self) -> int:
        """Entries of the matrices that are trained."""
        return 2 * self.dim * self.size if self.kind == "rank" else self.dim**2 // self.size


# Larger steps break some low-rank memories: the loss is not convex in two factors, and they drive each other up.
LINEAR, BILINEAR = (10.0, 30.0, 100.0), (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; every memory has 64 parameters, seeds draw embeddings and starts."""

    shapes: tuple[Shape, ...] = (
        Shape("full", 1, 8, (3.0, 10.0, 30.0)),
        Shape("rank", 2, 16, BILINEAR),
        Shape("rank", 4, 8, BILINEAR),
        Shape("blocks", 4, 16, LINEAR),
        Shape("blocks", 16, 32, LINEAR),
    )
    num_tokens: int = 31
    exponent: float = 1.0
    num_steps: int = 500
    num_seeds: int = 32
    seed: int = 0


QUICK = {"shapes": Protocol().shapes[:2], "num_tokens": 15, "num_steps": 50, "num_seeds": 3}


def train(shape: Shape, protocol: Protocol) -> tuple[_common.Readings, np.ndarray]:
    """Runs of one memory with every step size: what was read, (rates, seeds, ...), and the mean final losses."""
    num_tokens = protocol.num_tokens

    def run(learning_rate, key):
        input_key, output_key, start_key = jax.random.split(key, 3)
        inputs = particles.embeddings.sphere(input_key, num_tokens, shape.dim)
        outputs = particles.embeddings.sphere(output_key, num_tokens, shape.dim)
        frequencies = particles.embeddings.zipf(num_tokens, protocol.exponent)
        targets = particles.one_hot(np.arange(num_tokens), num_tokens)
        problem = particles.from_embeddings(inputs, outputs, frequencies, targets)
        memory = shape.memory(inputs, outputs)
        return _common.train(memory, learning_rate, problem, protocol.num_steps, key=start_key)

    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.array(shape.learning_rates), keys)
    runs = jax.tree.map(np.asarray, runs)
    return runs, np.nan_to_num(runs.losses[:, :, -1].mean(axis=1), nan=np.inf)


def compute(protocol: Protocol, *, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; ``advance`` is called once a memory."""
    times = _common.log_times(protocol.num_steps)
    losses, errors, accuracy, rates = {}, {}, {}, {}
    ranks = np.zeros(0)
    for shape in protocol.shapes:
        runs, finals = train(shape, protocol)
        best = int(np.argmin(finals))
        losses[shape.name] = runs.losses[best][:, times]
        errors[shape.name] = runs.errors[best][:, times]
        ranks, accuracy[shape.name] = _common.by_rank(np.asarray(runs.margins[best][:, -1] > 0, float))
        rates[shape.name] = [shape.learning_rates[best]]
        advance()
    tuned = {"learning_rate": rates}
    return {
        "losses": Panel(STEP, times, losses, tuned),
        "errors": Panel(STEP, times, errors, tuned),
        "accuracy": Panel("rank of the token", ranks, accuracy, tuned),
    }


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return len(_common.resized(Protocol(), QUICK if quick else {}, None).shapes)


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _common.draw_against_steps(left, panels["losses"], "(a) loss", LOSS, log=False)
        _common.draw_against_steps(middle, panels["errors"], "(b) error rate", "error rate", log=False)
        accuracy = panels["accuracy"]
        plotting.curves(right, accuracy.x, accuracy.samples)
        right.set(title="(c) accuracy by rank, at the end", xlabel=accuracy.label, ylabel="accuracy")
        plotting.log_axis(right.xaxis, _panels.DECADES)
        for axes in (left, middle, right):
            axes.set_ylim(bottom=0)
        left.legend(fontsize=7)
        tuned = accuracy.columns["learning_rate"]
        rates = "; ".join(f"{name}: {rate[0]:g}" for name, rate in tuned.items())
        _common.note(
            figure,
            f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs and outputs uniform"
            f" on the sphere; {protocol.shapes[0].num_parameters} parameters each; ranks in groups 1, 2-3, 4-7, ...\n"
            f"$\\eta$ of least mean final loss on the same seeds, out of three: {rates}."
            f" Mean and 95% interval over {protocol.num_seeds} seeds.",
        )
    return figure


make = _common.maker("factorised", Protocol(), QUICK, compute, draw)
