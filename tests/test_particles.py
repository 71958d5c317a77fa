"""The particle system is gradient descent on W, exactly (Theorem 1), and its quantities are what they say."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import logsumexp

import damjax
from damjax import particles
from damjax.particles import embeddings, sampling, transformer
from damjax.particles.quantities import residuals
from tests.cases import in_the_long_run

NUM_STEPS = 25


def random_instance(key, num_tokens, dim, *, kind="gaussian", num_classes=3):
    """Embeddings and a problem of a kind: inputs, outputs, problem."""
    keys = jax.random.split(key, 4)
    if kind == "low rank":
        factors = jax.random.normal(keys[0], (num_tokens, 2)) @ jax.random.normal(keys[3], (2, dim))
        inputs = factors / jnp.linalg.norm(factors, axis=1, keepdims=True)
    elif kind == "correlated":
        inputs = 0.9 + 0.3 * embeddings.gaussian(keys[0], num_tokens, dim)
    else:
        inputs = embeddings.gaussian(keys[0], num_tokens, dim)
    outputs = embeddings.gaussian(keys[1], num_classes, dim + 1)
    classes = jax.random.randint(keys[2], (num_tokens,), 0, num_classes)
    frequencies = embeddings.zipf(num_tokens)
    targets = jax.nn.one_hot(classes, num_classes)
    return inputs, outputs, particles.from_embeddings(inputs, outputs, frequencies, targets)


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
        seen = source(key, problem)
        _, in_parameters = particles.evolve(train(matrix), matrix.init(key), seen, num_steps)
        state, in_scores = particles.evolve(train(scores), scores.init(key), seen, num_steps)
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
    found = particles.simulate(jnp.zeros((5, 3)), problem, eta, 40)
    each = jax.jit(
        jax.vmap(
            lambda s: (particles.loss(s, problem), particles.margins(s, problem), particles.error_rate(s, problem))
        )
    )
    for scores, *seen in zip(*map(np.asarray, (found, *each(found))), strict=True):
        np.testing.assert_allclose(scores, E @ W.T @ U.T, rtol=1e-9, atol=1e-10)
        probabilities = np.exp(scores - scores.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        loss = -sum(p[x] * np.log(probabilities[x, y]) for x, y in enumerate(Y.argmax(1)))
        assert seen[0] == pytest.approx(loss, rel=1e-10)
        margins = [scores[x, y] - max(scores[x, j] for j in range(3) if j != y) for x, y in enumerate(Y.argmax(1))]
        np.testing.assert_allclose(seen[1], margins, rtol=1e-12)
        error = sum(p[x] for x, y in enumerate(Y.argmax(1)) if scores[x].argmax() != y)
        assert seen[2] == pytest.approx(error)
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


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_log_odds_keep_their_precision(num_classes):
    scores = jax.random.normal(jax.random.key(0), (50, num_classes)) * jnp.geomspace(1e-2, 1e2, 50)[:, None]
    exact = jax.scipy.special.logit(jax.nn.softmax(scores[:20]))
    odds = jax.jit(particles.log_odds)
    np.testing.assert_allclose(odds(scores)[:20], exact, rtol=1e-7, atol=1e-7)
    single = odds(scores.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, odds(scores), rtol=1e-5, atol=1e-5)
    # softmax in float32 would stop at 17: these particles still move, with the right speed.
    problem = particles.Problem(np.eye(1), np.eye(num_classes), np.ones(1), particles.one_hot([0], num_classes)).astype(
        jnp.float32
    )
    sure = jnp.zeros((1, num_classes), jnp.float32).at[0, 0].set(40.0)
    loss, gradient = jax.jit(jax.value_and_grad(particles.loss))(sure, problem)
    assert loss == pytest.approx((num_classes - 1) * np.exp(-40), rel=1e-5)
    assert gradient[0, 0] == pytest.approx(-(num_classes - 1) * np.exp(-40), rel=1e-5)


SCORES = np.array(
    [
        [88.0, 20, -20],
        [-88, 40, 0],
        [1e-30, -1e-8, 0],
        [17, 1e-3, 16],
        [1e6, 1e6, 1e6 - 1],  # a logarithm of 2 is lost beside 1e6
        [1e6 - 1, 1e6, 1e6],
        [1e38, 0, -1e38],
        [-1e38, 0, 1e38],
        [0, -np.inf, 1],
    ],
    np.float32,
)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.2])
def test_losses_and_forces_in_single_precision(noise):
    """Against float64, in which one minus the rest is written as the sum of the others."""
    targets = np.array([1 - noise, 0.75 * noise, 0.25 * noise], np.float32)
    problem = particles.Problem(np.eye(1), np.eye(3), np.ones(1), targets[None])

    def both(scores):
        loss, gradient = jax.value_and_grad(particles.loss)(scores[None], problem)
        return loss, gradient[0], residuals(scores[None], problem)[0]

    loss, gradient, forces = jax.jit(jax.vmap(both))(jnp.asarray(SCORES))
    assert loss.dtype == forces.dtype == jnp.float32
    wide, soft = SCORES.astype(float), targets.astype(float)
    against = np.stack([logsumexp(np.delete(wide, j, 1) - wide[:, [j]], axis=1) for j in range(3)], axis=1)
    expected = np.where(soft == 0, 0, np.logaddexp(0, against)) @ soft
    representable = expected < 3e38
    np.testing.assert_allclose(loss[representable], expected[representable], rtol=1e-5, atol=1e-37)
    assert np.isinf(loss[~representable]).all()
    missing = soft[1:] - np.exp(-np.logaddexp(0, against[:, 1:]))
    pull = np.concatenate([-missing.sum(axis=1, keepdims=True), missing], axis=1)
    np.testing.assert_allclose(forces, pull, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(-gradient[representable], pull[representable], rtol=1e-5, atol=1e-37)


def test_memories_that_are_surely_wrong_are_curved():
    """f(m) f(-m) for both signs of m: 1 - f is 0 in float32 as soon as f is near 1."""
    margins = np.array([-70, -40, -17, -1, 0, 17, 40, 70], np.float32)
    problem = particles.Problem(np.eye(1), np.eye(2), np.ones(1), particles.one_hot([0], 2)).astype(jnp.float32)
    system = particles.particle_system(1, 2)

    def curvatures(margin):
        scores = jnp.stack([margin, jnp.zeros_like(margin)])[None]
        second = jax.grad(jax.grad(lambda x: particles.loss(scores.at[0, 0].set(x), problem)))(margin)
        return second, particles.sharpness(system, scores, problem, key=jax.random.key(0)) / 2

    expected = np.exp(-np.logaddexp(0, margins.astype(float)) - np.logaddexp(0, -margins.astype(float)))
    for found in jax.jit(jax.vmap(curvatures))(jnp.asarray(margins)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layer_norm_of_extreme_rows():
    rows = np.array([[1e7, 1e7 + 1, 1e7 + 2], [1e20, 0, 1], [1e30, -1e30, 0], [1e-3, 2e-3, 0]], np.float32)
    wide = rows.astype(float) - rows.astype(float).mean(axis=1, keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(particles.layer_norm(jnp.asarray(rows)), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_of_a_sure_transformer():
    """One dimension, in which token 0 says itself with odds e^40: log(1 + e^-40 + e^-80) is no 0."""
    none, rows = np.zeros((1, 1), np.float32), np.array([[1], [0], [-1]], np.float32)
    model = transformer.Model(40 * rows, np.zeros((2, 1), np.float32), rows, none, none)
    tokens = jnp.zeros((1, 2), jnp.int32)
    batch = particles.bigrams.Batch(tokens, tokens, jnp.ones((1, 2), bool))
    sure = transformer.zeros(model)
    assert transformer.loss(sure, model, batch) == pytest.approx(np.exp(-40), rel=1e-5)
    assert transformer.accuracy(sure, model, batch) == 1
    lost = sure._replace(key=jnp.full_like(sure.key, jnp.nan))
    assert jnp.isnan(transformer.loss(lost, model, batch))
    assert jnp.isnan(transformer.accuracy(lost, model, batch))


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
    _, found = particles.evolve(particles.descent(matrix, learning_rate), matrix.init(jax.random.key(0)), problem, 20)
    assert found.dtype == dtype
    assert jnp.isfinite(found).all()


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
    found = [
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
    assert [x.dtype for x in found] == [jnp.float32] * len(found)
    assert embeddings.pair(0.6).dtype == jnp.float64


def test_a_flow_in_single_precision():
    problem = particles.two_tokens(0.0, 0.75).astype(jnp.float32)
    dynamics = particles.flow(particles.particle_system(2, 2), 2.5)
    _, trace = jax.jit(lambda: particles.evolve(dynamics, jnp.zeros((2, 2), jnp.float32), problem, 8))()
    margins = jax.vmap(lambda s: particles.margins(s, problem))(trace)
    expected = particles.binary.flow_margins(0.0, 2 * problem.frequencies, 2.5 * jnp.arange(9.0)[:, None])
    np.testing.assert_allclose(margins, expected, rtol=3e-5, atol=3e-5)


def test_scores_that_are_lost_recall_nothing():
    problem = particles.two_tokens(0.5, 0.75)
    lost = jnp.array([[1.0, jnp.nan], [0.0, 1.0]])
    assert particles.recalled(lost, problem).tolist() == [False, True]
    # And no number is made of them.
    numbers = (particles.error_rate, particles.loss, lambda *both: particles.margins(*both)[0])
    assert np.isnan([number(lost, problem) for number in numbers]).all()
    # Ties go to the first class, whose margin is zero then.
    assert particles.recalled(jnp.zeros((2, 2)), problem).tolist() == [True, False]
    assert particles.margins(jnp.zeros((2, 2)), problem).tolist() == [0, 0]


@pytest.mark.long
def test_minibatches_have_the_right_law():
    _, _, problem = random_instance(jax.random.key(0), 4, 3)
    soft = sampling.with_label_noise(problem, 0.6)
    batches = sampling.minibatches(jax.random.key(1), soft, 5)
    drawn = jax.jit(jax.vmap(batches))(jnp.arange(4000))
    joint = drawn.frequencies[:, :, None] * drawn.targets
    np.testing.assert_allclose(joint.sum((1, 2)), 1, rtol=1e-12)
    np.testing.assert_allclose(joint * 5, jnp.round(joint * 5), atol=1e-12)
    wanted = soft.frequencies[:, None] * soft.targets
    error = jnp.sqrt(wanted * (1 - wanted) / (4000 * 5))
    assert jnp.all(jnp.abs(joint.mean(0) - wanted) < 4.5 * error)
    np.testing.assert_array_equal(batches(7).targets, drawn.targets[7])
    # Labels drawn anew for every token keep the frequencies.
    labels = jax.jit(jax.vmap(sampling.noisy_labels(jax.random.key(2), soft)))(jnp.arange(4000))
    np.testing.assert_allclose(labels.frequencies, jnp.broadcast_to(soft.frequencies, (4000, 4)), rtol=1e-12)
    assert set(np.unique(labels.targets)) == {0.0, 1.0}
    assert jnp.all(jnp.abs(labels.targets.mean(0) - soft.targets) < 4.5 * jnp.sqrt(0.25 / 4000))


def test_minibatch_gradients_are_unbiased():
    _, _, problem = random_instance(jax.random.key(0), 4, 3)
    batches = sampling.minibatches(jax.random.key(1), problem, 3)
    scores = jax.random.normal(jax.random.key(2), (4, 3))
    moves = jax.jit(jax.vmap(lambda t: particles.step(scores, batches(t), 1.0)))(jnp.arange(6000)) - scores[None]
    full = particles.step(scores, problem, 1.0) - scores
    np.testing.assert_array_less(jnp.abs(moves.mean(0) - full), 5 * moves.std(0) / np.sqrt(6000) + 1e-12)


@pytest.mark.long
def test_low_rank_of_full_rank_and_single_blocks_start_as_the_full_memory():
    inputs, outputs, problem = random_instance(jax.random.key(0), 5, 4)
    full = particles.full(inputs, outputs)
    one_block = particles.block_diagonal(inputs[:, :4], outputs, 1)
    W = full.init(jax.random.key(0))
    np.testing.assert_allclose(one_block.gradient(W[None], problem)[0], full.gradient(W, problem), rtol=1e-12)
    # On average over P the first step of P Q' is that of W: dL/dQ' = P' dL/dW, and E[P P'] = I.
    low = particles.low_rank(inputs, outputs, 3)

    def first_step(key):
        factors = low.init(key)
        return factors.left @ low.gradient(factors, problem).right.T

    steps = jax.jit(jax.vmap(first_step))(jax.random.split(jax.random.key(1), 4000))
    difference = jnp.abs(steps.mean(0) - full.gradient(W, problem))
    assert jnp.all(difference < 5 * steps.std(0) / np.sqrt(4000) + 1e-12)


def test_blocks_are_a_matrix_with_zeros_outside():
    inputs, outputs, problem = random_instance(jax.random.key(0), 5, 5)
    inputs = jnp.concatenate([inputs, inputs[:, :1]], axis=1)
    blocks = jax.random.normal(jax.random.key(1), (2, 3, 3))
    memory, full = particles.block_diagonal(inputs, outputs, 2), particles.full(inputs, outputs)
    matrix = jax.scipy.linalg.block_diag(*blocks)
    np.testing.assert_allclose(memory.scores(blocks), full.scores(matrix), rtol=1e-12)
    gradient = full.gradient(matrix, problem)
    expected = jnp.stack([gradient[:3, :3], gradient[3:, 3:]])
    np.testing.assert_allclose(memory.gradient(blocks, problem), expected, rtol=1e-10, atol=1e-14)


def test_layer_norm():
    rows = jax.random.normal(jax.random.key(0), (4, 64)) * 3 + 1
    normal = particles.layer_norm(rows)
    np.testing.assert_allclose(normal.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(normal, axis=1), 8, rtol=1e-4)
    inputs, outputs, _ = random_instance(jax.random.key(0), 4, 3)
    memory = particles.normalized_scores(particles.full(inputs, outputs), 2.5)
    matrix = jax.random.normal(jax.random.key(1), (4, 3))
    scores = memory.scores(matrix)
    np.testing.assert_allclose(jnp.std(scores, axis=1), 2.5, rtol=1e-3)
    np.testing.assert_allclose(memory.scores(7 * matrix), scores, rtol=1e-3)
    assert jnp.abs(scores).max() <= 2.5 * np.sqrt(3)


@pytest.mark.long
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian():
    inputs, outputs, problem = random_instance(jax.random.key(4), 5, 4)
    options = {"num_iterations": 2000, "tolerance": 1e-12}

    def both(memory):
        """Sharpness by iteration, and all eigenvalues of the Hessian, as functions of the parameters."""

        def hessian(params):
            flat, rebuild = ravel_pytree(params)
            return jnp.linalg.eigvalsh(jax.hessian(lambda x: particles.loss(memory.scores(rebuild(x)), problem))(flat))

        iterate = lambda params, key: particles.sharpness(memory, params, problem, key=key, **options)  # noqa: E731
        return jax.jit(iterate), jax.jit(hessian)

    full, scores = particles.full(inputs, outputs), particles.particle_system(5, 3)
    matrix = jax.random.normal(jax.random.key(1), full.init(jax.random.key(0)).shape)
    find, eigenvalues = both(full)
    expected = float(eigenvalues(matrix)[-1])
    assert find(matrix, jax.random.key(2)) == pytest.approx(expected, rel=1e-8)
    assert both(scores)[0](full.scores(matrix), jax.random.key(2)) == pytest.approx(expected, rel=1e-6)
    assert particles.sharpness(full, matrix, problem, key=jax.random.key(2)) == pytest.approx(expected, rel=1e-3)
    # A product has negative curvature: at its saddle, zero, the eigenvalues come in pairs of both signs.
    low = particles.low_rank(inputs, outputs, 2)
    find, eigenvalues = both(low)
    saddle = jax.tree.map(jnp.zeros_like, low.init(jax.random.key(3)))
    for params in (saddle, jax.tree.map(lambda x: x + 0.1, saddle)):
        values = eigenvalues(params)
        assert values[0] < -0.1 * values[-1]
        for seed in range(3):
            assert find(params, jax.random.key(seed)) == pytest.approx(float(values[-1]), rel=1e-6)
    np.testing.assert_allclose(eigenvalues(saddle)[0], -eigenvalues(saddle)[-1], rtol=1e-9)


def test_nothing_is_traced_twice():
    _, _, problem = random_instance(jax.random.key(0), 5, 4)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(scores, problem, learning_rate):
        return particles.simulate(scores, problem, learning_rate, 5)

    run(jnp.zeros((5, 3)), problem, 1.0)
    run(jnp.ones((5, 3)), jax.tree.map(lambda x: x * 1.0, problem), 3.0)


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


GOOD = {
    "input_gram": np.eye(3),
    "output_gram": np.eye(2),
    "frequencies": np.full(3, 1 / 3),
    "targets": np.eye(2)[[0, 1, 1]],
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequencies": np.full(3, 0.4)}, "frequencies must sum to one, but its sum is 1.2; divide by it"),
        (
            {"frequencies": np.array([0.5, 0.7, -0.2])},
            "frequencies must be finite and non-negative, but one entry is -0.2",
        ),
        (
            {"frequencies": np.array([0.5, 0.5, np.nan])},
            "frequencies must be finite and non-negative, but one entry is nan",
        ),
        (
            {"input_gram": np.eye(3) - 0.6},
            "input_gram must be positive semidefinite, but its lowest eigenvalue is -0.8",
        ),
        ({"input_gram": np.triu(np.ones((3, 3)))}, "input_gram must be symmetric"),
        ({"output_gram": np.diag([1.0, -1.0])}, "output_gram must be positive semidefinite"),
        ({"output_gram": np.diag([1.0, np.inf])}, "output_gram must be finite"),
        (
            {"targets": np.ones((3, 2))},
            "targets must sum to one, row by row, but a row sums to 2; divide each row by its sum",
        ),
        ({"targets": np.ones((2, 2)) / 2}, "the shapes are"),
        ({"frequencies": np.full(2, 0.5)}, "the shapes are"),
        ({"output_gram": np.eye(3)}, "the shapes are"),
        ({"frequencies": np.full((2, 3), 1 / 3)}, "build it inside jax.vmap"),
    ],
)
def test_bad_problems(changes, message):
    with pytest.raises(ValueError, match=message):
        particles.Problem(**(GOOD | changes))


@pytest.mark.usefixtures("untyped")
def test_other_bad_input():
    problem = particles.Problem(**GOOD)
    nothing: Any = None
    name: Any = "full"
    wrong = [
        (lambda: particles.step(jnp.zeros((2, 2)), problem, 1.0), "scores must have one row a token"),
        (lambda: particles.simulate(jnp.zeros((3, 2), int), problem, 1.0, 5), "scores must be floating-point"),
        (lambda: particles.simulate(jnp.zeros((3, 3)), problem, 1.0, 5), "scores must have one row a token"),
        (lambda: particles.simulate(jnp.zeros((3, 2)), problem, 1.0, 0), "num_steps must be a positive integer"),
        (lambda: particles.simulate(jnp.zeros((3, 2)), problem, -1.0, 5), "learning_rate must be finite and non-neg"),
        (lambda: particles.step(jnp.zeros((3, 2)), problem, np.nan), "learning_rate must be finite and non-negative"),
        (lambda: particles.descent(particles.particle_system(3, 2), np.inf), "optimizer, a step size, must be finite"),
        (lambda: particles.flow(particles.particle_system(3, 2), 0.0), "duration must be finite and positive"),
        (lambda: particles.one_hot([0, 3], 3), "classes must lie in 0..2, but one of them is 3"),
        (lambda: particles.one_hot([[0, 1]], 3), r"classes must be integers, one a token, \(N,\), but they have shape"),
        (lambda: particles.one_hot([0], 0), "num_classes must be a positive integer"),
        (lambda: particles.loss(jnp.zeros((4, 3, 2)), problem), "for many, such as a trajectory, use jax.vmap"),
        (lambda: particles.margins(np.zeros((3, 2), int), problem), "scores must be floating-point"),
        (lambda: particles.error_rate(jnp.zeros((2, 3, 2)), problem), "scores must have one row a token"),
        (lambda: particles.log_odds(jnp.zeros((2, 3, 2))), r"scores must have shape \(N, M\)"),
        (lambda: particles.loss(jnp.zeros((3, 2)), nothing), "problem must be of type Problem"),
        (lambda: particles.step(jnp.zeros((3, 2)), problem, np.ones(2)), "learning_rate must be one number"),
        (lambda: particles.descent(name, 1.0), "memory must be of type Memory"),
        (lambda: particles.flow(particles.particle_system(3, 2), 1.0, tolerance=-1.0), "tolerance must be finite"),
        (lambda: particles.normalized_scores(particles.particle_system(3, 2)), "memory must parameterise W"),
        (lambda: sampling.with_label_noise(problem, np.ones(2) / 2), "noise must be one number"),
        (lambda: embeddings.wishart(jax.random.key(0), 4, 0), "degrees must be a positive integer"),
        (lambda: particles.binary.spike_threshold(2.0, 0.75), r"alpha must lie in \[-1, 1\]"),
        (lambda: particles.binary.spike_threshold(0.5, 1.5), r"frequency must lie in \[0, 1\]"),
        (lambda: particles.binary.spike_threshold(0.5, 0.7, -1.0), "output_distance must be finite and positive"),
        (lambda: particles.capacity.relation(embeddings.two_tokens(0.5, 0.5)), "exactly one linear relation"),
        (lambda: particles.capacity.minimizer(np.ones(2), np.array([1.0, 0.0])), "frequencies must be finite and pos"),
        (lambda: particles.capacity.triangle(np.ones(4)), "relation must have three entries"),
        (lambda: particles.one_hot([0.0, 1.0], 3), "classes must be integers"),
        (lambda: sampling.with_label_noise(problem, 1.5), "noise must lie in"),
        (lambda: sampling.minibatches(jax.random.key(0), problem, 0), "batch_size must be a positive integer"),
        (lambda: particles.from_embeddings(np.ones(3), np.eye(2), GOOD["frequencies"], GOOD["targets"]), "inputs must"),
        (lambda: particles.block_diagonal(np.ones((3, 4)), np.ones((2, 4)), 3), "num_blocks must divide"),
        (lambda: particles.low_rank(np.ones((3, 4)), np.ones((2, 4)), 0), "rank must be a positive integer"),
        (lambda: particles.full(np.ones(3), np.ones((2, 4))), "inputs must have one embedding a row"),
        (lambda: embeddings.orthogonal(4, 3), "num_tokens must be at most dim"),
        (lambda: embeddings.pair(1.5), "alpha must lie in"),
        (lambda: embeddings.two_tokens(0.5, 1.5), "frequency must lie in"),
        (lambda: embeddings.block(5, 2, 0.5), "num_blocks must divide"),
        (lambda: embeddings.block(4, 2, -0.5), "correlation must lie in"),
        (lambda: embeddings.low_rank(jax.random.key(0), 3, 3), "rank must be below num_tokens"),
        (lambda: embeddings.zipf(3, -1.0), "exponent must be finite and non-negative"),
        (lambda: embeddings.two_point(3, 3, 0.5), "num_frequent must be below"),
        (lambda: embeddings.two_point(3, 1, 1.0), "share must lie in"),
        (
            lambda: particles.binary.output_distance(particles.Problem(np.eye(1), np.eye(3), np.ones(1), np.eye(1, 3))),
            "problem must have two classes",
        ),
        (lambda: particles.capacity.triangle(np.array([1.0, 0.2, 0.3])), "sides of a triangle"),
    ]
    for build, message in wrong:
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.usefixtures("untyped")
def test_lists_are_taken():
    lists: Any = {name: np.asarray(value).tolist() for name, value in GOOD.items()}
    problem = particles.Problem(**lists)
    zeros: Any = [[0.0, 0.0]] * 3
    assert particles.simulate(zeros, problem, 1.0, 2).shape == (3, 3, 2)
    assert particles.loss(zeros, problem) == pytest.approx(np.log(2))


@pytest.mark.usefixtures("untyped")
def test_axes_are_no_data():
    problem = particles.Problem(**GOOD).astype(float)
    axes = particles.Problem(None, None, 0, None)  # pyright: ignore[reportArgumentType]
    weights = jnp.stack([problem.frequencies, jnp.array([0.5, 0.3, 0.2])])
    many = jax.tree.map(lambda x: x, problem)
    object.__setattr__(many, "frequencies", weights)
    losses = jax.vmap(particles.loss, in_axes=(None, axes))(jnp.ones((3, 2)), many)
    assert losses.shape == (2,)


def test_embeddings():
    assert jnp.linalg.matrix_rank(embeddings.low_rank(jax.random.key(0), 6, 2)) == 2
    np.testing.assert_allclose(embeddings.toeplitz(0.5 ** jnp.arange(4.0))[0], [1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(embeddings.block(6, 2, 0.25)[3], [0, 0, 0, 1, 0.25, 0.25])
    np.testing.assert_allclose(jnp.diag(embeddings.wishart(jax.random.key(0), 5, 3)), 1)
    rows = embeddings.gaussian(jax.random.key(0), 4000, 5)
    assert jnp.sum(rows**2, 1).mean() == pytest.approx(1, abs=5 * np.sqrt(2 / 5 / 4000))
    pair = embeddings.pair(-0.3)
    np.testing.assert_allclose(pair @ pair.T, [[1, -0.3], [-0.3, 1]], atol=1e-12)
    np.testing.assert_allclose(
        embeddings.zipf(4, 2.0) * 1.0, np.array([1, 1 / 4, 1 / 9, 1 / 16]) / 1.4236111, rtol=1e-6
    )
    assert embeddings.two_point(5, 2, 0.8).tolist() == pytest.approx([0.4, 0.4, 0.2 / 3, 0.2 / 3, 0.2 / 3])
    assert embeddings.sphere(jax.random.key(0), 3, 4, dtype=jnp.float32).dtype == jnp.float32
    # Exactly what they are given, also next to 0 and 1.
    for overlap in jnp.array([1e-9, 0.3, 1 - 2.0**-24], jnp.float32):
        assert embeddings.block(4, 2, overlap)[0].tolist() == [1, float(overlap), 0, 0]
        height = np.sqrt((1 - float(overlap)) * (1 + float(overlap)))
        assert embeddings.pair(overlap)[1, 1] == pytest.approx(height, rel=2e-7)
    assert embeddings.zipf(3, jnp.float32(40.0))[2] == pytest.approx(3.0**-40, rel=1e-5)
