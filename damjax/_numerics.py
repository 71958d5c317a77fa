"""Numerical idioms that more than one part of the library needs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def root(squared: Array) -> Array:
    """The square root, with slope 0 at 0.

    The slope of a norm at zero, where nothing has arrived yet, is NaN, and would spoil derivatives of whole runs.
    """
    return jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))


@jax.custom_jvp
def sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1 / (1 + e^-x), whose slope is as precise as its value.

    That of ``jax.nn.sigmoid``, s (1 - s), is 0 where s rounds to 1, in float32 from x = 17 on, though it is e^-x.

    Example:
        >>> [bool(jax.grad(f)(jnp.float32(20)) > 0) for f in (sigmoid, jax.nn.sigmoid)]
        [True, False]
    """
    return jax.nn.sigmoid(x)


@sigmoid.defjvp
def _(points, tangents):
    value = sigmoid(*points)
    return value, value * sigmoid(-points[0]) * tangents[0]


@jax.custom_jvp
def softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + e^x), the integral of ``sigmoid``."""
    return jax.nn.softplus(x)


@softplus.defjvp
def _(points, tangents):
    return softplus(*points), sigmoid(*points) * tangents[0]


def add_compensated(total: Any, excess: Any, terms: Any) -> tuple[Any, Any]:
    """One step of a compensated sum, leaf by leaf: the new total, and how far rounding has lifted it above the sum.

    A plain sum over many steps is off by the rounding of every one: in single precision, after 1e5 steps, in its third
    digit. Source: Kahan, "Further remarks on reducing truncation errors", 1965.

    Example:
        >>> total = excess = jnp.float32(0)
        >>> for _ in range(1000):
        ...     total, excess = add_compensated(total, excess, jnp.float32(0.1))
        >>> abs(float(total) - 100) < 1e-5
        True
    """
    corrected = jax.tree.map(jnp.subtract, terms, excess)
    after = jax.tree.map(jnp.add, total, corrected)
    return after, jax.tree.map(lambda new, old, term: (new - old) - term, after, total, corrected)


def running_sums(terms: Float[Array, "T *item"]) -> Float[Array, "T *item"]:
    """Sums up to every step, each of them pairwise: the error grows with log T, where that of ``sum`` can with T."""
    return jnp.cumsum(terms, axis=0)


def total(terms: Float[Array, "T *item"]) -> Float[Array, "*item"]:
    """The last of the running sums: 0 of no terms."""
    return running_sums(terms)[-1] if terms.shape[0] else jnp.zeros(terms.shape[1:], terms.dtype)


def promoting(compute: Callable[..., Any], *arguments: Any) -> Any:
    """Call what others have written, which may promote dtypes also where the user forbids it to damjax."""
    with jax.numpy_dtype_promotion("standard"):
        return compute(*arguments)
