"""Channels against messages one by one; rings and bins, matrices and pytrees against each other."""

import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import channels
from damjax.algorithms import descend
from tests import reference
from tests.cases import OBJECTIVES, case, in_the_long_run, objective, over

RADIUS = 1.5
RATE = damjax.schedules.inverse_sqrt(0.4)
BALL = damjax.domains.frobenius_ball(RADIUS)
seeds = st.integers(0, 10**6)


def draw(seed, num_agents=4, max_delay=5):
    """Weights with gaps, and a table of round trips, odd ones too."""
    rng = np.random.default_rng(seed)
    wanted = (rng.random((num_agents, num_agents)) < 0.7) | np.eye(num_agents, dtype=bool)[::-1]
    weights = np.where(wanted, rng.random((num_agents, num_agents)), 0)
    return weights / weights.sum(axis=1, keepdims=True), rng.integers(0, max_delay + 1, (num_agents, num_agents))


def run(channel, problem, **settings):
    algorithm = descend(channel, learning_rate=RATE, domain=BALL)
    return damjax.simulate(algorithm, problem.params, problem.stream, **settings)


def expected(problem, weights, round_trips, **settings):
    return reference.delayed(
        problem.problem,
        weights,
        round_trips,
        problem.params,
        rate=lambda t: 0.4 / t**0.5,
        project=reference.ball(RADIUS),
        **settings,
    )


def assert_follows(trace, state, messages):
    np.testing.assert_allclose(trace.params, messages.params[:-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.params, messages.params[-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(trace.info.num_applied, messages.numbers)
    np.testing.assert_array_equal(trace.info.max_age, messages.oldest)
    np.testing.assert_allclose(trace.info.mean_age, messages.mean_age, rtol=1e-12)
    np.testing.assert_array_equal(trace.info.num_lost, messages.lost)


@over(OBJECTIVES)
@hypothesis.given(seed=seeds)
@hypothesis.settings(max_examples=3)
def test_any_table_of_delays_is_that_of_its_messages(name, seed):
    """Odd round trips too, for gradients of rank one and others."""
    weights, delays = draw(seed)
    problem = case(np.random.default_rng(seed), name, num_agents=4, num_steps=14)
    state, trace = run(channels.connect(problem.objective, weights, delays), problem)
    assert_follows(trace, state, expected(problem, weights, lambda time: delays))
    assert not np.any(trace.info.num_lost)


@pytest.mark.parametrize("name", ["delta_net", "gated_linear_attention"])
@hypothesis.given(seed=seeds)
@hypothesis.settings(max_examples=5)
def test_delays_that_change_overtake_and_never_end(name, seed):
    weights, _ = draw(seed)
    problem = case(np.random.default_rng(seed), name, num_agents=4, num_steps=14)
    table = np.random.default_rng(seed + 1).integers(-2, 8, (14, 4, 4))
    longest = 5
    channel = channels.connect(problem.objective, weights, lambda time: jnp.asarray(table)[time - 1], max_delay=longest)
    state, trace = run(channel, problem)
    assert_follows(trace, state, expected(problem, weights, lambda time: table[time - 1], max_delay=longest))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_are_rings(sparse, dtype):
    """One law for both: equal on static tables, in what they bring and in what they say of it."""
    weights, delays = draw(3)
    problem = case(np.random.default_rng(3), "delta_net", num_agents=4, num_steps=20, dtype=dtype)
    if sparse:
        weights = damjax.weights.sparse(weights)
        delays = np.take_along_axis(delays, np.asarray(weights.agents), axis=1)
    both = [make(problem.objective, weights, delays) for make in (channels.residual_rings, channels.arrival_bins)]
    (rings, of_rings), (bins, of_bins) = (run(channel, problem) for channel in both)
    rtol, atol = (1e-10, 1e-12) if dtype == np.float64 else (1e-5, 1e-5)
    assert rings.params.dtype == bins.params.dtype == dtype
    np.testing.assert_allclose(of_bins.params, of_rings.params, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(bins.clock, rings.clock)
    for field in ("num_applied", "max_age", "mean_age", "num_lost", "projected", "finite"):
        np.testing.assert_array_equal(getattr(of_bins.info, field), getattr(of_rings.info, field))


def affine(params, key):
    return params["matrix"] @ key + params["offset"]


def squared(prediction, value, time):
    return 0.5 * jnp.sum((prediction - value) ** 2)


def test_a_memory_in_a_tree_is_the_memory_as_a_matrix():
    """The affine memory is the linear one of cues with a one behind; both go by bins, and one by rings."""
    weights, delays = draw(5)
    problem = case(np.random.default_rng(5), "delta_net", num_agents=4, num_steps=20)
    keys, values, *_ = problem.stream
    lifted = damjax.Associations(np.concatenate([keys, np.ones((*keys.shape[:2], 1))], axis=2), values)
    matrix = np.random.default_rng(6).normal(size=(4, values.shape[2], keys.shape[2] + 1))
    tree = {"matrix": jnp.asarray(matrix[..., :-1]), "offset": jnp.asarray(matrix[..., -1])}
    of_memory = damjax.objectives.of_memory(affine, squared)
    traces = []
    for of_loss, params, stream in ((problem.objective, matrix, lifted), (of_memory, tree, problem.stream)):
        for make in (
            functools.partial(damjax.dam_togd, delays=delays),
            functools.partial(damjax.dam_togd, delays=lambda time: jnp.asarray(delays), max_delay=5),
            damjax.ogd,
        ):
            algorithm = make(of_loss, weights, learning_rate=RATE, domain=BALL)
            _, trace = damjax.simulate(algorithm, params, stream)
            losses = damjax.regret.personalized_losses(of_loss, weights, trace.params, stream)
            last = [jax.tree.map(lambda x: x[-1], part) for part in (trace.params, stream, trace.info)]
            norms = damjax.bounds.observe_gradient_norms(of_loss, weights)(*last)
            traces.append((trace, losses, norms.messages))
    for (linear, *of_linear), (general, *of_general) in zip(traces[:3], traces[3:], strict=True):
        joined = jnp.concatenate([general.params["matrix"], general.params["offset"][..., None]], axis=-1)
        np.testing.assert_allclose(joined, linear.params, rtol=1e-10, atol=1e-12)
        for one, other in zip(of_linear, of_general, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)
        for field in set(linear.info._fields) - {"reweighting_variance"}:
            np.testing.assert_allclose(getattr(general.info, field), getattr(linear.info, field), rtol=1e-10)
    np.testing.assert_allclose(traces[0][0].params, traces[1][0].params, rtol=1e-10, atol=1e-12)


def test_consensus_of_trees():
    """Mixed leaf by leaf, in both orders."""
    problem = case(np.random.default_rng(5), "delta_net", num_agents=4, num_steps=8)
    mixing = damjax.graphs.metropolis_weights(damjax.graphs.ring(4))
    of_memory = damjax.objectives.of_memory(lambda params, key: params["matrix"] @ key, squared)
    for order in ("adapt_then_combine", "combine_then_adapt"):
        settings = {"learning_rate": RATE, "domain": BALL, "order": order}
        linear = damjax.c_dogd(problem.objective, mixing, **settings)
        general = damjax.c_dogd(of_memory, mixing, **settings)
        state, _ = damjax.simulate(linear, problem.params, problem.stream)
        same, _ = damjax.simulate(general, {"matrix": problem.params}, problem.stream)
        np.testing.assert_allclose(same.params["matrix"], state.params, rtol=1e-10, atol=1e-12)


wrong: Any = None
ignorant: Any = lambda: np.zeros((2, 2), int)  # noqa: E731


def two_layers(params, key):
    return params["out"] @ jnp.tanh(params["hidden"] @ key)


@pytest.mark.parametrize("mapping", [damjax.vmap_last, *in_the_long_run(jax.vmap)])
def test_runs_of_any_memory_map_resume_and_differentiate(mapping):
    weights, delays = draw(8)
    problem = case(np.random.default_rng(8), "delta_net", num_agents=4, num_steps=10)
    value_dim, key_dim = problem.stream.values.shape[2], problem.stream.keys.shape[2]
    rng = np.random.default_rng(9)
    start = {"out": rng.normal(size=(4, value_dim, 3)), "hidden": rng.normal(size=(4, 3, key_dim))}
    of_memory = damjax.objectives.of_memory(two_layers, squared)

    def final(rate, delays):
        algorithm = damjax.dam_togd(of_memory, weights, delays, learning_rate=rate, domain=BALL, max_delay=5)
        half, _ = damjax.simulate(algorithm, start, jax.tree.map(lambda x: x[:4], problem.stream))
        return damjax.resume(algorithm, half, jax.tree.map(lambda x: x[4:], problem.stream))[0].params

    rates, tables = jnp.array([0.1, 0.3]), jnp.stack([delays, delays[::-1]])
    together = jax.jit(mapping(final))(rates, tables)
    for i in range(2):
        alone = final(rates[i], tables[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-9, atol=1e-12), together, alone)

    def loss(rate):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(final(rate, delays)))

    step = 1e-6
    slope = (loss(0.2 + step) - loss(0.2 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(0.2), slope, rtol=1e-5)


@pytest.mark.parametrize("name", ["delta_net", "gated_linear_attention"])
def test_the_clock_starts_with_the_first_arrival(name):
    """Whatever the delays: an agent that hears nothing for three steps makes its first step with the first rate."""
    problem = case(np.random.default_rng(1), name, num_agents=4, num_steps=7)
    weights = np.roll(np.eye(4), 1, axis=1)
    delays = np.where(weights > 0, np.arange(4)[:, None], 0)
    state, trace = run(channels.connect(problem.objective, weights, delays), problem)
    assert state.clock.tolist() == [7, 6, 5, 4]
    assert trace.info.max_age[:5].T.tolist() == [[0] * 5, [-1, 1, 1, 1, 1], [-1, -1, 2, 2, 2], [-1, -1, -1, 3, 3]]


def test_a_nan_of_weight_zero_spoils_no_bin():
    problem = case(np.random.default_rng(2), "gated_linear_attention", num_agents=3, num_steps=6)
    weights = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    values = np.array(problem.stream.values)
    values[2, 1] = np.nan
    algorithm = damjax.dam_togd(problem.objective, weights, np.full((3, 3), 1), learning_rate=RATE, domain=BALL)
    with pytest.warns(RuntimeWarning, match="ended as NaN"):
        _, trace = damjax.simulate(algorithm, problem.params, problem.stream._replace(values=values))
    assert trace.info.finite.all(axis=0).tolist() == [True, False, True]


def test_a_clock_of_each_run_keeps_the_border():
    """Mapped over resumed states, the branch behind which products are stored is still one, and no select."""
    weights, delays = draw(4)
    problem = case(np.random.default_rng(4), "delta_net", num_agents=4, num_steps=6)
    algorithm = damjax.dam_togd(problem.objective, weights, delays, learning_rate=RATE, domain=BALL)
    state, _ = damjax.simulate(algorithm, problem.params, problem.stream)
    now = jax.tree.map(lambda x: x[0], problem.stream)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    for mapping in (jax.vmap, damjax.vmap_last):
        mapped = mapping(algorithm.step, in_axes=(0, None))
        assert str(jax.make_jaxpr(mapped)(states, now)).count("cond[") == 2
        after, _ = jax.jit(mapped)(states, now)
        alone, _ = jax.jit(algorithm.step)(state, now)
        np.testing.assert_allclose(after.params[1], alone.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda o, w, d: channels.arrival_bins(o, w, lambda time: d),
            "max_delay must be given when delays is a function",
        ),
        (
            lambda o, w, d: channels.arrival_bins(o, w, lambda time: d[:1], max_delay=3),
            r"delays must have shape \(2, 2\)",
        ),
        (lambda o, w, d: channels.arrival_bins(o, w, lambda time: 1.0 * d, max_delay=3), "delays must be integers"),
        (lambda o, w, d: channels.arrival_bins(o, w, ignorant, max_delay=3), r"delays must be a function of \(time\)"),
        (
            lambda o, w, d: channels.residual_rings(objective("normalized_softmax_attention", 2), w, d),
            "use arrival_bins",
        ),
        (lambda o, w, d: channels.connect(wrong, w, d), "objective must"),
        (lambda o, w, d: channels.connect(o, w, d - 1), r"delays must be non-negative but delays\[0, 0\] is -1"),
        (
            lambda o, w, d: channels.full_information(o, w).init({"a": jnp.zeros(2)}),
            "params must hold one memory per agent",
        ),
        (
            lambda o, w, d: channels.arrival_bins(damjax.objectives.of_memory(affine, squared), w, d).init(
                jnp.zeros(3)
            ),
            "every leaf with a leading 2",
        ),
    ],
)
def test_wrong_calls(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call(objective("delta_net", 2), np.full((2, 2), 0.5), np.zeros((2, 2), int))


def test_a_delay_that_is_too_long_for_its_bits_is_lost():
    """In 32 bits 2^32 + 1 would be 1, and arrive."""
    late = np.array([[0, 2**32 + 1], [0, 0]])
    weights, objective = jnp.array([[0.5, 0.5], [0.0, 1.0]]), damjax.objectives.delta_net()
    params, seen = jnp.zeros((2, 1, 1)), damjax.Associations(jnp.ones((2, 1)), jnp.ones((2, 1)))
    channel = damjax.channels.arrival_bins(objective, weights, lambda time: late, max_delay=3)
    _, _, arrivals = channel.exchange(channel.init(params), jnp.asarray(1), params, seen)
    assert arrivals.lost.tolist() == [1, 0]

    def first_gradient(delays):
        channel = damjax.channels.residual_rings(objective, weights, delays, max_delay=3)
        return channel.exchange(channel.init(params), jnp.asarray(1), params, seen)[1]

    assert bool(jnp.isnan(jax.jit(first_gradient)(jnp.asarray(late))[0, 0, 0]))
