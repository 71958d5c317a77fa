"""Losses by loops, comparators by scipy, regret by its definition."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize

import damjax
from damjax import hindsight, regret
from tests import reference
from tests.cases import case, in_the_long_run, interests, over_objectives, over_quadratic

NUM_AGENTS, NUM_STEPS = 3, 25


def setting(name, seed=0, dtype: npt.DTypeLike = np.float64):
    rng = np.random.default_rng(seed)
    problem = case(rng, name, num_agents=NUM_AGENTS, num_steps=NUM_STEPS, key_dim=2, dtype=dtype)
    return problem, interests(rng, NUM_AGENTS).astype(dtype)


def loss(problem, params, m, time):
    gate = None if problem.gates is None else problem.gates[time - 1, m]
    return reference.loss(problem.name, params, problem.features[time - 1, m], problem.values[time - 1, m], gate, time)


def cumulative(problem, weights, n, params, horizon):
    """sum_t sum_m w_nm f_mt(U), by loops."""
    return sum(
        weights[n, m] * loss(problem, params, m, time)
        for time, m in itertools.product(range(1, horizon + 1), range(NUM_AGENTS))
    )


@over_objectives
def test_personalised_losses_by_loops(name):
    problem, weights = setting(name)
    params = np.random.default_rng(1).normal(size=(NUM_STEPS, *problem.params.shape))
    losses = regret.personalized_losses(problem.objective, weights, jnp.asarray(params), problem.stream)
    for t, n in itertools.product(range(NUM_STEPS), range(NUM_AGENTS)):
        expected = sum(weights[n, m] * loss(problem.problem, params[t, n], m, t + 1) for m in range(NUM_AGENTS))
        np.testing.assert_allclose(losses[t, n], expected, rtol=1e-10)


@over_objectives
def test_losses_observed_inside_the_scan_are_those_of_the_trace(name):
    problem, weights = setting(name)
    algorithm = damjax.ogd(problem.objective, weights, learning_rate=0.1, domain=damjax.domains.frobenius_ball(1.0))
    run = functools.partial(damjax.simulate, algorithm, problem.params, problem.stream)
    _, trace = run()
    _, observed = run(observe=regret.observe_losses(problem.objective, weights))
    expected = regret.personalized_losses(problem.objective, weights, trace.params, problem.stream)
    np.testing.assert_allclose(observed, expected, rtol=1e-12)


@over_quadratic
def test_moments_are_the_losses(name):
    problem, _ = setting(name)
    horizons = [1, 7, NUM_STEPS]
    sources = hindsight.moments(problem.objective, problem.stream, horizons)
    params = jnp.asarray(np.random.default_rng(2).normal(size=problem.params.shape[1:]))
    values = sources.value(jnp.broadcast_to(params, (3, NUM_AGENTS, *params.shape)))
    for h, m in itertools.product(range(3), range(NUM_AGENTS)):
        expected = sum(loss(problem.problem, np.asarray(params), m, t) for t in range(1, horizons[h] + 1))
        np.testing.assert_allclose(values[h, m], expected, rtol=1e-10)


def scipy_minimum(fun, shape, domain):
    """The least value over the domain, by a general solver."""
    size = int(np.prod(shape))
    slope = jax.jit(jax.value_and_grad(lambda flat: fun(flat.reshape(shape))))
    both = lambda flat: tuple(np.asarray(part, float) for part in slope(flat))  # noqa: E731
    match domain:
        case damjax.domains.Box(lower, upper):
            bounds = list(zip(*(np.broadcast_to(b, shape).ravel() for b in (lower, upper)), strict=True))
            return scipy.optimize.minimize(
                both, np.zeros(size), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-11}
            ).fun
        case damjax.domains.FrobeniusBall(radius):
            inside = {"type": "ineq", "fun": lambda x: radius**2 - x @ x, "jac": lambda x: -2 * x}
            return scipy.optimize.minimize(
                both,
                np.zeros(size),
                jac=True,
                method="SLSQP",
                constraints=[inside],
                options={"ftol": 1e-14, "maxiter": 999},
            ).fun
    return scipy.optimize.minimize(both, np.zeros(size), jac=True, method="BFGS", options={"gtol": 1e-10}).fun


def domain_cases(shape=(2, 2)):
    return {
        "small ball": damjax.domains.frobenius_ball(0.2),
        "large ball": damjax.domains.frobenius_ball(50.0),
        "box": damjax.domains.box(-0.1, 0.3, shape=shape),
        "large box": damjax.domains.box(-40.0, 50.0, shape=shape),
        "unconstrained": damjax.domains.unconstrained(),
    }


@pytest.mark.optimized
@over_quadratic
@pytest.mark.parametrize("kind", ["small ball", "box", *in_the_long_run("large ball", "large box", "unconstrained")])
def test_comparators_against_scipy(name, kind):
    problem, weights = setting(name)
    domain = domain_cases(problem.params.shape[1:])[kind]
    bounded_below = kind != "unconstrained" or problem.objective.bounded_below
    if not bounded_below:
        with pytest.raises(ValueError, match="domain must be bounded for a linear objective"):
            regret.static_regret(
                jnp.zeros((NUM_STEPS, NUM_AGENTS)), problem.objective, weights, domain, problem.stream, [3]
            )
        return
    horizons = [2, NUM_STEPS]
    sources = hindsight.moments(problem.objective, problem.stream, horizons)
    best = hindsight.best_losses(sources, weights, domain)
    memories = hindsight.best_memories(sources, weights, domain)
    for h, n in itertools.product(range(2), range(NUM_AGENTS)):
        weighted = jax.tree.map(lambda leaf, h=h, n=n: jnp.einsum("m,m...->...", weights[n], leaf[h]), sources)
        expected = scipy_minimum(weighted.value, problem.params.shape[1:], domain)
        # SLSQP and BFGS stop within about 1e-8 of the minimum; ours must not be above theirs.
        scale = 1 + abs(expected)
        assert best[h, n] <= expected + 1e-8 * scale
        assert best[h, n] >= expected - 1e-6 * scale
        np.testing.assert_allclose(domain.project(memories[h, n]), memories[h, n], rtol=1e-12)
        at_best = cumulative(problem.problem, weights, n, np.asarray(memories[h, n]), horizons[h])
        np.testing.assert_allclose(best[h, n], at_best, rtol=1e-9, atol=1e-9)


@over_quadratic
@pytest.mark.parametrize("kind", ["small ball", "large ball", "box"])
def test_no_feasible_direction_improves_the_comparator(name, kind):
    """The variational inequality <grad F(U), S - U> >= 0 at the worst S of the set: a Frank-Wolfe gap of zero."""
    problem, weights = setting(name, seed=5)
    domain = domain_cases(problem.params.shape[1:])[kind]
    sources = hindsight.moments(problem.objective, problem.stream, [NUM_STEPS])
    best = hindsight.best_memories(sources, weights, domain)[0]
    for n in range(NUM_AGENTS):
        weighted = jax.tree.map(lambda leaf, n=n: jnp.einsum("m,m...->...", weights[n], leaf[0]), sources)
        slope = weighted.gradient(best[n])
        match domain:
            case damjax.domains.FrobeniusBall(radius):
                worst = -radius * slope / jnp.maximum(jnp.linalg.norm(slope), 1e-300)
            case damjax.domains.Box(lower, upper):
                worst = jnp.where(slope > 0, lower, upper)
            case _:
                raise AssertionError
        assert abs(jnp.sum(slope * (best[n] - worst))) < 1e-8 * (1 + abs(weighted.value(best[n])))


@over_quadratic
def test_static_regret_by_its_definition_and_by_both_kinds_of_stream(name):
    problem, weights = setting(name)
    ball = damjax.domains.frobenius_ball(0.7)
    algorithm = damjax.ogd(problem.objective, weights, learning_rate=0.2, domain=ball)
    _, trace = damjax.simulate(algorithm, 0 * problem.params, problem.stream)
    losses = regret.personalized_losses(problem.objective, weights, trace.params, problem.stream)
    horizons = [4, 11, NUM_STEPS]
    found = regret.static_regret(losses, problem.objective, weights, ball, problem.stream, horizons)
    for h, horizon in enumerate(horizons):
        sources = hindsight.moments(problem.objective, problem.stream, [horizon])
        for n in range(NUM_AGENTS):
            weighted = jax.tree.map(lambda leaf, n=n: jnp.einsum("m,m...->...", weights[n], leaf[0]), sources)
            own = sum(
                weights[n, m] * loss(problem.problem, np.asarray(trace.params[t, n]), m, t + 1)
                for t, m in itertools.product(range(horizon), range(NUM_AGENTS))
            )
            expected = own - scipy_minimum(weighted.value, problem.params.shape[1:], ball)
            np.testing.assert_allclose(found[h, n], expected, rtol=1e-6, atol=1e-6)

    def at(time):
        return jax.tree.map(lambda field: field[time - 1], problem.stream)

    streamed = regret.static_regret(losses, problem.objective, weights, ball, at, horizons)
    np.testing.assert_allclose(streamed, found, rtol=1e-12)


def test_the_best_memory_itself_has_no_regret():
    problem, weights = setting("delta_net")
    ball = damjax.domains.frobenius_ball(0.5)
    sources = hindsight.moments(problem.objective, problem.stream, [NUM_STEPS])
    best = hindsight.best_memories(sources, weights, ball)[0]
    frozen = jnp.broadcast_to(best, (NUM_STEPS, *best.shape))
    losses = regret.personalized_losses(problem.objective, weights, frozen, problem.stream)
    found = regret.static_regret(losses, problem.objective, weights, ball, problem.stream, [NUM_STEPS])
    np.testing.assert_allclose(found, 0, atol=1e-10)


@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.9999, 1.0001, 1e3])
def test_the_ball_solution_is_on_the_sphere_exactly_when_the_free_one_is_outside(radius):
    problem, weights = setting("delta_net")
    sources = hindsight.moments(problem.objective, problem.stream, [NUM_STEPS])
    free = hindsight.best_memories(sources, weights, damjax.domains.unconstrained())[0]
    lengths = jnp.linalg.norm(free, axis=(1, 2))
    for n in range(NUM_AGENTS):
        ball = damjax.domains.frobenius_ball(radius * lengths[n])
        best = hindsight.best_memories(sources, weights, ball)[0, n]
        np.testing.assert_allclose(jnp.linalg.norm(best), min(radius, 1) * lengths[n], rtol=1e-12)
        if radius > 1:
            np.testing.assert_allclose(best, free[n], rtol=1e-12)


def test_fewer_cues_than_dimensions():
    """A singular hessian: two cues in three dimensions. The comparator still interpolates, or sits on the sphere."""
    keys = np.array([[[1.0, 0, 0]], [[0, 2.0, 0]]])
    stream = damjax.streams.from_arrays(keys, np.array([[[3.0]], [[4.0]]]))
    sources = hindsight.moments(damjax.objectives.delta_net(), stream, [2])
    alone = np.ones((1, 1))
    large = hindsight.best_memories(sources, alone, damjax.domains.frobenius_ball(100.0))[0, 0]
    np.testing.assert_allclose(large, [[3, 2, 0]], atol=1e-9)
    free = hindsight.best_memories(sources, alone, damjax.domains.unconstrained())[0, 0]
    np.testing.assert_allclose(free, [[3, 2, 0]], atol=1e-9)
    small = hindsight.best_memories(sources, alone, damjax.domains.frobenius_ball(1.0))[0, 0]
    assert jnp.linalg.norm(small) == pytest.approx(1)
    assert small[0, 2] == 0


@over_quadratic
def test_the_minimum_is_differentiable_in_the_data_the_weights_and_the_radius(name):
    problem, weights = setting(name)

    @jax.jit
    def best(weights, radius, shift):
        moved = problem.stream._replace(values=problem.stream.values + shift)
        sources = hindsight.moments(problem.objective, moved, [NUM_STEPS])
        return hindsight.best_losses(sources, weights, damjax.domains.frobenius_ball(radius)).sum()

    point = (jnp.asarray(weights), 0.4, 0.0)
    slopes = jax.jit(jax.grad(best, argnums=(0, 1, 2)))(*point)
    step = 1e-6
    for which in (1, 2):
        ahead, behind = list(point), list(point)
        ahead[which], behind[which] = point[which] + step, point[which] - step
        difference = (best(*ahead) - best(*behind)) / (2 * step)
        np.testing.assert_allclose(slopes[which], difference, rtol=1e-5, atol=1e-6)
    direction = np.random.default_rng(3).normal(size=weights.shape)
    difference = (best(weights + step * direction, *point[1:]) - best(weights - step * direction, *point[1:])) / (
        2 * step
    )
    np.testing.assert_allclose(jnp.sum(slopes[0] * direction), difference, rtol=1e-5)


def test_the_minimum_is_differentiable_in_the_bounds_of_a_box():
    problem, weights = setting("delta_net")
    sources = hindsight.moments(problem.objective, problem.stream, [NUM_STEPS])

    def best(upper):
        return hindsight.best_losses(sources, weights, damjax.domains.box(-0.02, upper, shape=(2, 2))).sum()

    difference = (best(0.02 + 1e-6) - best(0.02 - 1e-6)) / 2e-6
    assert abs(difference) > 0.1
    np.testing.assert_allclose(jax.grad(best)(0.02), difference, rtol=1e-5)


def test_a_ridge_of_zero_without_a_constraint_is_no_regret_of_zero():
    """Gates of one: the loss is linear, and falls without end."""
    problem, weights = setting("gated_linear_attention")
    flat = problem.stream._replace(gates=jnp.ones((NUM_STEPS, NUM_AGENTS)))
    sources = hindsight.moments(problem.objective, flat, [NUM_STEPS])
    assert jnp.isnan(hindsight.best_losses(sources, weights, damjax.domains.unconstrained())).all()


@over_quadratic
def test_float32_regret_follows_float64(name):
    values = []
    for dtype in (np.float32, np.float64):
        problem, weights = setting(name, dtype=dtype)
        ball = damjax.domains.frobenius_ball(0.7)
        algorithm = damjax.ogd(problem.objective, weights, learning_rate=0.2, domain=ball)
        observe = regret.observe_losses(problem.objective, weights)
        _, losses = damjax.simulate(algorithm, problem.params, problem.stream, observe=observe)
        found = regret.static_regret(losses, problem.objective, weights, ball, problem.stream, [5, NUM_STEPS])
        assert found.dtype == dtype
        values.append(found)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_steps", [100_000, *in_the_long_run(1_000_000)])
def test_sums_over_a_long_run_are_right_in_single_precision(num_steps):
    """A memory that stays empty, a response that never changes, and a best memory without loss."""
    key, value = jnp.ones((1, 1), jnp.float32), jnp.full((1, 1), np.sqrt(0.2), jnp.float32)
    objective, alone, ball = damjax.objectives.delta_net(), jnp.eye(1), damjax.domains.frobenius_ball(2.0)
    horizons = [100, num_steps // 3, num_steps]
    losses = jnp.full((num_steps, 1), 0.1, jnp.float32)
    stream = lambda time: damjax.Associations(key, value)  # noqa: E731
    found = regret.static_regret(losses, objective, alone, ball, stream, horizons)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[:, 0], 0.1 * np.array(horizons), rtol=1e-5)
    sources = hindsight.moments(objective, stream, horizons)
    assert sources.hessian is not None
    np.testing.assert_allclose(sources.hessian[:, 0, 0, 0], horizons, rtol=1e-6)
    np.testing.assert_allclose(sources.constant[:, 0], 0.1 * np.array(horizons), rtol=1e-6)
    best = hindsight.best_in_hindsight(objective, alone, ball, stream, horizons)
    assert (best.loss - best.gap <= 0).all()
    assert (np.asarray(best.gap[:, 0]) <= 1e-5 * np.array(horizons)).all()


@pytest.mark.long
def test_sums_over_samples_are_right_in_single_precision():
    """Of a loss that is not quadratic, whose best memory is found from the samples themselves."""
    num_steps, outputs = 50_000, np.eye(2)
    objective, ball = damjax.objectives.cross_entropy(outputs), damjax.domains.frobenius_ball(1.0)
    found = {}
    for dtype in (np.float32, np.float64):
        keys, values = np.full((num_steps, 1, 1), 0.7), np.broadcast_to([0.7, 0.3], (num_steps, 1, 2))
        stream = damjax.Associations(keys.astype(dtype), values.astype(dtype))
        found[dtype] = hindsight.best_in_hindsight(objective, jnp.eye(1), ball, stream, [10, num_steps])
    single, exact = (jax.tree.map(np.asarray, found[dtype]) for dtype in (np.float32, np.float64))
    np.testing.assert_allclose(single.loss, exact.loss, rtol=1e-5)
    assert (single.loss - single.gap <= exact.loss * (1 + 1e-6)).all()


def nearly_dependent(dtype):
    """Four cues far from zero, all on one line but for a hundredth, and responses that a memory recalls exactly."""
    cues = np.array([[1, 280], [1, 290], [1, 300], [1, 310]], dtype)
    stream = damjax.Associations(cues[:, None], cues[:, None, 1:] - 295)
    return stream, np.array([[[-295, 1]]], dtype), damjax.domains.frobenius_ball(400.0)


def test_nearly_dependent_cues_in_single_precision():
    stream, exact, ball = nearly_dependent(np.float32)
    objective, alone = damjax.objectives.delta_net(), jnp.eye(1, dtype=jnp.float32)
    losses = regret.personalized_losses(objective, alone, jnp.broadcast_to(exact, (4, 1, 1, 2)), stream)
    np.testing.assert_array_equal(losses, 0)
    with pytest.warns(RuntimeWarning, match="nearly dependent cues"):
        found = regret.static_regret(losses, objective, alone, ball, stream, [4])
    best = hindsight.best_in_hindsight(objective, alone, ball, stream, [4])
    # Not the best with the direction of least weight left out, which loses 250.
    assert abs(found[0, 0]) <= best.gap[0, 0] < 25
    assert abs(found[0, 0]) < 1
    np.testing.assert_allclose(best.params[0, 0], exact[0], rtol=1e-3)


def test_nearly_dependent_cues_in_double_precision_are_nothing_to_warn_of():
    stream, exact, ball = nearly_dependent(np.float64)
    objective, alone = damjax.objectives.delta_net(), jnp.eye(1)
    losses = regret.personalized_losses(objective, alone, jnp.broadcast_to(exact, (4, 1, 1, 2)), stream)
    np.testing.assert_allclose(regret.static_regret(losses, objective, alone, ball, stream, [4]), 0, atol=1e-8)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ball", "box", "unconstrained"])
def test_a_gated_delta_net_by_its_samples(kind):
    """Least squares with weight decay, which no factory makes: B (C + D I)^-1, or what scipy finds."""
    rng = np.random.default_rng(0)
    objective = damjax.objectives.delta_net()._replace(ridge=lambda gate, time: 1 - gate, gated=True)
    keys, values, gates = rng.normal(size=(9, 1, 3)), rng.normal(size=(9, 1, 2)), rng.uniform(0.1, 1, (9, 1))
    stream, horizons = damjax.Associations(*map(jnp.asarray, (keys, values, gates))), [4, 9]
    alone = tuple(jnp.asarray(field[:, 0]) for field in (keys, values, gates))
    domain = {
        "ball": damjax.domains.frobenius_ball(0.4),
        "box": damjax.domains.box(-0.2, 0.1, shape=(2, 3)),
        "unconstrained": damjax.domains.unconstrained(),
    }[kind]
    best = hindsight.best_in_hindsight(objective, jnp.eye(1), domain, stream, horizons)
    times = jnp.arange(1.0, 10)

    def value(params, horizon):
        over_time = jax.vmap(functools.partial(objective.value, params))
        return jnp.sum(over_time(alone[0], alone[1], alone[2], times)[:horizon])

    for h, horizon in enumerate(horizons):
        np.testing.assert_allclose(value(best.params[h, 0], horizon), best.loss[h, 0], rtol=1e-9)
        expected = scipy_minimum(functools.partial(value, horizon=horizon), (2, 3), domain)
        np.testing.assert_allclose(best.loss[h, 0], expected, rtol=1e-6)
        if kind == "unconstrained":
            hessian = keys[:horizon, 0].T @ keys[:horizon, 0] + np.sum(1 - gates[:horizon]) * np.eye(3)
            closed = values[:horizon, 0].T @ keys[:horizon, 0] @ np.linalg.inv(hessian)
            np.testing.assert_allclose(best.params[h, 0], closed, rtol=1e-9)
            assert best.gap[h, 0] < 1e-10
    losses = regret.personalized_losses(objective, jnp.eye(1), jnp.zeros((9, 1, 2, 3)), stream)
    found = regret.static_regret(losses, objective, jnp.eye(1), domain, stream, horizons)
    np.testing.assert_allclose(found, np.cumsum(losses, axis=0)[np.array([3, 8])] - best.loss)


def test_what_is_no_set_or_objective_is_refused_by_name(untyped):
    problem, weights = setting("delta_net")
    losses, ball = jnp.zeros((NUM_STEPS, NUM_AGENTS)), damjax.domains.frobenius_ball(1.0)
    call, delta_net = functools.partial(regret.static_regret, losses), problem.objective
    for wrong in (2.0, damjax.domains.frobenius_ball):
        with pytest.raises(ValueError, match="domain must be a set"):
            call(delta_net, weights, wrong, problem.stream, [3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="objective must have a method value"):
        call(damjax.objectives.delta_net, weights, ball, problem.stream, [3])  # pyright: ignore[reportArgumentType]


def test_bad_input(untyped):
    problem, weights = setting("delta_net")
    ball = damjax.domains.frobenius_ball(1.0)
    losses = jnp.zeros((NUM_STEPS, NUM_AGENTS))
    call = functools.partial(regret.static_regret, losses, problem.objective, weights, ball, problem.stream)
    with pytest.raises(ValueError, match=r"horizons must be increasing positive step counts, but they are \[3, 2\]"):
        call([3, 2])
    with pytest.raises(ValueError, match="at most the 25 steps of losses, but one is 26"):
        call([26])
    with pytest.raises(ValueError, match="horizons must be concrete"):
        jax.jit(call)(jnp.array([3]))
    with pytest.raises(ValueError, match="at most the 25 steps of associations"):
        hindsight.moments(problem.objective, problem.stream, [30])
    with pytest.raises(ValueError, match="quadratic objectives only"):
        hindsight.moments(problem.objective._replace(kind=damjax.objectives.General()), problem.stream, [3])
    with pytest.raises(ValueError, match=r"losses must have shape \(T, N\) = \(25, 3\), but it is \(25, 1\)"):
        regret.static_regret(losses[:, :1], problem.objective, weights, ball, problem.stream, [3])
    with pytest.raises(ValueError, match="time must be a 1-based step count, but it is 0"):
        regret.step_losses(problem.objective, weights, problem.params, jax.tree.map(lambda x: x[0], problem.stream), 0)
    wide = jnp.zeros((NUM_STEPS, NUM_AGENTS, 2, 3))
    with pytest.raises(ValueError, match="df = 3, but the objective maps keys of length 2"):
        regret.personalized_losses(problem.objective, weights, wide, problem.stream)
    both = hindsight.Moments(jnp.eye(2), jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.zeros(()))
    with pytest.raises(ValueError, match="both a hessian and a ridge"):
        hindsight.best(both, ball)
