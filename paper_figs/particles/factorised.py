"""(g) Factorised memories: a full matrix against low-rank and block-diagonal ones with as many parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from damjax import particles, plotting
from paper_figs.figure import Figure, Picture
from paper_figs.panels import DECADES, Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, STEP
from paper_figs.sweeps import Sweep, quiet


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
LINEAR, BILINEAR = (10.0, 30.0, 100.0, 200.0, 400.0, 800.0), (1.0, 2.0, 3.0, 4.0, 5.0)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; every memory has 64 parameters, seeds draw embeddings and starts.

    Step sizes are tuned on seeds of their own.
    """

    shapes: tuple[Shape, ...] = (
        Shape("full", 1, 8, (3.0, 10.0, 30.0, 60.0, 120.0)),
        Shape("rank", 2, 16, BILINEAR),
        Shape("rank", 4, 8, BILINEAR),
        Shape("blocks", 4, 16, LINEAR),
        Shape("blocks", 16, 32, LINEAR),
    )
    num_tokens: int = 31
    exponent: float = 1.0
    num_steps: int = 500
    num_seeds: int = 32
    num_tuning_seeds: int = 8
    seed: int = 0


QUICK = {"shapes": Protocol().shapes[:2], "num_tokens": 15, "num_steps": 50, "num_seeds": 3}
CLAIM = "With as many parameters, low rank in more dimensions lowers the loss, and not the errors"


def train(protocol: Protocol, sweep: Sweep = quiet, *, tuning: bool = False) -> Any:
    """Runs of every memory at each of its step sizes, (shapes and rates, seeds, ...); tuning has seeds of its own.

    Losses and errors are those at ``log_times``; ``recalled`` says which tokens are right at the end.
    """
    num_tokens, times = protocol.num_tokens, common.log_times(protocol.num_steps)
    shapes = {shape.name: shape for shape in protocol.shapes}

    def run(key, shape, rate):
        input_key, output_key, start_key = jax.random.split(key, 3)
        dim, memory_of = shapes[shape].dim, shapes[shape].memory
        inputs = particles.embeddings.sphere(input_key, num_tokens, dim)
        outputs = particles.embeddings.sphere(output_key, num_tokens, dim)
        problem = common.own_classes(inputs, outputs, protocol.exponent)
        read = common.train(memory_of(inputs, outputs), rate, problem, protocol.num_steps, key=start_key)
        return {"losses": read.losses[times], "errors": read.errors[times], "recalled": read.margins[-1] > 0}

    name, number = ("tuning", protocol.num_tuning_seeds) if tuning else ("runs", protocol.num_seeds)
    keys = jax.random.split(jax.random.split(jax.random.key(protocol.seed))[int(tuning)], number)
    names, rates = zip(*((shape.name, rate) for shape in protocol.shapes for rate in shape.learning_rates), strict=True)
    # Products of tall matrices are faster with the runs in front.
    return sweep(name, run, keys=keys, zipped=[("shape", "rate")], vectorize=jax.vmap, shape=names, rate=rates)


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure, every memory at its best step size."""
    times = common.log_times(protocol.num_steps)
    shapes = tuned(protocol, sweep)
    results = train(dataclasses.replace(protocol, shapes=shapes), sweep)
    losses, errors, recalled = (np.asarray(results[kind], float) for kind in ("losses", "errors", "recalled"))
    ranks, accuracy = common.by_rank(recalled)
    rates = {"learning_rate": {shape.name: shape.learning_rates for shape in shapes}}

    def panel(label: str, x: np.ndarray, values: np.ndarray) -> Panel:
        curves = {shape.name: of_shape for shape, of_shape in zip(shapes, values, strict=True)}
        return Panel(label, x, curves, rates, log=False)

    return {
        "losses": panel(STEP, times, losses),
        "errors": panel(STEP, times, errors),
        "accuracy": panel("rank of the token", ranks, accuracy),
    }


def tuned(protocol: Protocol, sweep: Sweep = quiet) -> tuple[Shape, ...]:
    """The memories with their step size of least mean final loss only; a loss that is not finite is not the least."""
    finals = iter(np.asarray(train(protocol, sweep, tuning=True)["losses"])[:, :, -1].mean(axis=1))
    best = []
    for shape in protocol.shapes:
        losses = np.nan_to_num([next(finals) for _ in shape.learning_rates], nan=np.inf)
        best.append(shape._replace(learning_rates=(shape.learning_rates[int(losses.argmin())],)))
    return tuple(best)


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    left, middle, right = figure.subplots(1, 3)
    common.draw_against_steps(left, panels["losses"], "loss", LOSS)
    common.draw_against_steps(middle, panels["errors"], "error rate", "error rate")
    accuracy = panels["accuracy"]
    accuracy.curves(right)
    right.set(title="accuracy by rank, at the end", xlabel=accuracy.label, ylabel="accuracy")
    plotting.log_axis(right.xaxis, DECADES)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    left.legend(fontsize=7)
    letter(figure.axes)
    rates = accuracy.columns["learning_rate"]
    edges = [s.name for s in protocol.shapes if rates[s.name][0] in (s.learning_rates[0], s.learning_rates[-1])]
    note(
        figure,
        f"{protocol.num_tokens} tokens, each its own class, Zipf({protocol.exponent:g}); inputs and outputs uniform"
        f" on the sphere; {protocol.shapes[0].num_parameters} parameters each; ranks in groups 1, 2-3, 4-7, ...\n"
        f"$\\eta$ of least mean final loss on {protocol.num_tuning_seeds} other seeds"
        f"{', at the edge of its grid for ' * bool(edges)}{'; '.join(edges)}."
        f" Mean and 95% interval over {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("factorised", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.6))
