"""What the figure of capacity claims, in its numbers, at a smaller size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import recall
from paper_figs.recall import capacity

SMALL = capacity.Protocol(num_seeds=6, num_tuning_seeds=3, dim=16, vocabulary=256, loads=(0.5, 1.0, 2.0))


@pytest.mark.parametrize("rewritten", [False, True])
def test_the_first_pairs_are_a_task_of_their_own(rewritten):
    """Read by a perfect memory, every question that is left has its last value as the answer, and no other is left."""
    protocol = dataclasses.replace(SMALL, loads=(0.25, 1.0))
    for num_pairs in protocol.num_pairs:
        task = capacity.draw_task(
            jax.random.key(1), jnp.asarray(num_pairs, jnp.int32), jnp.asarray(0.0), jnp.asarray(rewritten), protocol
        )
        keys, values, _, counts = jax.tree.map(np.asarray, task.associations)
        told = {}
        for key, value, count in zip(keys[:, 0], values[:, 0], counts[:, 0], strict=True):
            if count:
                told[key.tobytes()] = value
        assert len(told) == num_pairs
        writes = int(counts.sum())
        assert writes == num_pairs if not rewritten else num_pairs <= writes <= 2 * num_pairs
        asked = np.flatnonzero(np.asarray(task.questions.answers)[:, 0] >= 0)
        assert len(asked) == num_pairs
        for question in asked:
            right = np.asarray(task.candidates)[int(task.questions.answers[question, 0])]
            np.testing.assert_array_equal(told[np.asarray(task.questions.keys)[question, 0].tobytes()], right)


@pytest.mark.long
def test_the_delta_rule_keeps_what_linear_attention_confuses_and_forgetting_pays_where_pairs_change():
    panels = capacity.compute(SMALL)
    mean = {
        (panel, name): panels[panel].samples[kind.label].mean(axis=0)
        for panel in capacity.CONDITIONS
        for name, kind in capacity.KINDS.items()
    }
    assert (mean["correlated", "delta"] > 1.2 * mean["correlated", "linear"])[1:].all()
    assert (mean["rewritten", "delta"] > mean["rewritten", "linear"] + 0.1)[:2].all()
    assert (mean["rewritten", "gated"] > mean["rewritten", "linear"])[:2].all()
    assert abs(mean["random", "gated"] - mean["random", "linear"]).max() < 0.1
    for panel in ("random", "correlated"):
        assert (mean[panel, "window"] > 0.97).all()
        assert all((mean[panel, name] <= mean[panel, "window"]).all() for name in capacity.KINDS)
    assert (mean["rewritten", "delta"][0] > mean["rewritten", "window"][0]).all()
    assert (mean["random", "features"] > mean["random", "delta"])[-1]
    assert all((np.diff(mean[panel, name]) < 0.05).all() for panel, name in mean if name != "window")


def test_every_memory_but_the_features_and_the_window_holds_as_many_numbers():
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(kind.memory(SMALL).init, jax.random.key(0))))
        for name, kind in capacity.KINDS.items()
    }
    assert {sizes[name] for name in ("linear", "delta", "gated", "slots")} == {SMALL.dim**2}
    assert sizes["mlp"] == SMALL.dim**2 + SMALL.dim // 2
    assert sizes["features"] == 8 * SMALL.dim**2
    assert isinstance(capacity.window(SMALL), recall.Memory)
