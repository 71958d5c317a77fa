"""The edge list is the matrix with its zeros left out: whatever is computed from it is the same number."""

import functools
import re

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import damjax
from damjax.routing import METHODS, compile_routes, path_links, traffic
from damjax.weights import SparseWeights, dense, sparse, sparse_dirichlet
from tests.cases import OBJECTIVES, case, connected_graph, in_the_long_run, interests, trajectory

NUM_AGENTS, NUM_STEPS = 6, 14
inverse_sqrt = damjax.schedules.inverse_sqrt
ball = damjax.domains.frobenius_ball(1.2)


def shuffled(rng, table, spare=1):
    """The same interests in another order, padding in between that names wanted agents too."""
    agents, weights = np.asarray(table.agents), np.asarray(table.weights)
    padding = rng.integers(len(agents), size=(len(agents), spare))
    agents = np.concatenate([agents, padding], axis=1)
    weights = np.concatenate([weights, np.zeros(padding.shape)], axis=1)
    order = rng.permuted(np.tile(np.arange(agents.shape[1]), (len(agents), 1)), axis=1)
    return SparseWeights(np.take_along_axis(agents, order, axis=1), np.take_along_axis(weights, order, axis=1))


@functools.cache
def network():
    """Both forms of sparse interests on a path, some agents without interest in themselves, and their delays."""
    rng = np.random.default_rng(3)
    weights = interests(rng, NUM_AGENTS, density=0.5)
    assert (weights.diagonal() == 0).any()
    table = shuffled(rng, sparse(weights))
    graph = nx.path_graph(NUM_AGENTS)
    return (weights, compile_routes(graph, weights).delays), (table, compile_routes(graph, table).delays)


def make(name, objective, weights, delays, rate=0.4, **settings):
    fixed = {"learning_rate": inverse_sqrt(rate), "domain": ball, **settings}
    if name == "ogd":
        return damjax.ogd(objective, weights, **fixed)
    return damjax.dam_togd(objective, weights, delays, **fixed)


over_algorithms = pytest.mark.parametrize("name", ["ogd", "dam_togd"])


@pytest.mark.parametrize(
    ("objective", "name"),
    [*((objective, "dam_togd") for objective in OBJECTIVES), ("delta_net", "ogd"), ("gated_linear_attention", "ogd")],
)
def test_runs_losses_and_diagnostics_equal_those_of_the_matrix(objective, name):
    """Delays longer than the run's first half, with momentum."""
    problem = case(np.random.default_rng(1), objective, num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
    assert network()[0][1].max() >= NUM_STEPS // 2
    found = []
    for weights, delays in network():
        algorithm = make(name, problem.objective, weights, delays, transform=optax.trace(0.5))

        def observe(params, now, info, weights=weights):
            losses = damjax.regret.step_losses(problem.objective, weights, params, now, info.time)
            norms = damjax.bounds.observe_gradient_norms(problem.objective, weights)(params, now, info)
            return params, info, losses, jnp.sum(norms.messages, axis=1)

        run = jax.jit(lambda p, s, a=algorithm, o=observe: damjax.simulate(a, p, s, observe=o))
        state, trace = run(jnp.asarray(problem.params), problem.stream)
        found.append((state.params, trace))
    chex.assert_trees_all_close(*found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", ["gated_softmax_attention", *in_the_long_run("cross_entropy")])
def test_regret_equals_that_of_the_matrix(objective):
    problem = case(np.random.default_rng(2), objective, num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
    trace = np.broadcast_to(problem.params, (NUM_STEPS, *problem.params.shape))

    def regret(weights):
        losses = damjax.regret.personalized_losses(problem.objective, weights, trace, problem.stream)
        return damjax.regret.static_regret(losses, problem.objective, weights, ball, problem.stream, [5, NUM_STEPS])

    (matrix, _), (table, _) = network()
    # The comparator of cross-entropy is found by iteration, to the precision of its certificate.
    tolerance = 1e-5 if objective == "cross_entropy" else 1e-10
    np.testing.assert_allclose(jax.jit(regret)(table), jax.jit(regret)(matrix), rtol=tolerance)


def test_bounds_equal_those_of_the_matrix():
    rng = np.random.default_rng(4)
    known = damjax.bounds.Constants(jnp.asarray(rng.uniform(1, 3, NUM_AGENTS)), 2.0)

    @jax.jit
    def every_bound(weights, delays):
        rates = damjax.bounds.applied_rates(inverse_sqrt(0.3), weights, delays, 30)
        arrivals = damjax.bounds.arrivals(delays, 30)
        names = (damjax.bounds.dam_togd_printed, damjax.bounds.dam_togd_mended, damjax.bounds.weighted_delay)
        return [
            rates,
            damjax.bounds.ogd(weights, known, scale=0.3, horizon=30),
            *(bound(weights, delays, known, scale=0.3, horizon=30) for bound in names),
            damjax.bounds.realised_delay(weights, known, rates=rates, arrivals=arrivals),
        ]

    chex.assert_trees_all_close(*(every_bound(*form) for form in network()), rtol=1e-12)


@pytest.mark.long
def test_diagnoses_equal_those_of_the_matrix():
    problem = case(np.random.default_rng(5), "delta_net", num_agents=NUM_AGENTS, num_steps=32)
    free = damjax.domains.unconstrained()
    found = []
    for weights, delays in network():
        algorithm = make("dam_togd", problem.objective, weights, delays, learning_rate=3.0, domain=free)
        _, trace = damjax.simulate(algorithm, problem.params, problem.stream)
        found.append(damjax.diagnostics.diagnose(problem.objective, weights, free, problem.stream, trace))
    assert found[0]
    for ours, theirs in zip(*found, strict=True):
        assert (ours.sign, ours.agents) == (theirs.sign, theirs.agents)
        assert ours.value == pytest.approx(theirs.value)


def test_many_interests_and_large_memories():
    """Where the matrix form takes its other formulation."""
    rng, num_agents, key_dim, value_dim = np.random.default_rng(6), 36, 40, 5
    weights = interests(rng, num_agents, density=1.0, keep_self=1.0)
    table = shuffled(rng, sparse(weights), spare=2)
    graph = nx.star_graph(num_agents - 1)
    problem = case(rng, "delta_net", num_agents=num_agents, num_steps=8, key_dim=key_dim, value_dim=value_dim)
    runs = [
        trajectory(
            make("dam_togd", problem.objective, form, compile_routes(graph, form, method="shortest_path").delays, 0.05),
            problem.params,
            problem.stream,
        )[0]
        for form in (weights, table)
    ]
    np.testing.assert_allclose(*runs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("map_over", [jax.vmap, damjax.vmap_last])
def test_weights_delays_and_agents_may_be_traced(map_over):
    """Over a batch of networks with different agents, delays and rates, against the runs one by one."""
    problem = case(np.random.default_rng(7), "delta_net", num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
    rng = np.random.default_rng(8)
    tables = [network()[1][0], shuffled(rng, sparse_dirichlet(jax.random.key(0), NUM_AGENTS, 3), spare=0)]
    width = max(t.num_interests for t in tables)
    tables = [shuffled(rng, t, width - t.num_interests) for t in tables]
    delays = np.stack([compile_routes(nx.cycle_graph(NUM_AGENTS), table).delays for table in tables])
    rates = np.array([0.2, 0.4])

    def run(table, delays, rate):
        algorithm = make("dam_togd", problem.objective, table, delays, rate, max_delay=8)
        return damjax.simulate(algorithm, problem.params, problem.stream)[1].params

    alone = jax.jit(run)
    together = jax.jit(map_over(run))(SparseWeights(*map(np.stack, zip(*tables, strict=True))), delays, rates)
    for row, *arguments in zip(together, tables, delays, rates, strict=True):
        np.testing.assert_allclose(row, alone(*arguments), rtol=1e-10, atol=1e-13)
    assert not np.allclose(together[0], together[1])


def test_the_derivative_in_the_weights_is_that_of_the_matrix():
    problem = case(np.random.default_rng(9), "gated_linear_attention", num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
    (matrix, delays), (table, short) = network()

    def total(weights, delays):
        algorithm = make("dam_togd", problem.objective, weights, delays, max_delay=10)
        return jnp.sum(damjax.simulate(algorithm, problem.params, problem.stream)[0].params ** 2)

    slopes = jax.jit(jax.grad(total))(jnp.asarray(matrix), delays)
    found = jax.jit(jax.grad(lambda w: total(table._replace(weights=w), short)))(jnp.asarray(table.weights))
    expected = np.take_along_axis(np.asarray(slopes), table.agents, axis=1)
    np.testing.assert_allclose(found[table.weights > 0], expected[table.weights > 0], rtol=1e-9, atol=1e-12)


@over_algorithms
def test_float32_stays_float32_and_compiles_once(name):
    chex.clear_trace_counter()
    problem = case(np.random.default_rng(1), "delta_net", num_agents=5, num_steps=3, dtype=np.float32)
    table = sparse_dirichlet(jax.random.key(0), 5, 3, dtype=np.float32)
    algorithm = make(name, problem.objective, table, compile_routes(nx.cycle_graph(5), table).delays)
    state = algorithm.init(jnp.asarray(problem.params))
    step = jax.jit(chex.assert_max_traces(algorithm.step, n=1))
    for time in range(3):
        after, info = step(state, jax.tree.map(lambda x, t=time: x[t], problem.stream))
        chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
        assert info.grad_norm.dtype == np.float32
        state = after


def test_the_queues_grow_with_the_interests_and_not_with_the_agents():
    num_agents, num_interests = 20_000, 3
    table = sparse_dirichlet(jax.random.key(0), num_agents, num_interests)
    delays = np.zeros(table.agents.shape, int)
    algorithm = make("dam_togd", damjax.objectives.delta_net(), table, delays, max_delay=4)
    state = jax.eval_shape(algorithm.init, jax.ShapeDtypeStruct((num_agents, 2, 2), np.float32))
    assert state.box.residuals.shape == (5, num_agents, num_interests, 2)
    one = np.zeros((num_agents, 2), np.float32)
    step = jax.make_jaxpr(algorithm.step)(state, damjax.Associations(one, one))
    assert max(np.prod(out.aval.shape) for eqn in step.eqns for out in eqn.outvars) == state.box.residuals.size


def test_traced_agents_that_do_not_exist_are_nan_and_not_another_agent():
    problem = case(np.random.default_rng(7), "delta_net", num_agents=3, num_steps=4)

    def run(agents):
        table = SparseWeights(agents, np.full((3, 2), 0.5))
        return damjax.simulate(make("ogd", problem.objective, table, None), problem.params, problem.stream)[1]

    finite = jax.jit(run)(np.array([[0, 1], [1, 3], [2, 0]])).info.finite
    assert finite[:, [0, 2]].all()
    assert not finite[:, 1].any()


@hypothesis.given(seed=st.integers(0, 10**6), num_agents=st.integers(1, 9), method=st.sampled_from(METHODS))
def test_routes_are_those_of_the_matrix(seed, num_agents, method):
    rng = np.random.default_rng(seed)
    graph, weights = connected_graph(rng, num_agents), interests(rng, num_agents)
    table = shuffled(rng, sparse(weights))
    full, short = (compile_routes(graph, form, method=method) for form in (weights, table))
    assert short.trees == full.trees
    assert short.hops.dtype == short.delays.dtype == np.int32
    hops = np.where(table.weights > 0, np.take_along_axis(full.hops, table.agents, axis=1), -1)
    np.testing.assert_array_equal(short.hops, hops)
    np.testing.assert_array_equal(short.delays, np.maximum(2 * hops, 0))
    for ours, theirs in zip(*(traffic(r, value_dim=2, feature_dim=3) for r in (short, full)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    links, crosses = path_links(short)
    np.testing.assert_array_equal(2 * crosses @ np.ones(len(links)), short.delays)


@pytest.mark.long
@hypothesis.given(seed=st.integers(0, 10**6), num_agents=st.integers(1, 8))
@hypothesis.settings(max_examples=5)
def test_there_and_back(seed, num_agents):
    rng = np.random.default_rng(seed)
    weights = interests(rng, num_agents)
    table = sparse(weights)
    assert table.num_interests == (weights > 0).sum(axis=1).max()
    np.testing.assert_array_equal(dense(table), weights)
    np.testing.assert_array_equal(dense(shuffled(rng, table)), weights)


def test_dense_may_be_traced_and_keeps_precision():
    table = sparse(np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(jax.jit(dense)(table), np.eye(3))
    assert dense(table).dtype == table.weights.dtype == np.float32


def test_the_draw_is_the_agent_itself_and_distinct_others_all_equally_likely():
    num_agents, num_interests, num_draws = 6, 4, 3000
    keys = jax.random.split(jax.random.key(0), num_draws)
    tables = jax.jit(jax.vmap(lambda key: sparse_dirichlet(key, num_agents, num_interests)))(keys)
    agents = np.asarray(tables.agents)
    np.testing.assert_array_equal(agents[:, :, 0], np.tile(np.arange(num_agents), (num_draws, 1)))
    assert (np.diff(np.sort(agents, axis=2), axis=2) > 0).all()
    offsets = (agents[:, :, 1:] - np.arange(num_agents)[:, None]) % num_agents
    # Every set of 3 out of 5 others, one draw in ten: 1800 of 18000, with a standard deviation of 40.
    counts = np.unique(np.sort(offsets, axis=2).reshape(-1, 3), axis=0, return_counts=True)[1]
    assert len(counts) == 10
    np.testing.assert_allclose(counts, num_draws * num_agents / 10, atol=200)
    # Dirichlet(5, 1, 1, 1): means 5/8 and 1/8.
    np.testing.assert_allclose(tables.weights.sum(axis=2), 1, rtol=1e-12)
    np.testing.assert_allclose(tables.weights.mean(axis=(0, 1)), [5 / 8, 1 / 8, 1 / 8, 1 / 8], atol=0.01)


def test_the_largest_draw_is_everyone():
    table = sparse_dirichlet(jax.random.key(1), 5, 5)
    np.testing.assert_array_equal(np.sort(table.agents, axis=1), np.tile(np.arange(5), (5, 1)))
    assert sparse_dirichlet(jax.random.key(1), 1, 1).agents.tolist() == [[0]]


half = np.full((3, 2), 0.5)
pairs = np.array([[0, 1], [1, 2], [2, 0]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            SparseWeights(pairs, half[:2]),
            "one row per agent, but theirs are (3, 2) and (2, 2)",
        ),
        (SparseWeights(pairs[:2], half[:2]), "weights must have 3 rows, one per agent, but it has 2"),
        (SparseWeights(pairs * 1.0, half), "weights.agents must be integers, but their dtype is float64"),
        (SparseWeights(np.array([[0, 1], [1, 3], [2, 0]]), half), "in 0..2, but weights.agents[1, 1] is 3"),
        (SparseWeights(np.array([[0, 1], [1, -1], [2, 0]]), half), "weights.agents[1, 1] is -1"),
        (SparseWeights(np.array([[0, 1], [2, 2], [2, 0]]), half), "agent 1 wants agent 2 twice"),
        (
            SparseWeights(pairs, half * 0.9),
            "weights.weights must be row-stochastic, but the row of agent 0",
        ),
        (SparseWeights(pairs, half * [[1], [1], [np.nan]]), "row 2 holds nan"),
        (SparseWeights(pairs, half + np.array([-1, 1])), "agent 0 gives agent 0 the weight -0.5"),
        (SparseWeights(pairs, half + np.array([1, -1])), "agent 0 gives agent 1 the weight -0.5"),
    ],
)
def test_bad_tables_are_refused_wherever_they_are_used(untyped, table, message):
    def algorithm(table):
        return damjax.dam_togd(
            damjax.objectives.delta_net(), table, np.zeros((3, 2), int), learning_rate=0.1, domain=ball
        ).init(np.zeros((3, 2, 2)))

    uses = [algorithm, functools.partial(compile_routes, nx.path_graph(3))]
    if table.num_agents == 3:
        uses.append(dense)
    if "3 rows" in message:
        uses = uses[1:]
    for use in uses:
        with pytest.raises(ValueError, match=re.escape(message)):
            use(table)


def test_tables_that_do_not_go_together_are_refused(untyped):
    objective, table = damjax.objectives.delta_net(), SparseWeights(pairs, half)
    with pytest.raises(ValueError, match=re.escape("delays must have shape (3, 2), one round trip per entry")):
        make("dam_togd", objective, table, np.zeros((3, 3), int))
    with pytest.raises(ValueError, match=re.escape("its shape is (3, 3)")):
        damjax.bounds.weighted_delay(
            table, np.zeros((3, 3)), damjax.bounds.Constants(jnp.ones(3), 1.0), scale=1.0, horizon=9
        )
    with pytest.raises(ValueError, match=re.escape("delays must have shape (3, 3)")):
        make("dam_togd", objective, dense(table), np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=re.escape("weights must have 2 rows, one per agent, but it has 3")):
        damjax.regret.step_losses(
            objective, table, np.zeros((2, 1, 1)), damjax.Associations(np.ones((2, 1)), np.ones((2, 1))), 1
        )
    with pytest.raises(ValueError, match="weights must be concrete"):
        jax.jit(sparse)(np.eye(3))
    with pytest.raises(ValueError, match="num_interests must be at most num_agents = 3, but it is 4"):
        sparse_dirichlet(jax.random.key(0), 3, 4)
    with pytest.raises(ValueError, match="num_interests must be a positive integer, but it is 0"):
        sparse_dirichlet(jax.random.key(0), 3, 0)
    with pytest.raises(ValueError, match="self_factor must be finite and positive"):
        sparse_dirichlet(jax.random.key(0), 3, 2, self_factor=0.0)
