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
RATIO = "ratio"
CLAIM = "DAM-TOGD stays within a small factor of OGD; consensus reaches a plateau, and pays for what is personal"
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
        The panels "time", "correlation" and "concentration", and the last two again as "..._ratio" to OGD.
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
    panels = {
        "time": Panel(
            "horizon T (steps)", np.array(times), {name: found[0] for name, found in regret.items()}, constants
        ),
        "correlation": against(r"target correlation $\rho$", correlations, 1),
        "concentration": against("Dirichlet concentration $a$", concentrations, 1 + len(correlations)),
    }
    return panels | {f"{kind}_{RATIO}": ratio_to_ogd(panels[kind]) for kind in ("correlation", "concentration")}


def ratio_to_ogd(panel: Panel) -> Panel:
    """Every regret over that of OGD on the same seed."""
    samples = {name: values / panel.samples["OGD"] for name, values in panel.samples.items()}
    return panel._replace(samples=samples)


def axes_of(quick: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The points of panels (c) and (d)."""
    if quick:
        return CORRELATIONS[::5], CONCENTRATIONS[::4]
    return CORRELATIONS, CONCENTRATIONS


def draw(panels: Mapping[str, Panel], protocol: Protocol) -> Figure:
    """The figure from its numbers."""
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(8.6, 9.4), layout="constrained")
        network, *others = figure.subplots(3, 2).flat
        draw_network(network, protocol)
        network.set_title(f"routing tree of agent {AGENT}, with round trips in steps")
        titles = {
            "time": "regret against time",
            "correlation": "regret against the correlation of the targets",
            "concentration": "regret against the spread of the interests",
            f"correlation_{RATIO}": "the same as (c), over the regret of OGD",
            f"concentration_{RATIO}": "the same as (d), over the regret of OGD",
        }
        for axes, (kind, title) in zip(others, titles.items(), strict=True):
            _panels.draw(axes, panels[kind], title, "ratio to the regret of OGD" if kind.endswith(RATIO) else REGRET)
            if "concentration" in kind:
                plotting.log_axis(axes.xaxis, CONCENTRATIONS)
        plotting.log_axis(others[0].xaxis, _panels.TIMES)
        others[0].legend()
        _panels.letter(figure.axes)
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T ="
            f" {protocol.num_steps}.\nRates c / sqrt(count), with c tuned on {protocol.num_tuning_seeds} other seeds."
        )
        figure.text(0.0, -0.01, note, fontsize=7, va="top")
    return figure


def draw_network(axes: Axes, protocol: Protocol) -> None:
    """Panel (a): the network and one agent's tree, for the first seed of the default setting."""
    graph = damjax.graphs.paper_network()
    weights = problems(graph, protocol, [Setting()], seeds(protocol, tuning=False)[:1]).weights[0, 0]
    routes = damjax.routing.compile_routes(graph, weights, method=protocol.routing)
    plotting.network(axes, graph, routes, AGENT)


def make(out: Path, *, quick: bool, num_seeds: int | None, sweep: Sweep) -> list[Path]:
    """Compute, draw and save the figure; return the files."""
    protocol = _output.resized(Protocol(), QUICK if quick else {}, num_seeds)
    panels = compute(protocol, quick=quick, sweep=sweep)
    ratios = {kind: panel for kind, panel in panels.items() if kind.endswith(RATIO)}
    regrets = {kind: panel for kind, panel in panels.items() if kind not in ratios}
    settings = _output.settings("figure_1", dataclasses.asdict(protocol), quick) | {
        "algorithms": ALGORITHMS,
        "horizons": horizons(protocol.num_steps),
        "correlations": axes_of(quick)[0],
        "concentrations": axes_of(quick)[1],
        "default_setting": dataclasses.asdict(Setting()),
        "tuned_rate_constants": {kind: panel.columns["rate_constant"] for kind, panel in regrets.items()},
    }
    tables = _panels.tables(regrets, curve="algorithm", value="average_regret")
    ratios = _panels.tables(ratios, curve="algorithm", value="ratio_to_ogd")
    tables |= {f"_{RATIO}{suffix}": rows for suffix, rows in ratios.items()}
    return _output.save("figure_1", draw(panels, protocol), tables, settings, out, claim=CLAIM, quick=quick)
