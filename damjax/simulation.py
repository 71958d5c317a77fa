"""A run: an algorithm over a stream of associations, from the first memories or from any state."""

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from damjax._checks import check_count, check_function, check_instance
from damjax._scan import check_loop, scan, warn_if_not_finite
from damjax.types import Algorithm, Associations, Info, Memories, Observer, Stream, check_ranges

__all__ = ["Trace", "record", "resume", "simulate"]


# As for ``Memories``.
if TYPE_CHECKING:
    History: TypeAlias = Any
else:
    History = PyTree[Float[Array, "T N ..."]]


class Trace(NamedTuple):
    """What ``simulate`` records by default.

    Attributes:
        params: X_1..X_T, the memories before each step, (T, N, dv, df); of memories that are trees, the tree with
            leaves (T, N, ...).
        info: diagnostics of each step, every field with a leading T.
    """

    params: History
    info: Info


def record(params: Memories, associations: Associations, info: Info) -> Trace:
    """The default observer: keep the memories and the diagnostics.

    Example:
        >>> import damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=9)
        >>> ball, delta = damjax.domains.frobenius_ball(9.0), damjax.objectives.delta_net()
        >>> algorithm = damjax.ogd(delta, jnp.eye(2), learning_rate=0.1, domain=ball)
        >>> _, trace = simulate(algorithm, jnp.zeros((2, 5, 5)), stream, observe=record)
        >>> trace.params.shape
        (9, 2, 5, 5)
    """
    return Trace(params, info)


def simulate(
    algorithm: Algorithm,
    params: Memories,
    associations: Stream,
    *,
    observe: Observer = record,
    num_steps: int | None = None,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Run an algorithm from the memories ``params`` over a stream.

    Args:
        algorithm: from ``damjax.ogd``, ``c_dogd`` or ``dam_togd``, or an ``Algorithm`` of your own.
        params: X_1, (N, dv, df); its dtype is the dtype of the run. Where the algorithm learns memories that are trees,
            a tree of arrays that all start with the axis of the N agents.
        associations: the stream, every field with a leading T; or a function from the 1-based time t, a traced integer,
            to the associations of that step, which is called inside the scan so that no stream is ever stored.
        observe: ``observe(params before the step, associations of the step, info) -> pytree``, computed inside the scan
            and stacked over time; it sees the memories as the array or the tree that they are. Long runs and sweeps
            observe numbers, not memories.
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
            outside of (0, 1], sample weights that are negative or not finite, memories without a common axis of agents.

    Warns:
        RuntimeWarning: the memories of some agents, whom it names, ended as NaN or infinity. Under jit and vmap
            nothing can be said at run time; look at ``info.finite`` there.

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
    return _run(algorithm, algorithm.init(params), associations, observe, num_steps, checkpoint_every, unroll)


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
    return _run(algorithm, state, associations, observe, num_steps, checkpoint_every, unroll)


def _run(
    algorithm: Algorithm,
    state: Any,
    associations: Stream,
    observe: Observer,
    num_steps: int | None,
    checkpoint_every: int | None,
    unroll: int,
) -> tuple[Any, Any]:
    check_loop(checkpoint_every, unroll)
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
        check_ranges("associations.", associations)
        read, slices = None, associations

    _check_agents(state.params)

    def step(state: Any, current: Any) -> tuple[Any, Any]:
        current = current if read is None else read(state.step + 1)
        after, info = algorithm.step(state, current)
        return after, observe(state.params, current, info)

    final, trace = scan(step, state, slices, num_steps=num_steps, checkpoint_every=checkpoint_every, unroll=unroll)
    warn_if_not_finite(
        final.params,
        "likely a learning rate too large for an unbounded domain, or a delay beyond max_delay. trace.info.finite tells"
        " since when",
        per_agent=True,
        stacklevel=4,
    )
    return final, trace


def _check_algorithm(algorithm: Algorithm) -> None:
    """Raise unless it is a pair of functions, the library's own or another's."""
    if not (callable(getattr(algorithm, "init", None)) and callable(getattr(algorithm, "step", None))):
        raise ValueError(
            f"algorithm must have init and step, as what damjax.ogd(..) returns has, but it is {algorithm!r}"
        )


def _check_agents(params: Any) -> None:
    """Raise unless the memories, an array or a tree of arrays, have one leading axis of agents."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"params must be an array or a tree of arrays that all start with the axis of the agents, but their shapes"
            f" are {shapes}; give every agent its own copy of what agents share"
        )


def _length(associations: Associations, num_steps: int | None) -> int:
    shapes = {name: jnp.shape(field) for name, field in associations._asdict().items() if field is not None}
    if not {"keys", "values"} <= set(shapes) or () in shapes.values():
        raise ValueError(
            f"associations must have keys (T, N, dk) and values (T, N, dv), but the shapes of its fields are {shapes};"
            f" damjax.streams.from_arrays(keys, values) makes a stream"
        )
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if len(set(lengths.values())) > 1 or num_steps not in (None, lengths["keys"]):
        raise ValueError(
            f"every field of associations must have the same leading T, but they have {lengths}"
            + ("" if num_steps is None else f" and num_steps is {num_steps}")
        )
    return lengths["keys"]
