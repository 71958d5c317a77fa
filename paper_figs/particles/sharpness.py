"""(c) Sharpness along trajectories against 2 / eta: large steps swing about the edge of stability, then leave it."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles
from paper_figs.figure import Figure, Picture
from paper_figs.panels import POWERS, Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, STEP
from paper_figs.sweeps import Sweep, quiet


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made."""

    learning_rates: tuple[float, ...] = (1.0, 5.0, 10.0)
    num_steps: int = 1000
    overlap: float = 0.95
    frequency: float = 0.75
    num_tokens: int = 5
    dim: int = 5
    random_rates: tuple[float, ...] = (3.0, 10.0, 20.0)
    num_seeds: int = 32
    base_seed: int = 0


CLAIM = "Large steps swing about the edge of stability, 2 / \u03b7, then leave it"
QUICK = {"num_steps": 50, "num_seeds": 3}


def two_tokens(protocol: Protocol, rate: jax.Array, times: np.ndarray) -> dict[str, jax.Array]:
    """Sharpness times eta / 2, by the closed form of two classes, and the loss, at ``times``."""
    problem = particles.two_tokens(protocol.overlap, protocol.frequency)
    read = common.train(particles.particle_system(2, 2), rate, problem, protocol.num_steps)
    sharpness = jax.vmap(lambda margins: particles.binary.sharpness(margins, problem))(read.margins[times])
    return {"sharpness": rate / 2 * sharpness, "losses": read.losses[times]}


def random_tokens(protocol: Protocol, key: jax.Array, rate: jax.Array, times: np.ndarray) -> jax.Array:
    """The same for random embeddings on the sphere, one class a token, by power iteration."""
    input_key, output_key, start_key = jax.random.split(key, 3)
    num_tokens = protocol.num_tokens
    inputs = particles.embeddings.sphere(input_key, num_tokens, protocol.dim)
    outputs = particles.embeddings.sphere(output_key, num_tokens, protocol.dim)
    problem = common.own_classes(inputs, outputs, 1.0)
    memory = particles.particle_system(num_tokens, num_tokens)
    start = jnp.zeros((num_tokens, num_tokens))
    scores = particles.simulate(start, problem, rate, protocol.num_steps)[times]
    # One after the other: mapped together they would all iterate as long as the slowest.
    return (
        rate / 2 * jax.lax.map(lambda s: particles.sharpness(memory, s, problem, key=start_key, tolerance=1e-3), scores)
    )


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    times = np.union1d(np.arange(16), common.log_times(protocol.num_steps, 20))
    run = lambda _, rate: two_tokens(protocol, rate, times)  # noqa: E731
    pair = sweep("two tokens", run, keys=common.one_key(), rate=protocol.learning_rates)
    keys = jax.random.split(jax.random.key(protocol.base_seed), protocol.num_seeds)
    run = lambda key, rate: random_tokens(protocol, key, rate, times)  # noqa: E731
    random = sweep("random tokens", run, keys=keys, rate=protocol.random_rates)
    return {
        name: Panel(STEP, times, common.by_rate(rates, np.asarray(values)))
        for name, rates, values in (
            ("sharpness", protocol.learning_rates, pair["sharpness"]),
            ("losses", protocol.learning_rates, pair["losses"]),
            ("random", protocol.random_rates, random["value"]),
        )
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    titles = {
        "sharpness": (r"two tokens: sharpness, in units of 2 / $\eta$", r"$\eta$ sharpness / 2"),
        "losses": ("two tokens: loss", LOSS),
        "random": ("random tokens: sharpness", r"$\eta$ sharpness / 2"),
    }
    for axes, (name, (title, ylabel)) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        panels[name].draw(axes, title, ylabel, ticks=POWERS)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=-0.2)
        if name != "losses":
            axes.axhline(1, color="0.4", linewidth=0.8)
            axes.text(0.99, 1.15, "unstable above", ha="right", fontsize=7, transform=axes.get_yaxis_transform())
        axes.legend(fontsize=7)
    letter(figure.axes)
    note(
        figure,
        rf"(a, b) $\alpha$ = {protocol.overlap:g}, $p_1$ = {protocol.frequency:g}, different classes."
        f" (c) N = M = {protocol.num_tokens}, d = {protocol.dim}, Zipf(1), embeddings on the sphere; mean and 95%"
        f" interval over {protocol.num_seeds} seeds.",
    )


FIGURE = Figure("sharpness", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.3))
