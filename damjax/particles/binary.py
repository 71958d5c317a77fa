"""Two classes: what theory says in closed form about margins, losses, interference and spikes.

With c = ||u_1 - u_2||^2, signs s_x = +-1 for the classes, K_xy = s_x s_y <e_x, e_y> and f(m) = 1 / (1 + e^m), the
particle system is a system of margins,

    m <- m + eta c K P f(m)     (flow: dm/dt = c K P f(m)).

Functions of numbers take arrays that broadcast as well; all may be vmapped and differentiated, twice too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from damjax._arrays import product, root, sigmoid
from damjax._checks import check_array, check_between, check_positive, concrete
from damjax.particles._newton import convex_root
from damjax.particles.problem import Problem, check_problem, labels
from damjax.types import ArrayLike

__all__ = [
    "flow_loss_bound",
    "flow_margins",
    "interferes",
    "loss_limit",
    "margin_asymptote",
    "output_distance",
    "sharpness",
    "sharpness_at_zero",
    "signed_gram",
    "spike_threshold",
    "support",
]

Number = float | int | ArrayLike
# max over x > 0 of x log(1 + 1 / e^m) where m + e^m = 1 + x: the flow's loss at m_0 = 0, times eta c p ||e||^2 t.
LOSS_CONSTANT = 1.0795


def signed_gram(problem: Problem) -> Float[Array, "N N"]:
    """K = s s' * A, with s_x = +1 for the first class and -1 for the second.

    Example:
        >>> from damjax.particles import two_tokens
        >>> signed_gram(two_tokens(0.5, 0.75)).tolist()
        [[1.0, -0.5], [-0.5, 1.0]]
    """
    _check_two_classes(problem)
    signs = 1 - 2 * labels(problem).astype(jnp.asarray(problem.input_gram).dtype)
    return signs[:, None] * problem.input_gram * signs[None, :]


def output_distance(problem: Problem) -> Float[Array, ""]:
    """c = ||u_1 - u_2||^2, the squared distance of the two output embeddings.

    Raises:
        ValueError: more or fewer than two classes.

    Example:
        >>> from damjax.particles import two_tokens
        >>> float(output_distance(two_tokens(0.5, 0.75)))
        2.0
    """
    _check_two_classes(problem)
    gram = jnp.asarray(problem.output_gram)
    # Differences of outputs that nearly coincide are exact, their sum beside 2 is not.
    return (gram[0, 0] - gram[0, 1]) + (gram[1, 1] - gram[0, 1])


def _check_two_classes(problem: Problem) -> None:
    check_problem(problem)
    if (shape := np.shape(problem.output_gram)) != (2, 2):
        raise ValueError(f"problem must have two classes, but its output_gram has shape {shape}")


def _check_numbers(**numbers: Number) -> None:
    for name, number in numbers.items():
        check_array(name, number, "...")
        if isinstance(number, (list, tuple)):
            raise ValueError(
                f"{name} must be a number or an array, but it is a {type(number).__name__}; use numpy.array"
            )


def flow_margins(start: Number, rate: Number, time: Number) -> Float[Array, "..."]:
    """Margins of orthogonal tokens under gradient flow: m + e^m = m_0 + e^{m_0} + a t, so m = C - LambertW(e^C).

    Discrete gradient descent is ahead of it at every step, whatever its step size.

    Args:
        start: m_0.
        rate: a = c p_x ||e_x||^2, times eta where t counts steps of gradient descent; not negative.
        time: t >= 0; a t must be within the range of the precision.

    Returns:
        m(t), of the broadcast shape.

    Example:
        >>> m = flow_margins(0.0, 1.5, 10.0)
        >>> round(float(m), 4), round(float(m + jnp.exp(m)), 3)
        (2.5956, 16.0)

    Source: [LAM] sec. 3.
    """
    _check_numbers(start=start, rate=rate, time=time)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(float, start, rate, time)
    start, rate, time = jnp.broadcast_arrays(*(jnp.asarray(x, dtype) for x in (start, rate, time)))
    return _flow_margins(start, rate * time)


@jax.jit
def _flow_margins(start: Array, drive: Array) -> Array:
    # In the growth g = m - m_0, divided by 1 + e^{m_0}:  sigmoid(-m_0) g + sigmoid(m_0) (e^g - 1) = sigmoid(-m_0) a t.
    # The left side is convex and increasing, and either of its terms alone gives an upper bound on the root.
    slow, log_fast = jax.nn.sigmoid(-start), jax.nn.log_sigmoid(start)

    def excess(growth: Array) -> Array:
        small = jnp.exp(log_fast) * jnp.expm1(jnp.minimum(growth, 1))
        large = jnp.exp(jnp.maximum(growth, 1) + log_fast) - jnp.exp(log_fast)
        return slow * (growth - drive) + jnp.where(growth < 1, small, large)

    log_drive = jnp.log(jnp.maximum(drive, jnp.finfo(drive.dtype).tiny))
    return start + convex_root(excess, jnp.minimum(drive, jnp.logaddexp(0.0, log_drive - start)))


def flow_loss_bound(problem: Problem, learning_rate: Number, time: Number) -> Float[Array, "..."]:
    """L <= 1.0795 sum_x 1 / (eta c ||e_x||^2 t) for orthogonal tokens started at zero, t >= 1, flow or discrete.

    Args:
        problem: of two classes, with orthogonal input embeddings.
        learning_rate: eta; 1 for the flow.
        time: t.

    Example:
        >>> from damjax.particles import two_tokens
        >>> round(float(flow_loss_bound(two_tokens(0.0, 0.75), 1.0, 10.0)), 5)
        0.10795
    """
    _check_two_classes(problem)
    _check_numbers(learning_rate=learning_rate, time=time)
    inverse_squares = jnp.sum(1 / jnp.diagonal(problem.input_gram))
    drive = learning_rate * output_distance(problem) * jnp.asarray(time, inverse_squares.dtype)
    return LOSS_CONSTANT * inverse_squares / drive


def loss_limit(problem: Problem, learning_rate: Number) -> Float[Array, ""]:
    """lim t L_t = 1' K^{-1} 1 / (eta c), where K^{-1} 1 > 0 (``support``) and every frequency is positive.

    Example:
        >>> from damjax.particles import two_tokens
        >>> round(float(loss_limit(two_tokens(0.5, 0.75), 1.0)), 6)  # 2 / (1 + s alpha) / (eta c)
        2.0
    """
    _check_numbers(learning_rate=learning_rate)
    return jnp.sum(support(problem)) / (learning_rate * output_distance(problem))


def support(problem: Problem) -> Float[Array, "N"]:
    """K^{-1} 1: what each token contributes in the logarithmic regime; the limits hold where all are positive.

    Where tokens coincide, K is singular and the least of the solutions is meant, as in the limit; infinite where there
    is none, as of tokens that only undo each other. No derivatives there.

    Example:
        >>> from damjax.particles import two_tokens
        >>> bool(jnp.allclose(support(two_tokens(0.5, 0.75)), 2.0))  # 1 / (1 + s alpha), s = -1
        True
    """
    gram = signed_gram(problem)
    ones, fixed = jnp.ones(len(gram), gram.dtype), jax.lax.stop_gradient(gram)
    sizes = jnp.abs(jnp.linalg.eigvalsh(fixed))
    rounding = len(gram) * float(jnp.finfo(gram.dtype).eps)
    singular = jnp.min(sizes) <= rounding * jnp.max(sizes)
    least = product(jnp.linalg.pinv(fixed, rtol=rounding), ones)
    solvable = jnp.linalg.norm(product(fixed, least) - ones) <= 100 * rounding * jnp.linalg.norm(ones)
    regular = jnp.linalg.solve(jnp.where(singular, jnp.eye(len(gram), dtype=gram.dtype), gram), ones)
    return jnp.where(singular, jnp.where(solvable, least, jnp.inf), regular)


def margin_asymptote(problem: Problem, learning_rate: Number, time: Number) -> Float[Array, "N"]:
    """m_x(t) - log(eta c t p_x / (K^{-1} 1)_x) -> 0: margins grow as log t, and differ by logs of frequencies for ever.

    Example:
        >>> from damjax.particles import two_tokens
        >>> late = margin_asymptote(two_tokens(0.5, 0.75), 1.0, 1e6)
        >>> bool(jnp.allclose(late[0] - late[1], jnp.log(3.0)))
        True
    """
    _check_numbers(learning_rate=learning_rate, time=time)
    distance, frequencies = output_distance(problem), jnp.asarray(problem.frequencies)
    # Logarithm by logarithm: no product of times and step sizes leaves the range of the precision.
    drive = sum(jnp.log(jnp.asarray(factor, distance.dtype)) for factor in (learning_rate, distance, time))
    return drive + jnp.log(frequencies) - jnp.log(support(problem))


def interferes(alpha: Number, same_class: bool, frequencies: Any, margins: Any) -> Bool[Array, "..."]:
    """Whether the second token's margin falls: s alpha < 0 and |alpha| p_1 f(m_1) > p_2 f(m_2); unit norms.

    Args:
        alpha: <e_1, e_2>.
        same_class: s = +1, or s = -1.
        frequencies: p, (..., 2).
        margins: m, (..., 2).

    Example:
        >>> bool(interferes(0.95, False, [0.75, 0.25], [0.0, 0.0]))
        True
    """
    _check_numbers(alpha=alpha)
    check_array("frequencies", frequencies, "...")
    check_array("margins", margins, "...")
    # In logarithms, since f(m) of a sure memory is below the least number of the precision.
    pull = jnp.log(jnp.asarray(frequencies)) + jax.nn.log_sigmoid(-1.0 * jnp.asarray(margins))
    opposed = jnp.asarray(alpha) * (1 if same_class else -1) < 0
    return opposed & (jnp.log(jnp.abs(jnp.asarray(alpha))) + pull[..., 0] > pull[..., 1])


def spike_threshold(alpha: Number, frequency: Number, output_distance: Number = 2.0) -> Float[Array, "..."]:
    """The step size eta at which one step from zero leaves the loss of two tokens of different classes at log 2.

        p_1 l(eta c (p_1 - alpha p_2) / 2) + p_2 l(eta c (p_2 - alpha p_1) / 2) = log 2,   l(m) = log(1 + e^-m)

    Larger steps make a loss spike at once.

    Args:
        alpha: <e_1, e_2> in [-1, 1], unit norms.
        frequency: p_1 in [0, 1], of either token.
        output_distance: c > 0.

    Returns:
        eta, or infinity where no step is too large: alpha <= min(p) / max(p).

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> round(float(spike_threshold(0.95, 0.75)), 6)
        5.439203

    Source: [LAM] sec. 4.
    """
    _check_numbers(alpha=alpha, frequency=frequency, output_distance=output_distance)
    for name, number, least in (("alpha", alpha, -1.0), ("frequency", frequency, 0.0)):
        if (values := concrete(number)) is not None:
            check_between(name, values, least, 1.0)
    if (values := concrete(output_distance)) is not None:
        check_positive("output_distance", values)
    dtype = jnp.result_type(float, alpha, frequency, output_distance)
    numbers = (jnp.asarray(x, dtype) for x in (alpha, frequency, output_distance))
    return _spike_threshold(*jnp.broadcast_arrays(*numbers))


@jax.jit
def _spike_threshold(alpha: Array, p: Array, c: Array) -> Array:
    # In the rarer token's frequency, which is exact however small; that of the other is 1 to rounding.
    q = jnp.minimum(p, 1 - p)
    frequent, rare = 1 - q * (1 + alpha), alpha - q * (1 + alpha)
    spikes = (rare > 0) & (q > 0)
    q, pull = jnp.where(spikes, q, 0.25), jnp.where(spikes, rare, 1.0)
    fall = (1 - 2 * q) ** 2 + 2 * (1 - alpha) * q * (1 - q)
    log_two = jnp.log(2.0).astype(q.dtype)

    def excess(x: Array) -> Array:
        # x = eta c / 2. The loss less log 2: convex, zero at zero where it falls, so that its other root is the
        # threshold. Near zero with log(1 + e^y) = log 2 + y / 2 + log cosh(y / 2), far from it as it stands, so that
        # nothing cancels.
        near = (1 - q) * _log_cosh(x * frequent / 2) + q * _log_cosh(x * pull / 2) - x * fall / 2
        far = (1 - q) * jnp.log1p(jnp.exp(-x * frequent)) + q * (x * pull + jnp.log1p(jnp.exp(-x * pull))) - log_two
        return jnp.where(x * fall < 1, near, far)

    # Here the rare token alone costs log 2.
    root_above_zero = convex_root(excess, log_two / (q * pull))
    # A NaN that is traced spikes nowhere, and would pass for a threshold of infinity.
    zero_or_nan = 0 * (alpha + p + c)
    return jnp.where(spikes, 2 / c * root_above_zero, jnp.inf) + zero_or_nan


def _log_cosh(z: Array) -> Array:
    small = jnp.clip(z, -1, 1)
    large = jnp.maximum(jnp.abs(z), 1)
    near = 0.5 * jnp.log1p(jnp.sinh(small) ** 2)
    return jnp.where(jnp.abs(z) < 1, near, large + jnp.log1p(jnp.exp(-2 * large)) - jnp.log(2.0).astype(z.dtype))


def sharpness_at_zero(alpha: Number, frequency: Number, output_distance: Number = 2.0) -> Float[Array, "..."]:
    """Largest Hessian eigenvalue of two unit tokens at W = 0: (c / 8) (1 + sqrt(1 - 4 p_1 p_2 (1 - alpha^2))).

    Example:
        >>> round(float(sharpness_at_zero(0.95, 0.75)), 4)
        0.4907
    """
    _check_numbers(alpha=alpha, frequency=frequency, output_distance=output_distance)
    alpha, frequency = jnp.broadcast_arrays(jnp.asarray(alpha), jnp.asarray(frequency))
    # 1 - 4 p_1 p_2 (1 - alpha^2), without the cancellation.
    spread = (1 - 2 * frequency) ** 2 + 4 * frequency * (1 - frequency) * alpha**2
    return jnp.asarray(output_distance) / 8 * (1 + root(spread))


def sharpness(margins: Float[ArrayLike, "N"], problem: Problem) -> Float[Array, ""]:
    """Largest Hessian eigenvalue at given margins: c times that of D A D, D^2 = diag(p f(m) f(-m)).

    Example:
        >>> from damjax.particles import two_tokens
        >>> round(float(sharpness(jnp.zeros(2), two_tokens(0.95, 0.75))), 4)
        0.4907
    """
    _check_two_classes(problem)
    check_array("margins", margins, "N")
    margins = jnp.asarray(margins)
    scale = root(jnp.asarray(problem.frequencies)) * root(sigmoid(margins)) * root(sigmoid(-margins))
    return output_distance(problem) * jnp.linalg.eigvalsh(scale[:, None] * problem.input_gram * scale[None, :])[-1]
