"""Roots of convex functions, which is what the closed forms of the study come down to."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

NUM_STEPS = 60


def convex_root(
    function: Callable[[Array], tuple[Array, Array]], start: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The root of increasing convex functions, entry by entry, from points above it, where Newton's steps only fall.

    The steps are not differentiated: one more, from the root, carries the first derivatives of the equation.

    Args:
        function: x -> its value and its slope.
        start: where the value is not negative.
    """

    def body(_: Any, x: Array) -> Array:
        value, slope = jax.lax.stop_gradient(function(x))
        return x - value / slope

    root = jax.lax.stop_gradient(jax.lax.fori_loop(0, NUM_STEPS, body, jax.lax.stop_gradient(start)))
    value, slope = function(root)
    return root - value / jax.lax.stop_gradient(slope)
