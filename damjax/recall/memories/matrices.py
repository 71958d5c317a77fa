"""Memories that are a matrix: convex, with gradients of rank one, so that regret and bounds are known."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._arrays import product
from damjax._checks import check_count, check_function, float_dtype
from damjax.features import FeatureMap, identity
from damjax.recall.memories.memory import Memory

__all__ = ["linear"]


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
        return product(params, feature_map(key))

    return Memory(init, apply, feature_map)
