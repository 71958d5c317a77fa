"""Regret, its certificate and the three bounds, on random and on adversarial data, and a step of a proof that fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

import damjax
from damjax import plotting
from paper_figs import theory
from paper_figs.figure import Figure, Picture
from paper_figs.figure_1 import horizons
from paper_figs.panels import DECADES, POWERS, TIMES, Panel, letter, note
from paper_figs.problems import Setting, draw_case, facts
from paper_figs.sweeps import Sweep, quiet
from paper_figs.theory import CURVES, REGRET, adversarial, measure, movement

ADVERSARIAL_DELAY = 8
MOVEMENT_DELAYS = (8, 64)


@dataclass(frozen=True)
class Protocol(theory.Protocol):
    """How every run of the figure is made; the delays, in steps, have ADVERSARIAL_DELAY among them."""

    path_lengths: tuple[int, ...] = (2, 3, 5, 9, 17)
    adversarial_delays: tuple[int, ...] = (0, 2, 4, 8, 16, 32, 64)


QUICK = theory.QUICK | {"path_lengths": (2,), "adversarial_delays": (0, 2, 4, 8)}
CLAIM = "No bound is exceeded, an adversary comes within about a factor of four; a step of the printed proof fails"


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    steps, taus = protocol.num_steps, protocol.adversarial_delays

    def random(name: str, graph: nx.Graph, times: Sequence[int]) -> tuple[dict[str, np.ndarray], float]:
        """The curves, (S, H), and the median over seeds of the longest round trip."""
        case = draw_case(graph, protocol, [Setting()])
        curves = measure(name, case, [1.0], horizons=times, sweep=sweep)
        longest = case.problems.delays.max(axis=(1, 2, 3))
        return {curve: values[:, 0] for curve, values in curves.items()}, np.median(longest)

    times = horizons(steps)
    by_time, _ = random("network", damjax.graphs.paper_network(), times)
    by_length, longest = zip(
        *(random(f"path_{length}", damjax.graphs.path(length), [steps]) for length in protocol.path_lengths),
        strict=True,
    )

    # Each delay at the end of its last whole block, and one of them at the ends of more.
    ends = [(tau + 1) * (steps // (tau + 1)) for tau in taus]
    blocks = [(ADVERSARIAL_DELAY + 1) * number for number in horizons(steps // (ADVERSARIAL_DELAY + 1))]
    measured = sorted({*ends, *blocks})
    attacked = adversarial("adversarial", taus, [1.0], measured, sweep)

    def at(delays: Sequence[int], times: Sequence[int]) -> dict[str, np.ndarray]:
        """The curves, (1, points), where delay and horizon are those of the points."""
        places = [taus.index(tau) for tau in delays], 0, [measured.index(time) for time in times]
        return {curve: values[places][None] for curve, values in attacked.items()}

    since = [step for step in horizons(steps) if step > 1]
    sides = movement("movement", MOVEMENT_DELAYS, since, sweep)
    moved = {
        rf"{side}, $\tau$ = {tau}": sides[side][None, i] for i, tau in enumerate(MOVEMENT_DELAYS) for side in sides
    }

    return {
        "time": Panel("horizon T (steps)", np.array(times), by_time),
        "delay": Panel(
            r"longest round trip $\tau_\mathrm{max}$ (steps), on paths",
            np.array(longest),
            {curve: np.concatenate([values[curve] for values in by_length], axis=1) for curve in CURVES},
        ),
        "adversarial_time": Panel("horizon T (steps)", np.array(blocks), at([ADVERSARIAL_DELAY] * len(blocks), blocks)),
        "adversarial_delay": Panel(r"round trip $\tau$ (steps)", np.array(taus), at(taus, ends)),
        "movement": Panel("steps since the first arrival", np.array(since), moved, log=False),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    titles = {
        "time": "ten agents, random data",
        "delay": f"growing paths, random data, T = {protocol.num_steps}",
        "adversarial_time": rf"one interest, adversarial data, $\tau$ = {ADVERSARIAL_DELAY}",
        "adversarial_delay": f"one interest, adversarial data, T near {protocol.num_steps}",
        "movement": "a step of the proof, printed (A-14a) and mended",
    }
    *grid, last = figure.subplots(2, 3).flat
    for axes, (kind, title) in zip(grid, titles.items(), strict=True):
        ticks = DECADES if "adversarial" in kind else POWERS
        ylabel = "left side / right side" if kind == "movement" else REGRET
        panels[kind].draw(axes, title, ylabel, ticks=ticks)
        if "delay" in kind:
            axes.set_xscale("symlog", base=2, linthresh=2)
            axes.set_xticks(panels[kind].x, [f"{x:g}" for x in panels[kind].x])
        else:
            plotting.log_axis(axes.xaxis, TIMES)
    grid[-1].axhline(1, color="0.4", linewidth=0.8)
    grid[-1].text(0.01, 1.02, "fails above", fontsize=7, transform=grid[-1].get_yaxis_transform())
    grid[-1].legend(fontsize=7)
    last.set_axis_off()
    last.legend(*grid[0].get_legend_handles_labels(), loc="center", title="(a) to (d)")
    letter(grid)
    note(
        figure,
        f"Mean and 95% interval over {protocol.num_seeds} seeds (a, b); the adversary is deterministic (c, d)."
        " DAM-TOGD with the rate constant that minimises the weighted-delay bound.\n(e) How far the memory moves"
        " while a question is out, over what the proof says: one interest, the same unit loss at every step,"
        r" $\eta_t$ = (steps since the first arrival)$^{-1/2}$.",
    )


FIGURE = Figure("bounds", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (12.5, 6.6), facts=facts)
