"""Comparators of every convex loss: certified by their gap, and differentiable as functions of the whole problem."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize

import damjax
from damjax import hindsight
from damjax.hindsight import quadratic
from tests.cases import case, in_the_long_run, interests, over_objectives

NUM_AGENTS, NUM_STEPS, KINDS = 3, 25, ("small ball", "large ball", "box")


def setting(name, seed=0, dtype: npt.DTypeLike = np.float64, num_steps=NUM_STEPS):
    rng = np.random.default_rng(seed)
    made = case(rng, name, num_agents=NUM_AGENTS, num_steps=num_steps, key_dim=2, dtype=dtype)
    return made, interests(rng, NUM_AGENTS).astype(dtype)


def domain_of(kind, size=1.0):
    return {
        "small ball": lambda: damjax.domains.frobenius_ball(0.2 * size),
        "large ball": lambda: damjax.domains.frobenius_ball(6.0 * size),
        "box": lambda: damjax.domains.box(-0.3 * size, 0.5 * size, shape=(2, 2)),
    }[kind]()


def total(made):
    """F_n of an agent by its definition, through the objective's own values, given its interests."""
    times = jnp.arange(1.0, NUM_STEPS + 1)
    over_senders = jax.vmap(made.objective.value, in_axes=(None, 0, 0, 0, None))
    over_time = jax.vmap(over_senders, in_axes=(None, 0, 0, 0, 0))
    return lambda params, interest: jnp.sum(over_time(params, *made.stream[:3], times) * interest[None])


@over_objectives
@pytest.mark.parametrize("kind", KINDS)
def test_the_gap_is_a_certificate(name, kind):
    """Against the definition of loss and gap; the gap is small, and larger for every other memory of the set."""
    made, weights = setting(name)
    domain = domain_of(kind) if "softmax" not in name or kind != "box" else damjax.domains.box(-0.3, 0.5, shape=(2, 7))
    found = jax.jit(lambda: hindsight.best_in_hindsight(made.objective, weights, domain, made.stream, [NUM_STEPS]))()
    rng = np.random.default_rng(1)
    of_agent = jax.jit(jax.value_and_grad(total(made)))
    project = jax.jit(domain.project)
    for n in range(NUM_AGENTS):
        value, slope = of_agent(found.params[0, n], weights[n])
        np.testing.assert_allclose(found.loss[0, n], value, rtol=1e-10)
        match domain:
            case damjax.domains.Box(lower, upper):
                farthest = jnp.where(slope > 0, lower, upper)
            case damjax.domains.FrobeniusBall(radius):
                farthest = -radius * slope / jnp.linalg.norm(slope)
            case _:
                raise AssertionError
        gap = jnp.sum(slope * (found.params[0, n] - farthest))
        np.testing.assert_allclose(found.gap[0, n], gap, atol=1e-9 * (1 + abs(value)))
        assert -1e-9 <= found.gap[0, n] <= 1e-7 * (1 + abs(value))
        for _ in range(20):
            other = project(rng.normal(size=slope.shape))
            assert of_agent(other, weights[n])[0] >= found.loss[0, n] - found.gap[0, n] - 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_cross_entropy_against_scipy(kind):
    made, weights = setting("cross_entropy")
    domain = domain_of(kind)
    found = hindsight.best_in_hindsight(made.objective, weights, domain, made.stream, [NUM_STEPS])
    of_agent = jax.jit(jax.value_and_grad(lambda flat, interest: total(made)(flat.reshape(2, 2), interest)))
    for n in range(NUM_AGENTS):
        both = lambda flat, n=n: tuple(np.asarray(part, float) for part in of_agent(flat, weights[n]))  # noqa: E731
        if kind == "box":
            limits = {"bounds": [(-0.3, 0.5)] * 4}
        else:
            R = float(domain.diameter) / 2
            limits = {"constraints": [{"type": "ineq", "fun": lambda x, R=R: R**2 - x @ x, "jac": lambda x: -2 * x}]}
        expected = scipy.optimize.minimize(
            both, np.zeros(4), jac=True, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500}, **limits
        )
        np.testing.assert_allclose(found.loss[0, n], expected.fun, rtol=1e-9)
        np.testing.assert_allclose(found.params[0, n].ravel(), expected.x, atol=1e-4)


def test_a_loss_of_ones_own_with_a_ridge():
    """Cross-entropy with weight decay, which no factory makes: loss and gap by definition."""
    made, weights = setting("cross_entropy")
    made = made._replace(objective=made.objective._replace(ridge=lambda gate, time: jnp.asarray(0.3)))
    found = hindsight.best_in_hindsight(made.objective, weights, domain_of("large ball"), made.stream, [NUM_STEPS])
    of_agent = jax.jit(jax.value_and_grad(total(made)))
    for n in range(NUM_AGENTS):
        value, slope = of_agent(found.params[0, n], weights[n])
        np.testing.assert_allclose(found.loss[0, n], value, rtol=1e-10)
        # The decay keeps the memory inside, where the slope vanishes.
        assert jnp.linalg.norm(found.params[0, n]) < 6
        assert jnp.linalg.norm(slope) < 1e-4


@pytest.mark.long
def test_horizons_and_function_streams_of_a_loss_found_by_iteration():
    made, weights = setting("cross_entropy")
    ball = domain_of("large ball")
    both = hindsight.best_in_hindsight(made.objective, weights, ball, made.stream, [7, NUM_STEPS])
    for h, horizon in enumerate((7, NUM_STEPS)):
        alone = hindsight.best_in_hindsight(made.objective, weights, ball, made.stream, [horizon])
        np.testing.assert_allclose(both.loss[h], alone.loss[0], rtol=1e-8)
        np.testing.assert_allclose(both.params[h], alone.params[0], atol=1e-3)

    def at(time):
        return jax.tree.map(lambda field: None if field is None else jnp.asarray(field)[time - 1], made.stream)

    streamed = hindsight.best_in_hindsight(made.objective, weights, ball, at, [7, NUM_STEPS])
    np.testing.assert_allclose(streamed.loss, both.loss, rtol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("radius", [1.0, *in_the_long_run(5.0)])
def test_the_gap_is_a_small_share_of_the_regret(radius):
    """Below a thousandth on the token streams that cross-entropy memories are for."""
    rng = np.random.default_rng(0)
    outputs, cues = rng.normal(size=(6, 4)) / 2, rng.normal(size=(12, 4)) / 2
    tokens = rng.choice(12, size=(300, 3), p=(1 / np.arange(1, 13)) / np.sum(1 / np.arange(1, 13)))
    stream = damjax.streams.from_arrays(cues[tokens], outputs[rng.integers(6, size=12)[tokens]])
    objective, weights = damjax.objectives.cross_entropy(outputs), np.full((3, 3), 1 / 3)
    ball = damjax.domains.frobenius_ball(radius)
    algorithm = damjax.ogd(objective, weights, learning_rate=damjax.schedules.inverse_sqrt(radius), domain=ball)
    observe = damjax.regret.observe_losses(objective, weights)
    _, losses = damjax.simulate(algorithm, jnp.zeros((3, 4, 4)), stream, observe=observe)
    found = hindsight.best_in_hindsight(objective, weights, ball, stream, [30, 300])
    regret = damjax.regret.static_regret(losses, objective, weights, ball, stream, [30, 300])
    assert (found.gap < 1e-3 * regret).all()
    assert (regret > 0).all()


def test_a_comparator_that_is_not_known_well_says_so():
    made, weights = setting("cross_entropy", dtype=np.float32)
    ball = damjax.domains.frobenius_ball(3.0)
    best = hindsight.best_in_hindsight(made.objective, weights, ball, made.stream, [NUM_STEPS])
    share = best.loss[0] / NUM_STEPS + best.gap[0] / NUM_STEPS
    losses = jnp.broadcast_to(share, (NUM_STEPS, NUM_AGENTS))
    with pytest.warns(RuntimeWarning, match=r"the best memory in hindsight is known to .* only, of a regret of"):
        damjax.regret.static_regret(losses, made.objective, weights, ball, made.stream, [NUM_STEPS])


def least_squares_in_a_box(condition):
    """Correlated cues: a hessian of the given condition number, with bounds that hold some of the entries."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    hessian = basis @ np.diag(np.geomspace(1, condition, 4)) @ basis.T
    linear = rng.normal(size=(2, 4)) @ hessian
    return hindsight.Moments(jnp.asarray(hessian), None, jnp.asarray(linear), jnp.zeros(()))


@pytest.mark.parametrize("condition", [10.0, 1e4, 1e6, 1e9])
def test_least_squares_in_a_box_is_solved_to_rounding(condition):
    moments = least_squares_in_a_box(condition)
    found = hindsight.best(moments, damjax.domains.box(-0.4, 0.6, shape=(2, 4)))
    assert found.gap <= 1e-10 * abs(found.loss)
    assert jnp.any(found.params == -0.4) or jnp.any(found.params == 0.6)


def test_nearly_dependent_cues_in_a_large_box():
    """Keys (1, +-1e-5): what the second feature weighs is 1e-10 of the first, and its entry is what the loss needs."""
    keys, values = jnp.array([[1.0, 1e-5], [1.0, -1e-5]]), jnp.array([0.07, -0.03])
    moments = hindsight.Moments(keys.T @ keys, None, (values @ keys)[None], 0.5 * jnp.sum(values**2))
    found = hindsight.best(moments, damjax.domains.box(-1e4, 1e4, shape=(1, 2)))
    np.testing.assert_allclose(found.params, [[0.02, 5000.0]], rtol=1e-6)
    np.testing.assert_allclose(found.loss, 0, atol=1e-12)
    assert found.gap < 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_random_least_squares_in_boxes_against_scipy(seed):
    """Bounds that hold some entries, features of all sizes, fewer samples than features."""
    rng = np.random.default_rng(seed)
    num_features = int(rng.integers(1, 7))
    samples = rng.normal(size=(int(rng.integers(1, 12)), num_features)) * 10.0 ** rng.integers(-3, 3, num_features)
    targets = rng.normal(size=len(samples))
    lower = rng.uniform(-1, 0, (1, num_features)) / np.abs(samples).max(axis=0)
    upper = lower + rng.uniform(0.1, 2) / np.abs(samples).max(axis=0)
    arrays = map(jnp.asarray, (samples.T @ samples, (targets @ samples)[None], 0.5 * np.sum(targets**2)))
    hessian, linear, constant = arrays
    found = hindsight.best(hindsight.Moments(hessian, None, linear, constant), damjax.domains.box(lower, upper))
    expected = scipy.optimize.lsq_linear(samples, targets, (lower[0], upper[0]), method="bvls", tol=1e-14)
    assert found.loss <= expected.cost + 1e-10
    assert found.loss - found.gap <= expected.cost + 1e-12
    assert found.gap < 1e-8


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (-np.inf, np.inf), (-np.inf, 0.1)])
def test_a_box_without_a_wall_on_every_side(bounds):
    """Memories that must not be negative, and none at all: what scipy finds, and derivatives that are finite."""
    moments = least_squares_in_a_box(20.0)
    domain = damjax.domains.box(*bounds, shape=(2, 4))
    found = hindsight.best(moments, domain)
    factor = np.linalg.cholesky(np.asarray(moments.hessian))
    for row in range(2):
        target = np.linalg.solve(factor, np.asarray(moments.linear[row]))
        expected = scipy.optimize.lsq_linear(factor.T, target, bounds, tol=1e-13).x
        np.testing.assert_allclose(found.params[row], expected, atol=1e-6)
    slope = jax.grad(lambda m: hindsight.best(m, domain).loss)(moments)
    np.testing.assert_allclose(slope.linear, -found.params, atol=1e-6)


# Derivatives.


def problem_of(name, kind):
    """Regret's comparators as a function of the weights, the size of the set, the responses and the cues."""
    made, weights = setting(name)

    def solve(weights, size, values, keys):
        stream = made.stream._replace(values=values, keys=keys)
        domain = domain_of(kind, size)
        return hindsight.best_in_hindsight(made.objective, weights, domain, stream, [9, NUM_STEPS])

    return solve, [
        jnp.asarray(weights),
        jnp.asarray(1.1),
        jnp.asarray(made.stream.values),
        jnp.asarray(made.stream.keys),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("delta_net", "small ball"),
        *in_the_long_run(
            ("cross_entropy", "small ball"),
            ("delta_net", "large ball"),
            ("delta_net", "box"),
            ("gated_linear_attention", "small ball"),
            ("linear_attention", "large ball"),
            ("cross_entropy", "box"),
        ),
    ],
)
def test_first_and_second_derivatives(name, kind):
    """Of the minimiser and of the minimum, against finite differences: implicit, for the whole problem."""
    solve, point = problem_of(name, kind)
    rng = np.random.default_rng(3)
    directions = [jnp.asarray(rng.normal(size=x.shape)) for x in point]
    probe = jnp.asarray(rng.normal(size=solve(*point).params.shape))

    def slope(t, mask):
        """From the point, t along the directions of the arguments that the mask picks: of the minimum, and all else."""

        def along(t):
            found = solve(*(x + t * mask[i] * d for i, (x, d) in enumerate(zip(point, directions, strict=True))))
            return jnp.stack([jnp.sum(probe * found.params), found.loss.sum()])

        values, back = jax.vjp(along, t)
        slopes = jax.vmap(back)(jnp.eye(2))[0]
        return slopes[1], (values, slopes)

    # One program for the values, their slopes and the second derivative of the minimum.
    derivatives = jax.jit(jax.value_and_grad(slope, has_aux=True))
    # What was found by iteration is exact to about 1e-6, which a difference quotient divides by its step.
    step, tolerance = (1e-3, 2e-3) if name == "cross_entropy" else (1e-5, 1e-5)
    for mask in np.eye(len(point)):
        (_, (_, slopes)), bend = derivatives(0.0, mask)
        (_, (values_ahead, ahead)), _ = derivatives(step, mask)
        (_, (values_behind, behind)), _ = derivatives(-step, mask)
        expected = (values_ahead - values_behind) / (2 * step)
        np.testing.assert_allclose(slopes, expected, rtol=tolerance, atol=tolerance)
        expected = (ahead[1] - behind[1]) / (2 * step)
        np.testing.assert_allclose(bend, expected, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.long
def test_derivatives_agree_forwards_and_backwards_and_under_vmap():
    solve, point = problem_of("delta_net", "small ball")
    probe = jnp.asarray(np.random.default_rng(0).normal(size=solve(*point).params.shape))
    fun = lambda size: jnp.sum(probe * solve(point[0], size, *point[2:]).params)  # noqa: E731
    forwards, backwards = jax.jacfwd(fun)(1.1), jax.grad(fun)(1.1)
    np.testing.assert_allclose(forwards, backwards, rtol=1e-9)
    batched = jax.vmap(jax.grad(fun))(jnp.array([0.9, 1.1]))
    np.testing.assert_allclose(batched[1], backwards, rtol=1e-9)


def test_a_flat_direction_spoils_no_derivative():
    """One cue in two dimensions, and an entry of a box without any pull: the minimum is differentiable all the same."""
    cue = jnp.array([1.0, 0.0])

    def least(cue, domain):
        moments = hindsight.Moments(jnp.outer(cue, cue), None, jnp.outer(jnp.array([2.0]), cue), jnp.asarray(2.0))
        return hindsight.best(moments, domain).loss

    for domain in (
        damjax.domains.frobenius_ball(9.0),
        damjax.domains.unconstrained(),
        damjax.domains.box(-9.0, 9.0, shape=(1, 2)),
    ):
        np.testing.assert_allclose(jax.grad(least)(cue, domain), 0, atol=1e-8)
    flat = hindsight.Moments(None, None, jnp.array([[1.0, 0.0]]), jnp.zeros(()))
    slope = jax.grad(lambda m: hindsight.best(m, damjax.domains.box(-1.0, 1.0, shape=(1, 2))).loss)(flat)
    assert jnp.isfinite(slope.linear).all()
    assert slope.linear[0, 0] == -1


@pytest.mark.parametrize("seed", range(10))
def test_a_minimiser_just_inside_the_ball_is_free(seed):
    """Within the margin of the boundary, yet not held by it: the radius moves nothing."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3))
    moments = hindsight.Moments(jnp.asarray(root @ root.T), None, jnp.asarray(rng.normal(size=(2, 3))), jnp.zeros(()))
    free = hindsight.best(moments, damjax.domains.unconstrained()).params
    radius = jnp.linalg.norm(free) * (1 + 5e-7)
    slope = jax.jacobian(lambda r: hindsight.best(moments, damjax.domains.frobenius_ball(r)).params)(radius)
    np.testing.assert_allclose(slope, 0, atol=1e-9)


@pytest.mark.long
def test_any_convex_loss_in_any_set():
    """log-cosh regression: the same solver on a loss of the user's own, differentiated through the closure."""
    rng = np.random.default_rng(0)
    cues, answers = jnp.asarray(rng.normal(size=(30, 2))), jnp.asarray(rng.normal(size=30))

    def solve(shift):
        loss = lambda params: jnp.sum(jnp.log(jnp.cosh(params @ cues.T - answers[None] - shift)))  # noqa: E731
        return hindsight.minimize(
            loss, jnp.zeros((1, 2)), damjax.domains.frobenius_ball(0.1), smoothness=jnp.sum(cues**2), tolerance=1e-12
        )

    assert solve(0.3).gap <= 1e-12
    expected = (solve(0.3 + 1e-4).loss - solve(0.3 - 1e-4).loss) / 2e-4
    np.testing.assert_allclose(jax.grad(lambda s: solve(s).loss)(0.3), expected, rtol=1e-6)


def test_a_second_call_compiles_nothing():
    moments = least_squares_in_a_box(10.0)
    hindsight.best(moments, damjax.domains.frobenius_ball(0.5))
    num_compiled = getattr(quadratic._best_jitted, "_cache_size")  # noqa: B009
    before = num_compiled()
    for radius in (0.6, 0.7):
        hindsight.best(moments, damjax.domains.frobenius_ball(radius))
    assert num_compiled() == before


def test_bad_input():
    for name, smoothness, tolerance in (("smoothness", 0.0, 1.0), ("tolerance", 1.0, -1.0)):
        with pytest.raises(ValueError, match=f"{name} must be finite and positive"):
            hindsight.minimize(
                jnp.sum, jnp.zeros((1, 1)), domain_of("small ball"), smoothness=smoothness, tolerance=tolerance
            )
    made, weights = setting("cross_entropy")
    solve = lambda objective, domain: hindsight.best_in_hindsight(objective, weights, domain, made.stream, [3])  # noqa: E731
    for call, message in (
        (
            lambda: solve(made.objective, damjax.domains.unconstrained()),
            "domain must be bounded for a loss that is not quadratic",
        ),
        (
            lambda: solve(made.objective._replace(kind=damjax.objectives.General()), domain_of("small ball")),
            "must declare its smoothness",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_agents_and_horizons_do_not_mix():
    """Each comparator is that of its own agent alone."""
    made, weights = setting("cross_entropy")
    ball = domain_of("large ball")
    found = hindsight.best_in_hindsight(made.objective, weights, ball, made.stream, [NUM_STEPS])
    of_agent = jax.jit(total(made))
    losses = np.array(
        [[of_agent(found.params[0, m], weights[n]) for m in range(NUM_AGENTS)] for n in range(NUM_AGENTS)]
    )
    for n, m in itertools.permutations(range(NUM_AGENTS), 2):
        assert losses[n, n] < losses[n, m]
