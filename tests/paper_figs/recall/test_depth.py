"""What the figure of depth claims, in its numbers, at a smaller size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paper_figs.recall import depth

SMALL = dataclasses.replace(
    depth.Protocol(), num_seeds=3, num_tuning_seeds=2, num_steps=1500, num_windows=5, rates=(0.05, 0.1)
)


def test_teachers_bend_what_one_matrix_makes_of_the_cues():
    draw = lambda number: depth.draw_stream(jax.random.key(0), jnp.asarray(number), SMALL)  # noqa: E731
    quiet = dataclasses.replace(SMALL, noise_std=0.0)
    linear, rectified, folded = (depth.draw_stream(jax.random.key(0), jnp.asarray(n), quiet).values for n in range(3))
    np.testing.assert_array_equal(rectified, jnp.maximum(linear, 0))
    np.testing.assert_array_equal(folded, jnp.abs(linear))
    np.testing.assert_allclose(np.std(draw(0).values - linear), SMALL.noise_std, rtol=0.02)


@pytest.mark.long
def test_the_second_memory_mends_what_the_first_recalls_and_no_more():
    panels = depth.compute(SMALL)
    last = {
        (teacher, label.split(",")[0]): samples[:, -1].mean()
        for teacher, panel in panels.items()
        for label, samples in panel.samples.items()
    }
    assert last["linear", "two"] < 0.02
    assert last["rectified", "two"] < 0.75 * last["rectified", "one memory"]
    assert last["folded", "two"] > 0.95 * last["folded", "one memory"]
    assert last["folded", "two layers"] < 0.4 * last["folded", "two"]
    assert last["rectified", "two layers"] < 0.5 * last["rectified", "two"]
