"""Weights of single associations: a loss counts s times, and what is missing counts for nothing, whatever it holds."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import bounds, channels, hindsight, regret, streams
from damjax.algorithms import descend
from tests import reference
from tests.cases import OBJECTIVES, case, connected_graph, in_the_long_run, interests, objective, over, over_objectives

NUM_AGENTS, NUM_STEPS, RADIUS = 4, 16, 1.5
BALL, RATE = damjax.domains.frobenius_ball(RADIUS), damjax.schedules.inverse_sqrt(0.4)
TIMELESS = ("delta_net", "gated_linear_attention", "cross_entropy")


@dataclass
class Weighted(reference.Problem):
    """The problem whose losses count s times, (T, N)."""

    sample_weights: np.ndarray = None  # pyright: ignore[reportAssignmentType]

    def gradient(self, params, agent, time):
        return self.sample_weights[time - 1, agent] * super().gradient(params, agent, time)


def spoil(stream, sample_weights):
    """The stream with sample weights, of which everything that is missing is NaN."""
    missing = sample_weights == 0

    def gone(field):
        return np.where(missing.reshape(missing.shape + (1,) * (np.ndim(field) - 2)), np.nan, field)

    return jax.tree.map(gone, stream)._replace(sample_weights=sample_weights)


def setting(name, seed=0, dtype=np.float64, num_steps=NUM_STEPS):
    """A stream with missing associations and weights in [0, 2], for the library; and for the reference."""
    rng = np.random.default_rng(seed)
    made = case(rng, name, num_agents=NUM_AGENTS, num_steps=num_steps, dtype=dtype)
    sample_weights = np.where(rng.random((num_steps, NUM_AGENTS)) < 0.3, 0, rng.uniform(0, 2, (num_steps, NUM_AGENTS)))
    sample_weights = sample_weights.astype(dtype)
    problem = Weighted(**vars(made.problem), sample_weights=sample_weights)
    return made, spoil(made.stream, sample_weights), problem, interests(rng, NUM_AGENTS).astype(dtype)


def run(algorithm, params, stream):
    """X_1..X_{T+1}, and the trace."""
    state, trace = jax.jit(lambda params, stream: damjax.simulate(algorithm, params, stream))(params, stream)
    return np.concatenate([trace.params, state.params[None]]), trace


def check_same(found, expected, dtype=np.float64):
    """To rounding."""
    rtol, atol = (1e-10, 1e-12) if dtype == np.float64 else (1e-5, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@over(OBJECTIVES)
@pytest.mark.parametrize("dtype", [np.float64, *in_the_long_run(np.float32)])
def test_every_algorithm_follows_the_messages_of_weighted_losses(name, dtype):
    """Matrices and edge lists, rings and bins: gradients s r phi' + s D * X, and nothing of what is missing."""
    made, stream, problem, weights = setting(name, dtype=dtype)
    rate, start = (lambda t: 0.4 / t**0.5), made.params
    settings = {"learning_rate": RATE, "domain": BALL}
    project = reference.ball(RADIUS)
    check = functools.partial(check_same, dtype=dtype)

    expected = reference.ogd(problem, weights, start, rate=rate, project=project)
    for wanted in (weights, damjax.weights.sparse(weights)):
        found, _ = run(damjax.ogd(made.objective, wanted, **settings), start, stream)
        check(found, expected)

    graph = connected_graph(np.random.default_rng(1), NUM_AGENTS)
    mixing = damjax.graphs.metropolis_weights(graph).astype(dtype)
    expected = reference.c_dogd(problem, mixing, start, rate=rate, project=project, order="adapt_then_combine")
    check(run(damjax.c_dogd(made.objective, mixing, **settings), start, stream)[0], expected)

    routes = damjax.routing.compile_routes(graph, weights)
    expected, applied = reference.dam_togd(problem, weights, routes.trees, start, rate=rate, project=project)
    table = damjax.weights.sparse(weights)
    columns = np.take_along_axis(routes.delays, np.asarray(table.agents), axis=1)
    for wanted, delays in ((weights, routes.delays), (table, columns)):
        for connect in (channels.connect, channels.arrival_bins):
            found, trace = run(descend(connect(made.objective, wanted, delays), **settings), start, stream)
            check(found, expected)
            # An answer about what is missing is an answer.
            np.testing.assert_array_equal(trace.info.num_applied, applied)
            assert found.dtype == dtype


@over_objectives
def test_losses_and_norms_are_those_of_the_weighted_losses(name):
    made, stream, problem, weights = setting(name)
    trace = np.random.default_rng(1).normal(size=(NUM_STEPS, *made.params.shape))
    expected, norms = np.zeros((2, NUM_STEPS, NUM_AGENTS, NUM_AGENTS))
    for t, n, m in np.ndindex(expected.shape):
        gate = None if problem.gates is None else problem.gates[t, m]
        loss = reference.loss(name, trace[t, n], problem.features[t, m], problem.values[t, m], gate, t + 1)
        expected[t, n, m] = weights[n, m] * problem.sample_weights[t, m] * loss
        norms[t, n, m] = weights[n, m] * np.linalg.norm(problem.gradient(trace[t, n], m, t + 1))
    for wanted in (weights, damjax.weights.sparse(weights)):
        check_same(regret.personalized_losses(made.objective, wanted, trace, stream), expected.sum(axis=2))
    observe = bounds.observe_gradient_norms(made.objective, weights)
    for t in (0, 5):
        now = jax.tree.map(lambda field, t=t: jnp.asarray(field[t]), stream)
        info = damjax.Info(jnp.asarray(t + 1), *[jnp.zeros(NUM_AGENTS)] * 4)
        check_same(observe(jnp.asarray(trace[t]), now, info).messages, norms[t])


def perceptron(params, key):
    return params["out"] @ jnp.tanh(params["hidden"] @ key)


def squared(prediction, value, time):
    return 0.5 * jnp.sum((prediction - value) ** 2)


def test_memories_of_any_shape():
    """The linear one is the rank-one path; a step of a perceptron is that of the weighted losses."""
    made, stream, problem, weights = setting("delta_net")
    delays = np.random.default_rng(2).integers(0, 4, (NUM_AGENTS, NUM_AGENTS))
    settings = {"learning_rate": RATE, "domain": BALL}
    linear = damjax.objectives.of_memory(lambda params, key: params["matrix"] @ key, squared)
    state, _ = damjax.simulate(damjax.dam_togd(made.objective, weights, delays, **settings), made.params, stream)
    same, _ = damjax.simulate(damjax.dam_togd(linear, weights, delays, **settings), {"matrix": made.params}, stream)
    check_same(same.params["matrix"], state.params)

    rng = np.random.default_rng(3)
    tree = {"out": rng.normal(size=(NUM_AGENTS, 2, 3)), "hidden": rng.normal(size=(NUM_AGENTS, 3, 3))}
    general = damjax.objectives.of_memory(perceptron, squared)
    now = jax.tree.map(lambda field: jnp.asarray(field[0]), stream)

    def loss(memory, agent):
        each = jax.vmap(lambda key, value: squared(perceptron(memory, key), value, 1.0))
        losses = each(jnp.asarray(made.stream.keys)[0], jnp.asarray(made.stream.values)[0])
        return jnp.sum(weights[agent] * problem.sample_weights[0] * losses)

    descent = damjax.ogd(general, weights, learning_rate=0.1, domain=damjax.domains.unconstrained())
    after, _ = descent.step(descent.init(tree), now)
    losses = regret.step_losses(general, weights, tree, now, 1)
    for n in range(NUM_AGENTS):
        one = jax.tree.map(lambda leaf, n=n: jnp.asarray(leaf[n]), tree)
        value, slope = jax.value_and_grad(loss)(one, n)
        check_same(losses[n], value)
        for name in tree:
            check_same(after.params[name][n], tree[name][n] - 0.1 * slope[name])


def test_messages_that_cost_less_carry_the_weights():
    """Powers of two are exact: a rounded answer counts s times too. Periodic questions, and bins beside rings."""
    made, _, _, weights = setting("gated_linear_attention")
    rng = np.random.default_rng(4)
    sample_weights = rng.choice([0.0, 1.0, 2.0, 4.0], (NUM_STEPS, NUM_AGENTS))
    stream = spoil(made.stream, sample_weights)
    delays = rng.integers(0, 4, (NUM_AGENTS, NUM_AGENTS))
    answers = channels.quantised(4, key=jax.random.key(0))

    def weigh(time, asked):
        now = jnp.asarray(sample_weights)[time - 1][None, :, None, None]
        return now * answers(time, asked._replace(associations=plain(time)))

    def plain(time):
        return jax.tree.map(lambda field: jnp.asarray(field)[time - 1], made.stream)

    settings = {"learning_rate": RATE, "domain": BALL}
    found, _ = run(damjax.dam_togd(made.objective, weights, delays, answers=answers, **settings), made.params, stream)
    by_hand = damjax.dam_togd(made.objective, weights, delays, answers=weigh, **settings)
    check_same(found, run(by_hand, made.params, made.stream)[0])

    made, stream, problem, _ = setting("delta_net")
    np.fill_diagonal(delays, 0)
    periodic = channels.periodic(channels.connect(made.objective, weights, delays), made.objective, weights, 3)
    found, _ = run(descend(periodic, **settings), made.params, stream)
    seen, expected = [], made.params.copy()
    for t in range(1, NUM_STEPS + 1):
        gradient = np.zeros_like(expected)
        seen.append(expected.copy())
        for n, m in zip(*np.nonzero(weights), strict=True):
            s = t - delays[n, m]
            if s >= 1:
                # Of oneself the present memory is asked, of others the last one of which they heard.
                asked = s if n == m else s - (s - 1) % 3
                gradient[n] += weights[n, m] * problem.gradient(seen[asked - 1][n], m, s)
        for n in range(NUM_AGENTS):
            if (count := t - delays[n][weights[n] > 0].min()) > 0:
                expected[n] = reference.ball(RADIUS)(expected[n] - 0.4 / count**0.5 * gradient[n])
    check_same(found[-1], expected)


@over(TIMELESS, common=TIMELESS)
@pytest.mark.parametrize("changing", [False, *in_the_long_run(True)])
def test_the_best_memory_of_what_is_there_is_that_of_a_shorter_stream(name, changing):
    """Weights 0 and 1 leave steps out; a weight of 3 is the same association three times."""
    made, *_ = setting(name)
    times = np.array([0, 1, 1, 1, 3, 4, 4, 4, 7, 8, 11, 11, 11, 15])
    counts = np.bincount(times, minlength=NUM_STEPS)
    stream = spoil(made.stream, np.repeat(counts[:, None], NUM_AGENTS, axis=1).astype(float))
    shorter = jax.tree.map(lambda field: field[times], made.stream)
    weights = interests(np.random.default_rng(5), NUM_AGENTS)
    wanted, of_shorter = weights, weights
    if changing:
        present = np.array([[True] * NUM_AGENTS, [True] * (NUM_AGENTS - 1) + [False]])
        wanted = damjax.weights.over_epochs(weights, [1, 8], present)
        of_shorter = damjax.weights.over_epochs(weights, [1, 1 + int(counts[:7].sum())], present)
    for domain in (damjax.domains.frobenius_ball(0.4), damjax.domains.box(-0.3, 0.5, shape=(2, 3))):
        found = hindsight.best_in_hindsight(made.objective, wanted, domain, stream, [5, NUM_STEPS])
        horizons = [int(counts[:5].sum()), len(times)]
        expected = hindsight.best_in_hindsight(made.objective, of_shorter, domain, shorter, horizons)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9, atol=1e-9)
        assert np.all(np.abs(found.gap) <= 1e-7 * (1 + np.abs(found.loss)))


@over_objectives
def test_twice_the_weights_are_twice_the_losses(name):
    """Losses, the best memory's too, their slopes and, of the same memories, the regret."""
    made, stream, problem, weights = setting(name)
    double = stream._replace(sample_weights=2 * problem.sample_weights)
    trace = 0.3 * np.random.default_rng(1).normal(size=(NUM_STEPS, *made.params.shape))
    small = damjax.domains.frobenius_ball(0.5)

    def measure(stream):
        losses = regret.personalized_losses(made.objective, weights, trace, stream)
        against = regret.static_regret(losses, made.objective, weights, small, stream, [7, NUM_STEPS])
        return losses, against, bounds.constants(made.objective, small, stream).lipschitz

    for once, twice in zip(measure(stream), measure(double), strict=True):
        assert np.all(np.isfinite(once))
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-9, atol=1e-9)


@pytest.mark.long
@over_objectives
@pytest.mark.parametrize("shape", ["ball", "box"])
def test_slopes_are_bounded_by_weighted_constants(name, shape):
    """No gradient at a random memory of the set exceeds them, and they are finite where data are missing."""
    made, stream, problem, _ = setting(name)
    domain = damjax.domains.frobenius_ball(0.8) if shape == "ball" else damjax.domains.box(-0.3, 0.5)
    found = np.asarray(bounds.constants(made.objective, domain, stream).lipschitz)
    rng = np.random.default_rng(6)
    for m in range(NUM_AGENTS):
        norms = [
            np.linalg.norm(problem.gradient(np.asarray(domain.project(memory)), m, t + 1))
            for memory in 3 * rng.normal(size=(20, *made.params.shape[1:]))
            for t in range(NUM_STEPS)
        ]
        assert max(norms) <= found[m] * (1 + 1e-9)
    assert np.all(found <= 2 * np.asarray(bounds.constants(made.objective, domain, made.stream).lipschitz))


@pytest.mark.long
@over(("delta_net", "gated_linear_attention", "cross_entropy"))
def test_no_bound_is_exceeded(name):
    """On 40 random instances, with the regret of weighted losses."""
    num_instances = 40

    def instance(seed):
        rng = np.random.default_rng(seed)
        made = case(rng, name, num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
        gates = rng.uniform(0.3, 1, (NUM_STEPS, NUM_AGENTS)) if made.objective.gated else None
        sample_weights = rng.choice([0, 1, 3], (NUM_STEPS, NUM_AGENTS)) * rng.uniform(0, 1, (NUM_STEPS, NUM_AGENTS))
        stream = spoil(made.stream._replace(gates=gates), sample_weights)
        weights = interests(rng, NUM_AGENTS, keep_self=1.0)
        delays = rng.integers(0, 4, (NUM_AGENTS, NUM_AGENTS)) * (1 - np.eye(NUM_AGENTS, dtype=int))
        return weights, delays, stream, rng.uniform(0.2, 2), np.exp(rng.uniform(-2, 2))

    def measure(weights, delays, stream, radius, scale):
        ball, rate = damjax.domains.frobenius_ball(radius), damjax.schedules.inverse_sqrt(scale)
        loss = objective(name, 3)
        algorithm = damjax.dam_togd(loss, weights, delays, learning_rate=rate, domain=ball, max_delay=3)
        observe = lambda *seen: (regret.observe_losses(loss, weights)(*seen), norms(*seen))  # noqa: E731
        norms = bounds.observe_gradient_norms(loss, weights)
        _, (losses, seen) = damjax.simulate(algorithm, jnp.zeros((NUM_AGENTS, 2, 3)), stream, observe=observe)
        found = regret.static_regret(losses, loss, weights, ball, stream, [NUM_STEPS])[0]
        known = bounds.constants(loss, ball, stream)
        table = {
            "rates": bounds.applied_rates(rate, weights, delays, NUM_STEPS),
            "arrivals": bounds.arrivals(delays, NUM_STEPS),
        }
        return found, (
            bounds.weighted_delay(weights, delays, known, scale=scale, horizon=NUM_STEPS),
            bounds.realised_delay(weights, known, **table),
            bounds.certificate(seen, ball.diameter, **table),
        )

    drawn = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(instance, range(num_instances)))
    found, limits = jax.jit(jax.vmap(measure))(*drawn)
    for limit in limits:
        assert np.all(np.isfinite(limit))
        assert np.all(found <= limit * (1 + 1e-9) + 1e-9)
    # The certificate is not far above what happened.
    assert np.any(limits[2] < 20 * np.abs(found))


@pytest.mark.long
@pytest.mark.parametrize("mapping", [damjax.vmap_last, *in_the_long_run(jax.vmap)])
@pytest.mark.parametrize("name", ["delta_net", "gated_linear_attention"])
def test_runs_map_over_weights_and_differentiate_in_them(name, mapping):
    """A run and its regret, against differences; of what is missing the derivative is 0 and not NaN."""
    made, stream, _, weights = setting(name, num_steps=8)
    delays = np.random.default_rng(2).integers(0, 3, (NUM_AGENTS, NUM_AGENTS))

    def total(sample_weights, keys):
        seen = stream._replace(sample_weights=sample_weights, keys=keys)
        algorithm = damjax.dam_togd(made.objective, weights, delays, learning_rate=RATE, domain=BALL)
        observe = regret.observe_losses(made.objective, weights)
        _, losses = damjax.simulate(algorithm, jnp.asarray(made.params), seen, observe=observe)
        return jnp.sum(regret.static_regret(losses, made.objective, weights, BALL, seen, [8]))

    at, keys = jnp.asarray(stream.sample_weights), jnp.asarray(stream.keys)
    several = jnp.stack([at, 0.5 * at])
    together = jax.jit(mapping(total, (0, None)))(several, keys)
    check_same(together, np.array([total(one, keys) for one in several]))

    slope, in_keys = jax.jit(jax.grad(total, argnums=(0, 1)))(at, keys)
    assert np.all(np.isfinite(slope))
    assert np.all(np.isfinite(in_keys))
    assert not np.any(np.asarray(slope)[at == 0])
    assert not np.any(np.asarray(in_keys)[at == 0])
    direction = np.where(at > 0, np.random.default_rng(7).normal(size=at.shape), 0)
    step = 1e-6
    change = (total(at + step * direction, keys) - total(at - step * direction, keys)) / (2 * step)
    np.testing.assert_allclose(np.sum(slope * direction), change, rtol=1e-6)


def test_zeros_for_what_is_missing_are_no_cues():
    """Padding with zeros is common, and a feature map may be singular there: derivatives stay finite."""
    loss_of = damjax.objectives.delta_net()._replace(features=lambda key: key / jnp.linalg.norm(key))
    keys, sample_weights = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([0.0, 2.0])
    seen = damjax.Associations(keys, jnp.ones((2, 1)), None, sample_weights)

    def loss(params, keys):
        return regret.step_losses(loss_of, jnp.full((2, 2), 0.5), params, seen._replace(keys=keys), 1).sum()

    params = jnp.zeros((2, 1, 2))
    assert float(loss(params, keys)) == pytest.approx(1.0)
    in_params, in_keys = jax.grad(loss, argnums=(0, 1))(params, keys)
    np.testing.assert_allclose(in_params, np.broadcast_to([-0.6, -0.8], (2, 1, 2)), rtol=1e-12)
    assert np.all(np.isfinite(in_keys))


def test_what_is_there_and_not_finite_still_shows():
    made, stream, problem, weights = setting("delta_net")
    keys = np.array(stream.keys)
    place = tuple(np.argwhere(problem.sample_weights > 0)[0])
    keys[place] = np.nan
    losses = regret.personalized_losses(
        made.objective, weights, np.zeros((NUM_STEPS, *made.params.shape)), stream._replace(keys=keys)
    )
    np.testing.assert_array_equal(np.isnan(losses[place[0]]), weights[:, place[1]] > 0)
    assert np.all(np.isfinite(np.delete(losses, place[0], axis=0)))


def test_a_traced_weight_that_is_negative_is_nan():
    made, stream, _, weights = setting("delta_net")
    negative = np.array(stream.sample_weights)
    negative[0, 1] = -1.0
    algorithm = damjax.ogd(made.objective, weights, learning_rate=0.1, domain=BALL)
    final = jax.jit(lambda seen: damjax.simulate(algorithm, made.params, seen)[0].params)
    spoiled = final(stream._replace(sample_weights=negative))
    np.testing.assert_array_equal(np.isnan(spoiled).all(axis=(1, 2)), weights[:, 1] > 0)


def test_from_arrays_takes_weights_and_masks():
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(2, 5, 3, 2)).astype(np.float32)
    mask = rng.random((5, 3)) < 0.5
    keys[~mask], values[~mask] = np.nan, np.inf
    gates = np.where(mask, 0.5, 0).astype(np.float32)
    stream = streams.from_arrays(keys, values, gates, sample_weights=mask)
    assert stream.sample_weights is not None
    assert stream.sample_weights.dtype == np.float32
    np.testing.assert_array_equal(stream.sample_weights, mask)
    np.testing.assert_array_equal(stream.keys, keys)
    gated = damjax.objectives.gated_linear_attention()
    algorithm = damjax.ogd(gated, np.eye(3, dtype=np.float32), learning_rate=0.1, domain=BALL)
    state, _ = damjax.simulate(algorithm, np.zeros((3, 2, 2), np.float32), stream)
    assert np.all(np.isfinite(state.params))


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_weights_out_of_range_are_refused(wrong):
    made, _, _, weights = setting("delta_net")
    bad = np.ones((NUM_STEPS, NUM_AGENTS))
    bad[2, 1] = wrong
    algorithm = damjax.ogd(made.objective, weights, learning_rate=0.1, domain=BALL)
    with pytest.raises(ValueError, match=r"sample_weights must be finite.*sample_weights\[2, 1\] is"):
        damjax.simulate(algorithm, made.params, made.stream._replace(sample_weights=bad))
    with pytest.raises(ValueError, match=r"sample_weights must be finite"):
        streams.from_arrays(*made.stream[:2], sample_weights=bad)


def test_weights_of_another_shape_or_dtype_are_refused(untyped):
    made, *_ = setting("delta_net")
    now = jax.tree.map(lambda field: jnp.asarray(field[0]), made.stream)
    algorithm = damjax.ogd(made.objective, np.eye(NUM_AGENTS), learning_rate=0.1, domain=BALL)
    state = algorithm.init(made.params)
    for bad, message in ((jnp.ones((NUM_AGENTS, 1)), "must have shape"), (jnp.ones(NUM_AGENTS, np.float32), "dtype")):
        with pytest.raises(ValueError, match=f"associations.sample_weights .*{message}"):
            algorithm.step(state, now._replace(sample_weights=bad))
    with pytest.raises(ValueError, match="sample_weights must start with the steps"):
        streams.from_arrays(*made.stream[:2], sample_weights=np.ones((2, NUM_AGENTS)))
    with pytest.raises(ValueError, match="sample_weights must have shape"):
        streams.from_arrays(*made.stream[:2], sample_weights=np.ones((NUM_STEPS, NUM_AGENTS, 1)))
    with pytest.raises(ValueError, match="same leading T"):
        damjax.simulate(algorithm, made.params, made.stream._replace(sample_weights=np.ones((2, NUM_AGENTS))))
