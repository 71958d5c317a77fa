"""What the theory figures compute."""

import numpy as np
import pytest

from paper_figs.sweeps import quiet
from paper_figs.theory import movement


@pytest.mark.long
def test_the_printed_step_fails_and_the_mended_one_holds():
    steps, taus = np.array([2, 5, 9, 30, 100]), (2, 8)
    sides = movement("movement", taus, steps.tolist(), quiet)
    rates = 1 / np.sqrt(np.arange(1, 200))
    for tau, printed, mended in zip(taus, sides["printed"], sides["mended"], strict=True):
        moved = [rates[max(step - 1 - tau, 0) : step - 1].sum() for step in steps]
        np.testing.assert_allclose(printed, moved / (tau * rates[steps - 2]), rtol=1e-6)
        assert np.all(printed[steps > tau] > 1)
        assert np.all(mended <= 1)
