"""Newton's method for the equations that the closed forms of the study come down to."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NUM_STEPS = 60


def convex_root(function: Callable[[Array], Array], start: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The root of increasing convex functions, entry by entry, from points above it, where Newton's steps only fall.

    Derivatives of every order are those of the equation: the steps themselves are not differentiated.

    Args:
        function: elementwise, (*batch) -> (*batch).
        start: where the values are not negative.
    """

    def newton(elementwise: Callable[[Array], Array], point: Array) -> Array:
        def step(_, x):
            value, slope = jax.jvp(elementwise, (x,), (jnp.ones_like(x),))
            return x - value / slope

        return jax.lax.fori_loop(0, NUM_STEPS, step, point)

    def divide(linear: Callable[[Array], Array], value: Array) -> Array:
        return value / linear(jnp.ones_like(value))

    return jax.lax.custom_root(function, jax.lax.stop_gradient(start), newton, divide)
