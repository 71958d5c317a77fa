"""Memories with layers: a perceptron, and memories that are fed with the recalls of others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._arrays import product
from damjax._checks import check_count, check_function, float_dtype
from damjax.objectives import MemoryObjective, Objective, delta_net, of_memory
from damjax.recall.memories.memory import Memory, check_is_memory

__all__ = ["layer_by_layer", "mlp", "stack"]

Activation = Callable[[Array], Array]


def mlp(
    key_dim: int,
    value_dim: int,
    *,
    width: int,
    activation: Activation = jax.nn.gelu,
    dtype: jax.typing.DTypeLike | None = None,
) -> Memory:
    """A perceptron with one hidden layer, the memory of test-time training: W2 act(W1 k + b).

    Args:
        key_dim: dk.
        value_dim: dv.
        width: of the hidden layer.
        activation: act, entry by entry.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of {"hidden": W1 (width, dk), "bias": b (width,), "out": W2 (dv, width)}. The rows of W1 begin as draws
        from N(0, I / dk), the rest as zeros, so that nothing is recalled before anything was learned.

    Raises:
        ValueError: a size that is no positive integer.

    Example:
        >>> memory = mlp(4, 2, width=16)
        >>> params = memory.init(jax.random.key(0))
        >>> params["hidden"].shape, memory.apply(params, jnp.ones(4)).tolist()
        ((16, 4), [0.0, 0.0])

    Source: the MLP memory of Sun et al. 2024, "Learning to (learn at test time)", without its normalisation.
    """
    for name, size in (("key_dim", key_dim), ("value_dim", value_dim), ("width", width)):
        check_count(name, size)
    check_function("activation", activation, "x", "jax.nn.gelu is one")
    dtype = float_dtype(dtype)

    def init(key: Key[Array, ""]) -> dict[str, Array]:
        return {
            "hidden": jax.random.normal(key, (width, key_dim), dtype) / key_dim**0.5,
            "bias": jnp.zeros(width, dtype),
            "out": jnp.zeros((value_dim, width), dtype),
        }

    def apply(params: dict[str, Array], key: Float[Array, "dk"]) -> Float[Array, "dv"]:
        return product(params["out"], activation(product(params["hidden"], key) + params["bias"]))

    return Memory(init, apply)


def stack(*memories: Memory, activation: Activation = jax.nn.gelu) -> Memory:
    """Memories one after the other: each is fed with the recall of the one before, after an activation.

    Learned by the gradient of one loss of the last recall (``stack(..).objective()``), it is a deep network. Learned
    without back-propagation, every memory by its own loss, it takes ``layer_by_layer``.

    Args:
        memories: the first takes the cue; at least one.
        activation: between them, entry by entry.

    Returns:
        A Memory whose parameters are a tuple of theirs.

    Raises:
        ValueError: no memory, or what is none.

    Example:
        >>> from damjax.recall.memories import linear
        >>> deep = stack(linear(4, 3), linear(3, 2))
        >>> [params.shape for params in deep.init(jax.random.key(0))]
        [(3, 4), (2, 3)]
    """
    _check_memories(memories, activation)

    def init(key: Key[Array, ""]) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(memories))
        return tuple(memory.init(one) for memory, one in zip(memories, keys, strict=True))

    def apply(params: tuple[Any, ...], key: Float[Array, "dk"]) -> Float[Array, "dv"]:
        *_, last = _recalls(memories, activation, params, key)
        return last

    return Memory(init, apply)


def layer_by_layer(
    *memories: Memory, loss: Objective | None = None, activation: Activation = jax.nn.gelu
) -> MemoryObjective:
    """The objective of a stack that is learned without back-propagation: every memory is to recall the value itself.

        f_t(X_1, .., X_J) = sum_j l(z_j, v, t),   z_j = apply_j(X_j, act(z_{j-1})),   z_{j-1} held fixed

    So the gradient of X_j is that of its own recall alone, and no signal goes from one memory back to another; all of
    them recall the response (dv,), the last one being the recall of the stack.

    Args:
        memories: as for ``stack``; from the second on they take cues of dv numbers.
        loss: an objective of linear memories without a ridge part, of which the loss is taken; by default half the
            squared error, that of ``delta_net``.
        activation: as for ``stack``.

    Returns:
        A MemoryObjective of the parameters of ``stack(*memories)``.

    Raises:
        ValueError: no memory, or what is none.

    Example:
        >>> from damjax.recall.memories import linear
        >>> objective = layer_by_layer(linear(2, 2), linear(2, 2), activation=jnp.tanh)
        >>> params, cue = (jnp.eye(2), jnp.zeros((2, 2))), jnp.array([1.0, 0.0])
        >>> gradients = objective.gradient(params, cue, cue)
        >>> gradients[0].tolist()  # it recalls the cue, which was wanted, whatever becomes of that
        [[0.0, 0.0], [0.0, 0.0]]
        >>> bool(gradients[1][0, 0] == -jnp.tanh(1.0))
        True
    """
    _check_memories(memories, activation)
    of_recall = (delta_net() if loss is None else loss).loss

    def recalls(params: tuple[Any, ...], key: Float[Array, "dk"]) -> Float[Array, "J dv"]:
        return jnp.stack(_recalls(memories, activation, params, key, between=jax.lax.stop_gradient))

    def total(recalls: Float[Array, "J dv"], value: Float[Array, "dv"], time: Array) -> Float[Array, ""]:
        return jnp.sum(jax.vmap(of_recall, in_axes=(0, None, None))(recalls, value, time))

    return of_memory(recalls, total)


def _recalls(
    memories: tuple[Memory, ...],
    activation: Activation,
    params: tuple[Any, ...],
    key: Float[Array, "dk"],
    between: Activation = lambda recall: recall,
) -> list[Array]:
    """What every memory of a stack recalls."""
    recalls, cue = [], key
    for memory, own in zip(memories, params, strict=True):
        recalls.append(memory.apply(own, cue))
        cue = between(activation(recalls[-1]))
    return recalls


def _check_memories(memories: tuple[Memory, ...], activation: Activation) -> None:
    if not memories:
        raise ValueError("memories must be at least one, but there is none; stack(linear(4, 3), linear(3, 2)) has two")
    for memory in memories:
        check_is_memory(memory)
    check_function("activation", activation, "x", "jax.nn.gelu is one")
