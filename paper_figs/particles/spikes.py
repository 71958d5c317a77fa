"""(b) Two tokens that interfere: amplitude and duration of loss spikes over overlap, frequency and step size."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm

from damjax import particles
from damjax.particles import binary, trajectories
from paper_figs.figure import Figure, Picture
from paper_figs.panels import letter, note
from paper_figs.particles import common
from paper_figs.sweeps import Sweep, quiet

SMALLEST = 1e-6


@dataclass(frozen=True)
class Protocol:
    """How the runs of the figure are made; nothing in them is random."""

    num_overlaps: int = 61
    num_rates: int = 61
    frequencies: tuple[float, ...] = (0.55, 0.75, 0.9)
    num_steps: int = 1000


CLAIM = "Spikes start where theory says; near balance they come later too, and as tokens meet they last"
QUICK = {"num_overlaps": 7, "num_rates": 9, "num_steps": 100}


class Grid(NamedTuple):
    """What was seen over (frequencies, rates, overlaps).

    Attributes:
        overlaps: alpha, (A,).
        rates: eta, (E,).
        amplitude: of the largest spike, in nats, (P, E, A).
        duration: steps spent above the lowest loss before, (P, E, A).
        threshold: where the first step spikes, (P, A).
        stable: 2 / sharpness at zero, (P, A).
    """

    overlaps: np.ndarray
    rates: np.ndarray
    amplitude: np.ndarray
    duration: np.ndarray
    threshold: np.ndarray
    stable: np.ndarray


def compute(protocol: Protocol, sweep: Sweep = quiet) -> Grid:
    """All numbers of the figure."""
    overlaps, rates = np.linspace(0, 1, protocol.num_overlaps), np.geomspace(0.3, 100, protocol.num_rates)
    memory = particles.particle_system(2, 2)

    def run(_, frequency, rate, overlap):
        problem = particles.two_tokens(overlap, frequency)
        losses = common.train(memory, rate, problem, protocol.num_steps).losses
        return {
            "amplitude": trajectories.spike_amplitude(losses),
            "duration": trajectories.spike_duration(losses),
        }

    frequencies = np.array(protocol.frequencies)
    results = sweep("grid", run, keys=common.one_key(), frequency=frequencies, rate=rates, overlap=overlaps)
    amplitude, duration = (np.asarray(results[name])[..., 0] for name in ("amplitude", "duration"))
    threshold = np.asarray(binary.spike_threshold(overlaps, frequencies[:, None]))
    stable = 2 / np.asarray(binary.sharpness_at_zero(overlaps, frequencies[:, None]))
    return Grid(overlaps, rates, amplitude, duration, threshold, stable)


def tables(grid: Grid, protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """One row per run."""
    rows = [
        {
            "p_1": p,
            "alpha": alpha,
            "eta": eta,
            "amplitude": grid.amplitude[i, j, k],
            "duration": int(grid.duration[i, j, k]),
            "threshold": grid.threshold[i, k],
            "two_over_sharpness": grid.stable[i, k],
        }
        for i, p in enumerate(protocol.frequencies)
        for j, eta in enumerate(grid.rates.tolist())
        for k, alpha in enumerate(grid.overlaps.tolist())
    ]
    return {"": rows}


def draw(figure: Picture, grid: Grid, protocol: Protocol) -> None:
    """Draw the numbers."""
    amplitudes, durations = LogNorm(1e-3, 100), LogNorm(1, protocol.num_steps)
    rows = ((grid.amplitude, amplitudes, "amplitude"), (grid.duration, durations, "duration"))
    spikes, cell = grid.amplitude > SMALLEST, grid.overlaps[1]
    panels = figure.subplots(2, len(protocol.frequencies), sharex="col", sharey=True)
    for row, (values, norm, name) in zip(panels, rows, strict=True):
        for i, (axes, p) in enumerate(zip(row, protocol.frequencies, strict=True)):
            first = grid.overlaps[spikes[i].any(axis=0)].min(initial=1)
            shown = np.where(spikes[i], values[i], np.nan)
            common.heat_map(axes, grid.overlaps, grid.rates, shown, norm=norm)
            axes.plot(grid.overlaps, grid.threshold[i], color="black", label="spike at the first step")
            axes.plot(grid.overlaps, grid.stable[i], "--", color="black", label=r"$\eta$ = 2 / sharpness at 0")
            axes.set(
                title=f"{name}, $p_1$ = {p:g}",
                ylim=(0.7 * grid.stable.min(), grid.rates[-1]),
                xlim=(first - 3 * cell, 1 + cell / 2),
            )
        row[0].set_ylabel(r"step size $\eta$")
    for axes in panels[-1]:
        axes.set(xlabel=r"overlap $\alpha$")
    _color_bar(figure, panels, amplitudes, durations)
    letter(panels.flat)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    text = f"Two unit tokens of different classes from W = 0, c = 2, {protocol.num_steps} steps; white: no spike."
    note(figure, text + " Nothing is random.")


def _color_bar(figure: Picture, panels: Any, amplitudes: LogNorm, durations: LogNorm) -> None:
    """One bar for both quantities, each with its scale."""
    bar = common.color_bar(figure, panels, amplitudes, "amplitude (nats)", extend="both", location="right")
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    convert = lambda of, to: lambda values: to.inverse(of(values))  # noqa: E731
    other = bar.ax.secondary_yaxis("right", functions=(convert(amplitudes, durations), convert(durations, amplitudes)))
    other.set_ylabel("duration (steps)")


FIGURE = Figure("spikes", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (9.6, 5.6), tables=tables)
