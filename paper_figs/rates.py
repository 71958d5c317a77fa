"""Regret and its bounds against the rate constant, with the minimum of each and the closed form of the bound's."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import damjax
from damjax import plotting
from paper_figs import _output, _panels
from paper_figs._experiment import Setting, problems, seeds
from paper_figs._panels import Panel
from paper_figs._theory import PROTOCOL, QUICK, REGRET, adversarial, measure

SHOWN = ("regret", "certificate", "weighted-delay bound")
FACTORS = tuple(float(f) for f in np.geomspace(1 / 16, 256, 25))
ADVERSARIAL_FACTORS = tuple(float(f) for f in np.geomspace(1 / 16, 16, 13))
ADVERSARIAL_DELAY = 8


def compute(protocol, *, quick: bool = False, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; see ``num_tasks`` for how often ``advance`` is called."""
    graph = damjax.graphs.paper_network()
    drawn = problems(graph, protocol, Setting(), seeds(protocol, tuning=False))
    factors, others = (FACTORS[::6], ADVERSARIAL_FACTORS[::4]) if quick else (FACTORS, ADVERSARIAL_FACTORS)
    found = measure(jnp.array(factors), drawn, graph=graph, protocol=protocol, horizons=(protocol.num_steps,))
    advance()
    label = "rate constant, as a multiple of the bound's best, $c / c^*$"
    panels = {"random": Panel(label, np.array(factors), {n: np.asarray(found[n][:, :, 0]) for n in SHOWN})}
    horizon = (ADVERSARIAL_DELAY + 1) * (protocol.num_steps // (ADVERSARIAL_DELAY + 1))
    ends = []
    for factor in others:
        ends.append(adversarial(ADVERSARIAL_DELAY, factor, [horizon]))
        advance()
    curves = {name: np.concatenate([end[name] for end in ends])[None] for name in SHOWN}
    panels["adversarial"] = Panel(label, np.array(others), curves)
    return panels


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 1 + len(ADVERSARIAL_FACTORS[::4] if quick else ADVERSARIAL_FACTORS)


def draw(panels: Mapping[str, Panel], protocol) -> Figure:
    """The figure from its numbers."""
    titles = {
        "random": f"(a) ten agents, random data, T = {protocol.num_steps}",
        "adversarial": rf"(b) one interest, adversarial data, $\tau$ = {ADVERSARIAL_DELAY}",
    }
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        for axes, (kind, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            panel = panels[kind]
            ticks = _panels.DECADES if kind == "adversarial" else _panels.POWERS
            _panels.draw(axes, panel, title, REGRET, ticks=ticks)
            plotting.log_axis(axes.xaxis, tuple(4.0**power for power in range(-2, 5)))
            axes.margins(y=0.12)
            axes.axvline(1, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)))
            for style, name in zip(plotting.STYLES, SHOWN, strict=False):
                _mark_least(axes, panel.x, panel.samples[name].mean(axis=0), style["color"])
        figure.axes[0].legend()
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds (a); the adversary is deterministic (b). Stars:"
            r" the least of each curve. Dotted: $c^* = B / (2 \bar L \sqrt{1/2 + \bar\tau})$."
        )
        figure.text(0.0, -0.02, note, fontsize=7, va="top")
    return figure


def _mark_least(axes: Axes, x: np.ndarray, values: np.ndarray, color: str) -> None:
    """A star at the least value with the place beside it, unless the curve is flat."""
    if values.max() < 1.01 * values.min():
        return
    best = int(values.argmin())
    axes.plot(x[best], values[best], marker="*", markersize=13, color=color, markeredgecolor="white")
    place = {"xytext": (11, -12), "textcoords": "offset points", "ha": "center", "fontsize": 7.5}
    axes.annotate(f"{x[best]:.3g}", (x[best], values[best]), color=color, **place)


def make(out: Path, *, quick: bool, num_seeds: int | None, advance: Callable[[], Any]) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(PROTOCOL, QUICK if quick else {}, num_seeds)
    panels = compute(protocol, quick=quick, advance=advance)
    settings = _output.settings("rates", dataclasses.asdict(protocol), quick)
    return _output.save("rates", draw(panels, protocol), _panels.tables(panels), settings, out)
