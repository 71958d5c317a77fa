"""Panels of censored times, and their tables."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from paper_figs.panels import Panel, tabulate


def test_censored_times_are_medians_with_their_share():
    """Nine seeds, of which all, six and four get there within 100 steps: the last median is not known."""
    times = np.tile(np.arange(1.0, 10.0)[:, None], 3)
    times[6:, 1] = times[4:, 2] = 101
    panel = Panel("x", np.array([1.0, 2.0, 3.0]), {"curve": times}, limit=101.0)
    rows = tabulate({"panel": panel})[""]
    assert not any("mean" in row for row in rows)
    assert [row["median"] for row in rows] == [5, 5, np.inf]
    assert [row["share"] for row in rows] == pytest.approx([1, 6 / 9, 4 / 9])
    # The second and the eighth of nine: P(Binomial(9, 1/2) < 2) = 2.0%, and of less than 3 it is 9%.
    assert [row["low_95"] for row in rows] == [2, 2, 2]
    assert [row["high_95"] for row in rows] == [8, np.inf, np.inf]
    axes = Figure().subplots()
    panel.curves(axes)
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [5, 5, 101])
    assert [text.get_text() for text in axes.texts] == ["67%", "44%"]
