"""Numerical idioms that more than one part of the library needs."""

import jax.numpy as jnp
from jaxtyping import Array


def root(squared: Array) -> Array:
    """The square root, with slope 0 at 0.

    The slope of a norm at zero, where nothing has arrived yet, is NaN, and would spoil derivatives of whole runs.
    """
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
