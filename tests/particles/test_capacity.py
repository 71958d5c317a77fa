"""The minimiser of cross-entropy under one linear relation, against optimisation and gradient descent."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from damjax import particles
from damjax.particles import capacity, embeddings


def test_limited_capacity_is_not_calibrated():
    lam, p = jnp.array([0.49, 0.41, 0.10]), jnp.array([0.5, 0.3, 0.2])
    vectors = capacity.triangle(lam)
    np.testing.assert_allclose(lam @ vectors, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=1), 1)
    angles = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0]))
    np.testing.assert_allclose(angles, [0, 172.324, -146.797], atol=5e-4)
    best = capacity.minimizer(lam, p)
    # By optimisation over gamma, W = [gamma, -gamma] / 2 and U = I.
    loss = lambda gamma: jnp.sum(p * jax.nn.softplus(-vectors @ gamma))  # noqa: E731
    solved = scipy.optimize.minimize(loss, np.zeros(2), jac=jax.grad(loss), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(solved.x, [0.196, -2.504], atol=1e-3)
    assert best.loss == pytest.approx(solved.fun, abs=1e-5)
    np.testing.assert_allclose(best.margins, vectors @ solved.x, atol=1e-5)
    np.testing.assert_allclose(best.margins, [0.196, -0.529, 1.207], atol=5e-4)
    assert best.loss == pytest.approx(0.6499, abs=5e-5)
    assert best.error_rate == pytest.approx(0.3)
    assert best.least_error_rate == pytest.approx(0.2)
    assert capacity.calibration_gap(lam, p) == pytest.approx(0.1)
    # And by gradient descent on the particles.
    problem = particles.Problem(vectors @ vectors.T, jnp.eye(2), p, particles.one_hot([0, 0, 0], 2))
    np.testing.assert_allclose(capacity.relation(problem), lam, rtol=1e-8)
    scores = jax.jit(lambda: particles.simulate(jnp.zeros((3, 2)), problem, 2.0, 20000)[-1])()
    np.testing.assert_allclose(particles.margins(scores, problem), best.margins, atol=1e-5)
    assert particles.error_rate(scores, problem) == pytest.approx(0.3)


@pytest.mark.long
def test_the_minimiser_on_random_relations():
    keys = jax.random.split(jax.random.key(0), 200)

    def draw(key):
        relation_key, frequency_key = jax.random.split(key)
        lam = jax.random.dirichlet(relation_key, jnp.full(5, 0.3))
        return lam, jax.random.dirichlet(frequency_key, jnp.full(5, 1.0))

    lam, p = jax.vmap(draw)(keys)
    best = jax.jit(jax.vmap(capacity.minimizer))(lam, p)
    assert jnp.isfinite(best.margins).all()
    np.testing.assert_allclose(jnp.sum(lam * best.margins, axis=1), 0, atol=1e-9)
    pressure = p * jax.nn.sigmoid(-best.margins) / lam
    np.testing.assert_allclose(pressure, jnp.broadcast_to(pressure[:, :1], pressure.shape), rtol=1e-9)
    wrong = pressure * lam / p >= 0.5
    np.testing.assert_allclose(best.error_rate, jnp.sum(jnp.where(wrong, p, 0), axis=1), rtol=1e-12)
    assert jnp.all(best.error_rate >= best.least_error_rate - 1e-12)
    assert jnp.mean(best.error_rate > best.least_error_rate + 1e-9) > 0.1
    # Single precision, and tokens that can be separated.
    single = capacity.minimizer(lam[0].astype(jnp.float32), p[0].astype(jnp.float32))
    assert single.margins.dtype == jnp.float32
    np.testing.assert_allclose(single.margins, best.margins[0], rtol=2e-4, atol=2e-4)
    # The sign of the relation is nobody's business; tokens outside it are free; ties are errors.
    np.testing.assert_allclose(capacity.minimizer(-lam[0], p[0]).margins, best.margins[0], rtol=1e-9)
    two = capacity.minimizer(np.array([1.0, 1.0, 0.0]), np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(two.margins, [np.log(5 / 3), -np.log(5 / 3), np.inf], rtol=1e-9)
    assert two.error_rate == two.least_error_rate == pytest.approx(0.3)
    assert capacity.minimizer(np.ones(2), np.ones(2) / 2).error_rate == 1
    tiny = capacity.minimizer(jnp.array([0.5, 0.5, 1e-38], jnp.float32), jnp.array([0.5, 0.3, 0.2], jnp.float32))
    assert tiny.loss == pytest.approx(0.529, abs=1e-3)
    free = capacity.minimizer(lam[0].at[2].multiply(-1), p[0])
    assert free.loss == 0
    assert free.least_error_rate == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_relations_that_leave_tokens_out(dtype):
    """Two tokens of one embedding and two classes: the third is free, whatever rounding says of it."""
    inputs = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]], dtype)
    problem = particles.from_embeddings(
        inputs, jnp.eye(2, dtype=dtype), jnp.array([0.5, 0.3, 0.2], dtype), particles.one_hot([0, 1, 0], 2, dtype)
    )
    relation = capacity.relation(problem)
    assert relation.dtype == dtype
    np.testing.assert_allclose(relation, [0.5, 0.5, 0], atol=1e-6)
    assert relation[2] == 0
    # Flipped signs and eigenvectors of either sign: the sum is what is made positive.
    vectors = capacity.triangle(jnp.array([0.49, 0.41, 0.10], dtype))
    signed = particles.Problem(
        vectors @ vectors.T, jnp.eye(2), problem.frequencies, particles.one_hot([1, 0, 0], 2, dtype)
    )
    np.testing.assert_allclose(capacity.relation(signed), [-0.49, 0.41, 0.10], atol=1e-5)


# lam, p and the tokens that are wrong. In the first two the heavy token is right by 1e-12 and by 1e-7, since the others
# are given up for it; in the third p - lam, of 1e-8, decides; the last is the example of the paper.
RELATIONS = [
    ([2e-38, 1e-12, 0.3], [1e-3, 1e-12, 0.5], [1]),
    ([7.6e-10, 2.2e-9, 4.8e-8, 0.86], [6.8e-10, 2.24e-9, 5.4e-8, 1.0], [0, 1, 2]),
    ([0.25, 0.25, 0.4, 0.1], [0.25 + 2.0**-25, 0.25 - 2.0**-26, 0.4, 0.1], [1, 2, 3]),
    ([1e-30, 1e-30, 0.5, 0.5], [1e-30, 1e-3, 0.5, 0.3], None),
    ([0.49, 0.41, 0.10, 0.0], [0.5, 0.3, 0.2, 0.1], [1]),
]


def test_the_minimiser_in_single_precision():
    padded = [([*lam, 0, 0][:4], [*p, 0.1, 0.1][:4]) for lam, p, _ in RELATIONS]
    lam, p = (np.array(rows, np.float32) for rows in zip(*padded, strict=True))
    solve = jax.jit(jax.vmap(capacity.minimizer))
    single, exact = solve(lam, p), solve(lam.astype(float), p.astype(float))
    for name in ("margins", "loss", "error_rate", "least_error_rate"):
        np.testing.assert_allclose(getattr(single, name), getattr(exact, name), rtol=1e-5, err_msg=name)
    for margins, (_, _, wrong) in zip(np.asarray(single.margins), RELATIONS, strict=True):
        assert wrong is None or np.flatnonzero(margins <= 0).tolist() == wrong


def exact_triangle(sides):
    with decimal.localcontext(decimal.Context(prec=60)):
        a, b, c = map(decimal.Decimal, map(float, sides))
        second, third = (c * c - a * a - b * b) / (2 * a * b), (b * b - a * a - c * c) / (2 * a * c)
        return [[1, 0], [second, (1 - second * second).sqrt()], [third, -(1 - third * third).sqrt()]]


def test_triangles_like_needles():
    sides = [[1, 1e-6, 1], [1e-6, 1, 1], [1, 1, 1e-6], [1, 1e-3, 1 - 0.999e-3], [0.5, 0.25, 0.75 - 2.0**-24], [3, 4, 5]]
    sides = np.array(sides, np.float32)
    exact = np.array([exact_triangle(row) for row in sides], float)
    vectors = np.asarray(jax.vmap(capacity.triangle)(sides))
    np.testing.assert_allclose(vectors, exact, atol=3e-7)
    # The heights of the flat ones are as precise as the lengths.
    np.testing.assert_allclose(vectors[..., 1], exact[..., 1], rtol=1e-6)
    flat = capacity.triangle(np.array([1.0, 0.25, 0.75], np.float32))
    np.testing.assert_array_equal(flat, [[1, 0], [-1, 0], [-1, 0]])
    assert jnp.isnan(jax.jit(capacity.triangle)(np.array([1.0, np.nan, 1.0]))[1:]).all()


def test_small_entries_of_a_relation_are_kept():
    vectors = np.array(exact_triangle([1, 1e-4, 1 - 0.5e-4]), np.float32)
    gram = jnp.asarray(vectors @ vectors.T)
    problem = particles.Problem(gram, jnp.eye(2), jnp.array([0.5, 0.3, 0.2]), particles.one_hot([0, 0, 0], 2))
    relation = capacity.relation(problem.astype(jnp.float32))
    np.testing.assert_allclose(relation, np.array([1, 1e-4, 1 - 0.5e-4]) / (2 + 0.5e-4), atol=2e-6)
    assert relation[1] > 0


def test_a_nan_is_no_loss_of_zero():
    relation, frequencies = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.5, jnp.nan, 0.2])
    best = jax.jit(particles.capacity.minimizer)(relation, frequencies)
    assert jnp.isnan(best.loss)
    assert jnp.isnan(best.error_rate)
    assert jnp.isnan(jax.jit(particles.capacity.minimizer)(frequencies, relation).loss)
    with pytest.raises(ValueError, match="frequencies must be finite and positive"):
        particles.capacity.minimizer(relation, frequencies)
    with pytest.raises(ValueError, match="relation must be finite"):
        particles.capacity.minimizer(frequencies, relation)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.capacity.relation(embeddings.two_tokens(0.5, 0.5)), "exactly one linear relation"),
        (lambda: particles.capacity.minimizer(np.ones(2), np.array([1.0, 0.0])), "frequencies must be finite and pos"),
        (lambda: particles.capacity.triangle(np.ones(4)), "relation must have three entries"),
        (lambda: particles.capacity.triangle(np.array([1.0, 0.2, 0.3])), "sides of a triangle"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
