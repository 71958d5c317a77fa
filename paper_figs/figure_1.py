"""Figure 1: regret of OGD, C-DOGD and DAM-TOGD against time, target correlation and interest concentration."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import damjax
from damjax import plotting
from paper_figs import problems
from paper_figs.experiment import ALGORITHMS, Factory, tuned_regret
from paper_figs.figure import Figure, Picture, Tables
from paper_figs.panels import TIMES, Panel, letter, note, tabulate
from paper_figs.problems import Setting, draw_problems, seeds
from paper_figs.sweeps import Sweep, quiet

AGENT = 0
RATIO = "ratio"
REGRET = r"average regret $\mathrm{Reg}(T)\,/\,NT$ (loss per step)"


@dataclasses.dataclass(frozen=True)
class Protocol(problems.Protocol):
    """How every run of the figure is made; the points of panels (c) and (d), and y0 in (c)."""

    num_steps: int = 2500
    correlation_concentration: float = 6.0
    correlations: tuple[float, ...] = tuple(round(0.1 * i, 1) for i in range(11))
    concentrations: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


SMALL = {"num_seeds": 4, "num_steps": 200, "rate_constants": (0.2, 0.5, 1.2, 3.0)}
QUICK = SMALL | {"correlations": (0.0, 0.5, 1.0), "concentrations": (0.05, 1.0, 20.0)}
CLAIM = "DAM-TOGD stays within a small factor of OGD; consensus reaches a plateau, and pays for what is personal"
SOURCES = {
    "the paper (arXiv 2509.22321)": "DeltaNet's loss, the laws of keys, targets and interests, rates that decay like"
    " 1 / sqrt(count)",
    "the follow-up by its authors (arXiv 2511.23347)": "personal means on [-5, 5] and variances on [0, 50], noise of"
    " variance 1, T,\n"
    r"$\rho$ and $(y_0, y_1)$ of each panel, consensus by combine-then-adapt",
    "this library": "the network of ten agents, 5 x 5 memories in a ball of radius 60, tuned rates, seeds",
}
"""Whose choices the figure is made of, by where they are published."""


def horizons(num_steps: int) -> list[int]:
    """About four horizons an octave of time, from 10 steps to the end."""
    return np.unique(np.geomspace(min(10, num_steps), num_steps, 20).round().astype(int)).tolist()


def compute(
    protocol: Protocol, sweep: Sweep = quiet, algorithms: Mapping[str, Factory] = ALGORITHMS
) -> dict[str, Panel]:
    """All numbers of the figure.

    Args:
        protocol: sizes, seeds, rate constants and points.
        sweep: computes.
        algorithms: the curves by name, OGD among them; at most five can be told apart.

    Returns:
        The panels "time", "correlation" and "concentration", and the last two again as "..._ratio" to OGD.

    Raises:
        ValueError: no OGD.
    """
    if "OGD" not in algorithms:
        raise ValueError(
            f"algorithms must hold OGD, whose regret the others' is divided by, but they are {', '.join(algorithms)};"
            f" give ALGORITHMS | {{...}}"
        )
    settings = [
        Setting(),
        *(Setting(value, protocol.correlation_concentration) for value in protocol.correlations),
        *(Setting(concentration=value) for value in protocol.concentrations),
    ]
    times, graph = horizons(protocol.num_steps), damjax.graphs.paper_network()
    regret, rates = tuned_regret(
        settings, graph=graph, protocol=protocol, horizons=times, sweep=sweep, algorithms=algorithms
    )

    def against(label: str, values: Sequence[float], first: int) -> Panel:
        """The last horizon of the settings from the ``first`` on; losses add up, so their axis is linear."""
        here = slice(first, first + len(values))
        samples = {name: of_settings[here, :, -1].T for name, of_settings in regret.items()}
        constants = {"rate_constant": {name: rates[name][here] for name in rates}}
        return Panel(label, np.array(values), samples, constants, log=False)

    samples = {name: of_settings[0] for name, of_settings in regret.items()}
    constants = {"rate_constant": {name: of_settings[:1] for name, of_settings in rates.items()}}
    panels = {
        "time": Panel("horizon T (steps)", np.array(times), samples, constants),
        "correlation": against(r"target correlation $\rho$", protocol.correlations, 1),
        "concentration": against(
            "Dirichlet parameter of every other agent, $y_0$", protocol.concentrations, 1 + len(protocol.correlations)
        ),
    }
    return panels | {f"{kind}_{RATIO}": ratio_to_ogd(panels[kind]) for kind in ("correlation", "concentration")}


def ratio_to_ogd(panel: Panel) -> Panel:
    """Every regret over that of OGD on the same seed."""
    samples = {name: values / panel.samples["OGD"] for name, values in panel.samples.items()}
    return panel._replace(samples=samples, log=True)


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
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
        panels[kind].draw(axes, title, "ratio to the regret of OGD" if kind.endswith(RATIO) else REGRET)
        if "concentration" in kind:
            plotting.log_axis(axes.xaxis, protocol.concentrations)
    plotting.log_axis(others[0].xaxis, TIMES)
    others[0].legend()
    letter(figure.axes)
    default, own = Setting(), protocol.self_concentration
    lines = [
        f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T = {protocol.num_steps}."
        f" Rates c / sqrt(count), with c tuned on {protocol.num_tuning_seeds} other seeds.",
        rf"(b) $\rho$ = {default.correlation:g}, $(y_0, y_1)$ = ({default.concentration:g}, {own:g}); (c)"
        rf" ({protocol.correlation_concentration:g}, {own:g}); (d) $\rho$ = {default.correlation:g}, $y_1$ = {own:g}."
        " Interests are Dirichlet, $y_1$ the parameter of oneself.",
        *(f"From {source}: {what}." for source, what in SOURCES.items()),
    ]
    note(figure, "\n".join(lines))


def draw_network(axes: Axes, protocol: Protocol) -> None:
    """Panel (a): the network and one agent's tree, for the first seed of the default setting."""
    graph = damjax.graphs.paper_network()
    weights = draw_problems(graph, protocol, [Setting()], seeds(protocol, tuning=False)[:1]).weights[0, 0]
    routes = damjax.routing.compile_routes(graph, weights, method=protocol.routing)
    plotting.network(axes, graph, routes, AGENT)


def _regrets(panels: Mapping[str, Panel]) -> dict[str, Panel]:
    """The panels of regret, without their ratios."""
    return {kind: panel for kind, panel in panels.items() if not kind.endswith(RATIO)}


def tables(panels: Mapping[str, Panel], protocol: Protocol) -> Tables:
    """The regrets and, in tables of their own, their ratios."""
    regrets = _regrets(panels)
    ratios = {kind: panel for kind, panel in panels.items() if kind not in regrets}
    of_ratios = tabulate(ratios, curve="algorithm", value="ratio_to_ogd")
    of_regrets = tabulate(regrets, curve="algorithm", value="average_regret")
    return of_regrets | {f"_{RATIO}{suffix}": rows for suffix, rows in of_ratios.items()}


def facts(panels: Mapping[str, Panel], protocol: Protocol) -> dict[str, Any]:
    """The network, the default setting, the algorithms, what they were tuned to, and what comes from where."""
    return problems.facts(panels, protocol) | {
        "sources": {source: what.replace("\n", " ") for source, what in SOURCES.items()},
        "algorithms": list(panels["time"].samples),
        "horizons": panels["time"].x.tolist(),
        "default_setting": dataclasses.asdict(Setting()),
        "tuned_rate_constants": {kind: panel.columns["rate_constant"] for kind, panel in _regrets(panels).items()},
    }


FIGURE = Figure("figure_1", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (8.6, 9.4), tables=tables, facts=facts)
