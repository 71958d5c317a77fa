"""Memory objectives: convex losses whose gradient step with rate 1 is a known attention recurrence.

Every objective has the form f_t(X) = l(X phi(k), v, t) + 1/2 sum D * X^2 and so the gradient r phi(k)' + D * X with
r = dl/dz at z = X phi(k): the first part is rank one, which is why agents exchange r and phi instead of matrices.

| factory | l(z, v, t) | D | one step with rate 1 |
|---|---|---|---|
| ``linear_attention`` | -<z, v> | | X + v k' |
| ``gated_linear_attention`` | -<z, v> | 1 - g | g X + v k' |
| ``delta_net`` | 1/2 ||z - v||^2 | | X - (X k - v) k' |
| ``softmax_attention`` | -<z, v> | | X + v phi' |
| ``normalized_softmax_attention`` | -<z, v> / t | 1 / t | ((t-1)/t) X + (1/t) v phi' |
| ``gated_softmax_attention`` | -<z, v> / t | 1 - g (t-1)/t | ((t-1)/t) g X + (1/t) v phi' |

Source: [DAM] Table 1 and [AT]. [AT] prints the last regulariser as (1 - g)/(2t), whose step is not the recurrence
printed beside it; the row above is the one that gives it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from damjax._contractions import sum_last
from damjax._types import ArrayLike
from damjax.features import FeatureMap, identity

# A scalar count of steps; inside an objective it is a float, so that 1/t keeps the memory's precision.
Time = Any
# In (0, 1] and broadcastable against one memory, or None.
Gate = Any


class Objective(NamedTuple):
    """A memory objective, as the parts from which every algorithm builds loss and gradient.

    All functions take one agent's single association; batches go through ``jax.vmap``.

    Attributes:
        features: phi, key (dk,) -> (df,).
        loss: l, (prediction z (dv,), value (dv,), time ()) -> ().
        residual: dl/dz, (prediction (dv,), value (dv,), time ()) -> (dv,).
        ridge: D, (gate, time ()) -> broadcastable against (dv, df); None where there is no such term.
        curvature: d2l/dz2 as a multiple of the identity, 0 or 1; None for a loss that is not quadratic.
        gated: whether the associations must carry gates.
    """

    features: FeatureMap
    loss: Callable[..., Float[Array, ""]]
    residual: Callable[..., Float[Array, "dv"]]
    ridge: Callable[[Gate, Time], Float[Array, "..."]] | None = None
    curvature: float | None = None
    gated: bool = False

    def value(
        self,
        params: Float[ArrayLike, "dv df"],
        key: Float[ArrayLike, "dk"],
        value: Float[ArrayLike, "dv"],
        gate: Gate = None,
        time: Time = 1,
    ) -> Float[Array, ""]:
        """f_t(X) = l(X phi(k), v, t) + 1/2 sum D * X^2.

        Args:
            params: X, (dv, df).
            key: k, (dk,).
            value: v, (dv,).
            gate: g in (0, 1], broadcastable against X; ignored by objectives without a gate.
            time: t, 1-based.

        Example:
            >>> import jax.numpy as jnp
            >>> float(delta_net().value(jnp.eye(2), jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])))
            2.0
        """
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        time = jnp.asarray(time, params.dtype)
        loss = self.loss(params @ self.features(key), value, time)
        if self.ridge is not None:
            loss = loss + 0.5 * jnp.sum(self.ridge(gate, time) * params**2)
        return loss

    def gradient(
        self,
        params: Float[ArrayLike, "dv df"],
        key: Float[ArrayLike, "dk"],
        value: Float[ArrayLike, "dv"],
        gate: Gate = None,
        time: Time = 1,
    ) -> Float[Array, "dv df"]:
        """Grad f_t(X) = r phi(k)' + D * X, in closed form; arguments as for ``value``.

        Example:
            >>> import jax.numpy as jnp
            >>> zeros, key, value = jnp.zeros((1, 2)), jnp.array([1.0, 2.0]), jnp.array([3.0])
            >>> (zeros - delta_net().gradient(zeros, key, value)).tolist()  # one step with rate 1 stores v k'
            [[3.0, 6.0]]
        """
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        features, time = self.features(key), jnp.asarray(time, params.dtype)
        gradient = jnp.outer(self.residual(params @ features, value, time), features)
        if self.ridge is not None:
            gradient = gradient + self.ridge(gate, time) * params
        return gradient

    def lipschitz(
        self,
        radius: float | ArrayLike,
        key: Float[ArrayLike, "dk"],
        value: Float[ArrayLike, "dv"],
        gate: Gate = None,
        time: Time = 1,
    ) -> Float[Array, ""]:
        """A bound on ||grad f_t(X)||_F over ||X||_F <= radius: (R c ||phi|| + ||r(0)||) ||phi|| + R max D.

        Here c is the curvature and r(0) the residual at z = 0. Attained where X points along -r(0) phi' (no ridge).

        Example:
            >>> import jax.numpy as jnp
            >>> float(delta_net().lipschitz(2.0, jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
            5.0
        """
        if self.curvature is None:
            raise ValueError(
                "lipschitz has a closed form for quadratic losses only, but this objective has no curvature"
            )
        key, value = jnp.asarray(key), jnp.asarray(value)
        features, time = self.features(key), jnp.asarray(time, key.dtype)
        norm = jnp.linalg.norm(features)
        bound = (radius * self.curvature * norm + jnp.linalg.norm(self.residual(0 * value, value, time))) * norm
        if self.ridge is not None:
            bound = bound + radius * jnp.max(jnp.abs(self.ridge(gate, time)))
        return bound


def linear_attention() -> Objective:
    """-<X k, v>: a step with rate 1 is X + v k', the memory of linear attention.

    Example:
        >>> import jax.numpy as jnp
        >>> float(linear_attention().value(jnp.eye(2), jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0])))
        -5.0
    """
    return softmax_attention(identity)


def gated_linear_attention() -> Objective:
    """-<X k, v> + 1/2 sum (1 - g) X^2: a step with rate 1 is g X + v k'.

    Example:
        >>> import jax.numpy as jnp
        >>> objective = gated_linear_attention()
        >>> float(objective.value(jnp.eye(2), jnp.zeros(2), jnp.zeros(2), gate=jnp.array(0.5)))
        0.5
    """
    return _correlation(identity, ridge=lambda gate, time: 1 - gate, gated=True)


def delta_net() -> Objective:
    """1/2 ||X k - v||^2: a step with rate 1 is the delta rule X - (X k - v) k'.

    Example:
        >>> import jax.numpy as jnp
        >>> float(delta_net().value(jnp.zeros((2, 2)), jnp.ones(2), jnp.array([1.0, 1.0])))
        1.0
    """
    return Objective(
        features=identity,
        loss=lambda prediction, value, time: 0.5 * sum_last((prediction - value) ** 2),
        residual=lambda prediction, value, time: prediction - value,
        curvature=1.0,
    )


def softmax_attention(feature_map: FeatureMap) -> Objective:
    """-<X phi(k), v>: a step with rate 1 is X + v phi(k)', unnormalised softmax attention.

    Args:
        feature_map: phi, see ``damjax.features``.

    Example:
        >>> import damjax, jax.numpy as jnp
        >>> objective = softmax_attention(damjax.features.taylor(key_dim=2, degree=1))
        >>> float(objective.value(jnp.ones((1, 3)), jnp.zeros(2), jnp.ones(1)))
        -1.0
    """
    return _correlation(feature_map)


def normalized_softmax_attention(feature_map: FeatureMap) -> Objective:
    """(1/t) (-<X phi(k), v> + 1/2 ||X||^2): a step with rate 1 is the running mean ((t-1)/t) X + (1/t) v phi(k)'.

    Args:
        feature_map: phi, see ``damjax.features``.

    Example:
        >>> import jax.numpy as jnp
        >>> from damjax.features import identity
        >>> objective = normalized_softmax_attention(identity)
        >>> float(objective.value(jnp.eye(2), jnp.zeros(2), jnp.zeros(2), time=2))
        0.5
    """
    return _correlation(feature_map, per_step=True, ridge=lambda gate, time: 1 / time)


def gated_softmax_attention(feature_map: FeatureMap) -> Objective:
    """-(1/t) <X phi(k), v> + 1/2 sum (1 - g (t-1)/t) X^2: rate 1 gives ((t-1)/t) g X + (1/t) v phi(k)'.

    Args:
        feature_map: phi, see ``damjax.features``.

    Note:
        [AT] prints the regulariser (1 - g)/(2t), which does not give that recurrence.

    Example:
        >>> import jax.numpy as jnp
        >>> from damjax.features import identity
        >>> objective = gated_softmax_attention(identity)
        >>> float(objective.value(jnp.eye(2), jnp.zeros(2), jnp.zeros(2), gate=jnp.array(0.5), time=2))
        0.75
    """
    return _correlation(
        feature_map,
        per_step=True,
        ridge=lambda gate, time: 1 - gate * (time - 1) / time,
        gated=True,
    )


def _correlation(
    feature_map: FeatureMap,
    *,
    per_step: bool = False,
    ridge: Callable[[Gate, Time], Float[Array, "..."]] | None = None,
    gated: bool = False,
) -> Objective:
    """The family -<X phi, v> / s + 1/2 sum D * X^2, with s = t where ``per_step``, else 1."""

    def residual(prediction, value, time):
        return -value / time if per_step else -value

    def loss(prediction, value, time):
        return sum_last(prediction * residual(prediction, value, time))

    return Objective(feature_map, loss, residual, ridge, curvature=0.0, gated=gated)
