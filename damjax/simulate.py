"""The scan driver: an algorithm over a stream of associations."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._checks import check_count, check_function, check_gates, check_instance
from damjax._types import Algorithm, ArrayLike, Associations, Info, concrete

Stream = Associations | Callable[[Int[Array, ""]], Associations]
Observer = Callable[[Array, Associations, Info], Any]


class Trace(NamedTuple):
    """What ``simulate`` records by default.

    Attributes:
        params: X_1..X_T, the memories before each step, (T, N, dv, df).
        info: diagnostics of each step, every field with a leading T.
    """

    params: Float[Array, "T N dv df"]
    info: Info


def record(params: Float[Array, "N dv df"], associations: Associations, info: Info) -> Trace:
    """The default observer: keep the memories and the diagnostics."""
    return Trace(params, info)


def simulate(
    algorithm: Algorithm,
    params: Float[ArrayLike, "N dv df"],
    associations: Stream,
    *,
    observe: Observer = record,
    num_steps: int | None = None,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Run an algorithm from the memories ``params`` over a stream.

    Args:
        algorithm: from ``damjax.ogd``, ``c_dogd`` or ``dam_togd``.
        params: X_1, (N, dv, df); its dtype is the dtype of the run.
        associations: the stream, every field with a leading T; or a function from the 1-based time t, a traced integer,
            to the associations of that step, which is called inside the scan so that no stream is ever stored.
        observe: ``observe(params before the step, associations of the step, info) -> pytree``, computed inside the scan
            and stacked over time. Long runs and sweeps observe numbers, not memories.
        num_steps: T; needed when ``associations`` is a function.
        checkpoint_every: for reverse-mode derivatives of long runs: keep the state every so many steps only, and make
            the steps between again on the way back (``jax.checkpoint``). About sqrt(T) needs the least memory, for one
            more forward run. The numbers are the same.
        unroll: steps in one turn of the compiled loop, as for ``jax.lax.scan``. Two spare XLA a copy of all memories in
            every step, which makes a large network a sixth faster; a small one gains nothing but compilation time.

    Returns:
        The final state, and what was observed, every leaf with a leading T (by default a Trace).

    Raises:
        ValueError: fields of unequal length, no num_steps for a function, shapes or dtypes that do not meet, gates
            outside of (0, 1].

    Warns:
        RuntimeWarning: a memory became NaN or infinite. Under jit and vmap nothing can be said at run time; look at
            ``info.finite`` there.

    Example:
        >>> import jax, damjax
        >>> stream, targets = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=30)
        >>> algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(2), learning_rate=0.2,
        ...     domain=damjax.domains.unconstrained())
        >>> state, norms = simulate(algorithm, jnp.zeros((2, 5, 5)), stream,
        ...     observe=lambda params, associations, info: info.grad_norm)
        >>> norms.shape, int(state.step)
        ((30, 2), 30)
    """
    _check_algorithm(algorithm)
    return _scan(algorithm, algorithm.init(params), associations, observe, num_steps, checkpoint_every, unroll)


def resume(
    algorithm: Algorithm,
    state: Any,
    associations: Stream,
    *,
    observe: Observer = record,
    num_steps: int | None = None,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Go on from a state: two halves, the second resumed from the first, equal the whole run.

    Args:
        algorithm: the one that made the state.
        state: what ``simulate`` or ``resume`` returned; it holds the messages under way.
        associations: the rest of the stream, or a function of the time, which goes on from ``state.step + 1``.
        observe: as for ``simulate``.
        num_steps: how many steps to make; needed when ``associations`` is a function.
        checkpoint_every: as for ``simulate``.
        unroll: as for ``simulate``.

    Returns:
        As ``simulate``.

    Example:
        >>> import jax, damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=30)
        >>> algorithm = damjax.ogd(damjax.objectives.delta_net(), jnp.eye(2), learning_rate=0.2,
        ...     domain=damjax.domains.unconstrained())
        >>> half, _ = simulate(algorithm, jnp.zeros((2, 5, 5)), jax.tree.map(lambda x: x[:15], stream))
        >>> state, _ = resume(algorithm, half, jax.tree.map(lambda x: x[15:], stream))
        >>> int(state.step)
        30
    """
    _check_algorithm(algorithm)
    if not (hasattr(state, "step") and hasattr(state, "params")):
        raise ValueError(f"state must be what simulate or resume returned first, but it is {type(state).__name__}")
    return _scan(algorithm, state, associations, observe, num_steps, checkpoint_every, unroll)


def _scan(
    algorithm: Algorithm,
    state: Any,
    associations: Stream,
    observe: Observer,
    num_steps: int | None,
    checkpoint_every: int | None,
    unroll: int,
) -> tuple[Any, Any]:
    check_count("unroll", unroll)
    if num_steps is not None:
        check_count("num_steps", num_steps)
    check_function("observe", observe, "params, associations, info", "leave it out to record memories and diagnostics")
    if callable(associations):
        if num_steps is None:
            raise ValueError("num_steps must be given when associations is a function of the time")
        check_function("associations", associations, "time", "it gives the associations of a step")
        read, slices = associations, None
    else:
        check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
        num_steps = _length(associations, num_steps)
        if associations.gates is not None and (gates := concrete(associations.gates)) is not None:
            check_gates("associations.gates", gates)
        read, slices = None, associations

    def body(state: Any, current: Any) -> tuple[Any, Any]:
        seen = current if read is None else read(state.step + 1)
        after, info = algorithm.step(state, seen)
        return after, observe(state.params, seen, info)

    scan = functools.partial(jax.lax.scan, body, unroll=unroll)
    if checkpoint_every is None:
        final, trace = scan(state, slices, length=num_steps)
    else:
        check_count("checkpoint_every", checkpoint_every)
        final, trace = _scan_in_segments(scan, state, slices, num_steps, checkpoint_every)
    _warn_if_not_finite(final.params)
    return final, trace


def _scan_in_segments(
    scan: Callable[..., tuple[Any, Any]], state: Any, slices: Any, num_steps: int, length: int
) -> tuple[Any, Any]:
    """``scan``, but it stores the carry at the segments' borders and makes the inside again when differentiated."""
    num_segments, rest = divmod(num_steps, length)
    whole = num_segments * length
    # Inside a scan nothing can be merged with the recomputation, so no barrier is needed.
    segment = jax.checkpoint(lambda carry, part: scan(carry, part, length=length), prevent_cse=False)
    parts = jax.tree.map(lambda x: x[:whole].reshape(num_segments, length, *x.shape[1:]), slices)
    state, trace = jax.lax.scan(segment, state, parts, length=num_segments)
    trace = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), trace)
    if rest:
        state, tail = scan(state, jax.tree.map(lambda x: x[whole:], slices), length=rest)
        trace = jax.tree.map(lambda *halves: jnp.concatenate(halves), trace, tail)
    return state, trace


def _check_algorithm(algorithm: Algorithm) -> None:
    """Raise unless it is a pair of functions, the library's own or another's."""
    if not (callable(getattr(algorithm, "init", None)) and callable(getattr(algorithm, "step", None))):
        raise ValueError(
            f"algorithm must have init and step, as what damjax.ogd(..) returns has, but it is {algorithm!r}"
        )


def _length(associations: Associations, num_steps: int | None) -> int:
    lengths = {name: jnp.shape(field)[0] for name, field in associations._asdict().items() if field is not None}
    if len(set(lengths.values())) > 1 or num_steps not in (None, lengths["keys"]):
        raise ValueError(
            f"every field of associations must have the same leading T, but they have {lengths}"
            + ("" if num_steps is None else f" and num_steps is {num_steps}")
        )
    return lengths["keys"]


def _warn_if_not_finite(params: Array) -> None:
    values = concrete(params)
    if values is None:
        return
    lost = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
    if lost.size:
        warnings.warn(
            f"the memories of agents {lost.tolist()} ended as NaN or infinity; likely a learning rate too large for an"
            f" unbounded domain, or a delay beyond max_delay. trace.info.finite tells since when",
            RuntimeWarning,
            stacklevel=4,
        )
