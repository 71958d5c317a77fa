"""A two-layer attention-only Transformer on bigrams with triggers: its memories learned together and part by part."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from damjax import plotting
from damjax.particles import bigrams, transformer
from paper_figs.figure import Figure, Option, Picture
from paper_figs.panels import DECADES, Panel, letter, note
from paper_figs.sweeps import Sweep, quiet


class Text(NamedTuple):
    """A text whose characters make the bigrams.

    Attributes:
        path: its file.
        source: its bigrams.
        alphabet: character v is token v.
    """

    path: Path
    source: bigrams.Source
    alphabet: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 3
    num_tokens: int = 30
    exponent: float = 1.0
    num_triggers: int = 5
    length: int = 48
    dim: int = 128
    batch_size: int = 32
    num_steps: int = 900
    window: int = 15
    step_sizes: tuple[float, ...] = (5.0, 20.0, 80.0)
    # Of one seed, all memories at once, with embeddings changed by a factor of 1 + 1e-6: the loss of a window of steps
    # changed by up to 98% at this step size, by 0.04% and less at the others.
    chaotic: tuple[float, ...] = (80.0,)
    dtype: str = "float32"
    base_seed: int = 0
    # The source of all seeds; without one, each has a Zipf source of its own.
    text: Text | None = None


QUICK = {
    "num_seeds": 2,
    "num_tokens": 12,
    "num_triggers": 3,
    "length": 16,
    "dim": 32,
    "batch_size": 16,
    "num_steps": 90,
    "window": 6,
    "step_sizes": (5.0, 20.0),
    "chaotic": (),
}
CLAIM = "Learned at once at every step size, part by part at the smaller ones; the largest is chaotic"


LARGE = {
    "num_tokens": 64,
    "length": 96,
    "dim": 256,
    "batch_size": 64,
    "num_steps": 1500,
    "window": 25,
    "step_sizes": (20.0, 80.0, 320.0),
    "chaotic": (),  # not measured
}
CHAOS = (
    "\nChaotic: with all memories at once, embeddings changed by one part in a million changed the loss by up to 98%."
)
SCHEDULES = {"whole": transformer.whole, "parts": transformer.part_by_part}
QUANTITIES = {
    "loss": "loss (nats)",
    "accuracy": "in-context accuracy",
    "output": "output memory:\nmean margin",
    "key": "key memory:\nmean margin",
    "previous": "previous-token memory:\nmean margin",
}


def _windows(results: Any, window: int) -> dict[str, np.ndarray]:
    """Means over windows of steps, (.., windows), by quantity; the worst step of each for the loss too."""
    quantities = {"loss": "loss", "accuracy": "accuracy"}
    for memory in transformer.Params._fields:
        quantities |= {memory: f"mean.{memory}", f"{memory}_worst": f"worst.{memory}"}
    read = {quantity: np.asarray(results[name], float) for quantity, name in quantities.items()}
    split = {quantity: x.reshape(*x.shape[:-1], -1, window) for quantity, x in read.items()}
    return {quantity: x.mean(axis=-1) for quantity, x in split.items()} | {"loss_peak": split["loss"].max(axis=-1)}


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure: one panel per schedule and quantity, one curve per step size."""
    sizes = {"num_tokens": protocol.num_tokens, "dtype": protocol.dtype}

    def run(key, gates, step_size):
        source_key, model_key, training_key = jax.random.split(key, 3)
        if protocol.text:
            source = protocol.text.source
        else:
            source = bigrams.zipf_source(source_key, exponent=protocol.exponent, **sizes)
        task = bigrams.trigger_task(source, num_triggers=protocol.num_triggers, length=protocol.length)
        model = transformer.draw_model(model_key, length=protocol.length, dim=protocol.dim, **sizes)
        turns, optimizer = transformer.Params(*gates), optax.sgd(step_size)
        return transformer.train(training_key, model, task, optimizer, turns, batch_size=protocol.batch_size)[1]

    results = sweep(
        "training",
        run,
        keys=jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds),
        gates=np.stack([np.stack(gates(protocol.num_steps)) for gates in SCHEDULES.values()]),
        step_size=np.array(protocol.step_sizes, protocol.dtype),
        # The matrix products of a few runs fill the vector units and the cache as they are.
        vectorize=jax.vmap,
        batch_size=3,
    )
    if not np.all(results["finite"]):
        raise FloatingPointError("some runs of the Transformer are not finite; lower the step sizes")
    middles = np.arange(protocol.num_steps // protocol.window) * protocol.window + (protocol.window - 1) / 2
    names = [f"step size {size:g}{', chaotic' * (size in protocol.chaotic)}" for size in protocol.step_sizes]
    return {
        f"{schedule}_{quantity}": Panel(
            "training step", middles, dict(zip(names, values[i], strict=True)), log=quantity.startswith("loss")
        )
        for quantity, values in _windows(results, protocol.window).items()
        for i, schedule in enumerate(SCHEDULES)
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    source = f"Characters of {protocol.text.path.name}" if protocol.text else "Zipf source"
    titles = {"whole": "all three memories at once", "parts": "part by part: output, key, previous token"}
    grid = figure.subplots(len(QUANTITIES), 2, sharex=True, sharey="row")
    for column, (schedule, title) in zip(grid.T, titles.items(), strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel(panels[f"{schedule}_loss"].label)
        for axes, quantity in zip(column, QUANTITIES, strict=True):
            panel = panels[f"{schedule}_{quantity}"]
            panel.curves(axes)
            for start, line in enumerate(axes.lines):
                line.set_markevery((2 * start, 6))
            if schedule == "parts":
                for third in (1, 2):
                    axes.axvline(protocol.num_steps * third / 3, color="0.5", linewidth=0.8)
    letter(grid.flat)
    for axes, ylabel in zip(grid[:, 0], QUANTITIES.values(), strict=True):
        axes.set_ylabel(ylabel)
    plotting.log_axis(grid[0, 0].yaxis, DECADES)
    grid[0, 0].set_ylim(bottom=0.8 * min(s.mean(axis=0).min() for s in panels["whole_loss"].samples.values()))
    for axes in grid[2:].flat:
        axes.axhline(0.0, color="0.5", linewidth=0.8)
    # A large step reaches far, a small one stays near zero.
    grid[-1, 0].set_yscale("symlog", linthresh=1.0)
    ticks = [-30, -10, -3, -1, 0, 1, 3, 10]
    grid[-1, 0].set_yticks(ticks, [f"{tick}" for tick in ticks])
    grid[-1, 0].set_yticks([], minor=True)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    note(
        figure,
        f"{source}; {protocol.num_tokens} tokens, {protocol.num_triggers} triggers, sequences of {protocol.length},"
        f" d = {protocol.dim}, SGD on fresh minibatches of {protocol.batch_size}.\nMean and 95% interval over"
        f" {protocol.num_seeds} seeds of means over {protocol.window} steps, on the predictable positions only."
        " Vertical lines: the next memory's turn."
        f"{CHAOS * bool(protocol.chaotic)}",
    )


def facts(panels: Mapping[str, Panel], protocol: Protocol) -> dict[str, str | None]:
    """Where the bigrams come from, as JSON has it."""
    path, _, alphabet = protocol.text or (None, None, None)
    return {"text": None if path is None else str(path), "alphabet": alphabet}


def enlarged(protocol: Protocol, _: bool) -> Protocol:
    """Nearer the sizes of the literature, for a GPU or about 40 minutes on two cores."""
    return dataclasses.replace(protocol, **LARGE)


def reading_text(protocol: Protocol, path: Path) -> Protocol:
    """With the bigrams of a text's most frequent characters.

    Raises:
        ValueError: a file that cannot be read, too few characters.
    """
    source, alphabet = bigrams.source_from_text(path, num_tokens=protocol.num_tokens, dtype=protocol.dtype)
    text = Text(path, source, alphabet)
    # How chaotic the largest step is was measured with a Zipf source.
    return dataclasses.replace(protocol, text=text, num_tokens=len(alphabet), chaotic=())


OPTIONS = {
    "large": Option(
        "the larger model, for more than two cores", enlarged, reading={"action": "store_true"}, is_size=True
    ),
    "text": Option("bigrams of this text, not Zipf's", reading_text, reading={"type": Path, "metavar": "FILE"}),
}


FIGURE = Figure(
    "transformer", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (7.4, 9.6), facts=facts, options=OPTIONS
)
