"""A stack of two memories, the second fed with the first's recalls: what depth is worth without back-propagation."""

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
from paper_figs.panels import DECADES, Panel, letter, note
from paper_figs.sweeps import Sweep, quiet


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every run of the figure is made."""

    num_seeds: int = 8
    num_tuning_seeds: int = 4
    num_steps: int = 2400
    dim: int = 5
    noise_std: float = 0.05
    radius: float = 20.0  # in which what too large a rate makes of a memory stays finite
    num_windows: int = 12
    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    dtype: str = "float32"
    base_seed: int = 0


QUICK = {"num_seeds": 2, "num_tuning_seeds": 2, "num_steps": 60, "num_windows": 3, "rates": (0.02, 0.1)}
CLAIM = (
    "Without back-propagation the second memory corrects what the first recalls; it cannot ask it for something else"
)
GRAPH = damjax.graphs.path(4)
ROUND_TRIPS = damjax.routing.compile_routes(GRAPH, np.full((4, 4), 0.25)).delays

TEACHERS: dict[str, tuple[str, Callable[[jax.Array], jax.Array]]] = {
    "linear": ("$v = Mk$", lambda response: response),
    "rectified": (r"$v = \max(Mk, 0)$", jax.nn.relu),
    "folded": ("$v = |Mk|$", jnp.abs),
}


class Kind(NamedTuple):
    """A memory, what it is learned by, and its name in the legend."""

    label: str
    memory: recall.Memory
    objective: damjax.objectives.MemoryLoss


def with_constant(cue: jax.Array) -> jax.Array:
    """A cue and a one, so that a matrix maps it affinely."""
    return jnp.concatenate([cue, jnp.ones_like(cue[:1])])


def with_rectified(cue: jax.Array) -> jax.Array:
    """A cue, its positive part, and a one."""
    return with_constant(jnp.concatenate([cue, jax.nn.relu(cue)]))


def unchanged(recall: jax.Array) -> jax.Array:
    """What is between two memories of which the second makes features itself."""
    return recall


def make_kinds(protocol: Protocol) -> dict[str, Kind]:
    """All memories, by the name of their sweep; those of two layers, and the random one, hold about as many numbers."""
    dim, dtype = protocol.dim, protocol.dtype
    directions = jax.random.normal(jax.random.key(protocol.base_seed), (2 * dim, dim + 1), dtype) / dim**0.5

    def random_layer(cue: jax.Array) -> jax.Array:
        return with_constant(jax.nn.relu(directions.astype(cue.dtype) @ with_constant(cue)))

    layer = memories.linear(dim, dim, feature_map=with_constant, dtype=dtype)
    above = memories.linear(dim, dim, feature_map=with_rectified, dtype=dtype)
    fixed = memories.linear(dim, dim, feature_map=random_layer, dtype=dtype)
    two = memories.stack(layer, above, activation=unchanged)
    by_itself = memories.layer_by_layer(layer, above, activation=unchanged)
    trained = memories.mlp(dim, dim, width=3 * dim // 2, activation=jax.nn.relu, dtype=dtype)
    return {
        "one": Kind("one memory", layer, layer.objective()),
        "two": Kind("two, each by its own loss", two, by_itself),
        "random": Kind("one, over a random layer", fixed, fixed.objective()),
        "mlp": Kind("two layers, back-propagation", trained, trained.objective()),
    }


def draw_stream(key: jax.Array, teacher: jax.Array, protocol: Protocol) -> damjax.Associations:
    """Cues on [-1, 1]^d and the responses of a teacher, by its number, whom all agents share, with noise."""
    cue_key, target_key, noise_key = jax.random.split(key, 3)
    shape = (protocol.num_steps, len(GRAPH), protocol.dim)
    cues = jax.random.uniform(cue_key, shape, protocol.dtype, -1.0, 1.0)
    # So that entries of M k have variance one.
    target = (3 / protocol.dim) ** 0.5 * jax.random.normal(target_key, (protocol.dim, protocol.dim), protocol.dtype)
    noise = jnp.asarray(protocol.noise_std, protocol.dtype) * jax.random.normal(noise_key, shape, protocol.dtype)
    responses = jnp.einsum("ij,tnj->tni", target, cues, precision="highest")
    bent = jax.lax.switch(teacher, [function for _, function in TEACHERS.values()], responses)
    return damjax.Associations(cues, bent + noise)


def learning_curve(kind: Kind, protocol: Protocol, key: jax.Array, teacher: jax.Array, rate: jax.Array) -> jax.Array:
    """The squared error over the squared response, window by window, of what agents recall of those they listen to."""
    stream_key, weights_key, memory_key = jax.random.split(key, 3)
    stream = draw_stream(stream_key, teacher, protocol)
    weights = damjax.weights.dirichlet(weights_key, len(GRAPH)).astype(protocol.dtype)
    algorithm = damjax.dam_togd(
        kind.objective, weights, ROUND_TRIPS, learning_rate=rate, domain=damjax.domains.frobenius_ball(protocol.radius)
    )
    of_recall = damjax.objectives.of_memory(kind.memory.apply, damjax.objectives.delta_net().loss)

    def observe(params, associations, info):
        losses = damjax.regret.step_losses(of_recall, weights, params, associations, info.time)
        return jnp.sum(losses), jnp.sum(weights @ jnp.sum(associations.values**2, axis=1)) / 2

    start = jax.vmap(kind.memory.init)(jax.random.split(memory_key, len(GRAPH)))
    _, (losses, sizes) = damjax.simulate(algorithm, start, stream, observe=observe)
    error, size = (x.reshape(protocol.num_windows, -1).sum(axis=1) for x in (losses, sizes))
    return error / size


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure: one panel per teacher, one curve per memory."""
    num_tuning = protocol.num_tuning_seeds
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds + num_tuning)
    window = protocol.num_steps / protocol.num_windows
    middles = window * (np.arange(protocol.num_windows) + 0.5)
    errors, rates = {}, {}
    for name, kind in make_kinds(protocol).items():
        results = sweep(
            name,
            lambda key, teacher, rate, kind=kind: {"error": learning_curve(kind, protocol, key, teacher, rate)},
            keys=keys,
            teacher=np.arange(len(TEACHERS), dtype=np.int32),
            rate=np.array(protocol.rates, protocol.dtype),
            dims={"error": ("window",)},
        )
        measured = np.asarray(results["error"], float)  # by teacher, rate, seed and window
        best = measured[:, :, :num_tuning, -1].mean(axis=2).argmin(axis=1)
        errors[kind.label] = measured[np.arange(len(TEACHERS)), best, num_tuning:]
        rates[kind.label] = np.array(protocol.rates)[best]
    return {
        name: Panel(
            "step",
            middles,
            {label: of_kind[number] for label, of_kind in errors.items()},
            {"rate": {label: chosen[[number]] for label, chosen in rates.items()}},
        )
        for number, name in enumerate(TEACHERS)
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    grid = figure.subplots(1, len(TEACHERS), sharey=True)
    for axes, (name, (title, _)) in zip(grid, TEACHERS.items(), strict=True):
        panels[name].draw(axes, title, "NMSE of recalls" if axes is grid[0] else "", ticks=DECADES)
    letter(grid)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    note(
        figure,
        f"DAM-TOGD on a path of four agents with round trips of up to {ROUND_TRIPS.max()} steps; one M for all, d ="
        f" {protocol.dim}, noise {protocol.noise_std:g}. The second memory sees recalls and their positive parts.\nNMSE"
        f" over the associations that an agent listens to, by its weights, in windows of"
        f" {protocol.num_steps // protocol.num_windows} steps. Rates chosen on {protocol.num_tuning_seeds} other seeds."
        f" Mean and 95% interval over {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("recall_depth", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (9.5, 3.6))
