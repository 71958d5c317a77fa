"""Regret and its bounds against the rate constant, with the minimum of each and the closed form of the bound's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

import damjax
from damjax import plotting
from paper_figs import theory
from paper_figs.figure import Figure, Picture
from paper_figs.panels import DECADES, POWERS, Panel, letter, note
from paper_figs.problems import Setting, draw_case, facts
from paper_figs.sweeps import Sweep, quiet
from paper_figs.theory import REGRET, adversarial, measure

SHOWN = ("regret", "certificate", "weighted-delay bound")
ADVERSARIAL_DELAY = 8


@dataclass(frozen=True)
class Protocol(theory.Protocol):
    """How every run of the figure is made; rate constants are multiples of the one that minimises the bound."""

    factors: tuple[float, ...] = tuple(float(f) for f in np.geomspace(1 / 16, 256, 25))
    adversarial_factors: tuple[float, ...] = tuple(float(f) for f in np.geomspace(1 / 16, 16, 13))


QUICK = theory.QUICK | {
    "factors": Protocol.factors[::6],
    "adversarial_factors": Protocol.adversarial_factors[::4],
}
CLAIM = "Against the adversary no rate constant helps; on random data the best is far above the bound's"


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    graph = damjax.graphs.paper_network()
    factors, others = protocol.factors, protocol.adversarial_factors
    case = draw_case(graph, protocol, [Setting()])
    random = measure("random", case, factors, horizons=[protocol.num_steps], sweep=sweep)
    horizon = (ADVERSARIAL_DELAY + 1) * (protocol.num_steps // (ADVERSARIAL_DELAY + 1))
    attacked = adversarial("adversarial", [ADVERSARIAL_DELAY], others, [horizon], sweep)
    label = "rate constant, as a multiple of the bound's best, $c / c^*$"
    return {
        "random": Panel(label, np.array(factors), {name: random[name][:, :, 0] for name in SHOWN}),
        "adversarial": Panel(label, np.array(others), {name: attacked[name][:, :, 0] for name in SHOWN}),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    titles = {
        "random": f"ten agents, random data, T = {protocol.num_steps}",
        "adversarial": rf"one interest, adversarial data, $\tau$ = {ADVERSARIAL_DELAY}",
    }
    for axes, (kind, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        panel = panels[kind]
        ticks = DECADES if kind == "adversarial" else POWERS
        panel.draw(axes, title, REGRET, ticks=ticks)
        plotting.log_axis(axes.xaxis, tuple(4.0**power for power in range(-2, 5)))
        axes.margins(y=0.12)
        axes.axvline(1, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)))
        for style, name in zip(plotting.STYLES, SHOWN, strict=False):
            _mark_least(axes, panel.x, panel.samples[name].mean(axis=0), style["color"])
    figure.axes[0].legend()
    letter(figure.axes)
    note(
        figure,
        f"Mean and 95% interval over {protocol.num_seeds} seeds (a); the adversary is deterministic (b). Stars:"
        r" the least of each curve. Dotted: $c^* = B / (2 \bar L \sqrt{1/2 + \bar\tau})$.",
    )


def _mark_least(axes: Axes, x: np.ndarray, values: np.ndarray, color: str) -> None:
    """A star at the least value with the place beside it, unless the curve is flat."""
    if values.max() < 1.01 * values.min():
        return
    best = int(values.argmin())
    axes.plot(x[best], values[best], marker="*", markersize=13, color=color, markeredgecolor="white")
    place = {"xytext": (11, -12), "textcoords": "offset points", "ha": "center", "fontsize": 7.5}
    axes.annotate(f"{x[best]:.3g}", (x[best], values[best]), color=color, **place)


FIGURE = Figure("rates", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (8.6, 3.6), facts=facts)
