"""Streams of associations: the synthetic linear model of the experiments, and a user's own arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from damjax._arrays import sum_last
from damjax._checks import (
    brief,
    check_array,
    check_between,
    check_count,
    check_positive,
    concrete,
    float_dtype,
)
from damjax.types import ArrayLike, Associations, check_ranges, missing_ones

__all__ = ["LinearModel", "draw_linear_model", "from_arrays", "linear_model", "respond"]

COARSE = 1e-3  # of the spread of an entry: what rounding may take from it

Interval = tuple[float | ArrayLike, float | ArrayLike]


class LinearModel(NamedTuple):
    """The random draws behind ``linear_model``, before the correlation mixes them.

    One draw serves every correlation, and a long stream need never be stored: ``respond`` makes any step of it.

    Attributes:
        common: C, (dv, dk).
        personal: P_n, (N, dv, dk).
        keys: k_nt, (T, N, dk).
        noise: z_nt, (T, N, dv).
    """

    common: Float[Array, "dv dk"]
    personal: Float[Array, "N dv dk"]
    keys: Float[Array, "T N dk"]
    noise: Float[Array, "T N dv"]

    def targets(self, correlation: float | ArrayLike) -> Float[Array, "N dv dk"]:
        """M_n = rho C + (1 - rho) P_n, (N, dv, dk)."""
        _check_correlation(correlation)
        rho = jnp.asarray(correlation, self.common.dtype)
        return rho * self.common[None] + (1 - rho) * self.personal

    def associations(self, targets: Float[Array, "N dv dk"], time: Int[Array, ""] | int) -> Associations:
        """What the agents see at step ``time`` (1-based): k_nt and v_nt = M_n k_nt + z_nt; NaN outside of 1..T."""
        check_array("time", time, "")
        at = jnp.where(jnp.asarray(time) < 1, len(self.keys), jnp.asarray(time) - 1)  # -1 would be the last
        keys, noise = (draws.at[at].get(mode="fill", fill_value=jnp.nan) for draws in (self.keys, self.noise))
        return Associations(keys, respond(targets, keys) + noise)


def respond(targets: Float[Array, "N dv dk"], keys: Float[Array, "*T N dk"]) -> Float[Array, "*T N dv"]:
    """M_n k_n for every agent, without the noise.

    Example:
        >>> respond(2 * jnp.ones((3, 1, 2)), jnp.ones((10, 3, 2))).shape
        (10, 3, 1)
    """
    check_array("targets", targets, "N dv dk")
    if np.shape(keys)[-2:] != (expected := (targets.shape[0], targets.shape[2])):
        raise ValueError(
            f"keys must have shape (.., {expected[0]}, {expected[1]}) to fit targets, but it is {np.shape(keys)}"
        )
    return sum_last(targets.reshape(*[1] * (keys.ndim - 2), *targets.shape) * keys[..., None, :])


def _check_correlation(correlation: float | ArrayLike) -> None:
    check_array("correlation", correlation, "")
    if (rho := concrete(correlation)) is not None:
        check_between("correlation", rho, 0.0, 1.0)


def _check_interval(name: str, interval: Interval, *, non_negative: bool = False) -> None:
    """Raise unless ``interval`` is (low, high) with low <= high, both finite."""
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        raise ValueError(
            f"{name} must be a pair of numbers (low, high), but it is {brief(interval)}; (x, x) fixes the value at x"
        )
    for end in interval:
        check_array(name, end, "")
    low, high = (concrete(end) for end in interval)
    for end in (low, high):
        if end is not None and not np.isfinite(end):
            raise ValueError(f"{name} must have finite ends, but one of them is {end}")
        if end is not None and non_negative and end < 0:
            raise ValueError(f"{name} must be an interval of non-negative numbers, but one of its ends is {end}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{name} must be an interval (low, high) with low <= high, but it is ({low}, {high})")


def draw_linear_model(
    key: Key[Array, ""],
    *,
    num_agents: int = 10,
    num_steps: int = 2000,
    key_dim: int = 5,
    value_dim: int = 5,
    personal_mean: Interval = (-5.0, 5.0),
    personal_variance: Interval = (0.0, 50.0),
    noise_std: float | ArrayLike = 1.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> LinearModel:
    """Draw everything random of the linear model; arguments as for ``linear_model``.

    Example:
        >>> import jax
        >>> model = draw_linear_model(jax.random.key(0), num_steps=7)
        >>> model.keys.shape, model.associations(model.targets(0.5), time=3).values.shape
        ((7, 10, 5), (10, 5))
    """
    for name, number in (
        ("num_agents", num_agents),
        ("num_steps", num_steps),
        ("key_dim", key_dim),
        ("value_dim", value_dim),
    ):
        check_count(name, number)
    _check_interval("personal_mean", personal_mean)
    _check_interval("personal_variance", personal_variance, non_negative=True)
    check_array("noise_std", noise_std, "")
    if (value := concrete(noise_std)) is not None:
        check_positive("noise_std", value, allow_zero=True)
    dtype = float_dtype(dtype)
    common_key, mean_key, variance_key, personal_key, cue_key, noise_key = jax.random.split(key, 6)
    per_agent = (num_agents, 1, 1)
    mean = _uniform(mean_key, per_agent, dtype, personal_mean)
    variance = _uniform(variance_key, per_agent, dtype, personal_variance)
    normal = jax.random.normal(personal_key, (num_agents, value_dim, key_dim), dtype)
    return LinearModel(
        common=jax.random.chisquare(common_key, 2.0, (value_dim, key_dim), dtype),
        personal=mean + jnp.sqrt(variance) * normal,
        keys=jax.random.uniform(cue_key, (num_steps, num_agents, key_dim), dtype, minval=-1.0),
        noise=jnp.asarray(noise_std, dtype) * jax.random.normal(noise_key, (num_steps, num_agents, value_dim), dtype),
    )


def _uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype: np.dtype, interval: Interval) -> Array:
    low, high = (jnp.asarray(end, dtype) for end in interval)
    return jax.random.uniform(key, shape, dtype, minval=low, maxval=high)


def linear_model(
    key: Key[Array, ""],
    *,
    num_agents: int = 10,
    num_steps: int = 2000,
    key_dim: int = 5,
    value_dim: int = 5,
    correlation: float | ArrayLike = 0.5,
    personal_mean: Interval = (-5.0, 5.0),
    personal_variance: Interval = (0.0, 50.0),
    noise_std: float | ArrayLike = 1.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> tuple[Associations, Float[Array, "N dv dk"]]:
    """The data of the experiments: v_nt = M_n k_nt + z_nt with M_n = rho C + (1 - rho) P_n.

    k_nt has i.i.d. uniform entries on [-1, 1]; z_nt ~ N(0, sigma^2 I); the common C has i.i.d. chi-squared(2) entries;
    the personal P_n Gaussian ones, whose mean and variance are uniform on an interval each, one pair an agent.
    The same key gives the same draws at every correlation, interval and noise level.

    Args:
        key: typed PRNG key.
        num_agents: N.
        num_steps: T.
        key_dim: dk.
        value_dim: dv.
        correlation: rho in [0, 1]: 0, every agent its own target; 1, one target for all.
        personal_mean: interval (low, high) of the mean of an agent's personal entries; (x, x) fixes it at x.
        personal_variance: interval of their variance, low >= 0.
        noise_std: sigma >= 0.
        dtype: of the stream; jax's default float otherwise.

    Returns:
        Associations with keys (T, N, dk) and values (T, N, dv), and the targets M (N, dv, dk).

    Raises:
        ValueError: a dimension that is not positive, a correlation outside [0, 1], a negative noise level, an interval
            that is not finite or whose ends are not in order, a variance that may be negative.

    Example:
        >>> import jax
        >>> stream, targets = linear_model(jax.random.key(0), num_agents=3, num_steps=8, value_dim=4)
        >>> stream.keys.shape, stream.values.shape, targets.shape
        ((8, 3, 5), (8, 3, 4), (3, 4, 5))

    Source: [DAM] sec. 5, whose text leaves the intervals, N, dk, dv, sigma and T open. The intervals and sigma = 1 are
    those that [DDAM], the follow-up by the same authors, prints for the same generator; N, dk, dv and T are ours.
    """
    _check_correlation(correlation)
    model = draw_linear_model(
        key,
        num_agents=num_agents,
        num_steps=num_steps,
        key_dim=key_dim,
        value_dim=value_dim,
        personal_mean=personal_mean,
        personal_variance=personal_variance,
        noise_std=noise_std,
        dtype=dtype,
    )
    targets = model.targets(correlation)
    return Associations(model.keys, respond(targets, model.keys) + model.noise), targets


def from_arrays(
    keys: Float[ArrayLike, "T N dk"],
    values: Float[ArrayLike, "T N dv"],
    gates: Float[ArrayLike, "..."] | None = None,
    *,
    sample_weights: Float[ArrayLike, "T N"] | Bool[ArrayLike, "T N"] | None = None,
) -> Associations:
    """A stream from the user's own data, checked.

    All fields come in one dtype: the widest of theirs, or jax's default float for whole numbers.

    Args:
        keys: (T, N, dk), finite.
        values: (T, N, dv), finite.
        gates: in (0, 1], shape (T, N), (T, N, dv, 1) or (T, N, 1, df); None without gates.
        sample_weights: what single associations count, non-negative and finite, or a mask, (T, N); None where all count
            alike. Those of weight 0 are missing, and their keys, values and gates may be anything, such as NaN.

    Returns:
        Associations with a leading T on every field.

    Raises:
        ValueError: shapes that do not meet, entries that are not numbers, not finite or out of range, and what the
            dtype that jax uses cannot hold or tell apart (it is single precision unless ``jax_enable_x64`` is on).

    Example:
        >>> import numpy as np
        >>> from_arrays(np.ones((5, 2, 3), np.float32), np.zeros((5, 2, 4), np.float32)).values.shape
        (5, 2, 4)
        >>> keys = np.array([[[1.0]], [[np.nan]]])
        >>> from_arrays(keys, keys, sample_weights=~np.isnan(keys[..., 0])).sample_weights.tolist()
        [[1.0], [0.0]]
    """
    optional = {"gates": gates, "sample_weights": sample_weights}
    fields = {"keys": keys, "values": values} | {name: it for name, it in optional.items() if it is not None}
    fields = {name: array if isinstance(array, jax.Array) else np.asarray(array) for name, array in fields.items()}
    for name, array in fields.items():
        if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must hold real numbers, but their dtype is {array.dtype}; use .astype(float)")
        if name in ("keys", "values") and array.ndim != 3:
            raise ValueError(f"{name} must have shape (steps, agents, entries), but its shape is {array.shape}")
        if array.shape[:2] != fields["keys"].shape[:2]:
            raise ValueError(
                f"{name} must start with the steps and agents of keys, {fields['keys'].shape[:2]}, but its shape is"
                f" {array.shape}"
            )
        if name == "sample_weights" and array.ndim != 2:
            raise ValueError(f"{name} must have shape (steps, agents), but its shape is {array.shape}")
    floats = [array.dtype for array in fields.values() if jnp.issubdtype(array.dtype, jnp.floating)]
    dtype = jax.dtypes.canonicalize_dtype(max(floats, key=lambda dtype: dtype.itemsize, default=float))
    with np.errstate(over="ignore"):  # checked below
        rounded = {name: jnp.asarray(array, dtype) for name, array in fields.items()}
    stream = Associations(**rounded)
    missing = missing_ones(stream)
    for name, array in rounded.items():
        if not isinstance(array, Tracer) and missing is not None:
            gone = np.zeros_like(missing) if name == "sample_weights" else missing
            _check_rounding(name, np.asarray(fields[name]), np.asarray(array), gone)
    check_ranges("", stream)
    return stream


def _check_rounding(name: str, original: np.ndarray, rounded: np.ndarray, missing: np.ndarray) -> None:
    """Raise unless every entry is finite, and only rounding tells it from the user's own in the precision jax has."""

    def refuse(wrong: np.ndarray, why: str) -> None:
        if np.any(wrong):
            place = tuple(np.argwhere(wrong)[0].tolist())
            entry = f"{name}[{', '.join(map(str, place))}]"
            raise ValueError(
                f"{name} must be {why.format(entry=entry, original=original[place], rounded=rounded[place])}"
            )

    double = "switch on jax_enable_x64"
    exact, kept = original.astype(float), rounded.astype(float)
    exact[missing] = kept[missing] = 1
    refuse(~np.isfinite(exact), "finite, but {entry} is {original}")
    become = "but {entry} is {original}, which becomes {rounded}"
    changed = f"representable in {rounded.dtype}, {become}; rescale, or {double}"
    refuse(~np.isfinite(kept) | ((kept == 0) & (exact != 0)), changed)
    if np.issubdtype(original.dtype, np.integer):
        refuse(kept != exact, changed)
    if name in ("gates", "sample_weights"):
        return
    # Of Unix seconds, say, single precision keeps one in a hundred.
    seen = exact[~missing]
    spread = np.ptp(seen, axis=0) if seen.size else np.zeros(exact.shape[2:])
    lost = (np.abs(kept - exact) > COARSE * spread) & (spread > 0)
    refuse(
        lost,
        f"told apart in {rounded.dtype}, but {{entry}} is {{original}} and becomes {{rounded}}; shift it, or {double}",
    )
