"""Sums of rates that fall as a power of time, exact and smooth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from damjax._checks import check_array, check_positive, concrete
from damjax.types import ArrayLike

__all__ = ["harmonic_number"]

Scalar = float | int | np.number | Num[ArrayLike, ""]

# The expansion is in inverse powers of counts past this one: its remainder is below 1e-13 for exponents up to 2.
SHIFT = 8
# B_2k / (2k)!, k = 1, 2, ..
BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)
SMALL, NUM_TERMS = 0.5, 14  # (e^z - 1) / z by its series, where the quotient loses digits


def harmonic_number(count: Scalar | Num[ArrayLike, "*batch"], exponent: Scalar) -> Float[Array, "*batch"]:
    """The generalised harmonic number H = sum_{j=1}^{count} j^(-exponent), continued to every count >= 0.

    Between the integers it is the one continuation with H(x) - H(x - 1) = x^(-exponent) that grows without waves: for
    the exponent 1 the digamma function of x + 1, up to a constant. It is 0 at 0, increases, and is concave. A sum of
    rates is sum_{t=a+1}^T c (t - a)^(-beta) = c H(T - a), differentiable in a, T, beta and c.

    Args:
        count: how many terms, any number >= 0, shape ``batch``; the derivative in it says what one step more adds.
        exponent: any number in [0, 2), 1 included.

    Returns:
        H, shape ``batch``, in the dtype of the arguments, whole numbers as floats; in float64 to 12 digits.

    Raises:
        ValueError: a count or an exponent that is negative, an exponent of 2 or more, while they are concrete.

    Example:
        >>> import jax
        >>> round(float(harmonic_number(4, 1)), 4), round(1 + 1 / 2 + 1 / 3 + 1 / 4, 4)
        (2.0833, 2.0833)
        >>> [round(float(harmonic_number(100, beta)), 3) for beta in (0, 0.5, 1.5)]
        [100.0, 18.59, 2.413]
        >>> f"{1 / 101**0.5:.4f} < {jax.grad(harmonic_number)(100.0, 0.5):.4f} < {1 / 100**0.5:.4f}"
        '0.0995 < 0.0998 < 0.1000'

    Source: Euler and Maclaurin's formula from ``SHIFT`` on, Olver et al., "NIST Handbook of Mathematical Functions",
    2010, 25.2.9; below it H(x) = H(x + 1) - (x + 1)^(-exponent).
    """
    check_array("count", count, "...")
    check_array("exponent", exponent, "")
    if (value := concrete(count)) is not None:
        check_positive("count", value, allow_zero=True)
    if (value := concrete(exponent)) is not None and not 0 <= value < 2:
        raise ValueError(f"exponent must lie in [0, 2), where the sum is exact to 12 digits, but it is {value}")
    dtype = _dtype(count, exponent)
    return _sum(jnp.asarray(count, dtype), jnp.asarray(exponent, dtype))


@jax.jit  # outside of a program its hundred operations would be one program each
def _sum(count: Float[Array, "*batch"], exponent: Float[Array, ""]) -> Float[Array, "*batch"]:
    first = jnp.arange(1, SHIFT + 1, dtype=count.dtype).reshape(*[1] * count.ndim, SHIFT)
    # Differences that vanish at 0, as the sum does, and add up to it while the terms are few.
    skipped = jnp.sum(first**-exponent - (jnp.expand_dims(count, -1) + first) ** -exponent, axis=-1)
    start = jnp.asarray(SHIFT, count.dtype)
    integral = start ** (1 - exponent) * _integral_of_power(jnp.log1p(count / start), 1 - exponent)
    return skipped + integral + _correction(count + start, exponent) - _correction(start, exponent)


def _dtype(*numbers: Any) -> np.dtype:
    """That of the floats among the numbers, or jax's default float."""
    floats = [x for x in numbers if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return np.dtype(jnp.result_type(*floats or [float]))


def _integral_of_power(log: Array, power: Array) -> Array:
    """(e^(power log) - 1) / power, the integral of x^(power - 1) from 1 to e^log; log itself where the power is 0."""
    z = power * log
    small = jnp.abs(z) < SMALL
    near = jnp.where(small, z, 0)
    series = jnp.ones_like(z)
    for n in range(NUM_TERMS, 1, -1):
        series = 1 + series * near / n
    far = jnp.where(small, 1, z)
    return log * jnp.where(small, series, jnp.expm1(far) / far)


def _correction(x: Array, exponent: Array) -> Array:
    """f / 2 + sum_k B_2k / (2k)! f^(2k-1) of f = x^(-exponent)."""
    # The derivatives over f, which are - exponent (exponent + 1) .. x^(1 - 2k).
    derivative, ratio = -exponent / x, jnp.asarray(0.5, x.dtype)
    for k, coefficient in enumerate(BERNOULLI, start=1):
        ratio = ratio + coefficient * derivative
        derivative = derivative * (exponent + 2 * k - 1) * (exponent + 2 * k) / x**2
    return ratio * x**-exponent
