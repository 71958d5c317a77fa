"""The driver: observers, functions as streams, warnings, and bad input of every kind to every factory."""

import functools
import re
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from tests.cases import case, in_the_long_run

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
    again, step = ogd().init(made.params), jax.jit(ogd().step)
    for t in range(10):
        np.testing.assert_allclose(trace.params[t], again.params, rtol=1e-12)
        again, _ = step(again, jax.tree.map(lambda x, t=t: x[t], made.stream))
    np.testing.assert_allclose(state.params, again.params, rtol=1e-12)
    assert int(state.step) == 10


def test_an_observer_sees_memory_associations_and_info():
    made = problem()

    def observe(params, associations, info):
        return {"time": info.time, "error": associations.values - jnp.einsum("nij,nj->ni", params, associations.keys)}

    _, trace = damjax.simulate(ogd(), made.params, made.stream, observe=observe)
    np.testing.assert_array_equal(trace["time"], np.arange(1, 11))
    first = made.stream.values[0] - np.einsum("nij,nj->ni", made.params, made.stream.keys[0])
    np.testing.assert_allclose(trace["error"][0], first, rtol=1e-12)


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


@pytest.mark.parametrize(
    "settings", [{"unroll": 3, "checkpoint_every": 7}, *in_the_long_run({"unroll": 4}, {"unroll": 100})]
)
def test_unrolled_steps_are_the_same_steps(settings):
    made = case(np.random.default_rng(0), "delta_net", num_agents=3, num_steps=23)
    delays = np.array([[0, 2, 4], [6, 0, 2], [2, 8, 0]])
    algorithm = damjax.dam_togd(delta_net, np.full((3, 3), 1 / 3), delays, learning_rate=0.2, domain=ball)
    whole, same = (damjax.simulate(algorithm, made.params, made.stream, **kind) for kind in ({}, settings))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), same, whole)
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


class AffineState(NamedTuple):
    step: jax.Array
    params: dict[str, jax.Array]


def affine(learning_rate):
    """Memories A_n k + b_n of two leaves, each agent learning its own by the squared error: an algorithm of a user."""

    def init(params):
        return AffineState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, params))

    def step(state, associations):
        keys, values = jnp.asarray(associations.keys), jnp.asarray(associations.values)
        matrix, offset = state.params["matrix"], state.params["offset"]
        residuals = jnp.einsum("nij,nj->ni", matrix, keys) + offset - values
        gradient = {"matrix": residuals[:, :, None] * keys[:, None, :], "offset": residuals}
        rate = jnp.asarray(learning_rate, values.dtype)
        after = jax.tree.map(lambda x, slope: x - rate * slope, state.params, gradient)
        finite = jnp.isfinite(after["matrix"]).all(axis=(1, 2)) & jnp.isfinite(after["offset"]).all(axis=1)
        time, norms = state.step + 1, jnp.sqrt(jnp.sum(residuals**2, axis=1))
        nobody = jnp.zeros(len(norms), bool)
        info = damjax.Info(time, norms, 1 + nobody.astype(jnp.int32), nobody, finite)
        return AffineState(time, after), info

    return damjax.Algorithm(init, step)


def affine_case(dtype=float):
    """Memories and a stream of 23 steps, of 3 agents."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    params = {"matrix": normal(3, 2, 4), "offset": normal(3, 2)}
    return params, damjax.Associations(normal(23, 3, 4), normal(23, 3, 2))


def affine_by_hand(params, stream, learning_rate):
    """The memories before every step and after the last, as lists, in plain NumPy."""
    matrix, offset = params["matrix"].astype(float), params["offset"].astype(float)
    matrices, offsets = [matrix], [offset]
    for keys, values in zip(stream.keys, stream.values, strict=True):
        residuals = np.einsum("nij,nj->ni", matrix, keys) + offset - values
        matrix = matrix - learning_rate * np.einsum("ni,nj->nij", residuals, keys)
        offset = offset - learning_rate * residuals
        matrices.append(matrix)
        offsets.append(offset)
    return {"matrix": np.array(matrices), "offset": np.array(offsets)}


def assert_trees_close(actual, expected, rtol=1e-12):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=rtol), actual, expected)


@pytest.mark.parametrize("settings", [{}, {"checkpoint_every": 5}, {"unroll": 4, "checkpoint_every": 7}])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-11), (np.float32, 1e-4)])
def test_memories_that_are_trees(settings, dtype, rtol):
    params, stream = affine_case(dtype)
    state, trace = damjax.simulate(affine(0.1), params, stream, **settings)
    expected = affine_by_hand(params, stream, 0.1)
    assert isinstance(trace, damjax.Trace)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, trace.params))} == {np.dtype(dtype)}
    assert_trees_close(trace.params, jax.tree.map(lambda x: x[:-1], expected), rtol)
    assert_trees_close(state.params, jax.tree.map(lambda x: x[-1], expected), rtol)
    assert int(state.step) == 23


def test_runs_of_trees_are_resumed_and_streamed():
    params, stream = affine_case()
    whole, norms = damjax.simulate(affine(0.1), params, stream, observe=lambda params, associations, info: info[1])

    def at(time):
        return jax.tree.map(lambda field: jnp.asarray(field)[time - 1], stream)

    observed = {}

    def observe(params, associations, info):
        observed.update(params)
        return info.grad_norm

    half, first = damjax.simulate(affine(0.1), params, at, num_steps=10, observe=observe)
    assert jax.tree.map(jnp.shape, observed) == {"matrix": (3, 2, 4), "offset": (3, 2)}
    rest = jax.tree.map(lambda x: x[10:], stream)
    for source, settings in ((rest, {}), (rest, {"checkpoint_every": 6}), (at, {"num_steps": 13})):
        state, second = damjax.resume(affine(0.1), half, source, observe=observe, **settings)
        assert_trees_close(state, whole)
        assert_trees_close(jnp.concatenate([first, second]), norms)


@pytest.mark.parametrize("mapping", [jax.vmap, damjax.vmap_last])
@pytest.mark.parametrize("checkpoint_every", [None, 5])
def test_runs_of_trees_are_mapped(mapping, checkpoint_every):
    params, stream = affine_case()

    def run(rate):
        return damjax.simulate(affine(rate), params, stream, checkpoint_every=checkpoint_every)[0].params

    rates = np.array([0.05, 0.1, 0.2])
    ends = jax.jit(mapping(run))(rates)
    for i, rate in enumerate(rates):
        expected = jax.tree.map(lambda x: x[-1], affine_by_hand(params, stream, rate))
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], ends), expected, 1e-11)


@pytest.mark.parametrize("checkpoint_every", [None, 5])
def test_runs_of_trees_are_differentiated(checkpoint_every):
    params, stream = affine_case()

    def size(params, rate):
        state, _ = damjax.simulate(affine(rate), params, stream, checkpoint_every=checkpoint_every)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state.params))

    slopes, rate_slope = jax.jit(jax.grad(size, argnums=(0, 1)))(params, 0.1)
    size = jax.jit(size)
    direction = jax.tree.map(np.sign, params)
    moved = [size(jax.tree.map(lambda x, d, h=h: x + h * d, params, direction), 0.1) for h in (1e-6, -1e-6)]
    along = sum(jax.tree.leaves(jax.tree.map(lambda slope, d: jnp.sum(slope * d), slopes, direction)))
    np.testing.assert_allclose(along, (moved[0] - moved[1]) / 2e-6, rtol=1e-6)
    np.testing.assert_allclose(rate_slope, (size(params, 0.1 + 1e-6) - size(params, 0.1 - 1e-6)) / 2e-6, rtol=1e-6)


def test_agents_whose_tree_is_not_finite_are_named():
    params, stream = affine_case()
    params["offset"][1, 0] = np.inf
    params["matrix"][2] = np.nan
    with pytest.warns(RuntimeWarning, match=r"memories of agents \[1, 2\] ended as NaN or infinity"):
        _, trace = damjax.simulate(affine(0.1), params, stream)
    np.testing.assert_array_equal(trace.info.finite[0], [True, False, False])
    with pytest.warns(RuntimeWarning, match=r"memories of agents \[1, 2\] ended"):
        damjax.resume(affine(0.1), affine(0.1).init(params), stream)


def test_trees_without_one_axis_of_agents(untyped):
    params, stream = affine_case()
    for wrong in (params | {"offset": params["offset"][:2]}, params | {"gain": np.ones(())}, {}):
        with pytest.raises(
            ValueError, match=r"params must be an array or a tree of arrays that all start with the axis"
        ):
            damjax.simulate(affine(0.1), wrong, stream)


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
        (lambda: dam(table(_12=4), max_delay=2), "max_delay must be at least the longest delay, 4, but it is 2"),
        (lambda: dam(np.zeros((3, 3))), "delays must be integers (time steps), but the dtype is float64"),
        (lambda: dam(np.zeros((2, 2), int)), "delays must have shape (3, 3)"),
        (lambda: jax.jit(lambda d: dam(d).init(jnp.zeros((3, 1, 1))))(table()), "max_delay must be given when delays"),
        (
            lambda: ogd(domain=None),
            "domain must be a set, with a function project and a diameter, but it is None; call a factory",
        ),
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
    with pytest.raises(
        ValueError, match=r"^state must come from this algorithm, but its box .*declare the same .* max_delay"
    ):
        damjax.resume(dam(table(_12=8)), state, made.stream)


def test_a_gated_objective_asks_for_gates():
    made = problem()
    gated = damjax.ogd(damjax.objectives.gated_linear_attention(), thirds, learning_rate=0.1, domain=ball)
    with pytest.raises(ValueError, match="needs gates in its associations, but gates is None"):
        damjax.simulate(gated, made.params, made.stream)
    for shape in ((10, 3, 2), (10, 3, 3, 3), (10, 2)):
        with pytest.raises(ValueError, match=r"gates must have shape \(3,\), or \(3, rows, columns\) with rows 1 or 2"):
            damjax.simulate(gated, made.params, made.stream._replace(gates=np.ones(shape)))


def test_a_state_of_another_algorithm_is_refused():
    made = problem()
    state, _ = damjax.simulate(dam(table()), made.params, made.stream)
    edges = damjax.weights.SparseWeights(np.arange(3)[:, None], np.ones((3, 1)))
    of_edges = damjax.dam_togd(delta_net, edges, np.full((3, 1), 2), learning_rate=0.1, domain=ball)
    with pytest.raises(ValueError, match=r"^state must come from this algorithm, but its box is Rings"):
        damjax.resume(of_edges, state, made.stream)
    state, _ = damjax.simulate(ogd(), made.params, made.stream)
    with pytest.raises(ValueError, match=r"^state must come from this algorithm, but its transform is EmptyState"):
        damjax.resume(ogd(transform=optax.scale_by_adam()), state, made.stream)


@pytest.mark.parametrize("fields", [{"keys": None}, {"values": np.ones(())}])
def test_a_stream_without_steps_is_refused(fields, untyped):
    made = problem()
    with pytest.raises(ValueError, match=r"^associations must have keys \(T, N, dk\) and values \(T, N, dv\)"):
        damjax.simulate(ogd(), made.params, made.stream._replace(**fields))
