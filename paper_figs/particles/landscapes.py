"""(b) Two tokens: the loss as a function of the memory's two coordinates, with the paths of gradient descent on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from damjax import particles, plotting
from paper_figs import _output
from paper_figs.particles import _common


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    overlaps: tuple[float, ...] = (-0.5, 0.5, 0.95)
    frequency: float = 0.75
    learning_rates: tuple[float, ...] = (1.0, 10.0)
    num_steps: int = 60


QUICK = {"num_steps": 10}


def compute(
    protocol: Protocol, *, advance: Callable[[], Any] = lambda: None
) -> dict[tuple[float, float], tuple[np.ndarray, np.ndarray]]:
    """(alpha, eta) -> gamma_0..gamma_T, (T + 1, 2), and their losses; ``advance`` is called once an overlap.

    gamma = W'(u_1 - u_2), the only part of W that two classes see: m_x = s_x <gamma, e_x>.
    """
    paths = {}
    for alpha in protocol.overlaps:
        inputs = particles.embeddings.pair(alpha)
        problem = particles.two_tokens(alpha, protocol.frequency)

        def run(rate, problem=problem, inputs=inputs):
            read = _common.train(particles.particle_system(2, 2), rate, problem, protocol.num_steps)
            return jnp.linalg.solve(inputs, (read.margins * jnp.array([1.0, -1.0])).T).T, read.losses

        found = jax.jit(jax.vmap(run))(jnp.array(protocol.learning_rates))
        for rate, gamma, losses in zip(protocol.learning_rates, *map(np.asarray, found), strict=True):
            paths[alpha, rate] = gamma, losses
        advance()
    return paths


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return len(Protocol().overlaps)


def landscape(alpha: float, frequency: float, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The loss over gamma = (across, along), (len(along), len(across))."""
    e1, e2 = np.asarray(particles.embeddings.pair(alpha))
    gamma = np.stack(np.meshgrid(across, along), axis=-1)
    return frequency * np.logaddexp(0, -gamma @ e1) + (1 - frequency) * np.logaddexp(0, gamma @ e2)


def draw(paths: Mapping[tuple[float, float], tuple[np.ndarray, np.ndarray]], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.7), layout="constrained")
        panels = figure.subplots(1, len(protocol.overlaps))
        for axes, alpha in zip(panels, protocol.overlaps, strict=True):
            points = np.concatenate([paths[alpha, rate][0] for rate in protocol.learning_rates])
            low, high = points.min(axis=0), points.max(axis=0)
            pad = 0.15 * (high - low) + 0.5
            across, along = (np.linspace(a, b, 200) for a, b in zip(low - pad, high + pad, strict=True))
            losses = landscape(alpha, protocol.frequency, across, along)
            levels = np.geomspace(losses.min(), losses.max(), 16)
            axes.contourf(across, along, losses, levels, norm=LogNorm(), cmap="Greys", alpha=0.6)
            for rate, style in zip(protocol.learning_rates, plotting.STYLES[1:], strict=False):
                gamma, _ = paths[alpha, rate]
                (line,) = axes.plot(*gamma.T, markersize=3, linewidth=1, label=rf"$\eta$ = {rate:g}")
                line.set(**style)
            axes.plot(0, 0, "k*", markersize=9, label="start")
            axes.set(title=rf"$\alpha$ = {alpha:g}", xlabel=r"$\gamma_1$, along $e_1$", ylabel=r"$\gamma_2$")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        text = r"Loss (darker: larger, levels in equal ratios) over $\gamma = W'(u_1 - u_2)$; $p_1$ ="
        _common.note(figure, f"{text} {protocol.frequency:g}, different classes, {protocol.num_steps} steps.")
    return figure


def make(out: Path, *, quick: bool, num_seeds: int | None, advance: Callable[[], Any]) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _common.resized(Protocol(), QUICK if quick else {}, None)
    paths = compute(protocol, advance=advance)
    rows = [
        {"alpha": alpha, "eta": rate, "step": t, "gamma_1": point[0], "gamma_2": point[1], "loss": loss}
        for (alpha, rate), (gamma, losses) in paths.items()
        for t, (point, loss) in enumerate(zip(gamma.tolist(), losses.tolist(), strict=True))
    ]
    settings = _common.settings("landscapes", protocol, quick)
    return _output.save("landscapes", draw(paths, protocol), {"": rows}, settings, out)
