"""Numerical idioms that more than one part of the library needs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def root(squared: Array) -> Array:
    """The square root, with slope 0 at 0.

    The slope of a norm at zero, where nothing has arrived yet, is NaN, and would spoil derivatives of whole runs.
    """
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def promoting(compute: Callable[..., Any], *arguments: Any) -> Any:
    """Call what others have written, which may promote dtypes also where the user forbids it to damjax."""
    with jax.numpy_dtype_promotion("standard"):
        return compute(*arguments)
