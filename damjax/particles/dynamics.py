"""Training an associative memory: one step, one flow, one driver, for every memory and every source of data.

A ``Dynamics`` is data, as the algorithms of the library are: ``init``, ``step`` and ``scores``. What it sees at a step
is a Problem: the whole one, or a minibatch, which is a Problem with other frequencies (``damjax.particles.sampling``).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.ode import odeint
from jaxtyping import Array, Float, Int

from damjax._arrays import promoting
from damjax._checks import check_array, check_count, check_function, check_instance, check_positive, concrete
from damjax._scan import check_loop, scan, warn_if_not_finite
from damjax.particles.memories import Memory, check_memory, particle_system, velocity
from damjax.particles.problem import Problem, as_scores
from damjax.types import ArrayLike, LearningRate

__all__ = ["Dynamics", "State", "descent", "evolve", "flow", "simulate", "step"]

TOO_LARGE_A_STEP = "likely a step too large for a memory that is not linear in them"
Problems = Problem | Callable[[Int[Array, ""]], Problem]


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        params: of the memory, as its ``init`` made them.
        optimizer: the optimizer's own state; () for a flow.
        step: how many steps were made, ().
    """

    params: Any
    optimizer: Any
    step: Int[Array, ""]


class Dynamics(NamedTuple):
    """A way to train a memory, as three pure functions.

    Attributes:
        init: ``init(params) -> state``.
        step: ``step(state, problem) -> state``, a step on what the problem shows.
        scores: ``scores(state) -> (N, M)``, S at the state.
    """

    init: Callable[[Any], State]
    step: Callable[[State, Problem], State]
    scores: Callable[[State], Float[Array, "N M"]]


def descent(memory: Memory, optimizer: optax.GradientTransformation | LearningRate) -> Dynamics:
    """Discrete gradient descent, params <- params + optimizer(gradient of the loss).

    Args:
        memory: what is trained, from ``particle_system`` or one of the parameterisations.
        optimizer: any optax transformation; a number eta or an optax schedule stands for ``optax.sgd(eta)``. On the
            particle system only linear ones (momentum, schedules, decay of the weights) are those of the memory itself.

    Example:
        >>> import damjax.particles as particles
        >>> problem = particles.two_tokens(0.95, 0.75)
        >>> dynamics = descent(particle_system(2, 2), 10.0)
        >>> state = dynamics.step(dynamics.init(jnp.zeros((2, 2))), problem)
        >>> [round(float(x), 3) for x in particles.margins(dynamics.scores(state), problem)]
        [5.125, -4.625]

    Raises:
        ValueError: a step size that is negative or not finite, an optimizer that was not called.

    Source: [LAM] eq. (4), and the particle system of sec. 3.
    """
    check_memory(memory)
    if not isinstance(optimizer, optax.GradientTransformation):
        _check_rate("optimizer, a step size,", optimizer)
        if callable(optimizer) and isinstance(optimizer(1), optax.GradientTransformation):
            raise ValueError(f"optimizer must be made, as optax.sgd(0.1) is, but it is the factory {optimizer!r}")
        optimizer = optax.sgd(optimizer)  # pyright: ignore[reportArgumentType]

    def init(params: Any) -> State:
        params = jax.tree.map(jnp.asarray, params)
        return State(params, optimizer.init(params), jnp.zeros((), int))

    def step(state: State, problem: Problem) -> State:
        gradient = memory.gradient(state.params, problem)
        updates, memory_of_past = promoting(optimizer.update, gradient, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), memory_of_past, state.step + 1)

    return Dynamics(init, step, lambda state: memory.scores(state.params))


def flow(memory: Memory, duration: float | ArrayLike, *, tolerance: float | None = None) -> Dynamics:
    """Gradient flow, d params / dt = -gradient of the loss; one step integrates it over ``duration``.

    Derivatives go through it in reverse mode only, by the adjoint equation of ``jax.experimental.ode.odeint``.

    Args:
        memory: what is trained.
        duration: of one step, in units in which gradient descent makes steps of eta.
        tolerance: of the adaptive Runge-Kutta solver, relative and absolute; by default 1e-10 in float64 and 1e-6 in
            float32.

    Example:
        >>> import damjax.particles as particles
        >>> problem = particles.two_tokens(0.0, 0.5)
        >>> state, _ = evolve(flow(particle_system(2, 2), 1.0), jnp.zeros((2, 2)), problem, 4)
        >>> expected = particles.binary.flow_margins(0.0, 2 * 0.5, 4.0)
        >>> bool(abs(particles.margins(state.params, problem)[0] - expected) < 1e-4)
        True

    Source: [LAM] sec. 3.
    """
    check_memory(memory)
    for name, number in (("duration", duration), ("tolerance", tolerance)):
        if name == "tolerance" and number is None:
            continue
        check_array(name, number, "")
        if (value := concrete(number)) is not None:
            check_positive(name, value)

    def init(params: Any) -> State:
        return State(jax.tree.map(jnp.asarray, params), (), jnp.zeros((), int))

    def step(state: State, problem: Problem) -> State:
        dtype = jnp.result_type(*jax.tree.leaves(state.params))
        error = (1e-10 if dtype == jnp.float64 else 1e-6) if tolerance is None else tolerance
        times = jnp.stack([jnp.zeros((), dtype), jnp.asarray(duration, dtype)])

        def slope(params, _, problem):
            return jax.tree.map(jnp.negative, memory.gradient(params, problem))

        path = odeint(slope, state.params, times, problem.astype(dtype), rtol=error, atol=error)
        return State(jax.tree.map(lambda x: x[-1], path), (), state.step + 1)

    return Dynamics(init, step, lambda state: memory.scores(state.params))


def evolve(
    dynamics: Dynamics,
    params: Any,
    problem: Problems,
    num_steps: int,
    *,
    observe: Callable[[Float[Array, "N M"]], Any] = lambda scores: scores,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[State, Any]:
    """Train a memory and watch it: ``num_steps`` steps in one scan.

    Args:
        dynamics: from ``descent`` or ``flow``.
        params: the parameters before the first step, such as ``memory.init(key)``.
        problem: the same at every step; or a function from the 1-based time to the problem of that step, such as
            ``sampling.minibatches(key, problem, batch_size)``, called inside the scan.
        num_steps: T.
        observe: ``observe(scores) -> pytree``, at times 0..T; by default the scores themselves. Sweeps observe numbers.
        checkpoint_every: for reverse-mode derivatives of long runs, as for ``damjax.simulate``.
        unroll: steps in one turn of the compiled loop, as for ``damjax.simulate``.

    Returns:
        The final state, and what was observed, every leaf with a leading T + 1.

    Raises:
        ValueError: a number of steps that is not a positive integer, scores and problem that do not meet.

    Warns:
        RuntimeWarning: the parameters ended as NaN or infinity, as factors of W can at large steps. Under jit and vmap
            nothing can be said at run time; look at what was observed.

    Example:
        >>> import damjax.particles as particles
        >>> problem = particles.two_tokens(0.95, 0.75)
        >>> dynamics = descent(particle_system(2, 2), 10.0)
        >>> _, losses = evolve(dynamics, jnp.zeros((2, 2)), problem, 5, observe=lambda s: particles.loss(s, problem))
        >>> [round(float(x), 3) for x in losses]
        [0.693, 1.163, 0.498, 0.753, 0.644, 1.349]
    """
    check_count("num_steps", num_steps)
    check_loop(checkpoint_every, unroll)
    check_instance("dynamics", dynamics, Dynamics, "damjax.particles.descent(memory, optimizer) makes one")
    check_function("observe", observe, "scores", "leave it out to keep the scores")
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: leaf is None):
        check_array("params", leaf, "...")
    if callable(problem):
        check_function("problem", problem, "time", "a function of the time gives the problem of a step")
    at = problem if callable(problem) else lambda time: problem
    start = dynamics.init(params)
    # As the steps will see them, without computing anything.
    jax.eval_shape(lambda state: as_scores(dynamics.scores(state), at(state.step + 1)), start)

    def body(state: State, _: None) -> tuple[State, Any]:
        observed = observe(dynamics.scores(state))
        return dynamics.step(state, at(state.step + 1)), observed

    final, trace = scan(body, start, None, num_steps=num_steps, checkpoint_every=checkpoint_every, unroll=unroll)
    warn_if_not_finite(final.params, TOO_LARGE_A_STEP)
    last = observe(dynamics.scores(final))
    return final, jax.tree.map(lambda x, end: jnp.concatenate([x, jnp.asarray(end)[None]]), trace, last)


def step(scores: Float[ArrayLike, "N M"], problem: Problem, learning_rate: float | ArrayLike) -> Float[Array, "N M"]:
    """One step of the particle system, S <- S + eta A P (Y - softmax(S)) G: exact for gradient descent on W.

    Args:
        scores: S, (N, M).
        problem: A, G, p and Y.
        learning_rate: eta, ().

    Returns:
        S after the step, (N, M), in the dtype of the scores.

    Raises:
        ValueError: scores and problem that do not meet, a step size that is negative or not finite.

    Example:
        >>> import damjax.particles as particles
        >>> problem = particles.two_tokens(0.95, 0.75)
        >>> [round(float(x), 3) for x in particles.margins(step(jnp.zeros((2, 2)), problem, 10.0), problem)]
        [5.125, -4.625]

    Source: [LAM] sec. 3.
    """
    scores = as_scores(scores, problem)
    check_array("learning_rate", learning_rate, "")
    _check_rate("learning_rate", learning_rate)
    return scores + jnp.asarray(learning_rate, scores.dtype) * velocity(scores, problem)


def simulate(
    scores: Float[ArrayLike, "N M"],
    problem: Problem,
    learning_rate: float | ArrayLike,
    num_steps: int,
    *,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> Float[Array, "T1 N M"]:
    """The particle system's trajectory: S_0 .. S_T.

    Args:
        scores: S_0, (N, M).
        problem: A, G, p and Y.
        learning_rate: eta, ().
        num_steps: T; static under jit.
        checkpoint_every: for reverse-mode derivatives of long runs, as for ``damjax.simulate``.
        unroll: steps in one turn of the compiled loop, as for ``damjax.simulate``.

    Returns:
        (T + 1, N, M), the start included. ``evolve`` observes instead of storing, and takes minibatches and flows.

    Raises:
        ValueError: as ``step`` and ``evolve``.

    Example:
        >>> import damjax.particles as particles
        >>> simulate(jnp.zeros((2, 2)), particles.two_tokens(0.95, 0.75), 10.0, 100).shape
        (101, 2, 2)
    """
    check_array("learning_rate", learning_rate, "")
    _check_rate("learning_rate", learning_rate)
    check_count("num_steps", num_steps)
    check_loop(checkpoint_every, unroll)
    scores = as_scores(scores, problem)
    return _trajectory(scores, problem, jnp.asarray(learning_rate, scores.dtype), num_steps, checkpoint_every, unroll)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _trajectory(
    scores: Array, problem: Problem, learning_rate: Array, num_steps: int, checkpoint_every: int | None, unroll: int
) -> Array:
    dynamics = descent(particle_system(*scores.shape), learning_rate)
    return evolve(dynamics, scores, problem, num_steps, checkpoint_every=checkpoint_every, unroll=unroll)[1]


def _check_rate(name: str, rate: LearningRate) -> None:
    if callable(rate):
        check_function(name, rate, "count", "call the factory of a schedule or an optimizer")
        return
    if np.shape(rate) != ():
        raise ValueError(f"{name} must be one number, but its shape is {np.shape(rate)}; for many, use jax.vmap")
    if (value := concrete(rate)) is not None:
        check_positive(name, value, allow_zero=True)
