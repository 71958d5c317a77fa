"""Checks of what a user passes in: each raises ValueError with what came, what was expected and the fix.

Only concrete NumPy values come here, whoever may hold tracers asks ``concrete`` first; but for ``check_array``,
``check_function``, ``check_instance`` and ``check_key``, which say of what kind an argument must be, and look at no
value.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

ROW_SUM_TOLERANCE = 1e-4
LONGEST_SHOWN = 100  # characters of a value in a message


def check_square(name: str, shape: tuple[int, ...], num_agents: int | None = None) -> None:
    """Raise unless ``shape`` is (N, N), with N = ``num_agents`` when that is given."""
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{name} must have shape (N, N), one row per agent, but its shape is {shape}")
    if num_agents is not None and shape[0] != num_agents:
        raise ValueError(
            f"{name} must have shape ({num_agents}, {num_agents}), one row per agent, but its shape is {shape}"
        )


def check_row_stochastic(name: str, weights: np.ndarray, agents: np.ndarray | None = None) -> None:
    """Raise unless every entry is finite and non-negative and every row sums to one.

    Args:
        name: of the argument.
        weights: one row per agent.
        agents: whom each entry is about; agent m in column m by default.
    """
    if np.any(bad := ~np.isfinite(weights)):
        agent, column = np.argwhere(bad)[0]
        raise ValueError(f"{name} must be finite, but row {agent} holds {weights[agent, column]}")
    if np.any(bad := weights < 0):
        agent, column = np.argwhere(bad)[0]
        other, weight = column if agents is None else agents[agent, column], weights[agent, column]
        raise ValueError(f"{name} must be non-negative, but agent {agent} gives agent {other} the weight {weight:.6g}")
    sums = weights.sum(axis=1, dtype=float)
    # Half precision keeps two or three digits of every entry.
    tolerance = ROW_SUM_TOLERANCE if weights.dtype.itemsize > 2 else 2e-2
    if np.any(bad := np.abs(sums - 1) > tolerance):
        agent = int(np.argmax(bad))
        raise ValueError(
            f"{name} must be row-stochastic, but the row of agent {agent} sums to {sums[agent]:.6g};"
            f" divide each row by its sum"
        )


def check_doubly_stochastic(name: str, mixing: np.ndarray) -> None:
    """Raise unless rows and columns sum to one."""
    check_row_stochastic(name, mixing)
    sums = mixing.sum(axis=0)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(float(sums[worst]) - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(
            f"{name} must be doubly stochastic, but column {worst} sums to {float(sums[worst]):.6g};"
            f" damjax.graphs.metropolis_weights(graph) makes such a matrix"
        )


def check_distributions(name: str, values: np.ndarray) -> None:
    """Raise unless the last axis holds probabilities that sum to one; axes before it are rows of a table."""
    if np.any(bad := ~np.isfinite(values) | (values < 0)):
        wrong = float(values[bad][0])
        raise ValueError(f"{name} must be finite and non-negative, but one entry is {wrong:.6g}; give probabilities")
    sums = np.atleast_1d(values.sum(axis=-1, dtype=float))
    if np.any(np.abs(sums - 1) > ROW_SUM_TOLERANCE):
        worst = sums.flat[np.abs(sums - 1).argmax()]
        found = f"but its sum is {worst:.6g}; divide by it"
        if values.ndim > 1:
            found = f"row by row, but a row sums to {worst:.6g}; divide each row by its sum"
        raise ValueError(f"{name} must sum to one, {found}")


def check_delays_shape(delays: tuple[int, ...], weights: tuple[int, ...], name: str = "delays") -> None:
    """Raise unless the table of round trips has one entry per entry of the weights."""
    if delays != weights:
        raise ValueError(
            f"{name} must have shape {weights}, one round trip per entry of the weights, but its shape is {delays};"
            f" damjax.routing.compile_routes(graph, weights).delays is such a table, (N, K) for sparse weights"
        )


def check_whole_delays(dtype: np.dtype, name: str = "delays") -> None:
    """Raise unless round trips are of an integer type."""
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(
            f"{name} must be integers (time steps), but the dtype is {dtype}; use .astype(int), or damjax.bounds to"
            f" differentiate in delays: a run has no derivative in them"
        )


def check_positive(name: str, number: np.ndarray, *, allow_zero: bool = False) -> None:
    """Raise unless ``number`` is finite and positive (or zero, where that is allowed)."""
    if not _is_real(number.dtype):
        raise ValueError(f"{name} must be a real number, but it is {_shown(number.tolist())}")
    if not np.all(np.isfinite(number)) or np.any(number < 0) or (not allow_zero and np.any(number == 0)):
        raise ValueError(
            f"{name} must be finite and {'non-negative' if allow_zero else 'positive'}, but it is {number}"
        )


def check_count(name: str, number: object, *, allow_zero: bool = False) -> None:
    """Raise unless ``number`` is a positive whole number (or zero, where that is allowed), of an integer type."""
    value = np.asarray(number)
    if not np.issubdtype(value.dtype, np.integer) or value.shape != () or value < (0 if allow_zero else 1):
        raise ValueError(
            f"{name} must be a {'non-negative' if allow_zero else 'positive'} integer, but it is {_shown(number)}"
        )


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed keys, traced or not."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def check_key(name: str, key: Any) -> None:
    """Raise unless it is one key, traced or not, whose draws are the same however it is mapped."""
    typed = is_key(key)
    raw = not typed and getattr(key, "dtype", None) == np.uint32 and np.ndim(key) == 1
    if not raw and not (typed and key.ndim == 0):
        raise ValueError(
            f"{name} must be one key, jax.random.key(seed), but it is {brief(key)}; map over many keys by jax.vmap"
        )
    if typed and str(jax.random.key_impl(key)) == "unsafe_rbg":
        raise ValueError(
            f"{name} must be a key whose draws do not depend on how it is mapped, of the kind threefry2x32 or rbg, but"
            f" its kind is unsafe_rbg; jax.random.key(seed) makes one"
        )


def check_gates_given(gated: bool, gates: object) -> None:
    """Raise unless there are gates where the objective needs them."""
    if gated and gates is None:
        raise ValueError("this objective needs gates in its associations, but gates is None")


def check_gates(name: str, gates: np.ndarray) -> None:
    """Raise for gates that forget what they should keep, or keep more than there is; a NaN is for others to see."""
    if np.any(wrong := (gates <= 0) | (gates > 1)):
        place = tuple(np.argwhere(wrong)[0].tolist())
        entry = f"gates[{', '.join(map(str, place))}]"
        raise ValueError(f"{name} must be in (0, 1], but {entry} is {gates[place]}")


def check_instance(name: str, value: object, kind: type, fix: str) -> None:
    """Raise unless ``value`` is what the library's own factories make."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__}, but it is {_shown(value)}; {fix}")


def check_array(name: str, array: Any, axes: str) -> None:
    """Raise unless ``array``, traced or not, holds real numbers and has the axes that are named.

    Args:
        name: of the argument.
        array: what came; a list of numbers is an array as well.
        axes: as "T N"; "" for one number, "..." for any shape.
    """
    numbers = array if hasattr(array, "dtype") and hasattr(array, "shape") else np.asarray(array)
    expected = f"an array ({', '.join(axes.split())}) of real numbers" if axes else "a real number"
    if not _is_real(numbers.dtype) and numbers.dtype != bool:
        found = _shown(array) if numbers.shape == () else f"an array of {numbers.dtype}"
        raise ValueError(f"{name} must be {expected}, but it is {found}")
    if axes != "..." and len(numbers.shape) != len(axes.split()):
        expected, fix = (expected, "") if axes else ("one number", "; map over several with jax.vmap")
        raise ValueError(f"{name} must be {expected}, but its shape is {numbers.shape}{fix}")


def check_between(name: str, number: np.ndarray, low: float, high: float) -> None:
    """Raise unless ``number`` lies in [low, high]."""
    if not _is_real(number.dtype) or not np.all((number >= low) & (number <= high)):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], but it is {_shown(number.tolist())}")


def check_function(name: str, function: Callable[..., Any], arguments: str, fix: str) -> None:
    """Raise unless ``function`` can be called with these arguments, as "params, associations, info"."""
    names = arguments.split(", ")
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        raise ValueError(
            f"{name} must be a function of ({arguments}), but it is {_shown(function)} ({error}); {fix}"
        ) from None
    except ValueError:
        return  # some functions written in C do not tell what they take


def check_choice(name: str, choice: str, known: tuple[str, ...]) -> None:
    """Raise unless ``choice`` is among the ``known`` names."""
    if not isinstance(choice, str) or choice not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but it is {choice!r}")


def _is_real(dtype: Any) -> bool:
    """Half precisions of jax are of no kind that NumPy knows."""
    return getattr(dtype, "kind", "") in ("f", "i", "u") or "float" in getattr(dtype, "name", "")


def brief(value: object) -> str:
    """A value in at most a line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) < LONGEST_SHOWN else f"of type {type(value).__name__}"


def concrete(array: Any) -> np.ndarray | None:
    """The values of ``array``, or None while it is traced: range checks see concrete values only."""
    return None if isinstance(array, Tracer) else np.asarray(array)


def float_dtype(dtype: jax.typing.DTypeLike | None) -> np.dtype:
    """The dtype of random draws, jax's default float where none is asked for, or a ValueError for what is no float."""
    if dtype is None:
        return np.dtype(jnp.result_type(float))
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype must name a floating-point type, as 'float32' does, but it is {dtype!r}") from error
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(f"dtype must name a floating-point type, as 'float32' does, but it is {dtype!r}")
    return wanted


def missing_extra(needs: str, extra: str) -> ImportError:
    """What to raise where a package is missing that an extra brings; ``needs`` says what needs which package."""
    return ImportError(f"{needs}; install it with: pip install 'damjax[{extra}]'")
