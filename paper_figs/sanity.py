"""Three experiments whose outcome is known: one agent alone, growing paths, and the stress of personal targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import networkx as nx
import numpy as np
from matplotlib.figure import Figure

import damjax
from damjax import plotting
from paper_figs import _output, _panels, _sweeps
from paper_figs._experiment import ALGORITHMS, average_regret, tuned_regret
from paper_figs._panels import Panel
from paper_figs._problems import Protocol, Setting, draw_case
from paper_figs._sweeps import Sweep
from paper_figs.figure_1 import QUICK, REGRET, horizons

PROTOCOL = Protocol(rate_constants=tuple(float(c) for c in np.geomspace(0.05, 12.0, 9).round(4)))
PATH_LENGTHS = (2, 3, 5, 9, 17)
STRESS = (0.1, 0.5, 0.9)
CONCENTRATION = 0.05
ALONE_RATE = 1.0
CLAIM = "Alone, all are the same; the price of delay grows with it; personal targets are a stress for consensus only"


def compute(protocol: Protocol, *, quick: bool = False, sweep: Sweep = _sweeps.quiet) -> dict[str, Panel]:
    """All numbers of the figure."""
    times, last = horizons(protocol.num_steps), [protocol.num_steps]
    one = draw_case(damjax.graphs.path(1), protocol, [Setting()])
    alone = average_regret("alone", one, {name: [[ALONE_RATE]] for name in ALGORITHMS}, horizons=times, sweep=sweep)

    def tuned(name: str, graph: nx.Graph, settings: Sequence[Setting]):
        return tuned_regret(settings, graph=graph, protocol=protocol, horizons=last, sweep=sweep, prefix=f"{name}_")

    lengths = PATH_LENGTHS[:1] if quick else PATH_LENGTHS
    by_length = [tuned(f"path_{length}", damjax.graphs.path(length), [Setting()]) for length in lengths]
    settings = [Setting(correlation=rho, concentration=CONCENTRATION) for rho in STRESS]
    stress = tuned("network", damjax.graphs.paper_network(), settings)

    def panel(label: str, x: Sequence[float], results: Sequence[Any]) -> Panel:
        """Points in the order of the results, and of the settings within each."""
        samples = {name: np.concatenate([regret[name][:, :, 0] for regret, _ in results]).T for name in ALGORITHMS}
        rates = {name: [rate for _, rates in results for rate in rates[name]] for name in ALGORITHMS}
        return Panel(label, np.array(x), samples, {"rate_constant": rates})

    longest = [2.0 * (length - 1) for length in lengths]
    return {
        "alone": Panel(
            "horizon T (steps)",
            np.array(times),
            {name: found[0, :, 0] for name, found in alone.items()},
            {"rate_constant": {name: [ALONE_RATE] for name in ALGORITHMS}},
        ),
        "delay": panel(r"longest round trip $\tau_\mathrm{max}$ (steps), on paths", longest, by_length),
        "stress": panel(r"target correlation $\rho$", STRESS, [stress]),
    }


def draw(panels: Mapping[str, Panel], protocol) -> Figure:
    """The figure from its numbers."""
    titles = {
        "alone": "one agent alone",
        "delay": "growing paths",
        "stress": f"interests near one-hot (a = {CONCENTRATION})",
    }
    with mpl.rc_context(plotting.style()):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        for axes, (kind, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            _panels.draw(axes, panels[kind], title, REGRET)
        plotting.log_axis(figure.axes[0].xaxis, _panels.TIMES)
        plotting.log_axis(figure.axes[1].xaxis, tuple(2.0**power for power in range(1, 8)))
        figure.axes[2].set_xticks(STRESS)
        figure.axes[0].legend()
        _panels.letter(figure.axes)
        note = (
            f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T ="
            f" {protocol.num_steps}. Rate constants: {ALONE_RATE:g} for all in (a); tuned on"
            f" {protocol.num_tuning_seeds} other seeds, point by point, in (b) and (c)."
        )
        figure.text(0.0, -0.02, note, fontsize=7, va="top")
    return figure


make = _output.maker("sanity", PROTOCOL, QUICK, compute, draw, claim=CLAIM)
