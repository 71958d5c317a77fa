"""Tasks from arrays: who sees what in which order, and what everyone is asked."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax.recall.items import from_arrays, passes
from damjax.recall.measuring import ask, recall_measures
from damjax.recall.task import check_task

HOLDERS = [2, 0, 1, 2, 0, 2]  # agent 0 holds two items, agent 1 one, agent 2 three


def key(seed=0):
    return jax.random.key(seed)


make = functools.partial(from_arrays, num_agents=3, num_steps=11)


def test_every_pass_of_an_agent_is_a_permutation_of_its_items():
    task = make(key(), np.eye(6), 10 * np.eye(6), HOLDERS)
    items = np.argmax(task.associations.keys, axis=2)
    np.testing.assert_array_equal(np.eye(6)[items], task.associations.keys)
    np.testing.assert_array_equal(10 * np.eye(6)[items], task.associations.values)
    for agent, own in enumerate(([1, 4], [2], [0, 3, 5])):
        for start in range(0, 11, len(own)):
            block = items[start : start + len(own), agent].tolist()
            assert len(set(block)) == len(block)
            assert set(block) <= set(own)


def test_all_orders_are_as_likely_and_passes_are_independent():
    """Of three items: 36 orders of two passes, 7200 draws; the counts are within five standard deviations of 200."""
    drawn = jax.vmap(lambda k: passes(k, np.array([4, 3]), 6)[:, 1])(jax.random.split(key(), 7200))
    orders, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
    permutations = itertools.product(itertools.permutations(range(3)), repeat=2)
    np.testing.assert_array_equal(orders, sorted(first + second for first, second in permutations))
    assert abs(counts - 200).max() < 5 * np.sqrt(200)


def test_everyone_is_asked_for_every_item_once():
    keys, values = np.arange(12.0).reshape(6, 2), np.arange(18.0).reshape(6, 3)
    task = make(key(), keys, values, HOLDERS)
    check_task(task)
    for agent in range(3):
        np.testing.assert_array_equal(task.questions.keys[:, agent], keys)
        np.testing.assert_array_equal(np.asarray(task.candidates)[task.questions.answers[:, agent]], values)
        np.testing.assert_array_equal(task.questions.agents[:, agent], HOLDERS)


def test_who_has_stored_its_own_recalls_all_of_it_and_nothing_of_others():
    task = make(key(), np.eye(6), np.eye(6), HOLDERS)
    stored = jnp.einsum("tnv,tnk->nvk", task.associations.values, task.associations.keys)
    answers = ask(lambda memory, cue: memory @ cue, stored, task)
    accuracy = {about: recall_measures(answers, task.questions, about=about) for about in ("own", "others")}
    assert accuracy["own"]["accuracy"] == 1
    assert accuracy["own"]["num_questions"] == 6
    assert accuracy["others"]["accuracy"] == 0
    assert accuracy["others"]["num_questions"] == 12


def test_one_pure_function_of_a_key():
    draw = functools.partial(make, keys=np.eye(6), values=np.eye(6), holders=np.array(HOLDERS))
    seeds = jax.random.split(key(), 3)
    together = jax.jit(jax.vmap(lambda k: draw(k)))(seeds)
    for row, seed in enumerate(seeds):
        alone = draw(seed)
        jax.tree.map(
            lambda all_seeds, one, row=row: np.testing.assert_array_equal(all_seeds[row], one), together, alone
        )
    assert not np.array_equal(together.associations.keys[0], together.associations.keys[1])


def test_dtypes_and_the_same_order_in_both_precisions():
    double, single = (make(key(), np.eye(6), np.eye(6), HOLDERS, dtype=dtype) for dtype in (None, jnp.float32))
    assert {leaf.dtype for leaf in (*double.associations[:2], double.questions.keys, double.candidates)} == {
        jnp.dtype(jnp.float64)
    }
    assert {leaf.dtype for leaf in (*single.associations[:2], single.questions.keys, single.candidates)} == {
        jnp.dtype(jnp.float32)
    }
    np.testing.assert_array_equal(single.associations.keys, double.associations.keys)
    jax.config.update("jax_enable_x64", False)
    narrow = make(key(), np.eye(6, dtype=np.float32), np.eye(6, dtype=np.float32), HOLDERS)
    assert narrow.associations.keys.dtype == jnp.float32
    np.testing.assert_array_equal(narrow.associations.keys, double.associations.keys)


def test_a_task_has_a_derivative_in_its_arrays():
    """The sum of all values that are seen: agent 1 sees its only item 11 times, agent 0 its two 6 and 5 times."""
    seen = jax.grad(lambda values: jnp.sum(make(key(), np.eye(6), values, HOLDERS).associations.values))(
        jnp.zeros((6, 1))
    )
    counts = seen[:, 0].tolist()
    assert counts[2] == 11
    assert sorted([counts[1], counts[4]]) == [5, 6]
    assert sorted([counts[0], counts[3], counts[5]]) == [3, 4, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_agents": 0}, "num_agents must be a positive integer"),
        ({"num_steps": 0}, "num_steps must be a positive integer"),
        ({"num_agents": 4}, "agent 3 of 4 holds none"),
        ({"num_agents": 2}, "holders must lie in 0 .. 1, but they range from 0 to 2"),
        ({"holders": [0, 1, 2]}, "integers of shape (6,), but they are int64 of shape (3,)"),
        ({"holders": np.zeros(6)}, "integers of shape (6,), but they are float64"),
        ({"keys": np.eye(6)[0]}, "keys must be an array (Q, dk)"),
        ({"values": np.eye(5)}, "values must have a row per key, 6, but there are 5"),
        ({"values": np.full((6, 2), np.nan)}, "values must be finite in float64, but row 0 is not"),
        ({"keys": np.full((6, 2), 1e300), "dtype": "float32"}, "keys must be finite in float32"),
        ({"dtype": int}, "dtype must name a floating-point type"),
    ],
)
def test_bad_arrays(untyped, changes, message):
    arguments = {"keys": np.eye(6), "values": np.eye(6), "holders": HOLDERS, "num_agents": 3, "num_steps": 4}
    with pytest.raises(ValueError, match=re.escape(message)):
        from_arrays(key(), **arguments | changes)


def test_holders_are_known_before_tracing():
    with pytest.raises(ValueError, match="holders must be known before tracing"):
        jax.jit(lambda holders: make(key(), np.eye(6), np.eye(6), holders))(jnp.array(HOLDERS))
