"""What the particle figures share: trained memories seen through numbers, and how a figure is drawn and saved."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs.panels import POWERS, Panel

STEP = "step t"
LOSS = "loss (nats)"
MARGIN = "margin (nats)"
COLORS = "cividis"


class Readings(NamedTuple):
    """What is seen of a run at times 0..T.

    Attributes:
        losses: (T+1,).
        margins: (T+1, N).
        errors: error rates, (T+1,).
    """

    losses: jax.Array
    margins: jax.Array
    errors: jax.Array


def train(
    memory: particles.Memory,
    optimizer: Any,
    problem: particles.Problem,
    num_steps: int,
    *,
    key: jax.Array | None = None,
    seen: Any = None,
) -> Readings:
    """Train a memory and read loss, margins and error rate of the clean ``problem`` at every step.

    Args:
        memory: what is trained.
        optimizer: a step size or an optax transformation.
        problem: what is measured.
        num_steps: T.
        key: of the start; needed for memories that start at random.
        seen: what the optimizer sees instead of the problem, such as minibatches.
    """

    def observe(scores):
        return Readings(
            particles.loss(scores, problem),
            particles.margins(scores, problem),
            particles.error_rate(scores, problem),
        )

    start = memory.init(jax.random.key(0) if key is None else key)
    dynamics = particles.descent(memory, optimizer)
    return particles.evolve(dynamics, start, problem if seen is None else seen, num_steps, observe=observe)[1]


def log_times(num_steps: int, num_points: int = 25) -> np.ndarray:
    """Steps 1..T, evenly spread over a logarithmic axis."""
    return np.unique(np.geomspace(1, num_steps, num_points).round().astype(int))


def one_key() -> jax.Array:
    """The keys of a sweep in which nothing is random, (1,)."""
    return jax.random.key(0)[None]


def by_rate(rates: Iterable[float], curves: Iterable[Any]) -> dict[str, Any]:
    """Curves by the step size, as legends have it."""
    return {rf"$\eta$ = {rate:g}": curve for rate, curve in zip(rates, curves, strict=True)}


def draw_against_steps(axes: Axes, panel: Panel, title: str, ylabel: str) -> None:
    """Curves against steps on a logarithmic axis."""
    panel.draw(axes, title, ylabel, ticks=POWERS)
    plotting.log_axis(axes.xaxis, POWERS)


def draw_closed_form(axes: Axes, panel: Panel) -> None:
    """What was measured, drawn before, as markers only, and over them the lines that theory has for each."""
    for line, curve in zip(axes.get_lines(), panel.samples.values(), strict=True):
        line.set_linestyle("none")
        axes.plot(panel.x, curve[0], color=line.get_color(), linewidth=1)


def heat_map(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, *, norm: Normalize) -> None:
    """Values (y, x) as colours that grow lighter in grey too, over logarithmic y; NaN stays white."""
    axes.pcolormesh(x, y, values, cmap=COLORS, shading="nearest", norm=norm)
    axes.set_yscale("log")


def color_bar(figure: Figure, panels: Any, norm: Normalize, label: str, **options: Any) -> Colorbar:
    """What the colours of ``heat_map`` mean, beside ``panels``."""
    return figure.colorbar(ScalarMappable(norm, COLORS), ax=panels, label=label, **options)


def gaussian(key: jax.Array, num_tokens: int, dim: jax.Array, max_dim: int) -> jax.Array:
    """Rows with i.i.d. N(0, 1/d) entries in the first d coordinates, (N, max_dim): one shape, so d may be vmapped."""
    rows = particles.embeddings.gaussian(key, num_tokens, max_dim)
    dim = jnp.asarray(dim, rows.dtype)
    return jnp.where((jnp.arange(max_dim, dtype=rows.dtype) < dim)[None], rows * jnp.sqrt(max_dim / dim), 0)


def spheres(key: jax.Array, num_tokens: int, dim: jax.Array, max_dim: int) -> tuple[jax.Array, jax.Array]:
    """Inputs and outputs uniform on the sphere of d dimensions, as ``gaussian``."""
    inputs, outputs = (gaussian(part, num_tokens, dim, max_dim) for part in jax.random.split(key))
    return inputs / jnp.linalg.norm(inputs, axis=1, keepdims=True), outputs / jnp.linalg.norm(
        outputs, axis=1, keepdims=True
    )


def own_classes(inputs: jax.Array, outputs: jax.Array, exponent: float) -> particles.Problem:
    """Zipf tokens, each its own class."""
    num_tokens = len(inputs)
    targets = particles.one_hot(np.arange(num_tokens), num_tokens)
    return particles.from_embeddings(inputs, outputs, particles.embeddings.zipf(num_tokens, exponent), targets)


def by_rank(recalled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens in groups of ranks 1, 2-3, 4-7, ...: the middle of each group, (groups,), and accuracy, (..., groups)."""
    num_tokens = recalled.shape[-1]
    firsts = 2 ** np.arange(num_tokens.bit_length())
    groups = np.split(recalled, firsts[1:] - 1, axis=-1)
    middles = (firsts + np.minimum(2 * firsts - 1, num_tokens)) / 2
    return middles, np.stack([group.mean(axis=-1) for group in groups], axis=-1)
