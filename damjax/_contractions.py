"""The sums in which the algorithms spend their time, written so that XLA compiles them well under vmap.

All are over a handful of terms in a large batch. As matrix products or reductions they become library calls on tiny
operands; as sums of elementwise products they fuse into one vectorised loop, several times faster up to a few dozen
terms (``tests/benchmarks`` measures it). Past that the ordinary operation is the better program and the smaller one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MAX_UNROLLED_TERMS = 32


def predictions(params: Float[Array, "N dv df"], features: Float[Array, "M df"]) -> Float[Array, "N M dv"]:
    """Every memory recalls every cue: entry [n, m] is X_n phi_m."""
    if features.shape[1] > MAX_UNROLLED_TERMS:
        return jnp.einsum("nij,mj->nmi", params, features)
    return _sum([params[:, None, :, j] * features[None, :, None, j] for j in range(features.shape[1])])


def aggregate(
    weights: Float[Array, "N M"],
    residuals: Float[Array, "N M dv"],
    features: Float[Array, "#N M df"],
) -> Float[Array, "N dv df"]:
    """Each agent's weighted sum of rank-one gradients: sum_m w_nm r_nm phi_nm'."""
    weighted = weights[:, :, None] * residuals
    if weights.shape[1] > MAX_UNROLLED_TERMS:
        return jnp.einsum(
            "nmi,nmj->nij",
            weighted,
            jnp.broadcast_to(features, (*weights.shape, features.shape[2])),
        )
    return _sum([weighted[:, m, :, None] * features[:, m, None, :] for m in range(weights.shape[1])])


def materialized(compute: Callable[[], Array], time: Int[Array, ""]) -> Array:
    """The value of ``compute()``, computed once and stored.

    XLA on CPU would repeat an elementwise computation inside each of its consumers, and inside the write to a delay
    queue, where its loop is scalar. A branch is a border that fusion does not cross; this one is always taken, since
    ``time`` counts from 1, but the compiler cannot know.

    Args:
        compute: makes one array.
        time: the current step, traced.
    """
    shape = jax.eval_shape(compute)
    return jax.lax.cond(time > 0, compute, lambda: jnp.zeros(shape.shape, shape.dtype))


def sum_last(x: Float[Array, "*batch terms"]) -> Float[Array, "*batch"]:
    """The sum over the last axis."""
    if x.shape[-1] > MAX_UNROLLED_TERMS:
        return jnp.sum(x, axis=-1)
    return _sum([x[..., i] for i in range(x.shape[-1])])


def _sum(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
