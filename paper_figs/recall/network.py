"""Agents that recall their own pairs and those of others: by whom they listen to, and by how late the answers come."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import recall
from damjax.recall import memories
from paper_figs.experiment import Parts
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.recall.common import NAMES, at_constant_rate
from paper_figs.sweeps import Sweep, quiet


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 16
    num_tuning_seeds: int = 6
    dim: int = 32
    vocabulary: int = 512
    num_pairs: int = 12  # of every agent
    length: int = 96  # of the sequences: twice the steps
    own_weight: float = 0.5
    num_others: tuple[int, ...] = (1, 2, 3, 5, 9)
    link_lengths: tuple[int, ...] = (1, 2, 4, 8)
    late_link_length: int = 4
    num_windows: int = 6
    rates: tuple[float, ...] = (0.3, 0.6, 1.0, 2.0)
    dtype: str = "float32"
    base_seed: int = 0

    @property
    def points(self) -> list[tuple[int, int]]:
        """How many others an agent listens to, and the length of a link, of every point of the figure."""
        return [(count, 1) for count in self.num_others] + [
            (self.num_others[0], length) for length in self.link_lengths
        ]


QUICK = {
    "num_seeds": 3,
    "dim": 8,
    "vocabulary": 256,
    "num_pairs": 4,
    "length": 32,
    "num_others": (1, 9),
    "link_lengths": (1, 4),
    "num_windows": 2,
    "rates": (0.3, 1.0),
}
CLAIM = "Who listens to few recalls them, as late as they answer; one memory for all forgets even its own"
GRAPH = damjax.graphs.paper_network()
ROUND_TRIPS = damjax.routing.compile_routes(GRAPH, np.full((10, 10), 0.1), method="shortest_path").delays
MIXING = damjax.graphs.metropolis_weights(GRAPH)


def draw_interests(key: jax.Array, num_others: jax.Array, protocol: Protocol) -> jax.Array:
    """Rows with the weight on oneself, and the rest in equal parts on so many others, drawn at random."""
    size = len(GRAPH)
    own = jnp.eye(size, dtype=protocol.dtype)
    draws = jax.random.uniform(key, (size, size)) - own.astype(float) * 2
    places = jnp.argsort(jnp.argsort(-draws, axis=1), axis=1)
    shares = (places < num_others.astype(places.dtype)).astype(protocol.dtype) / num_others.astype(protocol.dtype)
    return protocol.own_weight * own + (1 - protocol.own_weight) * shares


class Run(NamedTuple):
    """What all algorithms see of a seed at one point of the figure.

    Attributes:
        weights: interests, (N, N).
        length: of a link, in steps.
        task: pairs and questions.
    """

    weights: jax.Array
    length: jax.Array
    task: recall.Task


def draw_runs(protocol: Protocol) -> Run:
    """Points times seeds, tuning seeds first, as one axis; drawn once, since the drawing takes long to compile."""
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds + protocol.num_tuning_seeds)
    counts, lengths = (np.array(column, np.int32) for column in zip(*protocol.points, strict=True))
    point, seed = (places.ravel() for places in np.indices((len(counts), len(keys))))

    def draw(key: jax.Array, num_others: jax.Array, length: jax.Array) -> Run:
        weights_key, task_key = jax.random.split(key)
        weights = draw_interests(weights_key, num_others, protocol)
        task = recall.continuous_mqar(
            task_key,
            dim=protocol.dim,
            length=protocol.length,
            num_pairs=protocol.num_pairs,
            num_agents=len(GRAPH),
            weights=weights,
            vocabulary=protocol.vocabulary,
            power=1.0,
            dtype=protocol.dtype,
        )
        return Run(weights, length, task)

    return jax.jit(jax.vmap(draw))(keys[seed], counts[point], lengths[point])


def measure(name: str, protocol: Protocol, run: Run, rate: jax.Array) -> dict[str, jax.Array]:
    """The share of questions that an algorithm answers right on the way: all, own, others', and others' by time."""
    weights, length, task = run
    memory = memories.linear(protocol.dim, protocol.dim, dtype=protocol.dtype)
    delays, longest = jnp.asarray(ROUND_TRIPS) * length, int(np.max(ROUND_TRIPS)) * max(protocol.link_lengths)
    parts = Parts(memory.objective(), damjax.domains.unconstrained(), weights, delays, longest, MIXING)
    algorithm = at_constant_rate(name, parts, rate)
    start = jnp.zeros((len(GRAPH), protocol.dim, protocol.dim), protocol.dtype)
    observe = recall.observe_recalls(memory.apply, task)
    _, recalls = damjax.simulate(algorithm, start, task.associations, observe=observe)
    answers, questions = recall.judge(recalls, task), task.questions

    def accuracy(about: str, first: int = 0, last: int = protocol.length) -> jax.Array:
        step = jnp.arange(questions.answers.shape[0])[:, None]
        asked = jnp.where((step >= first) & (step < last), questions.answers, -1)
        return recall.recall_measures(answers, questions._replace(answers=asked), about=about)["accuracy"]

    windows = [accuracy("others", first, last) for first, last in zip(*_borders(protocol), strict=True)]
    return {**{about: accuracy(about) for about in ("all", "own", "others")}, "windows": jnp.stack(windows)}


def _borders(protocol: Protocol) -> tuple[list[int], list[int]]:
    """First steps, from 0, of windows after the last pair, and of what comes after them."""
    borders = np.linspace(protocol.num_pairs, protocol.length // 2, protocol.num_windows + 1).round().astype(int)
    return borders[:-1].tolist(), borders[1:].tolist()


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    num_tuning, runs = protocol.num_tuning_seeds, draw_runs(protocol)
    measured, rates = {}, {}
    for name in NAMES:
        results = sweep(
            name,
            lambda run, rate, name=name: measure(name, protocol, run, rate),
            keys=runs,
            rate=np.array(protocol.rates, protocol.dtype),
            vectorize=jax.vmap,
            dims={"windows": ("window",)},
        )
        by_point = {  # rate, point, seed, and window
            about: (x := np.asarray(results[about], float)).reshape(len(x), len(protocol.points), -1, *x.shape[2:])
            for about in ("all", "own", "others", "windows")
        }
        best = by_point["all"][:, :, :num_tuning].mean(axis=2).argmax(axis=0)
        at_best = (best, np.arange(len(best)), slice(num_tuning, None))
        measured[name] = {about: x[at_best] for about, x in by_point.items()}
        rates[name] = np.array(protocol.rates)[best]

    few = len(protocol.num_others)
    firsts, lasts = _borders(protocol)
    late = few + protocol.link_lengths.index(protocol.late_link_length)
    mean_trip = ROUND_TRIPS[~np.eye(len(GRAPH), dtype=bool)].mean()

    def panel(label: str, x: np.ndarray, about: str, points: slice) -> Panel:
        samples = {name: results[about][points].T for name, results in measured.items()}
        return Panel(label, x, samples, {"rate": {name: rates[name][points] for name in rates}}, log=False)

    listening = np.array(protocol.num_others, float)
    return {
        "own": panel("others that an agent listens to", listening, "own", slice(few)),
        "others": panel("others that an agent listens to", listening, "others", slice(few)),
        "delay": panel(
            "mean round trip (steps)", mean_trip * np.array(protocol.link_lengths, float), "others", slice(few, None)
        ),
        "time": Panel(
            "steps since the last pair",
            (np.array(firsts) + np.array(lasts) - 1) / 2 - protocol.num_pairs,
            {name: results["windows"][late] for name, results in measured.items()},
            {"rate": {name: rates[name][[late]] for name in rates}},
            log=False,
        ),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    only = protocol.num_others[0]
    listened = f"{only} other{'s' * (only > 1)} listened to"
    titles = {
        "own": "own pairs",
        "others": "pairs of others, as far as wanted",
        "delay": f"pairs of others, {listened}",
        "time": f"the same by time, links of {protocol.late_link_length} steps",
    }
    grid = figure.subplots(2, 2, sharey=True)
    for axes, (name, title) in zip(grid.flat, titles.items(), strict=True):
        panels[name].draw(axes, title, "questions answered right" if axes in grid[:, 0] else "")
    for axes in grid[0]:
        axes.set_xticks(protocol.num_others)
    grid[0, 0].set_ylim(0, 1.03)
    letter(grid.flat)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    note(
        figure,
        f"MQAR in continuous form on the network of ten agents: {protocol.num_pairs} pairs each, linear memories with"
        f" d = {protocol.dim}, questions on the way.\nWeight {protocol.own_weight:g} on oneself, the rest in equal"
        f" parts on the others that an agent listens to, and it is asked accordingly. Rates chosen on"
        f" {protocol.num_tuning_seeds} other seeds, point by point.\nMean and 95% interval over {protocol.num_seeds}"
        " seeds. C-DOGD mixes in every step, however long the links are.",
    )


FIGURE = Figure("recall_network", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (8.6, 6.2))
