"""Learning rates as functions of the 1-based count of steps since an agent's first gradient arrived.

Any function of the count will do, optax schedules included; these are the two that the theory is written for. An array
is no learning rate, since its entries might be meant for agents or for steps, and nobody could tell where there are as
many of both: ``lambda count: rates`` gives every agent its own, and a table of one rate per step is
``lambda count: jnp.asarray(rates)[count.astype(int) - 1]``.
"""

from typing import Any

import jax.numpy as jnp

from damjax._checks import check_positive, concrete
from damjax.types import ArrayLike, Schedule

__all__ = ["inverse_sqrt", "power"]


def inverse_sqrt(scale: float | ArrayLike) -> Schedule:
    """eta = c / sqrt(count), the rate of [DAM] Cor. 1.

    Args:
        scale: c > 0, a number or one per agent (N,).

    Returns:
        A schedule: count (N,) -> rates (N,).

    Example:
        >>> float(inverse_sqrt(0.5)(4))
        0.25
    """
    if (value := concrete(scale)) is not None:
        check_positive("scale", value)

    def schedule(count: Any) -> Any:
        # The square root is one vector instruction, where the general power is a call for every number.
        root = jnp.sqrt(count)
        return jnp.asarray(scale, root.dtype) / root

    return schedule


def power(scale: float | ArrayLike, exponent: float | ArrayLike) -> Schedule:
    """eta = c * count^(-beta).

    Args:
        scale: c > 0, a number or one per agent (N,).
        exponent: beta >= 0; the bounds want it in [0, 1).

    Returns:
        A schedule: count (N,) -> rates (N,).

    Raises:
        ValueError: c is not positive or beta is negative.

    Example:
        >>> float(power(2.0, 1.0)(8.0))
        0.25
    """
    if (value := concrete(scale)) is not None:
        check_positive("scale", value)
    if (value := concrete(exponent)) is not None:
        check_positive("exponent", value, allow_zero=True)

    def schedule(count: Any) -> Any:
        count = 1.0 * jnp.asarray(count)
        return jnp.asarray(scale, count.dtype) * count ** -jnp.asarray(exponent, count.dtype)

    return schedule
