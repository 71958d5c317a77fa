"""The laws of algorithms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import check_instance
from damjax.simulation import resume, simulate
from damjax.testing.comparing import cast, check_parameters, check_same, digits, dtypes, require
from damjax.types import Algorithm, Associations

__all__ = ["check_algorithm"]

MIN_STEPS = 4
SHARE = 2 / 3  # of the digits, in which runs that are made in several ways agree
NUDGE = 1e-6  # of the memories, for a difference quotient in float64
SLOPE_TOLERANCE = 1e-4  # what it is right to


def check_algorithm(algorithm: Algorithm, params: Any, associations: Associations) -> None:
    """Raise where an algorithm breaks a law that ``simulate``, ``resume``, sweeps or derivatives rely on.

    ``init`` makes a state with ``params`` X_1 and ``step`` 0; ``step`` counts, keeps structure, shapes and dtypes,
    computes the same under jit, scan and vmap, is not compiled again for its own output, gives the same for the same
    state and associations (all that it remembers is in the state), reports memories that are not finite, can go on from
    a state that was stored, and is differentiable in the memories.

    Args:
        algorithm: a ``damjax.Algorithm``.
        params: memories to start from, one per agent, (N, dv, df) or any pytree of arrays with a leading N.
        associations: a short stream for them, every field with a leading T >= 4, T odd or even; longer than the longest
            delay, so that everything happens.

    Raises:
        ValueError: the law that is broken, the numbers and the likely fix.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=6)
        >>> algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(2), learning_rate=0.1,
        ...     domain=damjax.domains.frobenius_ball(2.0))
        >>> check_algorithm(algorithm, jnp.zeros((2, 5, 5)), stream)
        >>> check_algorithm(algorithm._replace(step=lambda state, now: (state, None)), jnp.zeros((2, 5, 5)), stream)
        Traceback (most recent call last):
        ValueError: algorithm.step must count its steps in state.step, but after 1 it is 0; ...
    """
    check_instance("algorithm", algorithm, Algorithm, "give a pair of functions, damjax.Algorithm(init, step)")
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    check_parameters("params", params)
    num_steps = np.shape(associations.keys)[0]
    require(
        num_steps >= MIN_STEPS,
        f"associations must have at least {MIN_STEPS} steps",
        f"they have {num_steps}",
        "give a longer stream, with a leading T",
    )
    for dtype in dtypes():
        start, stream = cast((params, associations), dtype)
        _check_init(algorithm, start)
        states = _check_steps(algorithm, start, stream)
        if dtype == dtypes()[-1]:
            # Numbers are compared in the widest of the precisions alone.
            _check_finite(algorithm, start, stream)
            _check_pure(algorithm, start, stream, states)
            _check_runs(algorithm, start, stream, states[-1])
            _check_slopes(algorithm, start, stream)


def _at(stream: Associations, time: int) -> Associations:
    return jax.tree.map(lambda field: field[time], stream)


def _check_init(algorithm: Algorithm, start: Any) -> None:
    state = algorithm.init(start)
    for field in ("params", "step"):
        require(
            hasattr(state, field),
            "algorithm.init must give a state with params and step",
            f"{type(state).__name__} has no {field}",
            "make it a NamedTuple with these fields",
        )
    check_same(
        "algorithm.init must give a state whose params are the memories it was given, X_1",
        "project in step, not in init",
        state.params,
        start,
    )
    require(
        jnp.shape(state.step) == () and int(state.step) == 0,
        "algorithm.init must give a state with step 0, one number",
        f"it is {state.step}",
        "start with jnp.zeros((), jnp.int32)",
    )


def _check_steps(algorithm: Algorithm, start: Any, stream: Associations) -> list[Any]:
    """States before the first step and after every one, from a loop of compiled steps."""
    num_traces = 0

    def counting(state: Any, now: Associations) -> Any:
        nonlocal num_traces
        num_traces += 1
        return algorithm.step(state, now)

    compiled = jax.jit(counting)
    state = algorithm.init(start)
    states = [state]
    num_agents = jax.tree.leaves(start)[0].shape[0]
    for time in range(1, len(stream.keys) + 1):
        state, info = compiled(state, _at(stream, time - 1))
        require(
            int(state.step) == time,
            "algorithm.step must count its steps in state.step",
            f"after {time} it is {state.step}",
            "return a state with step + 1",
        )
        require(
            int(info.time) == time,
            "algorithm.step must say in info.time which step it made, 1-based",
            f"in step {time} it says {info.time}",
            "that is state.step + 1",
        )
        require(
            jnp.shape(info.finite) == (num_agents,) and info.finite.dtype == bool,
            "algorithm.step must say in info.finite of every agent whether its memory is finite",
            f"it is {info.finite}",
            f"one boolean per agent, ({num_agents},)",
        )
        fix = "fix every dtype and shape in init, and cast what depends on the step's count to the dtype of params"
        check_same(
            "algorithm.step must keep structure, shapes and dtypes of the state",
            fix,
            *(jax.tree.map(jnp.zeros_like, either) for either in (states[0], state)),
        )
        states.append(state)
    require(
        num_traces == 1,
        "algorithm.step must compile once, and take its own output without compiling again",
        f"{len(stream.keys)} steps traced it {num_traces} times",
        "let init give arrays of a strong dtype, jnp.asarray(x, dtype), and no Python numbers",
    )
    return states


def _check_pure(algorithm: Algorithm, start: Any, stream: Associations, states: list[Any]) -> None:
    """The first steps without compilation, the very first one twice."""
    law = "algorithm.step must be pure: the same state and associations give the same"
    fix = "keep in the state all that a step remembers, and draw no random numbers"
    first = algorithm.init(start)
    before = jax.tree.map(np.array, first)
    with jax.disable_jit():
        once, once_info = algorithm.step(first, _at(stream, 0))
        twice, _ = algorithm.step(once, _at(stream, 1))
        again, again_info = algorithm.step(first, _at(stream, 0))
    # A GPU adds up what arrives in one step in no fixed order: the same but for rounding.
    rounding = 0.0 if jax.default_backend() == "cpu" else digits(stream.keys.dtype, SHARE)
    check_same(law, fix, (once, once_info), (again, again_info), rounding)
    check_same("algorithm.step must not change the state it is given", "return a new one", before, first)
    check_same("algorithm.init must be pure: the same memories give the same", fix, first, algorithm.init(start))
    law = "algorithm.step must compute the same under jax.jit as without"
    fix = "let no Python branch or counter depend on values"
    check_same(law, fix, [once, twice], states[1:3], digits(stream.keys.dtype, SHARE))


def _check_runs(algorithm: Algorithm, start: Any, stream: Associations, last: Any) -> None:
    """Scanned, cut and resumed, and mapped over several."""
    tolerance = digits(stream.keys.dtype, SHARE)
    fix = "keep in the state all that a step remembers"
    whole, trace = simulate(algorithm, start, stream)
    check_same("simulate must end where a loop over algorithm.step does", fix, whole, last, tolerance)

    middle = len(stream.keys) // 2
    first, second = (
        jax.tree.map(lambda x, part=part: x[part], stream) for part in (slice(middle), slice(middle, None))
    )
    half, _ = simulate(algorithm, start, first)
    # As from a file.
    stored = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), half)
    resumed, _ = resume(algorithm, stored, second)
    check_same("resume from the middle of a run must end where the whole run does", fix, resumed, whole, tolerance)

    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), start)
    streams = jax.tree.map(lambda field: jnp.stack([field, field[::-1]]), stream)
    together = jax.vmap(lambda params, stream: simulate(algorithm, params, stream)[1].params)(starts, streams)
    other = simulate(algorithm, *jax.tree.map(lambda leaf: leaf[1], (starts, streams)))[1].params
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), trace.params, other)
    law = "runs under jax.vmap must be the same as each by itself"
    check_same(law, "let no Python branch depend on values", together, alone, tolerance)


def _check_finite(algorithm: Algorithm, start: Any, stream: Associations) -> None:
    """With an association of the first agent that is NaN."""
    spoiled = stream._replace(values=jnp.asarray(stream.values).at[1, 0].set(jnp.nan))
    state, step = algorithm.init(start), jax.jit(algorithm.step)
    for time in range(len(stream.keys)):
        state, info = step(state, _at(spoiled, time))
        leaves = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(state.params)]
        finite = np.all(np.isfinite(np.concatenate(leaves, axis=1)), axis=1)
        require(
            np.array_equal(finite, info.finite),
            "algorithm.step must say in info.finite which memories are finite after it",
            f"after step {time + 1} they are {finite.tolist()} and it says {np.asarray(info.finite).tolist()}",
            "look at the memories that the step returns",
        )


def _check_slopes(algorithm: Algorithm, start: Any, stream: Associations) -> None:
    """The derivative of a whole run in the size of the first memories, in both modes."""
    dtype = stream.keys.dtype

    def size(scale: Any) -> jax.Array:
        moved = jax.tree.map(lambda leaf: leaf + scale * jnp.ones_like(leaf), start)
        after = simulate(algorithm, moved, stream)[0].params
        return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(after)]))

    at = jnp.asarray(0.01, dtype)
    slopes = [float(jax.grad(size)(at)), float(jax.jacfwd(size)(at))]
    law = "a run must be differentiable in the memories it starts from"
    fix = "norms and roots need a slope where they are 0: optax.safe_norm has one"
    require(np.all(np.isfinite(slopes)), law, f"jax.grad gives {slopes[0]} and jax.jacfwd {slopes[1]}", fix)
    if dtype == jnp.float64:
        slopes.append(float(size(at + NUDGE) - size(at - NUDGE)) / (2 * NUDGE))
    spread = max(slopes) - min(slopes)
    require(
        spread <= max(SLOPE_TOLERANCE, digits(dtype)) * max(1.0, *map(abs, slopes)),
        "derivatives of a run must be right in both modes",
        f"jax.grad, jax.jacfwd and, in float64, a difference quotient give {slopes}",
        "stop no gradient, and round nothing",
    )
