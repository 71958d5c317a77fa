"""Networks that change, against real messages on links that vanish."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import damjax
from damjax.routing import compile_timeline
from tests import reference, reference_timeline
from tests.cases import case, connected_graph, in_the_long_run, interests

RADIUS = 1.5
RATE = damjax.schedules.inverse_sqrt(0.4)
BALL = damjax.domains.frobenius_ball(RADIUS)
NUM_STEPS = 30


def oracle_epochs(epochs, weights, timeline):
    """What the oracle is told: links, who is present, trees, and weights before anybody is absent."""
    num_agents = epochs[0][1].number_of_nodes()
    tables = weights if isinstance(weights, list) else [weights] * len(epochs)
    return [
        reference_timeline.Epoch(
            first_step,
            {frozenset(edge) for edge in graph.edges},
            set(range(num_agents)) if present is None else set(np.flatnonzero(present).tolist()),
            routes.trees,
            table,
        )
        for (first_step, graph, present), routes, table in zip(epochs, timeline.routes, tables, strict=True)
    ]


def check(epochs, weights, *, name="delta_net", seed=0, sparse=False, absent="keep", **settings):
    """Memories, arrivals, losses and round trips are those of the messages."""
    num_agents = epochs[0][1].number_of_nodes()
    problem = case(np.random.default_rng(seed), name, num_agents=num_agents, num_steps=NUM_STEPS)
    table = damjax.weights.sparse(weights) if sparse else weights
    timeline = compile_timeline(epochs, table, **settings)
    algorithm = damjax.dam_togd(
        problem.objective, timeline.weights, timeline, learning_rate=RATE, domain=BALL, absent=absent
    )
    state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
    memories, took, numbers = reference_timeline.dam_togd(
        problem.problem,
        oracle_epochs(epochs, weights, timeline),
        problem.params,
        rate=lambda t: 0.4 / t**0.5,
        project=reference.ball(RADIUS),
        forget=absent == "empty",
    )
    np.testing.assert_allclose(trace.params, memories[:-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.params, memories[-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(trace.info.num_applied, numbers)
    trips = timeline.table(NUM_STEPS)
    if sparse:
        agents = np.asarray(timeline.weights.agents)[0]
        took = np.take_along_axis(took, np.broadcast_to(agents, (NUM_STEPS, *agents.shape)), axis=2)
        padding = np.asarray(table.weights) == 0
        took = np.where(padding, -1, took)
    decided = np.arange(1, NUM_STEPS + 1) + timeline.max_delay <= NUM_STEPS
    np.testing.assert_array_equal(trips[decided], took[decided])
    still_out = np.arange(1, NUM_STEPS + 1)[:, None, None] + trips > NUM_STEPS
    np.testing.assert_array_equal(np.where(still_out, -1, trips), took)
    epoch = np.searchsorted(timeline.first_steps, np.arange(1, NUM_STEPS + 1), side="right") - 1
    asked = np.asarray(timeline.weights.weights)[epoch] > 0
    np.testing.assert_array_equal(trace.info.num_lost, np.sum(asked & (trips < 0), axis=2))
    return timeline, state, trace


def random_epochs(rng, num_agents, num_epochs, *, absences):
    """Graphs at random borders, each of them joining all who are present."""
    borders = [1, *np.sort(rng.choice(np.arange(2, NUM_STEPS), num_epochs - 1, replace=False)).tolist()]
    epochs = []
    for border in borders:
        present = rng.random(num_agents) < 0.75 if absences else np.ones(num_agents, bool)
        present[rng.integers(num_agents)] = True
        members = np.flatnonzero(present)
        graph = nx.Graph()
        graph.add_nodes_from(range(num_agents))
        among = connected_graph(rng, len(members), 0.2)
        graph.add_edges_from((int(members[i]), int(members[j])) for i, j in among.edges)
        # Links of those who are away carry nothing.
        graph.add_edges_from((int(i), int(rng.choice(members))) for i in np.flatnonzero(~present))
        epochs.append((border, graph, present))
    return epochs


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", [*range(3), *in_the_long_run(*range(3, 40))])
def test_random_timelines_are_their_messages(seed, sparse):
    rng = np.random.default_rng(seed)
    num_agents = int(rng.integers(3, 7))
    epochs = random_epochs(rng, num_agents, int(rng.integers(1, 7)), absences=seed % 2 == 0)
    name = ("delta_net", "gated_linear_attention")[seed // 2 % 2]
    method = ("shortest_path", "steiner")[seed % 2]
    absent = ("keep", "empty")[sparse]
    check(epochs, interests(rng, num_agents), name=name, seed=seed, sparse=sparse, method=method, absent=absent)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", [*range(12), *in_the_long_run(*range(12, 200))])
def test_tables_of_random_timelines_are_those_of_the_messages(seed, sparse):
    """Without the descent, so that many instances are tried: longer paths, more borders, partitions too."""
    rng = np.random.default_rng(1000 + seed)
    num_agents, num_epochs = int(rng.integers(2, 9)), int(rng.integers(1, 9))
    borders = [1, *np.sort(rng.choice(np.arange(2, NUM_STEPS), num_epochs - 1, replace=False)).tolist()]
    whole = connected_graph(rng, num_agents, 0.1)
    epochs = []
    for border in borders:
        graph = whole.copy()
        graph.remove_edges_from([edge for edge in whole.edges if rng.random() < 0.25])
        epochs.append((border, graph, rng.random(num_agents) < 0.85))
    weights = interests(rng, num_agents)
    table = damjax.weights.sparse(weights) if sparse else weights
    timeline = compile_timeline(epochs, table, method="shortest_path", unreachable="lost")
    problem = case(rng, "delta_net", num_agents=num_agents, num_steps=NUM_STEPS, key_dim=1, value_dim=1)
    still = lambda params: params  # noqa: E731
    _, took, _ = reference_timeline.dam_togd(
        problem.problem, oracle_epochs(epochs, weights, timeline), problem.params, rate=lambda t: 0.0, project=still
    )
    trips = timeline.table(NUM_STEPS)
    if sparse:
        agents = np.asarray(timeline.weights.agents)
        took = np.take_along_axis(took, np.broadcast_to(agents[0], trips.shape), axis=2)
        took = np.where(np.asarray(table.weights) > 0, took, -1)
    out = np.arange(1, NUM_STEPS + 1)[:, None, None] + trips > NUM_STEPS
    np.testing.assert_array_equal(np.where(out, -1, trips), took)


path, uniform = nx.path_graph(4), np.full((4, 4), 0.25)
broken = nx.Graph([(0, 1), (2, 3)])


def without(*agents, num_agents=4):
    return np.isin(np.arange(num_agents), agents, invert=True)


@pytest.mark.parametrize(
    "epochs",
    [
        [(1, path, None)],
        # Two borders closer than a round trip; the link is back before the first message would have missed it.
        [(1, path, None), (10, broken, None), (11, path, None)],
        [(1, path, None), (10, broken, None), (12, path, None), (13, broken, None), (15, path, None)],
        [(1, broken, None), (2, path, None)],
        # An agent that dies for ever, in the middle and at the end of paths; one that joins late; everyone but one.
        [(1, nx.cycle_graph(4), None), (12, nx.cycle_graph(4), without(2))],
        [(1, path, None), (12, path, without(3))],
        [(1, path, without(3)), (9, path, None)],
        [(1, path, None), (8, path, without(0, 1, 2)), (16, path, None)],
        [(1, path, without(0, 1, 2, 3)), (5, path, None)],
        # Away for fewer steps than a round trip.
        [(1, path, None), (10, path, without(3)), (11, path, None)],
        [(1, path, None), (10, path, without(0)), (12, path, None)],
    ],
)
@pytest.mark.parametrize("absent", ["keep", "empty"])
def test_edge_cases_are_their_messages(epochs, absent):
    check(epochs, uniform, absent=absent, unreachable="lost")


def test_weights_of_each_epoch():
    rng = np.random.default_rng(3)
    epochs = [(1, path, None), (10, nx.star_graph(3), without(2)), (20, path, None)]
    check(epochs, [interests(rng, 4) for _ in epochs])


def test_the_message_that_just_makes_it():
    """0 - 1 - 2 - 3 loses the link in the middle from step 10 on: the answer of 3 crosses it 4 steps on."""
    timeline = compile_timeline([(1, path, None), (10, broken, None)], uniform, unreachable="lost")
    assert timeline.table(11)[:, 0].tolist() == [
        *[[0, 2, 4, 6]] * 5,
        *[[0, 2, 4, -1]] * 2,
        *[[0, 2, -1, -1]] * 4,
    ]
    # Nobody there to receive it: a step sooner, for the last to leave is the asker itself.
    timeline = compile_timeline([(1, path, None), (10, path, without(0))], uniform)
    assert timeline.table(10)[:, 0].tolist() == [
        *[[0, 2, 4, 6]] * 3,
        *[[0, 2, 4, -1]] * 2,
        *[[0, 2, -1, -1]] * 2,
        *[[0, -1, -1, -1]] * 2,
        [-1] * 4,
    ]


def test_an_absent_agent_rests():
    timeline, state, trace = check([(1, path, None), (10, path, without(3)), (21, path, None)], uniform)
    assert state.clock.tolist() == [30, 30, 30, 19]
    np.testing.assert_array_equal(trace.params[9:21, 3], np.broadcast_to(trace.params[9, 3], (12, 2, 3)))
    assert not np.any(trace.info.num_applied[9:20, 3])
    assert not np.any(trace.info.projected[9:20, 3])
    assert np.all(trace.info.max_age[9:20, 3] == -1)
    assert not np.any(trace.info.num_lost[9:20, 3])
    assert timeline.present[:, 3].tolist() == [True, False, True]
    np.testing.assert_allclose(np.asarray(timeline.weights.weights)[1, :3], [[1 / 3, 1 / 3, 1 / 3, 0]] * 3)


def test_answers_that_find_nobody_are_lost_and_counted():
    """Of a law that knows no borders: agent 0 is absent in the steps 5 to 8, when what it asked in 2 to 4 is back."""
    present = np.array([[True] * 3, [False, True, True], [True] * 3])
    weights = damjax.weights.over_epochs(np.full((3, 3), 1 / 3), [1, 5, 9], present)
    problem = case(np.random.default_rng(0), "delta_net", num_agents=3, num_steps=NUM_STEPS)
    law = damjax.channels.uniform(3, 3, key=jax.random.key(0))
    algorithm = damjax.dam_togd(problem.objective, weights, law, learning_rate=RATE, domain=BALL)
    state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
    np.testing.assert_array_equal(trace.info.num_lost[:, 0], [0] * 4 + [2] * 3 + [0] * (NUM_STEPS - 7))
    assert not np.any(trace.info.num_lost[:, 1:])
    asked = 9 * (NUM_STEPS - 4) + 4 * 4
    assert trace.info.num_applied.sum() + trace.info.num_lost.sum() + state.box.due.numbers.sum() == asked


def test_what_stands_between_gradient_and_step_rests_too():
    """A momentum that went on would move the memory of the absent."""
    optax = pytest.importorskip("optax")
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=20)
    timeline = compile_timeline([(1, path, None), (8, path, without(3))], uniform)
    algorithm = damjax.dam_togd(
        problem.objective, uniform, timeline, learning_rate=RATE, domain=BALL, transform=optax.trace(0.9)
    )
    state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
    before, _ = damjax.simulate(algorithm, problem.params, jax.tree.map(lambda x: x[:7], problem.stream))
    np.testing.assert_array_equal(trace.params[7:, 3], np.broadcast_to(trace.params[7, 3], (13, 2, 3)))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[3], y[3]), state.transform, before.transform)


def test_plain_weights_become_those_of_the_present():
    """Traced ones too, mapped over; the two mappings and jit agree."""
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=20)
    epochs = [(1, path, None), (8, path, without(3)), (14, path, None)]
    rng = np.random.default_rng(1)
    tables = rng.dirichlet(np.ones(4), size=(3, 4))

    def final(weights, delays):
        algorithm = damjax.dam_togd(problem.objective, weights, delays, learning_rate=RATE, domain=BALL)
        state, losses = damjax.simulate(
            algorithm,
            problem.params,
            problem.stream,
            observe=damjax.regret.observe_losses(
                problem.objective, damjax.weights.over_epochs(weights, delays.first_steps, delays.present)
            ),
        )
        return state.params, losses

    timelines = [compile_timeline(epochs, table) for table in tables]
    for mapping in (jax.vmap, damjax.vmap_last):
        params, losses = jax.jit(mapping(functools.partial(final, delays=timelines[0])))(jnp.asarray(tables))
        for i, timeline in enumerate(timelines):
            algorithm = damjax.dam_togd(problem.objective, timeline.weights, timeline, learning_rate=RATE, domain=BALL)
            state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
            np.testing.assert_allclose(params[i], state.params, rtol=1e-10)
            alone = damjax.regret.personalized_losses(problem.objective, timeline.weights, trace.params, problem.stream)
            np.testing.assert_allclose(losses[i], alone, rtol=1e-10)


def test_derivatives_and_single_precision():
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=20)
    timeline = compile_timeline(
        [(1, path, None), (8, path, without(3)), (14, broken, None)], uniform, unreachable="lost"
    )

    def run(rate, dtype: Any = np.float64):
        algorithm = damjax.dam_togd(problem.objective, uniform, timeline, learning_rate=rate, domain=BALL)
        params, stream = jax.tree.map(lambda x: jnp.asarray(x, dtype), (problem.params, problem.stream))
        return damjax.simulate(algorithm, params, stream)[0].params

    slope = jax.grad(lambda rate: jnp.sum(run(rate) ** 2))(0.2)
    step = 1e-6
    difference = sum(sign * jnp.sum(run(0.2 + sign * step) ** 2) for sign in (1, -1)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    single = run(0.2, np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, run(0.2), rtol=1e-5, atol=1e-5)


def test_a_resumed_run_goes_on_over_the_border():
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=20)
    timeline = compile_timeline([(1, path, None), (8, path, without(3)), (14, path, None)], uniform)
    algorithm = damjax.dam_togd(problem.objective, uniform, timeline, learning_rate=RATE, domain=BALL)
    whole, _ = damjax.simulate(algorithm, problem.params, problem.stream)
    half, _ = damjax.simulate(algorithm, problem.params, jax.tree.map(lambda x: x[:9], problem.stream))
    rest, _ = damjax.resume(algorithm, half, jax.tree.map(lambda x: x[9:], problem.stream))
    np.testing.assert_allclose(rest.params, whole.params, rtol=1e-12)


def test_a_timeline_of_one_epoch_is_a_static_network():
    problem = case(np.random.default_rng(0), "delta_net", num_agents=4, num_steps=20)
    timeline = compile_timeline([(1, path, None)], uniform)
    routes = damjax.routing.compile_routes(path, uniform)
    finals = [
        damjax.simulate(
            damjax.dam_togd(problem.objective, uniform, delays, learning_rate=RATE, domain=BALL),
            problem.params,
            problem.stream,
        )[0].params
        for delays in (timeline, routes.delays)
    ]
    np.testing.assert_allclose(*finals, rtol=1e-12)
    assert timeline.routes[0].trees == routes.trees
    assert timeline.max_delay == routes.max_delay


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compile_timeline([], uniform), "epochs must be a list"),
        (lambda: compile_timeline([(1, path)], uniform), "epochs must be a list"),  # pyright: ignore[reportArgumentType]
        (lambda: compile_timeline([(2, path, None)], uniform), "first_steps must increase from 1"),
        (lambda: compile_timeline([(1, path, None), (1, path, None)], uniform), "first_steps must increase from 1"),
        (lambda: compile_timeline([(1, path, None), (9, nx.path_graph(3), None)], uniform), "the same nodes 0..N-1"),
        (lambda: compile_timeline([(1, path, [7])], uniform), r"present must hold agents in 0..3, but it holds \[7\]"),
        (lambda: compile_timeline([(1, path, [True, False])], uniform), "present must hold 4 booleans"),
        (
            lambda: compile_timeline([(1, path, None), (9, broken, None)], uniform),
            r"agent 0 is interested in agents \[2, 3\], but no path of the epoch that begins in step 9",
        ),
        (lambda: compile_timeline([(1, path, None)], uniform, unreachable="drop"), "unreachable must be one of"),
        (lambda: compile_timeline([(1, path, None)], uniform, method="shortest"), "method must be one of"),
        (lambda: compile_timeline([(1, path, None)], 2 * uniform), "must be row-stochastic"),
        (lambda: compile_timeline([(1, path, None)], [uniform, uniform]), "one per epoch, 1, but there are 2"),
        (
            lambda: damjax.dam_togd(
                damjax.objectives.delta_net(),
                np.eye(3),
                compile_timeline([(1, path, None)], uniform),
                learning_rate=1.0,
                domain=BALL,
            ),
            r"weights must have shape \(4, 4\)",
        ),
        (
            lambda: damjax.dam_togd(
                damjax.objectives.delta_net(),
                compile_timeline([(1, path, None)], uniform).weights,
                np.zeros((4, 4), int),
                learning_rate=1.0,
                domain=BALL,
            ),
            "delays must be a timeline or a function of the time beside weights that change",
        ),
    ],
)
def test_wrong_calls(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()
