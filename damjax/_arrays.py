"""Numerical idioms that several parts of the library need: sums that XLA compiles well, safe roots.

The sums in which the algorithms spend their time are over a handful of terms in a large batch. As matrix products or
reductions they become library calls on tiny operands; as sums of elementwise products they fuse into one vectorised
loop, several times faster up to a few dozen terms (``tests/benchmarks`` measures it). Past that the ordinary operation
is the better program and the smaller one.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

MAX_UNROLLED_TERMS = 32
# Of products in single precision a GPU keeps 11 bits by default, and a TPU 8: a regret would be off in its third digit.
FULL = jax.lax.Precision.HIGHEST


def check_heads(heads: tuple[int, ...], value_dim: int) -> None:
    """Raise unless every head has as many rows of a memory as any other."""
    if value_dim % math.prod(heads):
        raise ValueError(
            f"values must have a multiple of {heads[0]} entries dv, as many for each head, but they have {value_dim};"
            f" choose another number of heads or pad the values"
        )


def by_head(rows: Float[Array, "..."], heads: tuple[int, ...], axis: int) -> Float[Array, "..."]:
    """An axis of dv entries, as the rows of a memory, as (H, dv / H) where ``heads`` is (H,), as it is where ()."""
    check_heads(heads, rows.shape[axis])
    place = axis % rows.ndim
    each = rows.shape[place] // math.prod(heads)
    return rows.reshape(*rows.shape[:place], *heads, each, *rows.shape[place + 1 :])


def joined(blocks: Float[Array, "..."], heads: tuple[int, ...], axis: int) -> Float[Array, "..."]:
    """The axes (H, dv / H), the first of them at ``axis``, as one of dv entries: what ``by_head`` has taken apart."""
    ends = axis + 1 + len(heads)
    return blocks.reshape(*blocks.shape[:axis], math.prod(blocks.shape[axis:ends]), *blocks.shape[ends:])


def recall(params: Float[Array, "dv df"], features: Float[Array, "*heads df"]) -> Float[Array, "dv"]:
    """X phi; of several heads X_h phi_h, one behind the other.

    Example:
        >>> recall(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [1.0, 4.0]
    """
    heads = features.shape[:-1]
    blocks = by_head(params, heads, 0)
    return joined(jnp.einsum("...ij,...j->...i", blocks, features, precision=FULL), heads, 0)


def outer(residuals: Float[Array, "*batch dv"], features: Float[Array, "..."]) -> Float[Array, "*batch dv df"]:
    """r phi'; of several heads r_h phi_h', one below the other.

    Args:
        residuals: r.
        features: phi, (*batch, df), or (*batch, H, df) of several heads.

    Example:
        >>> outer(jnp.array([5.0, 6.0]), jnp.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[5.0, 0.0], [0.0, 6.0]]
    """
    place = residuals.ndim - 1
    heads = features.shape[place:-1]
    return joined(by_head(residuals, heads, place)[..., :, None] * features[..., None, :], heads, place)


def squared_outer(residuals: Float[Array, "*batch dv"], features: Float[Array, "..."]) -> Float[Array, "*batch"]:
    """||r phi'||^2, with arguments as of ``outer``, without the outer product."""
    heads = features.shape[residuals.ndim - 1 : -1]
    squares = jnp.sum(by_head(residuals, heads, -1) ** 2, axis=-1) * jnp.sum(features**2, axis=-1)
    return jnp.sum(squares, axis=-1) if heads else squares


def predictions(params: Float[Array, "N dv df"], features: Float[Array, "M *heads df"]) -> Float[Array, "N M dv"]:
    """Every memory recalls every cue: entry [n, m] is X_n phi_m, as of ``recall``."""
    heads, num_features = features.shape[1:-1], features.shape[-1]
    blocks = by_head(params, heads, 1)
    if num_features > MAX_UNROLLED_TERMS:
        each = jnp.einsum("n...ij,m...j->nm...i", blocks, features, precision=FULL)
    else:
        each = _sum([blocks[:, None, ..., j] * features[None, ..., None, j] for j in range(num_features)])
    return joined(each, heads, 2)


def sum_outer(weighted: Float[Array, "N M dv"], features: Float[Array, "#N M *heads df"]) -> Float[Array, "N dv df"]:
    """Each agent's sum of rank-one gradients, of residuals that carry their weights: sum_m (w_nm r_nm) phi_nm'."""
    (num_agents, num_senders, _), heads = weighted.shape, features.shape[2:-1]
    blocks = by_head(weighted, heads, 2)
    if num_senders > MAX_UNROLLED_TERMS:
        features = jnp.broadcast_to(features, (num_agents, num_senders, *features.shape[2:]))
        each = jnp.einsum("nm...i,nm...j->n...ij", blocks, features, precision=FULL)
    else:
        each = _sum([blocks[:, m, ..., :, None] * features[:, m, ..., None, :] for m in range(num_senders)])
    return joined(each, heads, 1)


def product(*matrices: ArrayLike) -> Array:
    """The matrix product, from left to right, in the precision of its dtype on every device."""
    first, *others = map(jnp.asarray, matrices)
    return functools.reduce(functools.partial(jnp.matmul, precision=FULL), others, first)


def zero_unweighted(weights: Float[Array, "*leading"], values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The values, but 0 for those that are not finite and of weight 0, so that they spoil no weighted sum."""
    return jnp.where((beside(weights, values) == 0) & ~jnp.isfinite(values), 0, values)


def mix(weights: Float[Array, "N M"], values: Float[Array, "M *item"]) -> Float[Array, "N *item"]:
    """sum_m w_nm x_m, where NaN goes to those who want it."""
    lost = ~jnp.all(jnp.isfinite(values.reshape(len(values), -1)), axis=1)
    mixed = contract("nm,m...->n...", weights, jnp.where(beside(lost, values), 0, values))
    return jnp.where(beside(jnp.any((weights != 0) & lost[None], axis=1), values), jnp.nan, mixed)


def contract(subscripts: str, *operands: Array) -> Array:
    """An einsum in full precision, stored.

    From 0.10.2 on, jaxlib for CPUs takes products together with the sums behind them, and computes wrongly those in
    which an operand is broadcast or constant: a large batch reads memory that nobody wrote (jax issue 39103). Whether
    one is does not show here, since weights may be uniform, and loops of one step are unrolled.
    """
    return stored(functools.partial(jnp.einsum, subscripts, precision=FULL), *operands)


def stored(compute: Callable[..., Array], *operands: Array, time: Int[Array, ""] | None = None) -> Array:
    """The value of ``compute(*operands)``, computed once and kept: no later operation is compiled into it.

    XLA on CPU would repeat an elementwise computation inside each of its consumers, and inside the write to a delay
    queue, where its loop is scalar. Inside a loop over time an optimisation barrier does not hold that off; a branch
    does, on a condition that always holds, since ``time`` counts from 1, but that the compiler cannot know. Figure 1's
    runs take 0.22 ms a step so, 0.43 with barriers and 0.47 with neither (88 runs, ``vmap_last``, jaxlib 0.10.1).

    Args:
        compute: makes one array.
        operands: what ``compute`` reads, of the dtype of its result.
        time: the current step, traced; without it the border is a barrier.
    """
    if time is None:
        return jax.lax.optimization_barrier(compute(*operands))
    shape = jax.eval_shape(compute, *operands)

    def never(*operands: Array) -> Array:
        # It reads what the other branch reads: of two borders around one computation, XLA then makes one.
        return jnp.broadcast_to(_sum([operand[(0,) * operand.ndim] for operand in operands]), shape.shape)

    return jax.lax.cond(_has_begun(time), compute, never, *operands)


@jax.custom_batching.custom_vmap
def _has_begun(time: Int[Array, ""]) -> Bool[Array, ""]:
    return time > 0


@_has_begun.def_vmap
def _(axis_size: int, in_batched: list[bool], time: Int[Array, "runs"]) -> tuple[Bool[Array, ""], bool]:
    # Runs that were resumed bring a clock each: one answer for all of them, or the branch would become a select.
    return _has_begun(time[0]), False


def beside(numbers: Shaped[Array, "*leading"], leaf: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """A number for each of the leading axes of a leaf, one per agent or per pair, ready to meet the leaf."""
    return numbers.reshape(*numbers.shape, *[1] * (leaf.ndim - numbers.ndim))


def dtype_of(tree: Any) -> np.dtype:
    """The dtype of a tree's leaves, or the widest of them: that in which weights, rates and the time meet memories."""
    return np.dtype(promoting(jnp.result_type, *jax.tree.leaves(tree)))


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


def root(squared: Array) -> Array:
    """The square root of numbers that are not negative, with slope 0 at 0.

    The slope of a norm at zero, where nothing has arrived yet, is NaN, and would spoil derivatives of whole runs.

    Example:
        >>> [float(jax.grad(f)(0.0)) for f in (root, jnp.sqrt)]
        [0.0, inf]
    """
    return jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))


def norm(x: Float[ArrayLike, "..."]) -> Float[Array, ""]:
    """The Euclidean norm of all entries, with slope 0 at 0.

    Example:
        >>> jax.grad(norm)(jnp.zeros(2)).tolist()
        [0.0, 0.0]
    """
    return root(jnp.sum(jnp.square(jnp.asarray(x))))


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


def add_compensated(sums: Any, excess: Any, terms: Any) -> tuple[Any, Any]:
    """One step of a compensated sum, leaf by leaf: the new sums, and how far rounding has lifted them above the true.

    A plain sum over many steps is off by the rounding of every one: in single precision, after 1e5 steps, in its third
    digit. Source: Kahan, "Further remarks on reducing truncation errors", 1965.

    Example:
        >>> sums = excess = jnp.float32(0)
        >>> for _ in range(1000):
        ...     sums, excess = add_compensated(sums, excess, jnp.float32(0.1))
        >>> abs(float(sums) - 100) < 1e-5
        True
    """
    corrected = jax.tree.map(jnp.subtract, terms, excess)
    after = jax.tree.map(jnp.add, sums, corrected)
    return after, jax.tree.map(lambda new, old, term: (new - old) - term, after, sums, corrected)


def running_sums(terms: Float[Array, "T *item"]) -> Float[Array, "T *item"]:
    """The sums up to every step, taken pairwise: their error grows with log T, where that of ``jnp.sum`` may with T."""
    return jnp.cumsum(terms, axis=0)


def pairwise_sum(terms: Float[Array, "T *item"]) -> Float[Array, "*item"]:
    """The last of the running sums: 0 of no terms."""
    return running_sums(terms)[-1] if terms.shape[0] else jnp.zeros(terms.shape[1:], terms.dtype)


def promoting(compute: Callable[..., Any], *arguments: Any) -> Any:
    """``compute(*arguments)`` under jax's standard promotion of dtypes.

    Functions of optax and of users may mix dtypes, also where the user has forbidden promotion for the rest.
    """
    with jax.numpy_dtype_promotion("standard"):
        return compute(*arguments)
