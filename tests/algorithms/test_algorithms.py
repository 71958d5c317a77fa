"""Every algorithm against the message simulator, and the laws that any implementation must satisfy."""

import functools
import itertools
import warnings

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpy.typing as npt
import optax
import pytest

import damjax
from tests import reference
from tests.cases import OBJECTIVES, case, connected_graph, in_the_long_run, interests, over_objectives, trajectory

inverse_sqrt = damjax.schedules.inverse_sqrt


def numpy_rate(scale):
    return lambda count: scale / np.sqrt(count)


def dense(num_agents):
    return np.full((num_agents, num_agents), 1 / num_agents)


@over_objectives
@pytest.mark.parametrize("num_steps", [3, 40])
def test_dam_togd_equals_the_message_simulator_for_every_objective(name, num_steps):
    """40 steps, and a horizon shorter than the longest delay."""
    rng = np.random.default_rng(7)
    graph = nx.path_graph(6)
    weights = interests(rng, 6, density=0.8)
    routes = damjax.routing.compile_routes(graph, weights)
    assert routes.max_delay > 3
    problem = case(rng, name, num_agents=6, num_steps=num_steps)
    algorithm = damjax.dam_togd(
        problem.objective,
        weights,
        routes.delays,
        learning_rate=inverse_sqrt(0.4),
        domain=damjax.domains.frobenius_ball(1.5),
    )
    params, trace = trajectory(algorithm, problem.params, problem.stream)
    expected, applied = reference.dam_togd(
        problem.problem, weights, routes.trees, problem.params, rate=numpy_rate(0.4), project=reference.ball(1.5)
    )
    np.testing.assert_allclose(params, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(trace.info.num_applied, applied)


@hypothesis.given(seed=st.integers(0, 10**6))
@hypothesis.settings(max_examples=12)
def test_dam_togd_equals_the_message_simulator_on_random_networks(seed):
    rng = np.random.default_rng(seed)
    num_agents = int(rng.integers(1, 9))
    graph = connected_graph(rng, num_agents, probability=0.15)
    weights = interests(rng, num_agents, density=rng.uniform(0.1, 1), keep_self=rng.choice([0.0, 0.5, 1.0]))
    routes = damjax.routing.compile_routes(
        graph, weights, method=str(rng.choice(["steiner", "exact", "shortest_path"]))
    )
    problem = case(
        rng,
        str(rng.choice(OBJECTIVES)),
        num_agents=num_agents,
        num_steps=int(rng.integers(1, 30)),
        key_dim=int(rng.integers(1, 4)),
        value_dim=int(rng.integers(1, 5)),
    )
    radius = rng.uniform(0.3, 3)
    algorithm = damjax.dam_togd(
        problem.objective,
        weights,
        routes.delays,
        learning_rate=inverse_sqrt(0.5),
        domain=damjax.domains.frobenius_ball(radius),
    )
    start = np.stack([reference.ball(radius)(p) for p in problem.params])
    params, _ = trajectory(algorithm, start, problem.stream)
    expected, _ = reference.dam_togd(
        problem.problem, weights, routes.trees, start, rate=numpy_rate(0.5), project=reference.ball(radius)
    )
    np.testing.assert_allclose(params, expected, rtol=0, atol=1e-12)


@over_objectives
def test_ogd_equals_its_loops(name):
    rng = np.random.default_rng(1)
    weights = interests(rng, 4)
    problem = case(rng, name, num_agents=4, num_steps=30)
    algorithm = damjax.ogd(
        problem.objective, weights, learning_rate=inverse_sqrt(0.4), domain=damjax.domains.frobenius_ball(1.0)
    )
    params, trace = trajectory(algorithm, problem.params, problem.stream)
    expected = reference.ogd(
        problem.problem, weights, problem.params, rate=numpy_rate(0.4), project=reference.ball(1.0)
    )
    np.testing.assert_allclose(params, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(trace.info.num_applied, np.tile((weights > 0).sum(axis=1), (30, 1)))


@pytest.mark.parametrize("order", ["adapt_then_combine", "combine_then_adapt"])
@over_objectives
def test_c_dogd_equals_its_loops(name, order):
    rng = np.random.default_rng(2)
    mixing = damjax.graphs.metropolis_weights(connected_graph(rng, 5))
    problem = case(rng, name, num_agents=5, num_steps=30)
    algorithm = damjax.c_dogd(
        problem.objective, mixing, learning_rate=0.2, domain=damjax.domains.frobenius_ball(1.0), order=order
    )
    params, _ = trajectory(algorithm, problem.params, problem.stream)
    expected = reference.c_dogd(
        problem.problem, mixing, problem.params, rate=lambda count: 0.2, project=reference.ball(1.0), order=order
    )
    np.testing.assert_allclose(params, expected, rtol=0, atol=1e-12)


def conformance_weights(num_agents=5):
    return interests(np.random.default_rng(3), num_agents, density=1.0)


def conformance(name, num_agents=5, rate=0.3, **settings):
    """The table of algorithms that the laws below run through."""
    graph = nx.cycle_graph(num_agents)
    weights = conformance_weights(num_agents)
    delays = damjax.routing.compile_routes(graph, weights).delays
    objective = damjax.objectives.delta_net()
    fixed = {"learning_rate": inverse_sqrt(rate), "domain": damjax.domains.frobenius_ball(1.2), **settings}
    match name:
        case "ogd":
            return damjax.ogd(objective, weights, **fixed)
        case "dam_togd":
            return damjax.dam_togd(objective, weights, delays, **fixed)
    return damjax.c_dogd(objective, damjax.graphs.metropolis_weights(graph), order=name, **fixed)


ALGORITHMS = ("ogd", "adapt_then_combine", "combine_then_adapt", "dam_togd")
over_algorithms = pytest.mark.parametrize("name", ALGORITHMS)


def delta_case(num_steps=20, seed=4, dtype: npt.DTypeLike = np.float64):
    return case(np.random.default_rng(seed), "delta_net", num_agents=5, num_steps=num_steps, dtype=dtype)


@over_algorithms
@pytest.mark.parametrize("transform", [None, *in_the_long_run(optax.scale_by_adam(eps_root=1e-8))])
def test_laws(name, transform):
    """Adam with a root that has a slope where a gradient is 0, as before the first one arrives."""
    problem = delta_case(num_steps=12)
    damjax.testing.check_algorithm(conformance(name, transform=transform), problem.params, problem.stream)


@over_algorithms
def test_float32_follows_float64(name):
    wide, _ = trajectory(conformance(name), delta_case().params, delta_case().stream)
    narrow, _ = trajectory(conformance(name), *delta_case(dtype=np.float32)[3:1:-1])
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)


@over_algorithms
def test_a_second_call_does_not_compile_again(name):
    """A step fed its own output, from memories of a weak type, and a whole run with another rate."""
    chex.clear_trace_counter()
    problem = delta_case()
    algorithm = conformance(name, transform=optax.scale_by_adam())
    step = jax.jit(chex.assert_max_traces(algorithm.step, n=1))
    state = algorithm.init(jnp.full(problem.params.shape, 0.0))
    for time in range(3):
        state, _ = step(state, jax.tree.map(lambda x, t=time: x[t], problem.stream))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, stream, rate):
        return damjax.simulate(conformance(name, rate=rate), params, stream)[0].params

    first = run(jnp.asarray(problem.params), problem.stream, 0.3)
    second = run(jnp.asarray(problem.params), problem.stream, 0.1)
    assert not np.allclose(first, second)


@over_algorithms
def test_vmap_equals_stacked_runs(name):
    """Over rates, seeds and starts at once."""
    problems = [delta_case(seed=seed) for seed in range(3)]
    rates = np.array([0.1, 0.3, 0.5])
    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.stream for p in problems))
    starts = np.stack([p.params for p in problems])

    def run(rate, params, stream):
        return damjax.simulate(conformance(name, rate=rate), params, stream)[1].params

    together = jax.jit(jax.vmap(run))(rates, starts, streams)
    for row, rate, problem in zip(together, rates, problems, strict=True):
        alone, _ = trajectory(conformance(name, rate=rate), problem.params, problem.stream)
        np.testing.assert_allclose(row, alone[:-1], rtol=1e-10, atol=1e-13)


@over_algorithms
def test_a_whole_run_is_differentiable_in_its_rate(name):
    problem = delta_case(num_steps=15)

    def final_norm(rate):
        params = damjax.simulate(conformance(name, rate=rate), problem.params, problem.stream)[0].params
        return jnp.sum(params**2)

    step = 1e-6
    difference = (final_norm(0.3 + step) - final_norm(0.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final_norm)(0.3), difference, rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(final_norm)(0.3), difference, rtol=1e-5)


@over_algorithms
def test_renaming_the_agents_permutes_the_result(name):
    rng = np.random.default_rng(5)
    order = rng.permutation(5)
    graph = nx.cycle_graph(5)
    weights = interests(rng, 5, density=1.0)
    problem = delta_case()
    objective, settings = problem.objective, {"learning_rate": 0.3, "domain": damjax.domains.frobenius_ball(1.2)}
    delays = damjax.routing.compile_routes(graph, weights).delays
    mixing = damjax.graphs.metropolis_weights(graph)

    def run(permutation):
        pick = np.ix_(permutation, permutation)
        make = {
            "ogd": lambda: damjax.ogd(objective, weights[pick], **settings),
            "dam_togd": lambda: damjax.dam_togd(objective, weights[pick], delays[pick], **settings),
        }.get(name, lambda: damjax.c_dogd(objective, mixing[pick], order=name, **settings))
        stream = jax.tree.map(lambda x: x[:, permutation], problem.stream)
        return trajectory(make(), problem.params[permutation], stream)[0]

    np.testing.assert_allclose(run(order), run(np.arange(5))[:, order], rtol=1e-10, atol=1e-13)


def test_one_agent_is_plain_ogd_is_the_delta_rule():
    problem = case(np.random.default_rng(6), "delta_net", num_agents=1, num_steps=25)
    settings = {"learning_rate": 1.0, "domain": damjax.domains.unconstrained()}
    alone = np.ones((1, 1))
    dam, _ = trajectory(
        damjax.dam_togd(problem.objective, alone, np.zeros((1, 1), int), **settings), problem.params, problem.stream
    )
    ogd, _ = trajectory(damjax.ogd(problem.objective, alone, **settings), problem.params, problem.stream)
    memory, recurrence = problem.params[0], [problem.params[0]]
    for key, value in zip(problem.stream.keys[:, 0], problem.stream.values[:, 0], strict=True):
        memory = memory - np.outer(memory @ key - value, key)
        recurrence.append(memory)
    np.testing.assert_allclose(dam, ogd, rtol=1e-12)
    np.testing.assert_allclose(dam[:, 0], np.stack(recurrence), rtol=1e-10, atol=1e-12)


@over_objectives
def test_zero_delays_are_ogd(name):
    rng = np.random.default_rng(8)
    weights = interests(rng, 4)
    problem = case(rng, name, num_agents=4, num_steps=20)
    settings = {"learning_rate": inverse_sqrt(0.4), "domain": damjax.domains.frobenius_ball(1.0)}
    dam = damjax.dam_togd(problem.objective, weights, np.zeros((4, 4), int), **settings)
    ogd = damjax.ogd(problem.objective, weights, **settings)
    np.testing.assert_allclose(
        trajectory(dam, problem.params, problem.stream)[0],
        trajectory(ogd, problem.params, problem.stream)[0],
        rtol=1e-12,
        atol=1e-14,
    )


def test_interest_in_oneself_alone_decouples_the_agents():
    problem = delta_case()
    delays = damjax.routing.compile_routes(nx.cycle_graph(5), np.eye(5)).delays

    def make(num_agents):
        return damjax.dam_togd(
            problem.objective,
            np.eye(num_agents),
            delays[:num_agents, :num_agents],
            learning_rate=inverse_sqrt(0.3),
            domain=damjax.domains.frobenius_ball(1.2),
        )

    together, _ = trajectory(make(5), problem.params, problem.stream)
    for n in range(5):
        stream = jax.tree.map(lambda x, n=n: x[:, [n]], problem.stream)
        alone, _ = trajectory(make(1), problem.params[[n]], stream)
        np.testing.assert_allclose(together[:, [n]], alone, rtol=1e-12)


def test_a_larger_declared_max_delay_changes_nothing():
    problem = delta_case()
    declared, _ = trajectory(conformance("dam_togd", max_delay=19), problem.params, problem.stream)
    derived, _ = trajectory(conformance("dam_togd"), problem.params, problem.stream)
    np.testing.assert_array_equal(declared, derived)


def test_delays_without_interest_are_ignored():
    problem = delta_case()
    weights = interests(np.random.default_rng(9), 5, density=0.4)
    delays = damjax.routing.compile_routes(nx.cycle_graph(5), weights).delays
    junk = np.where(weights > 0, delays, 77)
    make = functools.partial(damjax.dam_togd, learning_rate=0.3, domain=damjax.domains.unconstrained())
    clean, _ = trajectory(make(problem.objective, weights, delays), problem.params, problem.stream)
    dirty, _ = trajectory(make(problem.objective, weights, junk), problem.params, problem.stream)
    np.testing.assert_array_equal(clean, dirty)


def test_vmap_over_delay_tables():
    problem = delta_case()
    weights = interests(np.random.default_rng(9), 5, density=1.0)
    tables = np.stack(
        [damjax.routing.compile_routes(g, weights).delays for g in (nx.path_graph(5), nx.complete_graph(5))]
    )
    settings = {"learning_rate": inverse_sqrt(0.3), "domain": damjax.domains.frobenius_ball(1.2), "max_delay": 8}

    def run(delays):
        algorithm = damjax.dam_togd(problem.objective, weights, delays, **settings)
        return damjax.simulate(algorithm, problem.params, problem.stream)[1].params

    together = jax.jit(jax.vmap(run))(tables)
    for row, delays in zip(together, tables, strict=True):
        np.testing.assert_allclose(row, run(delays), rtol=1e-10, atol=1e-13)
    assert not np.allclose(together[0], together[1])


def test_a_traced_delay_beyond_max_delay_is_nan_and_not_another_message():
    problem = delta_case()
    settings = {"learning_rate": 0.3, "domain": damjax.domains.unconstrained(), "max_delay": 2}

    def run(delays):
        algorithm = damjax.dam_togd(problem.objective, dense(5), delays, **settings)
        return damjax.simulate(algorithm, problem.params, problem.stream)[1].info.finite

    delays = np.zeros((5, 5), int)
    delays[3, 1] = 4
    finite = jax.jit(run)(delays)
    assert finite[:, [0, 1, 2, 4]].all()
    assert not finite[:, 3].any()


def test_derivatives_are_finite_from_zero_memories_while_nothing_has_arrived():
    """Zero gradients, zero memories and the edge of the ball: the places where a norm has no slope."""
    swap = np.kron(np.eye(2), [[0.0, 1.0], [1.0, 0.0]])[:4, :4]
    made = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=12)
    delays = damjax.routing.compile_routes(nx.path_graph(4), swap).delays

    def total(rate, radius):
        ball = damjax.domains.frobenius_ball(radius)
        algorithm = damjax.dam_togd(made.objective, swap, delays, learning_rate=inverse_sqrt(rate), domain=ball)
        state, trace = damjax.simulate(algorithm, 0 * made.params, made.stream)
        return jnp.sum(state.params**2) + jnp.sum(trace.info.grad_norm)

    for differentiate in (jax.grad, jax.jacfwd):
        assert np.isfinite(differentiate(total, argnums=(0, 1))(0.5, 0.3)).all()
    assert np.isfinite(jax.hessian(total)(0.5, 0.3))


@pytest.mark.parametrize(("num_agents", "key_dim"), [(35, 3), (4, 40)])
def test_large_networks_and_memories_take_the_other_formulation(num_agents, key_dim):
    """Past the limit of unrolled sums the contractions are einsums; the messages are the same."""
    rng = np.random.default_rng(0)
    graph = connected_graph(rng, num_agents, probability=0.02)
    weights = interests(rng, num_agents, density=0.2)
    routes = damjax.routing.compile_routes(graph, weights)
    problem = case(rng, "delta_net", num_agents=num_agents, num_steps=12, key_dim=key_dim)
    algorithm = damjax.dam_togd(
        problem.objective, weights, routes.delays, learning_rate=0.05, domain=damjax.domains.frobenius_ball(2.0)
    )
    start = 0 * problem.params
    params, trace = trajectory(algorithm, start, problem.stream)
    expected, applied = reference.dam_togd(
        problem.problem, weights, routes.trees, start, rate=lambda count: 0.05, project=reference.ball(2.0)
    )
    np.testing.assert_allclose(params, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(trace.info.num_applied, applied)


def test_vmap_over_seeds_correlations_and_weights():
    """The sweep of the figures, against its runs one by one."""
    delays = damjax.routing.compile_routes(nx.cycle_graph(4), dense(4)).delays

    def run(key, correlation, weights):
        stream, _ = damjax.streams.linear_model(key, num_agents=4, num_steps=9, correlation=correlation)
        algorithm = damjax.dam_togd(
            damjax.objectives.delta_net(),
            weights,
            delays,
            learning_rate=inverse_sqrt(0.3),
            domain=damjax.domains.frobenius_ball(5.0),
        )
        return damjax.simulate(algorithm, jnp.zeros((4, 5, 5)), stream)[0].params

    keys, correlations = jax.random.split(jax.random.key(0), 3), jnp.array([0.0, 0.4, 1.0])
    weights = jax.vmap(lambda key: damjax.weights.dirichlet(key, 4))(keys)
    together = jax.jit(jax.vmap(run))(keys, correlations, weights)
    for row, arguments in zip(together, zip(keys, correlations, weights, strict=True), strict=True):
        np.testing.assert_allclose(row, run(*arguments), rtol=1e-10, atol=1e-13)


def test_gradients_in_weights_and_data_are_those_of_finite_differences():
    problem, weights = delta_case(num_steps=10), conformance_weights()
    delays = damjax.routing.compile_routes(nx.cycle_graph(5), weights).delays

    def total(weights, values):
        algorithm = damjax.dam_togd(
            problem.objective,
            weights,
            delays,
            learning_rate=inverse_sqrt(0.3),
            domain=damjax.domains.frobenius_ball(1.2),
        )
        state, _ = damjax.simulate(algorithm, problem.params, problem.stream._replace(values=values))
        return jnp.sum(state.params**2)

    point = (jnp.asarray(weights), problem.stream.values)
    slopes, step = jax.jit(jax.grad(total, argnums=(0, 1)))(*point), 1e-6
    compiled = jax.jit(total)
    for which in (0, 1):
        # A weight of zero is no interest, and a first one changes the count of steps: no derivative there.
        direction = np.random.default_rng(which).normal(size=point[which].shape) * (np.asarray(point[which]) != 0)
        ends = []
        for sign in (1, -1):
            moved = list(point)
            moved[which] = moved[which] + sign * step * direction
            ends.append(compiled(*moved))
        np.testing.assert_allclose(jnp.sum(slopes[which] * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


def test_float32_without_float64_at_hand():
    """As most users run it: jax's default precision."""
    wide, _ = trajectory(conformance("dam_togd"), delta_case().params, delta_case().stream)
    jax.config.update("jax_enable_x64", False)
    narrow, _ = trajectory(conformance("dam_togd"), *delta_case(dtype=np.float32)[3:1:-1])
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)


def test_adam_starts_with_the_first_gradient():
    """Two agents that want only each other: the first move, at step 3, is that of Adam's first step, the rate."""
    problem = case(np.random.default_rng(0), "delta_net", num_agents=2, num_steps=3)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    delays = damjax.routing.compile_routes(nx.path_graph(2), swap).delays
    settings = {"learning_rate": 0.1, "domain": damjax.domains.unconstrained(), "transform": optax.scale_by_adam()}
    params, _ = trajectory(damjax.dam_togd(problem.objective, swap, delays, **settings), problem.params, problem.stream)
    np.testing.assert_array_equal(params[2], params[0])
    np.testing.assert_allclose(np.abs(params[3] - params[2]), 0.1, rtol=1e-5)


def test_info_tells_what_happened():
    problem = delta_case()
    algorithm = conformance("ogd", rate=5.0)
    params, trace = trajectory(algorithm, problem.params, problem.stream)
    norms = np.linalg.norm(params[1:], axis=(2, 3))
    np.testing.assert_array_equal(trace.info.time, np.arange(1, 21))
    assert trace.info.projected.any()
    np.testing.assert_allclose(norms[trace.info.projected], 1.2, rtol=1e-12)
    assert (norms[~trace.info.projected] <= 1.2).all()
    for n in range(5):
        expected = np.linalg.norm(
            sum(w * problem.problem.gradient(params[6, n], m, 7) for m, w in enumerate(conformance_weights()[n]))
        )
        np.testing.assert_allclose(trace.info.grad_norm[6, n], expected, rtol=1e-10)


def test_the_transform_sits_between_gradient_and_step():
    """Sign descent by hand; each agent's transformation sees its own gradient alone."""
    problem = delta_case(num_steps=6)
    sign = optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    settings = {"learning_rate": 0.1, "domain": damjax.domains.unconstrained()}
    params, _ = trajectory(
        damjax.ogd(problem.objective, np.eye(5), transform=sign, **settings), problem.params, problem.stream
    )
    expected = problem.params.copy()
    for time in range(1, 7):
        for n in range(5):
            expected[n] -= 0.1 * np.sign(problem.problem.gradient(expected[n], n, time))
        np.testing.assert_allclose(params[time], expected, rtol=1e-12)

    clip = optax.clip_by_global_norm(0.1)
    params, trace = trajectory(
        damjax.ogd(problem.objective, np.eye(5), transform=clip, **settings), problem.params, problem.stream
    )
    steps = np.linalg.norm(np.diff(params, axis=0), axis=(2, 3))
    np.testing.assert_allclose(steps, 0.1 * np.minimum(trace.info.grad_norm, 0.1), rtol=1e-10)
    assert (trace.info.grad_norm < 0.1).any()


def test_a_float_rate_is_constant_and_a_schedule_sees_counts_from_the_first_arrival():
    """Two agents a hop apart that want only each other: nothing arrives before step 3, then the count starts at 1."""
    problem = case(np.random.default_rng(0), "linear_attention", num_agents=2, num_steps=6)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    delays = damjax.routing.compile_routes(nx.path_graph(2), swap).delays
    algorithm = damjax.dam_togd(
        problem.objective, swap, delays, learning_rate=lambda count: 10.0**-count, domain=damjax.domains.unconstrained()
    )
    params, _ = trajectory(algorithm, problem.params, problem.stream)
    moves = np.diff(params, axis=0)
    np.testing.assert_array_equal(moves[:2], 0)
    for time in range(3, 7):
        for n, m in ((0, 1), (1, 0)):
            asked = -problem.problem.gradient(problem.params[n], m, time - 2)
            np.testing.assert_allclose(moves[time - 1, n], 10.0 ** -(time - 2) * asked, rtol=1e-9)


LISTED_OPTAX = "0.2.8"
OPTAX_SCHEDULES = {
    "constant_schedule": optax.constant_schedule(0.3),
    "cosine_decay_schedule": optax.cosine_decay_schedule(0.5, 30),
    "cosine_onecycle_schedule": optax.cosine_onecycle_schedule(40, 0.5),
    "exponential_decay": optax.exponential_decay(0.5, 10, 0.7, transition_begin=5, staircase=True),
    "join_schedules": optax.join_schedules([optax.constant_schedule(0.1), optax.cosine_decay_schedule(0.5, 30)], [7]),
    "linear_onecycle_schedule": optax.linear_onecycle_schedule(40, 0.5),
    "linear_schedule": optax.linear_schedule(0.5, 0.1, 20, 5),
    "piecewise_constant_schedule": optax.piecewise_constant_schedule(0.5, {5: 0.5, 20: 0.1}),
    "piecewise_interpolate_schedule": optax.piecewise_interpolate_schedule("cosine", 0.5, {5: 0.5, 20: 0.1}),
    "polynomial_schedule": optax.polynomial_schedule(0.5, 0.1, 2, 20, 5),
    "sgdr_schedule": optax.sgdr_schedule(
        [{"init_value": 0.0, "peak_value": 0.5, "decay_steps": 10, "warmup_steps": 3, "end_value": 0.1}] * 3
    ),
    "warmup_constant_schedule": optax.warmup_constant_schedule(0.0, 0.5, 10),
    "warmup_cosine_decay_schedule": optax.warmup_cosine_decay_schedule(0.0, 0.5, 10, 30),
    "warmup_exponential_decay_schedule": optax.warmup_exponential_decay_schedule(0.0, 0.5, 10, 10, 0.7),
}


def test_the_table_holds_every_schedule_of_optax():
    """Of the release that the table was made for: a later one with one more is no failure of a fresh install."""
    factories = {name for name in dir(optax) if name.endswith(("_schedule", "_schedules", "_decay"))}
    assert set(OPTAX_SCHEDULES) <= factories
    assert factories - {"scale_by_schedule"} == set(OPTAX_SCHEDULES) or optax.__version__ != LISTED_OPTAX


SOME_SCHEDULES = ("cosine_onecycle_schedule", "piecewise_constant_schedule")


@pytest.mark.parametrize(
    "name", [*SOME_SCHEDULES, *in_the_long_run(*(name for name in OPTAX_SCHEDULES if name not in SOME_SCHEDULES))]
)
def test_every_agent_has_the_rate_of_its_own_count(name):
    """Whatever a schedule does with a vector of counts: an agent's rate is its value at the agent's count alone."""
    for num_agents in (1, 2, 3):
        delays = np.diag(20 * np.arange(num_agents))
        algorithm = damjax.dam_togd(
            damjax.objectives.linear_attention(),
            np.eye(num_agents),
            delays,
            learning_rate=OPTAX_SCHEDULES[name],
            domain=damjax.domains.unconstrained(),
        )
        ones = jnp.ones((50, num_agents, 1))
        state, trace = damjax.simulate(
            algorithm, jnp.zeros((num_agents, 1, 1)), damjax.Associations(keys=ones, values=ones)
        )
        moves = np.diff(np.append(trace.params, state.params[None], axis=0), axis=0)[:, :, 0, 0]
        for n in range(num_agents):
            with jax.numpy_dtype_promotion("standard"):
                expected = [np.asarray(OPTAX_SCHEDULES[name](float(count))) for count in range(1, 51 - 20 * n)]
            np.testing.assert_array_equal(moves[: 20 * n, n], 0)
            np.testing.assert_allclose(moves[20 * n :, n], expected, rtol=1e-6, atol=1e-9)


def test_rates_of_every_agent():
    """Constants of each, in a schedule, and what has another length; an array of N might be one of T = N steps."""
    make = functools.partial(
        damjax.ogd, damjax.objectives.linear_attention(), np.eye(2), domain=damjax.domains.unconstrained()
    )
    ones = jnp.ones((3, 2, 1))
    stream, scales = damjax.Associations(keys=ones, values=ones), np.array([0.1, 0.3])
    for rate, expected in (
        (lambda count: scales, 3 * scales),
        (lambda count: jnp.asarray(scales)[count.astype(int) - 1], [0.7, 0.7]),  # the last of a table goes on
        (inverse_sqrt(scales), scales * np.sum(1 / np.sqrt([1, 2, 3]))),
        (damjax.schedules.power(0.1, np.array([0.0, 1.0])), [0.3, 0.1 * (1 + 1 / 2 + 1 / 3)]),
        (lambda count: 0.5, [1.5, 1.5]),
    ):
        state, _ = damjax.simulate(make(learning_rate=rate), jnp.zeros((2, 1, 1)), stream)
        np.testing.assert_allclose(state.params[:, 0, 0], expected)
    with pytest.raises(ValueError, match=r"learning_rate must give one number, or one per agent \(2,\)"):
        make(learning_rate=inverse_sqrt(np.ones(5)))
    for wrong in (scales, jnp.asarray(scales), np.ones(3), np.ones((2, 1))):
        with pytest.raises(ValueError, match=r"learning_rate must be one number or a function of the count"):
            make(learning_rate=wrong)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_counts_are_exact_in_half_precision(dtype):
    """A rate that is 0 up to step 256, and after it 1, in precisions where 257 rounds to 256 or 2049 to 2048."""
    last = 256 if dtype == jnp.bfloat16 else 2048
    algorithm = damjax.ogd(
        damjax.objectives.linear_attention(),
        np.eye(1),
        learning_rate=lambda count: jnp.where(count == last + 1, 1.0, 0.0),
        domain=damjax.domains.unconstrained(),
    )
    ones = jnp.ones((last + 2, 1, 1), dtype)
    state, trace = damjax.simulate(algorithm, jnp.zeros((1, 1, 1), dtype), damjax.Associations(keys=ones, values=ones))
    assert state.params.dtype == dtype
    assert trace.params[last, 0, 0, 0] == 0
    assert trace.params[last + 1, 0, 0, 0] == 1
    assert state.params[0, 0, 0] == 1


def test_delays_that_are_no_integers_are_refused_when_traced_too(untyped):
    def run(delays):
        return damjax.dam_togd(
            damjax.objectives.linear_attention(),
            np.eye(2),
            delays,
            learning_rate=0.1,
            domain=damjax.domains.unconstrained(),
            max_delay=2,
        )

    def of(delays):
        run(delays)
        return jnp.sum(delays)

    for call, shape in ((jax.jit(of), (2, 2)), (jax.grad(of), (2, 2)), (jax.vmap(of), (1, 2, 2)), (of, (2, 2))):
        with pytest.raises(ValueError, match=r"delays must be integers .* damjax\.bounds to differentiate"):
            call(jnp.zeros(shape))
    with pytest.raises(ValueError, match="delays must be integers"):
        jax.jit(lambda delays: damjax.bounds.applied_rates(0.1, np.eye(2), delays, 5))(jnp.zeros((2, 2)))
    for wrong in (6.5, -1, "2"):
        with pytest.raises(ValueError, match="max_delay must be a non-negative integer"):
            damjax.dam_togd(
                damjax.objectives.linear_attention(),
                np.eye(2),
                np.zeros((2, 2), int),
                learning_rate=0.1,
                domain=damjax.domains.unconstrained(),
                max_delay=wrong,  # pyright: ignore[reportArgumentType]
            )


@pytest.mark.parametrize(
    ("name", "spoiled", "sparse"),
    [
        *itertools.product(["linear_attention", "delta_net"], ["keys", "values"], [False]),
        *itertools.product(["gated_linear_attention"], ["values", "gates"], [False, True]),
        ("delta_net", "keys", True),
    ],
)
def test_a_nan_goes_to_those_who_want_it_and_to_no_one_else(name, spoiled, sparse):
    """Agent 1 sends a NaN; agent 0 does not want agent 1, agents 1 and 2 do. Sums are over W_n."""
    problem = case(np.random.default_rng(0), name, num_agents=3, num_steps=8)
    weights = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    wanted = damjax.weights.sparse(weights) if sparse else weights
    delays = 2 * (weights > 0) * (1 - np.eye(3, dtype=int))
    if sparse:
        delays = np.take_along_axis(delays, np.asarray(damjax.weights.sparse(weights).agents), axis=1)
    field = np.array(getattr(problem.stream, spoiled))
    field[2, 1] = np.nan
    stream = problem.stream._replace(**{spoiled: jnp.asarray(field)})
    settings = {"learning_rate": 0.1, "domain": damjax.domains.frobenius_ball(3.0)}
    for algorithm in (
        damjax.ogd(problem.objective, wanted, **settings),
        damjax.dam_togd(problem.objective, wanted, delays, **settings),
    ):
        runs = {}
        for kind, seen in (("sound", problem.stream), ("spoiled", stream)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                _, trace = damjax.simulate(algorithm, problem.params, seen)
            losses = damjax.regret.personalized_losses(problem.objective, wanted, trace.params, seen)
            runs[kind] = trace, losses
        (sound, sound_losses), (trace, losses) = runs["sound"], runs["spoiled"]
        np.testing.assert_allclose(trace.params[:, 0], sound.params[:, 0])
        np.testing.assert_allclose(losses[:, 0], sound_losses[:, 0])
        assert not np.isfinite(trace.params[-1, 1]).any()
        assert not np.isfinite(trace.params[-1, 2]).any()
        assert not trace.info.finite[-1, 1:].any()


def test_a_nan_spreads_along_links_only():
    """On a path, a neighbour a step: agent 3, three hops away, has it three steps later and not at once."""
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=8)
    mixing = damjax.graphs.metropolis_weights(damjax.graphs.path(4))
    keys = np.array(problem.stream.keys)
    keys[1, 0] = np.nan
    # In the order that averages last, neighbours have it in the same step.
    for order, expected in (("adapt_then_combine", [1, 1, 2, 3]), ("combine_then_adapt", [1, 2, 3, 4])):
        algorithm = damjax.c_dogd(
            problem.objective, mixing, learning_rate=0.1, domain=damjax.domains.unconstrained(), order=order
        )
        with pytest.warns(RuntimeWarning, match="ended as NaN"):
            _, trace = damjax.simulate(algorithm, problem.params, problem.stream._replace(keys=jnp.asarray(keys)))
        assert [int(np.argmin(trace.info.finite[:, n])) for n in range(4)] == expected


@pytest.mark.parametrize("name", ["ogd", "c_dogd", "dam_togd"])
def test_transformations_that_climb_are_refused(name, untyped):
    """Optimisers of optax bring a negative rate, and what a transformation returns is subtracted."""
    problem = case(np.random.default_rng(0), "delta_net", num_agents=2, num_steps=3)
    weights, delays = np.full((2, 2), 0.5), np.zeros((2, 2), int)
    make = {
        "ogd": functools.partial(damjax.ogd, problem.objective, weights),
        "c_dogd": functools.partial(damjax.c_dogd, problem.objective, weights),
        "dam_togd": functools.partial(damjax.dam_togd, problem.objective, weights, delays),
    }[name]
    make = functools.partial(make, learning_rate=0.1, domain=damjax.domains.unconstrained())
    for wrong in (optax.sgd(0.1), optax.adam(0.1), optax.chain(optax.clip(1.0), optax.scale(-1.0))):
        climbing = make(transform=wrong)
        with pytest.raises(ValueError, match="transform must return what is to be subtracted"):
            climbing.init(problem.params)
        with pytest.raises(ValueError, match="points uphill"):
            jax.jit(jax.vmap(climbing.init))(problem.params[None])
    for right in (optax.scale_by_adam(), optax.trace(0.9), optax.clip_by_global_norm(1.0), optax.set_to_zero(), None):
        assert make(transform=right).init(problem.params).step == 0

    def initialise(rate):  # nothing can be said of a traced one
        return make(transform=optax.scale(rate)).init(problem.params).params

    assert jax.jit(initialise)(-1.0).shape == problem.params.shape
    for wrong in ("adam", 0, optax.adam):
        with pytest.raises(ValueError, match="transform must be of type GradientTransformation"):
            make(transform=wrong)  # pyright: ignore[reportArgumentType]
