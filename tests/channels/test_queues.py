"""The ring against a plain list of everything that was ever sent."""

from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax.channels import queues


@pytest.mark.parametrize("max_fused", [0, queues.MAX_FUSED_DELAYS])
@hypothesis.given(seed=st.integers(0, 10**6), spare=st.integers(0, 3))
@hypothesis.settings(max_examples=6)
def test_every_read_is_the_item_of_that_many_steps_ago_or_zero(max_fused, seed, spare):
    rng = np.random.default_rng(seed)
    num_agents, num_steps = int(rng.integers(1, 5)), 17
    delays = rng.integers(0, 8, (num_agents, num_agents))
    length = int(delays.max()) + 1 + spare
    pairs = rng.normal(size=(num_steps, num_agents, num_agents, 2))
    own = rng.normal(size=(num_steps, num_agents, 3))

    def body(carry, at):
        by_pair, by_agent = carry
        time, pair, item = at
        by_pair, by_agent = queues.push(by_pair, time, pair), queues.push(by_agent, time, item)
        reads = (
            queues.pop_pairs(by_pair, time, jnp.asarray(delays)),
            queues.pop_senders(by_agent, time, jnp.asarray(delays)),
        )
        return (by_pair, by_agent), reads

    empty = (queues.init(length, pairs.shape[1:], jnp.float64), queues.init(length, own.shape[1:], jnp.float64))
    with mock.patch.object(queues, "MAX_FUSED_DELAYS", max_fused):
        _, reads = jax.lax.scan(body, empty, (jnp.arange(1, num_steps + 1), pairs, own))
    for time in range(1, num_steps + 1):
        for n in range(num_agents):
            for m in range(num_agents):
                asked = time - delays[n, m]
                sent = asked >= 1
                expected = (pairs[asked - 1, n, m], own[asked - 1, m])
                for read, item in zip(reads, expected, strict=True):
                    np.testing.assert_array_equal(read[time - 1, n, m], item if sent else np.zeros_like(item))


def test_queues_keep_their_dtype():
    queue = queues.init(2, (1,), jnp.float32)
    assert queues.push(queue, jnp.asarray(1), jnp.ones(1, jnp.float32)).dtype == jnp.float32
