"""(g) Factorised memories: a full matrix against low-rank and block-diagonal ones with as many parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs import _panels, _sweeps
from paper_figs._panels import Panel
from paper_figs._sweeps import Sweep
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


def train(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> Any:
    """Runs of every memory at each of its step sizes, (shapes and rates, seeds, ...).

    Losses and errors are those at ``log_times``; ``recalled`` says which tokens are right at the end.
    """
    num_tokens, times = protocol.num_tokens, _common.log_times(protocol.num_steps)
    shapes = {shape.name: shape for shape in protocol.shapes}

    def run(key, shape, rate):
        input_key, output_key, start_key = jax.random.split(key, 3)
        dim, memory_of = shapes[shape].dim, shapes[shape].memory
        inputs = particles.embeddings.sphere(input_key, num_tokens, dim)
        outputs = particles.embeddings.sphere(output_key, num_tokens, dim)
        problem = _common.own_classes(inputs, outputs, protocol.exponent)
        read = _common.train(memory_of(inputs, outputs), rate, problem, protocol.num_steps, key=start_key)
        return {"losses": read.losses[times], "errors": read.errors[times], "recalled": read.margins[-1] > 0}

    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    names, rates = zip(*((shape.name, rate) for shape in protocol.shapes for rate in shape.learning_rates), strict=True)
    # Products of tall matrices are faster with the runs in front.
    return sweep("runs", run, keys=keys, zipped=[("shape", "rate")], vectorize=jax.vmap, shape=names, rate=rates)


def compute(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> dict[str, Panel]:
    """All numbers of the figure, every memory at its best step size."""
    times = _common.log_times(protocol.num_steps)
    found = train(protocol, sweep)
    runs = {kind: np.asarray(found[kind]) for kind in ("losses", "errors", "recalled")}
    losses, errors, accuracy, rates = {}, {}, {}, {}
    ranks, first = np.zeros(0), 0
    for shape in protocol.shapes:
        finals = runs["losses"][first : first + len(shape.learning_rates), :, -1].mean(axis=1)
        best = int(np.argmin(np.nan_to_num(finals, nan=np.inf)))
        losses[shape.name] = runs["losses"][first + best]
        errors[shape.name] = runs["errors"][first + best]
        ranks, accuracy[shape.name] = _common.by_rank(runs["recalled"][first + best].astype(float))
        rates[shape.name] = [shape.learning_rates[best]]
        first += len(shape.learning_rates)
    tuned = {"learning_rate": rates}
    return {
        "losses": Panel(STEP, times, losses, tuned, log=False),
        "errors": Panel(STEP, times, errors, tuned, log=False),
        "accuracy": Panel("rank of the token", ranks, accuracy, tuned, log=False),
    }


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _common.draw_against_steps(left, panels["losses"], "(a) loss", LOSS)
        _common.draw_against_steps(middle, panels["errors"], "(b) error rate", "error rate")
        accuracy = panels["accuracy"]
        accuracy.curves(right)
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
