"""Memories that attend: slots, whose keys and values are learned, and a window of what was seen last."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from damjax._arrays import beside, dtype_of, product
from damjax._checks import check_array, check_count, check_instance, check_positive, concrete, float_dtype
from damjax.algorithms import describe
from damjax.channels.channel import NOTHING, Arrivals, mean_of
from damjax.channels.delays import Delays, as_delays, weights_beside
from damjax.recall.memories.memory import Memory
from damjax.types import Algorithm, ArrayLike, Associations, Info
from damjax.weights.epochs import EpochWeights, changing_interests
from damjax.weights.interests import Weights

__all__ = ["Window", "share_associations", "slots", "window_attention"]


def slots(
    key_dim: int,
    value_dim: int,
    *,
    num_slots: int,
    beta: float | ArrayLike | None = None,
    dtype: jax.typing.DTypeLike | None = None,
) -> Memory:
    """A dense associative memory with S slots that are learned: V' softmax(beta K q).

    It is scaled dot-product attention to a cache that nobody wrote: gradients move keys and values to where they help.

    Args:
        key_dim: dk.
        value_dim: dv.
        num_slots: S.
        beta: inverse temperature, > 0; 1 / sqrt(dk) by default.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of {"keys": K (S, dk), "values": V (S, dv)}; keys begin as draws from N(0, I), values as zeros.

    Raises:
        ValueError: a size that is no positive integer, a beta that is not positive.

    Example:
        >>> memory = slots(2, 1, num_slots=2, beta=50.0)
        >>> params = {"keys": jnp.eye(2), "values": jnp.array([[3.0], [5.0]])}
        >>> memory.apply(params, jnp.array([0.0, 1.0])).round(4).tolist()
        [5.0]

    Source: Ramsauer et al. 2021, "Hopfield networks is all you need", eq. 3, with keys and values apart.
    """
    for name, size in (("key_dim", key_dim), ("value_dim", value_dim), ("num_slots", num_slots)):
        check_count(name, size)
    scale, dtype = _inverse_temperature(beta, key_dim), float_dtype(dtype)

    def init(key: Key[Array, ""]) -> dict[str, Array]:
        return {
            "keys": jax.random.normal(key, (num_slots, key_dim), dtype),
            "values": jnp.zeros((num_slots, value_dim), dtype),
        }

    def apply(params: dict[str, Array], key: Float[Array, "dk"]) -> Float[Array, "dv"]:
        scores = jnp.asarray(scale, key.dtype) * product(params["keys"], key)
        return product(jax.nn.softmax(scores), params["values"])

    return Memory(init, apply)


class Window(NamedTuple):
    """The associations of the last L steps, by those of S senders; the step s lies in row s mod L.

    Attributes:
        keys: (L, S, dk).
        values: (L, S, dv).
        waits: steps until an association is there, (L, S): 0 or less for one that is; for none, and for one that never
            comes, the largest number of the dtype. A float, as all parameters are.
    """

    keys: Float[Array, "*N L S dk"]
    values: Float[Array, "*N L S dv"]
    waits: Float[Array, "*N L S"]


def window_attention(
    key_dim: int,
    value_dim: int,
    *,
    length: int,
    num_senders: int = 1,
    beta: float | ArrayLike | None = None,
    dtype: jax.typing.DTypeLike | None = None,
) -> Memory:
    """Softmax attention over the associations of the last L steps, which are stored as they are: nothing is learned.

    It is the ceiling that a learned memory is measured by, where no cue comes twice: of two responses to one cue it
    recalls the mean. The price is that all that was seen is stored, and sent as it is. ``share_associations`` is the
    algorithm that fills it; gradient steps would move what was seen, so that ``ogd`` and its kin find nothing to learn:
    the gradient is zero.

    Args:
        key_dim: dk.
        value_dim: dv.
        length: L, in steps.
        num_senders: S, whose associations there is room for: the number of columns of the weights, 1 for an agent that
            keeps its own only.
        beta: inverse temperature, > 0; 1 / sqrt(dk) by default.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of a Window, which begins empty; an empty one recalls zeros.

    Raises:
        ValueError: a size that is no positive integer, a beta that is not positive.

    Example:
        >>> memory = window_attention(2, 1, length=8, beta=50.0)
        >>> empty = memory.init(jax.random.key(0))
        >>> full = Window(empty.keys.at[3, 0].set(1.0), empty.values.at[3, 0].set(7.0), empty.waits.at[3, 0].set(0.0))
        >>> float(memory.apply(empty, jnp.ones(2))[0]), float(memory.apply(full, jnp.ones(2))[0])
        (0.0, 7.0)
    """
    sizes = {"key_dim": key_dim, "value_dim": value_dim, "length": length, "num_senders": num_senders}
    for name, size in sizes.items():
        check_count(name, size)
    scale, dtype = _inverse_temperature(beta, key_dim), float_dtype(dtype)

    def init(key: Key[Array, ""]) -> Window:
        return Window(
            keys=jnp.zeros((length, num_senders, key_dim), dtype),
            values=jnp.zeros((length, num_senders, value_dim), dtype),
            waits=jnp.full((length, num_senders), _never(dtype), dtype),
        )

    def apply(params: Window, key: Float[Array, "dk"]) -> Float[Array, "dv"]:
        keys, values, waits = jax.lax.stop_gradient(jax.tree.map(_as_rows, params))
        scores = jnp.asarray(scale, key.dtype) * product(keys, key)
        return product(_attention(scores, waits <= 0), values)

    return Memory(init, apply)


def _never(dtype: jax.typing.DTypeLike) -> float:
    """How long to wait for what never comes: a run of it is finite."""
    return float(jnp.finfo(dtype).max)


def _as_rows(leaf: Float[Array, "L S *item"]) -> Float[Array, "rows *item"]:
    return leaf.reshape(-1, *leaf.shape[2:])


def _attention(scores: Float[Array, "rows"], there: Bool[Array, "rows"]) -> Float[Array, "rows"]:
    """The softmax over what is there; zeros where nothing is."""
    highest = jnp.max(scores, where=there, initial=-jnp.inf)
    powers = jnp.where(there, jnp.exp(jnp.where(there, scores - jnp.where(there, highest, 0), 0)), 0)
    total = jnp.sum(powers)
    return powers / jnp.where(total > 0, total, 1)


def _inverse_temperature(beta: float | ArrayLike | None, key_dim: int) -> float | ArrayLike:
    if beta is None:
        return key_dim**-0.5
    check_array("beta", beta, "")
    if (value := concrete(beta)) is not None:
        check_positive("beta", value)
    return beta


class Sharing(NamedTuple):
    """What the next step needs of agents that share their associations.

    Attributes:
        step: steps made so far, ().
        params: the windows, with a leading N on every field.
    """

    step: Int[Array, ""]
    params: Window


def share_associations(weights: Weights | EpochWeights, delays: Delays, *, max_delay: int | None = None) -> Algorithm:
    """Agents that send one another their associations, and attend to those of the last steps: the ceiling of recall.

    Agent n keeps, of every agent m with w_nm > 0, the association of each of the last L steps, from the step in which
    it arrives: that of step s is there for the memory X_{t+1} once s + tau_nm <= t. Nothing is learned, and nothing
    stays private.

    Args:
        weights: interest weights W, (N, N), row-stochastic, or ``SparseWeights``, or ``EpochWeights``: whose
            associations an agent gets, where they are not 0; how large they are does not count.
        delays: as for ``damjax.dam_togd``, of the associations.
        max_delay: as for ``damjax.dam_togd``. What comes L steps late, or later, finds its place taken.

    Returns:
        An Algorithm of the memories of ``window_attention(.., num_senders=K)``, with K the columns of the weights; its
        info counts what arrives as ``num_applied``, and the gradients are zero.

    Raises:
        ValueError: weights or delays as of ``dam_togd``; at init, memories that are no windows, or of other senders.

    Example:
        >>> import damjax
        >>> weights, delays = jnp.full((3, 3), 1 / 3), 2 * (1 - jnp.eye(3, dtype=jnp.int32))
        >>> memory = window_attention(4, 2, length=16, num_senders=3)
        >>> windows = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), 3))
        >>> stream, _ = damjax.streams.linear_model(
        ...     jax.random.key(1), num_agents=3, num_steps=20, key_dim=4, value_dim=2)
        >>> state, trace = damjax.simulate(share_associations(weights, delays), windows, stream)
        >>> trace.info.num_applied[:4, 0].tolist(), int((state.params.waits[0] <= 0).sum())
        ([1, 1, 3, 3], 44)
    """
    changing = changing_interests("weights", weights_beside(weights, delays))
    changing, round_trips, max_delay = as_delays(delays, changing, max_delay)
    num_agents, num_columns = changing.shape

    def init(params: Window) -> Sharing:
        check_instance("params", params, Window, "jax.vmap(window_attention(..).init)(keys) makes them")
        if jnp.ndim(params.waits) != 3 or jnp.shape(params.waits)[::2] != (num_agents, num_columns):
            raise ValueError(
                f"params must be windows of {num_agents} agents with room for {num_columns} senders, waits"
                f" ({num_agents}, L, {num_columns}), but the shape of waits is {jnp.shape(params.waits)}; make them by"
                f" window_attention(.., num_senders={num_columns})"
            )
        return Sharing(jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, params))

    def step(state: Sharing, associations: Associations) -> tuple[Sharing, Info]:
        time = state.step + 1
        interests, delays_now = changing.at(time), round_trips(time)
        wanted = interests.mask
        if associations.sample_weights is not None:
            wanted = wanted & (interests.gather(jnp.asarray(associations.sample_weights)) != 0)
        dtype = dtype_of(state.params)
        sent = jnp.where(wanted & (delays_now >= 0), delays_now.astype(dtype), _never(dtype))
        row = time % state.params.waits.shape[1]

        def written(ring: Array, item: Array) -> Array:
            item = jnp.broadcast_to(item, (num_agents, *item.shape[1:]))
            return jax.lax.dynamic_update_index_in_dim(ring, item, row, 1)

        seen = [interests.gather(jnp.asarray(field)) for field in (associations.keys, associations.values)]
        # Where nothing comes a NaN may stand, and zero times that is one.
        seen = [jnp.where(beside(wanted, jnp.broadcast_to(x, (num_agents, *x.shape[1:]))), x, 0) for x in seen]
        a_step_later = state.params._replace(waits=state.params.waits - 1)
        params = Window(*map(written, a_step_later, (*seen, sent)))
        arrivals = _arrivals(params, row, wanted & (delays_now < 0))
        nothing = jax.tree.map(jnp.zeros_like, params)
        return Sharing(time, params), describe(time, nothing, arrivals, params, params)

    return Algorithm(init, step)


def _arrivals(params: Window, row: Int[Array, ""], lost: Bool[Array, "N K"]) -> Arrivals:
    """What is there since this step, whose associations lie in this row."""
    length = params.waits.shape[1]
    ages = ((row - jnp.arange(length, dtype=row.dtype)) % length)[None, :, None]
    arrived = params.waits == 0
    number = jnp.sum(arrived, axis=(1, 2), dtype=jnp.int32)
    total = jnp.sum(jnp.where(arrived, ages, 0), axis=(1, 2), dtype=jnp.int32)
    return Arrivals(
        any=number > 0,
        number=number,
        max_age=jnp.max(jnp.where(arrived, ages, NOTHING), axis=(1, 2)),
        lost=jnp.sum(lost, axis=1, dtype=jnp.int32),
        mean_age=mean_of(total, number, params.keys.dtype),
    )
