"""The realised-delay bound and the certificate under every law of delay and loss; and every term of them is needed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import bounds, channels
from damjax.weights.epochs import changing_interests
from tests.bounds.test_by_trial import HORIZONS, NUM_STEPS, draw, play
from tests.cases import DISTINCT, OBJECTIVES, in_the_long_run, interests, over
from tests.routing.test_timeline import random_epochs

NUM_AGENTS, NUM_OF_LAW, MAX_DELAY = 4, 36, 25
SHAPE = (NUM_AGENTS, NUM_AGENTS)
ROUTES = damjax.routing.compile_routes(damjax.graphs.path(NUM_AGENTS), np.full(SHAPE, 1 / NUM_AGENTS))


def laws(key, level):
    """One of each, of a strength from 0, where nearly nothing is late, to 1."""
    mean, drawn = 0.2 + 8 * level, {"key": key, "max_delay": MAX_DELAY}
    geometric, of_link = channels.geometric(1 / (1 + mean), **drawn), channels.geometric(1 / (1 + mean / 4), **drawn)
    anything = jax.random.uniform(key, (NUM_STEPS, *SHAPE), minval=-3, maxval=1 + 30 * level)
    return {
        "geometric": geometric,
        "exponential": channels.exponential(mean, **drawn),
        "uniform": channels.uniform(*(jnp.floor(steps * level).astype(jnp.int32) for steps in (4, 12)), **drawn),
        "pareto": channels.pareto(2.5 - 1.9 * level, **drawn),
        "per_link": channels.per_link(ROUTES, of_link, max_delay=MAX_DELAY),
        "congestion": channels.congestion(
            channels.exponential(0.3, **drawn), geometric, onset=0.1, relief=0.2, key=key
        ),
        "lossy": channels.lossy(geometric, 0.6 * level, key=key),
        "bursts": channels.bursts(7),
        "table": channels.table(jnp.floor(anything).astype(jnp.int32), max_delay=MAX_DELAY),
    }


LAWS = ("geometric", "exponential", "uniform", "pareto", "per_link", "congestion", "lossy", "bursts", "table")


@functools.cache
def tables():
    """Of every law round trips by instance, negative for what is lost, (instances, T, N, N)."""
    keys, levels = jax.random.split(jax.random.key(0), NUM_OF_LAW), jnp.linspace(0, 1, NUM_OF_LAW)

    def of_all(key, level):
        return {name: law.table(NUM_STEPS, SHAPE) for name, law in laws(key, level).items()}

    drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(of_all))(keys, levels))
    assert set(drawn) == set(LAWS)
    return drawn


def terms(messages, applied, rates, arrive, diameter):
    """The bound term by term, (N,) each: w L or realised norms by message and what arrives of them by step."""
    horizon = len(rates)
    travelled = jnp.concatenate([jnp.zeros_like(rates[:1]), jnp.cumsum(rates * applied, axis=0)])
    in_time = arrive <= horizon
    at = jnp.where(in_time, arrive, horizon + 1) - 1
    meanwhile = jnp.take_along_axis(travelled[:, :, None], at, axis=0) - travelled[:-1, :, None]
    # The last rate with which something was applied.
    heard = jnp.max(jnp.where(in_time, at, -1), axis=(0, 2))
    last = jnp.take_along_axis(rates, jnp.maximum(heard, 0)[None], axis=0)[0]
    return {
        "travel": jnp.where(heard >= 0, diameter**2 / (2 * jnp.where(heard >= 0, last, 1)), 0),
        "square": jnp.sum(rates * applied**2, axis=0) / 2,
        "delay": jnp.sum(jnp.where(in_time, messages * meanwhile, 0), axis=(0, 2)),
        "lost": diameter * jnp.sum(jnp.where(in_time, 0, messages), axis=(0, 2)),
    }


def arriving(messages, arrive):
    """Kappa: the sum of what arrives in each step, (T, N)."""
    receivers = jnp.arange(messages.shape[1])[None, :, None]
    return jnp.zeros(messages.shape[:2]).at[arrive - 1, receivers].add(messages, mode="drop")


def compare(regret, weights, known, norms, rate, table, horizon):
    """Regret beside realised-delay bound and certificate, both whole and term by term."""
    rates, arrive = bounds.applied_rates(rate, weights, table, horizon), bounds.arrivals(table, horizon)
    norms = jax.tree.map(lambda field: field[:horizon], norms)
    of_steps = jax.vmap(lambda time: changing_interests("weights", weights).at(time).weights)(
        jnp.arange(1, horizon + 1)
    )
    messages = of_steps * known.lipschitz[None, None]
    wanted = jnp.where(of_steps > 0, arrive, horizon + 1)
    return {
        "regret": regret,
        "realised": (
            bounds.realised_delay(weights, known, rates=rates, arrivals=arrive),
            terms(messages, arriving(messages, wanted), rates, wanted, known.diameter),
        ),
        "certificate": (
            bounds.certificate(norms, known.diameter, rates=rates, arrivals=arrive),
            terms(norms.messages, norms.applied, rates, wanted, known.diameter),
        ),
    }


def assert_none_is_violated(found):
    regret = found["regret"]
    assert np.isfinite(regret).all()
    for kind in ("realised", "certificate"):
        bound, parts = found[kind]
        np.testing.assert_allclose(sum(parts.values()), bound, rtol=1e-9)
        assert (regret <= bound * (1 + 1e-9) + 1e-9).all(), (kind, (regret - bound).max())
    assert (found["certificate"][0] <= found["realised"][0] * (1 + 1e-9) + 1e-9).all()


@over(DISTINCT, common=("delta_net",))
def test_no_law_exceeds_a_bound(name):
    """36 random instances of each of nine laws, 324 for every objective, half of them with a greedy adversary."""
    rng = np.random.default_rng(OBJECTIVES.index(name))
    drawn = [draw(rng, name, NUM_AGENTS) for _ in range(len(LAWS) * NUM_OF_LAW)]
    objective = drawn[0][0]

    def measure(instance, table):
        ball = damjax.domains.frobenius_ball(instance.radius)
        rate = damjax.schedules.power(jnp.exp(instance.log_scale) * instance.radius, instance.exponent)
        law, weights = channels.table(table, max_delay=MAX_DELAY), instance.weights
        algorithm = damjax.dam_togd(objective, weights, law, learning_rate=rate, domain=ball)
        stream, losses, norms = play(objective, algorithm, weights, instance)
        known = bounds.constants(objective, ball, stream)
        regret = damjax.regret.static_regret(losses, objective, weights, ball, stream, list(HORIZONS))
        found = [compare(regret[i], weights, known, norms, rate, table, T) for i, T in enumerate(HORIZONS)]
        return jax.tree.map(lambda *rows: jnp.stack(rows), *found)

    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *[instance for _, instance in drawn])
    of_laws = np.concatenate([tables()[law] for law in LAWS])
    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(measure))(batch, of_laws))
    assert found["regret"].shape == (324, len(HORIZONS), NUM_AGENTS)
    for i, law in enumerate(LAWS):
        of_law = slice(i * NUM_OF_LAW, (i + 1) * NUM_OF_LAW)
        try:
            assert_none_is_violated(jax.tree.map(lambda field, part=of_law: field[part], found))
        except AssertionError as error:
            raise AssertionError(law) from error


def test_the_laws_do_what_they_are_tried_for():
    """Under each something is late; under all but the bursts something overtakes or is lost; several come at once."""
    for name, table in tables().items():
        others = table[:, :, 0, 2]
        arrive = np.where(others >= 0, np.arange(1, NUM_STEPS + 1) + others, 10**6)
        assert (others > 2).any(), name
        assert any(len(set(row[row < 10**6])) < np.sum(row < 10**6) for row in arrive), name
        if name != "bursts":
            assert ((np.diff(arrive, axis=1) < 0) | (arrive[:, 1:] == 10**6)).any(), name
        assert (table <= MAX_DELAY).all(), name


@pytest.mark.parametrize("seed", [0, *in_the_long_run(1, 2)])
def test_no_timeline_exceeds_a_bound(seed):
    """Networks whose links and agents come and go, 108 random instances on each of three; half of them greedy."""
    rng = np.random.default_rng(seed)
    epochs = random_epochs(rng, NUM_AGENTS, 4, absences=True)
    timeline = damjax.routing.compile_timeline(epochs, np.full(SHAPE, 1 / NUM_AGENTS))
    table, epochs_of = timeline.table(NUM_STEPS), timeline.weights
    assert (table < 0).any()
    drawn = [draw(rng, "delta_net", NUM_AGENTS) for _ in range(108)]
    objective = drawn[0][0]

    def measure(instance):
        ball = damjax.domains.frobenius_ball(instance.radius)
        rate = damjax.schedules.power(jnp.exp(instance.log_scale) * instance.radius, instance.exponent)
        changing = damjax.weights.over_epochs(instance.weights, epochs_of.first_steps, epochs_of.present)
        law = channels.table(jnp.asarray(table), max_delay=timeline.max_delay)
        algorithm = damjax.dam_togd(objective, changing, law, learning_rate=rate, domain=ball)
        stream, losses, norms = play(objective, algorithm, instance.weights, instance, changing)
        known = bounds.constants(objective, ball, stream)
        regret = damjax.regret.static_regret(losses, objective, changing, ball, stream, list(HORIZONS))
        found = [compare(regret[i], changing, known, norms, rate, table, T) for i, T in enumerate(HORIZONS)]
        return jax.tree.map(lambda *rows: jnp.stack(rows), *found)

    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *[instance for _, instance in drawn])
    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(measure))(batch))
    assert found["regret"].shape == (108, len(HORIZONS), NUM_AGENTS)
    assert_none_is_violated(found)


def test_rates_and_bounds_of_a_network_that_changes():
    """The rates are those of the run's clocks, and one epoch that everybody is in is no change."""
    rng = np.random.default_rng(5)
    timeline = damjax.routing.compile_timeline(random_epochs(rng, NUM_AGENTS, 4, absences=True), np.full(SHAPE, 0.25))
    table, rate = timeline.table(NUM_STEPS), damjax.schedules.inverse_sqrt(0.3)
    linear, ball = damjax.objectives.linear_attention(), damjax.domains.frobenius_ball(1.0)
    stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=NUM_AGENTS, num_steps=NUM_STEPS)
    algorithm = damjax.dam_togd(linear, timeline.weights, timeline, learning_rate=rate, domain=ball)

    def step(state, seen):
        state, info = algorithm.step(state, seen)
        return state, (state.clock, info.num_applied)

    clocks, numbers = jax.lax.scan(step, algorithm.init(jnp.zeros((NUM_AGENTS, 5, 5))), stream)[1]
    found = bounds.applied_rates(rate, timeline.weights, table, NUM_STEPS)
    present = np.asarray(timeline.weights.present)[
        np.searchsorted(timeline.first_steps, np.arange(1, NUM_STEPS + 1), side="right") - 1
    ]
    assert not present.all()
    assert ((numbers > 0) <= present).all()
    used = present & (np.asarray(clocks) > 0)
    np.testing.assert_allclose(found[used], rate(clocks.astype(float))[used], rtol=1e-12)

    weights = interests(rng, NUM_AGENTS)
    whole = damjax.weights.over_epochs(weights, [1], np.ones((1, NUM_AGENTS), bool))
    known, law = bounds.Constants(jnp.ones(NUM_AGENTS), 2.0), tables()["lossy"][20]
    arrive = bounds.arrivals(law, NUM_STEPS)
    for of in (bounds.applied_rates(rate, each, law, NUM_STEPS) for each in (weights, whole)):
        limits = [bounds.realised_delay(each, known, rates=of, arrivals=arrive) for each in (weights, whole)]
        np.testing.assert_allclose(*limits, rtol=1e-12)


def test_what_finds_nobody_is_paid_for_as_lost():
    """Agent 0 is away whenever an answer comes, but for the first: it stands still, and the bounds know."""
    num_steps, weights, rate = 200, np.array([[0.0, 1.0], [0.0, 1.0]]), 0.1
    present = np.stack([np.arange(1, num_steps + 1) % 2 == 1, np.ones(num_steps, bool)], axis=1)
    changing = damjax.weights.over_epochs(weights, np.arange(1, num_steps + 1), present)
    law = channels.table(
        np.r_[np.zeros((1, 2, 2)), np.ones((num_steps - 1, 2, 2))].astype(int) * (1 - np.eye(2, dtype=int))
    )
    delta_net, unit_ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(1.0)
    stream = damjax.Associations(jnp.ones((num_steps, 2, 1)), jnp.ones((num_steps, 2, 1)))
    algorithm = damjax.dam_togd(delta_net, changing, law, learning_rate=rate, domain=unit_ball)
    losses, norms_of = (of(delta_net, changing) for of in (damjax.regret.observe_losses, bounds.observe_gradient_norms))
    observe = lambda *step: (losses(*step), norms_of(*step), step[-1].num_lost)  # noqa: E731
    _, (losses, norms, lost) = damjax.simulate(algorithm, jnp.zeros((2, 1, 1)), stream, observe=observe)
    regret = damjax.regret.static_regret(losses, delta_net, changing, unit_ball, stream, [num_steps])[0]
    assert lost[:, 0].sum() == num_steps // 2 - 1
    table = law.table(num_steps, (2, 2))
    rates = bounds.applied_rates(rate, changing, table, num_steps)
    given = {"rates": rates, "arrivals": bounds.arrivals(table, num_steps)}
    certified = bounds.certificate(norms, unit_ball.diameter, **given)
    realised = bounds.realised_delay(changing, bounds.constants(delta_net, unit_ball, stream), **given)
    assert (regret <= certified).all()
    assert (certified <= realised * (1 + 1e-9)).all()
    # As if all were there they would be exceeded.
    assert regret[0] > bounds.certificate(norms._replace(present=None), unit_ball.diameter, **given)[0]


def test_a_fixed_table_may_say_what_never_comes():
    table, weights = jnp.array([[0, -1], [-3, 0]]), np.full((2, 2), 0.5)
    found = bounds.applied_rates(damjax.schedules.inverse_sqrt(1.0), weights, table, 3)
    np.testing.assert_allclose(found[:, 0], [1, 2**-0.5, 3**-0.5])
    never = np.iinfo(int).max
    assert bounds.arrivals(table, 2).tolist() == [[[1, never], [never, 1]], [[2, never], [never, 2]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda law, timeline: bounds.arrivals(law, 3), r"^delays must be a table .* a Uniform; .*law\.table"),
        (
            lambda law, timeline: bounds.applied_rates(0.1, np.eye(2), timeline, 3),
            "^delays must be a table .* Timeline",
        ),
        (
            lambda law, timeline: bounds.observe_gradient_norms(damjax.objectives.delta_net(), timeline),
            r"^weights must be weights, but it is a Timeline; pass its \.weights",
        ),
        (
            lambda law, timeline: bounds.certificate(
                bounds.GradientNorms(jnp.ones((3, 2, 2)), jnp.ones((4, 2))),
                1.0,
                rates=jnp.ones((3, 2)),
                arrivals=jnp.full((3, 2, 2), 9),
            ),
            r"^norms\.applied must have shape \(T, N\) = \(3, 2\) .* cut all fields",
        ),
    ],
)
def test_wrong_calls(call, message, untyped):
    timeline = damjax.routing.compile_timeline([(1, damjax.graphs.path(2), None)], np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=message):
        call(channels.uniform(1, 2, key=jax.random.key(0)), timeline)


# The adversaries: agent 0 hears of agent 1 alone, losses of slope 1 on a ball of radius 1.

TAU, NUM_BLOCKS = 30, 24
LONG = (TAU + 1) * NUM_BLOCKS
LISTENING = np.array([[0.0, 1.0], [0.0, 1.0]])


def adversaries():
    """By the term that it makes needed: cues (T, d), the rate constant, and a law."""
    first, times = np.eye(NUM_BLOCKS)[0], np.arange(LONG)[:, None]
    once = np.full((LONG, 2, 2), -1)
    once[0] = 0
    key = jax.random.key(0)
    return {
        # A learner that hardly moves: what it has not travelled it pays for.
        "travel": (np.tile(first, (LONG, 1)), 0.01, channels.uniform(0, 3, key=key)),
        # Steps across the whole ball: always at the far end from where the next loss wants it.
        "square": (np.where(times % 2, 1.0, -1.0) * first, 1e3, channels.uniform(0, 0, key=key)),
        # A rate tuned for no delay, and a new direction in every block of tau + 1 steps.
        "delay": (np.repeat(np.eye(NUM_BLOCKS), TAU + 1, axis=0), 2**0.5, channels.uniform(TAU, TAU, key=key)),
        # It hears of the first loss only, and all others are the opposite.
        "lost": (np.where(times, 1.0, -1.0) * first, 1.0, channels.table(once)),
    }


@pytest.mark.parametrize("kind", ["realised", "certificate"])
def test_without_any_one_of_its_terms_a_bound_is_exceeded(kind):
    found = by_adversary()
    assert_none_is_violated(found)
    bound, parts = found[kind]
    for i, needed in enumerate(adversaries()):
        assert bound[i, 0] - parts[needed][i, 0] < found["regret"][i, 0] <= bound[i, 0], needed
        # The same checks fail with the term left out.
        without = found | {kind: (bound - parts[needed], parts | {needed: np.zeros_like(bound)})}
        with pytest.raises(AssertionError, match=kind):
            assert_none_is_violated(without)


@functools.cache
def by_adversary():
    linear, ball = damjax.objectives.linear_attention(), damjax.domains.frobenius_ball(1.0)
    known = bounds.Constants(jnp.ones(2), ball.diameter)

    def measure(cues, scale, table):
        rate = damjax.schedules.inverse_sqrt(scale)
        stream = damjax.Associations(jnp.stack([cues, cues], axis=1), jnp.ones((LONG, 2, 1)))
        law = channels.table(table, max_delay=TAU)
        algorithm = damjax.dam_togd(linear, LISTENING, law, learning_rate=rate, domain=ball)
        norms_of = bounds.observe_gradient_norms(linear, LISTENING)

        def observe(params, seen, info):
            losses = damjax.regret.step_losses(linear, LISTENING, params, seen, info.time)
            return losses, norms_of(params, seen, info)

        start = jnp.zeros((2, 1, NUM_BLOCKS))
        _, (losses, norms) = damjax.simulate(algorithm, start, stream, observe=observe)
        regret = damjax.regret.static_regret(losses, linear, LISTENING, ball, stream, [LONG])[0]
        return compare(regret, LISTENING, known, norms, rate, table, LONG)

    cues, scales, of_law = zip(*adversaries().values(), strict=True)
    drawn = [np.asarray(law.table(LONG, (2, 2))) for law in of_law]
    found = jax.jit(jax.vmap(measure))(np.stack(cues), np.array(scales), np.stack(drawn))
    return jax.tree.map(np.asarray, found)
