"""(b) Two tokens that interfere: amplitude and duration of loss spikes over overlap, frequency and step size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from damjax import particles, plotting
from damjax.particles import binary, trajectories
from paper_figs import _output, _panels, _sweeps
from paper_figs._sweeps import Sweep
from paper_figs.particles import _common

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


def compute(protocol: Protocol, sweep: Sweep = _sweeps.quiet) -> Grid:
    """All numbers of the figure."""
    overlaps, rates = np.linspace(0, 1, protocol.num_overlaps), np.geomspace(0.3, 100, protocol.num_rates)
    memory = particles.particle_system(2, 2)

    def run(_, frequency, rate, overlap):
        problem = particles.two_tokens(overlap, frequency)
        losses = _common.train(memory, rate, problem, protocol.num_steps).losses
        return {
            "amplitude": trajectories.spike_amplitude(losses),
            "duration": trajectories.spike_duration(losses),
        }

    frequencies = np.array(protocol.frequencies)
    found = sweep("grid", run, keys=_common.one_key(), frequency=frequencies, rate=rates, overlap=overlaps)
    amplitude, duration = (np.asarray(found[name])[..., 0] for name in ("amplitude", "duration"))
    threshold = np.asarray(binary.spike_threshold(overlaps, frequencies[:, None]))
    stable = 2 / np.asarray(binary.sharpness_at_zero(overlaps, frequencies[:, None]))
    return Grid(overlaps, rates, amplitude, duration, threshold, stable)


def table(grid: Grid, frequencies: Sequence[float]) -> list[dict[str, Any]]:
    """One row per run."""
    return [
        {
            "p_1": p,
            "alpha": alpha,
            "eta": eta,
            "amplitude": grid.amplitude[i, j, k],
            "duration": int(grid.duration[i, j, k]),
            "threshold": grid.threshold[i, k],
            "two_over_sharpness": grid.stable[i, k],
        }
        for i, p in enumerate(frequencies)
        for j, eta in enumerate(grid.rates.tolist())
        for k, alpha in enumerate(grid.overlaps.tolist())
    ]


def draw(grid: Grid, protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    amplitudes, durations = LogNorm(1e-3, 100), LogNorm(1, protocol.num_steps)
    rows = ((grid.amplitude, amplitudes, "amplitude"), (grid.duration, durations, "duration"))
    spikes, cell = grid.amplitude > SMALLEST, grid.overlaps[1]
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        panels = figure.subplots(2, len(protocol.frequencies), sharex="col", sharey=True)
        for row, (values, norm, name) in zip(panels, rows, strict=True):
            for i, (axes, p) in enumerate(zip(row, protocol.frequencies, strict=True)):
                first = grid.overlaps[spikes[i].any(axis=0)].min(initial=1)
                shown = np.where(spikes[i], values[i], np.nan)
                _common.heat_map(axes, grid.overlaps, grid.rates, shown, norm=norm)
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
        _panels.letter(panels.flat)
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        text = f"Two unit tokens of different classes from W = 0, c = 2, {protocol.num_steps} steps; white: no spike."
        _common.note(figure, text + " Nothing is random.")
    return figure


def _color_bar(figure: Figure, panels: Any, amplitudes: LogNorm, durations: LogNorm) -> None:
    """One bar for both quantities, each with its scale."""
    bar = _common.color_bar(figure, panels, amplitudes, "amplitude (nats)", extend="both", location="right")
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    convert = lambda of, to: lambda values: to.inverse(of(values))  # noqa: E731
    other = bar.ax.secondary_yaxis("right", functions=(convert(amplitudes, durations), convert(durations, amplitudes)))
    other.set_ylabel("duration (steps)")


def make(out: Path, *, quick: bool, num_seeds: int | None, sweep: Sweep) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _common.resized(Protocol(), QUICK if quick else {}, None)
    grid = compute(protocol, sweep)
    tables = {"": table(grid, protocol.frequencies)}
    settings = _common.settings("spikes", protocol, quick)
    return _output.save("spikes", draw(grid, protocol), tables, settings, out, claim=CLAIM, quick=quick)
