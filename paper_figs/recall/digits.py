"""Handwritten digits completed and named by agents that each see two of the ten classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

import damjax
from damjax import plotting, recall
from damjax.routing import compile_routes
from paper_figs.experiment import ALGORITHMS, Factory, Parts
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note, tabulate
from paper_figs.recall.common import ALONE, learn
from paper_figs.sweeps import Sweep, quiet

BEST, IMAGE = "best map", "image"
ABOUT = {"own": "own classes", "others": "others' classes"}
SIDE = 8  # pixels
ERRORS = (0.7, 0.8, 1.0, 1.5, 2.0, 3.0)  # ticks of NMSE


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 8
    num_tuning_seeds: int = 4
    classes_per_agent: int = 2
    num_held_out: int = 30  # images of every class
    weights: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8, 1.0)  # on oneself; the others share the rest
    weight: float = 0.5  # where not all are drawn
    horizons: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    completion_constants: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    classification_constants: tuple[float, ...] = (2.0, 6.0, 20.0, 60.0)
    routing: str = "steiner"
    dtype: str = "float32"
    base_seed: int = 0


QUICK = {
    "num_seeds": 2,
    "num_held_out": 3,
    "weights": (0.1, 0.5, 1.0),
    "horizons": (8, 32),
    "completion_constants": (1.0,),
    "classification_constants": (10.0,),
}
CLAIM = (
    "Agents that listen complete and name digits they never saw, at a price in their own;"
    " consensus is the even end of this trade; delays cost little"
)


class Exam(NamedTuple):
    """What is asked of the agents.

    Attributes:
        title: of its panels.
        measure: of ``damjax.recall.recall_measures``.
        label: of its axis.
        sign: 1 where less is better, -1 where more is.
    """

    title: str
    measure: str
    label: str
    sign: int


EXAMS = {
    "completion": Exam("completion", "nmse", "NMSE of the lower half", 1),
    "classification": Exam("classification", "accuracy", "accuracy", -1),
}


class Results(NamedTuple):
    """What was learned.

    Attributes:
        panels: by name.
        images: by memory, completed images of ten classes, (10, 64), pixels in 0 .. 1 and beyond.
        seen: whether the agent that completes them has seen images of the class, (10,).
    """

    panels: dict[str, Panel]
    images: dict[str, np.ndarray]
    seen: np.ndarray


def draw_tasks(protocol: Protocol, keys: jax.Array, exam: str) -> recall.Task:
    """What the agents of every seed see and are asked; leading axis S."""

    @jax.jit
    def draw_task(key: jax.Array) -> recall.Task:
        return recall.digits(
            key,
            num_steps=max(protocol.horizons),
            classes_per_agent=protocol.classes_per_agent,
            task=exam,
            num_held_out=protocol.num_held_out,
            dtype=protocol.dtype,
        )

    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(draw_task, keys))


def parts(protocol: Protocol, exam: str) -> Parts:
    """Of the algorithms, on the paper's network, where all want to know of all; weights are still to come."""
    graph = damjax.graphs.paper_network()
    everyone = jnp.full((len(graph), len(graph)), 1 / len(graph), protocol.dtype)
    routes = compile_routes(graph, everyone, method=protocol.routing)
    mixing = damjax.graphs.metropolis_weights(graph).astype(protocol.dtype)
    if exam == "completion":
        loss = damjax.objectives.delta_net()
    else:
        loss = damjax.objectives.cross_entropy(np.eye(10, dtype=protocol.dtype))
    delays = jnp.asarray(routes.delays)
    return Parts(loss, damjax.domains.unconstrained(), everyone, delays, routes.max_delay, mixing)


def interests(weight: jax.Array, num_agents: int) -> jax.Array:
    """Everyone gives itself the weight, and the others equal shares of the rest, (N, N)."""
    own = jnp.eye(num_agents, dtype=bool)
    return jnp.where(own, weight, (1 - weight) / (num_agents - 1))


def answers(
    protocol: Protocol, task: recall.Task, memories: jax.Array, exam: str
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Measures by whom the questions are about, (H,), of memories (H, N, dv, dk); what the first agent recalls last."""
    memory = recall.memories.linear(*memories.shape[:1:-1], dtype=memories.dtype)
    measure = EXAMS[exam].measure

    def about(one: jax.Array) -> dict[str, jax.Array]:
        answered = recall.ask(memory.apply, one, task)
        return {kind: recall.recall_measures(answered, task.questions, about=kind)[measure] for kind in ABOUT}

    cues = jnp.asarray(task.questions.keys)[:: protocol.num_held_out, 0]
    return jax.lax.map(about, memories), jax.vmap(memory.apply, in_axes=(None, 0))(memories[-1, 0], cues)


def examine(
    protocol: Protocol, exam: str, tasks: recall.Task, sweep: Sweep, algorithms: Mapping[str, Factory]
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Measures of every algorithm at its best rate constant for every weight, and those constants.

    The best is the one of the best measure, own and others' weighed as they are learned, after the last step, on the
    tuning seeds, which come first.

    Returns:
        "own" and "others", (algorithms, weights, S, H), "recalls" (algorithms, weights, S, 10, dv); the constants by
        algorithm, one for every weight.
    """
    base, constants = parts(protocol, exam), getattr(protocol, f"{exam}_constants")
    num_agents, num_tuning = len(base.mixing), protocol.num_tuning_seeds

    def run(task: recall.Task, algorithm: str, weight: jax.Array, constant: jax.Array) -> dict[str, jax.Array]:
        learner = algorithms[algorithm](base._replace(weights=interests(weight, num_agents)), constant)
        memories = learn(learner, task, num_agents, protocol.horizons)
        measured, recalls = answers(protocol, task, memories, exam)
        return measured | {"recalls": recalls}

    # Tuning seeds fit into such batches too, so that both sweeps are one program.
    mapped: dict[str, Any] = {"vectorize": jax.vmap, "batch_size": protocol.num_seeds}
    names, weights = list(algorithms), np.array(protocol.weights, protocol.dtype)
    grid = np.array(constants, protocol.dtype)
    first = jax.tree.map(lambda leaf: leaf[:num_tuning], tasks)
    tuning = sweep(f"{exam}_tuning", run, keys=first, algorithm=names, weight=weights, constant=grid, **mapped)
    own, others = (np.asarray(tuning[kind])[..., -1].mean(axis=-1) for kind in ABOUT)
    shares = weights[:, None]
    chosen = grid[np.nanargmin(EXAMS[exam].sign * (shares * own + (1 - shares) * others), axis=-1)]
    results = sweep(
        f"{exam}_evaluation",
        run,
        keys=jax.tree.map(lambda leaf: leaf[num_tuning:], tasks),
        algorithm=np.repeat(names, len(weights)).tolist(),
        weight=np.tile(weights, len(names)),
        constant=chosen.ravel(),
        zipped=[("algorithm", "weight", "constant")],
        **mapped,
    )
    values = {of: np.asarray(results[of], float) for of in (*ABOUT, "recalls")}
    values = {of: array.reshape(len(names), len(weights), *array.shape[1:]) for of, array in values.items()}
    return values, dict(zip(names, chosen.tolist(), strict=True))


def best_map(protocol: Protocol, tasks: recall.Task, sweep: Sweep) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """NMSE of the linear map that completes all agents' images best, by whom it is asked about, (S,); what it recalls.

    Args:
        protocol: of the runs.
        tasks: of completion, of the seeds that are evaluated.
        sweep: computes.
    """
    base = parts(protocol, "completion")

    def run(task: recall.Task) -> dict[str, jax.Array]:
        best = damjax.hindsight.best_in_hindsight(
            base.objective, base.weights, base.domain, task.associations, [max(protocol.horizons)]
        )
        measured, recalls = answers(protocol, task, best.params, "completion")
        return {kind: values[0] for kind, values in measured.items()} | {"recalls": recalls}

    results = sweep("best", run, keys=tasks, vectorize=jax.vmap)
    return {kind: np.asarray(results[kind], float) for kind in ABOUT}, np.asarray(results["recalls"])


def compute(protocol: Protocol, sweep: Sweep = quiet, algorithms: Mapping[str, Factory] = ALGORITHMS) -> Results:
    """All numbers of the figure, for the paper's algorithms or others."""
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_tuning_seeds + protocol.num_seeds)
    tasks = draw_tasks(protocol, keys, "completion")
    values, chosen = examine(protocol, "completion", tasks, sweep, algorithms)
    evaluated = jax.tree.map(lambda leaf: leaf[protocol.num_tuning_seeds :], tasks)
    best, best_recalls = best_map(protocol, evaluated, sweep)
    flat = {kind: np.repeat(nmse[:, None], len(protocol.weights), axis=1) for kind, nmse in best.items()}
    panels = panels_of(protocol, "completion", values, chosen, flat)
    last = values["recalls"][:, :, 0]
    recalls = {ALONE: last[list(algorithms).index("OGD"), protocol.weights.index(1.0)]}
    recalls |= dict(zip(algorithms, last[:, protocol.weights.index(protocol.weight)], strict=True))
    first = jax.tree.map(lambda leaf: leaf[0], evaluated)
    images, seen = complete(protocol, first, recalls | {BEST: best_recalls[0]})

    tasks = draw_tasks(protocol, keys, "classification")
    panels |= panels_of(protocol, "classification", *examine(protocol, "classification", tasks, sweep, algorithms), {})
    return Results(panels, images, seen)


def panels_of(
    protocol: Protocol,
    exam: str,
    values: Mapping[str, np.ndarray],
    chosen: Mapping[str, list[float]],
    flat: Mapping[str, np.ndarray],
) -> dict[str, Panel]:
    """What ``examine`` returned as panels, against the weight and against time; ``flat`` is drawn beside, (S, W)."""
    number = protocol.weights.index(protocol.weight)
    panels = {
        f"{exam}_{kind}": Panel(
            "weight on oneself $w$",
            np.array(protocol.weights),
            {name: values[kind][i, :, :, -1].T for i, name in enumerate(chosen)} | ({BEST: flat[kind]} if flat else {}),
            {"rate_constant": {**chosen, BEST: [np.nan]}},
            log=False,
        )
        for kind in ABOUT
    }
    panels[f"{exam}_time"] = Panel(
        "time (steps)",
        np.array(protocol.horizons),
        {name: values["others"][i, number] for i, name in enumerate(chosen)},
        {"rate_constant": {name: [constants[number]] for name, constants in chosen.items()}},
        log=exam == "completion",
    )
    return panels


def complete(
    protocol: Protocol, task: recall.Task, recalls: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Whole images of what the first agent recalls of one image of every class, and which classes it has seen."""
    rows = np.s_[:: protocol.num_held_out]
    upper, answers = np.asarray(task.questions.keys)[rows, 0], np.asarray(task.questions.answers)[rows, 0]
    from sklearn.datasets import load_digits  # of the extra: not every figure needs it

    mean = np.asarray(load_digits(return_X_y=True)[0]).mean(axis=0) / 16  # what the task has taken away
    lower = {IMAGE: np.asarray(task.candidates)[answers]} | dict(recalls)
    images = {name: np.concatenate([upper, half], axis=1) + mean for name, half in lower.items()}
    return images, np.asarray(task.questions.agents)[rows, 0] == 0


def draw(figure: Picture, results: Results, protocol: Protocol) -> None:
    """Draw the numbers."""
    panels = results.panels
    names = [[f"{exam}_{what}" for what in (*ABOUT, "time")] + ["images"] for exam in EXAMS]
    mosaic: list[Any] = [*names]
    axes = figure.subplot_mosaic(mosaic, width_ratios=[1, 1, 1, 1.15])
    for (name, exam), row in zip(EXAMS.items(), names, strict=True):
        titles = [f"{exam.title}, {about}" for about in ABOUT.values()]
        titles.append(f"the same, $w$ = {protocol.weight:g}")
        for panel, title in zip(row, titles, strict=False):
            panels[panel].draw(axes[panel], title, exam.label if panel == row[0] else "")
        plotting.log_axis(axes[f"{name}_time"].xaxis, protocol.horizons)
    draw_images(axes["images"], results, protocol.weight)
    letter(dict.fromkeys(axes[name] for row in names for name in row))
    figure.legend(*axes["completion_own"].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    plotting.log_axis(axes["completion_time"].yaxis, ERRORS)
    half = SIDE**2 // 2
    note(
        figure,
        f"scikit-learn's digits on the paper's network: an agent sees {protocol.classes_per_agent} of ten classes, an"
        f" image a step, and is asked about {protocol.num_held_out} held-out images of each, after"
        f" {max(protocol.horizons)} steps where time is no axis.\nWeight w on oneself, 1 being alone, equal shares of"
        f" the rest. Completion: linear memories {half} x {half}, squared error; the mean image has NMSE 1. Best map:"
        f" the one that fits all that all agents saw.\nClassification: 10 x {SIDE**2}, cross-entropy. Rate constants"
        f" tuned on {protocol.num_tuning_seeds} other seeds, point by point; mean and 95% interval over"
        f" {protocol.num_seeds} seeds.",
    )


def draw_images(axes: Axes, results: Results, weight: float) -> None:
    """Completed images, a row for every class, those that the agent has seen first."""
    order = np.argsort(~results.seen, kind="stable")
    gap = 1
    columns = [
        np.concatenate([np.pad(image.reshape(SIDE, SIDE), gap, constant_values=np.nan) for image in images[order]])
        for images in results.images.values()
    ]
    colors = mpl.colormaps["gray_r"].with_extremes(bad="0.85")
    axes.imshow(np.concatenate(columns, axis=1), cmap=colors, vmin=0, vmax=1)
    middles = (SIDE + 2 * gap) * (np.arange(10) + 0.5) - 0.5
    axes.set_xticks(middles[: len(columns)], results.images, rotation=90)
    axes.set_yticks(middles, [f"{number}{' seen' * bool(results.seen[number])}" for number in order])
    axes.axhline((SIDE + 2 * gap) * results.seen.sum() - 0.5, color="black", linewidth=1.5)
    axes.tick_params(length=0)
    axes.set_title(f"one agent, $w$ = {weight:g}; upper half given")


def tables(results: Results, protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """The numbers of the panels, and the pixels of the images."""
    rows = [
        {"memory": name, "class": number, "seen": bool(seen)} | {f"pixel_{i}": pixel for i, pixel in enumerate(image)}
        for name, images in results.images.items()
        for number, (seen, image) in enumerate(zip(results.seen, images.tolist(), strict=True))
    ]
    return tabulate(results.panels) | {"_images": rows}


def facts(results: Results, protocol: Protocol) -> dict[str, Any]:
    """What it takes to make the figure again, beside its protocol: the network."""
    return {"graph": sorted(damjax.graphs.paper_network().edges)}


FIGURE = Figure(
    "recall_digits",
    __doc__,
    CLAIM,
    Protocol(),
    QUICK,
    compute,
    draw,
    (12.5, 6.2),
    tables=tables,
    facts=facts,
    needs=("sklearn",),
)
