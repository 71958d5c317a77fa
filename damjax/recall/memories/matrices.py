"""Memories that are a matrix: convex, with gradients of rank one, so that regret and bounds are known."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._arrays import recall
from damjax._checks import check_count, check_function, float_dtype
from damjax.features import FeatureMap, heads, identity, split
from damjax.recall.memories.memory import Memory

__all__ = ["linear", "multi_head"]


def linear(
    key_dim: int,
    value_dim: int,
    *,
    feature_map: FeatureMap = identity,
    dtype: jax.typing.DTypeLike | None = None,
) -> Memory:
    """The linear memory over a feature map: X phi(k).

    Args:
        key_dim: dk.
        value_dim: dv.
        feature_map: phi, see ``damjax.features``.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of a matrix X (dv, df), which begins as zeros.

    Raises:
        ValueError: a size that is no positive integer; what is no feature map.

    Example:
        >>> memory = linear(2, 3)
        >>> memory.init(jax.random.key(0)).shape, memory.apply(jnp.ones((3, 2)), jnp.array([1.0, 2.0])).tolist()
        ((3, 2), [3.0, 3.0, 3.0])
    """
    check_count("key_dim", key_dim)
    check_count("value_dim", value_dim)
    check_function("feature_map", feature_map, "key", "see damjax.features")
    dtype = float_dtype(dtype)
    num_features = jax.eval_shape(feature_map, jax.ShapeDtypeStruct((key_dim,), dtype)).shape[-1]

    def init(key: Key[Array, ""]) -> Float[Array, "dv df"]:
        return jnp.zeros((value_dim, num_features), dtype)

    def apply(params: Float[Array, "dv df"], key: Float[Array, "dk"]) -> Float[Array, "dv"]:
        return recall(params, feature_map(key))

    return Memory(init, apply, feature_map)


def multi_head(
    key_dim: int,
    value_dim: int,
    *,
    num_heads: int | None = None,
    feature_maps: Sequence[FeatureMap] | None = None,
    dtype: jax.typing.DTypeLike | None = None,
) -> Memory:
    """The linear memory of several heads, one block of X each: X_h phi_h(k), one head behind the other.

    With H heads on pieces of the cue it has 1/H of the floats of ``linear``, and costs as much less.

    Args:
        key_dim: dk.
        value_dim: dv, a multiple of H.
        num_heads: H, for heads that see a piece of the cue each, which H then divides.
        feature_maps: or the maps phi_h of heads that see the whole cue, with one df for all.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of a matrix X (dv, df) with the blocks (dv / H, df) one below the other, which begins as zeros.

    Raises:
        ValueError: a size that is no positive integer, or that H does not divide; both kinds of heads, or none.

    Example:
        >>> memory = multi_head(4, 2, num_heads=2)
        >>> X = jnp.array([[1.0, 0.0], [0.0, 1.0]])  # a row for each head
        >>> memory.apply(X, jnp.array([1.0, 2.0, 3.0, 4.0])).tolist()
        [1.0, 4.0]

    Source: Vaswani et al. 2017, "Attention is all you need", sec. 3.2.2.
    """
    for name, size in (("key_dim", key_dim), ("value_dim", value_dim)):
        check_count(name, size)
    if (num_heads is None) == (feature_maps is None):
        raise ValueError("num_heads or feature_maps must say what the heads are, one of them, but both or none does")
    phi = heads(*feature_maps) if feature_maps is not None else split(_checked_heads(num_heads, key_dim))
    if value_dim % phi.num_heads:
        raise ValueError(f"value_dim must be a multiple of the {phi.num_heads} heads, but it is {value_dim}")
    return linear(key_dim, value_dim, feature_map=phi, dtype=dtype)


def _checked_heads(num_heads: int | None, key_dim: int) -> int:
    check_count("num_heads", num_heads)
    assert num_heads is not None
    if key_dim % num_heads:
        raise ValueError(f"num_heads must divide key_dim, {key_dim}, but it is {num_heads}")
    return num_heads
