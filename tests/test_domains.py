"""Sets by their laws: projections, linear maximisers and diameters, against oracles; a user's own beside ours."""

import collections
import re
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import damjax
from damjax import _laws, domains
from tests.cases import in_the_long_run

SHAPE = (2, 3)
SIZE = 6


@partial(jax.tree_util.register_dataclass, data_fields=["radius"], meta_fields=[])
@dataclass(frozen=True)
class Cube(domains.Domain):
    """A user's set: entries of at most a size, as a class that is a pytree."""

    radius: Any

    @property
    def diameter(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 * self.radius * np.sqrt(SIZE)

    def project(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -self.radius, self.radius), tree)

    def support(self, direction: Any) -> Any:
        return jax.tree.map(lambda leaf: (self.radius * jnp.sign(leaf)).astype(leaf.dtype), direction)


DOMAINS = {
    "ball": lambda size=1.0: domains.frobenius_ball(1.3 * size),
    "box": lambda size=1.0: domains.box(-0.4 * size, 0.9 * size, shape=SHAPE),
    "array box": lambda size=1.0: domains.box(
        -np.arange(1.0, 7.0).reshape(SHAPE) / 5 * size, np.full(SHAPE, 0.1) * size
    ),
    "unconstrained": lambda size=1.0: domains.unconstrained(),
    "l1 ball": lambda size=1.0: domains.l1_ball(1.5 * size),
    "nuclear ball": lambda size=1.0: domains.nuclear_ball(1.2 * size),
    "simplex": lambda size=1.0: domains.simplex(2.0 * size),
    "rows": lambda size=1.0: domains.simplex(1.5 * size, -1, shape=SHAPE),
    "columns": lambda size=1.0: domains.simplex(0.7 * size, 0, shape=SHAPE),
    "product": lambda size=1.0: domains.product([domains.frobenius_ball(0.8 * size), domains.l1_ball(1.1 * size)]),
    "own": lambda size=1.0: Cube(0.8 * size),
}
BOUNDED = [name for name in DOMAINS if name != "unconstrained"]
over_domains = pytest.mark.parametrize("name", DOMAINS)
over_bounded = pytest.mark.parametrize("name", BOUNDED)
SOME = ("ball", "box", "l1 ball", "own")
over_some = pytest.mark.parametrize("name", [*SOME, *in_the_long_run(*(name for name in DOMAINS if name not in SOME))])


def points(seed, count=60, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=(count, *SHAPE))


@over_domains
def test_projection_is_idempotent_nonexpansive_and_exact_inside(name):
    project = jax.jit(jax.vmap(DOMAINS[name]().project))
    once = np.asarray(project(points(0)))
    # A point that lands a rounding outside its ball is moved by that rounding.
    np.testing.assert_allclose(project(once), once, rtol=4e-16, atol=2e-15)
    if name not in ("simplex", "rows", "columns"):
        inside = points(0, scale=1e-3)
        np.testing.assert_array_equal(project(inside), inside)
    other = np.asarray(project(points(1)))
    apart = np.linalg.norm((points(0) - points(1)).reshape(60, -1), axis=1)
    assert (np.linalg.norm((once - other).reshape(60, -1), axis=1) <= apart + 1e-12).all()


@over_domains
def test_projection_is_the_nearest_point(name):
    """<X - P(X), S - P(X)> <= 0 for every S of the set: the variational inequality, at projections and far ends."""
    domain = DOMAINS[name]()
    project = jax.jit(jax.vmap(domain.project))
    inside = np.asarray(project(points(2, 200)))
    if name != "unconstrained":
        inside = np.concatenate([inside, jax.vmap(domain.support)(points(5, 200))])
    near = np.asarray(project(points(3)))
    products = np.einsum("aij,bij->ab", points(3) - near, inside)
    margin = np.sum((points(3) - near) * near, axis=(1, 2))
    assert np.max(products - margin[:, None]) <= 1e-9
    if name != "unconstrained":
        # No point of the set is farther along what the projection takes away, and that settles it.
        np.testing.assert_allclose(jax.vmap(domain.support_value)(points(3) - near), margin, atol=1e-9)


def constraints(name):
    """The set of a flat memory as scipy's constraints and bounds."""
    more = lambda fun: {"type": "ineq", "fun": fun}  # noqa: E731
    same = lambda fun: {"type": "eq", "fun": fun}  # noqa: E731
    positive = [(0, None)] * SIZE
    return {
        "simplex": ([same(lambda x: np.sum(x) - 2.0)], positive),
        "rows": ([same(lambda x: np.sum(x.reshape(SHAPE), axis=1) - 1.5)], positive),
        "columns": ([same(lambda x: np.sum(x.reshape(SHAPE), axis=0) - 0.7)], positive),
        # Of the two parts of every entry, both positive.
        "l1 ball": ([more(lambda x: 1.5 - np.sum(x))], [(0, None)] * 2 * SIZE),
    }[name]


@pytest.mark.parametrize("name", ["simplex", "rows", "columns", "l1 ball"])
def test_projections_against_scipy(name):
    limits, bounds = constraints(name)
    fold = (lambda x: x[:SIZE] - x[SIZE:]) if name == "l1 ball" else (lambda x: x)
    for point in points(7, 5):
        start = np.full(SIZE if name != "l1 ball" else 2 * SIZE, 0.01)
        found = scipy.optimize.minimize(
            lambda x, point=point: 0.5 * np.sum((fold(x) - point.ravel()) ** 2),
            start,
            method="SLSQP",
            constraints=limits,
            bounds=bounds,
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(DOMAINS[name]().project(jnp.asarray(point)).ravel(), fold(found.x), atol=1e-6)


@over_bounded
def test_the_support_is_the_farthest_point(name):
    """In the set, and farther along the direction than any projected point, however far that came from."""
    domain = DOMAINS[name]()
    directions = points(8, 20)
    ends = np.asarray(jax.vmap(domain.support)(directions))
    assert bool(jax.vmap(domain.contains)(ends).all())
    others = np.asarray(jax.jit(jax.vmap(domain.project))(np.concatenate([points(9, 300), points(10, 300, 100.0)])))
    values = np.sum(directions * ends, axis=(1, 2))
    assert (np.einsum("aij,bij->ab", directions, others) <= values[:, None] + 1e-9).all()
    # From far out along a direction, the nearest point is the farthest along it.
    limits = np.asarray(jax.vmap(domain.project)(1e7 * directions))
    np.testing.assert_allclose(np.sum(directions * limits, axis=(1, 2)), values, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(domain.support_value)(directions), values, rtol=1e-12)
    assert np.isfinite(np.asarray(domain.support(jnp.zeros(SHAPE)))).all()
    assert domain.support_value(jnp.zeros(SHAPE)) == 0


def test_the_support_of_corners_by_linear_programming():
    rows = np.kron(np.eye(2), np.ones(3))
    columns = np.kron(np.ones(2), np.eye(3))
    problems = {"simplex": (np.ones((1, SIZE)), [2.0]), "rows": (rows, [1.5] * 2), "columns": (columns, [0.7] * 3)}
    for name, (matrix, sums) in problems.items():
        for direction in points(11, 5):
            expected = -scipy.optimize.linprog(-direction.ravel(), A_eq=matrix, b_eq=sums).fun
            np.testing.assert_allclose(DOMAINS[name]().support_value(jnp.asarray(direction)), expected, rtol=1e-9)


def test_supports_in_closed_form():
    """The dual norms: Frobenius, the largest entry, the largest singular value."""
    for direction in points(12, 5):
        value = {name: float(DOMAINS[name]().support_value(jnp.asarray(direction))) for name in BOUNDED}
        np.testing.assert_allclose(value["ball"], 1.3 * np.linalg.norm(direction))
        np.testing.assert_allclose(value["l1 ball"], 1.5 * np.abs(direction).max())
        np.testing.assert_allclose(value["nuclear ball"], 1.2 * np.linalg.norm(direction, 2))
    assert domains.unconstrained().support_value(jnp.ones(SHAPE)) == np.inf
    half = domains.box(0.0, np.inf)
    assert half.support_value(-jnp.ones(SHAPE)) == 0
    assert half.support_value(jnp.eye(2)) == np.inf


# Two memories of each set that are as far apart as any, by hand.
FARTHEST = {
    "ball": [[1.3, 0, 0], [0, 0, 0]],
    "l1 ball": [[0, 1.5, 0], [0, 0, 0]],
    "nuclear ball": [[0.72, 0.96, 0], [0, 0, 0]],
    "own": [[0.8] * 3] * 2,
}


@over_domains
def test_no_two_points_are_further_apart_than_the_diameter(name):
    domain = DOMAINS[name]()
    diameter = float(domain.diameter)
    far = np.asarray(jax.jit(jax.vmap(domain.project))(points(4, 100, scale=100.0)))
    apart = np.linalg.norm((far[:, None] - far[None]).reshape(100, 100, -1), axis=-1)
    assert apart.max() <= diameter + 1e-9
    np.testing.assert_allclose(domain.width(jnp.zeros(SHAPE)), diameter)
    assert np.linalg.norm(far.reshape(100, -1), axis=1).max() <= float(domain.reach(jnp.zeros(SHAPE))) + 1e-9


@over_bounded
def test_the_diameter_is_attained(name):
    domain = DOMAINS[name]()
    if name in FARTHEST:
        end = jnp.asarray(FARTHEST[name], float)
        pair = (end, -end)
    elif "box" in name:
        pair = tuple(domain.project(1e6 * sign * jnp.ones(SHAPE)) for sign in (1, -1))
    elif name == "product":
        end = jnp.array([[0.8, 0, 0], [1.1, 0, 0]])
        pair = (end, -end)
    else:
        first = jnp.array([[3.0, 3, 1], [1, 2, 3.0]]) if name != "simplex" else jnp.eye(2, 3).at[1, 1].set(0)
        pair = (domain.support(first), domain.support(-first))
    assert all(bool(domain.contains(end)) for end in pair)
    np.testing.assert_allclose(jnp.linalg.norm(pair[0] - pair[1]), domain.diameter)


def test_diameters_of_unknown_size_are_infinite():
    assert domains.box(0.0, 1.0).diameter == np.inf
    assert float(domains.box(0.0, 1.0, shape=(3, 3)).diameter) == pytest.approx(3)
    assert float(domains.box(0.0, 1.0).width(jnp.zeros((3, 3)))) == pytest.approx(3)
    assert domains.simplex(axis=-1).diameter == np.inf
    assert float(domains.simplex(axis=-1).width(jnp.zeros((8, 3)))) == pytest.approx(4)
    assert float(domains.simplex(axis=0).reach(jnp.zeros((8, 4)))) == pytest.approx(2)
    assert domains.product([domains.l1_ball(1.0), domains.unconstrained()]).diameter == np.inf


def test_what_a_set_contains():
    ball = domains.frobenius_ball(1.0)
    assert bool(ball.contains(jnp.array([[0.6, 0.8]])))
    assert not bool(ball.contains(jnp.array([[0.6, 0.8001]])))
    assert bool(ball.contains(jnp.array([[0.6, 0.8001]]), tolerance=1e-3))
    assert not bool(domains.simplex().contains(jnp.zeros((2, 2))))


@over_some
def test_laws(name):
    damjax.testing.check_domain(DOMAINS[name](), SHAPE)


def test_single_precision_far_from_the_set():
    """A memory of size 1e5 lands on its set to the digits of single precision, not to those of its own size."""
    far = jnp.asarray(points(13, 10, 1e5), jnp.float32)
    for name in ("l1 ball", "simplex", "rows", "nuclear ball"):
        near = jax.vmap(DOMAINS[name]().project)(far)
        again = jax.vmap(DOMAINS[name]().project)(near)
        np.testing.assert_allclose(again, near, atol=1e-5)
    assert float(jnp.sum(DOMAINS["simplex"]().project(far[0]))) == pytest.approx(2.0, rel=1e-6)


@over_some
def test_under_transformations(name):
    """jit, vmap and vmap_last, with the set as an argument that a second call does not compile for."""
    batch = jnp.asarray(points(14, 5))
    expected = jnp.stack([DOMAINS[name]().project(point) for point in batch])
    for transform in (jax.vmap, damjax.vmap_last):
        np.testing.assert_allclose(transform(DOMAINS[name]().project)(batch), expected, rtol=1e-12, atol=1e-15)
    run = jax.jit(lambda domain, point: domain.project(point))
    np.testing.assert_allclose(run(DOMAINS[name](), batch[0]), expected[0], rtol=1e-12, atol=1e-15)
    run(DOMAINS[name](1.5), batch[0])
    assert getattr(run, "_cache_size")() == 1  # noqa: B009
    sizes = jax.vmap(lambda size: DOMAINS[name](size).project(batch[0]))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(sizes[0], expected[0], rtol=1e-12, atol=1e-15)


@over_some
def test_derivatives_of_projections(name):
    """Symmetric, with eigenvalues from 0 to 1, finite where singular values repeat; and in the size of the set."""
    for point in (jnp.zeros(SHAPE), 3 * jnp.eye(*SHAPE), *map(jnp.asarray, points(15, 3)), 1e-2 * jnp.ones(SHAPE)):
        slope = np.asarray(jax.jacrev(DOMAINS[name]().project)(point)).reshape(SIZE, SIZE)
        np.testing.assert_allclose(slope, slope.T, atol=1e-12)
        assert (np.abs(np.linalg.eigvalsh(slope) - 0.5) <= 0.5 + 1e-9).all()
        forward = np.asarray(jax.jacfwd(DOMAINS[name]().project)(point)).reshape(SIZE, SIZE)
        np.testing.assert_allclose(forward, slope, atol=1e-12)
    for point in map(jnp.asarray, points(16, 3)):

        def along(t, point=point):
            return DOMAINS[name](1 + t).project(point * (1 + t * jnp.arange(float(SIZE)).reshape(SHAPE)))

        expected = (along(1e-6) - along(-1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jacfwd(along)(0.0), expected, atol=1e-7)
        np.testing.assert_allclose(jax.jacrev(along)(0.0), expected, atol=1e-7)


@pytest.mark.parametrize("name", ["l1 ball", "simplex", "rows", "columns"])
@pytest.mark.parametrize("total", [1.0, 0.8, 0.3, 7.1])
def test_at_a_corner_a_projection_does_not_move(name, total):
    """One entry is all, and the others are so far off that rounding must not make one of them count."""
    point = jnp.asarray([[9.0, -3, 0.1], [-0.2, 8.9, 1]]) if name == "columns" else jnp.eye(*SHAPE) * 40
    point = point.at[1, 1].set(0) if name in ("l1 ball", "simplex") else point
    slope = jax.jacobian(DOMAINS[name](total).project)(point + (name == "columns") * 40 * jnp.eye(*SHAPE))
    if name == "columns":
        slope = slope[:, :2, :, :2]
    np.testing.assert_array_equal(slope, 0)


def test_a_wide_and_a_tall_matrix_of_low_rank():
    """Derivatives beyond the square, with singular values that are 0."""
    for shape in ((2, 5), (5, 2)):
        rng = np.random.default_rng(0)
        point, change = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=shape))
        project = domains.nuclear_ball(0.9).project
        expected = (project(point + 1e-6 * change) - project(point - 1e-6 * change)) / 2e-6
        np.testing.assert_allclose(jax.jvp(project, (point,), (change,))[1], expected, atol=1e-7)
        low = jnp.outer(point[:, 0], point[0])
        expected = (project(low + 1e-6 * change) - project(low - 1e-6 * change)) / 2e-6
        np.testing.assert_allclose(jax.jvp(project, (low,), (change,))[1], expected, atol=1e-4)


# Pytrees.


class Memory(NamedTuple):
    first: Any
    second: Any


def tree_of(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"a": jnp.asarray(3 * rng.normal(size=4), dtype), "b": jnp.asarray(3 * rng.normal(size=(2, 3)), dtype)}


TREES = {
    "ball": domains.frobenius_ball(1.3),
    "box": domains.box(-0.3, 0.2),
    "unconstrained": domains.unconstrained(),
    "l1 ball": domains.l1_ball(1.5),
    "simplex": domains.simplex(2.0),
    "rows": domains.simplex(1.0, -1),
    "product": domains.product({"b": domains.nuclear_ball(1.0), "a": domains.simplex(0.5)}),
    "product of an own set": domains.product({"b": Cube(0.3), "a": domains.box(-1.0, 1.0)}),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, np.float64) for name in TREES), ("ball", np.float32), ("simplex", np.float32), ("product", np.float32)],
)
def test_a_pytree_is_one_memory(name, dtype):
    """The laws on trees, and the projection onto the set of the flat memory."""
    domain, tree = TREES[name], tree_of(0, dtype)
    _laws.try_domain(domain, tree)
    _laws.check_domain(domain, jax.eval_shape(lambda: tree))
    near = jax.jit(domain.project)(tree)
    assert jax.tree.structure(near) == jax.tree.structure(tree)
    assert bool(domain.contains(near))
    if name in ("ball", "box", "l1 ball", "simplex"):
        flat = jnp.concatenate([tree["a"], tree["b"].ravel()])
        expected = domain.project(flat)
        np.testing.assert_allclose(jnp.concatenate([near["a"], near["b"].ravel()]), expected, rtol=1e-6)
        values = [domain.support_value(flat), domain.support_value(tree)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), tree, tree_of(1, dtype))
    np.testing.assert_allclose(jax.vmap(domain.project)(batch)["a"][0], near["a"], rtol=1e-6, atol=1e-6)


def test_the_parts_of_a_product():
    """Each part as its own set says; the parts of a dict by name, of others in order, of an array its rows."""
    tree = tree_of(2)
    near = TREES["product"].project(tree)
    np.testing.assert_array_equal(near["a"], domains.simplex(0.5).project(tree["a"]))
    np.testing.assert_array_equal(near["b"], domains.nuclear_ball(1.0).project(tree["b"]))
    np.testing.assert_allclose(TREES["product"].diameter, np.sqrt(2 * 0.5**2 + 4))
    both = domains.product([domains.l1_ball(1.0), domains.frobenius_ball(2.0)])
    rows = jnp.asarray(points(17)[0])
    for memory in ((rows[0], rows[1]), [rows[0], rows[1]], Memory(rows[0], rows[1]), rows):
        near = both.project(memory)
        assert jax.tree.structure(near) == jax.tree.structure(memory)
        np.testing.assert_array_equal(jnp.stack(jax.tree.leaves(near)).reshape(SHAPE)[0], both.sets[0].project(rows[0]))
        np.testing.assert_allclose(both.reach(memory), np.sqrt(5))


# A user's own.


def clipped(**parts):
    """The box of half-width 1, as any object with a projection and a diameter."""
    return SimpleNamespace(**{"project": lambda tree: jnp.clip(tree, -1, 1), "diameter": 2 * np.sqrt(SIZE)} | parts)


def test_whatever_has_a_projection_and_a_diameter_is_a_set(untyped):
    own = domains.as_domain(clipped())
    assert float(own.reach(jnp.zeros(SHAPE))) == pytest.approx(2 * np.sqrt(SIZE))
    assert bool(own.contains(jnp.ones(SHAPE)))
    assert not bool(own.contains(2 * jnp.ones(SHAPE)))
    with pytest.raises(ValueError, match=r"^domain must have a support .* frobenius_ball"):
        domains.with_support(clipped())
    with pytest.raises(ValueError, match=r"^domain must have a support"):
        domains.with_support(domains.product([domains.l1_ball(1.0), clipped()]))
    assert domains.with_support(clipped(support=jnp.sign)).support_value(-jnp.ones(SHAPE)) == SIZE
    assert domains.as_domain(clipped(reach=lambda memory: 3.0)).reach(None) == 3
    for wrong in (2.0, None, domains.frobenius_ball, domains.FrobeniusBall, SimpleNamespace(project=jnp.sign)):
        with pytest.raises(ValueError, match=r"^domain must be a set, with a function project and a diameter"):
            domains.as_domain(wrong)


def test_bad_input(untyped):
    for name, make in (
        ("radius", domains.frobenius_ball),
        ("radius", domains.l1_ball),
        ("radius", domains.nuclear_ball),
        ("total", domains.simplex),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be finite and positive, but it is -1\.0"):
            make(-1.0)
        with pytest.raises(ValueError, match=f"{name} must be finite and positive, but it is nan"):
            make(float("nan"))
        with pytest.raises(ValueError, match=rf"{name} must be one number, but its shape is \(3,\)"):
            make(np.ones(3))
        with pytest.raises(ValueError, match=f"{name} must be a real number, but it is 'large'"):
            make("large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower must be at most upper"):
        domains.box(1.0, 0.0)
    with pytest.raises(ValueError, match="axis must be an integer"):
        domains.simplex(axis=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape must be a tuple"):
        domains.simplex(shape=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nuclear_ball is one of matrices"):
        domains.nuclear_ball(1.0).project(jnp.ones(3))
    with pytest.raises(ValueError, match="parts must be sets by name or in order"):
        domains.product(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"parts\[1\] must be a set"):
        domains.product([domains.l1_ball(1.0), 3])
    rows = domains.product([domains.l1_ball(1.0)] * 3)
    with pytest.raises(ValueError, match=r"one set per part of a memory, 2 \(the rows"):
        rows.project(jnp.ones(SHAPE))
    named = domains.product({"a": domains.l1_ball(1.0)})
    for memory in ({"b": jnp.ones(2)}, jnp.ones(SHAPE)):
        with pytest.raises(ValueError, match="one set per part of a memory"):
            named.project(memory)


def test_half_precision_has_the_norms_of_single():
    """The squares of a memory of norm 260 overflow in float16, and it lies inside."""
    memory = jnp.full((4, 4), 65.0, jnp.float16)
    np.testing.assert_array_equal(domains.frobenius_ball(300.0).project(memory), memory)
    halved = domains.frobenius_ball(130.0).project(memory)
    np.testing.assert_allclose(halved, 32.5, rtol=2e-3)
    assert halved.dtype == jnp.float16


def test_a_norm_that_overflows_is_seen():
    assert jnp.all(jnp.isnan(domains.frobenius_ball(1.0).project(jnp.full(SHAPE, 1e30, jnp.float32))))


def test_a_product_keeps_the_kind_of_a_mapping_and_its_order():
    parts = {"wide": domains.frobenius_ball(1.0), "deep": domains.box(0.0, 1.0)}
    memory = collections.OrderedDict(wide=jnp.array([0.0, 3.0]), deep=jnp.array([-2.0, 0.5, 7.0]))
    projected = domains.product(parts).project(memory)
    assert list(projected) == ["wide", "deep"]
    assert isinstance(projected, collections.OrderedDict)
    np.testing.assert_array_equal(projected["wide"], [0, 1])
    np.testing.assert_array_equal(projected["deep"], [0, 0.5, 1])


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (
            domains.box(-1.0, 1.0, shape=(3, 3)),
            "domain must be of memories of their shape, (2, 3), but it was made with",
        ),
        (domains.simplex(shape=(3, 3)), "domain must be of memories of their shape, (2, 3), but it was made with"),
        (domains.box(np.zeros((3, 3)), 1.0), "domain must have bounds that broadcast against a memory (2, 3)"),
        (domains.simplex(axis=2), "domain must sum along an axis of the memory, whose shape is (2, 3), but axis is 2"),
        (domains.product([domains.simplex(axis=1)] * 2), "domain must sum along an axis of the memory, whose shape"),
        (domains.product([domains.unconstrained()] * 3), "domain must have one set per part of a memory, 2"),
    ],
)
def test_memories_that_fit_no_set_are_refused(domain, message):
    algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(1), learning_rate=0.1, domain=domain)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        algorithm.init(jnp.zeros((1, *SHAPE)))


def test_an_axis_that_the_declared_shape_has_not():
    with pytest.raises(ValueError, match=r"^axis must sum along an axis of the memory, whose shape is \(2,\)"):
        domains.simplex(axis=1, shape=(2,))
