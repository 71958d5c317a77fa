"""Regret, its certificate and the three bounds, against time and delay, on random and on adversarial data."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import damjax
from damjax import plotting
from paper_figs import _output, _panels
from paper_figs._experiment import Setting, problems, seeds
from paper_figs._panels import Panel
from paper_figs._theory import CURVES, PROTOCOL, QUICK, REGRET, adversarial, measure
from paper_figs.figure_1 import horizons

PATH_LENGTHS = (2, 3, 5, 9, 17)
ADVERSARIAL_DELAY = 8
ADVERSARIAL_DELAYS = (0, 2, 4, 8, 16, 32, 64)


def compute(protocol, *, quick: bool = False, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; see ``num_tasks`` for how often ``advance`` is called."""
    keys = seeds(protocol, tuning=False)
    lengths, taus = (PATH_LENGTHS[:2], ADVERSARIAL_DELAYS[:2]) if quick else (PATH_LENGTHS, ADVERSARIAL_DELAYS)

    def random(graph, times):
        drawn = problems(graph, protocol, Setting(), keys)
        found = measure(jnp.ones(1), drawn, graph=graph, protocol=protocol, horizons=tuple(times))
        advance()
        return {name: np.asarray(found[name][:, 0]) for name in CURVES}, drawn.delays.max(axis=(1, 2))

    times = horizons(protocol.num_steps)
    panels = {"time": Panel("horizon T (steps)", np.array(times), random(damjax.graphs.paper_network(), times)[0])}

    by_length = [random(damjax.graphs.path(length), [protocol.num_steps]) for length in lengths]
    longest = np.array([np.median(delays) for _, delays in by_length])
    joined = {name: np.concatenate([curves[name] for curves, _ in by_length], axis=1) for name in CURVES}
    panels["delay"] = Panel(r"longest round trip $\tau_\mathrm{max}$ (steps), on paths", longest, joined)

    block = ADVERSARIAL_DELAY + 1
    times = [block * t for t in horizons(protocol.num_steps // block)]
    curves = {name: curve[None] for name, curve in adversarial(ADVERSARIAL_DELAY, 1.0, times).items()}
    advance()
    panels["adversarial_time"] = Panel("horizon T (steps)", np.array(times), {n: curves[n] for n in CURVES})
    ends = []
    for tau in taus:
        ends.append(adversarial(tau, 1.0, [(tau + 1) * (protocol.num_steps // (tau + 1))]))
        advance()
    curves = {name: np.stack([end[name] for end in ends], axis=1) for name in CURVES}
    panels["adversarial_delay"] = Panel(r"round trip $\tau$ (steps)", np.array(taus), curves)
    return panels


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return 2 + (2 + 2 if quick else len(PATH_LENGTHS) + len(ADVERSARIAL_DELAYS))


def draw(panels: Mapping[str, Panel], protocol) -> Figure:
    """The figure from its numbers."""
    titles = {
        "time": "(a) ten agents, random data",
        "delay": f"(b) growing paths, random data, T = {protocol.num_steps}",
        "adversarial_time": rf"(c) one interest, adversarial data, $\tau$ = {ADVERSARIAL_DELAY}",
        "adversarial_delay": f"(d) one interest, adversarial data, T near {protocol.num_steps}",
    }
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(8.6, 6.6), layout="constrained")
        for axes, (kind, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
            ticks = _panels.DECADES if "adversarial" in kind else _panels.POWERS
            _panels.draw(axes, panels[kind], title, REGRET, ticks=ticks)
            if "delay" in kind:
                axes.set_xscale("symlog", base=2, linthresh=2)
                axes.set_xticks(panels[kind].x, [f"{x:g}" for x in panels[kind].x])
            else:
                plotting.log_axis(axes.xaxis, _panels.TIMES)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(CURVES))
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds (a, b); the adversary is deterministic (c, d)."
            " DAM-TOGD with the rate constant that minimises the weighted-delay bound."
        )
        figure.text(0.0, -0.01, note, fontsize=7, va="top")
    return figure


def make(out: Path, *, quick: bool, num_seeds: int | None, advance: Callable[[], Any]) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(PROTOCOL, QUICK if quick else {}, num_seeds)
    panels = compute(protocol, quick=quick, advance=advance)
    settings = _output.settings("bounds", dataclasses.asdict(protocol), quick)
    return _output.save("bounds", draw(panels, protocol), _panels.tables(panels), settings, out)
