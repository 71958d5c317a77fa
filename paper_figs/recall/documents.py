"""Documents of ten libraries on a real network: whose agent answers a question about which library."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

import damjax
from damjax import plotting, recall
from damjax.routing import Routes, compile_routes
from paper_figs.experiment import ALGORITHMS, Factory, Parts
from paper_figs.figure import Figure, Option, Picture
from paper_figs.panels import Panel, letter, note, tabulate
from paper_figs.recall.common import ALONE, learn
from paper_figs.sweeps import Sweep, quiet

WORDS = "matching words"
DRAWN = ("DAM-TOGD", "C-DOGD")  # whose answers are drawn agent by agent
KINDS = {
    "own": "about its own library",
    "others": "about libraries it imports",
    "none": "about libraries it does not import",
}
MEASURES = {"recall": "recall@1 (share of documents)", "mrr": "MRR", "nmse": "NMSE"}
COLORS = "cividis"


class Text(NamedTuple):
    """A text that the agents share out.

    Attributes:
        path: its file.
        documents: title and body of each of its paragraphs.
    """

    path: Path
    documents: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made; dimensions are those of keys and of values."""

    num_seeds: int = 12
    num_tuning_seeds: int = 2
    topology: str = "Abilene"
    routing: str = "steiner"
    num_documents: int = 32  # of each library, at most
    num_features: int = 1024  # of the n-grams, before a random projection of each seed
    dims: tuple[int, ...] = (32, 64, 128)
    dim: int = 64  # where not all are drawn
    horizons: tuple[int, ...] = (16, 32, 64, 128, 256)
    rate_constants: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    dtype: str = "float32"
    base_seed: int = 0
    text: Text | None = None  # in place of the libraries


QUICK = {
    "num_seeds": 2,
    "num_documents": 6,
    "num_features": 128,
    "dims": (16,),
    "dim": 16,
    "horizons": (6, 12, 24),
    "rate_constants": (2.0, 4.0),
}
CLAIM = (
    "Agents that listen answer about what they import, in the end nearly as without delay;"
    " consensus answers about all, given room"
)


class Results(NamedTuple):
    """What was learned, and of what.

    Attributes:
        problem: documents and network.
        panels: by name.
    """

    problem: "Problem"
    panels: dict[str, Panel]


class Problem(NamedTuple):
    """What the agents hold and where they are, of every seed.

    Attributes:
        corpus: of L agents, at the first L places of the network.
        titles: n-grams of the titles, (Q, features).
        bodies: of the bodies, likewise.
        graph: the network, of N places.
        routes: by the interests; a place without an agent has none but itself.
        parts: of an algorithm; interests as lists, on which full information is several times faster than on a table.
        alone: the same, for agents that hear nobody.
    """

    corpus: recall.Corpus
    titles: np.ndarray
    bodies: np.ndarray
    graph: nx.Graph
    routes: Routes
    parts: Parts
    alone: Parts


def prepare(protocol: Protocol) -> Problem:
    """Collect and embed the documents, and put their agents on the network."""
    graph = damjax.graphs.topology(protocol.topology)
    if protocol.text:
        documents = protocol.text.documents[: protocol.num_documents * len(graph)]
        corpus = recall.from_texts(recall.split_evenly(documents, len(graph)))
    else:
        corpus = recall.installed_libraries(max_documents=protocol.num_documents)
    num_agents, weights = len(corpus.names), np.eye(len(graph))
    weights[:num_agents, :num_agents] = corpus.interests
    embed = recall.hashed_ngrams(protocol.num_features)
    titles, bodies = (embed(texts).astype(protocol.dtype) for texts in (corpus.titles, corpus.bodies))

    routes = compile_routes(graph, weights, method=protocol.routing)
    interests = damjax.weights.sparse(weights.astype(protocol.dtype))
    nobody = damjax.weights.sparse(np.eye(len(graph), dtype=protocol.dtype))
    parts = Parts(
        damjax.objectives.delta_net(),
        damjax.domains.unconstrained(),
        interests,
        jnp.asarray(np.take_along_axis(routes.delays, np.asarray(interests.agents), axis=1)),
        routes.max_delay,
        damjax.graphs.metropolis_weights(graph).astype(protocol.dtype),
    )
    return Problem(corpus, titles, bodies, graph, routes, parts, parts._replace(weights=nobody))


def learners(problem: Problem, algorithms: Mapping[str, Factory], constants: jax.Array) -> list[damjax.Algorithm]:
    """The algorithms, and after them the one of agents that hear nobody, at their rate constants, (A + 1,)."""
    every = [(factory, problem.parts) for factory in algorithms.values()] + [(ALGORITHMS["OGD"], problem.alone)]
    return [factory(of, constant) for (factory, of), constant in zip(every, constants, strict=True)]


def draw_task(problem: Problem, protocol: Protocol, key: jax.Array, dim: int) -> recall.Task:
    """Documents as unit vectors of a random projection, in a random order."""
    projection_key, order_key = jax.random.split(key)
    projection = jax.random.normal(projection_key, (protocol.num_features, dim), protocol.dtype)
    titles, bodies = (
        projected / jnp.linalg.norm(projected, axis=1, keepdims=True)
        for projected in (problem.titles @ projection, problem.bodies @ projection)
    )
    return recall.from_arrays(
        order_key,
        titles,
        bodies,
        problem.corpus.holders,
        num_agents=len(problem.corpus.names),
        num_steps=max(protocol.horizons),
        dtype=protocol.dtype,
    )


def measure(memories: jax.Array, task: recall.Task, holders: np.ndarray) -> dict[str, jax.Array]:
    """Means of each agent's answers about the documents of each, by measure, (L, L)."""
    answers = recall.ask(recall.memories.linear(*memories.shape[:0:-1]).apply, memories, task)
    ranks = answers.ranks.astype(memories.dtype)
    counts = np.bincount(holders)
    shares = jnp.asarray(np.eye(len(counts))[holders] / counts, memories.dtype)
    quantities = {"recall": ranks == 0, "mrr": 1 / (1 + ranks), "nmse": answers.errors / answers.sizes}
    return {name: quantity.astype(memories.dtype).T @ shares for name, quantity in quantities.items()}


def tuned(
    problem: Problem, protocol: Protocol, dim: int, sweep: Sweep, algorithms: Mapping[str, Factory]
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Measures of all curves at each one's own best rate constant, (S, curves, H, L, L), and those constants.

    The best is that of the least squared error of what is asked by interest, after the last step, on the tuning seeds.
    The curve that comes last learns nothing: it takes the title itself for the body.
    """

    def run(key: jax.Array, constants: jax.Array) -> dict[str, jax.Array]:
        task = draw_task(problem, protocol, key, dim)
        learned = [
            learn(algorithm, task, len(problem.graph), protocol.horizons)
            for algorithm in learners(problem, algorithms, constants)
        ]
        same = jnp.broadcast_to(jnp.eye(dim, dtype=protocol.dtype), learned[0].shape)
        memories = jnp.stack([*learned, same])
        measured = jax.lax.map(
            lambda one: measure(one, task, problem.corpus.holders), memories.reshape(-1, *memories.shape[2:])
        )
        return jax.tree.map(lambda means: means.reshape(*memories.shape[:2], *means.shape[1:]), measured)

    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_tuning_seeds + protocol.num_seeds)
    tuning_keys, keys = keys[: protocol.num_tuning_seeds], keys[protocol.num_tuning_seeds :]
    # Matrix products of a few runs fill the vector units; of one size, so that both sweeps are one program.
    mapped: dict[str, Any] = {"vectorize": jax.vmap, "batch_size": 2}
    grid = np.tile(np.array(protocol.rate_constants, protocol.dtype)[:, None], (1, len(algorithms) + 1))
    errors = np.asarray(sweep(f"tuning_{dim}", run, keys=tuning_keys, constants=grid, **mapped)["nmse"])
    asked = np.sum(errors[..., -1, :, :] * problem.corpus.interests, axis=(-1, -2)).mean(axis=1)
    chosen = grid[np.nanargmin(asked[:, :-1], axis=0), 0]
    results = sweep(f"evaluation_{dim}", run, keys=keys, constants=chosen[None], **mapped)
    return {name: np.asarray(results[name], float)[0] for name in MEASURES}, chosen.tolist()


def mixtures(interests: np.ndarray) -> dict[str, np.ndarray]:
    """How much each question of an agent about another counts, by kind of question, (L, L) of sum 1 each."""
    own = np.eye(len(interests))
    others = interests * (1 - own)
    totals = others.sum(axis=1, keepdims=True)
    shares = {
        "own": own,
        "others": others / np.where(totals > 0, totals, 1),
        "none": (interests == 0).astype(float),
        "asked": interests,
    }
    return {kind: table / table.sum() for kind, table in shares.items() if table.any()}


def compute(protocol: Protocol, sweep: Sweep = quiet, algorithms: Mapping[str, Factory] = ALGORITHMS) -> Results:
    """All numbers of the figure, for the paper's algorithms or others."""
    problem = prepare(protocol)
    names = [*algorithms, ALONE, WORDS]
    by_dim = {dim: tuned(problem, protocol, dim, sweep, algorithms) for dim in protocol.dims}
    measures, constants = by_dim[protocol.dim]
    mixed = mixtures(problem.corpus.interests)

    def curves(values: np.ndarray, kind: str) -> dict[str, np.ndarray]:
        """Of values (S, curves, .., L, L)."""
        return dict(zip(names, np.moveaxis(np.sum(values * mixed[kind], axis=(-1, -2)), 1, 0), strict=True))

    rates = {name: [rate] for name, rate in zip(names, [*constants, np.nan], strict=True)}
    panels = {
        f"{kind}_{name}": Panel(
            "time (steps)", np.array(protocol.horizons), curves(values, kind), {"rate_constant": rates}, log=False
        )
        for name, values in measures.items()
        for kind in mixed
        if kind in KINDS
    }
    at_end = np.stack([by_dim[dim][0]["recall"][:, :, -1] for dim in protocol.dims], axis=2)
    tuned_rates = [[*by_dim[dim][1], np.nan] for dim in protocol.dims]
    panels["room"] = Panel(
        "dimension d of keys and values",
        np.array(protocol.dims),
        curves(at_end, "asked"),
        {"rate_constant": dict(zip(names, map(list, zip(*tuned_rates, strict=True)), strict=True))},
        log=False,
    )
    panels |= {
        f"pairs_{name}": agent_by_agent(problem, measures["recall"][:, names.index(name), -1])
        for name in DRAWN
        if name in names
    }
    return Results(problem, panels)


def agent_by_agent(problem: Problem, values: np.ndarray) -> Panel:
    """Each agent's answers about each, (S, L, L), one curve per agent that is asked."""
    names = problem.corpus.names
    columns = {
        "about": dict.fromkeys(names, names),
        "interest": dict(zip(names, problem.corpus.interests.tolist(), strict=True)),
        "round_trip": dict(zip(names, problem.routes.delays[: len(names), : len(names)].tolist(), strict=True)),
    }
    samples = dict(zip(names, np.moveaxis(values, 1, 0), strict=True))
    return Panel("about the library of agent", np.arange(len(names)), samples, columns, log=False)


def draw(figure: Picture, results: Results, protocol: Protocol) -> None:
    """Draw the numbers."""
    problem, panels = results
    kinds = [kind for kind in KINDS if f"{kind}_recall" in panels]
    pairs = [name for name in DRAWN if f"pairs_{name}" in panels]
    # Rows of equal numbers of cells, whatever there is to draw.
    cells = 12 // (len(kinds) + 1)
    top = np.repeat([*kinds, "room"], cells)
    bottom = np.repeat(["map", *pairs], [len(top) - 4 * len(pairs), *[4] * len(pairs)])
    axes = figure.subplot_mosaic([top.tolist(), bottom.tolist()], height_ratios=[1, 1.25])
    for kind in kinds:
        panels[f"{kind}_recall"].draw(axes[kind], _titles(protocol)[kind], MEASURES["recall"] if kind == "own" else "")
        plotting.log_axis(axes[kind].xaxis, protocol.horizons)
        axes[kind].set_ylim(-0.02, 1.04)
    panels["room"].draw(axes["room"], f"as asked, after {max(protocol.horizons)} steps", "")
    plotting.log_axis(axes["room"].xaxis, protocol.dims)
    axes["room"].set_ylim(-0.02, 1.04)
    draw_map(axes["map"], problem)
    for name in pairs:
        draw_pairs(axes[name], panels[f"pairs_{name}"], name, label=name == pairs[0])
    letter(axes[name] for name in [*kinds, "room", "map", *pairs])
    if pairs:
        bar = ScalarMappable(Normalize(0, 1), COLORS)
        figure.colorbar(bar, ax=[axes[name] for name in pairs], label="recall@1", shrink=0.8)
    figure.legend(*axes["own"].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    what = f"Paragraphs of {protocol.text.path.name}" if protocol.text else "Docstrings and help topics"
    note(
        figure,
        f"{what}: {len(problem.titles)} documents, asked for by title among all bodies; hashed n-grams, projected at"
        f" random to d = {protocol.dim} but in the panel of d. Memories d x d, the delta rule; an agent reads a"
        " document a step.\nAlone: it hears nobody. Matching words: it takes the title for the body, X = I. Questions"
        " about others and those as asked are weighted by interest; numbers in the cells are interests in %."
        f"\nRate constants tuned on {protocol.num_tuning_seeds} other seeds; mean and 95% interval over"
        f" {protocol.num_seeds} seeds of order and projection.",
    )


def _titles(protocol: Protocol) -> dict[str, str]:
    return {"own": "about its own paragraphs", "others": "about others' paragraphs"} if protocol.text else KINDS


def draw_map(axes: Axes, problem: Problem) -> None:
    """The network, whose library is where, and the tree of the agent that waits longest."""
    names, routes = problem.corpus.names, problem.routes
    places = nx.get_node_attributes(problem.graph, "pos")
    asker = int(np.unravel_index(np.argmax(routes.delays), routes.delays.shape)[0])
    nx.draw_networkx_edges(problem.graph, places, ax=axes, edge_color="0.75")
    tree = nx.Graph(routes.trees[asker])
    nx.draw_networkx_edges(tree, places, ax=axes, edge_color="#0072B2", width=2.2)
    for node, place in places.items():
        is_agent, is_asked = node < len(names), routes.hops[asker, node] > 0
        face = "#E69F00" if node == asker else "white" if is_asked else "0.8"
        axes.plot(*place, "o" if is_agent else ".", color="black", markerfacecolor=face, markersize=8, zorder=3)
        if is_agent:
            text = names[node] + (rf" $\tau$={routes.delays[asker, node]}" if is_asked else "")
            label_beside(axes, problem.graph, node, text)
    axes.margins(x=0.22, y=0.12)
    axes.set_axis_off()
    axes.set_title(f"{problem.graph.number_of_nodes()} places; round trips of {names[asker]} (steps)")


def label_beside(axes: Axes, graph: nx.Graph, node: int, text: str) -> None:
    """Write beside a node, where its links leave much room, rather away from the middle of the network."""
    places = {other: np.array(place) for other, place in nx.get_node_attributes(graph, "pos").items()}
    links = np.array([places[neighbor] - places[node] for neighbor in graph[node]])
    outward = places[node] - np.mean(list(places.values()), axis=0)
    angles = np.sort(np.arctan2(links[:, 1], links[:, 0]))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    ways = np.stack([np.cos(angles + gaps / 2), np.sin(angles + gaps / 2)], axis=1)
    x, y = ways[np.argmax(gaps + ways @ outward / np.linalg.norm(outward))]
    aligned = "left" if x > 0.4 else "right" if x < -0.4 else "center"
    style = {"textcoords": "offset points", "ha": aligned, "va": "center", "fontsize": 8, "zorder": 4}
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    # The layout would make room for it outside of the panel, which its margins have inside.
    axes.annotate(text, tuple(places[node]), xytext=(9 * x, 10 * y), bbox=box, **style).set_in_layout(False)


def draw_pairs(axes: Axes, panel: Panel, name: str, *, label: bool) -> None:
    """A matrix of recall, agent by library, with the interests written into it."""
    names = list(panel.samples)
    means = np.stack([panel.summary(samples)["mean"] for samples in panel.samples.values()])
    axes.imshow(means, cmap=COLORS, vmin=0, vmax=1)
    for row, asker in enumerate(names):
        for column, interest in enumerate(panel.columns["interest"][asker]):
            if interest > 0:
                text = f"{100 * interest:.0f}" if interest >= 0.005 else "<1"
                color = "black" if means[row, column] > 0.5 else "white"
                axes.text(column, row, text, color=color, fontsize=6.5, ha="center", va="center")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names if label else [""] * len(names))
    axes.set(title=name, xlabel="question about", ylabel="asked agent" if label else "")


def facts(results: Results, protocol: Protocol) -> dict[str, Any]:
    """What it takes to make the figure again, beside its protocol: the documents and the network."""
    problem = results.problem
    names = problem.corpus.names
    places = nx.get_node_attributes(problem.graph, "name")
    return {
        "text": str(protocol.text.path) if protocol.text else None,
        "libraries": {} if protocol.text else versions(names),
        "documents": dict(zip(names, np.bincount(problem.corpus.holders).tolist(), strict=True)),
        "places": {name: places[agent] for agent, name in enumerate(names)},
        "graph": sorted(problem.graph.edges),
    }


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """Of installed libraries, by the names by which they are imported; of Python too."""
    packages = importlib.metadata.packages_distributions()
    return {
        name: importlib.metadata.version(packages[name][0]) if name in packages else platform.python_version()
        for name in libraries
    }


def reading_text(protocol: Protocol, path: Path) -> Protocol:
    """With the paragraphs of a text in place of the libraries' documents.

    Raises:
        ValueError: a file that cannot be read, fewer paragraphs than places.
    """
    documents = tuple(recall.read_text(path))
    num_places = len(damjax.graphs.topology(protocol.topology))
    recall.split_evenly(documents, num_places)  # raises where there are too few
    return dataclasses.replace(protocol, text=Text(path, documents))


OPTIONS = {
    "text": Option(
        "paragraphs of this text, not the libraries", reading_text, reading={"type": Path, "metavar": "FILE"}
    )
}


FIGURE = Figure(
    "recall_documents",
    __doc__,
    CLAIM,
    Protocol(),
    QUICK,
    compute,
    draw,
    (13.0, 7.2),
    tables=lambda results, protocol: tabulate(results.panels),
    facts=facts,
    options=OPTIONS,
    needs=("topohub",),
)
