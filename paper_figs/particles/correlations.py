"""(f) Correlated tokens of two classes: Wishart, block, Toeplitz and low-rank Gram matrices, and the limit of t L."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs._panels import Panel
from paper_figs.particles import _common
from paper_figs.particles._common import LOSS, STEP


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


QUICK = {"num_steps": 200, "num_seeds": 3}


def grams(key: jax.Array, protocol: Protocol) -> dict[str, jax.Array]:
    """Input Gram matrices of unit diagonal, by name."""
    num_tokens = protocol.num_tokens
    wishart_key, *rank_keys = jax.random.split(key, 1 + len(protocol.ranks))
    powers = protocol.toeplitz_base ** jnp.arange(num_tokens, dtype=float)
    singular = {
        f"rank {rank}": particles.embeddings.low_rank(rank_key, num_tokens, rank)
        for rank, rank_key in zip(protocol.ranks, rank_keys, strict=True)
    }
    return {
        "Wishart": particles.embeddings.wishart(wishart_key, num_tokens, protocol.degrees),
        "block": particles.embeddings.block(num_tokens, protocol.num_blocks, protocol.block_correlation),
        "Toeplitz": particles.embeddings.toeplitz(powers),
    } | singular


def problems(key: jax.Array, protocol: Protocol) -> dict[str, particles.Problem]:
    """The problems of one seed, by name: they share the classes, half of the tokens in each."""
    gram_key, class_key = jax.random.split(key)
    num_tokens = protocol.num_tokens
    classes = jax.random.permutation(class_key, np.arange(num_tokens) % 2)
    frequencies = particles.embeddings.zipf(num_tokens, protocol.exponent)
    targets = particles.one_hot(classes, 2)
    return {
        name: particles.Problem(gram, jnp.eye(2), frequencies, targets)
        for name, gram in grams(gram_key, protocol).items()
    }


def compute(protocol: Protocol, *, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure, from one program."""
    times = _common.log_times(protocol.num_steps)
    keys = jax.random.split(jax.random.key(protocol.seed), protocol.num_seeds)
    memory = particles.particle_system(protocol.num_tokens, 2)

    def read(problem):
        run = _common.train(memory, protocol.learning_rate, problem, protocol.num_steps)
        spread = jnp.max(run.margins, axis=1) - jnp.min(run.margins, axis=1)
        return run.losses[times], spread[times], run.errors[-1] == 0, particles.binary.support(problem)

    def run(key):
        found = problems(key, protocol)
        seen = jax.vmap(read)(jax.tree.map(lambda *fields: jnp.stack(fields), *found.values()))
        # By name: JAX sorts the keys of what it returns.
        return {name: [x[i] for x in seen] for i, name in enumerate(found)}

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(keys))
    advance()
    scale = protocol.learning_rate * 2 * times  # eta c t, for two orthonormal outputs
    scaled, limits, spreads, losses = {}, {}, {}, {}
    for name, (loss, spread, perfect, support) in found.items():
        positive = np.all(support > 0, axis=1)
        spreads[name] = spread
        if not name.startswith("rank"):
            # Elsewhere there is no such limit: low-rank matrices have no inverse.
            scaled[name] = scale * loss[positive]
            limits[name] = np.broadcast_to(support[positive].sum(axis=1)[:, None], scaled[name].shape)
        for group, chosen in ((", separated", perfect), (", not separated", ~perfect)):
            if name.startswith("rank") and chosen.any():
                losses[name + group] = loss[chosen]
    return {
        "scaled": Panel(STEP, times, scaled),
        "limits": Panel(STEP, times, limits),
        "spreads": Panel(STEP, times, spreads),
        "losses": Panel(STEP, times, losses),
    }


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 1


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.5), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        title = r"(a) loss times step; lines: $1^\top K^{-1} 1$"
        _common.draw_against_steps(left, panels["scaled"], title, r"$\eta$ c t L", log=False)
        for line, limit in zip(left.get_lines(), panels["limits"].samples.values(), strict=True):
            left.axhline(limit.mean(), color=line.get_color(), linewidth=0.8)
        title = "(b) spread of the margins"
        _common.draw_against_steps(middle, panels["spreads"], title, "largest less smallest margin (nats)", log=False)
        _common.draw_against_steps(right, panels["losses"], "(c) low rank: loss", LOSS)
        left.set_ylim(bottom=0)
        for axes in (left, middle, right):
            axes.legend(fontsize=7)
        positive = ", ".join(f"{name} {len(samples)}" for name, samples in panels["scaled"].samples.items())
        _common.note(
            figure,
            f"{protocol.num_tokens} tokens, half of them in each of two classes, Zipf({protocol.exponent:g}), $\\eta$ ="
            f" {protocol.learning_rate:g}; Wishart in {protocol.degrees} dimensions, {protocol.num_blocks} blocks of"
            f" {protocol.block_correlation:g}, Toeplitz {protocol.toeplitz_base:g}$^{{|x-y|}}$.\nMean and 95% interval"
            f" over {protocol.num_seeds} seeds; (a): those with $K^{{-1}} 1 > 0$, {positive};"
            f" (c): by whether every token is recalled at the end.",
        )
    return figure


make = _common.maker("correlations", Protocol(), QUICK, compute, draw)
