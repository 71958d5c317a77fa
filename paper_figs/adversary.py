"""The instance on which the bounds' rates are attained: linear losses chosen against the current memory.

For blocks of tau + 1 steps the cue is one direction, orthogonal to the sum of all cues so far, to the memory at the
start of the block and to the block before. Within a block the memory moves along the last two only, since it has not
yet heard of this one: every loss is zero. The cues of a block add up, and the blocks are orthogonal to their sum, so
||sum of cues|| = sqrt(T (tau + 1)), and the best memory of a ball of radius R gains exactly that times R:

    Reg(T) = R L sqrt((tau + 1) T)   at every T that is a multiple of tau + 1, with any rate.
"""

import jax
import jax.numpy as jnp

import damjax

KEY_DIM = 4  # three directions to avoid, and one to take


def worst_case(
    algorithm: damjax.Algorithm,
    *,
    num_agents: int,
    num_steps: int,
    block: jax.Array | int,
    agent: int = 0,
    lipschitz: float = 1.0,
) -> tuple[damjax.Associations, jax.Array]:
    """Run an algorithm for linear attention against the adversary of one of its agents.

    Args:
        algorithm: for ``linear_attention``, memories (N, 1, 4).
        num_agents: N; all of them see the same association.
        num_steps: T.
        block: tau + 1.
        agent: whose memory the adversary watches.
        lipschitz: L, the length of the cues.

    Returns:
        The stream that was played, (T, N, ..), and the memories X_1..X_T, (T, N, 1, 4).
    """

    def play(carry, time):
        state, cues, last = carry
        directions = jnp.stack([cues, state.params[agent, 0], last])
        # The direction of least weight among those to avoid is orthogonal to them all.
        avoided = directions / jnp.maximum(jnp.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
        fresh = lipschitz * jnp.linalg.eigh(jnp.matmul(avoided.T, avoided, precision="highest"))[1][:, 0]
        cue = jnp.where(time % block == 0, fresh, last)
        now = damjax.Associations(jnp.tile(cue, (num_agents, 1)), jnp.ones((num_agents, 1), cue.dtype))
        after, _ = algorithm.step(state, now)
        return (after, cues + cue, cue), (now, state.params)

    start = (algorithm.init(jnp.zeros((num_agents, 1, KEY_DIM))), jnp.zeros(KEY_DIM), jnp.zeros(KEY_DIM))
    _, (stream, params) = jax.lax.scan(play, start, jnp.arange(num_steps))
    return stream, params
