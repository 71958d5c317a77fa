"""(b) Two tokens: the loss as a function of the memory's two coordinates, with the paths of gradient descent on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm

from damjax import particles, plotting
from paper_figs.figure import Figure, Picture
from paper_figs.panels import letter, note
from paper_figs.particles import common
from paper_figs.particles.common import LOSS
from paper_figs.sweeps import Sweep, quiet

# Light enough for paths to be seen on it.
GREYS = LinearSegmentedColormap.from_list("greys", mpl.colormaps["Greys"](np.linspace(0, 0.6, 64)))


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    overlaps: tuple[float, ...] = (-0.5, 0.5, 0.95)
    frequency: float = 0.75
    learning_rates: tuple[float, ...] = (1.0, 10.0)
    num_steps: int = 60


QUICK = {"num_steps": 10}
CLAIM = "Overlapping tokens of different classes make a valley; large steps swing across it, and get farther"


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[tuple[float, float], tuple[np.ndarray, np.ndarray]]:
    """(alpha, eta) -> gamma_0..gamma_T, (T + 1, 2), and their losses.

    gamma = W'(u_1 - u_2), the only part of W that two classes see: m_x = s_x <gamma, e_x>.
    """
    memory = particles.particle_system(2, 2)

    def run(_, overlap, rate):
        problem = particles.two_tokens(overlap, protocol.frequency)
        read = common.train(memory, rate, problem, protocol.num_steps)
        signed = read.margins * jnp.array([[1.0, -1.0]])
        return {"path": jnp.linalg.solve(particles.embeddings.pair(overlap), signed.T).T, "losses": read.losses}

    axes = {"overlap": protocol.overlaps, "rate": protocol.learning_rates}
    results = sweep("paths", run, keys=common.one_key(), **axes)
    paths, losses = (np.asarray(results[name])[:, :, 0] for name in ("path", "losses"))
    return {
        (alpha, rate): (paths[i, j], losses[i, j])
        for i, alpha in enumerate(protocol.overlaps)
        for j, rate in enumerate(protocol.learning_rates)
    }


def landscape(alpha: float, frequency: float, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The loss over gamma = (across, along), (len(along), len(across))."""
    e1, e2 = np.asarray(particles.embeddings.pair(alpha))
    gamma = np.stack(np.meshgrid(across, along), axis=-1)
    return frequency * np.logaddexp(0, -gamma @ e1) + (1 - frequency) * np.logaddexp(0, gamma @ e2)


def _around(alpha: float, paths: Mapping, protocol: Protocol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the paths of an overlap run, with a margin: gamma_1, gamma_2 and the loss over them."""
    points = np.concatenate([paths[alpha, rate][0] for rate in protocol.learning_rates])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.06 * (high - low)
    across, along = (np.linspace(a, b, 200) for a, b in zip(low - margin, high + margin, strict=True))
    return across, along, landscape(alpha, protocol.frequency, across, along)


def draw(
    figure: Picture, paths: Mapping[tuple[float, float], tuple[np.ndarray, np.ndarray]], protocol: Protocol
) -> None:
    """Draw the numbers."""
    panels = figure.subplots(1, len(protocol.overlaps))
    shown = {alpha: _around(alpha, paths, protocol) for alpha in protocol.overlaps}
    least, most = (extreme([extreme(losses) for *_, losses in shown.values()]) for extreme in (np.min, np.max))
    norm, levels = LogNorm(least, most), np.geomspace(least, most, 20)
    for axes, (alpha, (across, along, losses)) in zip(panels, shown.items(), strict=True):
        axes.contourf(across, along, losses, levels, norm=norm, cmap=GREYS)
        for rate, style in zip(protocol.learning_rates, plotting.STYLES[1:], strict=False):
            gamma, _ = paths[alpha, rate]
            (line,) = axes.plot(*gamma.T, markersize=3, linewidth=1, label=rf"$\eta$ = {rate:g}")
            line.set(**style)
        axes.plot(0, 0, "k*", markersize=9, label="start")
        axes.set(title=rf"$\alpha$ = {alpha:g}", xlabel=r"$\gamma_1$, along $e_1$", ylabel=r"$\gamma_2$")
    figure.colorbar(ScalarMappable(norm, GREYS), ax=panels, label=LOSS)
    letter(panels)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    text = r"Loss, with levels in equal ratios, over $\gamma = W'(u_1 - u_2)$; $p_1$ ="
    note(figure, f"{text} {protocol.frequency:g}, different classes, {protocol.num_steps} steps.")


def tables(
    paths: Mapping[tuple[float, float], tuple[np.ndarray, np.ndarray]], protocol: Protocol
) -> dict[str, list[dict[str, Any]]]:
    """One row per step of a path."""
    rows = [
        {"alpha": alpha, "eta": rate, "step": t, "gamma_1": point[0], "gamma_2": point[1], "loss": loss}
        for (alpha, rate), (gamma, losses) in paths.items()
        for t, (point, loss) in enumerate(zip(gamma.tolist(), losses.tolist(), strict=True))
    ]
    return {"": rows}


FIGURE = Figure("landscapes", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.7), tables=tables)
