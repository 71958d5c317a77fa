"""Memories of several heads against the slow truth: one block after the other, and one head that holds them all."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
import pytest

import damjax
from damjax import bounds, channels, features, hindsight, regret
from damjax.algorithms import descend
from damjax.weights.interests import as_interests
from tests import reference
from tests.cases import in_the_long_run, interests, over

NUM_AGENTS, NUM_STEPS, KEY_DIM, VALUE_DIM, RADIUS = 4, 16, 4, 6, 1.5
BALL, RATE = damjax.domains.frobenius_ball(RADIUS), damjax.schedules.inverse_sqrt(0.4)
NAMES = (
    "linear_attention",
    "gated_linear_attention",
    "delta_net",
    "normalized_softmax_attention",
    "gated_softmax_attention",
    "cross_entropy",
)
OUTPUTS = np.random.default_rng(11).normal(size=(5, VALUE_DIM))
over_objectives = over(NAMES, common=("delta_net", "gated_linear_attention", "cross_entropy"))


def maps_of(number):
    """Some feature maps of heads, all of a cue of four entries and three features a head."""
    keys = jax.random.split(jax.random.key(3), number)
    return [features.positive_orthogonal(key, key_dim=KEY_DIM, num_features=3) for key in keys]


def objective_of(name, feature_map):
    if name == "cross_entropy":
        return damjax.objectives.cross_entropy(OUTPUTS, feature_map)
    return getattr(damjax.objectives, name)(feature_map)


def blocks_of(params, num_heads):
    """One block of rows for each head."""
    return params.reshape(num_heads, -1, params.shape[-1])


def in_blocks(params, num_heads):
    """The memory of all heads as that of one on all features together: (dv, df) -> (dv, H df), zero off the blocks."""
    each, df = params.shape[0] // num_heads, params.shape[1]
    matrix = np.zeros((params.shape[0], num_heads * df), params.dtype)
    for h in range(num_heads):
        rows = slice(h * each, (h + 1) * each)
        matrix[rows, h * df : (h + 1) * df] = params[rows]
    return matrix


def from_blocks(matrix, num_heads):
    """Back."""
    each, df = matrix.shape[0] // num_heads, matrix.shape[1] // num_heads
    return np.concatenate([matrix[h * each : (h + 1) * each, h * df : (h + 1) * df] for h in range(num_heads)])


class Setting(NamedTuple):
    """One problem in three forms: of heads, of blocks as any memory, and of one head that holds them all."""

    heads: damjax.objectives.Objective
    general: damjax.objectives.MemoryObjective
    one: damjax.objectives.Objective
    stream: damjax.Associations
    params: np.ndarray
    weights: np.ndarray
    delays: np.ndarray


def setting(name, num_heads=2, seed=0, dtype: npt.DTypeLike = np.float64, feature_map=None, num_agents=NUM_AGENTS):
    """A random stream and start; gates are one number, one a row or one a feature."""
    rng = np.random.default_rng(seed)
    maps = maps_of(num_heads)
    mapped = features.heads(*maps) if feature_map is None else feature_map
    made = objective_of(name, mapped)
    df = mapped(jnp.ones(KEY_DIM)).shape[1]

    def apply(params, key):
        return jnp.concatenate(
            [block @ phi for block, phi in zip(blocks_of(params, num_heads), mapped(key), strict=True)]
        )

    def loss(prediction, value, time):
        return made.loss(prediction, value, time)

    keys = rng.uniform(-1, 1, (NUM_STEPS, num_agents, KEY_DIM)).astype(dtype)
    values = rng.normal(size=(NUM_STEPS, num_agents, VALUE_DIM)).astype(dtype)
    if name == "cross_entropy":
        values = OUTPUTS[rng.integers(len(OUTPUTS), size=values.shape[:2])].astype(dtype)
    shape = [(), (VALUE_DIM, 1), (1, df)][seed % 3]
    gates = rng.uniform(0.5, 1, (NUM_STEPS, num_agents, *shape)).astype(dtype) if made.gated else None
    return Setting(
        heads=made,
        general=damjax.objectives.of_memory(apply, loss),
        one=objective_of(name, lambda key: mapped(key).ravel()),
        stream=damjax.streams.from_arrays(keys, values, gates),
        params=(0.3 * rng.normal(size=(num_agents, VALUE_DIM, df))).astype(dtype),
        weights=interests(rng, num_agents).astype(dtype),
        delays=rng.integers(0, 4, (num_agents, num_agents)),
    )


def general_of(case):
    """The loss of blocks as of any memory, with its ridge part if there is one, by autodiff."""
    made, ridge = case.general, case.heads.ridge
    if ridge is None:
        return made

    class Ridged:
        gated = case.heads.gated

        def value(self, params, key, value, gate, time):
            return made.loss(params, key, value, None, time) + 0.5 * jnp.sum(ridge(gate, time) * params**2)

    return damjax.objectives.as_objective(Ridged())


def simulated(algorithm, params, stream):
    """X_1..X_{T+1}, and the diagnostics."""
    state, trace = jax.jit(lambda p, s: damjax.simulate(algorithm, p, s))(params, stream)
    return np.concatenate([trace.params, state.params[None]]), trace.info


def check_same(found, expected, dtype=np.float64):
    rtol, atol = (1e-12, 1e-12) if dtype == np.float64 else (1e-5, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@over_objectives
@pytest.mark.parametrize("num_heads", [2, *in_the_long_run(1, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_value_and_gradient_are_those_of_the_blocks(name, num_heads, seed):
    case = setting(name, num_heads, seed)
    general = general_of(case)
    for agent in range(NUM_AGENTS):
        params = jnp.asarray(case.params[agent])
        key, value, gate = jax.tree.map(lambda field, n=agent: jnp.asarray(field[4, n]), case.stream[:3])
        found = case.heads.value(params, key, value, gate, 5), case.heads.gradient(params, key, value, gate, 5)
        check_same(found[0], general.value(params, key, value, gate, 5.0))
        check_same(found[1], general.gradient(params, key, value, gate, 5.0))
        if case.heads.ridge is None:
            together = jnp.asarray(in_blocks(case.params[agent], num_heads))
            check_same(found[0], case.one.value(together, key, value, gate, 5))
            slope = np.asarray(case.one.gradient(together, key, value, gate, 5))
            check_same(found[1], from_blocks(slope, num_heads))


@over_objectives
@pytest.mark.parametrize("dtype", [np.float64, *in_the_long_run(np.float32)])
def test_every_algorithm_is_that_of_blocks_through_bins(name, dtype):
    """Matrices and edge lists; at once, late, at random, of one's own only."""
    case = setting(name, dtype=dtype)
    general = general_of(case)
    start, stream = jnp.asarray(case.params), case.stream
    table = damjax.weights.sparse(case.weights)
    columns = np.take_along_axis(case.delays, np.asarray(table.agents), axis=1)
    mixing = damjax.graphs.metropolis_weights(damjax.graphs.ring(NUM_AGENTS)).astype(dtype)
    settings = {"learning_rate": RATE, "domain": BALL}
    law = functools.partial(channels.geometric, 0.4, key=jax.random.key(0), max_delay=4)

    def compare(make):
        (found, info), (expected, same) = (simulated(make(made), start, stream) for made in (case.heads, general))
        assert found.dtype == dtype
        check_same(found, expected, dtype)
        check_same(info.grad_norm, same.grad_norm, dtype)
        np.testing.assert_array_equal(info.num_applied, same.num_applied)

    for weights, delays in ((case.weights, case.delays), (table, columns)):
        compare(lambda made, weights=weights: damjax.ogd(made, weights, **settings))
        expected, _ = simulated(descend(channels.arrival_bins(general, weights, delays), **settings), start, stream)
        for connect in (channels.connect, channels.arrival_bins):
            found, _ = simulated(descend(connect(case.heads, weights, delays), **settings), start, stream)
            check_same(found, expected, dtype)
        compare(
            lambda made, weights=weights: damjax.dam_togd(
                made, weights, channels.lossy(law(), 0.2, key=jax.random.key(1)), reweight=True, **settings
            )
        )
    for order in ("adapt_then_combine", "combine_then_adapt"):
        compare(lambda made, order=order: damjax.c_dogd(made, mixing, order=order, **settings))
    compare(
        lambda made: descend(
            channels.periodic(channels.connect(made, case.weights, case.delays), made, case.weights, 3), **settings
        )
    )


@pytest.mark.parametrize("name", ["linear_attention", "delta_net", "cross_entropy"])
def test_a_run_is_that_of_one_head_with_a_mask(name):
    """All features together and a memory that is zero off the blocks: the same run, of H times the floats."""
    case = setting(name)
    mask = in_blocks(np.ones_like(case.params[0]), 2)
    masked = optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: leaf * mask, updates))
    settings = {"learning_rate": RATE, "domain": BALL}
    found, _ = simulated(damjax.dam_togd(case.heads, case.weights, case.delays, **settings), case.params, case.stream)
    start = np.stack([in_blocks(memory, 2) for memory in case.params])
    together = damjax.dam_togd(case.one, case.weights, case.delays, transform=masked, **settings)
    expected, _ = simulated(together, start, case.stream)
    assert expected[0].size == 2 * found[0].size
    check_same(found, [[from_blocks(memory, 2) for memory in step] for step in expected])


@dataclass
class Blocks(reference.Problem):
    """The messages of losses that separate: each head's block has the gradient of its own features and values."""

    def gradient(self, params, agent, time):
        phi, value = self.features[time - 1, agent], self.values[time - 1, agent]
        gate = None if self.gates is None else self.gates[time - 1, agent]
        each = zip(blocks_of(params, len(phi)), phi, value.reshape(len(phi), -1), strict=True)
        slopes = [reference.gradient(self.name, block, row, part, gate, time) for block, row, part in each]
        return np.concatenate(slopes)


@pytest.mark.parametrize("name", ["delta_net", "gated_linear_attention", "normalized_softmax_attention"])
def test_dam_togd_is_that_of_its_messages(name):
    case = setting(name, seed=0)
    phi = np.asarray(jax.vmap(jax.vmap(case.heads.features))(jnp.asarray(case.stream.keys)))
    problem = Blocks(name, phi, np.asarray(case.stream.values), case.stream.gates)
    routes = damjax.routing.compile_routes(damjax.graphs.path(NUM_AGENTS), case.weights)
    algorithm = damjax.dam_togd(case.heads, case.weights, routes.delays, learning_rate=RATE, domain=BALL)
    found, info = simulated(algorithm, case.params, case.stream)
    expected, applied = reference.dam_togd(
        problem, case.weights, routes.trees, case.params, rate=lambda t: 0.4 / t**0.5, project=reference.ball(RADIUS)
    )
    check_same(found, expected)
    np.testing.assert_array_equal(info.num_applied, applied)


@pytest.mark.long
def test_one_head_is_the_memory_without_heads():
    """Features (1, df) beside (df,): runs, losses, regret and constants."""
    (phi,) = maps_of(1)
    case = setting("delta_net", 1)
    plain = damjax.objectives.delta_net(phi)
    found = []
    for made in (case.heads, plain):
        algorithm = damjax.dam_togd(made, case.weights, case.delays, learning_rate=RATE, domain=BALL)
        params, _ = simulated(algorithm, case.params, case.stream)
        losses = regret.personalized_losses(made, case.weights, params[:-1], case.stream)
        sets = (BALL, damjax.domains.frobenius_ball(0.3), damjax.domains.box(-0.3, 0.5), damjax.domains.unconstrained())
        against = [regret.static_regret(losses, made, case.weights, domain, case.stream, [9, 16]) for domain in sets]
        constants = [bounds.constants(made, domain, case.stream).lipschitz for domain in sets[:3]]
        found.append((params, losses, against, constants))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10), *found)


@pytest.mark.long
@pytest.mark.parametrize("num_agents", [3, *in_the_long_run(40)])
def test_of_many_features_and_agents(num_agents):
    """Past the sums that are written out, products take their place."""
    wide = features.split(2, lambda piece: jnp.concatenate([piece**p for p in range(1, 21)]))
    case = setting("delta_net", feature_map=wide, num_agents=num_agents)
    assert case.params.shape[2] == 40
    table = damjax.weights.sparse(case.weights)
    columns = np.take_along_axis(case.delays, np.asarray(table.agents), axis=1)
    settings = {"learning_rate": damjax.schedules.inverse_sqrt(0.02), "domain": BALL}
    expected, _ = simulated(
        descend(channels.arrival_bins(case.general, case.weights, case.delays), **settings), case.params, case.stream
    )
    for weights, delays in ((case.weights, case.delays), (table, columns)):
        found, _ = simulated(damjax.dam_togd(case.heads, weights, delays, **settings), case.params, case.stream)
        check_same(found, expected)
        losses = regret.personalized_losses(case.heads, weights, found[:-1], case.stream)
        check_same(losses, regret.personalized_losses(case.general, weights, found[:-1], case.stream))


def test_rings_hold_features_of_every_head():
    """And factors travel, dv + H df numbers for a gradient of dv df."""
    case = setting("delta_net")
    box = channels.residual_rings(case.heads, case.weights, case.delays).init(case.params)
    assert box.features.shape == (4, NUM_AGENTS, 2, 3)
    assert box.residuals.shape == (4, NUM_AGENTS, NUM_AGENTS, VALUE_DIM)


def test_rounded_answers_have_the_right_mean():
    """Two factors, each rounded by itself; what agents tell themselves is exact."""
    case = setting("gated_linear_attention", seed=1)
    now = jax.tree.map(lambda field: jnp.asarray(field[0]), case.stream)
    weights = np.full((NUM_AGENTS, NUM_AGENTS), 1 / NUM_AGENTS)
    interested = as_interests("weights", weights)
    asked = damjax.evaluation.pairs(case.heads, interested, jnp.asarray(case.params), now, jnp.asarray(1))
    exact = np.asarray(asked.gradients())

    def sent(key):
        return channels.quantised(4, key=key)(jnp.asarray(1), asked)

    draws = np.asarray(jax.vmap(sent)(jax.random.split(jax.random.key(0), 4000)))
    own = np.eye(NUM_AGENTS, dtype=bool)
    check_same(draws[:, own], np.broadcast_to(exact[own], draws[:, own].shape))
    spread = draws[:, ~own].std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws[:, ~own].mean(axis=0) - exact[~own]) <= 5 * spread + 1e-12)
    assert np.mean(spread > 0) > 0.5


@pytest.mark.long
@over_objectives
def test_losses_and_norms_are_those_of_the_blocks(name):
    case = setting(name)
    general = general_of(case)
    trace = 0.3 * np.random.default_rng(1).normal(size=(NUM_STEPS, *case.params.shape))
    for weights in (case.weights, damjax.weights.sparse(case.weights)):
        found, expected = (
            regret.personalized_losses(made, weights, trace, case.stream) for made in (case.heads, general)
        )
        check_same(found, expected)
        now = jax.tree.map(lambda field: jnp.asarray(field[3]), case.stream)
        info = damjax.Info(jnp.asarray(4), *[jnp.zeros(NUM_AGENTS)] * 4)
        found, expected = (
            bounds.observe_gradient_norms(made, weights)(jnp.asarray(trace[3]), now, info).messages
            for made in (case.heads, general)
        )
        check_same(found, expected)


def total(case, weights):
    """F_n by its definition, through the losses of the blocks."""
    general, times = general_of(case), jnp.arange(1.0, NUM_STEPS + 1)
    over_senders = jax.vmap(general.value, in_axes=(None, 0, 0, 0, None))
    over_time = jax.vmap(over_senders, in_axes=(None, 0, 0, 0, 0))
    keys, values, gates = jax.tree.map(jnp.asarray, case.stream[:3])
    return lambda params, agent: jnp.sum(over_time(params, keys, values, gates, times) * weights[agent][None])


SETS = {
    "small ball": damjax.domains.frobenius_ball(0.3),
    "large ball": damjax.domains.frobenius_ball(6.0),
    "box": damjax.domains.box(-0.2, 0.4),
    "nuclear": damjax.domains.nuclear_ball(0.5),
}


@over_objectives
@pytest.mark.parametrize("kind", ["small ball", *in_the_long_run("large ball", "box", "nuclear")])
def test_the_best_memory_in_hindsight_is_certified(name, kind):
    """Loss and gap by their definitions, the gap small: then no memory of the set has a loss below it."""
    case, domain = setting(name, seed=1), SETS[kind]
    found = hindsight.best_in_hindsight(case.heads, case.weights, domain, case.stream, [5, NUM_STEPS])
    of_agent = jax.jit(jax.value_and_grad(total(case, jnp.asarray(case.weights))), static_argnums=1)
    for n in range(NUM_AGENTS):
        value, slope = of_agent(found.params[1, n], n)
        np.testing.assert_allclose(found.loss[1, n], value, rtol=1e-9, atol=1e-9)
        gap = jnp.sum(slope * (found.params[1, n] - domain.support(-slope)))
        assert gap <= 1e-6 * (1 + abs(value))
        assert bool(domain.contains(found.params[1, n]))
        np.testing.assert_allclose(found.gap[1, n], gap, atol=1e-9 * (1 + abs(value)))


def test_without_constraint_every_head_has_the_best_memory_of_its_own():
    """Squared errors add up over heads: one closed form for each."""
    case = setting("delta_net", 3)
    anything = damjax.domains.unconstrained()
    found = hindsight.best_in_hindsight(case.heads, case.weights, anything, case.stream, [NUM_STEPS])
    each = [
        hindsight.best_in_hindsight(
            damjax.objectives.delta_net(phi),
            case.weights,
            anything,
            case.stream._replace(values=np.asarray(case.stream.values)[..., 2 * h : 2 * h + 2]),
            [NUM_STEPS],
        )
        for h, phi in enumerate(maps_of(3))
    ]
    expected = np.concatenate([best.params for best in each], axis=2)
    np.testing.assert_allclose(found.params, expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.loss, sum(best.loss for best in each), rtol=1e-10)
    assert np.all(found.gap <= 1e-8 * np.abs(found.loss))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["small ball", "box"])
@pytest.mark.parametrize("name", ["delta_net", "cross_entropy"])
def test_regret_has_the_right_derivatives(name, kind):
    """In the values, against differences: the implicit ones of the best memory among them."""
    case, domain = setting(name), SETS[kind]
    losses = jnp.zeros((NUM_STEPS, NUM_AGENTS))

    def against(values):
        stream = case.stream._replace(values=values)
        return regret.static_regret(losses, case.heads, case.weights, domain, stream, [NUM_STEPS]).sum()

    values = jnp.asarray(case.stream.values)
    direction = np.random.default_rng(7).normal(size=values.shape)
    slope, step = jnp.sum(jax.grad(against)(values) * direction), 1e-4
    change = (against(values + step * direction) - against(values - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, change, rtol=1e-5)


@over(NAMES, common=("linear_attention", "delta_net", "gated_linear_attention", "cross_entropy"))
def test_slopes_are_bounded_and_linear_ones_attained(name):
    case = setting(name)
    rng = np.random.default_rng(6)
    for domain in (damjax.domains.frobenius_ball(0.8), damjax.domains.box(-0.3, 0.5)):
        found = np.asarray(bounds.constants(case.heads, domain, case.stream).lipschitz)
        memories = jax.vmap(domain.project)(jnp.asarray(3 * rng.normal(size=(60, *case.params.shape[1:]))))
        times = jnp.arange(1.0, NUM_STEPS + 1)
        slopes = jax.vmap(case.heads.gradient, in_axes=(0, None, None, None, None))
        over_agents = jax.vmap(slopes, in_axes=(None, 0, 0, 0, None))
        keys, values, gates = jax.tree.map(jnp.asarray, case.stream[:3])
        every = jax.vmap(over_agents, in_axes=(None, 0, 0, 0, 0))(memories, keys, values, gates, times)
        steepest = np.asarray(jnp.linalg.norm(every.reshape(*every.shape[:3], -1), axis=-1)).max(axis=(0, 2))
        assert np.all(steepest <= found * (1 + 1e-9))
        if name == "linear_attention":
            np.testing.assert_allclose(steepest, found, rtol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("name", ["delta_net", "cross_entropy"])
def test_no_bound_is_exceeded(name):
    """On 40 random instances."""

    def measure(seed_key, radius, scale):
        first, second, third = jax.random.split(seed_key, 3)
        keys = jax.random.uniform(first, (NUM_STEPS, NUM_AGENTS, KEY_DIM), minval=-1.0)
        values = jax.random.normal(second, (NUM_STEPS, NUM_AGENTS, VALUE_DIM))
        if name == "cross_entropy":
            values = jnp.asarray(OUTPUTS)[jax.random.randint(second, (NUM_STEPS, NUM_AGENTS), 0, len(OUTPUTS))]
        stream = damjax.Associations(keys, values)
        weights = damjax.weights.dirichlet(third, NUM_AGENTS)
        delays = jax.random.randint(third, (NUM_AGENTS, NUM_AGENTS), 0, 4) * (1 - jnp.eye(NUM_AGENTS, dtype=int))
        made = objective_of(name, features.split(2))
        ball, rate = damjax.domains.frobenius_ball(radius), damjax.schedules.inverse_sqrt(scale)
        algorithm = damjax.dam_togd(made, weights, delays, learning_rate=rate, domain=ball, max_delay=3)
        observers = regret.observe_losses(made, weights), bounds.observe_gradient_norms(made, weights)
        start = jnp.zeros((NUM_AGENTS, VALUE_DIM, 2))
        observe = lambda *seen: [each(*seen) for each in observers]  # noqa: E731
        _, (losses, norms) = damjax.simulate(algorithm, start, stream, observe=observe)
        found = regret.static_regret(losses, made, weights, ball, stream, [NUM_STEPS])[0]
        known = bounds.constants(made, ball, stream)
        table = {
            "rates": bounds.applied_rates(rate, weights, delays, NUM_STEPS),
            "arrivals": bounds.arrivals(delays, NUM_STEPS),
        }
        return found, [
            bounds.weighted_delay(weights, delays, known, scale=scale, horizon=NUM_STEPS),
            bounds.realised_delay(weights, known, **table),
            bounds.certificate(norms, ball.diameter, **table),
        ]

    rng = np.random.default_rng(0)
    drawn = jax.random.split(jax.random.key(0), 40), rng.uniform(0.2, 2, 40), np.exp(rng.uniform(-2, 2, 40))
    found, limits = jax.jit(jax.vmap(measure))(*drawn)
    for limit in limits:
        assert np.all(found <= limit * (1 + 1e-9) + 1e-9)


@pytest.mark.long
@over_objectives
def test_laws(name):
    for feature_map in (features.split(2), features.heads(*maps_of(3))):
        made = objective_of(name, feature_map)
        values = OUTPUTS if name == "cross_entropy" else None
        damjax.testing.check_objective(made, key_dim=KEY_DIM, value_dim=VALUE_DIM, values=values)


def test_a_wrong_bound_is_noticed():
    """The laws are those of the blocks: a curvature that is too small for the loss of two heads."""
    made = objective_of("delta_net", features.split(2))._replace(kind=damjax.objectives.Smooth(0.5))
    with pytest.raises(ValueError, match="kind must be true of the loss"):
        damjax.testing.check_objective(made, key_dim=KEY_DIM, value_dim=VALUE_DIM)


@pytest.mark.long
@pytest.mark.parametrize("mapping", [damjax.vmap_last, *in_the_long_run(jax.vmap)])
def test_runs_map_and_differentiate(mapping):
    case = setting("delta_net")

    def final(rate, made):
        algorithm = damjax.dam_togd(made, case.weights, case.delays, learning_rate=rate, domain=BALL)
        observe = regret.observe_losses(made, case.weights)
        _, losses = damjax.simulate(algorithm, jnp.asarray(case.params), case.stream, observe=observe)
        return regret.static_regret(losses, made, case.weights, BALL, case.stream, [NUM_STEPS])[0]

    rates, one = jnp.array([0.1, 0.3]), functools.partial(final, made=case.heads)
    together = jax.jit(mapping(one))(rates)
    np.testing.assert_allclose(together, np.stack([one(rate) for rate in rates]), rtol=1e-10, atol=1e-10)
    slopes = jax.jit(mapping(jax.grad(lambda rate: one(rate).sum())))(rates)
    change = (one(rates[0] + 1e-6) - one(rates[0] - 1e-6)).sum() / 2e-6
    np.testing.assert_allclose(slopes[0], change, rtol=1e-6)


@pytest.mark.long
def test_a_sweep_of_heads():
    case = setting("delta_net")

    def run(key, learning_rate, correlation):
        stream, _ = damjax.streams.linear_model(
            key,
            num_agents=NUM_AGENTS,
            num_steps=NUM_STEPS,
            key_dim=KEY_DIM,
            value_dim=VALUE_DIM,
            correlation=correlation,
        )
        algorithm = damjax.dam_togd(case.heads, case.weights, case.delays, learning_rate=learning_rate, domain=BALL)
        _, losses = damjax.simulate(
            algorithm, jnp.asarray(case.params), stream, observe=regret.observe_losses(case.heads, case.weights)
        )
        return losses.sum(axis=0)

    keys, rates = jax.random.split(jax.random.key(0), 2), [0.1, 0.2]
    table = damjax.sweep(run, keys=keys, learning_rate=rates, correlation=[0.5], progress=False)
    alone = [[[run(key, rate, 0.5) for key in keys]] for rate in rates]
    np.testing.assert_allclose(table["value"], alone, rtol=1e-10)


def test_sample_weights_of_heads():
    """A loss counts s times, head by head."""
    case = setting("delta_net")
    sample_weights = np.random.default_rng(2).choice([0.0, 0.5, 2.0], (NUM_STEPS, NUM_AGENTS))
    stream = case.stream._replace(sample_weights=sample_weights)
    runs = [
        simulated(
            descend(channels.connect(made, case.weights, case.delays), learning_rate=RATE, domain=BALL),
            case.params,
            stream,
        )[0]
        for made in (case.heads, case.general)
    ]
    check_same(runs[0], runs[1])
    best = hindsight.best_in_hindsight(case.heads, case.weights, BALL, stream, [NUM_STEPS])
    losses = [
        regret.personalized_losses(
            made, case.weights, jnp.broadcast_to(best.params[0], (NUM_STEPS, *case.params.shape)), stream
        ).sum(axis=0)
        for made in (case.heads, case.general)
    ]
    check_same(best.loss[0], losses[1])
    check_same(losses[0], losses[1])


def test_split_and_heads_by_hand():
    key = jnp.arange(6.0)
    np.testing.assert_array_equal(features.split(3)(key), np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(features.split(2, jnp.cumsum)(key), [[0, 1, 3], [3, 7, 12]])
    np.testing.assert_array_equal(features.heads(features.identity, jnp.square)(key), [np.arange(6), np.arange(6) ** 2])
    assert damjax.objectives.delta_net(features.split(3)).heads == (3,)
    assert damjax.objectives.delta_net().heads == ()


def test_what_does_not_fit_is_refused(untyped):
    delta = damjax.objectives.delta_net
    settings = {"learning_rate": 0.1, "domain": BALL}
    weights = np.eye(2)
    seen = damjax.Associations(jnp.ones((2, 4)), jnp.ones((2, 6)))
    with pytest.raises(ValueError, match="multiple of 4 entries"):
        damjax.ogd(delta(features.split(4)), weights, **settings).init(jnp.zeros((2, 6, 1)))
    with pytest.raises(ValueError, match="multiple of 4 entries"):
        delta(features.split(4)).value(jnp.zeros((6, 1)), jnp.ones(4), jnp.ones(6))
    algorithm = damjax.ogd(delta(lambda key: key.reshape(2, 2)), weights, **settings)
    with pytest.raises(ValueError, match=r"features must map a cue .* vector .*MultiHead\(num_heads, function\)"):
        algorithm.step(algorithm.init(jnp.zeros((2, 6, 2))), seen)
    for wrong in (lambda key: key, lambda key: key.reshape(4, 1)):
        algorithm = damjax.ogd(delta(features.MultiHead(2, wrong)), weights, **settings)
        with pytest.raises(ValueError, match=r"a row for each head, \(2, df\)"):
            algorithm.step(algorithm.init(jnp.zeros((2, 6, 2))), seen)
    with pytest.raises(ValueError, match="num_heads must divide the length of the cues, 4, but it is 3"):
        features.split(3)(jnp.ones(4))
    with pytest.raises(ValueError, match="features of one length"):
        features.heads(features.identity, lambda key: key[:2])(jnp.ones(4))
    with pytest.raises(ValueError, match="there are none"):
        features.heads()
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="num_heads must be a positive integer"):
            features.split(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="feature_map must be a function"):
        features.split(2, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"feature_maps\[1\] must be a function"):
        features.heads(features.identity, None)  # pyright: ignore[reportArgumentType]
