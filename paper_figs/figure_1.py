"""Figure 1: regret of OGD, C-DOGD and DAM-TOGD against time, target correlation and interest concentration."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import damjax
from damjax import plotting
from paper_figs import _output, _panels, _sweeps
from paper_figs._experiment import ALGORITHMS, tuned_regret
from paper_figs._panels import Panel
from paper_figs._problems import Protocol, Setting, problems, seeds
from paper_figs._sweeps import Sweep

CORRELATIONS = tuple(round(0.1 * i, 1) for i in range(11))
CONCENTRATIONS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
QUICK = {"num_seeds": 4, "num_tuning_seeds": 4, "num_steps": 200, "rate_constants": (0.2, 0.5, 1.2, 3.0)}
AGENT = 0
REGRET = r"average regret $\mathrm{Reg}(T)\,/\,NT$ (loss per step)"


def horizons(num_steps: int) -> list[int]:
    """About four horizons an octave of time, from 10 steps to the end."""
    return np.unique(np.geomspace(min(10, num_steps), num_steps, 20).round().astype(int)).tolist()


def compute(protocol: Protocol, *, quick: bool = False, sweep: Sweep = _sweeps.quiet) -> dict[str, Panel]:
    """All numbers of the figure.

    Args:
        protocol: sizes, seeds and rate constants.
        quick: three points instead of all on the axes of panels (c) and (d).
        sweep: computes.

    Returns:
        The panels "time", "correlation" and "concentration".
    """
    correlations, concentrations = axes_of(quick)
    settings = [
        Setting(),
        *(Setting(correlation=value) for value in correlations),
        *(Setting(concentration=value) for value in concentrations),
    ]
    times = horizons(protocol.num_steps)
    regret, rates = tuned_regret(
        settings, graph=damjax.graphs.paper_network(), protocol=protocol, horizons=times, sweep=sweep
    )

    def against(label: str, values: Sequence[float], first: int) -> Panel:
        """The last horizon of the settings from the ``first`` on."""
        here = slice(first, first + len(values))
        samples = {name: found[here, :, -1].T for name, found in regret.items()}
        return Panel(label, np.array(values), samples, {"rate_constant": {name: rates[name][here] for name in rates}})

    constants = {"rate_constant": {name: found[:1] for name, found in rates.items()}}
    return {
        "time": Panel(
            "horizon T (steps)", np.array(times), {name: found[0] for name, found in regret.items()}, constants
        ),
        "correlation": against(r"target correlation $\rho$", correlations, 1),
        "concentration": against("Dirichlet concentration $a$", concentrations, 1 + len(correlations)),
    }


def axes_of(quick: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The points of panels (c) and (d)."""
    if quick:
        return CORRELATIONS[::5], CONCENTRATIONS[::4]
    return CORRELATIONS, CONCENTRATIONS


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(8.6, 6.6), layout="constrained")
        (network, time), (correlation, concentration) = figure.subplots(2, 2)
        draw_network(network, protocol)
        network.set_title(f"(a) routing tree of agent {AGENT}, with round trips in steps")
        _panels.draw(time, panels["time"], "(b) DAM-TOGD follows OGD, C-DOGD reaches a plateau", REGRET)
        _panels.draw(correlation, panels["correlation"], "(c) the gap opens as targets differ", REGRET)
        _panels.draw(concentration, panels["concentration"], "(d) consensus pays for concentrated interests", REGRET)
        plotting.log_axis(time.xaxis, _panels.TIMES)
        plotting.log_axis(concentration.xaxis, CONCENTRATIONS)
        time.legend()
        figure.text(0.0, -0.01, _note(panels, protocol), fontsize=7, va="top")
    return figure


def draw_network(axes: Axes, protocol: Protocol) -> None:
    """Panel (a): the network and one agent's tree, for the first seed of the default setting."""
    graph = damjax.graphs.paper_network()
    weights = problems(graph, protocol, [Setting()], seeds(protocol, tuning=False)[:1]).weights[0, 0]
    routes = damjax.routing.compile_routes(graph, weights, method=protocol.routing)
    plotting.network(axes, graph, routes, AGENT)


def _note(panels: Mapping[str, Panel], protocol: Protocol) -> str:
    lines = [
        f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T = {protocol.num_steps}."
        f" Constants c of the rates c / sqrt(count), tuned on {protocol.num_tuning_seeds} other seeds, point by point:"
    ]
    for letter, kind in zip("bcd", panels, strict=True):
        rates = panels[kind].columns["rate_constant"]
        lines.append(f"({letter}) " + ";  ".join(f"{n}: " + " ".join(f"{r:.2g}" for r in rates[n]) for n in rates))
    return "\n".join(lines)


def make(out: Path, *, quick: bool, num_seeds: int | None, sweep: Sweep) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(Protocol(), QUICK if quick else {}, num_seeds)
    panels = compute(protocol, quick=quick, sweep=sweep)
    settings = _output.settings("figure_1", dataclasses.asdict(protocol), quick) | {
        "algorithms": ALGORITHMS,
        "horizons": horizons(protocol.num_steps),
        "correlations": axes_of(quick)[0],
        "concentrations": axes_of(quick)[1],
        "default_setting": dataclasses.asdict(Setting()),
        "tuned_rate_constants": {kind: panel.columns["rate_constant"] for kind, panel in panels.items()},
    }
    tables = _panels.tables(panels, curve="algorithm", value="average_regret")
    return _output.save("figure_1", draw(panels, protocol), tables, settings, out)
