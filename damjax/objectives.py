"""Memory objectives: convex losses whose gradient step with rate 1 is a known attention recurrence.

An ``Objective`` of a linear memory has the form f_t(X) = l(X phi(k), v, t) + 1/2 sum D * X^2 and so the gradient
r phi(k)' + D * X with r = dl/dz at z = X phi(k): the first part is rank one, which is why agents exchange r and phi
instead of matrices.

With a ``damjax.features.MultiHead`` map the memory has H heads: X is one array (dv, df), the block X_h of head h its
rows h dv/H, .., (h+1) dv/H - 1, and z = (X_1 phi_1(k), .., X_H phi_H(k)), one head behind the other. Of the gradient
that block is r_h phi_h(k)'. Wherever X phi and r phi' are written, these are meant.

| factory | l(z, v, t) | D | one step with rate 1 |
|---|---|---|---|
| ``linear_attention`` | -<z, v> | | X + v k' |
| ``gated_linear_attention`` | -<z, v> | 1 - g | g X + v k' |
| ``delta_net`` | 1/2 ||z - v||^2 | | X - (X k - v) k' |
| ``softmax_attention`` | -<z, v> | | X + v phi' |
| ``normalized_softmax_attention`` | -<z, v> / t | 1 / t | ((t-1)/t) X + (1/t) v phi' |
| ``gated_softmax_attention`` | -<z, v> / t | 1 - g (t-1)/t | ((t-1)/t) g X + (1/t) v phi' |
| ``cross_entropy`` | log sum_j e^<u_j, z> - <z, v> | | X + (v - U' softmax(U X phi)) phi' |

A ``MemoryObjective`` is a loss of a memory of any shape, any pytree of parameters (``of_memory``). Both give the value
and the gradient of one association, and each declares by one ``kind`` what is known of its loss: how the best memory in
hindsight is found and what bounds the slope. An object of a user's own with a method ``value`` is taken as one of whose
loss nothing is known (``as_objective``).

Source: [DAM] Table 1 and [AT]; cross-entropy is the loss of [LAM]. [AT] prints the regulariser of gated softmax
attention as (1 - g)/(2t), whose step is not the recurrence printed beside it; the row above is the one that gives it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import norm, outer, recall, sum_last
from damjax._checks import (
    brief,
    check_array,
    check_function,
    check_gates_given,
    check_instance,
    check_positive,
    concrete,
)
from damjax.features import FeatureMap, MultiHead, identity
from damjax.types import ArrayLike

__all__ = [
    "Gate",
    "General",
    "Kind",
    "Linear",
    "Lipschitz",
    "MemoryLoss",
    "MemoryObjective",
    "Objective",
    "Quadratic",
    "Smooth",
    "Time",
    "as_objective",
    "cross_entropy",
    "delta_net",
    "gated_linear_attention",
    "gated_softmax_attention",
    "linear_attention",
    "normalized_softmax_attention",
    "of_memory",
    "softmax_attention",
]

# A scalar count of steps; inside an objective it is a float, so that 1/t keeps the memory's precision.
Time = Any
# In (0, 1] and broadcastable against one memory, or None.
Gate = Any


class Kind:
    """What is known of a loss l(z, v, t) as a function of its prediction z.

    It says how the best memory in hindsight is found and what bounds the slope. What a kind does not know it refuses
    by name. One of ``Linear``, ``Quadratic``, ``Smooth``, ``Lipschitz`` and ``General``.

    Attributes:
        convex: whether l is convex in z.
        entrywise: whether dl/dz is an affine function of z, entry by entry.
        bounded_below: whether sums of such losses have a minimum on every closed set, bounded or not.
        curvatures: the least and the largest eigenvalue that d2l/dz2 may have.
    """

    convex = True
    entrywise = False
    bounded_below = False

    @property
    def curvatures(self) -> tuple[float | ArrayLike, float | ArrayLike]:
        """The least and the largest eigenvalue that d2l/dz2 may have."""
        return -np.inf, np.inf

    def steepest(
        self, residual: Callable[[Float[Array, "dv"]], Float[Array, "dv"]], value: Float[Array, "dv"], reach: Array
    ) -> Float[Array, ""]:
        """A bound on ||dl/dz|| over ||z|| <= reach.

        Args:
            residual: dl/dz at one value and time, (dv,) -> (dv,).
            value: v, (dv,).
            reach: of the prediction, >= 0, ().

        Raises:
            ValueError: of this kind no such bound is known.
        """
        raise ValueError(
            f"objective is of the kind {self}, of which no Lipschitz constant is known: declare the kind of its loss,"
            f" damjax.objectives.Quadratic(curvature), Smooth(smoothness) or Lipschitz(residual_bound), if it is one"
        )


def _check_curvature(name: str, value: float | ArrayLike) -> None:
    check_array(name, value, "")
    if (curvature := concrete(value)) is not None and not curvature > 0:
        raise ValueError(f"{name} must be positive, but it is {value}; a loss that is linear has the kind Linear()")


@dataclass(frozen=True)
class Linear(Kind):
    """A loss that is linear in the prediction: where there is no ridge, its best memory lies on the boundary.

    Example:
        >>> Linear().curvatures
        (0.0, 0.0)
    """

    entrywise = True

    @property
    def curvatures(self) -> tuple[float, float]:
        """No curvature."""
        return 0.0, 0.0

    def steepest(
        self, residual: Callable[[Float[Array, "dv"]], Float[Array, "dv"]], value: Float[Array, "dv"], reach: Array
    ) -> Float[Array, ""]:
        """||r||, which is the same everywhere."""
        return norm(residual(jnp.zeros_like(value)))


@dataclass(frozen=True)
class Quadratic(Kind):
    """A loss whose second derivative is a multiple of the identity: its best memory has a closed form.

    Attributes:
        curvature: d2l/dz2 = curvature * I, > 0; where it is 0, the kind is ``Linear``.

    Example:
        >>> Quadratic(2.0).curvatures
        (2.0, 2.0)
    """

    curvature: float | ArrayLike
    entrywise = True
    bounded_below = True

    def __post_init__(self) -> None:
        """Raise unless the curvature is positive."""
        _check_curvature("curvature", self.curvature)

    @property
    def curvatures(self) -> tuple[float | ArrayLike, float | ArrayLike]:
        """The curvature, in every direction."""
        return self.curvature, self.curvature

    def steepest(
        self, residual: Callable[[Float[Array, "dv"]], Float[Array, "dv"]], value: Float[Array, "dv"], reach: Array
    ) -> Float[Array, ""]:
        """||r(0)|| + curvature * reach, attained at z along r(0)."""
        return norm(residual(jnp.zeros_like(value))) + self.curvature * reach


@dataclass(frozen=True)
class Smooth(Kind):
    """A convex loss with a second derivative that is bounded: its best memory is found by iteration, with a gap.

    Attributes:
        smoothness: a bound on the largest eigenvalue of d2l/dz2, > 0.
        residual_bound: a bound on ||dl/dz|| over all predictions, value (dv,) -> (), where there is one.

    Example:
        >>> Smooth(0.25).curvatures
        (0.0, 0.25)
    """

    smoothness: float | ArrayLike
    residual_bound: Callable[..., Float[Array, ""]] | None = None

    def __post_init__(self) -> None:
        """Raise unless the smoothness is positive."""
        _check_curvature("smoothness", self.smoothness)

    @property
    def curvatures(self) -> tuple[float | ArrayLike, float | ArrayLike]:
        """From 0, since the loss is convex, to the smoothness."""
        return 0.0, self.smoothness

    def steepest(
        self, residual: Callable[[Float[Array, "dv"]], Float[Array, "dv"]], value: Float[Array, "dv"], reach: Array
    ) -> Float[Array, ""]:
        """``residual_bound``, or ||r(0)|| + smoothness * reach where there is none."""
        if self.residual_bound is not None:
            return self.residual_bound(value)
        smoothness = jnp.asarray(self.smoothness, value.dtype)
        return norm(residual(jnp.zeros_like(value))) + smoothness * reach


@dataclass(frozen=True)
class Lipschitz(Kind):
    """A convex loss with a slope that is bounded, and nothing else known: it has bounds, and no comparator.

    Attributes:
        residual_bound: a bound on ||dl/dz|| over all predictions, value (dv,) -> ().

    Example:
        >>> import jax.numpy as jnp
        >>> hinge = Lipschitz(lambda value: jnp.linalg.norm(value))
        >>> float(hinge.steepest(lambda prediction: -prediction, jnp.array([3.0, 4.0]), jnp.array(1.0)))
        5.0
    """

    residual_bound: Callable[..., Float[Array, ""]]

    def steepest(
        self, residual: Callable[[Float[Array, "dv"]], Float[Array, "dv"]], value: Float[Array, "dv"], reach: Array
    ) -> Float[Array, ""]:
        """``residual_bound``, wherever the prediction is."""
        return self.residual_bound(value)


@dataclass(frozen=True)
class General(Kind):
    """A loss of which nothing is known but its values and gradients; it need not be convex.

    Example:
        >>> General().steepest(lambda prediction: prediction, jnp.ones(1), jnp.array(1.0))
        Traceback (most recent call last):
        ValueError: objective is of the kind General(), of which no Lipschitz constant is known: ...
    """

    convex = False


@runtime_checkable
class MemoryLoss(Protocol):
    """Any objective: what gives the loss of one agent's memory on one association."""

    def value(self, params: Any, key: Any, value: Any, gate: Gate = None, time: Time = 1) -> Any:
        """f_t(X), ()."""
        ...


class Objective(NamedTuple):
    """A memory objective of linear memories, as the parts from which every algorithm builds loss and gradient.

    All functions take one agent's single association; batches go through ``jax.vmap``.

    Laws: ``residual`` is the derivative of ``loss`` in the prediction; it and ``features`` keep the dtype of what they
    are given; what ``kind`` says is true of the loss. One of a user's own is tried where it is used, at two points, and
    refused with a ValueError that names the part; ``damjax.testing.check_objective`` tries it at many.

    Attributes:
        features: phi, key (dk,) -> (df,); or a ``damjax.features.MultiHead``, key (dk,) -> (H, df), for H heads.
        loss: l, (prediction z (dv,), value (dv,), time ()) -> ().
        residual: dl/dz, (prediction (dv,), value (dv,), time ()) -> (dv,).
        kind: what is known of l: ``Linear``, ``Quadratic``, ``Smooth``, ``Lipschitz`` or ``General``.
        ridge: D, (gate, time ()) -> broadcastable against (dv, df); None where there is no such term.
        gated: whether the associations must carry gates.
        linear_memory: True: the memory is a matrix X, (dv, df), that recalls X phi(k), head by head where there are
            several.
    """

    features: FeatureMap
    loss: Callable[..., Float[Array, ""]]
    residual: Callable[..., Float[Array, "dv"]]
    kind: Kind = General()
    ridge: Callable[[Gate, Time], Float[Array, "..."]] | None = None
    gated: bool = False
    linear_memory = True

    @property
    def heads(self) -> tuple[int, ...]:
        """(H,) of a memory of H heads, whose features are (H, df); () of one without that axis."""
        return (self.features.num_heads,) if isinstance(self.features, MultiHead) else ()

    @property
    def has_rank_one_gradient(self) -> bool:
        """Whether gradients are r phi(k)' alone, head by head, and may be exchanged as r and phi."""
        return self.ridge is None

    @property
    def is_linear(self) -> bool:
        """Whether f_t is a linear function of the memory."""
        return isinstance(self.kind, Linear) and self.ridge is None

    @property
    def bounded_below(self) -> bool:
        """Whether sums of f_t have a minimum on every closed set, bounded or not."""
        return self.kind.bounded_below or (isinstance(self.kind, Linear) and self.ridge is not None)

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
            params: X, (dv, df); dv a multiple of the number of heads.
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
        _check_association(self.gated, key, value, gate, time)
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        time = jnp.asarray(time, params.dtype)
        loss = self.loss(recall(params, self.features(key)), value, time)
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
        _check_association(self.gated, key, value, gate, time)
        params, key, value = jnp.asarray(params), jnp.asarray(key), jnp.asarray(value)
        features, time = self.features(key), jnp.asarray(time, params.dtype)
        gradient = outer(self.residual(recall(params, features), value, time), features)
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

        s(R ||phi||) ||phi|| + R max D, with s(rho) what ``kind`` knows of ||dl/dz|| over ||z|| <= rho. Quadratic
        losses: (R c ||phi|| + ||r(0)||) ||phi|| + R max D, with c the curvature and r(0) the residual at z = 0;
        attained at X along -r(0) phi' where there is no ridge or D is one number. Cross-entropy:
        max_jk ||u_j - u_k|| ||phi||, which the farthest two classes approach as the memory grows confidently wrong.

        Of several heads ||phi|| is that of the longest features of a head, and r has the part of every head times the
        share of this that its own features have: exact for linear losses, a bound for others.

        Raises:
            ValueError: a loss of whose slope its kind knows nothing.

        Example:
            >>> import jax.numpy as jnp
            >>> float(delta_net().lipschitz(2.0, jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
            5.0
        """
        check_array("radius", radius, "")
        if (size := concrete(radius)) is not None:
            check_positive("radius", size, allow_zero=True)
        _check_association(self.gated, key, value, gate, time)
        key, value = jnp.asarray(key), jnp.asarray(value)
        features, time, radius = self.features(key), jnp.asarray(time, key.dtype), jnp.asarray(radius, key.dtype)
        length, shares = _lengths(features, value)
        steepest = self.kind.steepest(
            lambda prediction: shares * self.residual(prediction, value, time), value, radius * length
        )
        bound = steepest * length
        if self.ridge is not None:
            bound = bound + radius * jnp.max(jnp.abs(self.ridge(gate, time)))
        return bound


def _lengths(features: Float[Array, "*heads df"], value: Float[Array, "dv"]) -> tuple[Array, Array | float]:
    """The norm of the longest features of a head, and for every row of a memory the share of it that its head has."""
    if features.ndim == 1:
        return norm(features), 1.0
    lengths = jax.vmap(norm)(features)
    longest = jnp.max(lengths)
    shares = outer(jnp.ones_like(value), lengths[:, None] / jnp.where(longest > 0, longest, 1))
    return longest, shares[:, 0]


class MemoryObjective(NamedTuple):
    """A loss of a memory of any shape: its parameters are any pytree, and its gradient is one of the same shape.

    ``of_memory`` makes it of a memory and a loss of its predictions. All functions take one agent's memory and single
    association; batches go through ``jax.vmap``.

    Attributes:
        loss: f, (params, key (dk,), value (dv,), gate, time ()) -> ().
        slope: grad f in the parameters, of the same arguments.
        gated: whether the associations must carry gates.
        kind: ``General()``: neither a best memory in hindsight nor a bound on the slope is known.
        linear_memory: False: nothing is known of the memory's shape.
        has_rank_one_gradient: False: gradients are exchanged as they are.
    """

    loss: Callable[..., Float[Array, ""]]
    slope: Callable[..., Any]
    gated: bool = False
    linear_memory = False
    has_rank_one_gradient = False

    @property
    def kind(self) -> Kind:
        """What is known of the loss: nothing."""
        return General()

    def value(
        self,
        params: Any,
        key: Float[ArrayLike, "dk"],
        value: Float[ArrayLike, "dv"],
        gate: Gate = None,
        time: Time = 1,
    ) -> Float[Array, ""]:
        """f_t(X), of one agent's memory.

        Args:
            params: X, any pytree of floating-point arrays.
            key: k, (dk,).
            value: v, (dv,).
            gate: as the loss wants it; ignored by objectives without a gate.
            time: t, 1-based.

        Example:
            >>> import jax.numpy as jnp
            >>> memory = {"scale": jnp.array(2.0)}
            >>> objective = of_memory(lambda params, key: params["scale"] * key, lambda z, v, t: jnp.sum((z - v) ** 2))
            >>> float(objective.value(memory, jnp.array([3.0]), jnp.array([5.0])))
            1.0
        """
        return self.loss(*self._arguments(params, key, value, gate, time))

    def gradient(
        self,
        params: Any,
        key: Float[ArrayLike, "dk"],
        value: Float[ArrayLike, "dv"],
        gate: Gate = None,
        time: Time = 1,
    ) -> Any:
        """Grad f_t(X), a pytree as ``params``; arguments as for ``value``.

        Example:
            >>> import jax.numpy as jnp
            >>> memory = {"scale": jnp.array(2.0)}
            >>> objective = of_memory(lambda params, key: params["scale"] * key, lambda z, v, t: jnp.sum((z - v) ** 2))
            >>> float(objective.gradient(memory, jnp.array([3.0]), jnp.array([5.0]))["scale"])  # 2 (6 - 5) 3
            6.0
        """
        return self.slope(*self._arguments(params, key, value, gate, time))

    def _arguments(self, params: Any, key: Any, value: Any, gate: Gate, time: Time) -> tuple[Any, ...]:
        """The arguments of loss and slope as arrays, once they are checked."""
        _check_association(self.gated, key, value, gate, time)
        params = jax.tree.map(jnp.asarray, params)
        key, value = jnp.asarray(key), jnp.asarray(value)
        return params, key, value, gate, jnp.asarray(time, value.dtype)


def _check_association(gated: bool, key: Any, value: Any, gate: Gate, time: Time) -> None:
    """Raise unless they are one agent's association at one time."""
    for name, array, axes in (("key", key, "dk"), ("value", value, "dv"), ("time", time, "")):
        check_array(name, array, axes)
    if (now := concrete(time)) is not None:
        check_positive("time", now)
    check_gates_given(gated, gate)
    if gated:
        check_array("gate", gate, "...")


def of_memory(
    apply: Callable[[Any, Array], Array], loss: Callable[..., Float[Array, ""]], *, gated: bool = False
) -> MemoryObjective:
    """The objective of a memory of any shape: f_t(X) = l(apply(X, k), v, t), with the gradient of ``jax.grad``.

    Args:
        apply: the prediction of one memory for one cue, (params, key (dk,)) -> prediction; params any pytree.
        loss: l, (prediction, value (dv,), time ()) -> (); with ``gated``, (prediction, value, time, gate) -> ().
        gated: whether the associations must carry gates, which the loss then takes.

    Returns:
        A MemoryObjective. No best memory in hindsight and no bound on the slope is known of it.

    Raises:
        ValueError: an ``apply`` or a ``loss`` that cannot be called with these arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = lambda params, key: params["out"] @ jnp.tanh(params["hidden"] @ key)
        >>> objective = of_memory(apply, lambda prediction, value, time: jnp.sum((prediction - value) ** 2))
        >>> memory = {"hidden": jnp.ones((4, 2)), "out": jnp.zeros((1, 4))}
        >>> float(objective.value(memory, jnp.ones(2), jnp.ones(1)))
        1.0
        >>> objective.gradient(memory, jnp.ones(2), jnp.ones(1))["out"].shape
        (1, 4)
    """
    check_function("apply", apply, "params, key", "it gives one memory's prediction for one cue")
    arguments = "prediction, value, time, gate" if gated else "prediction, value, time"
    check_function("loss", loss, arguments, "it gives one number; with gated=True it takes the gate last")

    def of_params(params: Any, key: Array, value: Array, gate: Gate, time: Array) -> Float[Array, ""]:
        last = (gate,) if gated else ()
        return loss(apply(params, key), value, time, *last)

    return MemoryObjective(of_params, jax.grad(of_params), gated)


def as_objective(objective: Any) -> Objective | MemoryObjective:
    """An objective as algorithms use it; of an object of one's own, with ``value`` and perhaps ``gradient``, one too.

    Args:
        objective: what a factory of this module gives, or any object with
            ``value(params, key, value, gate, time) -> ()``, of memories that are any pytree; its ``gradient``, of the
            same arguments, is that of ``jax.grad`` where it has none, and ``gated`` is False where it does not say so.

    Returns:
        What a factory gave, as it is; else a MemoryObjective.

    Raises:
        ValueError: an object without a method ``value``; an Objective whose kind is none.

    Example:
        >>> import jax.numpy as jnp
        >>> class Distance:
        ...     def value(self, params, key, value, gate, time):
        ...         return jnp.sum((params - value) ** 2)
        >>> as_objective(Distance()).gradient(jnp.zeros(2), jnp.ones(1), jnp.ones(2)).tolist()
        [-2.0, -2.0]
        >>> as_objective(delta_net()).linear_memory
        True
    """
    if isinstance(objective, Objective):
        check_instance(
            "objective.kind", objective.kind, Kind, "damjax.objectives.Quadratic(curvature) is one, General() another"
        )
    if isinstance(objective, Objective | MemoryObjective):
        return objective
    if isinstance(objective, type) or not callable(getattr(objective, "value", None)):
        raise ValueError(
            f"objective must have a method value(params, key, value, gate, time) -> (), but it is {brief(objective)};"
            f" call a factory of damjax.objectives, such as delta_net() or of_memory(apply, loss)"
        )
    gradient = getattr(objective, "gradient", None) or jax.grad(objective.value)
    for name, method in (("value", objective.value), ("gradient", gradient)):
        check_function(
            f"objective.{name}", method, "params, key, value, gate, time", "agents pass these, in this order"
        )
    return MemoryObjective(objective.value, gradient, bool(getattr(objective, "gated", False)))


def _together(objective: Objective) -> Objective:
    """An objective of this module; its loss remembers the parts it was made with, since other ones may not fit."""
    vars(objective.loss)["made_with"] = (objective.residual, objective.ridge, objective.kind)
    return objective


def linear_attention(feature_map: FeatureMap = identity) -> Objective:
    """-<X k, v>: a step with rate 1 is X + v k', the memory of linear attention.

    Args:
        feature_map: phi, in place of k; ``damjax.features.split(H)`` makes it multi-head linear attention.

    Example:
        >>> import jax.numpy as jnp
        >>> float(linear_attention().value(jnp.eye(2), jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0])))
        -5.0
    """
    return softmax_attention(feature_map)


def gated_linear_attention(feature_map: FeatureMap = identity) -> Objective:
    """-<X k, v> + 1/2 sum (1 - g) X^2: a step with rate 1 is g X + v k'.

    Args:
        feature_map: phi, in place of k; see ``linear_attention``. A gate (dv, 1) may differ from head to head.

    Example:
        >>> import jax.numpy as jnp
        >>> objective = gated_linear_attention()
        >>> float(objective.value(jnp.eye(2), jnp.zeros(2), jnp.zeros(2), gate=jnp.array(0.5)))
        0.5
    """
    return _correlation(feature_map, ridge=lambda gate, time: 1 - gate, gated=True)


def delta_net(feature_map: FeatureMap = identity) -> Objective:
    """1/2 ||X k - v||^2: a step with rate 1 is the delta rule X - (X k - v) k'.

    Args:
        feature_map: phi, in place of k; see ``linear_attention``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(delta_net().value(jnp.zeros((2, 2)), jnp.ones(2), jnp.array([1.0, 1.0])))
        1.0
    """
    _check_feature_map(feature_map)
    return _together(
        Objective(
            features=feature_map,
            loss=lambda prediction, value, time: 0.5 * sum_last((prediction - value) ** 2),
            residual=lambda prediction, value, time: prediction - value,
            kind=Quadratic(1.0),
        )
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
    return _together(
        Objective(
            features=feature_map,
            loss=lambda prediction, value, time: jax.nn.logsumexp(logits(prediction)) - sum_last(prediction * value),
            residual=residual,
            # d2l/dz2 is the covariance of u_j under p, and no distribution on an interval of this width varies more.
            kind=Smooth(widest**2 / 4, slope_bound),
        )
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

    return _together(Objective(feature_map, loss, residual, Linear(), ridge, gated))
