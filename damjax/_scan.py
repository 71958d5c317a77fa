"""The scan driver of every run: many steps in one compiled loop, checkpointed and unrolled where that is asked for."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import check_count, concrete


def check_loop(checkpoint_every: int | None, unroll: int) -> None:
    """Raise unless both are positive whole numbers; no checkpoints are None."""
    if checkpoint_every is not None:
        check_count("checkpoint_every", checkpoint_every)
    check_count("unroll", unroll)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    slices: Any,
    *,
    num_steps: int,
    checkpoint_every: int | None,
    unroll: int,
) -> tuple[Any, Any]:
    """``jax.lax.scan``, whose derivatives may keep the state every so many steps only.

    Args:
        step: ``step(state, slice) -> (state, output)``.
        state: before the first step.
        slices: what the steps read, every leaf with a leading T; None where they read nothing.
        num_steps: T.
        checkpoint_every: how many steps lie between two states that are kept for derivatives; the steps between are
            made again on the way back. None keeps what every step needs.
        unroll: steps in one turn of the compiled loop.

    Returns:
        The state after the last step, and the outputs, every leaf with a leading T. They do not depend on how the loop
        is compiled.
    """
    loop = functools.partial(jax.lax.scan, step, unroll=unroll)
    if checkpoint_every is None:
        return loop(state, slices, length=num_steps)
    num_segments, rest = divmod(num_steps, checkpoint_every)
    whole = num_segments * checkpoint_every
    # Inside a scan nothing can be merged with the recomputation, so no barrier is needed.
    segment = jax.checkpoint(lambda carry, part: loop(carry, part, length=checkpoint_every), prevent_cse=False)
    parts = jax.tree.map(lambda x: x[:whole].reshape(num_segments, checkpoint_every, *x.shape[1:]), slices)
    state, outputs = jax.lax.scan(segment, state, parts, length=num_segments)
    outputs = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), outputs)
    if rest:
        state, tail = loop(state, jax.tree.map(lambda x: x[whole:], slices), length=rest)
        outputs = jax.tree.map(lambda *halves: jnp.concatenate(halves), outputs, tail)
    return state, outputs


def warn_if_not_finite(params: Any, advice: str, *, per_agent: bool = False, stacklevel: int = 3) -> None:
    """Warn of parameters that ended as NaN or infinity; of traced ones nothing can be said.

    Args:
        params: any tree of arrays.
        advice: the likely cause, and where to look.
        per_agent: whether the first axis of every leaf is that of the agents, who are then named.
        stacklevel: as for ``warnings.warn``, from here up to the user's own line.
    """
    values = [value for leaf in jax.tree.leaves(params) if (value := concrete(leaf)) is not None]
    spoiled = [np.argwhere(~np.isfinite(value)) for value in values]
    if not any(len(places) for places in spoiled):
        return
    owner = "the parameters"
    if per_agent:
        agents = np.unique(np.concatenate([places[:, 0] for places in spoiled]))
        owner = f"the memories of agents {agents.tolist()}"
    warnings.warn(f"{owner} ended as NaN or infinity; {advice}", RuntimeWarning, stacklevel=stacklevel)
