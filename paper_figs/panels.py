"""A panel of curves: its numbers, how it is drawn, and the tables that are saved beside the figure."""

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from damjax import plotting

DECADES = tuple(digit * 10.0**power for power in range(-4, 9) for digit in (1, 2, 5))
TIMES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
ENDS = ("low_95", "high_95")
POWERS = tuple(10.0**power for power in range(-8, 12))


class Panel(NamedTuple):
    """The numbers of one panel.

    Attributes:
        label: of the x axis, with its unit.
        x: (points,).
        samples: curve -> (seeds, points).
        columns: what else is known of each point: column of the table -> curve -> one value, or one per point.
        log: whether the axis of the values is logarithmic.
        limit: a value from here on says that what it is the time of did not happen within the run. Such times have no
            mean: the panel shows medians, and the share of seeds where it did happen.
    """

    label: str
    x: np.ndarray
    samples: Mapping[str, np.ndarray]
    columns: Mapping[str, Mapping[str, Sequence[float]]] = {}
    log: bool = True
    limit: float = math.inf

    @property
    def positive(self) -> bool:
        """Whether intervals are those of logarithms: on a logarithmic axis, of what is positive everywhere."""
        return self.log and all(np.all(values > 0) for values in self.samples.values())

    def curves(self, axes: Axes) -> None:
        """Draw mean and interval of every curve, or medians and shares where there is a limit."""
        plotting.curves(axes, self.x, self.samples, positive=self.positive, limit=self.limit)
        if math.isfinite(self.limit):
            self._shares(axes)

    def draw(self, axes: Axes, title: str, ylabel: str, *, ticks: Sequence[float] = DECADES) -> None:
        """Draw the curves with their intervals, and say what the axes are."""
        self.curves(axes)
        axes.set(xlabel=self.label, title=title, ylabel=ylabel)
        if self.log:
            plotting.log_axis(axes.yaxis, ticks)

    def summary(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """What is said of each point of a curve, by the columns of the table."""
        if math.isinf(self.limit):
            return dict(zip(("mean", *ENDS), plotting.mean_interval(samples, positive=self.positive), strict=True))
        median = dict(zip(("median", *ENDS), plotting.median_interval(samples, limit=self.limit), strict=True))
        return median | {"share": np.mean(samples < self.limit, axis=0)}

    def _shares(self, axes: Axes) -> None:
        """Where some seeds are not there within the run: shade what lies beyond it, and write there how many are."""
        shares = [self.summary(samples)["share"] for samples in self.samples.values()]
        if np.min(shares) == 1:
            return
        axes.axhspan(self.limit, 4 * self.limit, color="0.93", zorder=0)
        for row, (line, of_curve) in enumerate(zip(axes.get_lines(), shares, strict=False)):
            place = {"xytext": (0, 2 + 7 * row), "textcoords": "offset points", "ha": "center", "fontsize": 6.5}
            for x, share in zip(self.x, of_curve, strict=True):
                if share < 1:
                    axes.annotate(f"{share:.0%}", (x, self.limit), color=line.get_color(), **place)


def letter(panels: Iterable[Axes]) -> None:
    """Put (a), (b), ... before the titles, in the order of reading."""
    for name, axes in zip(string.ascii_lowercase, panels, strict=False):
        axes.set_title(f"({name}) {axes.get_title('left')}".rstrip())


def note(figure: Figure, text: str) -> None:
    """Write a small line below a figure, which says how its numbers were made."""
    figure.text(0.0, -0.01, text, fontsize=7, va="top")


def tabulate(
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
            points = panel.summary(samples)
            for i, x in enumerate(panel.x.tolist()):
                columns = {
                    column: values[name][i if len(values[name]) > 1 else 0] for column, values in panel.columns.items()
                }
                point = {"panel": kind, curve: name, "x": x} | columns
                statistics = {column: values[i] for column, values in points.items()}
                summary.append(point | statistics | {"seeds": len(samples)})
                runs += [point | {"seed": s, value: sample} for s, sample in enumerate(samples[:, i])]
    return {"": summary, "_runs": runs}
