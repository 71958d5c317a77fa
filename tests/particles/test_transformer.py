"""The Transformer against slow NumPy, and what training achieves."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damjax.particles import bigrams, transformer
from tests.particles.cases import T, V, sample, small_task

D = 10

# Compiled, since one by one their operations would take longer to compile.
forward, loss, accuracy, margins, draw_model, gradient = map(
    jax.jit,
    (
        transformer.forward,
        transformer.loss,
        transformer.accuracy,
        transformer.margins,
        functools.partial(transformer.draw_model, num_tokens=V, length=T, dim=D),
        jax.grad(transformer.loss),
    ),
)


def small_model(dtype=jnp.float64):
    return jax.tree.map(lambda x: x.astype(dtype), draw_model(jax.random.key(1)))


def random_params(key=2):
    keys = jax.random.split(jax.random.key(key), 3)
    return transformer.Params(*(jax.random.normal(k, (D, D)) for k in keys))


def slow_logits(params, model, tokens):
    """Sums over positions, written from the definition."""
    e, p, u, previous_value, value = map(np.asarray, model)

    def attend(xs, t, memory):
        weights = np.array([np.exp(xs[t] @ memory @ xs[s]) for s in range(t + 1)])
        return sum(weight * xs[s] for s, weight in enumerate(weights / weights.sum()))

    xs = [e[token] + p[t] for t, token in enumerate(tokens)]
    xs = [xs[t] + previous_value @ attend(xs, t, np.asarray(params.previous)) for t in range(len(tokens))]
    xs = [x + params.output @ value @ attend(xs, t, np.asarray(params.key)) for t, x in enumerate(xs)]
    return np.array([u @ x for x in xs])


def test_logits_loss_and_accuracy_are_those_of_the_definition():
    params, model = random_params(), small_model()
    batch = sample(jax.random.key(3), small_task(), 8)
    logits = forward(params, model, batch.tokens)
    expected = np.array([slow_logits(params, model, tokens) for tokens in np.asarray(batch.tokens)])
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(forward(params, model, batch.tokens[0, :5]), expected[0, :5], rtol=1e-9)

    mask, targets = np.asarray(batch.mask), np.asarray(batch.targets)
    chosen, answers = expected[mask], targets[mask]
    nats = np.log(np.exp(chosen).sum(axis=1)) - chosen[np.arange(len(chosen)), answers]
    assert float(loss(params, model, batch)) == pytest.approx(nats.mean(), rel=1e-9)
    right = (chosen.argmax(axis=1) == answers).mean()
    assert float(accuracy(params, model, batch)) == pytest.approx(right)
    nothing = batch._replace(mask=jnp.zeros_like(batch.mask))
    assert float(loss(params, model, nothing)) == 0


def test_the_loss_of_a_sure_transformer():
    """One dimension, in which token 0 says itself with odds e^40: log(1 + e^-40 + e^-80) is no 0."""
    none, rows = np.zeros((1, 1), np.float32), np.array([[1], [0], [-1]], np.float32)
    model = transformer.Model(40 * rows, np.zeros((2, 1), np.float32), rows, none, none)
    tokens = jnp.zeros((1, 2), jnp.int32)
    batch = bigrams.Batch(tokens, tokens, jnp.ones((1, 2), bool))
    sure = transformer.zeros(model)
    assert transformer.loss(sure, model, batch) == pytest.approx(np.exp(-40), rel=1e-5)
    assert transformer.accuracy(sure, model, batch) == 1
    lost = sure._replace(key=jnp.full_like(sure.key, jnp.nan))
    assert jnp.isnan(transformer.loss(lost, model, batch))
    assert jnp.isnan(transformer.accuracy(lost, model, batch))


def test_the_future_does_not_matter():
    params, model = random_params(), small_model()
    tokens = jnp.arange(T) % V
    logits = forward(params, model, tokens)
    changed = forward(params, model, tokens.at[6].add(-1))
    np.testing.assert_array_equal(logits[:6], changed[:6])
    assert (jnp.abs(logits[6:] - changed[6:]).max(axis=1) > 1e-6).all()


def test_margins_are_those_of_the_scores():
    params, model, triggers = random_params(), small_model(), np.array([3, 1])
    e, p, u, previous_value, value = map(np.asarray, model)
    gaps = margins(params, model, triggers)
    for t in range(1, T):
        scores = [p[t] @ params.previous @ p[s] for s in range(t + 1)]
        assert float(gaps.previous[t - 1]) == pytest.approx(scores[t - 1] - max(scores[: t - 1] + scores[t:]))
    for k, trigger in enumerate(triggers):
        scores = [float(e[trigger] @ params.key @ previous_value @ e[v]) for v in range(V)]
        right = scores.pop(trigger)
        assert float(gaps.key[k]) == pytest.approx(right - max(scores))
    for v in range(V):
        scores = [float(u[w] @ params.output @ value @ e[v]) for w in range(V)]
        right = scores.pop(v)
        assert float(gaps.output[v]) == pytest.approx(right - max(scores))


def test_ideal_memories_solve_the_task_and_empty_ones_guess():
    """At d = 384 the closed form is right 97% of the time; the rest is the overlap of random vectors."""
    source = bigrams.zipf_source(jax.random.key(0), 20, dtype=jnp.float32)
    task = bigrams.trigger_task(source, num_triggers=4, length=32)
    model = transformer.draw_model(jax.random.key(1), num_tokens=20, length=32, dim=384, dtype=jnp.float32)
    batch = sample(jax.random.key(2), task, 32)
    ideal = jax.jit(transformer.ideal)(model, task)
    assert float(accuracy(ideal, model, batch)) > 0.9
    assert float(accuracy(transformer.zeros(model), model, batch)) < 0.15
    # Each memory is needed.
    for name in transformer.Params._fields:
        without = ideal._replace(**{name: jnp.zeros_like(model.value)})
        assert float(accuracy(without, model, batch)) < 0.5


def test_a_frozen_memory_does_not_move_and_leaves_no_momentum():
    """Two steps of the output, one of the key: it moves by the gradient of its own step alone."""
    task, model, rate, key = small_task(), small_model(), 0.7, jax.random.key(5)
    gates = transformer.Params(previous=jnp.zeros(3), key=jnp.array([0.0, 0.0, 1.0]), output=jnp.array([1.0, 1.0, 0.0]))
    params, record = transformer.train(key, model, task, optax.sgd(rate, momentum=0.9), gates, batch_size=8)
    assert not params.previous.any()
    batches = [sample(jax.random.fold_in(key, t), task, 8) for t in range(3)]
    start = transformer.zeros(model)
    first = gradient(start, model, batches[0])
    one = start._replace(output=-rate * first.output)
    second = gradient(one, model, batches[1])
    two = start._replace(output=one.output - rate * (0.9 * first.output + second.output))
    np.testing.assert_allclose(params.output, two.output, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(params.key, -rate * gradient(two, model, batches[2]).key, rtol=1e-9, atol=1e-15)
    assert all(jnp.abs(moved).max() > 1e-6 for moved in (params.key, second.key))
    for t, memories in enumerate([start, one, two]):
        gaps = margins(memories, model, task.triggers)
        assert float(record.loss[t]) == pytest.approx(float(loss(memories, model, batches[t])))
        assert float(record.accuracy[t]) == pytest.approx(float(accuracy(memories, model, batches[t])))
        # Tokens 0 and 1 are triggers, hence no outputs.
        assert float(record.mean.output[t]) == pytest.approx(float(gaps.output[2:].mean()), abs=1e-12)
        assert float(record.worst.output[t]) == pytest.approx(float(gaps.output[2:].min()), abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("loop", [{"checkpoint_every": 2}, {"checkpoint_every": 3, "unroll": 2}])
def test_training_does_not_depend_on_how_the_loop_is_made(loop):
    """Five steps, the same memories and records, and the same slope in the step size."""
    task, model, gates = small_task(), small_model(), transformer.whole(5)

    def train(rate, **settings):
        run = transformer.train(jax.random.key(5), model, task, optax.sgd(rate), gates, batch_size=4, **settings)
        return run[1].loss[-1], run

    both = functools.partial(jax.value_and_grad, has_aux=True)
    expected, same = (jax.jit(both(functools.partial(train, **settings)))(2.0) for settings in ({}, loop))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), same, expected)
    assert abs(float(same[1])) > 1e-6


def test_the_turns_of_the_memories():
    gates = transformer.part_by_part(8)
    assert gates.output.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert gates.key.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert gates.previous.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert all((gate == 1).all() for gate in transformer.whole(8))


@pytest.mark.long
def test_training_learns_the_task_whole_and_part_by_part():
    """In float32, two seeds; one program serves every key, step size and order."""
    traces = []

    @jax.jit
    def run(keys, step_size, gates):
        traces.append(None)

        def one(key):
            source_key, model_key, training_key = jax.random.split(key, 3)
            source = bigrams.zipf_source(source_key, 16, dtype=jnp.float32)
            task = bigrams.trigger_task(source, num_triggers=3, length=24)
            model = transformer.draw_model(model_key, num_tokens=16, length=24, dim=64, dtype=jnp.float32)
            return transformer.train(training_key, model, task, optax.sgd(step_size), gates, batch_size=16)

        return jax.vmap(one)(keys)

    keys = jax.random.split(jax.random.key(0), 2)
    thirds = lambda x: np.asarray(x).reshape(2, 3, -1)[..., -30:].mean(axis=(0, 2))  # noqa: E731
    params, record = run(keys, 20.0, transformer.whole(300))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, record))} == {np.dtype("float32")}
    assert np.asarray(record.accuracy)[:, 0].max() < 0.3
    assert thirds(record.accuracy)[-1] > 0.95
    assert thirds(record.loss)[-1] < 0.2
    assert [thirds(margin)[-1] > least for margin, least in zip(record.mean, (0.5, 4, 4), strict=True)] == [True] * 3
    assert thirds(record.worst.output)[-1] > 2
    assert thirds(record.worst.key)[-1] > 2

    _, record = run(keys[::-1], 10.0, transformer.part_by_part(300))
    output, key, previous = thirds(record.accuracy)
    assert output < key - 0.05 < previous - 0.1
    assert previous > 0.7
    assert len(traces) == 1
    first, second, third = (thirds(x) for x in (record.mean.output, record.mean.key, record.mean.previous))
    assert first[0] > 1
    assert first[2] == pytest.approx(first[1])
    assert second[0] == 0
    assert second[1] > 1
    assert third[1] == 0
    assert third[2] > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_are_kept(dtype):
    """Also beside a rate, a source and gates of the other precision."""
    model = small_model(dtype=dtype)
    run = lambda: transformer.train(  # noqa: E731
        jax.random.key(0), model, small_task(), optax.adam(np.float64(0.1)), transformer.whole(2), batch_size=2
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(run))} == {np.dtype(dtype)}
    task = small_task()
    for params in (transformer.ideal(model, task), transformer.margins(transformer.zeros(model), model, task.triggers)):
        assert {leaf.dtype for leaf in params} == {np.dtype(dtype)}


def attempt(*, length=T, optimizer: Any = None, **gates):
    """Training with something amiss."""
    optimizer = optax.sgd(1.0) if optimizer is None else optimizer
    gates = transformer.whole(2)._replace(**gates)
    return transformer.train(jax.random.key(0), small_model(), small_task(length=length), optimizer, gates)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: transformer.draw_model(jax.random.key(0), num_tokens=3, length=4, dim=0),
            "dim must be a positive integer",
        ),
        (
            lambda: transformer.forward(random_params(), small_model(), jnp.zeros(T + 1, int)),
            f"tokens must hold sequences of at most {T} tokens",
        ),
        (
            lambda: transformer.forward(random_params(), small_model(), jnp.array([V])),
            f"tokens must lie in 0 .. {V - 1}",
        ),
        (lambda: transformer.margins(random_params(), small_model(), jnp.array([-1])), "triggers must lie in 0"),
        (lambda: transformer.ideal(small_model(), small_task(length=T + 1)), "model must have the .* tokens"),
        (lambda: attempt(length=T + 1), "model must have the"),
        (lambda: attempt(optimizer=1.0), "optimizer must be of type"),
        (
            lambda: attempt(key=jnp.ones(3)),
            "gates must hold three vectors of one length",
        ),
        (lambda: transformer.part_by_part(0), "num_steps must be a positive integer"),
    ],
)
def test_bad_input_is_named(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()
