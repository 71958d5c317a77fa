"""Runs made to show one failure sign each, healthy ones that must show none, and the numbers by independent means."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import diagnostics, hindsight, regret
from damjax.diagnostics import diagnose
from tests.cases import in_the_long_run

DELTA, FREE, BALL = damjax.objectives.delta_net(), damjax.domains.unconstrained(), damjax.domains.frobenius_ball(40.0)
GRAPH = damjax.graphs.paper_network()
ALONE = np.eye(10)
inverse_sqrt = damjax.schedules.inverse_sqrt


def simulated(algorithm, stream, start=None):
    """The trace of a run, compiled; from the zero memories unless told otherwise."""
    _, num_agents, value_dim = stream.values.shape
    features = stream.keys.shape[2]
    start = jnp.zeros((num_agents, value_dim, features), stream.values.dtype) if start is None else start
    return jax.jit(lambda stream: damjax.simulate(algorithm, start, stream))(stream)[1]


def problem(
    seed=0, *, num_agents=10, num_steps=400, concentration=1.0, dtype: jax.typing.DTypeLike = np.float64, **model
):
    """A stream and weights. Most tests keep the default shapes, so that one compilation serves them all."""
    stream_key, weights_key = jax.random.split(jax.random.key(seed))
    stream, _ = damjax.streams.linear_model(
        stream_key, num_agents=num_agents, num_steps=num_steps, dtype=dtype, **model
    )
    weights = damjax.weights.dirichlet(weights_key, num_agents, concentration=concentration, dtype=dtype)
    return stream, weights


def routed(weights):
    return damjax.routing.compile_routes(GRAPH, np.asarray(weights)).delays


def rate_of_agent_1(rate):
    """0.5 for everybody else."""
    rates = jnp.full(10, 0.5).at[1].set(rate)
    return lambda count: rates


def signs(findings):
    return [finding.sign for finding in findings]


def only(findings, sign):
    """The one finding of a run that shows one sign."""
    assert signs(findings) == [sign], findings
    assert findings[0].value > findings[0].threshold
    return findings[0]


@pytest.mark.parametrize("seed", [0, *in_the_long_run(1, 2, 3, 4)])
def test_tuned_runs_are_healthy(seed):
    stream, weights = problem(seed, num_steps=1000)
    rate = inverse_sqrt(1.5)
    for algorithm in (
        damjax.ogd(DELTA, weights, learning_rate=rate, domain=BALL),
        damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=rate, domain=BALL),
    ):
        assert diagnose(DELTA, weights, BALL, stream, simulated(algorithm, stream)) == ()


@pytest.mark.long
def test_noise_is_not_taken_for_a_sign():
    """Loud noise and small memories, in which chance makes the largest correlations and the roughest regret."""
    stream, _ = problem(key_dim=2, value_dim=2, noise_std=1.0)
    algorithm = damjax.ogd(DELTA, ALONE, learning_rate=inverse_sqrt(0.5), domain=BALL)
    assert diagnose(DELTA, ALONE, BALL, stream, simulated(algorithm, stream)) == ()


@pytest.mark.long
def test_float32_runs_are_healthy():
    stream, weights = problem(num_steps=400, dtype=np.float32)
    algorithm = damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.5), domain=BALL)
    trace = simulated(algorithm, stream)
    assert trace.params.dtype == np.float32
    assert diagnose(DELTA, weights, BALL, stream, trace) == ()


def test_memories_that_are_not_finite_are_reported_alone():
    """Agent 1 alone runs at a rate that overflows; the step is the one after which its memory is no longer finite."""
    stream, _ = problem()
    algorithm = damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(1e6), domain=FREE)
    with pytest.warns(RuntimeWarning, match="ended as NaN"):
        _, trace = damjax.simulate(algorithm, jnp.zeros((10, 5, 5)), stream)
    found = only(diagnose(DELTA, ALONE, FREE, stream, trace), "divergence")
    # X_t of the trace is the memory before step t.
    first = next(t for t in range(400) if not np.isfinite(trace.params[t, 1]).all())
    assert found.agents == (1,)
    assert found.value == np.inf
    assert f"first in step {first};" in found.message
    assert "frobenius_ball" in found.message
    # In a bounded set no rate can do that.
    bounded = diagnose(DELTA, ALONE, BALL, stream, trace)
    assert "max_delay" in bounded[0].message


@pytest.mark.parametrize("scale", [1.0, *in_the_long_run(1e150)])
def test_finite_growth_without_projection(scale):
    """Also of a memory so large that its square, and with it its loss, overflows."""
    stream, _ = problem()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(4.0), domain=FREE), stream)
    grown = trace.params.at[150:, 1].multiply(scale)
    found = only(diagnose(DELTA, ALONE, FREE, stream, trace._replace(params=grown)), "divergence")
    best = hindsight.best_in_hindsight(DELTA, ALONE, FREE, stream, [400]).params[0, 1]
    late = np.array(np.linalg.norm(trace.params[:, 1], axis=(1, 2)))
    late[150:] *= scale
    assert found.agents == (1,)
    assert found.value == pytest.approx(late.max() / max(np.linalg.norm(best), np.median(late)))
    assert f"{late.max():.3g} in step {late.argmax() + 1}" in found.message
    assert "no projection" in found.message


def test_a_large_start_is_no_divergence():
    stream, weights = problem()
    algorithm = damjax.ogd(DELTA, weights, learning_rate=0.2, domain=FREE)
    trace = simulated(algorithm, stream, start=jnp.full((10, 5, 5), 1e3))
    assert np.linalg.norm(trace.params[0, 0]) > 100 * np.linalg.norm(trace.params[-1, 0])
    assert "divergence" not in signs(diagnose(DELTA, weights, FREE, stream, trace))


@pytest.mark.long
@pytest.mark.parametrize(
    ("domain", "reach"),
    [
        (damjax.domains.frobenius_ball(1e4), 1e4),
        # The corner (-200, .., -200) of 25 entries.
        (damjax.domains.box(-200.0, 100.0), 1e3),
    ],
    ids=["ball", "box"],
)
def test_divergence_held_by_a_large_set(domain, reach):
    stream, _ = problem()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=rate_of_agent_1(6.0), domain=domain), stream)
    found = diagnose(DELTA, ALONE, domain, stream, trace)[0]
    assert found.sign == "divergence"
    assert found.agents == (1,)
    best = hindsight.best_in_hindsight(DELTA, ALONE, domain, stream, [200, 400])
    late = regret.personalized_losses(DELTA, ALONE, trace.params, stream)[200:, 1].sum()
    late = late - (best.loss[1, 1] - best.loss[0, 1])
    nothing = regret.personalized_losses(DELTA, ALONE, 0 * trace.params, stream)[:, 1].mean()
    assert found.value == pytest.approx(late / 200 / (nothing - best.loss[1, 1] / 400))
    assert f"reaches {reach / np.linalg.norm(best.params[1, 1]):.3g} times the best memory's norm" in found.message


def test_growth_where_no_best_memory_exists():
    linear = damjax.objectives.linear_attention()
    stream, weights = problem()
    trace = simulated(damjax.ogd(linear, weights, learning_rate=0.1, domain=FREE), stream)
    found = only(diagnose(linear, weights, FREE, stream, trace), "divergence")
    assert found.agents == tuple(range(10))
    # Constant gradients on average: the norm grows in proportion to t.
    assert found.value == pytest.approx(1, abs=0.1)
    assert "t^" in found.message
    assert "frobenius_ball" in found.message


def classes(noise, num_steps=300, num_agents=2):
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(num_steps, num_agents, 3))
    logits = keys @ rng.normal(size=(3, 3)).T + noise * rng.gumbel(size=(num_steps, num_agents, 3))
    return damjax.streams.from_arrays(keys, np.eye(3)[logits.argmax(axis=-1)])


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 2.0], ids=["separable", "not separable"])
def test_cross_entropy(noise):
    objective, alone, stream = damjax.objectives.cross_entropy(jnp.eye(3)), jnp.eye(2), classes(noise)
    ball = damjax.domains.frobenius_ball(8.0)
    free, held = (
        simulated(damjax.ogd(objective, alone, learning_rate=inverse_sqrt(1.0), domain=domain), stream)
        for domain in (FREE, ball)
    )
    # Even what grows without end, like log t, is no divergence.
    assert diagnose(objective, alone, FREE, stream, free) == ()
    found = diagnose(objective, alone, ball, stream, held)
    if noise:
        assert found == ()
    else:
        assert "separable" in only(found, "boundary").message


@pytest.mark.parametrize("seed", [0, *in_the_long_run(*range(1, 8))])
def test_the_innocent_are_not_accused(seed):
    """Regret of short runs, also in noise that grows from 0.1 to 2 and brings in more of it late."""
    stream, weights = problem(seed, num_steps=200)
    louder = np.linspace(0.1, 2, 200)[:, None, None] * np.random.default_rng(seed).normal(size=stream.values.shape)
    noisy = stream._replace(values=stream.values + louder)
    full, delayed = (
        damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.0), domain=BALL),
        damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=inverse_sqrt(1.0), domain=BALL),
    )
    for algorithm, seen in ((full, stream), (delayed, stream), (full, noisy)):
        assert diagnose(DELTA, weights, BALL, seen, simulated(algorithm, seen)) == ()


def test_consensus_of_agents_that_want_the_same_is_no_sign():
    """One gradient a step, as from interests that never come; but the memories hold what all have seen."""
    stream, _ = problem()
    mixing = damjax.graphs.metropolis_weights(GRAPH)
    trace = simulated(damjax.c_dogd(DELTA, mixing, learning_rate=inverse_sqrt(1.0), domain=BALL), stream)
    assert diagnose(DELTA, np.full((10, 10), 0.1), BALL, stream, trace) == ()


@pytest.mark.parametrize(("num_steps", "rate"), [(400, 0.3), *in_the_long_run((200, 0.3), (200, 1.0), (400, 1.0))])
def test_consensus_is_named_as_the_cause_of_a_plateau(num_steps, rate):
    """In the default problem, where what all have in common makes the plateau a few hundredths of what is learned."""
    stream, weights = problem(num_steps=num_steps)
    mixing = damjax.graphs.metropolis_weights(GRAPH)
    trace = simulated(damjax.c_dogd(DELTA, mixing, learning_rate=inverse_sqrt(rate), domain=BALL), stream)
    found = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert len(found.agents) >= 9
    assert "consensus" in found.message
    losses = regret.personalized_losses(DELTA, weights, trace.params, stream)
    half = num_steps // 2
    late = np.diff(regret.static_regret(losses, DELTA, weights, BALL, stream, [half, num_steps]), axis=0)[0] / half
    nothing = regret.personalized_losses(DELTA, weights, 0 * trace.params, stream).mean(axis=0)
    least = hindsight.best_in_hindsight(DELTA, weights, BALL, stream, [num_steps]).loss[0] / num_steps
    assert found.value == pytest.approx(np.asarray(late / (nothing - least))[list(found.agents)].max())


@pytest.mark.parametrize("rate", [0.0, 1e-5])
def test_a_rate_that_moves_nothing_is_no_consensus(rate):
    """Memories that began alike and stayed so, each interested in itself alone: nobody forced them together."""
    stream, _ = problem()
    alone = np.eye(10)
    for start in (0.0, 1.0):
        algorithm = damjax.ogd(DELTA, alone, learning_rate=rate, domain=BALL)
        _, trace = damjax.simulate(algorithm, jnp.full((10, 5, 5), start), stream)
        messages = [found.message for found in diagnose(DELTA, alone, BALL, stream, trace)]
        assert any("rate is likely too" in message for message in messages)
        assert not any("consensus" in message for message in messages)


def test_no_consensus_is_seen_where_all_want_the_same():
    """A rate that is too small, and memories that agree because the best ones differ by less than a hundredth."""
    stream, _ = problem()
    similar = np.full((10, 10), 0.1) + 0.001 * (np.eye(10) - 0.1)
    trace = simulated(damjax.ogd(DELTA, similar, learning_rate=1e-4, domain=BALL), stream)
    one = jnp.broadcast_to(trace.params.mean(axis=1, keepdims=True), trace.params.shape)
    found = only(diagnose(DELTA, similar, BALL, stream, trace._replace(params=one)), "plateau")
    assert "too small" in found.message
    assert "consensus" not in found.message


def test_a_constant_rate_plateaus():
    stream, _ = problem(num_steps=1000, noise_std=1.0)
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=0.5, domain=BALL), stream)
    found = only(diagnose(DELTA, ALONE, BALL, stream, trace), "plateau")
    assert "too large, or does not decrease" in found.message
    # t^(1/4) times the regret, block by block, over log t.
    best = hindsight.best_in_hindsight(DELTA, ALONE, BALL, stream, [1000]).params[0]
    memories = (trace.params, jnp.broadcast_to(best, trace.params.shape))
    incurred, least = (np.asarray(regret.personalized_losses(DELTA, ALONE, x, stream)) for x in memories)
    parts = np.array_split(np.arange(250, 1000), 16)
    times = np.array([np.log(part + 1).mean() for part in parts])
    weighted = np.array([(incurred - least)[part].mean(axis=0) for part in parts]) * np.exp(times / 4)[:, None]
    exponents = np.polyfit(times, weighted / weighted.mean(axis=0), 1)[0] - 0.25
    assert found.value == pytest.approx(exponents[list(found.agents)].max())


@pytest.mark.parametrize(
    ("num_steps", "delay", "words"),
    [
        (400, 300, "10 of 10 interests, since step 301 of 400"),
        (400, 600, "1 of 10 interests, since step 1"),
        *in_the_long_run((200, 200, "1 of 10 interests, since step 1 of 200")),
    ],
)
def test_delays_are_named_as_the_cause_of_a_plateau(num_steps, delay, words):
    """Round trips of most of the run, and of all of it or more."""
    stream, weights = problem(num_steps=num_steps)
    delays = np.where(np.eye(10) > 0, 0, delay)
    trace = simulated(damjax.dam_togd(DELTA, weights, delays, learning_rate=inverse_sqrt(1.0), domain=BALL), stream)
    found = only(diagnose(DELTA, weights, BALL, stream, trace), "plateau")
    assert words in found.message
    assert "delays are likely too long" in found.message
    assert ("c_dogd" in found.message) == (delay >= num_steps)


def test_interests_that_never_come_are_named():
    """Of one agent a third, of another all that it has; the regret of the others falls as it should."""
    stream, weights = problem(correlation=0.0)
    weights = np.array(weights)
    weights[3], weights[4] = 0.7 * np.eye(10)[3] + 0.3 * np.eye(10)[7], np.eye(10)[8]
    delays = np.array(routed(weights))
    delays[3, 7] = delays[4, 8] = 500
    algorithm = damjax.dam_togd(DELTA, weights, delays, learning_rate=inverse_sqrt(1.0), domain=BALL)
    found = only(diagnose(DELTA, weights, BALL, stream, simulated(algorithm, stream)), "plateau")
    assert found.agents == (3, 4)
    assert "for 0 of 1 interests" in found.message or "for 1 of 2 interests" in found.message


def test_a_rate_too_large_for_the_delays_oscillates():
    stream, weights = problem()
    delays = np.full((10, 10), 20)
    trace = simulated(damjax.dam_togd(DELTA, weights, delays, learning_rate=0.3, domain=BALL), stream)
    findings = diagnose(DELTA, weights, BALL, stream, trace)
    assert signs(findings) == ["divergence", "oscillation"]
    found = findings[1]
    assert found.agents == tuple(range(10))
    assert "delays, up to 20 steps" in found.message
    length = int(found.message.split()[2])
    assert 20 <= length <= 41  # between tau and 2 tau + 1, the half periods of a delayed step
    path = np.asarray(trace.params)[200:].reshape(200, 10, 25)
    move = path[length:] - path[:-length]

    def opposition(n):
        first, second = move[:-length, n].ravel(), move[length:, n].ravel()
        return -first @ second / np.sqrt(first @ first * (second @ second))

    assert found.value == pytest.approx(max(opposition(n) for n in range(10)))


def test_the_delays_of_the_network_swing_too():
    stream, weights = problem()
    trace = simulated(damjax.dam_togd(DELTA, weights, routed(weights), learning_rate=1.5, domain=BALL), stream)
    assert "oscillation" in signs(diagnose(DELTA, weights, BALL, stream, trace))


def hand_made(path):
    """A trace of one agent whose memory (1, 1) follows a path, against the target 1 of a constant stream."""
    num_steps = len(path)
    stream = damjax.streams.from_arrays(np.ones((num_steps, 1, 1)), np.ones((num_steps, 1, 1)))
    info = damjax.Info(
        time=jnp.arange(1, num_steps + 1),
        grad_norm=jnp.ones((num_steps, 1)),
        num_applied=jnp.ones((num_steps, 1), int),
        projected=jnp.zeros((num_steps, 1), bool),
        finite=jnp.ones((num_steps, 1), bool),
    )
    return stream, damjax.Trace(jnp.asarray(path, float).reshape(-1, 1, 1, 1), info)


def test_bouncing_between_two_points():
    stream, trace = hand_made(1 + 0.9 * (-1.0) ** np.arange(400))
    found = diagnose(DELTA, np.eye(1), FREE, stream, trace)[-1]
    assert found.sign == "oscillation"
    assert found.value == pytest.approx(1)
    assert "steps overshoot" in found.message
    # The same where it grows until the loss is no number any more, though the memory still is.
    stream, trace = hand_made(1e150 * (-1.5) ** np.arange(400))
    assert signs(diagnose(DELTA, np.eye(1), FREE, stream, trace)) == ["divergence", "oscillation"]


def test_a_swing_without_delays():
    stream, trace = hand_made(1 + 0.9 * np.sin(np.pi * np.arange(400) / 10))
    found = diagnose(DELTA, np.eye(1), FREE, stream, trace)[-1]
    assert found.sign == "oscillation"
    assert found.value == pytest.approx(1)
    assert "Moves over 10 step(s)" in found.message
    assert "momentum" in found.message


@pytest.mark.parametrize("size", [1e-3, 1e-9], ids=["negligible loss", "rounding"])
def test_small_swings_are_no_sign(size):
    stream, trace = hand_made(1 + size * (-1.0) ** np.arange(400))
    assert diagnose(DELTA, np.eye(1), FREE, stream, trace) == ()


def test_a_swing_of_rounding_is_no_sign_where_no_best_memory_exists():
    linear = damjax.objectives.linear_attention()
    for size, expected in ((1e-9, []), (0.5, ["oscillation"])):
        stream, trace = hand_made(1 + size * (-1.0) ** np.arange(400))
        assert signs(diagnose(linear, np.eye(1), FREE, stream, trace)) == expected


def test_a_ball_smaller_than_the_targets():
    """Agent 0 wants a small target, the others' stick out of the ball."""
    stream, targets = damjax.streams.linear_model(jax.random.key(0), num_steps=400, noise_std=0.0)
    targets = targets.at[0].multiply(0.1)
    stream = damjax.Associations(stream.keys, damjax.streams.respond(targets, jnp.asarray(stream.keys)))
    ball = damjax.domains.frobenius_ball(2.0)
    norms = np.linalg.norm(targets, axis=(1, 2))
    assert norms[0] < 2 < norms[1:].min()
    trace = simulated(damjax.ogd(DELTA, ALONE, learning_rate=inverse_sqrt(1.0), domain=ball), stream)
    found = only(diagnose(DELTA, ALONE, ball, stream, trace), "boundary")
    assert found.agents == tuple(range(1, 10))
    assert found.value == pytest.approx(1)
    assert "set is likely too small" in found.message
    # A function of the time is the same stream.
    assert diagnose(DELTA, ALONE, ball, lambda time: jax.tree.map(lambda x: x[time - 1], stream), trace) == (found,)


@pytest.mark.long
def test_a_box_smaller_than_the_targets():
    """Five entries of twelve want beyond the bounds, one has wider bounds, and one is pinned."""
    target = np.array([[3.0, -3, 0.5, 0.1], [2, -2, 0.2, 9], [0.3, 5, -0.4, 0.7]])
    lower, upper = -np.ones((3, 4)), np.ones((3, 4))
    lower[1, 3], upper[1, 3], upper[2, 3] = -50, 50, -1
    keys = np.random.default_rng(0).normal(size=(400, 1, 4))
    stream = damjax.streams.from_arrays(keys, np.einsum("ij,tnj->tni", target, keys))
    box, alone = damjax.domains.box(lower, upper), np.eye(1)
    trace = simulated(damjax.ogd(DELTA, alone, learning_rate=inverse_sqrt(0.5), domain=box), stream)
    found = only(diagnose(DELTA, alone, box, stream, trace), "boundary")
    assert found.value == pytest.approx(5 / 12)
    # A ridge holds the best memory where there are no bounds at all.
    stream, trace = hand_made(np.full(400, 2.0))
    gated = stream._replace(gates=jnp.full((400, 1), 0.5))
    endless = damjax.domains.box(-np.inf, np.inf)
    assert diagnose(damjax.objectives.gated_linear_attention(), alone, endless, gated, trace) == ()


@pytest.mark.parametrize("name", ["gated_linear_attention", *in_the_long_run("linear_attention")])
def test_the_best_memory_of_a_linear_loss_is_on_the_boundary_in_health(name):
    objective, (stream, weights) = getattr(damjax.objectives, name)(), problem()
    ball = damjax.domains.frobenius_ball(4.0)
    if objective.gated:
        # Little forgetting: a large ridge would keep the best memory inside.
        stream = stream._replace(gates=jnp.full((400, 10), 0.999))
    trace = simulated(damjax.ogd(objective, weights, learning_rate=inverse_sqrt(3.0), domain=ball), stream)
    assert signs(diagnose(objective, weights, ball, stream, trace)) == (["boundary"] if objective.gated else [])


def test_bad_input(untyped):
    stream, weights = problem(num_agents=3, num_steps=40)
    algorithm = damjax.ogd(DELTA, weights, learning_rate=inverse_sqrt(1.0), domain=BALL)
    state, trace = damjax.simulate(algorithm, jnp.zeros((3, 5, 5)), stream)
    call = functools.partial(diagnose, DELTA, weights, BALL)
    with pytest.raises(ValueError, match="trace must be of type Trace, but it is"):
        call(stream, trace.params)
    with pytest.raises(ValueError, match="some are traced; diagnose outside jit"):
        jax.jit(lambda trace: len(call(stream, trace)))(trace)
    short = jax.tree.map(lambda leaf: leaf[:31], (stream, trace))
    with pytest.raises(ValueError, match="at least 32 steps to tell a sign from chance, but has 31"):
        call(*short)
    with pytest.raises(ValueError, match="must have the 40 steps of the trace, but have 31"):
        call(short[0], trace)
    with pytest.raises(ValueError, match="associations must be of type Associations"):
        call(stream.keys, trace)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"weights must have shape \(3, 3\)"):
        diagnose(DELTA, jnp.eye(2), BALL, stream, trace)
    _, rest = damjax.resume(algorithm, state, stream)
    with pytest.raises(ValueError, match="trace must start with step 1 but starts with 41"):
        call(stream, rest)
    assert set(diagnostics.Finding._fields) == {"sign", "value", "threshold", "agents", "message"}
