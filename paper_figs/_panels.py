"""A panel of curves: its numbers, how it is drawn, and the tables that are saved beside the figure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from damjax import plotting

DECADES = tuple(digit * 10.0**power for power in range(-4, 9) for digit in (1, 2, 5))
TIMES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
POWERS = tuple(10.0**power for power in range(-8, 12))


class Panel(NamedTuple):
    """The numbers of one panel.

    Attributes:
        label: of the x axis, with its unit.
        x: (points,).
        samples: curve -> (seeds, points).
        columns: what else is known of each point: column of the table -> curve -> one value, or one per point.
        log: whether the axis of the values is logarithmic.
    """

    label: str
    x: np.ndarray
    samples: Mapping[str, np.ndarray]
    columns: Mapping[str, Mapping[str, Sequence[float]]] = {}
    log: bool = True

    @property
    def positive(self) -> bool:
        """Whether intervals are those of logarithms: on a logarithmic axis, of what is positive everywhere."""
        return self.log and all(np.all(values > 0) for values in self.samples.values())

    def curves(self, axes: Axes) -> None:
        """Draw mean and interval of every curve."""
        plotting.curves(axes, self.x, self.samples, positive=self.positive)


def draw(axes: Axes, panel: Panel, title: str, ylabel: str, *, ticks: Sequence[float] = DECADES) -> None:
    """Curves with their intervals and what the axes are."""
    panel.curves(axes)
    axes.set(xlabel=panel.label, title=title, ylabel=ylabel)
    if panel.log:
        plotting.log_axis(axes.yaxis, ticks)


def tables(
    panels: Mapping[str, Panel], *, curve: str = "curve", value: str = "value"
) -> dict[str, list[dict[str, Any]]]:
    """The numbers behind a figure: a summary, and under "_runs" every run.

    Args:
        panels: by name.
        curve: the name of the column that tells curves apart.
        value: the name of the column of the runs' values.
    """
    summary, runs = [], []
    for kind, panel in panels.items():
        for name, samples in panel.samples.items():
            mean, low, high = plotting.mean_interval(samples, positive=panel.positive)
            for i, x in enumerate(panel.x.tolist()):
                known = {
                    column: values[name][i if len(values[name]) > 1 else 0] for column, values in panel.columns.items()
                }
                point = {"panel": kind, curve: name, "x": x} | known
                summary.append(point | {"mean": mean[i], "low_95": low[i], "high_95": high[i], "seeds": len(samples)})
                runs += [point | {"seed": s, value: found} for s, found in enumerate(samples[:, i])]
    return {"": summary, "_runs": runs}
