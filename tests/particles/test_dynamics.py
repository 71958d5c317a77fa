"""The particle system is gradient descent on W, exactly (Theorem 1); one driver trains every memory on every source."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from damjax import particles
from damjax.particles import embeddings, sampling
from tests.cases import in_the_long_run
from tests.particles.cases import PROBLEM, random_instance

NUM_STEPS = 25


def momentum():
    return optax.sgd(optax.cosine_decay_schedule(3.0, NUM_STEPS), momentum=0.9, nesterov=True)


def noisy(key, problem):
    return sampling.noisy_labels(key, sampling.with_label_noise(problem, 0.3))


VARIANTS = {
    "full batch": (lambda memory: particles.descent(memory, 3.0), lambda key, problem: problem),
    "momentum": (lambda memory: particles.descent(memory, momentum()), lambda key, problem: problem),
    "minibatches": (lambda memory: particles.descent(memory, 3.0), lambda key, p: sampling.minibatches(key, p, 4)),
    "noisy labels": (lambda memory: particles.descent(memory, 3.0), noisy),
    "soft labels": (
        lambda memory: particles.descent(memory, 3.0),
        lambda key, problem: sampling.with_label_noise(problem, 0.3),
    ),
    "flow": (lambda memory: particles.flow(memory, 0.5, tolerance=1e-13), lambda key, problem: problem),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("num_tokens", "dim"), [(6, 3), *in_the_long_run((4, 7))])
def test_scores_move_as_those_of_the_matrix(variant, num_tokens, dim):
    train, source = VARIANTS[variant]
    num_steps = 6 if variant == "flow" else NUM_STEPS

    def both(inputs, outputs, problem, key):
        matrix, scores = particles.full(inputs, outputs), particles.particle_system(num_tokens, 3)
        data = source(key, problem)
        _, in_parameters = particles.evolve(train(matrix), matrix.init(key), data, num_steps)
        state, in_scores = particles.evolve(train(scores), scores.init(key), data, num_steps)
        return in_parameters, in_scores, state.step

    cases = [
        random_instance(jax.random.key(i), num_tokens, dim, kind=kind)
        for i, kind in enumerate(["gaussian", "low rank", "correlated"])
    ]
    inputs, outputs, problems = jax.tree.map(lambda *x: jnp.stack(x), *cases)
    mapped = jax.jit(jax.vmap(both))
    in_parameters, in_scores, steps = mapped(inputs, outputs, problems, jax.random.split(jax.random.key(9), 3))
    assert in_scores.shape == (3, num_steps + 1, num_tokens, 3)
    assert jnp.all(steps == num_steps)
    assert jnp.abs(in_scores[:, -1]).max() > 0.5
    # Relative to the largest score: single entries may cross zero.
    np.testing.assert_allclose(in_scores, in_parameters, rtol=1e-10, atol=1e-10 * float(jnp.abs(in_scores).max()))


def test_against_a_plain_loop():
    inputs, outputs, problem = random_instance(jax.random.key(3), 5, 4)
    E, U, p, Y = (np.asarray(x) for x in (inputs, outputs, problem.frequencies, problem.targets))
    W, eta = np.zeros((U.shape[1], E.shape[1])), 7.0
    trajectory = particles.simulate(jnp.zeros((5, 3)), problem, eta, 40)
    each = jax.jit(
        jax.vmap(
            lambda s: (particles.loss(s, problem), particles.margins(s, problem), particles.error_rate(s, problem))
        )
    )
    for scores, *numbers in zip(*map(np.asarray, (trajectory, *each(trajectory))), strict=True):
        np.testing.assert_allclose(scores, E @ W.T @ U.T, rtol=1e-9, atol=1e-10)
        probabilities = np.exp(scores - scores.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        loss = -sum(p[x] * np.log(probabilities[x, y]) for x, y in enumerate(Y.argmax(1)))
        assert numbers[0] == pytest.approx(loss, rel=1e-10)
        margins = [scores[x, y] - max(scores[x, j] for j in range(3) if j != y) for x, y in enumerate(Y.argmax(1))]
        np.testing.assert_allclose(numbers[1], margins, rtol=1e-12)
        error = sum(p[x] for x, y in enumerate(Y.argmax(1)) if scores[x].argmax() != y)
        assert numbers[2] == pytest.approx(error)
        for x in range(5):
            W = W + eta * p[x] * np.outer(U.T @ (Y[x] - probabilities[x]), E[x])


def test_one_step_is_the_first_of_many():
    _, _, problem = random_instance(jax.random.key(0), 5, 4)
    start = jax.random.normal(jax.random.key(1), (5, 3))
    trajectory = particles.simulate(start, problem, 2.0, 2)
    np.testing.assert_array_equal(trajectory[0], start)
    np.testing.assert_allclose(particles.step(trajectory[1], problem, 2.0), trajectory[2], rtol=1e-13)


def test_the_library_objective_makes_the_same_step():
    # The cross-entropy memory of the distributed half, on one association of frequency one.
    inputs, outputs, _ = random_instance(jax.random.key(5), 1, 4)
    problem = particles.from_embeddings(inputs, outputs, np.ones(1), particles.one_hot([2], 3))
    objective = damjax.objectives.cross_entropy(outputs)
    algorithm = damjax.ogd(objective, np.eye(1), learning_rate=2.0, domain=damjax.domains.unconstrained())
    stream = damjax.Associations(jnp.broadcast_to(inputs, (9, 1, 4)), jnp.broadcast_to(outputs[2], (9, 1, 5)))
    _, trace = damjax.simulate(algorithm, jnp.zeros((1, 5, 4)), stream)
    scores = jnp.einsum("xi,toi,mo->txm", inputs, trace.params[:, 0], outputs)
    np.testing.assert_allclose(particles.simulate(jnp.zeros((1, 3)), problem, 2.0, 8), scores, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("learning_rate", [1e2, 1e6, 1e30])
def test_no_step_is_too_large_for_the_arithmetic(dtype, learning_rate):
    inputs, outputs, problem = random_instance(jax.random.key(2), 6, 3)
    problem = problem.astype(dtype)
    scores = jax.jit(particles.simulate, static_argnums=3)(jnp.zeros((6, 3), dtype), problem, learning_rate, 200)
    assert scores.dtype == dtype
    assert jnp.isfinite(scores).all()
    # With autodiff through the loss, as every parameterised memory has it.
    both = jax.jit(jax.vmap(jax.value_and_grad(particles.loss), in_axes=(0, None)))
    losses, gradients = both(scores, problem)
    assert losses.dtype == dtype
    assert jnp.isfinite(losses).all()
    assert jnp.isfinite(gradients).all()
    matrix = particles.full(inputs.astype(dtype), outputs.astype(dtype))
    _, trajectory = particles.evolve(
        particles.descent(matrix, learning_rate), matrix.init(jax.random.key(0)), problem, 20
    )
    assert trajectory.dtype == dtype
    assert jnp.isfinite(trajectory).all()


def test_a_memory_that_is_lost_is_no_secret():
    """A product of two factors is not linear in them, and diverges at steps at which W itself never would."""
    inputs, outputs, problem = random_instance(jax.random.key(2), 6, 3)
    memory = particles.low_rank(inputs, outputs, 2)
    with pytest.warns(RuntimeWarning, match="ended as NaN or infinity; likely a step too large"):
        particles.evolve(particles.descent(memory, 1e30), memory.init(jax.random.key(0)), problem, 50)


def test_sources_are_asked_for_the_steps_one_to_the_last():
    _, _, problem = random_instance(jax.random.key(0), 2, 3)
    # Problems that move the scores by their time, so that the increments are the times.
    still = dict(vars(problem), output_gram=jnp.eye(3))

    def at(time):
        gram = jnp.eye(2) * jnp.asarray(time, float)
        return particles.Problem(**(still | {"input_gram": gram}))

    sgd = particles.descent(particles.particle_system(2, 3), 1e-6)
    _, trace = particles.evolve(sgd, jnp.zeros((2, 3)), at, 5)
    moves = jnp.diff(trace, axis=0)[:, 0, 0]
    np.testing.assert_allclose(moves / moves[0], [1, 2, 3, 4, 5], rtol=1e-4)


def test_the_scores_decide_the_precision():
    """Beside a problem, a rate and a gain of the other precision."""
    inputs, outputs, problem = random_instance(jax.random.key(0), 4, 3)
    single = jnp.zeros((4, 3), jnp.float32)
    rate = np.float64(2.0)
    results = [
        particles.step(single, problem, rate),
        particles.simulate(single, problem, rate, 2),
        particles.loss(single, problem),
        particles.margins(single, problem),
        particles.error_rate(single, problem),
        particles.evolve(particles.flow(particles.particle_system(4, 3), rate), single, problem, 2)[1],
        particles.normalized_scores(
            particles.full(inputs.astype(jnp.float32), outputs.astype(jnp.float32)), np.float64(2.0)
        ).scores(jnp.ones((4, 3), jnp.float32)),
        particles.two_tokens(jnp.float32(0.5), jnp.float32(0.7)).targets,
        embeddings.pair(jnp.float32(0.5)),
    ]
    assert [x.dtype for x in results] == [jnp.float32] * len(results)
    assert embeddings.pair(0.6).dtype == jnp.float64


def test_a_flow_in_single_precision():
    problem = particles.two_tokens(0.0, 0.75).astype(jnp.float32)
    dynamics = particles.flow(particles.particle_system(2, 2), 2.5)
    _, trace = jax.jit(lambda: particles.evolve(dynamics, jnp.zeros((2, 2), jnp.float32), problem, 8))()
    margins = jax.vmap(lambda s: particles.margins(s, problem))(trace)
    expected = particles.binary.flow_margins(0.0, 2 * problem.frequencies, 2.5 * jnp.arange(9.0)[:, None])
    np.testing.assert_allclose(margins, expected, rtol=3e-5, atol=3e-5)


def test_nothing_is_traced_twice():
    _, _, problem = random_instance(jax.random.key(0), 5, 4)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(scores, problem, learning_rate):
        return particles.simulate(scores, problem, learning_rate, 5)

    run(jnp.zeros((5, 3)), problem, 1.0)
    run(jnp.ones((5, 3)), jax.tree.map(lambda x: x * 1.0, problem), 3.0)


LOOPS = [{"checkpoint_every": 5}, *in_the_long_run({"checkpoint_every": 13, "unroll": 2}, {"unroll": 3})]


@pytest.mark.parametrize("loop", LOOPS)
def test_runs_do_not_depend_on_how_the_loop_is_made(loop):
    """Segments that divide 13 steps, and others: the same numbers and the same derivatives."""
    inputs, outputs, problem = random_instance(jax.random.key(0), 4, 3)
    memory = particles.low_rank(inputs, outputs, 2)
    start = memory.init(jax.random.key(2))

    def at(time):
        return sampling.with_label_noise(problem, 1 / (1 + time))

    @functools.partial(jax.jit, static_argnames=("checkpoint_every", "unroll"))
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(start, **settings):
        dynamics = particles.descent(memory, momentum())
        state, losses = particles.evolve(
            dynamics, start, at, 13, observe=lambda scores: particles.loss(scores, problem), **settings
        )
        return losses.sum(), (state, losses)

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), run(start, **loop), run(start))
    scores = particles.simulate(jnp.zeros((4, 3)), problem, 2.0, 13)
    again = particles.simulate(jnp.zeros((4, 3)), problem, 2.0, 13, **loop)
    np.testing.assert_allclose(again, scores, rtol=1e-12, atol=1e-12)


def test_checkpoints_spare_memory():
    """What XLA keeps for the derivative of 4000 steps: with a checkpoint every 60 a fraction."""
    _, _, problem = random_instance(jax.random.key(0), 6, 3)

    def final_loss(rate, checkpoint_every):
        dynamics = particles.descent(particles.particle_system(6, 3), rate)
        state, _ = particles.evolve(
            dynamics, jnp.zeros((6, 3)), problem, 4000, observe=lambda _: None, checkpoint_every=checkpoint_every
        )
        return particles.loss(state.params, problem)

    programs = [
        jax.jit(jax.grad(functools.partial(final_loss, checkpoint_every=every))).lower(2.0).compile()
        for every in (None, 60)
    ]
    plain, segmented = (program.memory_analysis() for program in programs)
    assert plain is not None
    assert segmented is not None
    assert segmented.temp_size_in_bytes < plain.temp_size_in_bytes / 10
    np.testing.assert_allclose(programs[1](2.0), programs[0](2.0), rtol=1e-9)


@pytest.mark.long
def test_checkpoints_of_a_flow():
    problem = particles.two_tokens(0.0, 0.75)

    @functools.partial(jax.jit, static_argnums=1)
    @jax.grad
    def slope(duration, checkpoint_every):
        dynamics = particles.flow(particles.particle_system(2, 2), duration)
        state, _ = particles.evolve(dynamics, jnp.zeros((2, 2)), problem, 6, checkpoint_every=checkpoint_every)
        return particles.margins(state.params, problem)[0]

    # dm/dt = c p f(m), six steps.
    expected = 6 * 1.5 * jax.nn.sigmoid(-particles.binary.flow_margins(0.0, 1.5, 6 * 0.5))
    np.testing.assert_allclose([slope(0.5, None), slope(0.5, 4)], expected, rtol=1e-6)


def test_problems_map_and_differentiate():
    _, _, problem = random_instance(jax.random.key(0), 5, 4)

    @jax.jit
    def final_loss(problem, learning_rate):
        return particles.loss(particles.simulate(jnp.zeros((5, 3)), problem, learning_rate, 10)[-1], problem)

    slope = jax.jit(jax.grad(final_loss, argnums=(0, 1)))
    gradient, by_rate = slope(problem, 2.0)
    assert isinstance(gradient, particles.Problem)
    difference = (final_loss(problem, 2.0 + 1e-5) - final_loss(problem, 2.0 - 1e-5)) / 2e-5
    assert by_rate == pytest.approx(float(difference), rel=1e-6)
    moved = jax.tree.map(jnp.asarray, problem)
    shift = jnp.zeros((5, 5)).at[1, 2].set(1e-5).at[2, 1].set(1e-5)
    up, down = (jax.tree.map(lambda x: x, moved) for _ in range(2))
    object.__setattr__(up, "input_gram", up.input_gram + shift)
    object.__setattr__(down, "input_gram", down.input_gram - shift)
    difference = (final_loss(up, 2.0) - final_loss(down, 2.0)) / 2e-5
    assert gradient.input_gram[1, 2] + gradient.input_gram[2, 1] == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.step(jnp.zeros((2, 2)), PROBLEM, 1.0), "scores must have one row a token"),
        (lambda: particles.simulate(jnp.zeros((3, 2), int), PROBLEM, 1.0, 5), "scores must be floating-point"),
        (lambda: particles.simulate(jnp.zeros((3, 3)), PROBLEM, 1.0, 5), "scores must have one row a token"),
        (lambda: particles.simulate(jnp.zeros((3, 2)), PROBLEM, 1.0, 0), "num_steps must be a positive integer"),
        (lambda: particles.simulate(jnp.zeros((3, 2)), PROBLEM, -1.0, 5), "learning_rate must be finite and non-neg"),
        (lambda: particles.step(jnp.zeros((3, 2)), PROBLEM, np.nan), "learning_rate must be finite and non-negative"),
        (lambda: particles.descent(particles.particle_system(3, 2), np.inf), "optimizer, a step size, must be finite"),
        (lambda: particles.flow(particles.particle_system(3, 2), 0.0), "duration must be finite and positive"),
        (lambda: particles.step(jnp.zeros((3, 2)), PROBLEM, np.ones(2)), "learning_rate must be one number"),
        (lambda: particles.descent("full", 1.0), "memory must be of type Memory"),  # pyright: ignore[reportArgumentType]
        (lambda: particles.flow(particles.particle_system(3, 2), 1.0, tolerance=-1.0), "tolerance must be finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
