"""Each objective against its recurrence, autodiff, convexity and its Lipschitz constant; feature maps against exp."""

import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from tests import reference
from tests.cases import OBJECTIVES, in_the_long_run, objective, over

KEY_DIM, VALUE_DIM = 3, 2


def draw(name, seed, gate_shape=(), dtype=np.float64):
    rng = np.random.default_rng(seed)
    made = objective(name, KEY_DIM)
    key, value = rng.normal(size=KEY_DIM).astype(dtype), rng.normal(size=VALUE_DIM).astype(dtype)
    features = np.asarray(made.features(jnp.asarray(key)))
    gate = np.asarray(rng.uniform(0.2, 1, gate_shape), dtype) if made.gated else None
    if name == "cross_entropy":
        value = reference.OUTPUTS[rng.integers(len(reference.OUTPUTS))].astype(dtype)
    params = rng.normal(size=(VALUE_DIM, len(features))).astype(dtype)
    return made, jnp.asarray(params), jnp.asarray(key), jnp.asarray(value), gate, features


def soft(z):
    """The embedding that is expected under softmax(U z)."""
    shares = np.exp(reference.OUTPUTS @ z)
    return reference.OUTPUTS.T @ shares / shares.sum()


def recurrence(name, X, v, phi, g, t):
    outer = np.outer(v, phi)
    return {
        "linear_attention": lambda: X + outer,
        "gated_linear_attention": lambda: g * X + outer,
        "cross_entropy": lambda: X + outer - np.outer(soft(X @ phi), phi),
        "delta_net": lambda: X - np.outer(X @ phi - v, phi),
        "softmax_attention": lambda: X + outer,
        "normalized_softmax_attention": lambda: (t - 1) / t * X + outer / t,
        "gated_softmax_attention": lambda: (t - 1) / t * g * X + outer / t,
    }[name]()


@over(OBJECTIVES)
@pytest.mark.parametrize("time", [1, *in_the_long_run(2, 17)])
@pytest.mark.parametrize("gate_shape", [(), (VALUE_DIM, 1), (1, "df")])
def test_a_step_with_rate_one_is_the_recurrence(name, time, gate_shape):
    """Through a whole algorithm, and through autodiff of the value."""
    df = 1 + KEY_DIM + KEY_DIM**2 if "softmax" in name else KEY_DIM
    shape = tuple(df if side == "df" else side for side in gate_shape)
    made, params, key, value, gate, features = draw(name, 0, shape)
    expected = recurrence(name, np.asarray(params), np.asarray(value), features, gate, time)
    by_autodiff = params - jax.grad(made.value)(params, key, value, gate, time)
    np.testing.assert_allclose(by_autodiff, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(params - made.gradient(params, key, value, gate, time), expected, rtol=1e-10, atol=1e-12)

    algorithm = damjax.ogd(made, np.ones((1, 1)), learning_rate=1.0, domain=damjax.domains.unconstrained())
    state = algorithm.init(params[None])._replace(step=jnp.asarray(time - 1, jnp.int32))
    seen = damjax.Associations(key[None], value[None], None if gate is None else gate[None])
    np.testing.assert_allclose(algorithm.step(state, seen)[0].params[0], expected, rtol=1e-10, atol=1e-12)


def test_the_printed_gated_softmax_regulariser_does_not_give_the_recurrence():
    """[AT] prints (1 - g)/(2t); its step misses the recurrence printed beside it, and ours does not."""
    made, params, key, value, gate, features = draw("gated_softmax_attention", 0)
    assert gate is not None
    time = 3
    step = np.asarray(params) + np.outer(value, features) / time - (1 - gate) / time * np.asarray(params)
    expected = recurrence("gated_softmax_attention", np.asarray(params), value, features, gate, time)
    assert np.abs(step - expected).max() > 0.1
    np.testing.assert_allclose(params - made.gradient(params, key, value, gate, time), expected, rtol=1e-10)


@over(OBJECTIVES)
def test_value_is_the_reference_loss(name):
    for seed in range(5):
        made, params, key, value, gate, features = draw(name, seed)
        expected = reference.loss(name, np.asarray(params), features, np.asarray(value), gate, 4)
        np.testing.assert_allclose(made.value(params, key, value, gate, 4), expected, rtol=1e-10)


@over(OBJECTIVES, common=("delta_net",))
def test_laws(name):
    """With values of their own, and gates of every shape."""
    values = reference.OUTPUTS if name == "cross_entropy" else np.random.default_rng(0).normal(size=(5, VALUE_DIM))
    made = objective(name, KEY_DIM)
    df = len(made.features(jnp.zeros(KEY_DIM)))
    for gate in (0.0, np.zeros((VALUE_DIM, 1)), np.zeros((1, df))) if made.gated else (None,):
        damjax.testing.check_objective(made, key_dim=KEY_DIM, values=values, gate=gate)


@over(OBJECTIVES)
def test_lipschitz_bounds_every_gradient_on_the_ball_and_is_attained_without_a_ridge(name):
    radius = 1.7
    for seed in range(20):
        made, params, key, value, gate, features = draw(name, seed)
        bound = float(made.lipschitz(radius, key, value, gate, 2))
        residual = np.asarray(made.residual(jnp.zeros(VALUE_DIM), value, 2.0))
        worst = np.outer(residual, features)
        directions = [worst, -worst, *np.random.default_rng(seed).normal(size=(200, *params.shape))]
        norms = [
            np.linalg.norm(made.gradient(jnp.asarray(radius * d / np.linalg.norm(d)), key, value, gate, 2))
            for d in directions[:: 1 if seed == 0 else 20]
        ]
        assert max(norms) <= bound * (1 + 1e-9)
        if made.ridge is None and made.kind.entrywise:
            assert norms[0] == pytest.approx(bound, rel=1e-9)


def test_lipschitz_closed_forms_by_hand():
    key, value, gate = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]), jnp.array([[0.25], [0.75]])
    assert float(damjax.objectives.delta_net().lipschitz(0.5, key, value)) == pytest.approx((0.5 * 5 + 2) * 5)
    assert float(damjax.objectives.linear_attention().lipschitz(9.0, key, value)) == pytest.approx(10)
    gated = damjax.objectives.gated_linear_attention()
    assert float(gated.lipschitz(2.0, key, value, gate)) == pytest.approx(10 + 2 * 0.75)


def test_lipschitz_of_a_loss_that_is_not_quadratic_is_refused():
    made = damjax.objectives.delta_net()._replace(kind=damjax.objectives.General())
    with pytest.raises(ValueError, match="no Lipschitz constant is known"):
        made.lipschitz(1.0, jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize("degree", range(5))
def test_taylor_features_expand_the_exponential_exactly(degree):
    q, k = np.random.default_rng(0).normal(size=(2, 3))
    phi = damjax.features.taylor(key_dim=3, degree=degree)
    s = q @ k / math.sqrt(3)
    expected = sum(s**p / math.factorial(p) for p in range(degree + 1))
    assert phi(jnp.asarray(q)).shape == (sum(3**p for p in range(degree + 1)),)
    np.testing.assert_allclose(phi(jnp.asarray(q)) @ phi(jnp.asarray(k)), expected, rtol=1e-10)


@pytest.mark.long
def test_positive_features_are_positive_orthogonal_and_unbiased():
    key_dim, num_features, num_draws = 4, 10, 4000
    q, k = jnp.array([0.3, -0.8, 0.5, 0.1]), jnp.array([0.2, 0.4, -0.6, 0.9])

    def estimate(key):
        phi = damjax.features.positive_orthogonal(key, key_dim=key_dim, num_features=num_features)
        return phi(q) @ phi(k)

    estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), num_draws)))
    expected = math.exp(float(q @ k) / math.sqrt(key_dim))
    error = estimates.std() / math.sqrt(num_draws)
    assert abs(estimates.mean() - expected) < 4 * error
    phi = damjax.features.positive_orthogonal(jax.random.key(1), key_dim=key_dim, num_features=num_features)
    assert (phi(q) > 0).all()

    # log phi is affine in the cue, and its slopes are the projections: orthogonal within each block of dk.
    slopes = np.asarray(jax.jacobian(lambda x: jnp.log(phi(x)) + jnp.sum(x**2) / (2 * math.sqrt(key_dim)))(q))
    for i, j in itertools.combinations(range(num_features), 2):
        if i // key_dim == j // key_dim:
            assert abs(slopes[i] @ slopes[j]) < 1e-8


@pytest.mark.long
def test_orthogonal_features_vary_less_than_independent_ones():
    key_dim, q = 8, jnp.full(8, 0.35)

    def orthogonal(key):
        phi = damjax.features.positive_orthogonal(key, key_dim=key_dim, num_features=key_dim)
        return phi(q) @ phi(q)

    def independent(key):
        omega = jax.random.normal(key, (key_dim, key_dim))
        x = q / key_dim**0.25
        return jnp.mean(jnp.exp(2 * (omega @ x) - x @ x))

    keys = jax.random.split(jax.random.key(0), 4000)
    assert np.var(jax.vmap(orthogonal)(keys)) < 0.9 * np.var(jax.vmap(independent)(keys))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.taylor(key_dim=0, degree=1), "key_dim must be a positive integer"),
        (lambda f: f.taylor(key_dim=2, degree=-1), "degree must be a non-negative integer"),
        (lambda f: f.positive_orthogonal(jax.random.key(0), key_dim=2, num_features=0), "num_features must be"),
    ],
)
def test_bad_feature_maps(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(damjax.features)


def test_cross_entropy_is_the_particle_system():
    """Gradient descent on the memory moves the scores S = E X' U' by eta A P (Y - softmax S) G, exactly ([LAM])."""
    rng = np.random.default_rng(0)
    E, U, labels = rng.normal(size=(6, 3)), reference.OUTPUTS, rng.integers(4, size=6)
    frequencies, X, rate = rng.dirichlet(np.ones(6)), rng.normal(size=(2, 3)), 0.7
    scores = E @ X.T @ U.T
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    moved = scores + rate * (E @ E.T) @ np.diag(frequencies) @ (np.eye(4)[labels] - shares) @ (U @ U.T)

    made = damjax.objectives.cross_entropy(U)
    losses = jax.vmap(made.value, in_axes=(None, 0, 0))(X, E, U[labels])
    np.testing.assert_allclose(losses, -np.log(shares[np.arange(6), labels]), rtol=1e-12)
    gradients = jax.vmap(made.gradient, in_axes=(None, 0, 0))(X, E, U[labels])
    after = X - rate * np.einsum("x,xij->ij", frequencies, gradients)
    np.testing.assert_allclose(E @ after.T @ U.T, moved, rtol=1e-12)


def test_cross_entropy_takes_soft_labels_and_survives_huge_scores():
    made, key = damjax.objectives.cross_entropy(reference.OUTPUTS), jnp.array([1.0, -2.0])
    X, shares = jnp.array([[0.3, 1.0], [-0.5, 0.2]]), np.array([0.1, 0.2, 0.3, 0.4])
    hard = [made.value(X, key, jnp.asarray(u)) for u in reference.OUTPUTS]
    np.testing.assert_allclose(made.value(X, key, jnp.asarray(shares @ reference.OUTPUTS)), shares @ np.array(hard))
    assert jnp.isfinite(made.value(1e4 * X, key, jnp.asarray(reference.OUTPUTS[0])))
    assert jnp.isfinite(made.gradient(1e4 * X, key, jnp.asarray(reference.OUTPUTS[0]))).all()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.ones((1, 2)), "outputs must have shape (classes, dv) with at least two classes"),
        (np.ones((3, 2)), "outputs must tell classes apart"),
        (np.array([[1.0], [np.nan]]), "outputs must be finite"),
    ],
)
def test_bad_outputs(outputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        damjax.objectives.cross_entropy(outputs)


@pytest.mark.parametrize(
    ("kind", "range_of_curvatures"),
    [
        (damjax.objectives.Linear(), (0, 0)),
        (damjax.objectives.Quadratic(0.5), (0.5, 0.5)),
        (damjax.objectives.Smooth(2.0), (0, 2)),
        (damjax.objectives.General(), (-np.inf, np.inf)),
    ],
)
def test_kinds_tell_curvatures(kind, range_of_curvatures):
    assert kind.curvatures == range_of_curvatures


def test_the_slope_of_a_smooth_loss_without_a_bound_grows_with_the_ball():
    """Of 1/2 ||z - v||^2, called no more than smooth: the bound of the quadratic one."""
    key, value = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
    smooth = damjax.objectives.delta_net()._replace(kind=damjax.objectives.Smooth(1.0))
    assert float(smooth.lipschitz(0.5, key, value)) == pytest.approx((0.5 * 5 + 2) * 5)


def test_a_memory_of_any_shape_beside_the_linear_one():
    """A linear memory by its apply, and the same as an object of a user's own: values and gradients of delta-net."""
    made, params, key, value, _, _ = draw("delta_net", 3)

    class Own:
        def value(self, params, key, value, gate, time):
            return 0.5 * jnp.sum((params["X"] @ key - value) ** 2)

    by_apply = damjax.objectives.of_memory(
        lambda params, key: params["X"] @ key, lambda prediction, value, time: 0.5 * jnp.sum((prediction - value) ** 2)
    )
    others: tuple[Any, ...] = (by_apply, damjax.objectives.as_objective(Own()))
    for other in others:
        assert not other.linear_memory
        np.testing.assert_allclose(other.value({"X": params}, key, value), made.value(params, key, value), rtol=1e-12)
        gradient = other.gradient({"X": params}, key, value)["X"]
        np.testing.assert_allclose(gradient, made.gradient(params, key, value), rtol=1e-12)


@pytest.mark.parametrize(
    "ask",
    [
        lambda made, stream, ball: damjax.hindsight.best_in_hindsight(made, np.eye(1), ball, stream, [2]),
        lambda made, stream, ball: damjax.hindsight.moments(made, stream, [2]),
        lambda made, stream, ball: damjax.bounds.constants(made, ball, stream),
        lambda made, stream, ball: damjax.regret.static_regret(np.ones((2, 1)), made, np.eye(1), ball, stream, [2]),
    ],
)
def test_what_nobody_knows_of_a_memory_of_any_shape_is_refused(ask, untyped):
    made = damjax.objectives.of_memory(lambda params, key: params @ key, lambda z, v, t: jnp.sum((z - v) ** 2))
    stream = damjax.streams.from_arrays(np.ones((2, 1, 3)), np.ones((2, 1, 2)))
    with pytest.raises(ValueError, match="objective must be one of linear memories"):
        ask(made, stream, damjax.domains.frobenius_ball(1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": damjax.objectives.Linear()}, "objective.kind must be true of the loss"),
        ({"kind": damjax.objectives.Quadratic(5.0)}, "objective.kind must be true of the loss"),
        ({"residual": damjax.objectives.linear_attention().residual}, "objective.residual must be the derivative"),
    ],
)
def test_parts_of_the_library_that_do_not_belong_together_are_tried_as_anyones(changes, message):
    mixed = damjax.objectives.delta_net()._replace(**changes)
    stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=1, num_steps=3)
    with pytest.raises(ValueError, match=f"^{message}"):
        damjax.hindsight.best_in_hindsight(mixed, jnp.eye(1), damjax.domains.frobenius_ball(1.0), stream, [3])


@pytest.mark.parametrize("kind", [damjax.objectives.Quadratic, damjax.objectives.Smooth])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_a_kind_without_curvature_is_linear(kind, value):
    with pytest.raises(ValueError, match=r"must be positive, but it is .*; a loss that is linear has the kind Linear"):
        kind(value)
