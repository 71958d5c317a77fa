"""Digits: who sees which images, what everyone is asked, and that there is something to learn."""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from damjax.recall import images
from damjax.recall.images import digits
from damjax.recall.task import check_task

IMAGES, LABELS = map(np.asarray, load_digits(return_X_y=True))
PIXELS = IMAGES / 16 - IMAGES.mean(axis=0) / 16
ROWS = {image.tobytes(): row for row, image in enumerate(IMAGES.astype(np.uint8))}


def key(seed=0):
    return jax.random.key(seed)


def rows_of(task):
    """Which image of the data set each association, and each question, is."""
    asked = task.candidates[task.questions.answers[:, 0]]
    halves = task.associations[:2], (task.questions.keys[:, 0], asked)
    return [rows_of_pixels(np.concatenate(pair, axis=-1)) for pair in halves]


def rows_of_pixels(pixels):
    whole = np.rint(pixels * 16 + IMAGES.mean(axis=0)).astype(np.uint8).reshape(-1, 64)
    rows = np.array([ROWS[image.tobytes()] for image in whole]).reshape(pixels.shape[:-1])
    np.testing.assert_allclose(pixels, PIXELS[rows], atol=1e-12)
    return rows


@pytest.mark.parametrize(("num_agents", "classes_per_agent"), [(10, 2), (4, 3), (2, 10)])
def test_agents_see_images_of_their_classes_and_never_one_that_is_asked_for(num_agents, classes_per_agent):
    task = digits(key(), num_steps=300, num_agents=num_agents, classes_per_agent=classes_per_agent, num_held_out=7)
    check_task(task)
    seen, asked = rows_of(task)
    assert not set(seen.ravel()) & set(asked)
    np.testing.assert_array_equal(LABELS[asked], np.repeat(range(10), 7))
    assert len(set(asked)) == 70
    classes = [set(LABELS[seen[:, agent]].tolist()) for agent in range(num_agents)]
    assert {len(own) for own in classes} == {classes_per_agent}
    viewers = [sum(label in own for own in classes) for label in range(10)]
    assert max(viewers) - min(viewers) <= 1
    assert min(viewers) >= 1
    for agent in range(num_agents):
        assert len(set(seen[:167, agent])) == 167  # the first pass, of at least 167 images, shows none twice
        for row, holder in zip(asked, np.asarray(task.questions.agents[:, agent]), strict=True):
            own = LABELS[row] in classes[agent]
            assert holder == agent if own else LABELS[row] in classes[holder]


def test_passes_go_over_all_images_of_the_classes():
    """One class an agent: 174 less 173 leave one image, and less 172 two, which take turns."""
    one = digits(key(), num_steps=4, classes_per_agent=1, num_held_out=173)
    np.testing.assert_array_equal(one.associations.keys[0], one.associations.keys[3])
    two, _ = rows_of(digits(key(), num_steps=4, classes_per_agent=1, num_held_out=172))
    assert (np.sort(two[:2], axis=0) == np.sort(two[2:], axis=0)).all()
    assert (two[0] != two[1]).all()


def test_classification_has_the_class_as_a_one_hot_value():
    task = digits(key(), num_steps=20, task="classification")
    check_task(task)
    np.testing.assert_array_equal(task.candidates, np.eye(10))
    seen, asked = map(rows_of_pixels, map(np.asarray, (task.associations.keys, task.questions.keys)))
    np.testing.assert_array_equal(task.associations.values, np.eye(10)[LABELS[seen]])
    np.testing.assert_array_equal(task.questions.answers, LABELS[asked])


def test_the_images_are_the_same_in_both_tasks():
    halves, wholes = (digits(key(), num_steps=50, task=task) for task in ("completion", "classification"))
    both = np.concatenate([halves.associations.keys, halves.associations.values], axis=2)
    np.testing.assert_array_equal(both, wholes.associations.keys)
    np.testing.assert_array_equal(halves.questions.agents, wholes.questions.agents)


def test_zeros_have_an_nmse_of_one_and_a_linear_memory_less_where_the_class_was_seen():
    """Fifty seeds of 300 questions: held-out images spread about the mean image as all of them do."""
    candidates = jax.vmap(lambda k: digits(k, num_steps=1).candidates)(jax.random.split(key(), 50))
    np.testing.assert_allclose(jnp.mean(jnp.sum(candidates**2, axis=2)), (PIXELS[:, 32:] ** 2).sum(1).mean(), rtol=0.01)
    task = digits(key(), num_steps=288, classes_per_agent=2)
    cues, answers = np.asarray(task.questions.keys[:, 0]), np.asarray(task.candidates)
    own = np.asarray(task.questions.agents) == np.arange(10)[None]
    errors = {True: [], False: []}
    for agent in range(10):
        seen, values = (np.asarray(array[:, agent]) for array in task.associations[:2])
        memory = np.linalg.solve(seen.T @ seen + 0.1 * np.eye(32), seen.T @ values)
        for kind, kept in errors.items():
            rows = own[:, agent] == kind
            kept.append(((cues[rows] @ memory - answers[rows]) ** 2).sum() / (answers[rows] ** 2).sum())
    assert np.mean(errors[True]) < 0.55
    assert np.mean(errors[False]) > 0.9


def test_one_pure_function_of_a_key_in_either_precision():
    make = functools.partial(digits, num_steps=5, num_agents=5, num_held_out=3, task="classification")
    seeds = jax.random.split(key(), 3)
    together = jax.jit(jax.vmap(lambda k: make(k, dtype=jnp.float32)))(seeds)
    for row, seed in enumerate(seeds):
        alone, double = make(seed, dtype=jnp.float32), make(seed)
        assert {leaf.dtype for leaf in (*alone.associations[:2], alone.questions.keys, alone.candidates)} == {
            jnp.dtype(jnp.float32)
        }
        assert double.associations.keys.dtype == double.candidates.dtype == jnp.float64
        jax.tree.map(
            lambda all_seeds, one, row=row: np.testing.assert_array_equal(all_seeds[row], one), together, alone
        )
        np.testing.assert_allclose(double.associations.keys, alone.associations.keys, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(double.questions.agents, alone.questions.agents)
    assert not np.array_equal(together.questions.keys[0], together.questions.keys[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a positive integer"),
        ({"num_agents": 0}, "num_agents must be a positive integer"),
        ({"classes_per_agent": 11}, "classes_per_agent must be at most 10, but it is 11"),
        ({"num_held_out": 174}, "num_held_out must be at most 173, but it is 174"),
        ({"num_held_out": 0}, "num_held_out must be a positive integer"),
        ({"num_agents": 3}, "classes_per_agent must be at least 4 with 3 agents, so that somebody sees every class"),
        ({"task": "guess"}, "task must be one of completion, classification, but it is 'guess'"),
        ({"dtype": int}, "dtype must name a floating-point type"),
    ],
)
def test_bad_arguments(untyped, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        digits(key(), **{"num_steps": 4} | changes)


def test_without_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    images._data.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'damjax\[recall\]'"):
        digits(key(), num_steps=1)
