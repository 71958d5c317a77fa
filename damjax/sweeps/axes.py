"""The axes of a sweep and its seeds: what a user passes as arrays, and the labels by which a value is found again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from damjax._checks import brief, is_key

__all__ = ["Seeds", "as_seeds", "axis_labels", "axis_values", "matching"]


def axis_values(name: str, values: Any, static: bool) -> np.ndarray:
    """The values of an axis as an array with one value per setting: of numbers, of names, or of objects.

    Raises:
        ValueError: no list of values, or values of no such kind.

    Example:
        >>> axis_values("rho", [0.0, 0.5], False).dtype, axis_values("size", [(2, 3), (4, 5)], True).shape
        (dtype('float64'), (2,))
    """
    _check_listed(name, values)
    if not len(values):
        raise ValueError(f"axis {name} must hold at least one value, but it is empty")
    if isinstance(values, Sequence) and (static or not all(_is_numeric(value) for value in values)):
        # One by one: a record or a pair is one value, not a row of several.
        objects = np.empty(len(values), object)
        objects[:] = list(values)
        return np.array(values) if all(isinstance(value, str) for value in values) else objects
    if _holds_keys(values):
        raise ValueError(
            f"axis {name} must hold numbers, names or objects, but it holds typed keys; what differs from seed to seed"
            f" belongs into keys, a pytree if need be, and other keys go as jax.random.key_data"
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"axis {name} must be an array, but its values have unequal shapes: {error}") from None
    if array.dtype.kind not in "biufcOUS" or (array.dtype.kind in "OUS" and array.ndim > 1):
        raise ValueError(
            f"axis {name} must be an array of numbers or a list of names or objects, but it has dtype {array.dtype} and"
            f" shape {array.shape}"
        )
    _check_fits(f"axis {name}", array)
    return array


def _check_listed(name: str, values: Any) -> None:
    """Raise unless it is an array or a list; a record is one value, though it is a tuple."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and not hasattr(values, "_fields")
    if is_list or getattr(values, "ndim", 0) > 0:
        return
    unordered = (
        isinstance(values, Iterable) and not isinstance(values, (str, Mapping, tuple)) and not hasattr(values, "ndim")
    )
    shown = brief(repr(values))
    fix = f"list({shown})" if unordered else f"[{shown}]"
    raise ValueError(f"axis {name} must hold one value per setting, but it is {shown}; write {fix}")


def _holds_keys(values: Any) -> bool:
    """Whether there is a typed key among them."""
    return any(is_key(leaf) for leaf in jax.tree.leaves(values))


def _is_numeric(value: Any) -> bool:
    """Whether it is a number, or an array or nested list of numbers."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return all(_is_numeric(part) for part in value)
    return isinstance(value, (int, float, complex, np.generic, np.ndarray, jax.Array))


def _check_fits(name: str, array: np.ndarray) -> None:
    """Raise if jax, with double precision switched off, would wrap large integers around."""
    if array.dtype.kind not in "iu":
        return
    narrow = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    if np.any(narrow != array):
        raise ValueError(
            f"{name} must hold integers of at most 32 bits while jax's double precision is off, but one is"
            f" {array[narrow != array].flat[0]}; switch on jax_enable_x64"
        )


def axis_labels(values: np.ndarray, static: bool) -> np.ndarray:
    """The coordinates of an axis: values that are numbers or names, places of arrays, names of objects."""
    if values.ndim > 1:
        return np.arange(len(values))
    if values.dtype.kind != "O" or not static:
        return values
    if all(isinstance(value, (bool, int, float)) for value in values):
        return np.array(values.tolist())
    names = [getattr(value, "__name__", str(value)) for value in values]
    # An address would be another one in every process, a name that comes twice would tell nothing apart, and what runs
    # over a line is no name.
    unclear = len(set(names)) < len(names) or any(
        " at 0x" in name or name == "<lambda>" or "\n" in name or len(name) > 80 for name in names
    )
    if unclear and not all(isinstance(value, str) for value in values):
        names = [f"{getattr(value, '__name__', type(value).__name__)}_{place}" for place, value in enumerate(values)]
    return np.array(names)


def matching(name: str, labels: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Where a label, of the argument ``name``, stands among those of an axis; NaN is equal to itself here.

    A number that is none of them is taken for one that differs by rounding, as 0.3 from 0.1 + 0.2.
    """
    if label.ndim:
        raise ValueError(f"{name} must hold one label per axis, but one is {label.tolist()}; arrays go by their place")
    equal = np.asarray((labels == label) | ((labels != labels) & bool(label != label)))
    if equal.any() or labels.dtype.kind != "f" or label.dtype.kind != "f":
        return equal
    return np.isclose(labels, label, rtol=8 * np.finfo(labels.dtype).eps, atol=0)


class Seeds(NamedTuple):
    """What differs from seed to seed, as plain arrays, so that any of it can be picked on the host.

    Attributes:
        leaves: NumPy arrays (S, ...); typed keys as their data.
        kinds: per leaf the implementation of its keys, None for other arrays.
        structure: of the pytree.
    """

    leaves: tuple[np.ndarray, ...]
    kinds: tuple[str | None, ...]
    structure: Any

    def take(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """The leaves of these seeds."""
        return tuple(leaf[places] for leaf in self.leaves)

    def restore(self, leaves: Sequence[Any]) -> Any:
        """The user's pytree, typed keys included; traced or not."""
        typed = [
            leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
            for leaf, kind in zip(leaves, self.kinds, strict=True)
        ]
        return jax.tree.unflatten(self.structure, typed)


def as_seeds(keys: Any) -> Seeds:
    """Take typed keys apart; other leaves become NumPy arrays."""
    leaves, structure = jax.tree.flatten(keys)
    typed = [is_key(leaf) for leaf in leaves]
    plain = [np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(leaves, typed, strict=True)]
    for leaf in plain:
        _check_fits("keys", leaf)
    kinds = [str(jax.random.key_impl(leaf)) if key else None for leaf, key in zip(leaves, typed, strict=True)]
    return Seeds(tuple(plain), tuple(kinds), structure)
