"""What stands between gradient and step: an optax transformation of every agent's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from damjax._arrays import promoting
from damjax._checks import check_instance, concrete

__all__ = ["checked_transform", "select", "transformed"]


def checked_transform(transform: optax.GradientTransformation | None) -> optax.GradientTransformation:
    """What stands between gradient and step: nothing for None, or a ValueError for what is no transformation."""
    if transform is None:
        return optax.identity()
    check_instance("transform", transform, optax.GradientTransformation, "call one of optax, as optax.scale_by_adam()")
    return transform


def check_downhill(transform: optax.GradientTransformation, memory: Any) -> None:
    """Raise where what is subtracted from a memory would lead uphill, as with transformations that bring a rate."""
    with jax.ensure_compile_time_eval():
        gradient = jax.tree.map(jnp.ones_like, memory)
        memory = jax.tree.map(jnp.zeros_like, memory)
        direction, _ = promoting(transform.update, gradient, transform.init(memory), memory)
    leaves = [concrete(leaf) for leaf in jax.tree.leaves(direction)]
    if sum(np.sum(leaf) for leaf in leaves if leaf is not None) < 0:
        raise ValueError(
            "transform must return what is to be subtracted, but its first update points uphill: optimisers of optax"
            " bring a negative rate; leave it out, as optax.scale_by_adam() for optax.adam(rate): learning_rate is it"
        )


def transformed(transform: optax.GradientTransformation, gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """Each agent's own transformation of its own gradient."""
    direction, state = promoting(jax.vmap(transform.update), gradient, state, params)
    return jax.tree.map(jnp.asarray, direction), state


def select(condition: Array, new: Any, old: Any) -> Any:
    """``new`` where the condition holds, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
