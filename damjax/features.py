"""Feature maps phi with phi(q)' phi(k) near exp(q' k / sqrt(dk)): softmax attention as a linear memory.

A feature map is a plain function from one cue (dk,) to its features (df,); the memory is then (dv, df).

A ``MultiHead`` map gives features (H, df), and head h of the memory recalls by those of its own: the memory is one
array (dv, df) too, whose rows h dv/H, .., (h+1) dv/H - 1 are the block X_h of head h, and it recalls X_h phi_h(k), one
head behind the other. ``split`` cuts the cue into a piece for each head, as multi-head attention does; ``heads`` makes
one of any maps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._arrays import product
from damjax._checks import check_count, check_function

__all__ = ["FeatureMap", "MultiHead", "heads", "identity", "positive_orthogonal", "split", "taylor"]

FeatureMap = Callable[[Float[Array, "dk"]], Float[Array, "*heads df"]]


def identity(cue: Float[Array, "dk"]) -> Float[Array, "dk"]:
    """phi(k) = k: the linear memory.

    Example:
        >>> identity(jnp.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    return cue


@dataclass(frozen=True)
class MultiHead:
    """A feature map of several heads: phi(k) has a row for each.

    ``heads`` and ``split`` make such maps; of a function of one's own it says how many heads there are, which whoever
    keeps features must know before there is a cue.

    Attributes:
        num_heads: H >= 1.
        function: phi, key (dk,) -> (H, df).

    Example:
        >>> phi = MultiHead(2, lambda cue: jnp.stack([cue, cue**2]))
        >>> phi(jnp.array([1.0, 3.0])).tolist()
        [[1.0, 3.0], [1.0, 9.0]]
    """

    num_heads: int
    function: Callable[[Float[Array, "dk"]], Float[Array, "H df"]]

    def __post_init__(self) -> None:
        """Raise unless it is a function and a positive number of heads."""
        check_count("num_heads", self.num_heads)
        check_function("function", self.function, "cue", "it maps one cue (dk,) to features (H, df)")

    def __call__(self, cue: Float[Array, "dk"]) -> Float[Array, "H df"]:
        """phi(k), (H, df)."""
        return self.function(cue)


def heads(*feature_maps: FeatureMap) -> MultiHead:
    """One head for each map, all of the whole cue: phi(k) = (phi_1(k), .., phi_H(k)).

    Args:
        feature_maps: phi_h, each key (dk,) -> (df,), with one df for all.

    Returns:
        A feature map (dk,) -> (H, df).

    Raises:
        ValueError: no map, or what is none; at a cue, maps that give features of several lengths.

    Example:
        >>> first, second = (positive_orthogonal(key, key_dim=2, num_features=8) for key in jax.random.split(
        ...     jax.random.key(0)))
        >>> heads(first, second)(jnp.array([0.5, -0.2])).shape
        (2, 8)
    """
    for number, feature_map in enumerate(feature_maps):
        check_function(f"feature_maps[{number}]", feature_map, "cue", "see damjax.features")
    if not feature_maps:
        raise ValueError("feature_maps must be one map for each head, but there are none; heads(identity) has one head")

    def all_of(cue: Float[Array, "dk"]) -> Float[Array, "H df"]:
        features = [feature_map(cue) for feature_map in feature_maps]
        if len(shapes := {jnp.shape(each) for each in features}) > 1:
            raise ValueError(f"feature_maps must all give features of one length (df,), but they give {sorted(shapes)}")
        return jnp.stack(features)

    return MultiHead(len(feature_maps), all_of)


def split(num_heads: int, feature_map: FeatureMap = identity) -> MultiHead:
    """The cue in a piece for each head, as in multi-head attention: phi_h(k) = phi(k_h), k = (k_1, .., k_H).

    For heads with maps of their own use ``heads`` and let each take its piece.

    Args:
        num_heads: H >= 1; it must divide dk.
        feature_map: phi, of a piece (dk / H,) -> (df,).

    Returns:
        A feature map (dk,) -> (H, df).

    Raises:
        ValueError: a number of heads that is not positive; at a cue, one that does not divide its length.

    Example:
        >>> split(2)(jnp.array([1.0, 2.0, 3.0, 4.0])).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
        >>> import damjax
        >>> objective = damjax.objectives.delta_net(split(2))  # its memories are (dv, 2), half as large as (dv, 4)
        >>> float(objective.value(jnp.ones((2, 2)), jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([3.0, 8.0])))
        0.5

    Source: Vaswani et al. 2017, "Attention is all you need", sec. 3.2.2; of linear attention Katharopoulos et al. 2020.
    """
    check_count("num_heads", num_heads)
    check_function("feature_map", feature_map, "cue", "see damjax.features")

    def of_pieces(cue: Float[Array, "dk"]) -> Float[Array, "H df"]:
        if cue.shape[0] % num_heads:
            raise ValueError(
                f"num_heads must divide the length of the cues, {cue.shape[0]}, but it is {num_heads}; pad the cues or"
                f" choose another number of heads"
            )
        # Stacked, not mapped over a reshaped cue: XLA on CPU reads what it has put together 1.6 times faster.
        return jnp.stack([feature_map(piece) for piece in jnp.split(cue, num_heads)])

    return MultiHead(num_heads, of_pieces)


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
