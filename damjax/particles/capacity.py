"""Limited capacity: two classes, one linear relation among the embeddings, and cross-entropy is not calibrated.

With z_x = s_x e_x and N = d + 1 tokens there is one relation sum_x lam_x z_x = 0. If all lam_x > 0, every memory has
sum_x lam_x m_x = 0: some token is wrong. The best memory gives up the rarest only; the minimiser of cross-entropy, of
which a closed form is known, may give up others as well.

Source: [LAM] sec. 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import root, softplus
from damjax._checks import check_array, check_positive, concrete
from damjax.particles._newton import convex_root
from damjax.particles.binary import signed_gram
from damjax.particles.problem import Problem
from damjax.types import ArrayLike

__all__ = ["Minimizer", "calibration_gap", "minimizer", "relation", "triangle"]


class Minimizer(NamedTuple):
    """The minimiser of cross-entropy.

    Attributes:
        margins: m_x, (N,); infinite where no token need be given up.
        loss: L, ().
        error_rate: L01, the frequencies of the wrong tokens, ().
        least_error_rate: of the best memory, ().
    """

    margins: Float[Array, "N"]
    loss: Float[Array, ""]
    error_rate: Float[Array, ""]
    least_error_rate: Float[Array, ""]


def relation(problem: Problem) -> Float[Array, "N"]:
    """lam, the relation sum_x lam_x s_x e_x = 0 of N = d + 1 tokens, with sum |lam| = 1 and sum lam >= 0.

    Args:
        problem: of two classes, whose input Gram matrix has rank N - 1.

    Raises:
        ValueError: more or fewer than two classes, no relation, more than one.

    Example:
        >>> from damjax.particles import one_hot
        >>> inputs = triangle(jnp.array([0.49, 0.41, 0.10]))
        >>> problem = Problem(inputs @ inputs.T, jnp.eye(2), jnp.array([0.5, 0.3, 0.2]), one_hot([0, 0, 0], 2))
        >>> print(np.asarray(relation(problem)).round(3))
        [0.49 0.41 0.1 ]
    """
    values, vectors = jnp.linalg.eigh(signed_gram(problem))
    eps = jnp.finfo(values.dtype).eps
    rounding = jnp.sqrt(eps)
    if (spectrum := concrete(values)) is not None and not (spectrum[0] < rounding * spectrum[-1] < spectrum[1]):
        raise ValueError(
            "problem must have exactly one linear relation among its input embeddings, N tokens in N - 1 dimensions,"
            f" but the lowest eigenvalues of its input_gram are {spectrum[:3]}"
        )
    null = vectors[:, 0]
    # Tokens that the relation leaves out have entries of the size of the rounding, with signs that say nothing.
    error = 10 * len(values) * eps * values[-1] / values[1]
    null = jnp.where(jnp.abs(null) > error * jnp.abs(null).max(), null, 0)
    return jnp.where(null.sum() < 0, -null, null) / jnp.abs(null).sum()


def minimizer(relation: Float[ArrayLike, "N"], frequencies: Float[ArrayLike, "N"]) -> Minimizer:
    """The minimiser of cross-entropy under sum_x lam_x m_x = 0:  p_x f(m_x) = kap lam_x, f(m) = 1 / (1 + e^m).

    kap solves sum_x lam_x log(p_x / (kap lam_x) - 1) = 0; token x is wrong iff kap lam_x / p_x >= 1/2. Tokens with
    lam_x = 0 are free, their margins infinite; so are all where lam has both signs: then the tokens are separable and
    the loss is zero.

    Args:
        relation: lam, (N,).
        frequencies: p > 0, (N,).

    Raises:
        ValueError: a frequency that is not positive, a relation that is not finite.

    Example:
        >>> best = minimizer(jnp.array([0.49, 0.41, 0.10]), jnp.array([0.5, 0.3, 0.2]))
        >>> print(np.asarray(best.margins).round(3), round(float(best.loss), 2))
        [ 0.196 -0.529  1.207] 0.65
        >>> round(float(best.error_rate), 3), round(float(best.least_error_rate), 3)
        (0.3, 0.2)
    """
    check_array("relation", relation, "N")
    check_array("frequencies", frequencies, "N")
    if (values := concrete(frequencies)) is not None:
        check_positive("frequencies", values)
    if (values := concrete(relation)) is not None and not np.all(np.isfinite(values)):
        raise ValueError(f"relation must be finite, but it is {values}")
    relation, frequencies = jnp.asarray(relation), jnp.asarray(frequencies)
    dtype = jnp.result_type(float, relation, frequencies)
    lam, p = jnp.asarray(relation, dtype), jnp.asarray(frequencies, dtype)
    # A traced NaN relates no tokens, and would pass for a loss of zero.
    zero_or_nan = jnp.sum(0 * lam) + jnp.sum(0 * p)
    return jax.tree.map(lambda field: field + zero_or_nan, _minimizer(lam, p))


@jax.jit
def _minimizer(lam: Array, p: Array) -> Minimizer:
    lam = jnp.where(lam.sum() < 0, -lam, lam)
    related = jnp.all(lam >= 0) & (lam > 0)
    # Where the relation has no token there is nothing to solve, but nothing may become NaN either.
    weights = jnp.where(related.any(), jnp.where(related, lam, 0), 1)
    # With rho_x >= 1 the ratio of p_x / lam_x to the smallest of them, m_x = log(rho_x - 1 + rho_x e^x): the weighted
    # sum of the margins is convex and increasing in x, and not negative at 0.
    ratio, beyond_one = p / jnp.where(related, lam, 1), (p - lam) / jnp.where(related, lam, 1)
    least = jnp.min(ratio, where=related, initial=jnp.inf)
    # Where lam is about p, only the distances of the ratios from 1 tell them apart.
    close = (jnp.abs(beyond_one) < 0.5) & (least > 0.5)
    ahead = jnp.where(close, beyond_one - jnp.min(beyond_one, where=related, initial=jnp.inf), ratio - least)
    apart = related & (ahead > 0)
    log_rest = jnp.where(apart, jnp.log(jnp.where(apart, ahead, 1)) - jnp.log(jnp.where(related, least, 1)), -jnp.inf)
    log_rho = jnp.logaddexp(0.0, log_rest)

    def margins_at(x: Array) -> Array:
        return jnp.logaddexp(log_rest, log_rho + x)

    shift = convex_root(lambda x: jnp.sum(weights * margins_at(x)), jnp.zeros((), lam.dtype))
    balanced = margins_at(shift)
    # The margin of a token that outweighs all others may be so close to 0 that only they tell its sign.
    heaviest = jax.nn.one_hot(jnp.argmax(weights), lam.size, dtype=bool)
    others = jnp.sum(jnp.where(heaviest, 0, weights / jnp.max(weights) * balanced))
    balanced = jnp.where(heaviest, -others, balanced)
    margins = jnp.where(related, balanced, jnp.inf)
    return Minimizer(
        margins=margins,
        loss=jnp.sum(p * jnp.where(related, softplus(-balanced), 0)),
        error_rate=jnp.sum(jnp.where(margins > 0, 0, p)),
        least_error_rate=jnp.where(related.any(), jnp.min(p, where=related, initial=jnp.inf), 0),
    )


def calibration_gap(relation: Float[ArrayLike, "N"], frequencies: Float[ArrayLike, "N"]) -> Float[Array, ""]:
    """How much more often the minimiser of cross-entropy is wrong than the best memory is; 0 where it is calibrated.

    Example:
        >>> round(float(calibration_gap(jnp.array([0.49, 0.41, 0.10]), jnp.array([0.5, 0.3, 0.2]))), 3)
        0.1
    """
    solution = minimizer(relation, frequencies)
    return solution.error_rate - solution.least_error_rate


def triangle(relation: Float[ArrayLike, "3"]) -> Float[Array, "3 2"]:
    """Three unit vectors of the plane with the relation sum_x lam_x z_x = 0, the first along the x axis.

    Args:
        relation: lam > 0, (3,), none above the sum of the other two.

    Raises:
        ValueError: no triangle has such sides.

    Example:
        >>> vectors = triangle(jnp.array([0.49, 0.41, 0.10]))
        >>> print(np.asarray(jnp.degrees(jnp.arctan2(vectors[:, 1], vectors[:, 0]))).round(2))
        [   0.    172.32 -146.8 ]
    """
    check_array("relation", relation, "...")
    if np.shape(relation) != (3,):
        raise ValueError(f"relation must have three entries, but its shape is {np.shape(relation)}")
    if (sides := concrete(relation)) is not None:
        sides = sides.astype(float)
        if not (np.all(sides > 0) and 2 * sides.max() <= sides.sum()):
            raise ValueError(f"relation must be the sides of a triangle, positive and none too long, but it is {sides}")
    a, b, c = jnp.asarray(relation)
    first = jnp.stack([jnp.ones_like(a), jnp.zeros_like(a)])
    return jnp.stack([first, _turned(a, b, c), _turned(a, c, b) * jnp.array([1, -1], a.dtype)])


def _turned(side: Array, next_side: Array, opposite: Array) -> Array:
    """The unit vector along the next side of a triangle whose first side lies along the x axis, (2,).

    By the tangent of half the angle between the two, which needs no squares of sides that nearly cancel. Source:
    Kahan, "Miscalculating area and angles of a needle-like triangle", 2014.
    """
    long, short = jnp.maximum(side, next_side), jnp.minimum(side, next_side)
    excess = jnp.where(short >= opposite, opposite - (long - short), short - (long - opposite))
    numerator = ((long - short) + opposite) * jnp.maximum(excess, 0)
    denominator = (long + (short + opposite)) * ((long - opposite) + short)
    sine = 2 * root(numerator) * root(denominator)
    return jnp.stack([numerator - denominator, sine]) / (numerator + denominator)
