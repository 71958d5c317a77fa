"""The bigram-with-triggers task against its definition."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax.particles import bigrams
from tests.particles.cases import K, V, sample, small_task


def assert_frequencies(counts, probabilities):
    """Within five standard deviations of a binomial."""
    size = counts.sum()
    assert size > 100
    spread = np.sqrt(probabilities * (1 - probabilities) * size)
    assert (np.abs(counts - size * probabilities) <= 5 * spread).all()


@functools.cache
def drawn():
    """Many sequences, where any token but the least frequent can be an output, triggers included."""
    task = small_task(outputs=jnp.array([0.2, 0.1, 0.1, 0.3, 0.2, 0.1, 0.0]))
    return task, jax.tree.map(np.asarray, sample(jax.random.key(3), task, 600))


def test_tokens_follow_the_source():
    task, batch = drawn()
    assert task.triggers.tolist() == [0, 1]
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert_frequencies(np.bincount(batch.tokens[:, 0], minlength=V), np.asarray(task.source.marginal))
    for token in range(K, V):
        following = batch.targets[batch.tokens == token]
        assert_frequencies(np.bincount(following, minlength=V), np.asarray(task.source.transitions[token]))


def test_triggers_lead_to_the_outputs_of_their_sequence():
    task, batch = drawn()
    first = {}
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        for trigger in range(K):
            after = targets[tokens == trigger]
            assert len(set(after.tolist())) <= 1
            if after.size:
                first.setdefault(trigger, []).append(after[0])
    for outputs in first.values():
        assert_frequencies(np.bincount(outputs, minlength=V), np.asarray(task.outputs))
    # By default no output is a trigger.
    np.testing.assert_allclose(small_task().outputs, [0, 0, 0.2, 0.2, 0.2, 0.2, 0.2])


def test_the_mask_is_where_the_context_tells_the_target():
    _, batch = drawn()
    for tokens, mask in zip(batch.tokens[:100], batch.mask[:100], strict=True):
        earlier, expected = set(), []
        for token in tokens.tolist():
            expected.append(token < K and token in earlier)
            earlier.add(token)
        assert mask.tolist() == expected
    assert 0.1 < batch.mask.mean() < 0.9


def test_a_zipf_source():
    source = bigrams.zipf_source(jax.random.key(0), 5, 2.0, dtype=jnp.float32)
    assert source.marginal.dtype == source.transitions.dtype == jnp.float32
    np.testing.assert_allclose(source.marginal / source.marginal[0], [1, 1 / 4, 1 / 9, 1 / 16, 1 / 25], rtol=1e-5)
    np.testing.assert_allclose(source.transitions.sum(axis=1), 1, rtol=1e-5)
    assert (source.transitions[0] != source.transitions[1]).all()


def test_a_text_source(tmp_path):
    """Of "aabacbz" without z: a a, a b, b a, a c, c b; with z also b z, and nothing follows z."""
    path = tmp_path / "text.txt"
    path.write_text("aabacbz", encoding="utf-8")
    source, alphabet = bigrams.source_from_text(path, num_tokens=3, dtype=jnp.float32)
    assert alphabet == "abc"
    assert source.transitions.dtype == jnp.float32
    np.testing.assert_allclose(source.marginal, [3 / 6, 2 / 6, 1 / 6], rtol=1e-6)
    np.testing.assert_allclose(source.transitions, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 1, 0]], rtol=1e-6)
    source, alphabet = bigrams.source_from_text("aabacbz", num_tokens=9)
    assert alphabet == "abcz"
    np.testing.assert_allclose(source.transitions[1], [1 / 2, 0, 0, 1 / 2])
    np.testing.assert_allclose(source.transitions[3], source.marginal)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bigrams.source_from_text(Path("/no/such/file")), "text must be a readable file .*/no/such/file"),
        (lambda: bigrams.source_from_text("aaaa"), "text must leave at least 2 distinct characters, but it has 1"),
        (lambda: bigrams.source_from_text("ab", num_tokens=0), "num_tokens must be a positive integer"),
        (lambda: bigrams.zipf_source(jax.random.key(0), 0), "num_tokens must be a positive integer"),
        (lambda: bigrams.zipf_source(jax.random.key(0), 3, -1.0), "exponent must be finite and non-negative"),
        (lambda: small_task(length=1), "length must be at least 2"),
        (lambda: small_task(outputs=jnp.ones(V)), f"outputs must sum to one, but its sum is {V}; divide by it"),
        (lambda: small_task(outputs=jnp.ones(V + 1)), rf"outputs must have shape \({V},\)"),
        (lambda: bigrams.trigger_task(small_task().source, num_triggers=V), f"below the number of tokens, {V},"),
        (
            lambda: bigrams.trigger_task(small_task().source._replace(transitions=-jnp.ones((V, V)))),
            "source.transitions must be finite and non-negative, but one entry is -1; give probabilities",
        ),
        (
            lambda: bigrams.trigger_task(small_task().source._replace(transitions=jnp.ones((V, 2)))),
            rf"source.transitions must have shape \({V}, {V}\)",
        ),
        (lambda: bigrams.sample(jax.random.key(0), small_task(), 0), "batch_size must be a positive integer"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
