from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax.recall import continuous_mqar, embed_sequences, mqar, unit_vectors

WEIGHTS = np.array([[0.6, 0.4, 0.0], [0.5, 0.0, 0.5], [0.2, 0.2, 0.6]])


def read(sequences, num_agents):
    """A reader with a perfect memory: what every agent was told, key by key, the last value counting."""
    tokens, written = np.asarray(sequences.tokens), np.asarray(sequences.written)
    told = [{} for _ in range(num_agents)]
    for place, agent in np.argwhere(written):
        told[agent][int(tokens[place, agent])] = int(tokens[place + 1, agent])
    return told


@pytest.mark.parametrize(("num_agents", "num_rewritten"), [(1, 0), (3, 0), (3, 2)])
def test_a_perfect_memory_answers_every_question(num_agents, num_rewritten):
    weights = WEIGHTS if num_agents == 3 else None
    drawn = mqar(
        jax.random.key(0),
        length=48,
        num_pairs=6,
        num_agents=num_agents,
        weights=weights,
        vocabulary=256,
        num_rewritten=num_rewritten,
    )
    told, writes = read(drawn, num_agents), 6 + num_rewritten
    places = np.argwhere(np.asarray(drawn.targets) >= 0)
    assert len(places) == 6 * num_agents
    for place, agent in places:
        about = int(drawn.agents[place, agent])
        assert told[about][int(drawn.tokens[place, agent])] == int(drawn.targets[place, agent])
        assert place % 2 == 0
        assert place >= 2 * writes
        assert weights is None or weights[agent, about] > 0
    assert all(len(own) == 6 for own in told)
    everything = [key for own in told for key in own]
    assert len(set(everything)) == len(everything)
    assert 1 <= min(everything) <= max(everything) < 128
    values = np.asarray(drawn.tokens)[1 : 2 * writes : 2].ravel().tolist()
    assert len(set(values)) == len(values)
    assert 128 <= min(values) <= max(values) < 256
    np.testing.assert_array_equal(np.asarray(drawn.agents) >= 0, np.asarray(drawn.targets) >= 0)


def test_every_key_is_asked_once_by_the_agent_that_has_it():
    drawn = mqar(jax.random.key(1), length=64, num_pairs=16, vocabulary=8192)
    asked = np.asarray(drawn.tokens)[np.asarray(drawn.targets) >= 0]
    np.testing.assert_array_equal(np.sort(asked), np.sort(np.asarray(drawn.tokens)[:32:2, 0]))


def test_gaps_are_drawn_as_numpy_draws_them():
    """First distances against their probabilities, and those of the second question given the first."""
    space, power = 6, 0.3
    draw = jax.jit(jax.vmap(lambda key: mqar(key, length=16, num_pairs=2, vocabulary=64, power=power)))
    drawn = draw(jax.random.split(jax.random.key(2), 20000))
    tokens, targets = np.asarray(drawn.tokens)[..., 0], np.asarray(drawn.targets)[..., 0]
    first = tokens[:, 0]
    places = [np.argmax((tokens == key[:, None]) & (targets >= 0), axis=1) for key in (first, tokens[:, 2])]
    gaps = [(place - 4) // 2 for place in places]
    chances = np.arange(1, space + 1) ** (power - 1)
    chances = chances / chances.sum()
    for gap in gaps:
        assert gap.min() == 0
        assert gap.max() == space - 1
    expected = [chances, sum(p * np.where(np.arange(space) == i, 0, chances) / (1 - p) for i, p in enumerate(chances))]
    for gap, share in zip(gaps, expected, strict=True):
        counted = np.bincount(gap, minlength=space) / len(gap)
        np.testing.assert_allclose(counted, share, atol=4 * np.sqrt(0.25 / len(gap)))


def test_agents_ask_about_those_they_want():
    drawn = jax.vmap(lambda key: mqar(key, length=32, num_pairs=4, num_agents=3, weights=WEIGHTS, vocabulary=128))(
        jax.random.split(jax.random.key(3), 2000)
    )
    agents = np.asarray(drawn.agents)
    for n in range(3):
        asked = agents[..., n][agents[..., n] >= 0]
        counted = np.bincount(asked, minlength=3) / len(asked)
        np.testing.assert_allclose(counted, WEIGHTS[n], atol=4 * np.sqrt(0.25 / len(asked)))


def test_other_places_hold_random_tokens():
    drawn = jax.vmap(lambda key: mqar(key, length=32, num_pairs=2, vocabulary=16))(
        jax.random.split(jax.random.key(4), 500)
    )
    free = (np.asarray(drawn.targets) < 0) & ~np.asarray(drawn.written)
    free[:, 1:4:2] = False
    counted = Counter(np.asarray(drawn.tokens)[free].tolist())
    assert set(counted) == set(range(16))
    assert max(counted.values()) / min(counted.values()) < 1.25


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_continuous_form_is_the_same_sequence_of_vectors(dtype):
    settings: dict[str, Any] = {
        "length": 32,
        "num_pairs": 4,
        "num_agents": 3,
        "weights": WEIGHTS,
        "vocabulary": 64,
        "num_rewritten": 1,
    }
    task = continuous_mqar(jax.random.key(5), dim=16, **settings, noise_std=0.0, distractors=0.5, dtype=dtype)
    keys, values, _, weights = map(np.asarray, task.associations)
    assert {keys.dtype, values.dtype, weights.dtype, task.candidates.dtype} == {np.dtype(dtype)}
    assert task.associations.gates is None
    np.testing.assert_allclose(np.linalg.norm(task.candidates, axis=1), 1, rtol=1e-5)
    asked = np.asarray(task.questions.answers) >= 0
    assert np.all(np.asarray(weights)[:5] == 1)
    assert np.all(np.asarray(weights)[5:] == np.where(asked[5:], 0, 0.5))
    # The last association with a cue, of the agent that is asked for, is the answer.
    for time, agent in np.argwhere(asked):
        about, cue = int(task.questions.agents[time, agent]), np.asarray(task.questions.keys[time, agent])
        matches = [s for s in range(5) if np.array_equal(np.asarray(keys[s, about]), cue)]
        right = np.asarray(task.candidates[task.questions.answers[time, agent]])
        np.testing.assert_array_equal(np.asarray(values[matches[-1], about]), right)


def test_correlation_is_the_cosine_of_keys_and_noise_the_distance_of_cues():
    settings: dict[str, Any] = {"dim": 4096, "length": 64, "num_pairs": 8, "vocabulary": 64}
    noisy = continuous_mqar(jax.random.key(6), **settings, correlation=0.7, noise_std=0.3)
    clean = continuous_mqar(jax.random.key(6), **settings, correlation=0.7)
    keys, values = noisy.associations.keys[:8, 0], noisy.associations.values[:8, 0]
    away = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(np.asarray(keys @ keys.T)[away], 0.7, atol=0.05)
    np.testing.assert_allclose(np.asarray(values @ values.T)[away], 0.0, atol=0.1)
    distance = np.linalg.norm(noisy.questions.keys - clean.questions.keys, axis=-1)
    np.testing.assert_allclose(distance, 0.3, rtol=0.05)


def test_noise_and_correlation_may_be_traced_and_differentiated():
    def first_cue(correlation, noise_std):
        task = continuous_mqar(
            jax.random.key(7), dim=8, length=8, num_pairs=2, vocabulary=16, correlation=correlation, noise_std=noise_std
        )
        return jnp.sum(task.questions.keys)

    slopes = jax.jit(jax.grad(first_cue, argnums=(0, 1)))(0.5, 0.1)
    step = 1e-6
    for slope, (low, high) in zip(
        slopes, (((0.5 - step, 0.1), (0.5 + step, 0.1)), ((0.5, 0.1 - step), (0.5, 0.1 + step))), strict=True
    ):
        difference = (first_cue(*high) - first_cue(*low)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_a_key_decides_everything_and_nothing_is_traced_twice():
    traces = []

    def draw(key):
        traces.append(key)
        return mqar(key, length=16, num_pairs=2, vocabulary=32)

    jitted = jax.jit(draw)
    first, again, other = jitted(jax.random.key(8)), jitted(jax.random.key(8)), jitted(jax.random.key(9))
    assert len(traces) == 1
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(np.asarray(first.tokens) != np.asarray(other.tokens))


def test_embeddings_of_ones_own():
    drawn = mqar(jax.random.key(0), length=8, num_pairs=2, vocabulary=16)
    task = embed_sequences(drawn, np.eye(16))
    np.testing.assert_array_equal(np.argmax(task.associations.keys, axis=-1), np.asarray(drawn.tokens)[::2])
    with pytest.raises(ValueError, match="embeddings must have a row for every token"):
        embed_sequences(drawn, np.eye(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 15}, "length must be even"),
        ({"length": 12}, "length must be even and at least 16"),
        ({"vocabulary": 8}, "vocabulary must be even and hold a key"),
        ({"num_rewritten": 5}, "num_rewritten must be at most num_pairs"),
        ({"power": 0.0}, "power must be finite and positive"),
        ({"num_agents": 2, "weights": np.ones((2, 2))}, "weights must be row-stochastic"),
        ({"num_agents": 2, "weights": np.eye(3)}, "weights must have shape"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    settings: dict[str, Any] = {"length": 16, "num_pairs": 4, "vocabulary": 64} | changes
    with pytest.raises(ValueError, match=message):
        mqar(jax.random.key(0), **settings)


def test_unit_vectors_of_one_direction():
    drawn = unit_vectors(jax.random.key(0), 3, 5, correlation=1.0)
    np.testing.assert_allclose(drawn @ drawn.T, 1, rtol=1e-6)
    with pytest.raises(ValueError, match="correlation must lie in"):
        unit_vectors(jax.random.key(0), 3, 5, correlation=-0.1)


def test_the_face_has_the_tasks():
    assert damjax.recall.mqar is mqar
