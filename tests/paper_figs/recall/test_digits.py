"""The figure of digits: what it measures, its images, and its claim."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from paper_figs.recall import digits
from paper_figs.recall.digits import ALONE, BEST, FIGURE, IMAGE, answers, best_map, compute, draw_tasks, interests

QUICK = FIGURE.sized(quick=True, num_seeds=2).protocol
SMALL = dataclasses.replace(
    digits.Protocol(),
    num_seeds=3,
    num_tuning_seeds=2,
    num_held_out=10,
    weights=(0.1, 0.5, 1.0),
    horizons=(8, 128),
    completion_constants=(1.0, 2.0),
    classification_constants=(2.0, 20.0),
)


@pytest.fixture(scope="module")
def tasks():
    jax.config.update("jax_enable_x64", True)
    keys = jax.random.split(jax.random.key(0), 2)
    return {exam: draw_tasks(QUICK, keys, exam) for exam in digits.EXAMS}


@pytest.fixture(scope="module")
def small():
    jax.config.update("jax_enable_x64", True)
    return compute(SMALL)


@pytest.mark.long
def test_who_listens_completes_and_names_digits_it_never_saw(small):
    nmse, accuracy = (
        {
            about: {name: curve.mean(axis=0) for name, curve in small.panels[f"{exam}_{about}"].samples.items()}
            for about in digits.ABOUT
        }
        for exam in digits.EXAMS
    )
    # Alone, the others' digits are worse than the mean image, and their names never come to mind.
    assert nmse["others"]["DAM-TOGD"][-1] > 1.1
    np.testing.assert_array_equal(accuracy["others"]["DAM-TOGD"][-1], 0)
    assert nmse["others"]["DAM-TOGD"][1] < 0.87
    assert accuracy["others"]["DAM-TOGD"][1] > 0.85
    # A trade: the more weight on oneself, the better one's own and the worse the others'.
    assert (np.diff(nmse["own"]["DAM-TOGD"]) < -0.02).all()
    assert (np.diff(nmse["others"]["DAM-TOGD"]) > 0.05).all()
    assert (np.diff(accuracy["own"]["DAM-TOGD"]) > 0).all()
    # Consensus is the even end of it.
    for exam in (nmse, accuracy):
        for about in digits.ABOUT:
            np.testing.assert_allclose(exam[about]["C-DOGD"], exam[about]["DAM-TOGD"][0], atol=0.05)
    # No memory is better for all than the best map but by having learned its own better.
    best = nmse["others"][BEST][0]
    np.testing.assert_allclose(nmse["own"][BEST], nmse["others"][BEST], rtol=0.02)
    assert (nmse["others"]["C-DOGD"] > best - 0.01).all()


@pytest.mark.long
def test_delays_cost_little_but_in_the_beginning(small):
    for exam, early in (("completion", 0.05), ("classification", 0.2)):
        curves = small.panels[f"{exam}_time"].samples
        worse = digits.EXAMS[exam].sign * (curves["DAM-TOGD"] - curves["OGD"]).mean(axis=0)
        assert worse[0] > early
        assert abs(worse[-1]) < 0.025


def test_interests_are_even_but_for_oneself():
    weights = interests(jnp.asarray(0.4, jnp.float32), 4)
    np.testing.assert_allclose(weights, 0.2 * np.ones((4, 4)) + 0.2 * np.eye(4), rtol=1e-6)
    np.testing.assert_array_equal(interests(jnp.asarray(1.0, jnp.float32), 3), np.eye(3))


@pytest.mark.parametrize("exam", digits.EXAMS)
def test_measures_are_those_of_a_loop(tasks, exam):
    task = jax.tree.map(lambda leaf: leaf[0], tasks[exam])
    keys, candidates = np.asarray(task.questions.keys), np.asarray(task.candidates)
    size = (1, keys.shape[1], candidates.shape[1], keys.shape[2])
    memories = jax.random.normal(jax.random.key(0), size, jnp.float32)
    measured, recalls = answers(QUICK, task, memories, exam)
    right = candidates[np.asarray(task.questions.answers)]
    given = np.einsum("nvk,qnk->qnv", np.asarray(memories)[0], keys)
    own = np.asarray(task.questions.agents) == np.arange(keys.shape[1])
    for about, asked in (("own", own), ("others", ~own)):
        if exam == "completion":
            expected = ((given - right) ** 2).sum(axis=-1)[asked].sum() / (right**2).sum(axis=-1)[asked].sum()
        else:
            expected = np.mean((given.argmax(axis=-1) == np.asarray(task.questions.answers))[asked])
        assert measured[about][0] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(recalls, given[:: QUICK.num_held_out, 0], rtol=1e-4, atol=1e-5)


def test_the_best_map_is_that_of_least_squares():
    """Of as many steps that it is well determined; every class is asked about alike, as own and as others'."""
    protocol = dataclasses.replace(QUICK, horizons=(128,), dtype="float64")
    tasks = draw_tasks(protocol, jax.random.split(jax.random.key(0), 2), "completion")
    measured, recalls = best_map(protocol, tasks, digits.quiet)
    for seed in range(2):
        task = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), tasks)
        keys, values = (x.reshape(-1, x.shape[-1]) for x in task.associations[:2])
        cues, (best, *_) = task.questions.keys[:, 0], np.linalg.lstsq(keys, values)
        np.testing.assert_allclose(recalls[seed], cues[:: protocol.num_held_out] @ best, atol=1e-8)
        nmse = ((cues @ best - task.candidates) ** 2).sum() / (task.candidates**2).sum()
        for about in digits.ABOUT:
            assert measured[about][seed] == pytest.approx(nmse, rel=1e-8)


@pytest.mark.long
def test_images_are_the_data_sets_and_their_upper_halves_are_given(small):
    pixels, labels = load_digits(return_X_y=True)
    assert list(small.images) == [IMAGE, ALONE, "OGD", "C-DOGD", "DAM-TOGD", BEST]
    for number, image in enumerate(small.images[IMAGE]):
        same = np.isclose(pixels / 16, image, atol=1e-6).all(axis=1)
        assert same.any()
        assert set(np.asarray(labels)[same]) == {number}
    for images in small.images.values():
        np.testing.assert_array_equal(images[:, :32], small.images[IMAGE][:, :32])
    assert small.seen.sum() == SMALL.classes_per_agent
    errors = {name: ((images - small.images[IMAGE]) ** 2).sum(axis=1) for name, images in small.images.items()}
    # By whom nothing was heard, what was not seen is completed worse.
    assert errors[ALONE][~small.seen].mean() > 1.2 * errors["DAM-TOGD"][~small.seen].mean()


@pytest.mark.long
def test_the_figure_in_quick_mode(tmp_path):
    paths = FIGURE.sized(quick=True, num_seeds=2).make(tmp_path)
    endings = (".png", ".pdf", ".csv", "_runs.csv", "_images.csv", ".json")
    assert {path.name for path in paths} == {f"recall_digits{ending}" for ending in endings}
    with (tmp_path / "recall_digits_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 10
    assert sum(row["seen"] == "True" for row in rows) == 6 * QUICK.classes_per_agent
    settings = json.loads((tmp_path / "recall_digits.json").read_text())["settings"]
    assert len(settings["graph"]) == 13
    assert settings["dtype"] == "float32"
