"""How many pairs seven memories recall after one pass: of random keys, of correlated ones, and where pairs change."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import recall
from damjax.recall import memories
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.sweeps import Sweep, quiet


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 16
    num_tuning_seeds: int = 8
    dim: int = 32
    vocabulary: int = 512
    loads: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)  # pairs over d
    correlation: float = 0.5
    sharpness: float = 4.0  # of the softmax features, and the root of the attention's
    dtype: str = "float32"
    base_seed: int = 0

    @property
    def num_pairs(self) -> list[int]:
        """Of every load."""
        return [round(load * self.dim) for load in self.loads]


QUICK = {"num_seeds": 3, "dim": 8, "vocabulary": 64, "loads": (0.5, 2.0)}
CLAIM = "The delta rule keeps what linear attention confuses; a gate mends linear attention where pairs change"
CONDITIONS = {  # panel -> title, whether keys are correlated, whether pairs are rewritten
    "random": ("random keys", False, False),
    "correlated": ("correlated keys", True, False),
    "rewritten": ("half of the pairs rewritten", False, True),
}


class Kind(NamedTuple):
    """A memory with its loss, and the constant that is tuned.

    Attributes:
        label: its name in the legend.
        memory: ``memory(protocol)``.
        constants: among which the best is chosen.
        loss: of its objective.
        gated: whether the constant is the gate, and the rate 1, or the constant the rate.
    """

    label: str
    memory: Callable[[Protocol], recall.Memory]
    constants: tuple[float, ...]
    loss: damjax.objectives.Objective = damjax.objectives.delta_net()
    gated: bool = False


def linear(protocol: Protocol) -> recall.Memory:
    """A matrix (d, d)."""
    return memories.linear(protocol.dim, protocol.dim, dtype=protocol.dtype)


def softmax_features(protocol: Protocol) -> recall.Memory:
    """A matrix (d, 8 d) over positive random features of unit length."""
    phi = damjax.features.positive_orthogonal(
        jax.random.key(protocol.base_seed), key_dim=protocol.dim, num_features=8 * protocol.dim
    )

    def normalised(cue: jax.Array) -> jax.Array:
        features = phi(jnp.asarray(protocol.sharpness, cue.dtype) * cue).astype(cue.dtype)
        return features / jnp.linalg.norm(features)

    return memories.linear(protocol.dim, protocol.dim, feature_map=normalised, dtype=protocol.dtype)


def slots(protocol: Protocol) -> recall.Memory:
    """d / 2 slots: as many numbers as the matrix."""
    beta = protocol.sharpness**2 / 2
    return memories.slots(protocol.dim, protocol.dim, num_slots=protocol.dim // 2, beta=beta, dtype=protocol.dtype)


def mlp(protocol: Protocol) -> recall.Memory:
    """d / 2 hidden units: as many numbers as the matrix."""
    return memories.mlp(protocol.dim, protocol.dim, width=protocol.dim // 2, dtype=protocol.dtype)


def window(protocol: Protocol) -> recall.Memory:
    """All associations."""
    most, beta = max(protocol.num_pairs), protocol.sharpness**2
    return memories.window_attention(
        protocol.dim, protocol.dim, length=most + most // 2, beta=beta, dtype=protocol.dtype
    )


RATES = (0.1, 0.3, 0.5, 1.0, 2.0)
KINDS = {  # the name of its sweep -> a memory
    "linear": Kind("linear attention", linear, (1.0,), damjax.objectives.linear_attention()),
    "delta": Kind("delta rule", linear, RATES),
    "gated": Kind(
        "gated linear attention",
        linear,
        (0.9, 0.95, 0.98, 0.99),
        damjax.objectives.gated_linear_attention(),
        gated=True,
    ),
    "features": Kind("delta rule, softmax features ($8d^2$ numbers)", softmax_features, RATES),
    "slots": Kind("slots", slots, RATES),
    "mlp": Kind("MLP", mlp, RATES),
    "window": Kind("window attention (all pairs)", window, (1.0,)),
}


def draw_task(
    key: jax.Array, num_pairs: jax.Array, correlation: jax.Array, rewritten: jax.Array, protocol: Protocol
) -> recall.Task:
    """MQAR of one agent with the largest number of pairs, of which the first ones count, and half of them again.

    So that all loads have one shape; the pairs are drawn alike, so that the first ones are as good as any.
    """
    most = max(protocol.num_pairs)
    token_key, keys_key, values_key = jax.random.split(key, 3)
    again, half = most // 2, protocol.vocabulary // 2
    drawn = recall.mqar(
        token_key, length=4 * (most + again), num_pairs=most, num_rewritten=again, vocabulary=protocol.vocabulary
    )
    kept = jnp.where(jnp.arange(most, dtype=num_pairs.dtype) < num_pairs, drawn.tokens[: 2 * most : 2, 0], -1)
    counts = jnp.isin(drawn.tokens, kept)
    writes = drawn.written & counts & ((jnp.arange(drawn.tokens.shape[0]) < 2 * most) | rewritten)[:, None]
    # What would have been written again keeps its first value.
    values = (
        jnp.zeros(protocol.vocabulary, jnp.int32)
        .at[drawn.tokens[: 2 * most : 2, 0]]
        .set(drawn.tokens[1 : 2 * most : 2, 0])
    )
    targets = jnp.where(rewritten, drawn.targets, values[drawn.tokens])
    asked = (drawn.targets >= 0) & counts
    drawn = drawn._replace(written=writes, targets=jnp.where(asked, targets, -1), agents=jnp.where(asked, 0, -1))
    vectors = [
        recall.unit_vectors(one, half, protocol.dim, correlation=share, dtype=protocol.dtype)
        for one, share in ((keys_key, correlation), (values_key, 0.0))
    ]
    return recall.embed_sequences(drawn, jnp.concatenate(vectors))


class Run(NamedTuple):
    """What all memories see of a seed in one condition at one load: a key of their own, and the task."""

    key: jax.Array
    task: recall.Task


def draw_runs(protocol: Protocol) -> Run:
    """Conditions times loads times seeds, tuning seeds first, as one axis.

    Drawn once for all memories, since it is the drawing that takes long to compile.
    """
    _, correlated, rewritten = zip(*CONDITIONS.values(), strict=True)
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds + protocol.num_tuning_seeds)
    shape = (len(CONDITIONS), len(protocol.loads), len(keys))
    condition, load, seed = (places.ravel() for places in np.indices(shape))

    def draw(key: jax.Array, num_pairs: jax.Array, correlation: jax.Array, again: jax.Array) -> Run:
        task_key, memory_key = jax.random.split(key)
        return Run(memory_key, draw_task(task_key, num_pairs, correlation, again, protocol))

    return jax.jit(jax.vmap(draw))(
        keys[seed],
        np.array(protocol.num_pairs, np.int32)[load],
        np.array(protocol.correlation, protocol.dtype) * np.array(correlated, protocol.dtype)[condition],
        np.array(rewritten)[condition],
    )


def accuracy(kind: Kind, protocol: Protocol, key: jax.Array, constant: jax.Array, task: recall.Task) -> jax.Array:
    """The share of questions that are answered right after one pass over the pairs."""
    memory, most = kind.memory(protocol), max(protocol.num_pairs)
    stream = jax.tree.map(lambda field: field[: most + most // 2], task.associations)
    alone = np.eye(1)
    if kind.memory is window:
        algorithm = memories.share_associations(alone, np.zeros((1, 1), int))
    else:
        algorithm = damjax.ogd(
            memory.objective(kind.loss),
            alone,
            learning_rate=1.0 if kind.gated else constant,
            domain=damjax.domains.unconstrained(),
        )
    if kind.gated:
        stream = stream._replace(gates=jnp.full(stream.keys.shape[:2], constant, protocol.dtype))
    state, _ = damjax.simulate(algorithm, jax.vmap(memory.init)(key[None]), stream, observe=lambda *step: None)
    return recall.recall_measures(recall.ask(memory.apply, state.params, task), task.questions)["accuracy"]


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure: one panel per condition, one curve per kind of memory."""
    num_tuning, num_seeds = protocol.num_tuning_seeds, protocol.num_seeds + protocol.num_tuning_seeds
    runs = draw_runs(protocol)
    samples: dict[str, dict[str, np.ndarray]] = {name: {} for name in CONDITIONS}
    chosen: dict[str, dict[str, list[float]]] = {name: {} for name in CONDITIONS}
    for name, kind in KINDS.items():
        results = sweep(
            name,
            lambda run, constant, kind=kind: {"accuracy": accuracy(kind, protocol, run.key, constant, run.task)},
            keys=runs,
            constant=np.array(kind.constants, protocol.dtype),
            vectorize=jax.vmap,
        )
        flat = np.asarray(results["accuracy"], float)
        accuracies = np.moveaxis(flat.reshape(-1, len(CONDITIONS), len(protocol.loads), num_seeds), 0, 2)
        best = accuracies[..., :num_tuning].mean(axis=-1).argmax(axis=-1)
        picked = np.take_along_axis(accuracies, best[..., None, None], axis=2)[:, :, 0, num_tuning:]
        for condition, values, index in zip(CONDITIONS, picked, best, strict=True):
            samples[condition][kind.label] = values.T
            chosen[condition][kind.label] = np.array(kind.constants)[index].tolist()
    loads = np.array(protocol.num_pairs) / protocol.dim
    return {
        name: Panel("pairs $P$ / dimension $d$", loads, samples[name], {"constant": chosen[name]}, log=False)
        for name in CONDITIONS
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    grid = figure.subplots(1, 3, sharey=True)
    for axes, (name, (title, *_)) in zip(grid, CONDITIONS.items(), strict=True):
        panels[name].draw(axes, title, "share of pairs recalled" if axes is grid[0] else "")
        axes.set_xscale("log", base=2)
        axes.set_xticks(panels[name].x, [f"{x:g}" for x in panels[name].x])
    grid[0].set_ylim(0, 1.03)
    letter(grid)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    note(
        figure,
        f"MQAR in continuous form, one agent, d = {protocol.dim}, one pass, {protocol.vocabulary} candidates; keys of"
        f" cosine {protocol.correlation:g} in (b). Memories without another number in the legend hold $d^2$ numbers."
        f"\nRates and the gate chosen on {protocol.num_tuning_seeds} other seeds, point by point. Mean and 95% interval"
        f" over {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("recall_capacity", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (9.5, 3.8))
