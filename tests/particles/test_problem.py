"""What a Problem is, and what is none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import particles
from tests.particles.cases import GOOD


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequencies": np.full(3, 0.4)}, "frequencies must sum to one, but its sum is 1.2; divide by it"),
        (
            {"frequencies": np.array([0.5, 0.7, -0.2])},
            "frequencies must be finite and non-negative, but one entry is -0.2",
        ),
        (
            {"frequencies": np.array([0.5, 0.5, np.nan])},
            "frequencies must be finite and non-negative, but one entry is nan",
        ),
        (
            {"input_gram": np.eye(3) - 0.6},
            "input_gram must be positive semidefinite, but its lowest eigenvalue is -0.8",
        ),
        ({"input_gram": np.triu(np.ones((3, 3)))}, "input_gram must be symmetric"),
        ({"output_gram": np.diag([1.0, -1.0])}, "output_gram must be positive semidefinite"),
        ({"output_gram": np.diag([1.0, np.inf])}, "output_gram must be finite"),
        (
            {"targets": np.ones((3, 2))},
            "targets must sum to one, row by row, but a row sums to 2; divide each row by its sum",
        ),
        ({"targets": np.ones((2, 2)) / 2}, "the shapes are"),
        ({"frequencies": np.full(2, 0.5)}, "the shapes are"),
        ({"output_gram": np.eye(3)}, "the shapes are"),
        ({"frequencies": np.full((2, 3), 1 / 3)}, "build it inside jax.vmap"),
    ],
)
def test_bad_problems(changes, message):
    with pytest.raises(ValueError, match=message):
        particles.Problem(**(GOOD | changes))


@pytest.mark.usefixtures("untyped")
def test_lists_are_taken():
    lists: Any = {name: np.asarray(value).tolist() for name, value in GOOD.items()}
    problem = particles.Problem(**lists)
    zeros: Any = [[0.0, 0.0]] * 3
    assert particles.simulate(zeros, problem, 1.0, 2).shape == (3, 3, 2)
    assert particles.loss(zeros, problem) == pytest.approx(np.log(2))


@pytest.mark.usefixtures("untyped")
def test_axes_are_no_data():
    problem = particles.Problem(**GOOD).astype(float)
    axes = particles.Problem(None, None, 0, None)  # pyright: ignore[reportArgumentType]
    weights = jnp.stack([problem.frequencies, jnp.array([0.5, 0.3, 0.2])])
    many = jax.tree.map(lambda x: x, problem)
    object.__setattr__(many, "frequencies", weights)
    losses = jax.vmap(particles.loss, in_axes=(None, axes))(jnp.ones((3, 2)), many)
    assert losses.shape == (2,)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.one_hot([0, 3], 3), "classes must lie in 0..2, but one of them is 3"),
        (lambda: particles.one_hot([[0, 1]], 3), r"classes must be integers, one a token, \(N,\), but they have shape"),
        (lambda: particles.one_hot([0], 0), "num_classes must be a positive integer"),
        (lambda: particles.one_hot([0.0, 1.0], 3), "classes must be integers"),
        (lambda: particles.from_embeddings(np.ones(3), np.eye(2), GOOD["frequencies"], GOOD["targets"]), "inputs must"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
