"""Three experiments whose outcome is known: one agent alone, growing paths, and the stress of personal targets."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import damjax
from damjax import plotting
from paper_figs import problems
from paper_figs.experiment import ALGORITHMS, Factory, average_regret, tuned_regret
from paper_figs.figure import Figure, Picture
from paper_figs.figure_1 import REGRET, SMALL, horizons
from paper_figs.panels import TIMES, Panel, letter, note
from paper_figs.problems import Setting, draw_case, facts
from paper_figs.sweeps import Sweep, quiet

STRESS = (0.1, 0.5, 0.9)
CONCENTRATION = 0.05
ALONE_RATE = 1.0


@dataclass(frozen=True)
class Protocol(problems.Protocol):
    """How every run of the figure is made."""

    rate_constants: tuple[float, ...] = tuple(float(c) for c in np.geomspace(0.05, 12.0, 9).round(4))
    path_lengths: tuple[int, ...] = (2, 3, 5, 9, 17)


QUICK = SMALL | {"path_lengths": (2,)}
CLAIM = "Alone, all are the same; the price of delay grows with it; personal targets are a stress for consensus only"


def compute(
    protocol: Protocol, sweep: Sweep = quiet, algorithms: Mapping[str, Factory] = ALGORITHMS
) -> dict[str, Panel]:
    """All numbers of the figure, for the paper's algorithms or others."""
    times, last = horizons(protocol.num_steps), [protocol.num_steps]
    one = draw_case(damjax.graphs.path(1), protocol, [Setting()])
    constants = {name: [[ALONE_RATE]] for name in algorithms}
    alone = average_regret("alone", one, constants, horizons=times, sweep=sweep, algorithms=algorithms)

    tuned = functools.partial(tuned_regret, protocol=protocol, horizons=last, sweep=sweep, algorithms=algorithms)
    lengths = protocol.path_lengths
    by_length = [tuned([Setting()], graph=damjax.graphs.path(length), prefix=f"path_{length}_") for length in lengths]
    settings = [Setting(correlation=rho, concentration=CONCENTRATION) for rho in STRESS]
    stress = tuned(settings, graph=damjax.graphs.paper_network(), prefix="network_")

    def panel(label: str, x: Sequence[float], results: Sequence[Any]) -> Panel:
        """Points in the order of the results, and of the settings within each."""
        samples = {name: np.concatenate([regret[name][:, :, 0] for regret, _ in results]).T for name in algorithms}
        rates = {name: [rate for _, rates in results for rate in rates[name]] for name in algorithms}
        return Panel(label, np.array(x), samples, {"rate_constant": rates})

    longest = [2.0 * (length - 1) for length in lengths]
    return {
        "alone": Panel(
            "horizon T (steps)",
            np.array(times),
            {name: regret[0, :, 0] for name, regret in alone.items()},
            {"rate_constant": {name: [ALONE_RATE] for name in algorithms}},
        ),
        "delay": panel(r"longest round trip $\tau_\mathrm{max}$ (steps), on paths", longest, by_length),
        "stress": panel(r"target correlation $\rho$", STRESS, [stress]),
    }


def draw(figure: Picture, panels: Mapping[str, Panel], protocol: Protocol) -> None:
    """Draw the numbers."""
    titles = {
        "alone": "one agent alone",
        "delay": "growing paths",
        "stress": f"interests near one-hot (a = {CONCENTRATION})",
    }
    for axes, (kind, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        panels[kind].draw(axes, title, REGRET)
    plotting.log_axis(figure.axes[0].xaxis, TIMES)
    plotting.log_axis(figure.axes[1].xaxis, tuple(2.0**power for power in range(1, 8)))
    figure.axes[2].set_xticks(STRESS)
    figure.axes[0].legend()
    letter(figure.axes)
    note(
        figure,
        f"Mean and 95% interval over {protocol.num_seeds} seeds, shared by the algorithms; T ="
        f" {protocol.num_steps}. Rate constants: {ALONE_RATE:g} for all in (a); tuned on"
        f" {protocol.num_tuning_seeds} other seeds, point by point, in (b) and (c).",
    )


FIGURE = Figure("sanity", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (10.5, 3.4), facts=facts)
