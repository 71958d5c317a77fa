"""Feature maps phi with phi(q)' phi(k) near exp(q' k / sqrt(dk)): softmax attention as a linear memory.

A feature map is a plain function from one cue (dk,) to its features (df,); the memory is then (dv, df).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._arrays import product
from damjax._checks import check_count

__all__ = ["FeatureMap", "identity", "positive_orthogonal", "taylor"]

FeatureMap = Callable[[Float[Array, "dk"]], Float[Array, "df"]]


def identity(cue: Float[Array, "dk"]) -> Float[Array, "dk"]:
    """phi(k) = k: the linear memory.

    Example:
        >>> identity(jnp.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    return cue


def positive_orthogonal(key: Key[Array, ""], *, key_dim: int, num_features: int) -> FeatureMap:
    """Positive orthogonal random features: phi(k) = exp(Omega x - ||x||^2 / 2) / sqrt(df), x = k / dk^(1/4).

    The rows of Omega are standard normal in length and orthogonal in blocks of dk, so phi(q)' phi(k) estimates
    exp(q' k / sqrt(dk)) without bias and with less variance than independent rows.

    Args:
        key: typed PRNG key.
        key_dim: dk >= 1.
        num_features: df >= 1.

    Returns:
        A feature map (dk,) -> (df,), all entries positive.

    Raises:
        ValueError: a dimension that is not positive.

    Example:
        >>> phi = positive_orthogonal(jax.random.key(0), key_dim=2, num_features=4096)
        >>> q, k = jnp.array([0.5, -0.2]), jnp.array([0.1, 0.7])
        >>> bool(abs(phi(q) @ phi(k) - jnp.exp(q @ k / jnp.sqrt(2))) < 0.05)
        True

    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", lemma 1 and sec. 2.4.
    """
    check_count("key_dim", key_dim)
    check_count("num_features", num_features)
    num_blocks = -(-num_features // key_dim)
    direction_key, length_key = jax.random.split(key)
    rotations = jax.random.orthogonal(direction_key, key_dim, shape=(num_blocks,))
    directions = rotations.reshape(num_blocks * key_dim, key_dim)[:num_features]
    lengths = jnp.linalg.norm(jax.random.normal(length_key, (num_features, key_dim)), axis=1)
    omega = directions * lengths[:, None]

    def feature_map(cue: Float[Array, "dk"]) -> Float[Array, "df"]:
        x = _scaled(cue, key_dim)
        exponent = product(omega.astype(x.dtype), x) - jnp.sum(x * x) / 2
        return jnp.exp(exponent) / math.sqrt(num_features)

    return feature_map


def taylor(*, key_dim: int, degree: int) -> FeatureMap:
    """The truncated Taylor map: phi(q)' phi(k) = sum_{p <= degree} (q' k / sqrt(dk))^p / p!, exactly.

    phi stacks the tensor powers x^{(x) p} / sqrt(p!) of x = k / dk^(1/4), so df = 1 + dk + dk^2 + .. + dk^degree.

    Args:
        key_dim: dk >= 1.
        degree: the highest power kept, >= 0.

    Returns:
        A feature map (dk,) -> (df,).

    Raises:
        ValueError: a dimension that is not positive or a negative degree.

    Example:
        >>> phi = taylor(key_dim=2, degree=2)
        >>> q, k = jnp.array([0.5, -0.2]), jnp.array([0.1, 0.7])
        >>> s = q @ k / jnp.sqrt(2)
        >>> phi(q).shape, bool(abs(phi(q) @ phi(k) - (1 + s + s**2 / 2)) < 1e-6)
        ((7,), True)
    """
    check_count("key_dim", key_dim)
    check_count("degree", degree, allow_zero=True)

    def feature_map(cue: Float[Array, "dk"]) -> Float[Array, "df"]:
        x = _scaled(cue, key_dim)
        powers = [jnp.ones(1, x.dtype)]
        for p in range(1, degree + 1):
            powers.append(jnp.kron(powers[-1], x) / math.sqrt(p))
        return jnp.concatenate(powers)

    return feature_map


def _scaled(cue: Float[Array, "dk"], key_dim: int) -> Float[Array, "dk"]:
    """x = k / dk^(1/4), of cues of the declared length: another would make another kernel."""
    if jnp.shape(cue) != (key_dim,):
        raise ValueError(f"key_dim must be the length of the cues, but it is {key_dim} and a cue has {jnp.shape(cue)}")
    return cue / key_dim**0.25
