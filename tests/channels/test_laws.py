"""Laws of delay and loss: their distributions, and runs under them against messages one by one."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import damjax
from damjax import channels
from damjax.channels.laws.law import draws
from tests import reference
from tests.cases import case

NUM_AGENTS, NUM_STEPS = 4, 16
RATE = damjax.schedules.inverse_sqrt(0.4)
BALL = damjax.domains.frobenius_ball(1.5)
DRAWS = (50, 40)  # asks of agent 0 and others, over which distributions are taken; 40 columns
ROUTES = damjax.routing.compile_routes(damjax.graphs.path(NUM_AGENTS), np.full((NUM_AGENTS, NUM_AGENTS), 0.25))
STATIC = np.random.default_rng(0).integers(0, 6, (NUM_AGENTS, NUM_AGENTS))
LAWS = {
    "geometric": lambda key: channels.geometric(0.4, key=key, max_delay=4),
    "exponential": lambda key: channels.exponential(2.5, key=key, max_delay=6),
    "uniform": lambda key: channels.uniform(1, 5, key=key),
    "pareto": lambda key: channels.pareto(1.2, key=key, max_delay=6),
    "per_link": lambda key: channels.per_link(ROUTES, channels.geometric(0.6, key=key, max_delay=3), max_delay=9),
    "congestion": lambda key: channels.congestion(
        channels.geometric(0.8, key=key, max_delay=3), channels.uniform(2, 7, key=key), onset=0.3, relief=0.4, key=key
    ),
    "bursts": lambda key: channels.bursts(3),
    "lossy": lambda key: channels.lossy(channels.geometric(0.5, key=key, max_delay=5), 0.3, key=key),
    "lossy_links": lambda key: channels.lossy(STATIC, 0.1, key=key, routes=ROUTES),
    "table": lambda key: channels.table(
        jax.random.randint(key, (NUM_STEPS, NUM_AGENTS, NUM_AGENTS), -2, 8, jnp.int32), max_delay=5
    ),
}
over_laws = pytest.mark.parametrize("name", LAWS)


def weights_of(rng):
    """With gaps, and agents without an interest in themselves."""
    wanted = (rng.random((NUM_AGENTS, NUM_AGENTS)) < 0.7) & ~np.eye(NUM_AGENTS, dtype=bool)
    wanted |= np.roll(np.eye(NUM_AGENTS, dtype=bool), 1, axis=1)
    wanted[0, 0] = True
    weights = np.where(wanted, rng.random((NUM_AGENTS, NUM_AGENTS)), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def delays_of(make, key, shape, num_steps=1):
    return np.asarray(jax.jit(lambda key: make(key).table(num_steps, shape))(key))


@functools.cache
def problem_of(dtype: Any = np.float64):
    return case(np.random.default_rng(1), "delta_net", num_agents=NUM_AGENTS, num_steps=NUM_STEPS, dtype=dtype)


def run_under(make, problem, *, reweight=False):
    """A compiled run as a function of weights and of the key of the law, and the law's own table beside it."""

    def run(weights, key):
        law = make(key)
        algorithm = damjax.dam_togd(problem.objective, weights, law, learning_rate=RATE, domain=BALL, reweight=reweight)
        state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
        return state.params, trace, law.table(NUM_STEPS, (NUM_AGENTS, NUM_AGENTS))

    return run


@over_laws
def test_a_run_is_that_of_its_messages(name):
    """The memories and all that Info says, for several keys and weights at once; what a law says it gives, it gives."""
    problem, rng = problem_of(), np.random.default_rng(2)
    many = np.stack([weights_of(rng) for _ in range(6)])
    keys = jax.random.split(jax.random.key(3), 6)
    final, trace, tables = jax.jit(jax.vmap(run_under(LAWS[name], problem)))(many, keys)
    tables = np.asarray(tables)
    if name != "table" and name != "lossy_links":
        assert not np.any(np.diagonal(tables, axis1=2, axis2=3))
    for i in range(6):
        messages = reference.delayed(
            problem.problem,
            many[i],
            lambda time, i=i: tables[i, time - 1],
            problem.params,
            rate=lambda t: 0.4 / t**0.5,
            project=reference.ball(1.5),
        )
        np.testing.assert_allclose(trace.params[i], messages.params[:-1], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(final[i], messages.params[-1], rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(trace.info.num_applied[i], messages.numbers)
        np.testing.assert_array_equal(trace.info.max_age[i], messages.oldest)
        np.testing.assert_allclose(trace.info.mean_age[i], messages.mean_age, rtol=1e-12)
        np.testing.assert_array_equal(trace.info.num_lost[i], messages.lost)


def test_losses_are_made_up_for():
    """Every arrival weighs w / (the probability of it), and Info says what that adds to the squared norm."""
    problem, weights = problem_of(), weights_of(np.random.default_rng(4))
    make = LAWS["lossy"]
    key = jax.random.key(5)
    final, trace, table = jax.jit(run_under(make, problem, reweight=True))(weights, key)
    table = np.asarray(table)
    # Not by the law's own word: 1 - p, times the probability of at most 5 steps, and all of an agent's own.
    chances = np.where(np.eye(NUM_AGENTS, dtype=bool), 1, 0.7 * (1 - 0.5**6)).astype(np.float32).astype(float)
    messages = reference.delayed(
        problem.problem,
        weights,
        lambda time: table[time - 1],
        problem.params,
        rate=lambda t: 0.4 / t**0.5,
        project=reference.ball(1.5),
        chances=lambda time: chances,
    )
    np.testing.assert_allclose(final, messages.params[-1], rtol=1e-6)  # the law's numbers are in single precision
    np.testing.assert_allclose(trace.info.reweighting_variance, messages.variance, rtol=1e-5, atol=1e-12)


def test_reweighted_gradients_have_the_mean_and_the_variance_that_info_says():
    """Of one step, over the coins of many keys: mean sum w grad f, and that plus the variance is the squared norm."""
    problem, weights = problem_of(), weights_of(np.random.default_rng(6))
    now, params = jax.tree.map(lambda leaf: leaf[0], problem.stream), jnp.asarray(problem.params)

    def first(key):
        law = channels.lossy(np.zeros((NUM_AGENTS, NUM_AGENTS), int), 0.4, key=key)
        channel = channels.connect(problem.objective, weights, law, reweight=True)
        _, gradient, arrivals = channel.exchange(channel.init(params), jnp.asarray(1), params, now)
        return gradient, arrivals.reweighting_variance

    gradients, variances = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(7), 20000))
    gradients = np.asarray(gradients)
    everything = channels.full_information(problem.objective, weights)
    _, expected, _ = everything.exchange((), jnp.asarray(1), params, now)
    error = np.sqrt(np.max(variances[0]) / 20000)
    np.testing.assert_allclose(gradients.mean(axis=0), expected, atol=4 * error)
    spread = np.sum((gradients - np.asarray(expected)) ** 2, axis=(2, 3)).mean(axis=0)
    np.testing.assert_allclose(spread, variances[0], rtol=0.05)
    assert np.all(spread > 0)


@pytest.mark.parametrize(
    ("make", "probabilities"),
    [
        (lambda key: channels.geometric(0.3, key=key, max_delay=6), 0.3 * 0.7 ** np.arange(7)),
        (
            lambda key: channels.exponential(2.0, key=key, max_delay=6),
            np.exp(-np.arange(7) / 2) - np.exp(-np.arange(1, 8) / 2),
        ),
        (lambda key: channels.uniform(1, 4, key=key), np.array([0, 1, 1, 1, 1]) / 4),
        (lambda key: channels.uniform(2, 6, key=key, max_delay=4), np.array([0, 0, 1, 1, 1]) / 5),
        (
            lambda key: channels.pareto(1.5, key=key, max_delay=6),
            np.arange(1.0, 8) ** -1.5 - np.arange(2.0, 9) ** -1.5,
        ),
        (
            lambda key: channels.lossy(channels.uniform(0, 1, key=key), 0.2, key=key),
            np.array([0.4, 0.4]),
        ),
        (
            # In the stationary state, from the first step on, and with a chain that likes to change its state.
            lambda key: channels.congestion(np.zeros(DRAWS, int), np.ones(DRAWS, int), onset=0.9, relief=0.6, key=key),
            np.array([0.4, 0.6]),
        ),
    ],
)
def test_delays_have_the_distribution_of_their_law(make, probabilities):
    """By chi-square over 24000 messages or, of the chain, states; what is beyond max_delay is lost with the rest."""
    keys = jax.random.split(jax.random.key(8), 12000)
    agents = jnp.array([[1, 2], [0, 3]], jnp.int32)
    if probabilities.tolist() == [0.4, 0.6]:
        delays = jax.jit(jax.vmap(lambda key: make(key).is_congested(jnp.asarray(3))))(keys).astype(int)
    else:
        delays = jax.jit(jax.vmap(lambda key: make(key).at(jnp.asarray(3), agents)[0]))(keys)
        chance = jax.jit(lambda key: make(key).arrival_probability(jnp.asarray(3), agents))(keys[0])[0]
        np.testing.assert_allclose(chance, probabilities.sum(), rtol=1e-6)
    counts = np.array([np.sum(delays == k) for k in [*range(len(probabilities)), -1]])
    expected = np.append(probabilities, 1 - probabilities.sum()) * delays.size
    assert counts.sum() == delays.size
    assert np.all(counts[expected < 1e-6] == 0)
    possible = expected > 1e-6
    degrees = possible.sum() - 1
    # Four standard deviations of a chi-square number above its mean.
    distance = np.sum((counts - expected)[possible] ** 2 / expected[possible])
    assert distance < degrees + 4 * np.sqrt(2 * degrees)


def test_a_message_over_links_takes_the_sum_of_what_they_take():
    """2h waits of 1 + law: by convolution of the law of one, written out; on a path of four agents."""
    one = np.append(0, 0.6 * 0.4 ** np.arange(4))
    keys = jax.random.split(jax.random.key(9), 8000)
    agents = jnp.broadcast_to(jnp.arange(4), (4, 4)).astype(jnp.int32)
    delays = np.asarray(jax.jit(jax.vmap(lambda key: LAWS["per_link"](key).at(jnp.asarray(2), agents)))(keys))[:, 0]
    chances = jax.jit(lambda key: LAWS["per_link"](key).arrival_probability(jnp.asarray(2), agents))(keys[0])[0]
    of_path = np.ones(1)
    assert not delays[:, 0].any()
    for hops in (1, 2, 3):
        of_path = np.convolve(np.convolve(of_path, one), one)
        probabilities = np.pad(of_path, (0, 10))[:10]
        shares = [np.mean(delays[:, hops] == k) for k in range(10)]
        np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / np.sqrt(8000))
        np.testing.assert_allclose(chances[hops], probabilities.sum(), rtol=1e-5)
        np.testing.assert_allclose(np.mean(delays[:, hops] < 0), 1 - probabilities.sum(), atol=4 * 0.5 / np.sqrt(8000))


def test_links_lose_messages_of_long_paths_more_often():
    keys = jax.random.split(jax.random.key(10), 8000)
    agents = jnp.broadcast_to(jnp.arange(4), (4, 4)).astype(jnp.int32)
    law = functools.partial(channels.lossy, STATIC, 0.1, routes=ROUTES)
    lost = jax.jit(jax.vmap(lambda key: law(key=key).at(jnp.asarray(2), agents) < 0))(keys).mean(axis=0)
    expected = 1 - 0.9 ** (2 * np.abs(np.subtract.outer(range(4), range(4))))
    np.testing.assert_allclose(lost, expected, atol=4 * 0.5 / np.sqrt(8000))
    np.testing.assert_allclose(law(key=keys[0]).arrival_probability(jnp.asarray(2), agents), 1 - expected, rtol=1e-6)


@pytest.mark.parametrize(("onset", "relief"), [(0.05, 0.2), (0.9, 0.7), (0.0, 0.3), (1.0, 1.0), (0.4, 0.6)])
def test_congestion_is_a_markov_chain(onset, relief):
    """States follow each other with the probabilities of the chain, and know nothing of those before."""

    def states(key):
        law = channels.congestion(np.zeros((1, 1), int), np.ones((1, 1), int), onset=onset, relief=relief, key=key)
        return jax.vmap(law.is_congested)(jnp.arange(1, 41))

    chains = np.asarray(jax.jit(jax.vmap(states))(jax.random.split(jax.random.key(11), 300)))
    before, after = chains[:, :-1], chains[:, 1:]
    for state, probability in ((False, onset), (True, 1 - relief)):
        if np.any(before == state):
            count = np.sum(before == state)
            np.testing.assert_allclose(after[before == state].mean(), probability, atol=4 * 0.5 / np.sqrt(count))
    np.testing.assert_allclose(chains[:, 0].mean(), onset / (onset + relief), atol=4 * 0.5 / np.sqrt(300))
    # Two steps apart as well: given the one between, what was before says nothing more.
    both = chains[:, :-2][chains[:, 1:-1]], chains[:, 2:][chains[:, 1:-1]]
    if 0 < onset < 1:
        assert abs(np.corrcoef(both)[0, 1]) < 4 / np.sqrt(both[0].size)


@over_laws
def test_the_same_key_gives_the_same_delays_whatever_asks(name):
    """Eagerly or compiled, one step or all, a matrix of weights or a list of edges, in either precision."""
    make, key, shape = LAWS[name], jax.random.key(12), (NUM_AGENTS, NUM_AGENTS)
    table = delays_of(make, key, shape, NUM_STEPS)
    law = make(key)
    everyone = jnp.broadcast_to(jnp.arange(NUM_AGENTS, dtype=jnp.int32), shape)
    np.testing.assert_array_equal(law.at(jnp.asarray(7, jnp.int32), everyone), table[6])
    if name not in ("per_link", "lossy_links", "table"):  # those have columns of their own
        agents = np.array([[2, 0], [3, 1], [1, 0], [0, 3]])
        edges = law.table(NUM_STEPS, (NUM_AGENTS, 2), agents=agents)
        np.testing.assert_array_equal(edges, np.take_along_axis(table, agents[None], axis=2))
    assert table.dtype == np.int32
    assert table.max() <= law.max_delay
    jax.config.update("jax_enable_x64", False)
    np.testing.assert_array_equal(delays_of(make, key, shape, NUM_STEPS), table)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_draws_are_uniform_and_the_same_for_all_that_are_mapped(impl):
    """Of every kind of key that is taken: against the distribution, and mapped over steps against step by step."""
    key, agents = jax.random.key(3, impl=impl), jnp.broadcast_to(jnp.arange(12), (12, 12))
    together = np.asarray(jax.vmap(lambda time: draws(key, time, agents))(jnp.arange(1, 101)))
    assert scipy.stats.kstest(together.ravel(), "uniform").pvalue > 1e-3
    assert ((together > 0) & (together <= 1)).all()
    np.testing.assert_array_equal(together[6], draws(key, jnp.asarray(7), agents))
    np.testing.assert_array_equal(together[6][:, 3:5], draws(key, jnp.asarray(7), agents[:, 3:5]))


def test_keys_and_steps_and_pairs_differ():
    law = channels.uniform(0, 10**6, key=jax.random.key(13))
    table = np.asarray(law.table(20, (20, 20)))
    away = table[:, ~np.eye(20, dtype=bool)]
    assert len(np.unique(away)) > 0.99 * away.size
    assert not np.array_equal(table, channels.uniform(0, 10**6, key=jax.random.key(14)).table(20, (20, 20)))


def test_bins_are_rings_under_a_law_that_never_changes():
    problem, weights = problem_of(), weights_of(np.random.default_rng(15))
    rings = damjax.dam_togd(problem.objective, weights, STATIC, learning_rate=RATE, domain=BALL)
    bins = damjax.dam_togd(problem.objective, weights, channels.table(STATIC), learning_rate=RATE, domain=BALL)
    tiled = channels.table(np.tile(STATIC, (NUM_STEPS, 1, 1)))
    by_step = damjax.dam_togd(problem.objective, weights, tiled, learning_rate=RATE, domain=BALL)
    _, expected = damjax.simulate(rings, problem.params, problem.stream)
    for algorithm in (bins, by_step):
        state, trace = damjax.simulate(algorithm, problem.params, problem.stream)
        assert type(state.box).__name__ == "Bins"
        np.testing.assert_allclose(trace.params, expected.params, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(trace.info.mean_age, expected.info.mean_age)


def test_what_is_too_late_is_lost_and_never_wrapped():
    """A message of 7 steps in a channel for 2 neither arrives 7 mod 3 steps later nor ever."""
    problem, weights = problem_of(), np.roll(np.eye(NUM_AGENTS), 1, axis=1)
    table = np.full((NUM_STEPS, NUM_AGENTS, NUM_AGENTS), 7)
    table[::2] = 2
    law = channels.table(table, max_delay=2)
    algorithm = damjax.dam_togd(problem.objective, weights, law, learning_rate=RATE, domain=BALL)
    _, trace = damjax.simulate(algorithm, problem.params, problem.stream)
    np.testing.assert_array_equal(trace.info.num_lost[:, 0], np.arange(NUM_STEPS) % 2)
    np.testing.assert_array_equal(trace.info.num_applied[:, 0], [0, 0, *(1 - np.arange(NUM_STEPS) % 2)[:-2]])
    assert set(np.unique(trace.info.mean_age)) == {-1, 2}


@pytest.mark.parametrize("mapping", [jax.vmap, damjax.vmap_last])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_map_over_the_numbers_of_a_law_and_its_key(mapping, dtype):
    problem, weights = problem_of(dtype), weights_of(np.random.default_rng(16)).astype(dtype)

    def final(p, onset, key):
        calm = channels.geometric(p, key=key, max_delay=4)
        jam = channels.uniform(1, 5, key=key)
        law = channels.lossy(channels.congestion(calm, jam, onset=onset, relief=0.5, key=key), 1 - p, key=key)
        algorithm = damjax.dam_togd(problem.objective, weights, law, learning_rate=RATE, domain=BALL, reweight=True)
        return damjax.simulate(algorithm, jnp.asarray(problem.params), problem.stream)[0].params

    settings = jnp.array([0.3, 0.9, 1.0]), jnp.array([0.1, 0.6, 0.0]), jax.random.split(jax.random.key(17), 3)
    together = jax.jit(mapping(final))(*settings)
    alone = jax.jit(final)
    for i in range(3):
        np.testing.assert_allclose(
            together[i], alone(*(x[i] for x in settings)), rtol=1e-9 if dtype == np.float64 else 1e-4, atol=1e-6
        )
    assert together.dtype == dtype


def test_a_run_compiles_once_for_all_keys_and_numbers():
    problem, weights, traces = problem_of(), weights_of(np.random.default_rng(18)), []

    @jax.jit
    def final(law):
        traces.append(law)
        algorithm = damjax.dam_togd(problem.objective, weights, law, learning_rate=RATE, domain=BALL)
        return damjax.simulate(algorithm, problem.params, problem.stream)[0].params

    results = [
        final(channels.lossy(channels.geometric(p, key=jax.random.key(i), max_delay=3), 0.1, key=jax.random.key(i)))
        for i, p in enumerate((0.2, 0.5))
    ]
    assert len(traces) == 1
    assert not np.allclose(*results)


def test_a_run_under_a_law_has_the_derivatives_of_its_floats():
    """In rate, weights and first memories, by finite differences; with the law's own numbers traced beside them."""
    problem, weights = problem_of(), weights_of(np.random.default_rng(19))
    weights = np.where(weights > 0, weights, 0)

    @jax.jit
    def loss(rate, tilt, params, p):
        law = channels.lossy(channels.geometric(p, key=jax.random.key(20), max_delay=4), 0.2, key=jax.random.key(21))
        mixed = weights * jnp.exp(tilt * np.arange(1.0, NUM_AGENTS + 1))[None]
        mixed = mixed / mixed.sum(axis=1, keepdims=True)
        algorithm = damjax.dam_togd(problem.objective, mixed, law, learning_rate=rate, domain=BALL, reweight=True)
        return jnp.sum(damjax.simulate(algorithm, params, problem.stream)[0].params ** 2)

    point = 0.1, 0.2, jnp.asarray(problem.params)
    slopes = jax.grad(loss, argnums=(0, 1, 2))(*point, 0.5)
    step = 1e-6
    for i, direction in enumerate((1.0, 1.0, np.random.default_rng(22).normal(size=problem.params.shape))):
        ahead, behind = (
            loss(*(x + sign * step * direction if j == i else x for j, x in enumerate(point)), 0.5) for sign in (1, -1)
        )
        np.testing.assert_allclose(np.sum(slopes[i] * direction), (ahead - behind) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("p", lambda x: channels.geometric(x, key=jax.random.key(0), max_delay=3)),
        ("mean", lambda x: channels.exponential(x, key=jax.random.key(0), max_delay=3)),
        ("alpha", lambda x: channels.pareto(x, key=jax.random.key(0), max_delay=3)),
        ("p", lambda x: channels.lossy(STATIC, x, key=jax.random.key(0))),
        ("relief", lambda x: channels.congestion(STATIC, STATIC, onset=0.1, relief=x, key=jax.random.key(0))),
        ("low", lambda x: channels.uniform(x, 3, key=jax.random.key(0))),
        ("delays", lambda x: channels.table(x * STATIC.astype(float), max_delay=5)),
        ("delays", lambda x: x * STATIC.astype(float)),
    ],
)
@pytest.mark.parametrize("transformed", [jax.grad, lambda f: jax.jit(jax.grad(f))])
def test_no_run_is_differentiated_in_its_delays(name, law, transformed, untyped):
    """Where the derivative would be zero without a word, an error names the way that has one."""
    problem, weights = problem_of(), np.full((NUM_AGENTS, NUM_AGENTS), 0.25)

    def loss(x):
        algorithm = damjax.dam_togd(problem.objective, weights, law(x), learning_rate=RATE, domain=BALL, max_delay=5)
        return jnp.sum(damjax.simulate(algorithm, problem.params, problem.stream)[0].params)

    with pytest.raises(ValueError, match=rf"^{name} must .*damjax\.bounds"):
        transformed(loss)(0.5)


wrong: Any = None
half: Any = 0.5
function: Any = lambda time: STATIC  # noqa: E731
KEY = jax.random.key(0)
UNIFORM = channels.uniform(0, 2, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: channels.geometric(0.0, key=KEY, max_delay=3), "p must be finite and positive, but it is 0.0"),
        (lambda: channels.geometric(1.5, key=KEY, max_delay=3), r"p must lie in \[0, 1\], but it is 1.5"),
        (lambda: channels.geometric(np.ones(2), key=KEY, max_delay=3), "p must be one number"),
        (lambda: channels.geometric(0.5, key=KEY, max_delay=-1), "max_delay must be a non-negative integer"),
        (lambda: channels.exponential(-1.0, key=KEY, max_delay=3), "mean must be finite and positive"),
        (lambda: channels.pareto(0.0, key=KEY, max_delay=3), "alpha must be finite and positive"),
        (lambda: channels.uniform(half, 3, key=KEY), "low must be integers .*damjax.bounds"),
        (lambda: channels.uniform(-1, 3, key=KEY), "low must be a non-negative integer"),
        (lambda: channels.uniform(4, 3, key=KEY), "high must be at least low, 4, but it is 3"),
        (lambda: jax.jit(lambda x: channels.uniform(0, x, key=KEY).high)(3), "max_delay must be given when high"),
        (lambda: channels.per_link(wrong, UNIFORM), "routes must be of type Routes"),
        (lambda: channels.per_link(ROUTES, wrong), "law must be of type Independent"),
        (lambda: channels.lossy(STATIC, 1.5, key=KEY), r"p must lie in \[0, 1\]"),
        (lambda: channels.lossy(function, 0.5, key=KEY), "law must be a law of damjax.channels"),
        (
            lambda: channels.geometric(0.3, key=cast(Any, 3), max_delay=5),
            r"key must be one key, jax.random.key\(seed\), but it is 3",
        ),
        (lambda: channels.pareto(1.0, key=jax.random.split(KEY), max_delay=5), "key must be one key"),
        (lambda: channels.lossy(STATIC, 0.5, key=cast(Any, None)), "key must be one key"),
        (
            lambda: channels.congestion(STATIC, STATIC, onset=0.1, relief=1.0, key=cast(Any, np.zeros(2))),
            "key must be one key",
        ),
        (lambda: channels.quantised(8, key=cast(Any, 0)), "key must be one key"),
        (lambda: channels.uniform(1, 3, key=jax.random.key(0, impl="unsafe_rbg")), "its kind is unsafe_rbg"),
        (lambda: channels.congestion(STATIC, STATIC, onset=-0.1, relief=1.0, key=KEY), "onset must lie"),
        (lambda: channels.table(STATIC[0]), r"delays must be a table \(T, N, K\)"),
        (lambda: channels.table(1.0 * STATIC), "delays must be integers"),
        (lambda: jax.jit(lambda x: channels.table(x).delays)(STATIC), "max_delay must be given when delays is traced"),
        (lambda: channels.bursts(-1), "max_delay must be a non-negative integer"),
        (lambda: UNIFORM.table(3, (4, 2)), "agents must say whom each column is about"),
        (lambda: UNIFORM.table(3, (4, 2), agents=np.zeros((4, 4), int)), r"agents must have the shape \(4, 2\)"),
        (lambda: connected(UNIFORM, max_delay=1), "max_delay must be at least that of the law, 2, but it is 1"),
        (lambda: connected(channels.table(np.zeros((3, 2, 2), int))), r"delays must have shape \(4, 4\)"),
        (lambda: connected(STATIC, reweight=True), "delays must be a law where losses are made up for"),
        (
            lambda: connected(LAWS["table"](KEY), reweight=True),
            "Table has no arrival_probability",
        ),
    ],
)
def test_wrong_calls(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()


def connected(delays, **settings):
    return channels.connect(problem_of().objective, np.full((4, 4), 0.25), delays, **settings)
