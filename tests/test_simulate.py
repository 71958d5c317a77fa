"""The driver: observers, functions as streams, warnings, and bad input of every kind to every factory."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from tests.cases import case

delta_net = damjax.objectives.delta_net()
ball = damjax.domains.frobenius_ball(2.0)


def problem():
    return case(np.random.default_rng(0), "delta_net", num_agents=3, num_steps=10)


def ogd(**settings):
    return damjax.ogd(delta_net, np.full((3, 3), 1 / 3), **{"learning_rate": 0.2, "domain": ball, **settings})


def test_the_trace_holds_the_memories_before_each_step():
    made = problem()
    state, trace = damjax.simulate(ogd(), made.params, made.stream)
    np.testing.assert_array_equal(trace.params[0], made.params)
    again = ogd().init(made.params)
    for t in range(10):
        np.testing.assert_allclose(trace.params[t], again.params, rtol=1e-12)
        again, _ = ogd().step(again, jax.tree.map(lambda x, t=t: x[t], made.stream))
    np.testing.assert_allclose(state.params, again.params, rtol=1e-12)
    assert int(state.step) == 10


def test_an_observer_sees_memory_associations_and_info():
    made = problem()

    def observe(params, associations, info):
        return {"time": info.time, "error": associations.values - jnp.einsum("nij,nj->ni", params, associations.keys)}

    _, seen = damjax.simulate(ogd(), made.params, made.stream, observe=observe)
    np.testing.assert_array_equal(seen["time"], np.arange(1, 11))
    first = made.stream.values[0] - np.einsum("nij,nj->ni", made.params, made.stream.keys[0])
    np.testing.assert_allclose(seen["error"][0], first, rtol=1e-12)


def test_a_function_of_the_time_is_the_stream_it_makes():
    made = problem()

    def at(time):
        return jax.tree.map(lambda field: field[time - 1], made.stream)

    whole, trace = damjax.simulate(ogd(), made.params, made.stream)
    streamed, same = damjax.simulate(ogd(), made.params, at, num_steps=10)
    np.testing.assert_allclose(same.params, trace.params, rtol=1e-12)
    half, _ = damjax.simulate(ogd(), made.params, at, num_steps=6)
    resumed, _ = damjax.resume(ogd(), half, at, num_steps=4)
    np.testing.assert_allclose(resumed.params, whole.params, rtol=1e-12)
    np.testing.assert_allclose(streamed.params, whole.params, rtol=1e-12)


@pytest.mark.parametrize("settings", [{"unroll": 4}, {"unroll": 100}, {"unroll": 3, "checkpoint_every": 7}])
def test_unrolled_steps_are_the_same_steps(settings):
    made = case(np.random.default_rng(0), "delta_net", num_agents=3, num_steps=23)
    delays = np.array([[0, 2, 4], [6, 0, 2], [2, 8, 0]])
    algorithm = damjax.dam_togd(delta_net, np.full((3, 3), 1 / 3), delays, learning_rate=0.2, domain=ball)
    whole, found = (damjax.simulate(algorithm, made.params, made.stream, **kind) for kind in ({}, settings))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), found, whole)
    halves = damjax.resume(algorithm, algorithm.init(made.params), made.stream, **settings)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), halves, whole)


def test_divergence_is_reported_and_dated():
    made = case(np.random.default_rng(0), "delta_net", num_agents=3, num_steps=500)
    diverging = ogd(learning_rate=50.0, domain=damjax.domains.unconstrained())
    with pytest.warns(RuntimeWarning, match=r"agents \[0, 1, 2\] ended as NaN or infinity.*info\.finite"):
        _, trace = damjax.simulate(diverging, made.params, made.stream)
    assert trace.info.finite[0].all()
    assert not trace.info.finite[-1].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        damjax.simulate(ogd(), made.params, made.stream)


def test_a_bad_run_does_not_spoil_its_neighbours():
    made = problem()

    def run(rate):
        algorithm = ogd(learning_rate=rate, domain=damjax.domains.unconstrained())
        return damjax.simulate(algorithm, made.params, made.stream)[1].info.finite

    finite = jax.vmap(run)(jnp.array([0.1, np.nan, 0.2]))
    assert finite[0].all()
    assert not finite[1].any()
    assert finite[2].all()


def test_bad_streams(untyped):
    made = problem()
    with pytest.raises(ValueError, match="num_steps must be given when associations is a function"):
        damjax.simulate(ogd(), made.params, lambda time: made.stream)
    with pytest.raises(ValueError, match=r"same leading T, but they have .*'keys': 10, 'values': 9"):
        damjax.simulate(ogd(), made.params, damjax.Associations(made.stream.keys, made.stream.values[:9]))
    with pytest.raises(ValueError, match="associations must be of type Associations, but it is"):
        damjax.simulate(ogd(), made.params, tuple(made.stream))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_steps must be a positive integer, but it is -1"):
        damjax.simulate(ogd(), made.params, lambda time: made.stream, num_steps=-1)
    with pytest.raises(ValueError, match="unroll must be a positive integer, but it is 0"):
        damjax.simulate(ogd(), made.params, made.stream, unroll=0)
    with pytest.raises(ValueError, match="num_steps is 7"):
        damjax.simulate(ogd(), made.params, made.stream, num_steps=7)


thirds = np.full((3, 3), 1 / 3)


def dam(delays, weights=thirds, **settings):
    return damjax.dam_togd(delta_net, weights, delays, learning_rate=0.1, domain=ball, **settings)


def table(**entries):
    delays = np.zeros((3, 3), int)
    for place, value in entries.items():
        delays[int(place[1]), int(place[2])] = value
    return delays


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: damjax.ogd(delta_net, np.eye(3)[:2], learning_rate=0.1, domain=ball),
            "weights must have shape (N, N)",
        ),
        (lambda: damjax.ogd(delta_net, 2 * np.eye(3), learning_rate=0.1, domain=ball), "row of agent 0 sums to 2"),
        (lambda: damjax.c_dogd(delta_net, np.eye(3)[:2], learning_rate=0.1, domain=ball), "mixing must have shape"),
        (
            lambda: damjax.c_dogd(delta_net, np.eye(3)[[0, 0, 1]], learning_rate=0.1, domain=ball),
            "mixing must be doubly stochastic, but column 0 sums to 2; damjax.graphs.metropolis_weights",
        ),
        (
            lambda: damjax.c_dogd(delta_net, np.eye(3), learning_rate=0.1, domain=ball, order="sideways"),
            "order must be one of adapt_then_combine, combine_then_adapt, but it is 'sideways'",
        ),
        (lambda: dam(table(_01=-2)), "delays must be non-negative but delays[0, 1] is -2"),
        (lambda: dam(table(_12=3)), "delays must be even, since a round trip is twice the hops, but delays[1, 2] is 3"),
        (lambda: dam(table(_12=4), max_delay=2), "max_delay must be at least the longest delay, 4, but it is 2"),
        (lambda: dam(np.zeros((3, 3))), "delays must be integers (time steps), but their dtype is float64"),
        (lambda: dam(np.zeros((2, 2), int)), "delays must have shape (3, 3)"),
        (lambda: jax.jit(lambda d: dam(d).init(jnp.zeros((3, 1, 1))))(table()), "max_delay must be given when delays"),
        (lambda: ogd(domain=None), "domain must be of type Domain, but it is None; call a factory of damjax.domains"),
        (
            lambda: damjax.ogd(damjax.objectives.delta_net, thirds, learning_rate=0.1, domain=ball),  # type: ignore[arg-type]
            "call a factory of damjax.objectives, such as delta_net()",
        ),
        (lambda: ogd(learning_rate="fast"), "learning_rate must be a real number, but it is 'fast'"),
        (lambda: ogd(learning_rate=-0.1), "learning_rate must be finite and non-negative, but it is -0.1"),
        (lambda: ogd(learning_rate=float("nan")), "learning_rate must be finite and non-negative, but it is nan"),
        (lambda: ogd().init(np.zeros((4, 2, 3))), "params must hold one memory per agent, shape (3, dv, df)"),
        (lambda: ogd().init(np.zeros((3, 2))), "but its shape is (3, 2)"),
        (lambda: ogd().init(np.zeros((3, 2, 3), int)), "params must be floating-point, but their dtype is int"),
    ],
)
def test_bad_factories(untyped, make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("factory", ["ogd", "c_dogd", "dam_togd"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"keys": np.zeros((10, 4, 3))},
            "associations.keys must have shape (3, dk) at each step, but",
        ),
        (
            {"values": np.zeros((10, 3, 5))},
            "associations.values must have shape (3, 2) to fit params",
        ),
        (
            {"keys": np.zeros((10, 3, 4))},
            "df = 3, but the objective maps keys of length 4 to 4 features",
        ),
        ({"values": np.zeros((10, 3, 2), np.float32)}, "must have the dtype of params, float64, but it is float32"),
    ],
)
def test_bad_associations(untyped, factory, change, message):
    made = problem()
    algorithm = {
        "ogd": ogd,
        "c_dogd": lambda: damjax.c_dogd(delta_net, thirds, learning_rate=0.1, domain=ball),
        "dam_togd": lambda: dam(table()),
    }[factory]()
    with pytest.raises(ValueError, match=re.escape(message)):
        damjax.simulate(algorithm, made.params, made.stream._replace(**change))


def test_a_state_of_other_queues_is_refused():
    made = problem()
    state, _ = damjax.simulate(dam(table(_12=2)), made.params, made.stream)
    with pytest.raises(ValueError, match=r"queues have length 3, but max_delay \+ 1 is 9"):
        damjax.resume(dam(table(_12=8)), state, made.stream)


def test_a_gated_objective_asks_for_gates():
    made = problem()
    gated = damjax.ogd(damjax.objectives.gated_linear_attention(), thirds, learning_rate=0.1, domain=ball)
    with pytest.raises(ValueError, match="needs gates in its associations, but gates is None"):
        damjax.simulate(gated, made.params, made.stream)
    for shape in ((10, 3, 2), (10, 3, 3, 3), (10, 2)):
        with pytest.raises(ValueError, match=r"gates must have shape \(3,\), or \(3, rows, columns\) with rows 1 or 2"):
            damjax.simulate(gated, made.params, made.stream._replace(gates=np.ones(shape)))
