"""The records and aliases that every module shares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from damjax._checks import check_function, check_positive

ArrayLike = jax.Array | np.ndarray
Schedule = Callable[[Any], Any]
LearningRate = float | ArrayLike | Schedule


class Associations(NamedTuple):
    """What the agents see at one step: each one a cue and its response.

    A whole stream is the same record with a leading time axis T on every field.

    Attributes:
        keys: cues, shape (N, dk).
        values: responses, shape (N, dv).
        gates: forget gates in (0, 1] that broadcast against one memory (dv, df): shape (N,), (N, dv, 1)
            or (N, 1, df). None for objectives without a gate.

    Example:
        >>> import jax.numpy as jnp
        >>> stream = Associations(keys=jnp.ones((100, 3, 2)), values=jnp.ones((100, 3, 4)))
        >>> stream.keys.shape, stream.gates is None
        ((100, 3, 2), True)
    """

    keys: Float[ArrayLike, "*T N dk"]
    values: Float[ArrayLike, "*T N dv"]
    gates: Float[ArrayLike, "..."] | None = None


class Info(NamedTuple):
    """What a person wants to see of one step; the next step does not need it.

    Attributes:
        time: the step t that was just made, 1-based, shape ().
        grad_norm: Frobenius norm of each agent's aggregated gradient, shape (N,).
        num_applied: how many gradients each agent applied, shape (N,).
        projected: whether the projection moved the agent's memory, shape (N,).
        finite: whether the agent's memory is free of NaN and infinity after the step, shape (N,).
    """

    time: Int[Array, ""]
    grad_norm: Float[Array, "N"]
    num_applied: Int[Array, "N"]
    projected: Bool[Array, "N"]
    finite: Bool[Array, "N"]


class Algorithm(NamedTuple):
    """An online algorithm as data: two pure functions.

    Attributes:
        init: ``init(params (N, dv, df)) -> state``.
        step: ``step(state, associations) -> (state, info)``, a literal scan body. ``state.params`` is X_t
            before the step and X_{t+1} after it; ``state.step`` counts the steps made.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]


def concrete(array: Any) -> np.ndarray | None:
    """The values of ``array``, or None while it is traced: range checks see concrete values only."""
    return None if isinstance(array, Tracer) else np.asarray(array)


def float_dtype(dtype: jax.typing.DTypeLike | None) -> np.dtype:
    """The dtype of random draws, jax's default float where none is asked for, or a ValueError for what is no float."""
    if dtype is None:
        return np.dtype(jnp.result_type(float))
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype must name a floating-point type, as 'float32' does, but it is {dtype!r}") from error
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(f"dtype must name a floating-point type, as 'float32' does, but it is {dtype!r}")
    return wanted


def as_schedule(learning_rate: LearningRate, name: str = "learning_rate") -> Schedule:
    """A float is a constant rate, as in optax; a schedule is taken as it is; of an array nobody knows what it means."""
    if callable(learning_rate):
        check_function(name, learning_rate, "count", "call a factory of damjax.schedules, such as inverse_sqrt(scale)")
        return learning_rate
    if (shape := np.shape(learning_rate)) != ():
        raise ValueError(
            f"{name} must be one number or a function of the count, but it is an array of shape {shape}, whose"
            f" entries may be meant for agents or for steps; say which: lambda count: rates gives every agent its own,"
            f" lambda count: jax.numpy.asarray(rates)[count.astype(int) - 1] every step"
        )
    if (rate := concrete(learning_rate)) is not None:
        check_positive(name, rate, allow_zero=True)
    return lambda count: jnp.asarray(learning_rate)
