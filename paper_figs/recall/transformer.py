"""A trained Transformer whose output memory is emptied, and learned again at test time by agents on a network."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import damjax
from damjax import recall
from damjax.particles import bigrams, transformer
from paper_figs.experiment import Parts
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.recall.common import NAMES, at_constant_rate, stretch_by_stretch
from paper_figs.sweeps import Sweep, quiet


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 8
    num_tuning_seeds: int = 2
    num_tokens: int = 24
    num_triggers: int = 4
    length: int = 32
    dim: int = 64
    batch_size: int = 32
    num_training_steps: int = 400
    training_rate: float = 20.0
    num_steps: int = 160
    num_points: int = 8
    num_questions: int = 64
    rates: tuple[float, ...] = (1.0, 4.0)
    dtype: str = "float32"
    base_seed: int = 0


QUICK = {
    "num_seeds": 2,
    "num_tuning_seeds": 2,
    "num_tokens": 14,
    "num_triggers": 3,
    "length": 16,
    "dim": 32,
    "num_training_steps": 30,
    "num_steps": 40,
    "num_points": 2,
    "num_questions": 16,
    "rates": (1.0, 4.0),
}
CLAIM = "Agents that see a part of the tokens each learn the output memory together, nearly as the trained one has it"
GRAPH = damjax.graphs.ring(5)
WEIGHTS = np.full((5, 5), 1 / 5)
ROUND_TRIPS = damjax.routing.compile_routes(GRAPH, WEIGHTS).delays
MIXING = damjax.graphs.metropolis_weights(GRAPH)
CENTRAL = "trained centrally"


class Seed(NamedTuple):
    """What a seed has been trained to; arrays with a leading axis of seeds.

    Attributes:
        key: of what happens at test time.
        source: the bigrams.
        model: the fixed parts.
        params: the trained memories.
    """

    key: jax.Array
    source: Any
    model: Any
    params: Any


def make_task(source: bigrams.Source, protocol: Protocol) -> bigrams.Task:
    """The bigrams with triggers of a source."""
    return bigrams.trigger_task(source, num_triggers=protocol.num_triggers, length=protocol.length)


def train(key: jax.Array, protocol: Protocol) -> dict[str, Any]:
    """A source, a model, and its memories after training on one machine."""
    source_key, model_key, training_key = jax.random.split(key, 3)
    sizes = {"num_tokens": protocol.num_tokens, "dtype": protocol.dtype}
    source = bigrams.zipf_source(source_key, **sizes)
    model = transformer.draw_model(model_key, length=protocol.length, dim=protocol.dim, **sizes)
    params, _ = transformer.train(
        training_key,
        model,
        make_task(source, protocol),
        optax.sgd(protocol.training_rate),
        transformer.whole(protocol.num_training_steps),
        batch_size=protocol.batch_size,
    )
    return {"source": source._asdict(), "model": model._asdict(), "params": params._asdict()}


def at_test_time(name: str, protocol: Protocol, seed: Seed, rate: jax.Array) -> dict[str, jax.Array]:
    """The share of answers that are right, own and others', after every part of the run, and by the trained memory."""
    task = recall.bigram_recall(
        seed.key,
        seed.params,
        seed.model,
        make_task(seed.source, protocol),
        num_agents=len(GRAPH),
        num_steps=protocol.num_steps,
        num_questions=protocol.num_questions,
    )
    memory = recall.output_memory(protocol.dim, dtype=protocol.dtype)
    objective = memory.objective(damjax.objectives.cross_entropy(seed.model.unembeddings))
    domain = damjax.domains.frobenius_ball(1e3)
    parts = Parts(objective, domain, WEIGHTS, ROUND_TRIPS, int(ROUND_TRIPS.max()), MIXING)
    algorithm = at_constant_rate(name, parts, rate)

    def accuracy(params: jax.Array) -> dict[str, jax.Array]:
        answers = recall.ask(memory.apply, params, task)
        return {
            about: recall.recall_measures(answers, task.questions, about=about)["accuracy"]
            for about in ("own", "others")
        }

    start = jax.vmap(memory.init)(jax.random.split(seed.key, len(GRAPH)))
    measured = stretch_by_stretch(algorithm, start, task.associations, protocol.num_points, accuracy)
    central = accuracy(jnp.broadcast_to(seed.params.output, start.shape))
    return measured | {f"central_{about}": value for about, value in central.items()}


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    num_tuning = protocol.num_tuning_seeds
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds + num_tuning)
    trained = sweep("training", lambda key: train(key, protocol), keys=keys, vectorize=jax.vmap)

    def stacked(kind: type, name: str) -> Any:
        return kind(*(np.asarray(trained[f"{name}.{field}"]) for field in kind._fields))

    seeds = Seed(
        jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys),
        stacked(bigrams.Source, "source"),
        stacked(transformer.Model, "model"),
        stacked(transformer.Params, "params"),
    )
    samples: dict[str, dict[str, np.ndarray]] = {"own": {}, "others": {}}
    rates = {CENTRAL: [0.0]}
    results = {}
    for name in NAMES:
        results = sweep(
            name,
            lambda seed, rate, name=name: at_test_time(name, protocol, seed, rate),
            keys=seeds,
            rate=np.array(protocol.rates, protocol.dtype),
            vectorize=jax.vmap,
            dims={"own": ("point",), "others": ("point",)},
        )
        measured = {about: np.asarray(results[about], float) for about in samples}  # by rate, seed and point
        last = (measured["own"] + measured["others"])[:, :num_tuning, -1].mean(axis=1)
        for about, values in measured.items():
            samples[about][name] = values[last.argmax(), num_tuning:]
        rates[name] = [protocol.rates[last.argmax()]]
    for about, curves in samples.items():
        central = np.asarray(results[f"central_{about}"], float)[0, num_tuning:]
        curves[CENTRAL] = np.repeat(central[:, None], protocol.num_points, axis=1)
    steps = protocol.num_steps / protocol.num_points * np.arange(1, protocol.num_points + 1)
    return {
        about: Panel("step at test time", steps, curves, {"rate": rates}, log=False)
        for about, curves in samples.items()
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    titles = {"own": "tokens that the agent has seen itself", "others": "tokens that only others have seen"}
    grid = figure.subplots(1, 2, sharey=True)
    for axes, (about, title) in zip(grid, titles.items(), strict=True):
        panels[about].draw(axes, title, "share of answers right" if axes is grid[0] else "")
    grid[0].set_ylim(0, 1.03)
    letter(grid)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    note(
        figure,
        f"Bigrams with triggers: {protocol.num_tokens} tokens, {protocol.num_triggers} triggers, sequences of"
        f" {protocol.length}, d = {protocol.dim}; {protocol.num_training_steps} training steps. At test time"
        f" {len(GRAPH)} agents\non a ring, round trips of up to {ROUND_TRIPS.max()} steps, equal weights; one sequence"
        f" an agent and step. Rates chosen on {protocol.num_tuning_seeds} other seeds.\nMean and 95% interval over"
        f" {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("recall_transformer", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (8.6, 3.8))
