"""Every threshold has its reason, and those that follow from others or from a distribution are right."""

import inspect
import re

import numpy as np
import pytest
from scipy import stats

from damjax.diagnostics.thresholds import THRESHOLDS, Thresholds


def test_each_stands_in_the_table_with_its_reason():
    documented = re.findall(r"^ {4}(\w+): \S", inspect.getdoc(Thresholds) or "", re.MULTILINE)
    assert tuple(documented) == Thresholds._fields


def test_those_that_are_derived():
    assert stats.t.ppf(0.99, THRESHOLDS.num_blocks - 2) == pytest.approx(THRESHOLDS.trend_quantile, abs=0.01)
    assert stats.t.ppf(0.99, THRESHOLDS.num_late_blocks - 1) == pytest.approx(THRESHOLDS.mean_quantile, abs=0.01)
    blocks = np.array_split(np.arange(THRESHOLDS.min_steps // 4, THRESHOLDS.min_steps), THRESHOLDS.num_blocks)
    assert min(map(len, blocks)) == 1
    assert THRESHOLDS.min_steps // 2 == 2 * THRESHOLDS.num_late_blocks
