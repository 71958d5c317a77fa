"""Two classes: what theory says in closed form about margins, losses, interference and spikes.

With c = ||u_1 - u_2||^2, signs s_x = +-1 for the classes, K_xy = s_x s_y <e_x, e_y> and f(m) = 1 / (1 + e^m), the
particle system is a system of margins,

    m <- m + eta c K P f(m)     (flow: dm/dt = c K P f(m)).

Functions of numbers take arrays that broadcast as well; all may be vmapped and differentiated, and stand any step size
in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from damjax._types import ArrayLike
from damjax.particles._roots import convex_root
from damjax.particles.problem import Problem, labels

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
    gram = jnp.asarray(problem.output_gram)
    if gram.shape != (2, 2):
        raise ValueError(f"problem must have two classes, but its output_gram has shape {gram.shape}")
    return gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]


def flow_margins(start: Number, rate: Number, time: Number) -> Float[Array, "..."]:
    """Margins of orthogonal tokens under gradient flow: m + e^m = m_0 + e^{m_0} + a t, so m = C - LambertW(e^C).

    Discrete gradient descent is ahead of it at every step, whatever its step size.

    Args:
        start: m_0.
        rate: a = c p_x ||e_x||^2, times eta where t counts steps of gradient descent; positive.
        time: t >= 0.

    Returns:
        m(t), of the broadcast shape.

    Example:
        >>> m = flow_margins(0.0, 1.5, 10.0)
        >>> round(float(m), 4), round(float(m + jnp.exp(m)), 3)
        (2.5956, 16.0)

    Source: [LAM] sec. 3.
    """
    start, drive = jnp.broadcast_arrays(jnp.asarray(start, jnp.result_type(float, start)), jnp.asarray(rate) * time)
    # In the growth g = m - m_0, divided by 1 + e^{m_0}:  sigmoid(-m_0) g + sigmoid(m_0) (e^g - 1) = sigmoid(-m_0) a t.
    # The left side is convex and increasing, so Newton's steps fall to the root from either of its upper bounds.
    slow, log_fast = jax.nn.sigmoid(-start), jax.nn.log_sigmoid(start)

    def excess(growth):
        rise = jnp.where(
            growth < 1,
            jnp.exp(log_fast) * jnp.expm1(jnp.minimum(growth, 1)),
            jnp.exp(growth + log_fast) - jnp.exp(log_fast),
        )
        return slow * (growth - drive) + rise, slow + jnp.exp(growth + log_fast)

    tiny = jnp.finfo(drive.dtype).tiny
    upper = jnp.minimum(drive, jnp.logaddexp(0.0, jnp.log(jnp.maximum(drive, tiny)) - start))
    return start + convex_root(excess, upper)


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
    total = jnp.sum(1 / jnp.diagonal(problem.input_gram))
    return LOSS_CONSTANT * total / (learning_rate * output_distance(problem) * time)


def loss_limit(problem: Problem, learning_rate: Number) -> Float[Array, ""]:
    """lim t L_t = 1' K^{-1} 1 / (eta c), where K^{-1} 1 > 0 (``support``): every token holds its own.

    Example:
        >>> from damjax.particles import two_tokens
        >>> round(float(loss_limit(two_tokens(0.5, 0.75), 1.0)), 6)  # 2 / (1 + s alpha) / (eta c)
        2.0
    """
    return jnp.sum(support(problem)) / (learning_rate * output_distance(problem))


def support(problem: Problem) -> Float[Array, "N"]:
    """K^{-1} 1: what each token contributes in the logarithmic regime; the limits hold where all are positive.

    Example:
        >>> from damjax.particles import two_tokens
        >>> bool(jnp.allclose(support(two_tokens(0.5, 0.75)), 2.0))  # 1 / (1 + s alpha), s = -1
        True
    """
    gram = signed_gram(problem)
    return jnp.linalg.solve(gram, jnp.ones(len(gram), gram.dtype))


def margin_asymptote(problem: Problem, learning_rate: Number, time: Number) -> Float[Array, "N"]:
    """m_x(t) - log(eta c t p_x / (K^{-1} 1)_x) -> 0: margins grow as log t, and differ by logs of frequencies for ever.

    Example:
        >>> from damjax.particles import two_tokens
        >>> late = margin_asymptote(two_tokens(0.5, 0.75), 1.0, 1e6)
        >>> bool(jnp.allclose(late[0] - late[1], jnp.log(3.0)))
        True
    """
    return jnp.log(learning_rate * output_distance(problem) * time * problem.frequencies / support(problem))


def interferes(alpha: Number, same_class: bool, frequencies: Any, margins: Any) -> Bool[Array, ""]:
    """Whether the second token's margin falls: s alpha < 0 and |alpha| p_1 f(m_1) > p_2 f(m_2); unit norms.

    Args:
        alpha: <e_1, e_2>.
        same_class: s = +1, or s = -1.
        frequencies: p, (2,).
        margins: m, (2,).

    Example:
        >>> bool(interferes(0.95, False, [0.75, 0.25], [0.0, 0.0]))
        True
    """
    pull = jnp.asarray(frequencies) * jax.nn.sigmoid(-jnp.asarray(margins, float))
    opposed = jnp.asarray(alpha) * (1 if same_class else -1) < 0
    return opposed & (jnp.abs(jnp.asarray(alpha)) * pull[0] > pull[1])


def spike_threshold(alpha: Number, frequency: Number, output_distance: Number = 2.0) -> Float[Array, "..."]:
    """The step size eta at which one step from zero leaves the loss of two tokens of different classes at log 2.

        p_1 l(eta c (p_1 - alpha p_2) / 2) + p_2 l(eta c (p_2 - alpha p_1) / 2) = log 2,   l(m) = log(1 + e^-m)

    Larger steps make a loss spike at once.

    Args:
        alpha: <e_1, e_2> in [-1, 1], unit norms.
        frequency: p_1, of either token.
        output_distance: c.

    Returns:
        eta, or infinity where no step is too large: alpha <= min(p) / max(p).

    Example:
        >>> round(float(spike_threshold(0.95, 0.75)), 6)
        5.439203

    Source: [LAM] sec. 4.
    """
    dtype = jnp.result_type(float, alpha, frequency, output_distance)
    alpha, p, c = jnp.broadcast_arrays(*(jnp.asarray(x, dtype) for x in (alpha, frequency, output_distance)))
    p = jnp.maximum(p, 1 - p)
    frequent, rare = p - alpha * (1 - p), alpha * p - (1 - p)
    spikes = rare > 0
    pull = jnp.where(spikes, rare, 1.0)

    def excess(x):  # x = eta c / 2; convex, zero at zero where it falls, so its other root is the threshold
        value = p * jax.nn.softplus(-x * frequent) + (1 - p) * jax.nn.softplus(x * pull) - jnp.log(2.0).astype(dtype)
        slope = -p * frequent * jax.nn.sigmoid(-x * frequent) + (1 - p) * pull * jax.nn.sigmoid(x * pull)
        return value, slope

    # softplus(y) > y: here the rare token alone costs log 2.
    return jnp.where(spikes, 2 / c * convex_root(excess, jnp.log(2.0).astype(dtype) / ((1 - p) * pull)), jnp.inf)


def sharpness_at_zero(alpha: Number, frequency: Number, output_distance: Number = 2.0) -> Float[Array, "..."]:
    """Largest Hessian eigenvalue of two unit tokens at W = 0: (c / 8) (1 + sqrt(1 - 4 p_1 p_2 (1 - alpha^2))).

    Example:
        >>> round(float(sharpness_at_zero(0.95, 0.75)), 4)
        0.4907
    """
    frequency = jnp.asarray(frequency)
    spread = 1 - 4 * frequency * (1 - frequency) * (1 - jnp.asarray(alpha) ** 2)
    return jnp.asarray(output_distance) / 8 * (1 + jnp.sqrt(spread))


def sharpness(margins: Float[ArrayLike, "N"], problem: Problem) -> Float[Array, ""]:
    """Largest Hessian eigenvalue at given margins: c times that of D A D, D^2 = diag(p f(m) f(-m)).

    Example:
        >>> from damjax.particles import two_tokens
        >>> round(float(sharpness(jnp.zeros(2), two_tokens(0.95, 0.75))), 4)
        0.4907
    """
    scale = jnp.sqrt(problem.frequencies * jax.nn.sigmoid(margins) * jax.nn.sigmoid(-jnp.asarray(margins)))
    return output_distance(problem) * jnp.linalg.eigvalsh(scale[:, None] * problem.input_gram * scale[None, :])[-1]
