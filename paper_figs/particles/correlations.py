"""(f) Correlated tokens of two classes: Wishart, block, Toeplitz and low-rank Gram matrices, and the limit of t L."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles
from paper_figs.figure import Figure, Picture
from paper_figs.panels import Panel, letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS, STEP
from paper_figs.sweeps import Sweep, quiet


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; seeds draw the Gram matrices and which half of the tokens is in a class."""

    num_tokens: int = 8
    exponent: float = 1.0
    degrees: int = 32
    num_blocks: int = 2
    block_correlation: float = 0.75
    toeplitz_base: float = 0.5
    ranks: tuple[int, int] = (4, 2)
    learning_rate: float = 5.0
    num_steps: int = 10000
    num_seeds: int = 32
    seed: int = 0


CLAIM = "t L tends to its closed form; where low rank keeps tokens from being separated, the loss stops falling"
QUICK = {"num_steps": 200, "num_seeds": 3}


def names(protocol: Protocol) -> list[str]:
    """Of the Gram matrices."""
    return ["Wishart", "block", "Toeplitz", *(f"rank {rank}" for rank in protocol.ranks)]


def grams(key: jax.Array, protocol: Protocol) -> jax.Array:
    """Input Gram matrices of unit diagonal, (names, N, N)."""
    num_tokens = protocol.num_tokens
    wishart_key, *rank_keys = jax.random.split(key, 1 + len(protocol.ranks))
    powers = protocol.toeplitz_base ** jnp.arange(num_tokens, dtype=float)
    return jnp.stack(
        [
            particles.embeddings.wishart(wishart_key, num_tokens, protocol.degrees),
            particles.embeddings.block(num_tokens, protocol.num_blocks, protocol.block_correlation),
            particles.embeddings.toeplitz(powers),
            *map(particles.embeddings.low_rank, rank_keys, [num_tokens] * len(rank_keys), protocol.ranks),
        ]
    )


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    num_tokens, times = protocol.num_tokens, common.log_times(protocol.num_steps)
    memory = particles.particle_system(num_tokens, 2)

    def run(key, matrix):
        # All matrices of a seed share the classes, half of the tokens in each.
        gram_key, class_key = jax.random.split(key)
        classes = jax.random.permutation(class_key, np.arange(num_tokens) % 2)
        frequencies = particles.embeddings.zipf(num_tokens, protocol.exponent)
        gram = grams(gram_key, protocol)[matrix]
        problem = particles.Problem(gram, jnp.eye(2), frequencies, particles.one_hot(classes, 2))
        read = common.train(memory, protocol.learning_rate, problem, protocol.num_steps)
        support = particles.binary.support(problem)
        positive = jnp.all((support > 0) & jnp.isfinite(support))
        spread = jnp.max(read.margins, axis=1) - jnp.min(read.margins, axis=1)
        return {
            "losses": read.losses[times],
            "spreads": spread[times],
            "perfect": read.errors[-1] == 0,
            "positive": positive,
            # Elsewhere there is no such limit: low-rank matrices have no inverse.
            "limits": jnp.where(positive, jnp.sum(support), 0),
        }

    kinds = names(protocol)
    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    results = sweep("runs", run, keys=keys, matrix=range(len(kinds)))
    spreads = dict(zip(kinds, np.asarray(results["spreads"]), strict=True))
    scale = protocol.learning_rate * 2 * times  # eta c t, for two orthonormal outputs
    scaled, limits, losses = {}, {}, {}
    columns = (np.asarray(results[name]) for name in ("losses", "perfect", "positive", "limits"))
    for name, loss, perfect, positive, limit in zip(kinds, *columns, strict=True):
        if name.startswith("rank"):
            for group, chosen in ((", separated", perfect), (", not separated", ~perfect)):
                if chosen.any():
                    losses[name + group] = loss[chosen]
        else:
            scaled[name] = scale * loss[positive]
            limits[name] = np.broadcast_to(limit[positive][:, None], scaled[name].shape)
    return {
        "scaled": Panel(STEP, times, scaled, log=False),
        "limits": Panel(STEP, times, limits, log=False),
        "spreads": Panel(STEP, times, spreads, log=False),
        "losses": Panel(STEP, times, losses),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    left, middle, right = figure.subplots(1, 3)
    title = r"loss times step; lines: $1^\top K^{-1} 1$"
    common.draw_against_steps(left, panels["scaled"], title, r"$\eta$ c t L")
    for line, limit in zip(left.get_lines(), panels["limits"].samples.values(), strict=True):
        left.axhline(limit.mean(), color=line.get_color(), linewidth=0.8)
    title = "spread of the margins"
    common.draw_against_steps(middle, panels["spreads"], title, "largest less smallest margin (nats)")
    common.draw_against_steps(right, panels["losses"], "low rank: loss", LOSS)
    left.set_ylim(bottom=0)
    for axes in figure.axes:
        axes.legend(fontsize=7)
    letter(figure.axes)
    positive = ", ".join(f"{name} {len(samples)}" for name, samples in panels["scaled"].samples.items())
    note(
        figure,
        f"{protocol.num_tokens} tokens, half of them in each of two classes, Zipf({protocol.exponent:g}), $\\eta$ ="
        f" {protocol.learning_rate:g}; Wishart in {protocol.degrees} dimensions, {protocol.num_blocks} blocks of"
        f" {protocol.block_correlation:g}, Toeplitz {protocol.toeplitz_base:g}$^{{|x-y|}}$.\nMean and 95% interval"
        f" over {protocol.num_seeds} seeds; (a): those with $K^{{-1}} 1 > 0$, {positive};"
        f" (c): by whether every token is recalled at the end.",
    )


FIGURE = Figure("correlations", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.5))
