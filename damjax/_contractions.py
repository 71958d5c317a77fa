"""The sums in which the algorithms spend their time, written so that XLA compiles them well under vmap.

All are over a handful of terms in a large batch. As matrix products or reductions they become library calls on tiny
operands; as sums of elementwise products they fuse into one vectorised loop, several times faster up to a few dozen
terms (``tests/benchmarks`` measures it). Past that the ordinary operation is the better program and the smaller one.
"""

import functools
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

MAX_UNROLLED_TERMS = 32
# Of products in single precision a GPU keeps 11 bits by default, and a TPU 8: a regret would be off in its third digit.
FULL = jax.lax.Precision.HIGHEST
LAST_RIGHT_JAXLIB = "0.10.1"  # pyproject.toml says why, and caps jaxlib there


def warn_of_wrong_sums() -> None:
    """Warn where jax runs on a CPU by a jaxlib that compiles sums of others wrongly; nothing is started to find out."""
    installed = importlib.metadata.version("jaxlib")
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if sums_go_wrong(installed, platforms, with_plugins=importlib.util.find_spec("jax_plugins") is not None):
        warnings.warn(
            f"jaxlib {installed} compiles some sums of products wrongly on CPUs (jax issue 39103): damjax's own are"
            f" written so that they are right, but those in your functions may not be; install"
            f" 'jaxlib<={LAST_RIGHT_JAXLIB}'",
            RuntimeWarning,
            stacklevel=3,
        )


def sums_go_wrong(jaxlib: str, platforms: str | None, *, with_plugins: bool) -> bool:
    """Whether this jaxlib will compile for a CPU, and is one that gets sums wrong.

    Args:
        jaxlib: its version.
        platforms: that jax may use, the preferred one first, as in JAX_PLATFORMS; None or "" where it chooses.
        with_plugins: whether there are plugins for accelerators, which jax then prefers.

    Example:
        >>> sums_go_wrong("0.12.0.1", None, with_plugins=False), sums_go_wrong("0.10.1", "cpu", with_plugins=False)
        (True, False)
    """
    on_cpu = platforms.startswith("cpu") if platforms else not with_plugins
    return on_cpu and _release(jaxlib) > _release(LAST_RIGHT_JAXLIB)


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version starts with."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def predictions(params: Float[Array, "N dv df"], features: Float[Array, "M df"]) -> Float[Array, "N M dv"]:
    """Every memory recalls every cue: entry [n, m] is X_n phi_m."""
    if features.shape[1] > MAX_UNROLLED_TERMS:
        return jnp.einsum("nij,mj->nmi", params, features, precision=FULL)
    return _sum([params[:, None, :, j] * features[None, :, None, j] for j in range(features.shape[1])])


def sum_outer(weighted: Float[Array, "N M dv"], features: Float[Array, "#N M df"]) -> Float[Array, "N dv df"]:
    """Each agent's sum of rank-one gradients, of residuals that carry their weights: sum_m (w_nm r_nm) phi_nm'."""
    num_agents, num_senders, _ = weighted.shape
    if num_senders > MAX_UNROLLED_TERMS:
        features = jnp.broadcast_to(features, (num_agents, num_senders, features.shape[2]))
        return jnp.einsum("nmi,nmj->nij", weighted, features, precision=FULL)
    return _sum([weighted[:, m, :, None] * features[:, m, None, :] for m in range(num_senders)])


def product(*matrices: ArrayLike) -> Array:
    """The matrix product, from left to right, in the precision of its dtype on every device."""
    first, *others = map(jnp.asarray, matrices)
    return functools.reduce(functools.partial(jnp.matmul, precision=FULL), others, first)


def heeded(weights: Float[Array, "N K"], held: Float[Array, "N K *item"]) -> Float[Array, "N K *item"]:
    """What is held, and 0 for what is not finite and of weight 0, so that it spoils no weighted sum."""
    weights = weights.reshape(*weights.shape, *[1] * (held.ndim - 2))
    return jnp.where((weights == 0) & ~jnp.isfinite(held), 0, held)


def mix(weights: Float[Array, "N M"], held: Float[Array, "M *item"]) -> Float[Array, "N *item"]:
    """sum_m w_nm x_m, where NaN goes to those who want it."""
    lost = ~jnp.all(jnp.isfinite(held.reshape(len(held), -1)), axis=1)
    column = (-1, *[1] * (held.ndim - 1))
    mixed = contract("nm,m...->n...", weights, jnp.where(lost.reshape(column), 0, held))
    return jnp.where(jnp.any((weights != 0) & lost[None], axis=1).reshape(column), jnp.nan, mixed)


def contract(subscripts: str, *operands: Array) -> Array:
    """An einsum whose result is a value of its own, that no later operation is compiled into.

    From 0.10.2 on, jaxlib for CPUs takes products together with the sums behind them, and computes wrongly those in
    which an operand is broadcast or constant: a large batch reads memory that nobody wrote (jax issue 39103). Whether
    one is does not show here, since weights may be uniform, and loops of one step are unrolled.
    """
    return jax.lax.optimization_barrier(jnp.einsum(subscripts, *operands, precision=FULL))


def materialized(compute: Callable[..., Array], time: Int[Array, ""], *operands: Array) -> Array:
    """The value of ``compute(*operands)``, computed once and stored.

    XLA on CPU would repeat an elementwise computation inside each of its consumers, and inside the write to a delay
    queue, where its loop is scalar. A branch is a border that fusion does not cross; this one is always taken, since
    ``time`` counts from 1, but the compiler cannot know.

    Args:
        compute: makes one array.
        time: the current step, traced.
        operands: what ``compute`` reads, of the dtype of its result.
    """
    shape = jax.eval_shape(compute, *operands)

    def never(*operands: Array) -> Array:
        # It reads what the other branch reads: of two borders around one computation, XLA then makes one.
        return jnp.broadcast_to(_sum([operand[(0,) * operand.ndim] for operand in operands]), shape.shape)

    return jax.lax.cond(time > 0, compute, never, *operands)


def sum_last(x: Float[Array, "*batch terms"]) -> Float[Array, "*batch"]:
    """The sum over the last axis."""
    if x.shape[-1] > MAX_UNROLLED_TERMS:
        return jnp.sum(x, axis=-1)
    return _sum([x[..., i] for i in range(x.shape[-1])])


def sum_squares(x: Float[Array, "..."]) -> Float[Array, ""]:
    """The sum of all squares, row by row: XLA on CPU stores the squares first when it is to reduce more than a few."""
    if jnp.ndim(x) < 2 or x.shape[0] > 2 * MAX_UNROLLED_TERMS:
        return jnp.sum(jnp.square(x))
    return jnp.sum(_sum([row * row for row in x]))


def _sum(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
