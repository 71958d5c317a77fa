"""What is read off a training run: spikes of the loss, first and last times, the logarithmic regime."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from damjax._checks import check_array
from damjax.types import ArrayLike

__all__ = ["first_time", "in_logarithmic_regime", "settling_time", "spike_amplitude", "spike_duration"]


def spike_amplitude(losses: Float[ArrayLike, "T"]) -> Float[Array, ""]:
    """max_t (L_t - min_{s <= t} L_s): how far the loss ever rose above what it had reached; 0 for a monotone run.

    Example:
        >>> float(spike_amplitude(jnp.array([1.0, 0.5, 0.75, 0.25, 0.5])))
        0.25
    """
    check_array("losses", losses, "T")
    losses = jnp.asarray(losses)
    reached = jax.lax.cummin(losses)
    # Not at infinity, where the difference is no number.
    return jnp.max(jnp.where(losses == reached, 0, losses - reached))


def spike_duration(losses: Float[ArrayLike, "T"], *, tolerance: float = 1e-6) -> Int[Array, ""]:
    """How many steps the run spent above what it had reached before, over all spikes.

    Args:
        losses: L_0..L_T.
        tolerance: relative; a rise by less is rounding, of which a run on a plateau has plenty.

    Example:
        >>> int(spike_duration(jnp.array([1.0, 0.5, 0.75, 0.6, 0.25])))
        2
    """
    check_array("losses", losses, "T")
    losses = jnp.asarray(losses)
    check_array("tolerance", tolerance, "")
    reached = jax.lax.cummin(losses)
    return jnp.sum(losses - reached > tolerance * reached)


def first_time(happens: Bool[ArrayLike, "T"]) -> Int[Array, ""]:
    """The first index at which it happens; T, the length, if never.

    Example:
        >>> int(first_time(jnp.array([False, True, False, True])))
        1
    """
    check_array("happens", happens, "T")
    return jnp.where(jnp.any(jnp.asarray(happens)), jnp.argmax(jnp.asarray(happens)), jnp.shape(happens)[0])


def settling_time(holds: Bool[ArrayLike, "T"]) -> Int[Array, ""]:
    """The first index from which on it always holds; T, the length, if it fails at the end.

    Example:
        >>> int(settling_time(jnp.array([False, True, False, True])))
        3
    """
    check_array("holds", holds, "T")
    return jnp.shape(holds)[0] - first_time(jnp.logical_not(jnp.asarray(holds))[::-1])


def in_logarithmic_regime(losses: Float[ArrayLike, "T"], *, tolerance: float = 0.1) -> Bool[Array, "T"]:
    """Whether the loss falls as 1/t, and so the margins grow as log t: its exponent over the last doubling of t is -1.

        | log2(L_{t/2} / L_t) - 1 | <= tolerance

    Args:
        losses: L_0..L_T.
        tolerance: on the exponent.

    Returns:
        (T,) booleans; False at t = 0 and 1. ``settling_time`` of them is the time to the logarithmic regime.

    Example:
        >>> settles = in_logarithmic_regime(1 / (5 + jnp.arange(1000.0)))
        >>> int(settling_time(settles))
        65
    """
    check_array("losses", losses, "T")
    losses = jnp.asarray(losses)
    check_array("tolerance", tolerance, "")
    time = jnp.arange(losses.shape[0])
    exponent = jnp.log2(losses[time // 2] / losses)
    return (time > 1) & (jnp.abs(exponent - 1) <= tolerance)
