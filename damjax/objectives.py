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
| ``cross_entropy`` | log sum_j e^<u_j, z> - <z, v> | | X + (v - U' softmax(U X phi)) phi' |

Source: [DAM] Table 1 and [AT]; cross-entropy is the loss of [LAM]. [AT] prints the regulariser of gated softmax
attention as (1 - g)/(2t), whose step is not the recurrence printed beside it; the row above is the one that gives it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from damjax._checks import check_array, check_function, check_gates_given, check_positive
from damjax._contractions import product, sum_last
from damjax._types import ArrayLike, concrete
from damjax.features import FeatureMap, identity

# A scalar count of steps; inside an objective it is a float, so that 1/t keeps the memory's precision.
Time = Any
# In (0, 1] and broadcastable against one memory, or None.
Gate = Any


class Objective(NamedTuple):
    """A memory objective, as the parts from which every algorithm builds loss and gradient.

    All functions take one agent's single association; batches go through ``jax.vmap``.

    Laws: ``residual`` is the derivative of ``loss`` in the prediction; it and ``features`` keep the dtype of what they
    are given; ``curvature``, ``residual_bound`` and ``smoothness`` are true of the loss. One of a user's own is tried
    where it is used, at two points, and refused with a ValueError that names the part.

    Attributes:
        features: phi, key (dk,) -> (df,).
        loss: l, (prediction z (dv,), value (dv,), time ()) -> ().
        residual: dl/dz, (prediction (dv,), value (dv,), time ()) -> (dv,).
        ridge: D, (gate, time ()) -> broadcastable against (dv, df); None where there is no such term.
        curvature: d2l/dz2 as a multiple of the identity, 0 or 1; None for a loss that is not quadratic.
        gated: whether the associations must carry gates.
        residual_bound: a bound on ||dl/dz|| over all predictions, value (dv,) -> (), where the loss is not quadratic.
        smoothness: a bound on the largest eigenvalue of d2l/dz2, for losses that are not quadratic.
    """

    features: FeatureMap
    loss: Callable[..., Float[Array, ""]]
    residual: Callable[..., Float[Array, "dv"]]
    ridge: Callable[[Gate, Time], Float[Array, "..."]] | None = None
    curvature: float | None = None
    gated: bool = False
    residual_bound: Callable[..., Float[Array, ""]] | None = None
    smoothness: Float[Array, ""] | None = None

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
        check_array("params", params, "dv df")
        self._check(key, value, gate, time)
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        time = jnp.asarray(time, params.dtype)
        loss = self.loss(product(params, self.features(key)), value, time)
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
        check_array("params", params, "dv df")
        self._check(key, value, gate, time)
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        features, time = self.features(key), jnp.asarray(time, params.dtype)
        gradient = jnp.outer(self.residual(product(params, features), value, time), features)
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
        """A bound on ||grad f_t(X)||_F over ||X||_F <= radius.

        Quadratic losses: (R c ||phi|| + ||r(0)||) ||phi|| + R max D, with c the curvature and r(0) the residual at
        z = 0; attained at X along -r(0) phi' where there is no ridge or D is one number. Cross-entropy:
        max_jk ||u_j - u_k|| ||phi||, which the farthest two classes approach as the memory grows confidently wrong.

        Raises:
            ValueError: a loss of one's own that declares neither curvature nor residual_bound.

        Example:
            >>> import jax.numpy as jnp
            >>> float(delta_net().lipschitz(2.0, jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
            5.0
        """
        check_array("radius", radius, "")
        if (size := concrete(radius)) is not None:
            check_positive("radius", size, allow_zero=True)
        self._check(key, value, gate, time)
        key, value = jnp.asarray(key), jnp.asarray(value)
        features, time, radius = self.features(key), jnp.asarray(time, key.dtype), jnp.asarray(radius, key.dtype)
        norm = optax.safe_norm(features, 0.0)
        if self.curvature is not None:
            at_zero = optax.safe_norm(self.residual(jnp.zeros_like(value), value, time), 0.0)
            bound = (radius * self.curvature * norm + at_zero) * norm
        elif self.residual_bound is not None:
            bound = self.residual_bound(value) * norm
        else:
            raise ValueError(
                "this objective has no Lipschitz constant in closed form: set its curvature (quadratic losses) or its"
                " residual_bound (losses with bounded slope)"
            )
        if self.ridge is not None:
            bound = bound + radius * jnp.max(jnp.abs(self.ridge(gate, time)))
        return bound

    def _check(self, key: Any, value: Any, gate: Gate, time: Time) -> None:
        """Raise unless they are one agent's association at one time."""
        for name, array, axes in (("key", key, "dk"), ("value", value, "dv"), ("time", time, "")):
            check_array(name, array, axes)
        if (now := concrete(time)) is not None:
            check_positive("time", now)
        check_gates_given(self.gated, gate)
        if self.gated:
            check_array("gate", gate, "...")


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


def cross_entropy(outputs: Float[ArrayLike, "M dv"], feature_map: FeatureMap = identity) -> Objective:
    """-log softmax_y(U X phi(k)) with y the class of the association: associative memory as classification.

    The value of an association is the embedding of its class, v = u_y (a mean of embeddings for a soft label), so that

        f(X) = log sum_j exp <u_j, X phi> - <v, X phi>,   grad f(X) = (sum_j p_j u_j - v) phi',   p = softmax(U X phi)

    Args:
        outputs: U, one row u_j per class, (M, dv), M >= 2, finite and not all equal.
        feature_map: phi, see ``damjax.features``.

    Returns:
        An Objective; not quadratic, so its best memory in hindsight is found by accelerated gradient.

    Raises:
        ValueError: outputs of another shape, that are not finite, or that tell no two classes apart.

    Example:
        >>> import jax.numpy as jnp
        >>> outputs = jnp.eye(3)
        >>> objective = cross_entropy(outputs)
        >>> loss = objective.value(jnp.zeros((3, 2)), jnp.ones(2), outputs[1])
        >>> bool(abs(loss - jnp.log(3)) < 1e-6)
        True

    Source: [LAM] sec. 2; the library's addition to [DAM]'s list.
    """
    if np.ndim(outputs) != 2 or np.shape(outputs)[0] < 2:
        raise ValueError(
            f"outputs must have shape (classes, dv) with at least two classes, but its shape is {np.shape(outputs)}"
        )
    if (given := concrete(outputs)) is not None:
        if not np.all(np.isfinite(given)):
            raise ValueError("outputs must be finite, but some of its entries are not")
        if np.all(given == given[0]):
            raise ValueError("outputs must tell classes apart, but all of its rows are equal")
    _check_feature_map(feature_map)
    embeddings = jnp.asarray(outputs)

    def logits(prediction: Float[Array, "dv"]) -> Float[Array, "M"]:
        return sum_last(embeddings.astype(prediction.dtype) * prediction[None])

    def residual(prediction, value, time):
        probabilities = jax.nn.softmax(logits(prediction))
        return sum_last(embeddings.astype(prediction.dtype).T * probabilities[None]) - value

    def slope_bound(value):
        # Past the widest pair only where the value is no class and no mean of classes.
        farthest = jnp.max(jnp.linalg.norm(embeddings.astype(value.dtype) - value[None], axis=1))
        return jnp.maximum(widest.astype(value.dtype), farthest)

    widest = jnp.sqrt(jnp.max(jnp.sum((embeddings[:, None] - embeddings[None, :]) ** 2, axis=-1)))
    return Objective(
        features=feature_map,
        loss=lambda prediction, value, time: jax.nn.logsumexp(logits(prediction)) - sum_last(prediction * value),
        residual=residual,
        residual_bound=slope_bound,
        # d2l/dz2 is the covariance of u_j under p, and no distribution on an interval of this width varies more.
        smoothness=widest**2 / 4,
    )


def _check_feature_map(feature_map: FeatureMap) -> None:
    check_function("feature_map", feature_map, "key", "see damjax.features")


def _correlation(
    feature_map: FeatureMap,
    *,
    per_step: bool = False,
    ridge: Callable[[Gate, Time], Float[Array, "..."]] | None = None,
    gated: bool = False,
) -> Objective:
    """The family -<X phi, v> / s + 1/2 sum D * X^2, with s = t where ``per_step``, else 1."""
    _check_feature_map(feature_map)

    def residual(prediction, value, time):
        return -value / time if per_step else -value

    def loss(prediction, value, time):
        return sum_last(prediction * residual(prediction, value, time))

    return Objective(feature_map, loss, residual, ridge, curvature=0.0, gated=gated)
