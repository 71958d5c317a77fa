"""Three experiments whose outcome is known: one agent alone, growing paths, and the stress of personal targets."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import damjax
from damjax import plotting
from paper_figs import _output, _panels
from paper_figs._experiment import ALGORITHMS, Protocol, Setting, average_regret, problems, seeds, tuned_regret
from paper_figs._panels import Panel
from paper_figs.figure_1 import QUICK, REGRET, horizons

PROTOCOL = Protocol(rate_constants=tuple(float(c) for c in np.geomspace(0.05, 12.0, 9).round(4)))
PATH_LENGTHS = (2, 3, 5, 9, 17)
STRESS = (0.1, 0.5, 0.9)
CONCENTRATION = 0.05
ALONE_RATE = 1.0


def compute(protocol, *, quick: bool = False, advance: Callable[[], Any] = lambda: None) -> dict[str, Panel]:
    """All numbers of the figure; see ``num_tasks`` for how often ``advance`` is called."""
    last = [protocol.num_steps]
    times = horizons(protocol.num_steps)
    alone = damjax.graphs.path(1)
    regret = average_regret(
        ALGORITHMS,
        {name: [ALONE_RATE] for name in ALGORITHMS},
        Setting(),
        problems(alone, protocol, Setting(), seeds(protocol, tuning=False)),
        graph=alone,
        protocol=protocol,
        horizons=times,
        advance=advance,
    )
    rates = {"rate_constant": {name: [ALONE_RATE] for name in ALGORITHMS}}
    found = {name: values[:, 0] for name, values in regret.items()}
    panels = {"alone": Panel("horizon T (steps)", np.array(times), found, rates)}

    def tuned(label, x, runs):
        samples = {name: np.concatenate([regret[name] for regret, _ in runs], axis=1) for name in ALGORITHMS}
        rates = {name: [rates[name] for _, rates in runs] for name in ALGORITHMS}
        return Panel(label, np.array(x), samples, {"rate_constant": rates})

    lengths = PATH_LENGTHS[:1] if quick else PATH_LENGTHS
    fixed = {"protocol": protocol, "horizons": last, "advance": advance}
    runs = [tuned_regret(Setting(), graph=damjax.graphs.path(length), **fixed) for length in lengths]
    longest = [2.0 * (length - 1) for length in lengths]
    panels["delay"] = tuned(r"longest round trip $\tau_\mathrm{max}$ (steps), on paths", longest, runs)

    network = damjax.graphs.paper_network()
    settings = [Setting(correlation=rho, concentration=CONCENTRATION) for rho in STRESS]
    runs = [tuned_regret(setting, graph=network, **fixed) for setting in settings]
    panels["stress"] = tuned(r"target correlation $\rho$", STRESS, runs)
    return panels


def num_tasks(quick: bool) -> int:
    """How often ``compute`` calls ``advance``."""
    return len(ALGORITHMS) * (1 + 2 * ((1 if quick else len(PATH_LENGTHS)) + len(STRESS)))


def draw(panels: Mapping[str, Panel], protocol) -> Figure:
    """The figure from its numbers."""
    titles = {
        "alone": "(a) one agent alone: all the same",
        "delay": "(b) growing paths: the price of delay grows",
        "stress": f"(c) interests near one-hot (a = {CONCENTRATION})",
    }
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        for axes, (kind, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            _panels.draw(axes, panels[kind], title, REGRET)
        plotting.log_axis(figure.axes[0].xaxis, _panels.TIMES)
        plotting.log_axis(figure.axes[1].xaxis, tuple(2.0**power for power in range(1, 8)))
        figure.axes[2].set_xticks(STRESS)
        figure.axes[0].legend()
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T ="
            f" {protocol.num_steps}. Rate constants: {ALONE_RATE:g} for all in (a); tuned on"
            f" {protocol.num_tuning_seeds} other seeds, point by point, in (b) and (c)."
        )
        figure.text(0.0, -0.02, note, fontsize=7, va="top")
    return figure


def make(out: Path, *, quick: bool, num_seeds: int | None, advance: Callable[[], Any]) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(PROTOCOL, QUICK if quick else {}, num_seeds)
    panels = compute(protocol, quick=quick, advance=advance)
    settings = _output.settings("sanity", dataclasses.asdict(protocol), quick)
    return _output.save("sanity", draw(panels, protocol), _panels.tables(panels), settings, out)
