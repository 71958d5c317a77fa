"""(e) Capacity against d/N: Cover's theorem for two classes, rare tokens forgotten, and the calibration gap."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from damjax import particles, plotting
from paper_figs.figure import Figure, Picture
from paper_figs.panels import DECADES, POWERS, Panel, letter, note
from paper_figs.particles import common
from paper_figs.sweeps import Sweep, quiet


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; every seed stands for ``draws_per_seed`` draws of embeddings and classes."""

    sizes: tuple[int, ...] = (16, 32, 64)
    ratios: tuple[float, ...] = (0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5625, 0.625, 0.6875, 0.75)
    # Nesterov's momentum is linear in the gradients, so the particles move as the matrix W does. Plain descent at any
    # step size needs far more steps where separating hyperplanes are few.
    separation_rate: float = 100.0
    momentum: float = 0.99
    separation_steps: int = 1000
    num_tokens: int = 31
    dims: tuple[int, ...] = (3, 4, 6, 8, 12)
    learning_rate: float = 10.0
    num_steps: int = 1000
    exponent: float = 1.0
    gap_dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    draws_per_seed: int = 4
    num_seeds: int = 32
    seed: int = 0


CLAIM = "Descent separates what can be separated; where not all fits, rare tokens are forgotten, and more than need be"
QUICK = {
    "sizes": (16,),
    "separation_steps": 100,
    "num_tokens": 7,
    "dims": (2, 4),
    "num_steps": 100,
    "gap_dims": (2, 4),
    "num_seeds": 3,
}


def cover(num_tokens: int, dim: int) -> float:
    """The probability that N tokens in general position with random signs are separable in d dimensions.

    P = 2^(1-N) sum_{k<d} C(N-1, k)
    """
    return sum(math.comb(num_tokens - 1, k) for k in range(dim)) / 2 ** (num_tokens - 1)


def separable(key: jax.Array, num_tokens: int, ratio: jax.Array, protocol: Protocol) -> jax.Array:
    """Whether descent solved a problem of two random classes with Gaussian embeddings in d = ratio N, 0 or 1."""
    optimizer = optax.sgd(protocol.separation_rate, protocol.momentum, nesterov=True)
    dynamics = particles.descent(particles.particle_system(num_tokens, 2), optimizer)
    input_key, class_key = jax.random.split(key)
    inputs = common.gaussian(input_key, num_tokens, jnp.round(ratio * num_tokens), num_tokens)
    classes = jax.random.bernoulli(class_key, shape=(num_tokens,)).astype(int)
    uniform = particles.embeddings.zipf(num_tokens, 0.0)
    problem = particles.from_embeddings(inputs, jnp.eye(2), uniform, particles.one_hot(classes, 2))
    start = jnp.zeros((num_tokens, 2))
    state, _ = particles.evolve(dynamics, start, problem, protocol.separation_steps, observe=lambda _: None)
    return jnp.all(particles.margins(state.params, problem) > 0).astype(float)


def recall(key: jax.Array, dim: jax.Array, protocol: Protocol) -> jax.Array:
    """Which tokens are recalled after training, (N,) of 0 and 1; every token is its own class."""
    num_tokens = protocol.num_tokens
    dynamics = particles.descent(particles.particle_system(num_tokens, num_tokens), protocol.learning_rate)
    problem = common.own_classes(*common.spheres(key, num_tokens, dim, max(protocol.dims)), protocol.exponent)
    start = jnp.zeros((num_tokens, num_tokens))
    state, _ = particles.evolve(dynamics, start, problem, protocol.num_steps, observe=lambda _: None)
    return particles.recalled(state.params, problem).astype(float)


def inseparable(key: jax.Array, dim: int, exponent: float) -> particles.Problem:
    """d + 1 Zipf tokens uniform on the sphere, with the classes for which no memory recalls them all."""
    num_tokens = dim + 1
    inputs = particles.embeddings.sphere(key, num_tokens, dim)
    frequencies = particles.embeddings.zipf(num_tokens, exponent)
    alike = particles.from_embeddings(inputs, jnp.eye(2), frequencies, particles.one_hot(jnp.zeros(num_tokens, int), 2))
    # A token whose coefficient in the relation is negative changes sides: then all are positive.
    classes = (particles.capacity.relation(alike) < 0).astype(int)
    return particles.from_embeddings(inputs, jnp.eye(2), frequencies, particles.one_hot(classes, 2))


def gap(key: jax.Array, dim: int, exponent: float) -> dict[str, jax.Array]:
    """Error rate of the minimiser of cross-entropy, and the least possible one."""
    problem = inseparable(key, dim, exponent)
    solved = particles.capacity.minimizer(particles.capacity.relation(problem), problem.frequencies)
    return {"minimiser": solved.error_rate, "best": solved.least_error_rate}


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    seeds, ratios = protocol.num_seeds, np.array(protocol.ratios)
    keys = jax.random.split(jax.random.key(protocol.seed), seeds * protocol.draws_per_seed)

    def by_seed(values):
        """(.., points, draws) -> (.., seeds, points)."""
        means = np.asarray(values).reshape(*values.shape[:-1], seeds, -1).mean(axis=-1)
        return np.moveaxis(means, -1, -2)

    run = functools.partial(separable, protocol=protocol)
    axes = {"num_tokens": protocol.sizes, "ratio": ratios}
    # Products with matrices as large as these are faster with the runs in front.
    results = sweep("separable", run, keys=keys, static=("num_tokens",), vectorize=jax.vmap, **axes)
    fractions = dict(zip((f"N = {size}" for size in protocol.sizes), by_seed(results["value"]), strict=True))
    expected = {
        f"N = {size}": np.array([[cover(size, round(size * ratio)) for ratio in protocol.ratios]])
        for size in protocol.sizes
    }
    run = functools.partial(recall, protocol=protocol)
    recalled = sweep("recall", run, keys=keys[:seeds], dim=protocol.dims)
    ranks, grouped = common.by_rank(np.asarray(recalled["value"]))
    accuracy = {f"d = {dim}": of_dim for dim, of_dim in zip(protocol.dims, grouped, strict=True)}
    run = functools.partial(gap, exponent=protocol.exponent)
    errors = sweep("gap", run, keys=keys, static=("dim",), dim=protocol.gap_dims)
    rates = {
        "minimiser of cross-entropy": by_seed(errors["minimiser"]),
        "best memory": by_seed(errors["best"]),
    }
    return {
        "separable": Panel("d / N", ratios, fractions, log=False),
        "cover": Panel("d / N", ratios, expected, log=False),
        "accuracy": Panel("rank of the token", ranks, accuracy, log=False),
        "errors": Panel("dimension d", np.array(protocol.gap_dims), rates),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    left, middle, right = figure.subplots(1, 3)
    panels["separable"].curves(left)
    common.draw_closed_form(left, panels["cover"])
    left.set(xlabel="d / N", ylabel="fraction of runs without error", ylim=(-0.03, 1.03))
    left.set_title("two random classes; lines: Cover's theorem")
    accuracy = panels["accuracy"]
    accuracy.curves(middle)
    middle.set(xlabel=accuracy.label, ylabel="accuracy after training", ylim=(-0.03, 1.03))
    middle.set_title(f"recall by rank, N = M = {protocol.num_tokens}")
    plotting.log_axis(middle.xaxis, DECADES)
    errors = panels["errors"]
    errors.draw(right, "minimiser and best memory, N = d + 1", "error rate", ticks=POWERS)
    plotting.log_axis(right.xaxis, protocol.gap_dims)
    for axes in figure.axes:
        axes.legend(fontsize=7)
    letter(figure.axes)
    note(
        figure,
        f"(a) Gaussian embeddings, step {protocol.separation_rate:g}, Nesterov momentum {protocol.momentum:g},"
        f" {protocol.separation_steps} steps. (b) Zipf({protocol.exponent:g}), sphere, $\\eta$ ="
        f" {protocol.learning_rate:g}, {protocol.num_steps} steps; ranks in groups 1, 2-3, 4-7, ... (c) Zipf,"
        f" sphere, two classes set so that no memory is\nwithout error; closed form."
        f" Mean and 95% interval over {protocol.num_seeds} seeds; {protocol.draws_per_seed} draws in (a), (c).",
    )


FIGURE = Figure("capacity", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.6))
