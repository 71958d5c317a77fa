"""Projections by their laws, and diameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax.domains as domains

SHAPE = (2, 3)
DOMAINS = {
    "ball": lambda: domains.frobenius_ball(1.3),
    "box": lambda: domains.box(-0.4, 0.9, shape=SHAPE),
    "array box": lambda: domains.box(-np.arange(1.0, 7.0).reshape(SHAPE) / 5, np.full(SHAPE, 0.1)),
    "unconstrained": domains.unconstrained,
}
over_domains = pytest.mark.parametrize("name", DOMAINS)


def points(seed, count=60, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=(count, *SHAPE))


@over_domains
def test_projection_is_idempotent_nonexpansive_and_exact_inside(name):
    project = DOMAINS[name]().project
    once = np.asarray(jax.vmap(project)(points(0)))
    # A point that lands a rounding outside its ball is moved by that rounding.
    np.testing.assert_allclose(jax.vmap(project)(once), once, rtol=4e-16)
    inside = points(0, scale=1e-3)
    np.testing.assert_array_equal(jax.vmap(project)(inside), inside)
    other = np.asarray(jax.vmap(project)(points(1)))
    apart = np.linalg.norm((points(0) - points(1)).reshape(60, -1), axis=1)
    assert (np.linalg.norm((once - other).reshape(60, -1), axis=1) <= apart + 1e-12).all()


@over_domains
def test_projection_is_the_nearest_point(name):
    """<X - P(X), S - P(X)> <= 0 for every S of the set: the variational inequality."""
    project = DOMAINS[name]().project
    inside = np.asarray(jax.vmap(project)(points(2, 200)))
    for point in points(3):
        near = np.asarray(project(jnp.asarray(point)))
        assert np.max(np.sum((point - near) * (inside - near), axis=(1, 2))) <= 1e-9


@over_domains
def test_no_two_points_are_further_apart_than_the_diameter(name):
    project, diameter = DOMAINS[name]().project, float(DOMAINS[name]().diameter)
    far = np.asarray(jax.vmap(project)(points(4, 100, scale=100.0)))
    apart = np.linalg.norm((far[:, None] - far[None]).reshape(100, 100, -1), axis=-1)
    assert apart.max() <= diameter + 1e-9
    if name != "unconstrained":
        ends = np.asarray(jax.vmap(project)(1e6 * np.stack([np.ones(SHAPE), -np.ones(SHAPE)])))
        assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(diameter, rel=1e-9)


def test_a_pytree_is_projected_as_one_memory():
    tree = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    projected = domains.frobenius_ball(1.0).project(tree)
    np.testing.assert_allclose(projected["a"], [0.6, 0])
    np.testing.assert_allclose(projected["b"], [[0.8]])
    assert domains.box(-1.0, 1.0).project(tree)["b"].tolist() == [[1.0]]


def test_the_diameter_of_a_box_of_unknown_size_is_infinite():
    assert domains.box(0.0, 1.0).diameter == np.inf
    assert float(domains.box(0.0, 1.0, shape=(3, 3)).diameter) == pytest.approx(3)


@over_domains
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out(name, dtype):
    assert DOMAINS[name]().project(jnp.asarray(points(0)[0], dtype)).dtype == dtype


def test_a_radius_may_be_traced():
    norms = jax.vmap(lambda r: jnp.linalg.norm(domains.frobenius_ball(r).project(jnp.ones(SHAPE))))(
        jnp.array([0.5, 9.0])
    )
    np.testing.assert_allclose(norms, [0.5, np.sqrt(6)])


def test_gradients_exist_at_the_start():
    """At the zero memory and on the boundary, where a naive norm would give NaN."""
    for point in (jnp.zeros(SHAPE), jnp.ones(SHAPE)):
        slope = jax.jacobian(domains.frobenius_ball(1.3).project)(point)
        assert np.isfinite(slope).all()


def test_bad_input(untyped):
    with pytest.raises(ValueError, match=r"radius must be finite and positive, but it is -1\.0"):
        domains.frobenius_ball(-1.0)
    with pytest.raises(ValueError, match="radius must be finite and positive, but it is nan"):
        domains.frobenius_ball(float("nan"))
    with pytest.raises(ValueError, match=r"radius must be one number, but its shape is \(3,\)"):
        domains.frobenius_ball(np.ones(3))
    with pytest.raises(ValueError, match="radius must be a real number, but it is 'large'"):
        domains.frobenius_ball("large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower must be at most upper"):
        domains.box(1.0, 0.0)
